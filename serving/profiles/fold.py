"""Feature rows of one customer at one moment, from the customer's own events.

The live twin of `feature_repo/transforms`: what an ASOF join finds for a customer at a moment there,
`fold` computes here from the events strictly before that moment, column by column alike. A purchase
occasion is a distinct moment at which the customer bought the thing.

Belongs here: counting over one history, in numpy. Does not belong here: arithmetic that depends on
the moment of the request (`contracts.features.ranker_features`).
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from contracts.events import ACTIONS, CHANNELS
from contracts.features import (
    CUSTOMER_HALF_LIVES,
    MICROSECONDS_PER_DAY,
    OWN_STORE_HALF_LIFE,
    PAIR_HALF_LIVES,
)
from serving.profiles.history import History

Floats = NDArray[np.float64]
Columns = dict[str, Floats]

_PURCHASE = ACTIONS.index("purchase")
_REDEEM = ACTIONS.index("redeem")
_IMPRESSION = ACTIONS.index("impression")
_STORE = CHANNELS.index("store")
_MAIL = CHANNELS.index("direct_mail")
_PHYSICAL = np.array([_STORE, _MAIL, CHANNELS.index("support")], np.int8)


class Catalogue(Protocol):
    """What the fold must know about items, by item index.

    Attributes:
        type_id: int32[N], -1 for no type.
        category_id: int32[N], -1 for no category.
        private: bool[N].
    """

    type_id: NDArray[np.int32]
    category_id: NDArray[np.int32]
    private: NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class State:
    """Feature rows of one customer at one moment.

    Attributes:
        c: Row of view `customer` by column; empty for a customer without events.
        items: int32[K], indices of items bought, ascending.
        cp: Rows of view `customer_product`, float64[K] by column.
        types: int32[T], type ids bought, ascending.
        ct: Rows of view `customer_type`, float64[T] by column.
        categories: int32[G], category ids bought, ascending.
        cc: Rows of view `customer_category`, float64[G] by column.
        stores: int32[Q], store of each row of ``cs``, ascending.
        store_items: int32[Q], item of each, ascending inside a store.
        cs: Rows of view `customer_store_product`, float64[Q] by column.
    """

    c: dict[str, float]
    items: NDArray[np.int32]
    cp: Columns
    types: NDArray[np.int32]
    ct: Columns
    categories: NDArray[np.int32]
    cc: Columns
    stores: NDArray[np.int32]
    store_items: NDArray[np.int32]
    cs: Columns


def fold(history: History, catalogue: Catalogue, at_days: float) -> State:
    """Compute the feature rows of a customer.

    Args:
        history: The customer's events, by time.
        catalogue: Types, categories and brands of items.
        at_days: The moment, in days since 1970-01-01 UTC; events at or after it are not seen.
    """
    seen = history.before(round(at_days * MICROSECONDS_PER_DAY))
    bought = seen.select(seen.action == _PURCHASE)
    baskets = np.unique(bought.at)
    known = bought.select(bought.item >= 0)
    items, cp = _pairs(known, known.item, baskets, "cp")
    types, ct = _level(known, catalogue.type_id, baskets, "ct")
    categories, cc = _level(known, catalogue.category_id, baskets, "cc")
    customer = _customer(seen, bought, known, catalogue)
    return State(customer, items, cp, types, ct, categories, cc, *_in_stores(known))


def _level(
    known: History, level: NDArray[np.int32], baskets: Floats, prefix: str
) -> tuple[NDArray[np.int32], Columns]:
    key = level[known.item]
    return _pairs(known.select(key >= 0), key[key >= 0], baskets, prefix)


def _pairs(
    bought: History, key: NDArray[np.int32], baskets: Floats, prefix: str
) -> tuple[NDArray[np.int32], Columns]:
    """Rows by key: `bought` holds purchase lines in time order, `key` the thing of each line.

    `baskets` holds the customer's distinct purchase moments, ascending.
    """
    order = np.argsort(key, kind="stable")
    key, at, at_us = key[order], bought.at[order], bought.at_us[order]
    size = len(key)
    new_key = np.ones(size, np.bool_)
    new_key[1:] = key[1:] != key[:-1]
    new_occasion = new_key.copy()
    new_occasion[1:] |= at_us[1:] != at_us[:-1]
    first_line = np.flatnonzero(new_occasion)  # of each occasion
    occasion_key = np.cumsum(new_key)[first_line] - 1  # dense number of the key
    things = int(new_key.sum())
    moments = at[first_line]
    start = np.flatnonzero(new_key[first_line])  # first occasion of each key
    stop = np.append(start, len(moments))[1:]
    first_at, last_at = moments[start], moments[stop - 1]
    gaps = np.zeros(len(moments))
    gaps[1:] = np.diff(moments)
    gaps[start] = 0.0
    discounted = (
        np.maximum.reduceat(bought.discount[order] > 0, first_line) if size else np.zeros(0, np.bool_)
    )
    age = moments - last_at[occasion_key]
    columns = {
        "orders": (stop - start).astype(np.float64),
        "units": _sums(np.cumsum(new_key) - 1, bought.quantity[order], things),
        "discount_orders": _sums(occasion_key, discounted, things),
        "gap_sq": _sums(occasion_key, gaps * gaps, things),
        "first_at": first_at,
        "last_at": last_at,
        "first_order": np.searchsorted(baskets, first_at) + 1.0,
        "last_order": np.searchsorted(baskets, last_at) + 1.0,
        **{f"decay_{half}": _sums(occasion_key, np.exp2(age / half), things) for half in PAIR_HALF_LIVES},
    }
    return key[new_key].astype(np.int32), {f"{prefix}_{name}": values for name, values in columns.items()}


def _in_stores(known: History) -> tuple[NDArray[np.int32], NDArray[np.int32], Columns]:
    """Store, item and row of each pair of them; `known` holds purchase lines in time order."""
    here = known.select(known.store >= 0)
    order = np.lexsort((here.item, here.store))  # Stable: lines of one pair stay in time order.
    store, item, at, at_us = here.store[order], here.item[order], here.at[order], here.at_us[order]
    new_pair = np.ones(len(order), np.bool_)
    new_pair[1:] = (store[1:] != store[:-1]) | (item[1:] != item[:-1])
    new_occasion = new_pair.copy()
    new_occasion[1:] |= at_us[1:] != at_us[:-1]
    first_line = np.flatnonzero(new_occasion)
    moments = at[first_line]
    pair = np.cumsum(new_pair)[first_line] - 1
    start = np.flatnonzero(new_pair[first_line])
    stop = np.append(start, len(moments))[1:]
    last_at = moments[stop - 1]
    columns = {
        "cs_orders": (stop - start).astype(np.float64),
        "cs_last_at": last_at,
        "cs_decay_90": _sums(pair, np.exp2((moments - last_at[pair]) / OWN_STORE_HALF_LIFE), len(start)),
    }
    return store[new_pair], item[new_pair], columns


def _sums(group: NDArray[np.int64], values: NDArray[np.generic], groups: int) -> Floats:
    return np.bincount(group, weights=values.astype(np.float64), minlength=groups).astype(
        np.float64, copy=False
    )


def _customer(seen: History, bought: History, known: History, catalogue: Catalogue) -> dict[str, float]:
    if not len(seen):
        return {}
    row_at = float(seen.at[-1])
    moments = np.unique(bought.at)
    gaps = np.diff(moments)
    pairs, discounted = _lines(bought)
    lines_at = bought.at[pairs]
    spend = bought.quantity.astype(np.float64) * bought.unit_price
    private = catalogue.private[bought.item[pairs]] & (bought.item[pairs] >= 0)
    row = {
        "c_orders": float(len(moments)),
        "c_lines": float(len(pairs)),
        "c_products": float(len(np.unique(known.item))),
        "c_spend": float(spend.sum()),
        "c_discount_lines": float(discounted.sum()),
        "c_private_lines": float(private.sum()),
        "c_redemptions": float((seen.action == _REDEEM).sum()),
        "c_mailings": float(((seen.channel == _MAIL) & (seen.action == _IMPRESSION)).sum()),
        "c_store_events": float((seen.channel == _STORE).sum()),
        "c_digital_events": float((~np.isin(seen.channel, _PHYSICAL)).sum()),
        "c_mail_events": float((seen.channel == _MAIL).sum()),
        "c_gap_sq": float((gaps * gaps).sum()),
        "c_first_at": float(moments[0]) if len(moments) else np.nan,
        "c_last_at": float(moments[-1]) if len(moments) else np.nan,
        "c_row_at": row_at,
    }
    for half in CUSTOMER_HALF_LIVES:
        row[f"c_decay_orders_{half}"] = float(np.exp2((moments - row_at) / half).sum())
        row[f"c_decay_lines_{half}"] = float(np.exp2((lines_at - row_at) / half).sum())
    row["c_decay_spend_90"] = float((spend * np.exp2((bought.at - row_at) / 90)).sum())
    return row


def _lines(bought: History) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """First line of each (moment, product) pair, and whether any line of the pair was discounted."""
    order = np.lexsort((bought.item, bought.at_us))
    if not len(order):
        return order, np.zeros(0, np.bool_)
    item, at_us = bought.item[order], bought.at_us[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = (item[1:] != item[:-1]) | (at_us[1:] != at_us[:-1])
    first = np.flatnonzero(new)
    return order[first], np.logical_or.reduceat(bought.discount[order] > 0, first)
