"""What is computed once per history and release, and holds for every later request of that customer.

Belongs here: the encoder's sequence, the fold, and the candidates that only the history decides. Does
not belong here: anything that depends on the moment, the store or the filters of a request.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from contracts.events import ACTIONS
from contracts.features import (
    CUSTOMER_CATEGORY_COLUMNS,
    CUSTOMER_COLUMNS,
    CUSTOMER_PRODUCT_COLUMNS,
    CUSTOMER_STORE_PRODUCT_COLUMNS,
    CUSTOMER_TYPE_COLUMNS,
)
from serving.engine.items import ItemTable, places
from serving.profiles.fold import Columns, State, fold
from serving.profiles.history import History

if TYPE_CHECKING:
    from serving.engine.candidates import Candidates

Padded = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]

ANCHORS = 10
"""Latest events whose items stand for what a customer without purchases is after."""

USUAL_HALF_LIFE = 30.0
"""Days after which a visit counts half for the usual store."""

_PURCHASE = ACTIONS.index("purchase")
_AFTER_EVERYTHING = 1e6
"""Days since 1970 beyond any event: the fold's rows do not depend on the moment of the request."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Sequence:
    """The latest events as the encoder reads them, oldest first.

    Attributes:
        item: int64[L], encoder ids, 0 for none.
        action: int64[L], index in ACTIONS + 1.
        channel: int64[L], index in CHANNELS + 1.
        at: float64[L], days; purchases of one session carry the time of the session's first purchase.
    """

    item: NDArray[np.int64]
    action: NDArray[np.int64]
    channel: NDArray[np.int64]
    at: NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class PairRows:
    """Feature rows by key, laid out for look-up.

    Attributes:
        keys: int32[K], ascending.
        names: Column names.
        values: float64[columns, K + 1], columns as the fold gives them; the first row is 0, for keys
            without a row.
    """

    keys: NDArray[np.int32]
    values: NDArray[np.float64]

    def places(self, wanted: NDArray[np.int32]) -> NDArray[np.int32]:
        """Row of each wanted key, 0 where there is none."""
        return places(self.keys, wanted)

    def table(self, size: int) -> NDArray[np.int32]:
        """int32[size + 1], row by key in [0, size), 0 where there is none; the last entry answers for -1."""
        rows = np.zeros(size + 1, np.int32)
        rows[self.keys] = np.arange(1, len(self.keys) + 1, dtype=np.int32)
        return rows


@dataclasses.dataclass(slots=True, eq=False)
class Memory:
    """A history, digested. Nothing of it changes; what is derived from it alone is kept by the first request.

    Attributes:
        history: The events it was made from.
        state: Feature rows.
        sequence: Encoder input.
        products: The state's rows by item.
        types: The state's rows by type.
        categories: The state's rows by category.
        type_places: int32[T + 1], row in ``types`` by type; the last is that of products without one.
        category_places: int32[C + 1], likewise.
        bought: Of each item bought, in how many baskets, and when first and last (days).
        customer: float64[columns, 1], the state's customer row; 0 in place of what has not happened.
        together: int32, items that are bought together with the anchors, ascending.
        together_scores: float32, their co-purchase scores.
        together_best: int32, the same items by score, best first; equal scores by product id.
        own: int32, items bought, the most recent first.
        usual_store: Store visited most lately, -1 for none yet.
        anchors: int32, items from which "bought together" starts: those bought, ascending; of a customer
            who has bought nothing, those of the latest events.
        weights: float64, weight of each anchor.
        standing: The candidates that only the history decides.
        nearest: By item shown, the own item that it is most often bought together with, and how often.
    """

    history: History
    state: State
    sequence: Sequence
    products: PairRows
    types: PairRows
    categories: PairRows
    type_places: NDArray[np.int32]
    category_places: NDArray[np.int32]
    bought: dict[int, tuple[int, float, float]]
    customer: NDArray[np.float64]
    together: NDArray[np.int32]
    together_scores: NDArray[np.float32]
    together_best: NDArray[np.int32]
    own: NDArray[np.int32]
    usual_store: int
    anchors: NDArray[np.int32]
    weights: NDArray[np.float64]
    standing: Candidates | None = None
    nearest: dict[int, tuple[int, float] | None] = dataclasses.field(default_factory=dict)
    _padded: Padded | None = None
    _in_store: tuple[int, NDArray[np.float64]] | None = None

    def in_store(self, store: int) -> NDArray[np.float64]:
        """float64[columns, K + 1], CUSTOMER_STORE_PRODUCT_COLUMNS of a store (-1 for none), rows as in ``products``."""
        if self._in_store is None or self._in_store[0] != store:
            state = self.state
            values = np.zeros((len(CUSTOMER_STORE_PRODUCT_COLUMNS), len(self.products.keys) + 1))
            part = slice(*np.searchsorted(state.stores, (store, store + 1)).tolist())
            rows = places(self.products.keys, state.store_items[part])
            for place, name in enumerate(CUSTOMER_STORE_PRODUCT_COLUMNS):
                values[place, rows] = state.cs[name][part]
            self._in_store = (store, values)
        return self._in_store[1]

    def padded(self, length: int) -> Padded:
        """The sequence with zeros in front up to a length: item, action, channel and time, each of that shape.

        Args:
            length: At least that of the sequence.
        """
        if self._padded is None or len(self._padded[0]) != length:
            sequence = self.sequence
            missing = length - len(sequence.item)
            front = np.zeros(missing, np.int64)
            at = np.zeros(missing)
            self._padded = (
                np.concatenate((front, sequence.item)),
                np.concatenate((front, sequence.action)),
                np.concatenate((front, sequence.channel)),
                np.concatenate((at, sequence.at)),
            )
        return self._padded


