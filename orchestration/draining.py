"""Emptying the live inbox into the lake, batch by batch, and saying which days it touched.

Belongs here: the bridge from the server's inbox file to `orchestration.lake.intake`. Does not belong
here: what one batch does to the lake.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from contracts.settings import Settings

BATCH = 5_000


@dataclass(frozen=True)
class DrainedInbox:
    """What one drain moved.

    Attributes:
        events: Events stored in the lake.
        duplicates: Events the lake held already.
        dead_letters: Events that became dead letters, those refused at the door included.
        offset: Inbox offset up to which the lake is complete.
        version: Version of the events table.
        days: UTC days that got events, ascending.
    """

    events: int
    duplicates: int
    dead_letters: int
    offset: int
    version: int
    days: tuple[dt.date, ...]


def waiting(settings: Settings) -> tuple[int, int]:
    """How many accepted events are not in the lake yet, and the newest inbox offset."""
    from orchestration.lake.intake import drained_offset
    from serving.inbox.reader import last_offset, pending

    if not settings.inbox.exists():
        return 0, 0
    return pending(settings.inbox, drained_offset(settings.lake)), last_offset(settings.inbox)


def drain_inbox(settings: Settings) -> DrainedInbox:
    """Move everything that waits in the inbox into the lake.

    A killed drain is completed by the next one; nothing lands twice (see `orchestration.lake.intake`).
    """
    from feature_repo.snapshots import delta_files, partition_days
    from orchestration.lake import intake, writing
    from orchestration.lake.tables import TABLES
    from serving.inbox.reader import read_after, read_refused

    path = TABLES["events"].path(settings.lake)
    writing.ensure(TABLES["events"], settings.lake)
    _, before = delta_files(path)
    events = duplicates = letters = 0
    while rows := read_after(settings.inbox, intake.drained_offset(settings.lake), BATCH):
        done = intake.drain(settings.lake, rows)
        events, duplicates, letters = (
            events + done.events,
            duplicates + done.duplicates,
            letters + done.rejected,
        )
    while refused := read_refused(settings.inbox, intake.refused_offset(settings.lake), BATCH):
        letters += intake.drain_refused(settings.lake, refused)
    version, after = delta_files(path)
    days = tuple(partition_days(set(after) - set(before)))
    return DrainedInbox(events, duplicates, letters, intake.drained_offset(settings.lake), version, days)
