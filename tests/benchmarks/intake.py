"""Intake: events of the atelier's shape from files into the lake, beside a plain scan and beside pandas.

The stages of `STAGES` run one after the other on the same installation, each timed by itself: read, land,
identity with consents, sessions and moments, feature rows of all views. The same way is gone with a quarter of
the events, which tells whether time grows in proportion. The plain scan is DuckDB reading every column of the
same Parquet files; pandas goes the same way in `intake_pandas.py`, which says where it does less.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import pathlib
import resource
import tempfile
import time
from collections.abc import Callable
from typing import Any

import pandas as pd
import pyarrow as pa

from contracts.retailer import Feed, Retailer
from contracts.settings import Settings, read_settings
from feature_repo.build import build_views
from feature_repo.catalog import VIEWS
from feature_repo.snapshots import connect, literal
from orchestration.lake import tables, writing
from orchestration.lake.people import store_identities, store_moments
from orchestration.sources.feeds import taking
from orchestration.sources.files import Files
from tests.benchmarks import intake_pandas

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
        settings: Where its lake and features lie.
    """

    files: str
    source: Files
    settings: Settings


def read(intake: Intake) -> None:
    """Read the files: mapping into canonical parts."""
    intake.source.sync()


def land(intake: Intake) -> None:
    """Check against the contract, drop doubles, commit to the lake by day."""
    source = intake.source
    days = [FIRST_DAY + dt.timedelta(days=n) for n in range(DAYS)]
    for window in taking.windows(days, source, source.retailer):
        taking.take(intake.settings.lake, source, window)


def identity(intake: Intake) -> None:
    """Who is who, and who allows what."""
    store_identities(intake.settings.lake)


def moments(intake: Intake) -> None:
    """Sessions of all people over all devices and channels, and the moments in them."""
    store_moments(intake.settings.lake)


def features(intake: Intake) -> None:
    """Rows of every feature view at every event."""
    build_views(intake.settings, list(VIEWS), FIRST_DAY, FIRST_DAY + dt.timedelta(days=DAYS - 1))


STAGES: tuple[tuple[str, Callable[[Intake], None]], ...] = (
    ("read", read), ("land", land), ("identity", identity), ("moments", moments), ("features", features),
)  # fmt: skip


def run(quick: bool, progress: Progress) -> dict[str, Any]:
    """Measure.

    Args:
        quick: 400 k events instead of 10 M.
        progress: Receives one line per measurement.

    Returns:
        ``rows_per_second`` of all stages together; ``ratio_to_scan`` and ``speedup_over_pandas`` compare rows per
        second; ``linearity`` is CPU seconds per event of the whole run over those of a quarter of it (CPU seconds,
        since other work on the machine may stop one of the two for a while).
    """
    events = QUICK_EVENTS if quick else EVENTS
    with tempfile.TemporaryDirectory(prefix="continuum-bench-intake-") as folder:
        root = pathlib.Path(folder)
        small, small_cpu, _ = _measure(root / "quarter", events // LINEAR, progress)
        whole, whole_cpu, raw = _measure(root / "whole", events, progress)
        scan = _scan_seconds(raw)
        progress(f"plain scan: {scan:.2f} s")
        beside = min(events, PANDAS_EVENTS)
        paths = sorted((root / "whole" / "raw").glob("*.parquet"))[: -(-beside // EVENTS_A_FILE)]
        peer = intake_pandas.go(paths, beside, root / "pandas", progress)
        pandas_seconds = sum(peer.values())
    seconds = sum(whole.values())
    rate = events / seconds
    measured = {
        "events": events,
        "rows_per_second": rate,
        "ratio_to_scan": scan / seconds,
        "speedup_over_pandas": rate * pandas_seconds / beside,
        "linearity": sum(whole_cpu.values()) / LINEAR / sum(small_cpu.values()),
        **{f"linearity_{name}": value / LINEAR / small_cpu[name] for name, value in whole_cpu.items()},
        **{f"{name}_seconds": value for name, value in whole.items()},
        "cpu_seconds": sum(whole_cpu.values()),
        "quarter_seconds": sum(small.values()),
        "scan_seconds": scan,
        "pandas_rows_per_second": beside / pandas_seconds,
        **{f"pandas_{name}_seconds": value for name, value in peer.items()},
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    setup = {
        "stages": " ".join(name for name, _ in STAGES), "days": DAYS, "files": -(-events // EVENTS_A_FILE),
        "pandas_events": beside, "pandas": pd.__version__, "simulated": "events of the atelier's shape, drawn by the bench",
    }  # fmt: skip
    return {"measured": measured, "setup": setup}


def _measure(
    root: pathlib.Path, events: int, progress: Progress
) -> tuple[dict[str, float], dict[str, float], str]:
    """Wall and CPU seconds by stage, and the pattern of the raw files."""
    raw = root / "raw"
    raw.mkdir(parents=True)
    write_events(raw, events)
    last = FIRST_DAY + dt.timedelta(days=DAYS - 1)
    retailer = Retailer(
        name="intake", title="Intake", source="files", first_day=FIRST_DAY, last_day=last, currency="EUR",
        mapping={"atelier": Feed(files=str(raw))},
    )  # fmt: skip
    settings = read_settings({"CONTINUUM_HOME": str(root)})
    intake = Intake(str(raw / "*.parquet"), Files(retailer, root / "sources"), settings)
    writing.replace_all(tables.TABLES["products"], settings.lake, _products())
    seconds: dict[str, float] = {}
    cpu: dict[str, float] = {}
    for name, stage in STAGES:
        begun, worked = time.perf_counter(), time.process_time()
        stage(intake)
        seconds[name], cpu[name] = time.perf_counter() - begun, time.process_time() - worked
        progress(f"{events:,} events, {name}: {seconds[name]:.2f} s ({cpu[name]:.2f} s of CPU)")
    _expect(intake.settings, events)
    return seconds, cpu, intake.files


def _expect(settings: Settings, events: int) -> None:
    """Nothing is lost on the way: every event is in the lake, has its person and is in the customers' rows."""
    from feature_repo.snapshots import attach

    con = connect()
    for name in ("events", "identity_events", "sessions", "moments"):
        attach(con, name, settings.lake / name)
    for name in VIEWS:
        attach(con, f"features_{name}", settings.features / name)
    moments_of = "select count(*) from (select distinct customer_id, occurred_at from events where customer_id is not null)"
    wanted = {
        "events": events,
        "identity_events where person_id is not null": events,
        "features_customer": con.execute(moments_of).fetchall()[0][0],
    }
    for what, number in wanted.items():
        found = con.execute(f"select count(*) from {what}").fetchall()[0][0]
        if found != number:
            raise RuntimeError(f"{what}: {found:,} rows; expected {number:,}")
    for what in ("sessions", "moments", *(f"features_{name}" for name in VIEWS)):
        if not con.execute(f"select count(*) from {what}").fetchall()[0][0]:
            raise RuntimeError(f"{what} is empty")


def _products() -> pa.Table:
    rows = [
        {"product_id": f"g{n}", "name": f"Garment {n}", "department": f"d{n % 8}", "category": f"c{n % 60}",
         "type": f"t{n % 240}", "brand": f"b{n % 40}", "kind": "good", "sellable": True}
        for n in range(2400)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=tables.PRODUCTS)


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
