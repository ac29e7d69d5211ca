"""Tables of the one profile.

Belongs here: Arrow schemas and where the tables lie. Does not belong here: what fills them.
"""

from __future__ import annotations

import pyarrow as pa

from orchestration.lake.tables import TIMESTAMP, Table

LINKS = Table(
    "identity_links",
    pa.schema(
        [
            pa.field("kind", pa.string()),
            pa.field("value", pa.string()),
            pa.field("person_id", pa.string()),
            pa.field("state", pa.string()),
            pa.field("logins", pa.int64()),
            pa.field("events", pa.int64()),
            pa.field("first_at", TIMESTAMP),
        ]
    ),
    None,
    "Every identifier and its person; state is linked, shared (several persons) or quarantined (a machine).",
)

ANCHORS = Table(
    "identity_anchors",
    pa.schema(
        [
            pa.field("person_id", pa.string()),
            pa.field("seq", pa.int64()),
            pa.field("rank", pa.int64()),
            pa.field("kind", pa.string()),
            pa.field("value", pa.string()),
        ]
    ),
    None,
    "Identifiers that hold a person's id in place when others come and go.",
)

EVENT_PERSONS = Table(
    "identity_events",
    pa.schema(
        [
            pa.field("source", pa.string()),
            pa.field("event_id", pa.string()),
            pa.field("occurred_at", TIMESTAMP),
            pa.field("person_id", pa.string()),
            pa.field("how", pa.string()),
            pa.field("day", pa.date32()),
        ]
    ),
    "day",
    "The person of every event, and on what evidence.",
)

BOTS = Table(
    "identity_bots",
    pa.schema(
        [
            pa.field("kind", pa.string()),
            pa.field("value", pa.string()),
            pa.field("events", pa.int64()),
            pa.field("burst_events", pa.int64()),
            pa.field("peak_per_second", pa.int64()),
            pa.field("first_at", TIMESTAMP),
            pa.field("last_at", TIMESTAMP),
            pa.field("quarantined", pa.bool_()),
        ]
    ),
    None,
    "Identifiers that sent faster than people do; quarantined as a whole, or only their bursts.",
)

LEDGER = Table(
    "identity_ledger",
    pa.schema(
        [
            pa.field("entry_id", pa.string()),
            pa.field("seq", pa.int64()),
            pa.field("at", TIMESTAMP),
            pa.field("op", pa.string()),
            pa.field("left_kind", pa.string()),
            pa.field("left_value", pa.string()),
            pa.field("right_kind", pa.string()),
            pa.field("right_value", pa.string()),
            pa.field("reason", pa.string()),
            pa.field("evidence", pa.string()),
            pa.field("score", pa.float64()),
            pa.field("author", pa.string()),
            pa.field("target", pa.string()),
        ]
    ),
    None,
    "Merges, their undoing and never-merge rules, in order; entries are only added.",
)

IDENTITY_TABLES = {table.name: table for table in (LINKS, ANCHORS, EVENT_PERSONS, BOTS, LEDGER)}
"""All tables of the one profile by name."""
