"""The atelier: a fashion shop with simulated shoppers, from `training.rehearsal`.

Everything here is made up and says so: the source is called ``atelier`` and its profile is marked
``simulated: true``. The truth (who was who, what was caused by what) stays in the cache's other tables
(`folder`) and never enters the lake.

The shop is simulated once per configuration and kept under ``CONTINUUM_HOME/rehearsal/<hash>``, where the
hash covers the configuration and the simulator's own code: reading one day is then a scan of one Parquet
file, and a changed simulator never meets an old stream. Other knobs than the defaults come from
``CONTINUUM_HOME/rehearsal/atelier.json``, an object with fields of `training.rehearsal.AtelierConfig`.
Removing the folder is safe at any time.

Belongs here: the simulated tables in the lake's words. Does not belong here: the simulation.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import importlib.util
import pathlib
from collections.abc import Iterator

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contracts.features import week_of
from contracts.settings import read_settings
from feature_repo.snapshots import connect, literal
from orchestration.lake import tables
from orchestration.lake.trials import TRIALS
from orchestration.sources import WeeklyRows, Window
from training.rehearsal import AtelierConfig, RehearsalError, simulate
from training.rehearsal.config import checked
from training.rehearsal.store import displays
from training.rehearsal.writing import write

NAME = "atelier"
FIRST_DAY = dt.date(2025, 1, 1)
DEFAULTS: dict[str, object] = {"seed": 7, "shoppers": 4_000, "days": 273, "first_day": FIRST_DAY.isoformat()}
"""The shop in the box; `orchestration/retailers/atelier.yaml` names the same days."""

KNOBS_FILE = "atelier.json"
BATCH_ROWS = 65_536
DISPLAY_PLACES = ("window", "table", "mannequin", "rail end")
_COUPON_DAYS = {"email": 6, "direct_mail": 21}


def config() -> AtelierConfig:
    """The knobs of this installation's atelier.

    Raises:
        RehearsalError: The installation's file of knobs cannot be read or names something unknown.
    """
    path = read_settings().home / "rehearsal" / KNOBS_FILE
    if not path.is_file():
        return checked(DEFAULTS)
    try:
        knobs = msgspec.json.decode(path.read_bytes(), type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RehearsalError(
            f"{path}: {error}; expected a JSON object with fields of AtelierConfig"
        ) from error
    try:
        return checked({**DEFAULTS, **knobs})
    except RehearsalError as error:
        raise RehearsalError(f"{path}: {error}") from error


def folder() -> pathlib.Path:
    """The simulated tables of this installation's atelier, simulated now if they are not there yet."""
    wanted = config()
    seen = hashlib.sha256(msgspec.json.encode(wanted))
    spec = importlib.util.find_spec("training.rehearsal")
    assert spec is not None
    assert spec.origin is not None
    for module in sorted(pathlib.Path(spec.origin).parent.glob("*.py")):
        seen.update(module.read_bytes())
    path = read_settings().home / "rehearsal" / seen.hexdigest()[:20]
    return path if path.is_dir() else write(simulate(wanted), path)


def causal_purchases() -> dict[str, float]:
    """Purchases that each channel's contacts caused in truth: with them less without them."""
    rows = pq.read_table(folder() / "effects.parquet", columns=["channel", "purchases", "purchases_without"])
    return {row["channel"]: float(row["purchases"] - row["purchases_without"]) for row in rows.to_pylist()}


def events(window: Window) -> pa.RecordBatchReader:
    """Everything that happened in the window; see `orchestration.sources.Source`."""
    con = connect()
    start = dt.datetime.combine(window.first_day, dt.time(), dt.UTC)
    stop = dt.datetime.combine(window.last_day, dt.time(), dt.UTC) + dt.timedelta(days=1)
    query = (
        f"select {', '.join(tables.CANONICAL.names)} from {_file('events')} "
        f"where occurred_at >= timestamptz {literal(start.isoformat())} "
        f"and occurred_at < timestamptz {literal(stop.isoformat())}"
    )
    if window.households is not None:
        query += (
            f" and event_id in (select event_id from {_file('identity')} "
            f"semi join ({_sample(window.households)}) using (person_id))"
        )
    return _reader(con, query, tables.CANONICAL)


def products() -> pa.Table:
    """Goods, and one guide (content) per type of product."""
    return pq.read_table(folder() / "products.parquet").cast(tables.PRODUCTS)


