"""Contacts that were given at random: who got one, who was held out, over which channel, in which trial.

Only such a record tells what a contact causes; whom a shop chose to contact otherwise differs from whom it did not.
A source that has one offers a function ``trials`` (rows of `TRIALS`); a shop without says so, and nothing is
guessed in its place.

Belongs here: the table, taking it in, KPIs by arm. Does not belong here: learning from it (`training/relationship`).
"""

from __future__ import annotations

import datetime as dt
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from contracts.events import CHANNELS
from contracts.identity import LOGIN, Tombstones
from feature_repo.snapshots import attach, connect
from orchestration.lake import kpis, writing
from orchestration.lake.identity_tables import LINKS
from orchestration.lake.tables import TIMESTAMP, Table

if TYPE_CHECKING:
    from orchestration.lake.kpis import Tables

TRIALS = Table(
    "trials",
    pa.schema(
        [
            pa.field("trial_id", pa.string()),
            pa.field("customer_id", pa.string()),
            pa.field("channel", pa.string()),
            pa.field("sent_at", TIMESTAMP),
            pa.field("treated", pa.bool_()),
        ]
    ),
    None,
    "Contacts assigned at random: one row per trial and customer, also for those who were held out.",
)

OUTCOME_DAYS = 7
"""After a contact, what a customer does within so many days counts as its outcome."""


LATEST_TRIALS = 6
"""Of each channel, so many of the latest trials are shown with the shop's KPIs by arm."""


class TrialError(ValueError):
    """A record of trials that cannot be used; the message names the column and what was expected."""


def trials_of(source: Any) -> pa.Table:
    """The trials that a source knows, checked; empty where it knows none.

    Raises:
        TrialError: Columns or values break the table's contract.
    """
    if not hasattr(source, "trials"):
        return TRIALS.schema.empty_table()
    rows: pa.Table = source.trials()
    if rows.schema != TRIALS.schema:
        raise TrialError(f"trials have columns {rows.schema.names}; expected {TRIALS.schema.names}, typed so")
    for name in TRIALS.schema.names:
        if rows[name].null_count:
            raise TrialError(
                f"column '{name}' of trials is null in {rows[name].null_count} rows; expected values"
            )
    strange = sorted(set(pc.unique(rows["channel"]).to_pylist()) - set(CHANNELS))
    if strange:
        raise TrialError(
            f"column 'channel' of trials holds '{strange[0]}'; expected one of {', '.join(CHANNELS)}"
        )
    return rows


def ingest_trials(
    lake: pathlib.Path,
    source: Any,
    tombstones: Tombstones | None = None,
    until: dt.datetime | None = None,
) -> writing.Commit:
    """Store the trials, in place of those before.

    Args:
        lake: Folder of the lake.
        source: Any source.
        tombstones: Customers who were erased are left out.
        until: What was sent at or after this moment (with a zone) is left for later, or None.
    """
    rows = trials_of(source)
    if until is not None:
        rows = rows.filter(pc.less(rows["sent_at"], pa.scalar(until, TIMESTAMP)))
    if tombstones:
        gone = [
            tombstones.of_identifier(LOGIN, customer) in tombstones.digests
            for customer in rows["customer_id"].to_pylist()
        ]
        rows = rows.filter(pc.invert(pa.array(gone, pa.bool_())))
    return writing.replace_all(TRIALS, lake, rows)


def kpis_of_trials(
    lake: pathlib.Path, names: Sequence[str], memory_limit: str = "2GB"
) -> list[dict[str, str | float]]:
    """KPIs by channel and arm over the latest trials, from the lake.

    Args:
        lake: Folder of the lake, with trials, identities, sessions and moments.
        names: Of `kpis.KPIS`.
        memory_limit: What DuckDB may hold.

    Returns:
        One row per channel and KPI: ``channel, kpi, contacted, held out, difference``; NaN over nobody.

    Raises:
        SnapshotError: A table is missing.
    """
    import ibis

    con = connect(memory_limit)
    attach(con, "all_trials", TRIALS.path(lake))
    con.execute(
        f"""create temp table trials as select * from all_trials semi join (
            select trial_id from all_trials group by trial_id
            qualify row_number() over (partition by any_value(channel) order by max(sent_at) desc, trial_id)
                <= {LATEST_TRIALS}) using (trial_id)"""
    )
    since = con.execute("select min(sent_at) from trials").fetchall()[0][0]
    if since is None:
        return []
    tables = kpis.attach_tables(con, lake, since - dt.timedelta(days=OUTCOME_DAYS))
    attach(con, "links", LINKS.path(lake))
    con.execute(
        """create temp table arms as select t.*, l.person_id from trials t
        join links l on l.kind = 'customer' and l.value = t.customer_id and l.state = 'linked'
        where l.person_id is not null"""
    )
    arms = ibis.duckdb.from_connection(con).table("arms")
    channels = [row[0] for row in con.execute("select distinct channel from trials order by 1").fetchall()]
    rows: list[dict[str, str | float]] = []
    for channel in channels:
        for name in names:
            found = kpi_by_arm(name, tables, arms, channel)
            value = {arm: float("nan") if pair[0] is None else float(pair[0]) for arm, pair in found.items()}
            difference = value["contacted"] - value["held out"]
            rows.append({"channel": channel, "kpi": name, **value, "difference": difference})
    return rows


def kpi_by_arm(
    name: str, tables: Tables, trials: Any, channel: str, days: int = OUTCOME_DAYS
) -> dict[str, tuple[float | None, int]]:
    """A KPI of the shop among those who were contacted and those who were held out, as the KPI is defined for all.

    Every trial of the channel counts over its own days after sending; trials are put together by people.

    Args:
        name: Of `kpis.KPIS`.
        tables: What KPIs are computed from.
        trials: Ibis table of `TRIALS` with ``person_id``.
        channel: Of the trials.
        days: After sending.

    Returns:
        By arm (``contacted``, ``held out``) the value, None over nobody, and on how many rows it rests.
    """
    mine = trials.filter(trials.channel == channel)
    spans = mine.group_by("trial_id").aggregate(start=mine.sent_at.min()).to_pyarrow().to_pylist()
    found: dict[str, tuple[float | None, int]] = {}
    for arm, treated in (("contacted", True), ("held out", False)):
        total, rows = 0.0, 0
        for span in spans:
            start = span["start"].astimezone(dt.UTC)
            people = mine.filter(mine.trial_id == span["trial_id"], mine.treated == treated)
            window = kpis.Window(start, start + dt.timedelta(days=days))
            row = kpis.measure(name, kpis.among(tables, people), window).to_pyarrow().to_pylist()[0]
            if row["value"] is not None and row["rows"]:
                total, rows = total + row["value"] * row["rows"], rows + row["rows"]
        found[arm] = (total / rows if rows else None, rows)
    return found
