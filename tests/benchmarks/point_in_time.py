"""Point-in-time join: our offline store, stock Feast's DuckDB store and a plain ASOF JOIN, side by side.

The data are an event log of 400 rows per user, evenly at random over 30 days, joined with a ttl of 30
days to moments drawn from the same span: the dense case, in which every earlier row of a user is a
candidate. Stock Feast pairs each entity row with all its candidates, so how much is won depends on how
many there are: the same log stretched over a year is measured as well (metrics ``*_one_year``).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.snapshots import connect

Progress = Callable[[str], None]
Micros = npt.NDArray[np.int64]

START = 1_483_228_800_000_000
DAY = 86_400_000_000
ROWS_PER_USER = 400
TTL_DAYS = 30
SPANS = {"": 30, "_one_year": 365}
SEED = 20170101
REFS = ["log:price", "log:views"]
ROUNDS = (*("ours", "asof") * 2, "feast", *("ours", "asof") * 2, "feast", "ours", "asof")
COLUMNS = ["user_id", "event_timestamp", "row", "price", "views"]
TIMES = pa.timestamp("us", "UTC")


@dataclasses.dataclass(frozen=True)
class Log:
    """One event log and its entity rows: arrays, the same as files, and two feature stores over them."""

    users: Micros
    times: Micros
    price: npt.NDArray[np.float64]
    entity_users: Micros
    entity_times: Micros
    events_file: pathlib.Path
    entities_file: pathlib.Path
    stock: Any
    ours: Any


def run(quick: bool, progress: Progress) -> dict[str, Any]:
    """Time the three joins in turn on the same files and compare their answers.

    Args:
        quick: 200 k x 10 k rows instead of 2 M x 100 k.
        progress: Receives one line per measurement.

    Returns:
        Seconds are medians of a whole retrieval into an Arrow table, planning included.
    """
    users, entity_rows = (500, 10_000) if quick else (5_000, 100_000)
    measured: dict[str, Any] = {"equal_to_feast": True, "equal_to_brute_force": True}
    for name, days in SPANS.items():
        with tempfile.TemporaryDirectory(prefix="continuum-bench-") as folder:
            log = _make_log(pathlib.Path(folder), users, entity_rows, days)
            progress(f"{users * ROWS_PER_USER:,} events of {days} days x {entity_rows:,} entity rows")
            measured = _measure(log, name, measured, progress)
    setup = {
        "events": users * ROWS_PER_USER, "users": users, "entity_rows": entity_rows, "ttl_days": TTL_DAYS,
        "span_days": SPANS[""], "threads": 2, "seed": SEED,
    }  # fmt: skip
    return {"measured": measured, "setup": setup}


def _measure(log: Log, name: str, measured: dict[str, Any], progress: Progress) -> dict[str, Any]:
    entities = pd.read_parquet(log.entities_file)
    ways: dict[str, Callable[[], pa.Table]] = {
        "ours": lambda: log.ours.get_historical_features(entities, REFS).to_arrow(),
        "asof": lambda: _plain_asof(log),
        "feast": lambda: log.stock.get_historical_features(entities, REFS).to_arrow(),
    }
    answers = {way: _by_row(ways[way]()) for way in ("ours", "asof")}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for way in ROUNDS:
        begun = time.perf_counter()
        answer = ways[way]()
        seconds[way].append(time.perf_counter() - begun)
        progress(f"{way}: {seconds[way][-1]:.2f} s")
        answers[way] = _by_row(answer)
    ours, asof, feast = (statistics.median(seconds[way]) for way in ("ours", "asof", "feast"))
    equal_to_feast = answers["ours"].equals(answers["feast"]) and answers["ours"].equals(answers["asof"])
    return {
        "equal_to_feast": measured.pop("equal_to_feast") and equal_to_feast,
        "equal_to_brute_force": measured.pop("equal_to_brute_force") and _equals_brute_force(answers["ours"], log),
        **measured,
        f"speedup_over_feast{name}": feast / ours,
        f"ratio_to_asof{name}": ours / asof,
        f"feast_seconds{name}": feast,
        f"ours_seconds{name}": ours,
        f"asof_seconds{name}": asof,
        f"matched_rows{name}": len(answers["ours"]) - answers["ours"]["price"].null_count,
    }  # fmt: skip


def _make_log(folder: pathlib.Path, users: int, entity_rows: int, days: int) -> Log:
    rng = np.random.default_rng(SEED + days)
    events = users * ROWS_PER_USER
    who = np.repeat(np.arange(users), ROWS_PER_USER)
    times = START + rng.integers(0, days * DAY, events)
    order = np.argsort(times, kind="stable")
    price, views = rng.random(events), rng.integers(0, 100, events)
    asked_by = rng.integers(0, users, entity_rows)
    asked_at = START + rng.integers(0, days * DAY, entity_rows)
    events_file, entities_file = folder / "log.parquet", folder / "entities.parquet"
    pq.write_table(
        pa.table(
            {
                "user_id": who[order],
                "event_timestamp": pa.array(times[order]).cast(TIMES),
                "price": price[order],
                "views": views[order],
            }
        ),
        events_file,
    )
    pq.write_table(
        pa.table(
            {
                "user_id": asked_by,
                "event_timestamp": pa.array(asked_at).cast(TIMES),
                "row": np.arange(entity_rows),
            }
        ),
        entities_file,
    )
    stock, ours = _feature_stores(folder, events_file)
    return Log(who, times, price, asked_by, asked_at, events_file, entities_file, stock, ours)


def _feature_stores(folder: pathlib.Path, events_file: pathlib.Path) -> tuple[Any, Any]:
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64, Int64

    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    view = FeatureView(
        name="log",
        entities=[user],
        ttl=dt.timedelta(days=TTL_DAYS),
        schema=[
            Field(name="user_id", dtype=Int64),
            Field(name="price", dtype=Float64),
            Field(name="views", dtype=Int64),
        ],
        source=FileSource(path=str(events_file), timestamp_field="event_timestamp"),
    )
    stores = []
    for kind in ("duckdb", "feature_repo.stores.asof.AsofOfflineStore"):
        config = RepoConfig(
            project="bench", provider="local", registry=str(folder / "registry.db"), repo_path=folder,
            online_store={"type": "sqlite", "path": str(folder / "online.db")}, offline_store={"type": kind},
            entity_key_serialization_version=3,
        )  # fmt: skip
        stores.append(FeatureStore(config=config))
    stores[0].apply([user, view])
    return stores[0], stores[1]


def _plain_asof(log: Log) -> pa.Table:
    con = connect()
    alive = f"f.event_timestamp >= e.event_timestamp - interval {TTL_DAYS} day"
    table = con.sql(
        f"select e.*, case when {alive} then f.price end as price, case when {alive} then f.views end as views "
        f"from '{log.entities_file}' e asof left join '{log.events_file}' f "
        "on e.user_id = f.user_id and e.event_timestamp >= f.event_timestamp"
    ).to_arrow_table()
    con.close()
    return table


def _by_row(table: pa.Table) -> pa.Table:
    return table.select(COLUMNS).sort_by("row").replace_schema_metadata(None).combine_chunks()


def _equals_brute_force(answer: pa.Table, log: Log) -> bool:
    """Every entity row against numpy: per user, the newest event not later and not older than the ttl."""
    wanted = np.full(len(log.entity_users), np.nan)
    events_of = np.argsort(log.users, kind="stable").reshape(-1, ROWS_PER_USER)
    asked_of = np.argsort(log.entity_users, kind="stable")
    bounds = np.searchsorted(log.entity_users[asked_of], np.arange(len(events_of) + 1))
    for user, events in enumerate(events_of):
        asked = asked_of[bounds[user] : bounds[user + 1]]
        age = log.entity_times[asked][:, None] - log.times[events][None, :]
        age = np.where((age >= 0) & (age <= TTL_DAYS * DAY), age, np.iinfo(np.int64).max)
        newest = age.argmin(1)
        found = age[np.arange(len(asked)), newest] < np.iinfo(np.int64).max
        wanted[asked[found]] = log.price[events[newest[found]]]
    return bool(np.array_equal(answer["price"].to_numpy(), wanted, equal_nan=True))