def customers(households: int | None = None) -> pa.Table:
    """Every login, with an age band; nothing else is known about them."""
    missing = ", ".join(f"null::varchar as {name}" for name in tables.CUSTOMERS.names[2:])
    query = f"select customer_id, age, {missing} from {_file('customers')}"
    if households is not None:
        query += (
            f" where customer_id in (select value from {_file('identifiers')} "
            f"semi join ({_sample(households)}) using (person_id) where kind = 'customer')"
        )
    return _reader(connect(), f"{query} order by customer_id", tables.CUSTOMERS).read_all()


def offers() -> pa.Table:
    """Coupons of e-mail and direct mail campaigns, each good for the products of one type."""
    days = " ".join(f"when {literal(channel)} then {number}" for channel, number in _COUPON_DAYS.items())
    query = f"""
        select 'o-' || campaign_id[3:] as offer_id, campaign_id, channel as campaign_type, product_id,
            (starts_on::timestamp at time zone 'UTC') as starts_at,
            ((starts_on + case channel {days} end + 1)::timestamp at time zone 'UTC')
                - interval 1 second as ends_at
        from {_file("campaigns")} join {_file("products")} on type = product_type and kind = 'good'
        where channel in ({", ".join(literal(channel) for channel in _COUPON_DAYS)})
        order by campaign_id, product_id
    """
    return _reader(connect(), query, tables.OFFERS).read_all()


def trials() -> pa.Table:
    """Every campaign's audience and who of it was held out at random (`orchestration.lake.trials.TRIALS`).

    A shop knows this of itself: it drew the lot. What a contact causes is the simulator's secret and stays out.
    """
    query = f"""
        select campaign_id as trial_id, customer_id, channel, sent_at, treated
        from {_file("assignments")} where customer_id is not null order by sent_at, trial_id, customer_id
    """
    return _reader(connect(), query, TRIALS.schema).read_all()


def exposures(window: Window) -> WeeklyRows:
    """What each store displayed in every week that touches the window."""
    wanted = config()
    first, last = max(window.first_day, wanted.first_day), min(window.last_day, wanted.last_day)
    if last < first:
        return WeeklyRows(0, -1, tables.EXPOSURES.empty_table().to_reader())
    ids = pq.read_table(folder() / "products.parquet", columns=["product_id"])["product_id"]
    epoch = dt.date(1970, 1, 1)
    begins, ends = (first - epoch).days, (last - epoch).days + 1 - 1e-9
    weeks = range(int(week_of(begins)), int(week_of(ends)) + 1)

    def batches() -> Iterator[pa.RecordBatch]:
        for week in weeks:
            yield from _displayed(wanted, ids, week).to_batches()

    return WeeklyRows(weeks[0], weeks[-1], pa.RecordBatchReader.from_batches(tables.EXPOSURES, batches()))


def _displayed(wanted: AtelierConfig, ids: pa.ChunkedArray, week: int) -> pa.Table:
    shown = displays(wanted, week)
    store = np.repeat(np.arange(shown.shape[0]), shown.shape[1])
    place = np.tile(np.arange(shown.shape[1]) % len(DISPLAY_PLACES), shown.shape[0])
    # A product that was drawn twice for a store and week stands in its first place only.
    _, kept = np.unique(store * len(ids) + shown.ravel(), return_index=True)
    rows = len(kept)
    columns = {
        "week": np.full(rows, week, np.int32),
        "store_id": pc.cast(pa.array(store[kept]), pa.string()),
        "product_id": ids.take(pa.array(shown.ravel()[kept])),
        "display": np.ones(rows, bool), "mailer": np.zeros(rows, bool),
        "display_location": pa.array(DISPLAY_PLACES).take(pa.array(place[kept])),
        "mailer_location": pa.nulls(rows, pa.string()),
    }  # fmt: skip
    return pa.table(columns).cast(tables.EXPOSURES)


def _file(name: str) -> str:
    return f"read_parquet({literal(str(folder() / f'{name}.parquet'))})"


def _sample(households: int) -> str:
    return (
        f"select person_id from {_file('persons')} order by md5(person_id), person_id limit {int(households)}"
    )


def _reader(con: duckdb.DuckDBPyConnection, query: str, schema: pa.Schema) -> pa.RecordBatchReader:
    raw = con.sql(query).to_arrow_reader(BATCH_ROWS)
    return pa.RecordBatchReader.from_batches(schema, (batch.cast(schema) for batch in raw))
