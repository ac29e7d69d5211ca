"""Features online equal features offline: the same moment asked three ways.

For sampled (customer, time) pairs of the real shop: (a) Feast's historical retrieval with the ASOF store over
the feature tables, (b) the server's fold over the customer's raw events before that time, as published for
it; and for the last moment of the data (c) Feast's online store after materialization. Every stored column
is compared; two values are equal when they differ by at most 1e-6 relative (raw events travel as float32).

Belongs here: sampling, asking, comparing. Does not belong here: bars (`bars.py`).
"""

from __future__ import annotations

import datetime as dt
import json
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from contracts.features import MICROSECONDS_PER_DAY
from contracts.settings import Settings, read_settings

PAIRS = 10_000
QUICK_HOUSEHOLDS = 120
FIRST_DAY, LAST_DAY = dt.date(2017, 1, 1), dt.date(2018, 1, 1)
TOLERANCE = 1e-6
SEED = 7
ENTITY_COLUMNS = ("customer_id", "product_id", "type", "category", "store_id")
LEVELS = (("product_id", "items", "cp"), ("type", "types", "ct"), ("category", "categories", "cc"))


class Tally:
    """Counts compared values and the rows in which any differed."""

    def __init__(self) -> None:
        self.values = 0
        self.largest = 0.0
        self.differing: set[Any] = set()
        self.examples: list[str] = []

    def compare(self, key: Any, name: str, found: float | None, expected: float | None) -> None:
        """Note whether two values of one column are equal; None and NaN both mean that there is no value."""
        a = np.nan if found is None else float(found)
        b = np.nan if expected is None else float(expected)
        self.values += 1
        if np.isnan(a) and np.isnan(b):
            return
        error = abs(a - b)
        if not np.isnan(error):
            self.largest = max(self.largest, error)
        if not error <= TOLERANCE * max(1.0, abs(a), abs(b)):
            self.differing.add(key)
            if len(self.examples) < 5:
                self.examples.append(f"{key} {name}: {a} instead of {b}")


