"""Everybody in the lake: the steps that identify them, and their sessions and moments as tables.

Belongs here: the order of the steps, which events count (those of people, not of machines), storing what
the shared detector finds. Does not belong here: how identifiers are joined (`identity.py`,
`identity_probabilistic.py`), what a session or a moment is (`contracts`).
"""

from __future__ import annotations

import dataclasses
import pathlib

import pyarrow as pa

from contracts.moments import MomentRules
from feature_repo.snapshots import attach, connect
from orchestration.lake import identity, merges, writing
from orchestration.lake.consent import store_consents
from orchestration.lake.identity_probabilistic import Matched, match_forms
from orchestration.lake.identity_tables import EVENT_PERSONS
from orchestration.lake.moments import MOMENTS_TABLE, detect_in_parts
from orchestration.lake.sessions import NEEDED, SESSIONS
from orchestration.lake.tables import TABLES, Table

SESSIONS_TABLE = Table("sessions", SESSIONS, None, "Visits of each person, over all devices and channels.")
PART_EVENTS = 2_000_000
"""Events whose sessions and moments are found at a time: about 1 GB."""

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
    query = f"""select {columns}, p.person_id from events e
        join persons p on p.source = e.source and p.event_id = e.event_id where p.person_id is not null"""
    events = int(con.execute("select count(*) from persons where person_id is not null").fetchall()[0][0])
    parts = list(detect_in_parts(con, query, max(1, -(-events // PART_EVENTS)), rules, person="person_id"))
    sessions, moments = (pa.concat_tables(tables) for tables in zip(*parts, strict=True))
    counts = moments.group_by("kind").aggregate([("kind", "count")]).to_pylist()
    return Detected(
        events=events,
        sessions=writing.replace_all(SESSIONS_TABLE, lake, sessions),
        moments=writing.replace_all(MOMENTS, lake, moments),
        kinds={
            row["kind"]: row["kind_count"] for row in sorted(counts, key=lambda row: -int(row["kind_count"]))
        },
    )


@dataclasses.dataclass(frozen=True)
class Identified:
    """What one run over all identifiers did.

    Attributes:
        profiled: Who is who, after guests were matched.
        forms: Forms of guests that were compared.
        matched: Merges that matching proposed and that are new in the ledger.
        ambiguous: Matches left alone because a second person fits almost as well.
        consents: Statements of consent that count, by person's identifier and purpose.
    """

    profiled: identity.Profiled
    forms: int
    matched: int
    ambiguous: int
    consents: int


def store_identities(lake: pathlib.Path, memory_limit: str = "2GB") -> Identified:
    """Stitch deterministically, match guests' forms, stitch again with what was matched, store consents.

    Args:
        lake: Folder of the lake.
        memory_limit: What DuckDB may hold.

    Raises:
        SnapshotError: There are no events.
    """
    profiled = identity.stitch_lake(lake, memory_limit=memory_limit)
    con = connect(memory_limit)
    attach(con, "events", TABLES["events"].path(lake))
    forms = con.execute("""select count(*) from events where contains(detail, '"form"')""").fetchall()[0][0]
    found = Matched(0, 0, [], 0)
    if forms:  # Few shops have forms; stitching once more for nothing would take as long as the first time.
        found = match_forms(identity.stitch(con, None, merges.read_ledger(lake), identity.read_anchors(lake)))
    con.close()
    written = merges.merge(lake, found.proposals, "probabilistic", "splink") if found.proposals else []
    if written:
        profiled = identity.stitch_lake(lake, memory_limit=memory_limit)
    consents = store_consents(lake, memory_limit)
    return Identified(profiled, found.records, len(written), found.ambiguous, consents.rows)
