"""Sessions and moments of every person, as tables of the lake.

Belongs here: which events count (those of people, not of machines), storing what the shared detector
finds. Does not belong here: who is who (`identity.py`), what a session or a moment is (`contracts`).
"""

from __future__ import annotations

import dataclasses
import pathlib

from contracts.moments import MomentRules
from feature_repo.snapshots import attach, connect
from orchestration.lake import writing
from orchestration.lake.identity_tables import EVENT_PERSONS
from orchestration.lake.moments import MOMENTS_TABLE, detect
from orchestration.lake.sessions import NEEDED, SESSIONS
from orchestration.lake.tables import TABLES, Table

SESSIONS_TABLE = Table("sessions", SESSIONS, None, "Visits of each person, over all devices and channels.")
MOMENTS = Table(
    "moments", MOMENTS_TABLE, None, "Micro-moments with their evidence, and when bad ones were made good."
)


@dataclasses.dataclass(frozen=True)
class Detected:
    """What one run found.

    Attributes:
        events: Events of people that were read.
        sessions: Commit of the sessions table.
        moments: Commit of the moments table.
        kinds: Moments by kind, most first.
    """

    events: int
    sessions: writing.Commit
    moments: writing.Commit
    kinds: dict[str, int]


def store_moments(
    lake: pathlib.Path, rules: MomentRules | None = None, memory_limit: str = "2GB"
) -> Detected:
    """Find sessions and moments of everybody and put them in place of the former ones.

    Events without a person (of machines, or of nobody in particular) take no part.

    Args:
        lake: Folder of the lake, with `identity_events` (`orchestration.lake.identity.stitch_lake`).
        rules: Thresholds, or None for the defaults.
        memory_limit: What DuckDB may hold.

    Raises:
        SnapshotError: The events or their persons are missing.
    """
    con = connect(memory_limit)
    attach(con, "events", TABLES["events"].path(lake))
    attach(con, "persons", EVENT_PERSONS.path(lake))
    columns = ", ".join(f"e.{name}" for name in NEEDED)
    events = con.sql(
        f"""select {columns}, p.person_id from events e
        join persons p on p.source = e.source and p.event_id = e.event_id where p.person_id is not null"""
    ).to_arrow_table()
    sessions, moments = detect(events, rules, person="person_id")
    counts = moments.group_by("kind").aggregate([("kind", "count")]).to_pylist()
    return Detected(
        events=events.num_rows,
        sessions=writing.replace_all(SESSIONS_TABLE, lake, sessions),
        moments=writing.replace_all(MOMENTS, lake, moments),
        kinds={
            row["kind"]: row["kind_count"] for row in sorted(counts, key=lambda row: -int(row["kind_count"]))
        },
    )