def run(quick: bool, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure; see `tests/benchmarks/report.py` for what becomes of the numbers."""
    with tempfile.TemporaryDirectory() as folder:
        settings = read_settings({"CONTINUUM_HOME": folder})
        timings = _prepare(settings, quick, progress)
        pairs = _sample(settings, PAIRS)
        progress(f"comparing {pairs.num_rows} (customer, time) pairs with the fold")
        folded = _compare_fold(settings, pairs)
        progress("comparing the last moment with the online store")
        online, entities = _compare_online(settings)
        return {
            "measured": {
                "pairs": pairs.num_rows,
                "mismatches_fold": len(folded.differing),
                "mismatches_online": len(online.differing),
                "max_abs_error": max(folded.largest, online.largest),
            },
            "setup": {
                "data": "complete_journey"
                + (f", {QUICK_HOUSEHOLDS} households" if quick else ", all households"),
                "seed": SEED,
                "tolerance": f"{TOLERANCE} relative",
                "values_compared": folded.values + online.values,
                "online_entities": entities,
                "examples": folded.examples + online.examples,
                **timings,
            },
        }


def _prepare(settings: Settings, quick: bool, progress: Callable[[str], None]) -> dict[str, float]:
    from feature_repo import online
    from feature_repo.build import build_views
    from feature_repo.catalog import VIEWS
    from orchestration.lake import ingest
    from orchestration.lake.histories import publish_histories
    from orchestration.sources import Window, load

    seconds: dict[str, float] = {}

    def timed(name: str, action: Callable[[], Any]) -> None:
        progress(name)
        started = time.perf_counter()
        action()
        seconds[f"{name}_seconds"] = round(time.perf_counter() - started, 1)

    source = load("complete_journey")
    window = Window(FIRST_DAY, LAST_DAY, QUICK_HOUSEHOLDS if quick else None, FIRST_DAY)
    timed("ingest", lambda: ingest.ingest_events(settings.lake, "complete_journey", source, window))
    timed("products", lambda: ingest.ingest_products(settings.lake, source))
    timed("build", lambda: build_views(settings, list(VIEWS), FIRST_DAY, LAST_DAY))
    timed("histories", lambda: publish_histories(settings))
    timed("apply", lambda: online.apply(settings))
    start = dt.datetime.combine(FIRST_DAY, dt.time(), dt.UTC)
    timed("materialize", lambda: online.materialize(settings, start, start + dt.timedelta(days=367)))
    return seconds


def _sample(settings: Settings, size: int) -> pa.Table:
    """Pairs of a customer and a time, each with a purchase of the customer's (past or future) as the thing.

    Half of the times are moments of baskets, where seeing too much would show; the others are anywhere.
    """
    from orchestration.lake.checks import open_lake

    con = open_lake(settings.lake)
    rows = con.sql(
        """with buys as (
            select customer_id, product_id, store_id, occurred_at,
                hash(event_id, 1) as draw, hash(customer_id, event_id, 2) as other
            from events where action = 'purchase' and customer_id is not null)
        select b.customer_id, b.product_id, p.type, p.category, b.store_id, b.occurred_at
        from buys b join products p using (product_id) order by b.draw"""
    ).to_arrow_table()
    rows = rows.slice(0, size)
    random = np.random.default_rng(SEED)
    moments = rows["occurred_at"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy().copy()
    low, high = moments.min(), moments.max()
    anywhere = random.random(rows.num_rows) < 0.5
    moments[anywhere] = random.integers(low, high, int(anywhere.sum()))
    asked = pa.array(moments, pa.int64())
    before = pa.array(moments - 1, pa.timestamp("us", "UTC"))
    return (
        rows.drop_columns(["occurred_at"])
        .append_column("at_us", asked)
        .append_column("event_timestamp", before)
    )


def _compare_fold(settings: Settings, pairs: pa.Table) -> Tally:
    from contracts.features import CUSTOMER_COLUMNS, CUSTOMER_STORE_PRODUCT_COLUMNS, PAIR_COLUMNS
    from feature_repo.retrieval import historical
    from serving.profiles.fold import fold

    offline = historical(settings, "ranker_v1", pairs).to_pylist()
    shop = _Shop(settings)
    tally = Tally()
    for number, row in enumerate(offline):
        key = (row["customer_id"], row["at_us"], number)
        state = fold(shop.history(row["customer_id"]), shop, row["at_us"] / MICROSECONDS_PER_DAY)
        for name in CUSTOMER_COLUMNS:
            tally.compare(key, name, state.c.get(name), row[name])
        for level, ids, prefix in LEVELS:
            place = _place(getattr(state, ids), shop.number(level, row[level]))
            columns = getattr(state, prefix)
            for name in (f"{prefix}_{column}" for column in PAIR_COLUMNS):
                tally.compare(key, name, None if place is None else columns[name][place], row[name])
        there = np.where(state.stores == shop.store(row["store_id"]), state.store_items, -1)
        found = np.flatnonzero(there == shop.number("product_id", row["product_id"]))
        for name in CUSTOMER_STORE_PRODUCT_COLUMNS:
            tally.compare(key, name, state.cs[name][found[0]] if len(found) else None, row[name])
    return tally


def _place(ids: np.ndarray, wanted: int) -> int | None:
    if wanted < 0:
        return None
    place = int(np.searchsorted(ids, wanted))
    return place if place < len(ids) and ids[place] == wanted else None


class _Shop:
    """The published histories and a catalogue by item index, as the server holds them."""

    def __init__(self, settings: Settings) -> None:
        from orchestration.lake.checks import open_lake

        folder = settings.profiles / (settings.profiles / "CURRENT").read_text()
        self._arrays = dict(np.load(folder / "histories.npz", allow_pickle=False))
        self._rows = {name: number for number, name in enumerate(self._arrays["customers"].tolist())}
        self._stores = {name: number for number, name in enumerate(self._arrays["stores"].tolist())}
        items = self._arrays["products"].tolist()
        known = open_lake(settings.lake).sql("select product_id, type, category, brand from products")
        table = {row[0]: row[1:] for row in known.fetchall()}
        self._numbers: dict[str, dict[str, int]] = {"product_id": {name: i for i, name in enumerate(items)}}
        columns = [[table[item][place] for item in items] for place in range(3)]
        for level, names in (("type", columns[0]), ("category", columns[1])):
            distinct = sorted(set(names) - {""})
            self._numbers[level] = {name: i for i, name in enumerate(distinct)}
        self.type_id = np.array([self.number("type", name) for name in columns[0]], np.int32)
        self.category_id = np.array([self.number("category", name) for name in columns[1]], np.int32)
        self.private = np.array([brand == "private" for brand in columns[2]])

    def number(self, level: str, name: str) -> int:
        """Index of a product, type or category; -1 for an empty or unknown one."""
        return self._numbers[level].get(name, -1)

    def store(self, name: str | None) -> int:
        """Index of a store; -2 for none, which no history holds."""
        return self._stores.get(name or "", -2)

    def history(self, customer: str) -> Any:
        """The customer's events as the server would load them."""
        from serving.profiles.history import make_history

        place = self._rows[customer]
        part = slice(int(self._arrays["offsets"][place]), int(self._arrays["offsets"][place + 1]))
        given = {
            name: self._arrays[name][part]
            for name in (
                "at_us",
                "action",
                "channel",
                "session",
                "quantity",
                "unit_price",
                "discount",
                "store",
            )
        }
        return make_history(item=self._arrays["product"][part], **given)


def _compare_online(settings: Settings) -> tuple[Tally, int]:
    from feature_repo.catalog import VIEWS
    from feature_repo.online import online_rows
    from feature_repo.retrieval import historical
    from orchestration.lake.checks import open_lake

    con = open_lake(settings.lake)
    recent = con.sql(
        """select distinct customer_id, product_id, p.type, p.category, store_id from events
        join products p using (product_id)
        where action = 'purchase' and occurred_at > (select max(occurred_at) from events) - interval 4 days
        order by hash(customer_id, product_id, 3) limit 2000"""
    ).to_arrow_table()
    end = dt.datetime.combine(LAST_DAY + dt.timedelta(days=1), dt.time(), dt.UTC)
    moments = pa.array([end] * recent.num_rows, pa.timestamp("us", "UTC"))
    offline = historical(settings, "ranker_v1", recent.append_column("event_timestamp", moments)).to_pydict()
    asked = {name: recent[name].to_pylist() for name in ENTITY_COLUMNS}
    online = online_rows(settings, "ranker_v1", asked)
    tally = Tally()
    for name in (column for spec in VIEWS.values() for column in spec.columns):
        for number, (found, expected) in enumerate(zip(online[name], offline[name], strict=True)):
            tally.compare(number, name, found, expected)
    return tally, recent.num_rows


if __name__ == "__main__":
    import sys

    print(json.dumps(run("--quick" in sys.argv, lambda text: print(text, file=sys.stderr)), indent=1))