def remember(history: History, items: ItemTable, length: int) -> Memory:
    """Digest a history.

    Args:
        history: All events that the request may see.
        items: The release's items.
        length: Most events that the encoder reads.
    """
    state = fold(history, items, _AFTER_EVERYTHING)
    own = state.items[np.argsort(-state.cp["cp_last_at"], kind="stable")]
    anchors, weights = _anchors(history, state)
    together, together_scores = _together(anchors, weights, items)
    types = _pair_rows(state.types, state.ct, CUSTOMER_TYPE_COLUMNS)
    categories = _pair_rows(state.categories, state.cc, CUSTOMER_CATEGORY_COLUMNS)
    facts = (state.cp[f"cp_{name}"].tolist() for name in ("orders", "first_at", "last_at"))
    return Memory(
        history=history,
        state=state,
        sequence=encoder_sequence(history, items, length),
        products=_pair_rows(state.items, state.cp, CUSTOMER_PRODUCT_COLUMNS),
        types=types,
        categories=categories,
        type_places=types.table(items.types),
        category_places=categories.table(items.categories),
        bought={
            item: (int(orders), first, last)
            for item, orders, first, last in zip(state.items.tolist(), *facts, strict=True)
        },
        customer=np.nan_to_num([[state.c.get(name, 0.0)] for name in CUSTOMER_COLUMNS], nan=0.0),
        together=together,
        together_scores=together_scores,
        together_best=together[np.argsort(-together_scores, kind="stable")],
        own=own,
        usual_store=_usual_store(history),
        anchors=anchors,
        weights=weights,
    )


def _anchors(history: History, state: State) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Own items, each with its decayed count (half-life 45 days) as of the latest of them.

    As time passes all of these shrink by one factor, so what is normed by them does not depend on the
    moment of the request.
    """
    if len(state.items):
        last = state.cp["cp_last_at"]
        return state.items, state.cp["cp_decay_45"] * np.exp2((last - last.max()) / 45)
    seen = np.unique(history.item[history.item >= 0][-ANCHORS:])
    return seen, np.ones(len(seen))


def _together(
    anchors: NDArray[np.int32], weights: NDArray[np.float64], items: ItemTable
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Co-purchase scores: the sum over anchors j of w_j * score(j, i), divided by the norm of w."""
    if not len(anchors):
        return np.zeros(0, np.int32), np.zeros(0, np.float32)
    neighbours = items.neighbours[anchors]
    known = neighbours >= 0
    parts = (items.neighbour_scores[anchors] * weights[:, None])[known]
    sums = np.bincount(neighbours[known], weights=parts, minlength=items.size)
    found = np.flatnonzero(sums > 0)
    scores = sums[found] / np.sqrt(np.sum(weights * weights))
    return found.astype(np.int32), scores.astype(np.float32)


def _usual_store(history: History) -> int:
    """The store with most purchase moments, which halve in weight every 30 days; ties go to the lower index.

    `training/ranker/requests.py` stands it in alike for requests whose store is not known.
    """
    visits = np.flatnonzero((history.action == _PURCHASE) & (history.store >= 0))
    if not len(visits):
        return -1
    _, first = np.unique(history.at_us[visits], return_index=True)
    visits = visits[first]
    weights = np.exp2((history.at[visits] - history.at[visits[-1]]) / USUAL_HALF_LIFE)
    return int(np.bincount(history.store[visits], weights).argmax())


def _pair_rows(keys: NDArray[np.int32], columns: Columns, names: tuple[str, ...]) -> PairRows:
    values = np.zeros((len(names), len(keys) + 1))
    for place, name in enumerate(names):
        values[place, 1:] = columns[name]
    return PairRows(keys, values)


def encoder_sequence(history: History, items: ItemTable, length: int) -> Sequence:
    """The last ``length`` events in the encoder's terms, as `training/continuum/data.py` makes them."""
    at_us = history.at_us
    in_basket = np.flatnonzero((history.action == _PURCHASE) & (history.session >= 0))
    if len(in_basket):
        _, first, of = np.unique(history.session[in_basket], return_index=True, return_inverse=True)
        begun = at_us[in_basket[first]][of]
        if not np.array_equal(begun, at_us[in_basket]):
            at_us = at_us.copy()
            at_us[in_basket] = begun
    order = slice(max(0, len(history) - length), len(history))
    if bool(np.any(at_us[1:] < at_us[:-1])):
        latest = np.argsort(at_us, kind="stable")[order]
    else:
        latest = np.arange(order.start, order.stop)
    item = history.item[latest]
    return Sequence(
        item=np.where(item >= 0, items.encoder_id[item], 0),
        action=history.action[latest].astype(np.int64) + 1,
        channel=history.channel[latest].astype(np.int64) + 1,
        at=at_us[latest] / 86_400_000_000,
    )
