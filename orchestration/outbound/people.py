"""One row per person with everything that a condition may ask for, put together from the lake.

Belongs here: reading tables and predictions into one DuckDB table. Does not belong here: which fields there are
(`fields.py`), who is chosen (`audiences.py`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import duckdb
import pyarrow as pa

from contracts.identity import LOGIN
from contracts.moments import BAD
from contracts.outbound import OutboundError
from contracts.retailer import Retailer
from contracts.settings import Settings
from feature_repo.snapshots import SnapshotError, attach, connect, quoted
from orchestration.lake import kpis
from orchestration.lake.consent import CONSENTS
from orchestration.lake.identity_tables import EVENT_PERSONS, LINKS
from orchestration.lake.people import MOMENTS, SESSIONS_TABLE
from orchestration.lake.tables import TABLES
from orchestration.outbound.fields import KPI_DAYS, MOMENT_DAYS, PEOPLE, PERSON_KPIS
from orchestration.outbound.outlook import load_outlook

PASSIVE = "('impression', 'delivery')"
"""What happens to a person without their doing (`contracts.sessions.PASSIVE`)."""


@dataclasses.dataclass(frozen=True)
class People:
    """Everybody, ready to be asked about.

    Attributes:
        con: DuckDB with tables `people` (person_id and every field of `fields.PEOPLE`), `links` (the identifiers
            that are one person's alone) and `consents`.
        now: The shop's clock.
        absent: Fields of which nothing is known here at all -> what would make them known.
        versions: Versions of the lake's tables that were read.
    """

    con: duckdb.DuckDBPyConnection
    now: dt.datetime
    absent: dict[str, str]
    versions: dict[str, int]


def load_people(settings: Settings, retailer: Retailer, memory_limit: str = "2GB") -> People:
    """Read everybody.

    Raises:
        OutboundError: The lake does not know its people yet.
    """
    con = connect(memory_limit)
    tables = {
        "events": TABLES["events"], "products": TABLES["products"], "customers": TABLES["customers"],
        "persons": EVENT_PERSONS, "identity_links": LINKS, "consents": CONSENTS, "moments": MOMENTS,
        "sessions": SESSIONS_TABLE,
    }  # fmt: skip
    versions = {}
    try:
        for name, table in tables.items():
            versions[name] = attach(con, name, table.path(settings.lake))
    except SnapshotError as error:
        raise OutboundError(f"nothing can leave yet: {error}; run the job people first") from error
    con.execute(
        """create temp table known as select p.person_id, e.* from events e
        join persons p on p.source = e.source and p.event_id = e.event_id where p.person_id is not null"""
    )
    latest = con.execute("select max(occurred_at) from known").fetchall()[0][0]
    now = dt.datetime.now(dt.UTC)
    if retailer.clock == "stream" and latest is not None:
        now = latest.astimezone(dt.UTC)
    con.execute("set variable now = ?::timestamptz", [now])
    con.execute("create temp table links as select * from identity_links where state = 'linked'")
    _behaviour(con)
    _profile(con)
    _moments(con)
    _kpis(con, now)
    _segments(con)
    absent = _predictions(con, settings)
    columns = ", ".join(quoted(name) for name in PEOPLE)
    parts = ("profile", "bad", "kpi", "segments", "predictions")
    joins = " ".join(f"left join {part} using (person_id)" for part in parts)
    con.execute(f"create temp table people as select person_id, {columns} from behaviour {joins}")
    return People(con, now, absent, versions)


def _behaviour(con: duckdb.DuckDBPyConnection) -> None:
    days = "floor(epoch(getvariable('now') - {0}) / 86400.0)"
    con.execute(
        f"""create temp table behaviour as
        with facts as (
            select person_id, min(occurred_at) as first_at,
                max(occurred_at) filter (action not in {PASSIVE}) as last_at,
                max(occurred_at) filter (action = 'purchase') as bought_at,
                count(distinct occurred_at) filter (action = 'purchase') as orders,
                sum(coalesce(quantity, 1) * coalesce(unit_price, 0)) filter (action = 'purchase') as spend,
                count(distinct channel) filter (action not in {PASSIVE}
                    and occurred_at > getvariable('now') - interval {KPI_DAYS} days) as channels,
                arg_max(channel, (occurred_at, source, event_id)) filter (action not in {PASSIVE}) as last_channel
            from known where occurred_at <= getvariable('now') group by person_id
        ), used as (
            select person_id, channel, count(*) as acts from known
            where action not in {PASSIVE} and occurred_at <= getvariable('now')
                and occurred_at > getvariable('now') - interval {KPI_DAYS} days group by all
        ), favourite as (select person_id, arg_max(channel, (acts, channel)) as favourite_channel from used group by all
        ), bought as (
            select person_id, department, sum(coalesce(quantity, 1) * coalesce(unit_price, 0)) as spent
            from known join products using (product_id) where action = 'purchase' and department is not null group by all
        ), departments as (
            select person_id, arg_max(department, (spent, department)) as favourite_department from bought group by all
        ), came as (
            select person_id, count(*) as visits from sessions where started_at <= getvariable('now')
                and started_at > getvariable('now') - interval {KPI_DAYS} days group by all
        )
        select person_id, {days.format("first_at")} as days_since_first_seen,
            {days.format("last_at")} as days_since_last_seen,
            coalesce(visits, 0)::double as visits, channels::double as channels, favourite_channel, last_channel,
            orders::double as orders, round(coalesce(spend, 0), 2)::double as spend,
            {days.format("bought_at")} as days_since_purchase, favourite_department
        from facts left join favourite using (person_id) left join departments using (person_id)
            left join came using (person_id)"""
    )


def _profile(con: duckdb.DuckDBPyConnection) -> None:
    """What the shop knows of the account with the most events; `accounts` serves predictions too."""
    con.execute(
        f"""create temp table accounts as select person_id, value as customer_id from links where kind = '{LOGIN}'
        qualify row_number() over (partition by person_id order by events desc, first_at, value) = 1"""
    )
    names = [field.name for field in PEOPLE.values() if field.source == "profile"]
    columns = ", ".join(quoted(name) for name in names)
    con.execute(
        f"create temp table profile as select person_id, {columns} from accounts join customers using (customer_id)"
    )


def _moments(con: duckdb.DuckDBPyConnection) -> None:
    kinds = ", ".join(f"'{kind}'" for kind in sorted(BAD))
    recent = f"occurred_at > getvariable('now') - interval {MOMENT_DAYS} days"
    con.execute(
        f"""create temp table bad as
        with found as (
            select person_id, count(*) filter ({recent}) as bad_moments,
                count(*) filter ({recent} and recovered_at is null) as open_moments,
                arg_max(kind, (occurred_at, event_id)) filter ({recent}) as last_bad_moment,
                floor(epoch(getvariable('now') - max(occurred_at)) / 86400.0) as days_since_bad_moment
            from moments where kind in ({kinds}) and occurred_at <= getvariable('now') group by person_id
        )
        select person_id, coalesce(bad_moments, 0)::double as bad_moments,
            coalesce(open_moments, 0)::double as open_moments, last_bad_moment, days_since_bad_moment
        from (select distinct person_id from known) left join found using (person_id)"""
    )


def _kpis(con: duckdb.DuckDBPyConnection, now: dt.datetime) -> None:
    import ibis

    backend = ibis.duckdb.from_connection(con)
    tables = kpis.Tables(*(backend.table(name) for name in ("known", "sessions", "moments", "products")))
    end = now + dt.timedelta(microseconds=1)
    window = kpis.Window(end - dt.timedelta(days=KPI_DAYS), end)
    con.execute("create temp table everyone as select distinct person_id from known")
    joined = ["everyone"]
    for name in PERSON_KPIS:
        query = ibis.to_sql(kpis.measure(name, tables, window, [kpis.PERSON]), dialect="duckdb")
        finite = f"case when isfinite(value) then round(value, 4) end as {name}"
        con.execute(f"create temp table kpi_{name} as select person_id, {finite} from ({query})")
        joined.append(f"left join kpi_{name} using (person_id)")
    con.execute(f"create temp table kpi as select * from {' '.join(joined)}")


def _segments(con: duckdb.DuckDBPyConnection) -> None:
    from training.relationship.segments import rfm

    rows = con.sql(
        "select person_id, days_since_purchase, orders, spend from behaviour where orders > 0 order by person_id"
    ).to_arrow_table()
    names: Any = []
    if rows.num_rows:
        columns = (rows[name].to_numpy() for name in ("days_since_purchase", "orders", "spend"))
        names = rfm(*columns).segment.tolist()
    con.register(
        "segments", pa.table({"person_id": rows["person_id"], "segment": pa.array(names, pa.string())})
    )


def _predictions(con: duckdb.DuckDBPyConnection, settings: Settings) -> dict[str, str]:
    """Table `predictions`; what nothing is known of."""
    found, absent = load_outlook(settings)
    con.register("predicted", found)
    columns = ", ".join(quoted(name) for name in found.column_names if name != "customer_id")
    con.execute(
        f"create temp table predictions as select person_id, {columns} from accounts join predicted using (customer_id)"
    )
    return absent
