"""Whom the ranker learns to answer, when, and what was bought then.

A request is the first basket of a customer after a *cut*, a moment such as a midnight at which a release's
tables were made. Until the basket's moment nothing of it is seen. The frozen evaluation set has the same
form, with the start of the evaluation window as its only cut.

Belongs here: purchase histories as arrays, choosing requests. Does not belong here: candidates, features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import duckdb
import numpy as np
import numpy.typing as npt

from contracts.features import MICROSECONDS_PER_DAY
from training.evaluation.baselines import Purchases
from training.evaluation.metrics import Targets
from training.ranker.items import Catalogue, micros, register_index

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

USUAL_HALF_LIFE = 30.0
"""Days; the usual store is the one with most visits lately."""


@dataclasses.dataclass(frozen=True, eq=False)
class Lines:
    """Purchases by customer: one row per customer, moment and product.

    Attributes:
        customers: str[C], sorted.
        offsets: int64[C + 1] into the rows.
        at_us: int64[E], microseconds since 1970-01-01 UTC, ascending inside a customer.
        item: int64[E], index in the catalogue.
        store: int64[E], index of the store, -1 for none.
    """

    customers: npt.NDArray[np.str_]
    offsets: Ints
    at_us: Ints
    item: Ints
    store: Ints

    def before(self, row: int, moment_us: int) -> slice:
        """Rows of a customer strictly before a moment."""
        start, stop = int(self.offsets[row]), int(self.offsets[row + 1])
        return slice(start, start + int(np.searchsorted(self.at_us[start:stop], moment_us, side="left")))

    def until(self, moment: float, items: int) -> Purchases:
        """Everything strictly before a moment in days, as the baselines read it."""
        customer = np.repeat(np.arange(len(self.customers)), np.diff(self.offsets))
        seen = self.at_us < micros(moment)
        return Purchases(
            customer[seen], self.item[seen], self.at_us[seen] / MICROSECONDS_PER_DAY,
            len(self.customers), items, moment,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Requests:
    """Requests to answer.

    Attributes:
        customer: int64[R], row in `Lines.customers`.
        at_us: int64[R], moment in microseconds.
        cut_us: int64[R], moment of the tables that answer it, at or before ``at_us``.
        store: int64[R], store index, -1 for none.
        targets: Products bought then.
    """

    customer: Ints
    at_us: Ints
    cut_us: Ints
    store: Ints
    targets: Targets

    def __len__(self) -> int:
        return len(self.customer)

    @property
    def at(self) -> Floats:
        """float64[R], days."""
        return self.at_us / MICROSECONDS_PER_DAY

    @property
    def seen_us(self) -> Ints:
        """int64[R], latest moment whose feature rows may be seen: the cut, but never the basket's own."""
        return np.minimum(self.cut_us, self.at_us - 1)

    def select(self, rows: npt.NDArray[np.integer]) -> Requests:
        """Some of the requests."""
        return Requests(
            self.customer[rows],
            self.at_us[rows],
            self.cut_us[rows],
            self.store[rows],
            self.targets.select(rows),
        )


def read_lines(con: duckdb.DuckDBPyConnection, catalogue: Catalogue) -> Lines:
    """Purchases of every known customer."""
    register_index(con, catalogue)
    rows = con.execute(
        """
        select dense_rank() over (order by customer_id) - 1 as customer, epoch_us(occurred_at) as us, item,
               coalesce(min(store), -1) as store
        from events join item_index using (product_id) left join store_index using (store_id)
        where action = 'purchase' and customer_id is not null
        group by customer_id, occurred_at, item order by customer, us, item
        """
    ).fetchnumpy()
    names = con.execute(
        "select distinct customer_id from events where action = 'purchase' and customer_id is not null "
        "and product_id is not null order by customer_id"
    ).fetchnumpy()["customer_id"]
    customer = np.asarray(rows["customer"], np.int64)
    return Lines(
        customers=np.asarray(names).astype(np.str_),
        offsets=np.searchsorted(customer, np.arange(len(names) + 1)).astype(np.int64),
        at_us=np.asarray(rows["us"], np.int64),
        item=np.asarray(rows["item"], np.int64),
        store=np.asarray(rows["store"], np.int64),
    )


def first_baskets(lines: Lines, cut: float, until: float) -> Requests:
    """Each customer's first basket in [cut, until) (days)."""
    customers, starts, stops = [], [], []
    for row in range(len(lines.customers)):
        begin = lines.before(row, micros(cut)).stop
        if begin == lines.offsets[row + 1] or lines.at_us[begin] >= micros(until):
            continue
        end = begin + np.searchsorted(
            lines.at_us[begin : lines.offsets[row + 1]], lines.at_us[begin], side="right"
        )
        customers.append(row)
        starts.append(begin)
        stops.append(end)
    first, last = np.array(starts, np.int64), np.array(stops, np.int64)
    offsets = np.concatenate([[0], np.cumsum(last - first)]).astype(np.int64)
    places = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - first, last - first)
    return Requests(
        np.array(customers, np.int64), lines.at_us[first], np.full(len(first), micros(cut)),
        lines.store[first], Targets(offsets, lines.item[places]),
    )  # fmt: skip


def cuts(start: float, stop: float, every: float) -> list[float]:
    """Moments ``every`` days apart that end ``every`` before ``stop``, none before ``start``; ascending."""
    count = int((stop - start) / every + 1e-9)
    return [stop - every * back for back in range(count, 0, -1)]


def training_requests(lines: Lines, moments: Sequence[float], until: float) -> Requests:
    """First baskets after each cut and before ``until``; one that follows several cuts comes once, for the first."""
    parts = [first_baskets(lines, moment, until) for moment in moments]
    joined = Requests(
        np.concatenate([part.customer for part in parts]),
        np.concatenate([part.at_us for part in parts]),
        np.concatenate([part.cut_us for part in parts]),
        np.concatenate([part.store for part in parts]),
        _joined([part.targets for part in parts]),
    )
    _, first = np.unique(np.stack([joined.customer, joined.at_us]), axis=1, return_index=True)
    return joined.select(np.sort(first))


def usual_stores(lines: Lines, requests: Requests) -> Ints:
    """The store each customer has lately gone to most (visits halve every 30 days), -1 for none yet."""
    usual = np.full(len(requests), -1, np.int64)
    for place, (row, seen) in enumerate(zip(requests.customer, requests.seen_us, strict=True)):
        past = lines.before(int(row), int(seen) + 1)
        at, first = np.unique(lines.at_us[past], return_index=True)
        store = lines.store[past][first]
        at, store = at[store >= 0], store[store >= 0]
        if len(store):
            weights = np.exp2((at - at[-1]) / MICROSECONDS_PER_DAY / USUAL_HALF_LIFE)
            usual[place] = np.bincount(store, weights).argmax()
    return usual


def _joined(parts: Sequence[Targets]) -> Targets:
    counts = np.concatenate([part.counts for part in parts])
    return Targets(
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        np.concatenate([part.items for part in parts]),
    )
