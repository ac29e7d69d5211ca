"""Intake: events of the atelier's shape from files into the lake, beside a plain scan and beside pandas.

The stages of `STAGES` run one after the other on the same installation, each timed by itself; a stage is
a name and a function of `Intake`, so later parts of the way (identity, sessions, moments, features) are added
as further entries. The same way is gone with a quarter of the events, which tells whether time grows in
proportion. The plain scan is DuckDB reading every column of the same Parquet files; pandas reads the same
columns, applies the same rules of the contract, drops doubles and writes Parquet by day.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import pathlib
import resource
import tempfile
import time
from collections.abc import Callable
from typing import Any

import pandas as pd

from contracts.events import ACTIONS, CHANNELS
from contracts.settings import Feed, Retailer
from feature_repo.snapshots import connect, literal
from orchestration.lake import tables
from orchestration.sources.feeds import taking
from orchestration.sources.files import Files

FIRST_DAY, DAYS = dt.date(2025, 1, 1), 84
EVENTS, QUICK_EVENTS, PANDAS_EVENTS = 10_000_000, 400_000, 1_000_000
EVENTS_A_SHOPPER, EVENTS_A_FILE = 50, 250_000
LINEAR = 4
"""The whole run has this many times the events of the smaller one."""

Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Intake:
    """One installation that takes events in.

    Attributes:
        files: Pattern of the raw files.
        source: The file connector over them.
        lake: The lake.
    """

    files: str
    source: Files
    lake: pathlib.Path


def read(intake: Intake) -> None:
    """Read the files: mapping into canonical parts."""
    intake.source.sync()


def land(intake: Intake) -> None:
    """Check against the contract, drop doubles, commit to the lake by day."""
    source = intake.source
    days = [FIRST_DAY + dt.timedelta(days=n) for n in range(DAYS)]
    for window in taking.windows(days, source, source.retailer):
        taking.take(intake.lake, source, window)


STAGES: tuple[tuple[str, Callable[[Intake], None]], ...] = (("read", read), ("land", land))


def run(quick: bool, progress: Progress) -> dict[str, Any]:
    """Measure.

    Args:
        quick: 400 k events instead of 10 M.
        progress: Receives one line per measurement.

    Returns:
        ``rows_per_second`` of all stages together; ``ratio_to_scan`` and ``speedup_over_pandas`` compare rows per
        second; ``linearity`` is seconds per event of the whole run over seconds per event of a quarter of it.
    """
    events = QUICK_EVENTS if quick else EVENTS
    with tempfile.TemporaryDirectory(prefix="continuum-bench-intake-") as folder:
        root = pathlib.Path(folder)
        small, _ = _measure(root / "quarter", events // LINEAR, progress)
        whole, raw = _measure(root / "whole", events, progress)
        scan = _scan_seconds(raw)
        progress(f"plain scan: {scan:.2f} s")
        beside = min(events, PANDAS_EVENTS)
        pandas_seconds = _pandas_seconds(raw, beside, root / "pandas")
        progress(f"pandas, {beside:,} events: {pandas_seconds:.2f} s")
    seconds = sum(whole.values())
    rate = events / seconds
    measured = {
        "events": events,
        "rows_per_second": rate,
        "ratio_to_scan": scan / seconds,
        "speedup_over_pandas": rate * pandas_seconds / beside,
        "linearity": seconds / LINEAR / sum(small.values()),
        **{f"{name}_seconds": value for name, value in whole.items()},
        "quarter_seconds": sum(small.values()),
        "scan_seconds": scan,
        "pandas_rows_per_second": beside / pandas_seconds,
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    setup = {
        "stages": " ".join(name for name, _ in STAGES), "days": DAYS, "files": -(-events // EVENTS_A_FILE),
        "pandas_events": beside, "pandas": pd.__version__, "simulated": "events of the atelier's shape, drawn by the bench",
    }  # fmt: skip
    return {"measured": measured, "setup": setup}


def _measure(root: pathlib.Path, events: int, progress: Progress) -> tuple[dict[str, float], str]:
    raw = root / "raw"
    raw.mkdir(parents=True)
    write_events(raw, events)
    last = FIRST_DAY + dt.timedelta(days=DAYS - 1)
    retailer = Retailer(
        name="intake", title="Intake", source="files", first_day=FIRST_DAY, last_day=last, currency="EUR",
        mapping={"atelier": Feed(files=str(raw))},
    )  # fmt: skip
    intake = Intake(str(raw / "*.parquet"), Files(retailer, root / "sources"), root / "lake")
    seconds: dict[str, float] = {}
    for name, stage in STAGES:
        begun = time.perf_counter()
        stage(intake)
        seconds[name] = time.perf_counter() - begun
        progress(f"{events:,} events, {name}: {seconds[name]:.2f} s")
    _expect(intake.lake, events)
    return seconds, intake.files


def _expect(lake: pathlib.Path, events: int) -> None:
    from feature_repo.snapshots import attach

    con = connect()
    attach(con, "events", lake / "events")
    found = con.execute("select count(*) from events").fetchall()[0][0]
    if found != events:
        raise RuntimeError(f"the lake holds {found:,} events; expected {events:,}")


def write_events(folder: pathlib.Path, events: int) -> None:
    """Draw events of the atelier's shape into Parquet files, one after the other in time.

    Shoppers zigzag: channel and action change from event to event, sessions are short, many events have no
    product, some carry a query, a decision, a discount, or identifiers of a device only.
    """
    con = connect()
    shoppers, span = max(1, events // EVENTS_A_SHOPPER), DAYS * 86_400_000_000
    channels = "['web', 'web', 'app', 'app', 'email', 'social', 'search', 'store', 'push', 'support']"
    actions = (
        "['view', 'view', 'view', 'visit', 'search', 'click', 'impression', 'add_to_cart', 'remove_from_cart', 'open', "
        "'wishlist', 'checkout', 'purchase', 'purchase', 'stockout', 'return']"
    )
    start = int(dt.datetime.combine(FIRST_DAY, dt.time(), dt.UTC).timestamp() * 1_000_000)
    for number, first in enumerate(range(0, events, EVENTS_A_FILE)):
        last = min(events, first + EVENTS_A_FILE)
        query = f"""
            with drawn as (
                select i, hash(i) as a, hash(i + 1000000007) as b, hash(i + 2000000011) % {shoppers} as who
                from range({first}, {last}) r(i)
            ), named as (
                select *, {channels}[1 + (a % 10)::int] as channel, {actions}[1 + (b % 16)::int] as action from drawn
            )
            select 'e' || i as event_id,
                make_timestamptz({start} + (i::double / {events} * {span})::bigint) as occurred_at,
                case when a % 3 = 0 then '[{{"kind":"device","value":"d' || who || '"}}]'
                    else '[{{"kind":"customer","value":"c' || who || '"}},{{"kind":"device","value":"d' || who || '"}}]'
                    end as identifiers,
                's' || who || '-' || (i // 4096) as session_id, channel,
                case when channel = 'store' then 'store:' || a % 12 else 'page:/' || action end as touchpoint, action,
                case when action in ('visit', 'search', 'open') then null else 'g' || b % 2400 end as product_id,
                case when action in ('purchase', 'return', 'add_to_cart') then 1.0 + a % 3 end as quantity,
                case when action in ('purchase', 'return', 'add_to_cart') then 5 + (b % 2400) / 10 end as unit_price,
                case when a % 11 = 0 then 1.5 end as discount, 'EUR' as currency,
                case when action = 'search' then 'linen ' || b % 500 end as query,
                case when action = 'impression' then 'decision-' || a % 100000 end as decision_id,
                case when action in ('impression', 'click') then (a % 20)::int end as position,
                case when a % 5 = 0 then '{{"campaign":"spring"}}' else '{{}}' end as detail,
                '["analytics","personalization"]' as consent
            from named"""
        con.execute(
            f"copy ({query}) to {literal(str(folder / f'events-{number:04d}.parquet'))} (format parquet)"
        )
    con.close()


def _scan_seconds(files: str) -> float:
    con = connect()
    columns = [row[0] for row in con.execute(f"describe select * from {literal(files)}").fetchall()]
    everything = ", ".join(f"max({column})" for column in columns)
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        con.execute(f"select {everything} from {literal(files)}").fetchall()
        seconds.append(time.perf_counter() - begun)
    con.close()
    return min(seconds)


def _pandas_seconds(files: str, events: int, target: pathlib.Path) -> float:
    paths = sorted(pathlib.Path(files).parent.glob("*.parquet"))[: -(-events // EVENTS_A_FILE)]
    begun = time.perf_counter()
    frame = pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True).iloc[:events]
    good = _keeps_contract(frame)
    frame = frame[good].drop_duplicates("event_id")
    frame["source"] = "files"
    frame["received_at"] = frame["occurred_at"]
    frame["customer_id"] = frame["identifiers"].map(_customer)
    touchpoint = frame["touchpoint"].fillna("")
    frame["store_id"] = touchpoint.str.slice(6).where(touchpoint.str.startswith("store:"))
    frame["day"] = frame["occurred_at"].dt.date
    for name in set(tables.EVENTS.names) - set(frame.columns):
        frame[name] = None
    frame.to_parquet(target, partition_cols=["day"])
    return time.perf_counter() - begun


def _keeps_contract(frame: pd.DataFrame) -> Any:
    good = frame["channel"].isin(CHANNELS) & frame["action"].isin(ACTIONS) & frame["occurred_at"].notna()
    good &= frame["occurred_at"] <= pd.Timestamp.now("UTC")
    for name in ("event_id", "session_id", "touchpoint", "product_id", "decision_id"):
        length = frame[name].str.len()
        good &= length.isna() | length.between(1, 256)
    for name in ("quantity", "unit_price", "discount", "position"):
        good &= frame[name].isna() | (frame[name] >= 0)
    good &= frame["currency"].isna() | frame["currency"].str.fullmatch("[A-Z]{3}")
    good &= ~(frame["action"].eq("purchase") & frame["product_id"].isna())
    for name in ("identifiers", "detail", "consent"):
        good &= frame[name].map(_is_json)
    return good


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _customer(text: str) -> str | None:
    return next((str(one["value"]) for one in json.loads(text) if one["kind"] == "customer"), None)
