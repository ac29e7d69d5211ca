"""What the outbox stores: its tables, its records, and the lock of who may write.

Belongs here: shapes. Does not belong here: reading and writing them (`outbox.py`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import pathlib
from collections.abc import Iterator
from typing import Literal

from contracts.events import Purpose
from contracts.outbound import OutboundError

Change = Literal["added", "changed", "removed"]
CHANGES: tuple[Change, ...] = ("added", "changed", "removed")

SCHEMA = """
create table if not exists written (
    destination text not null, audience text not null, kind text not null, place text not null, detail text not null,
    primary key (destination, audience, place)) strict;
create table if not exists chosen (audience text primary key, rows integer not null) strict;
create table if not exists problems (text text not null) strict;
create table if not exists members (
    destination text not null, audience text not null, row_id text not null, person_id text not null, hash text not null,
    primary key (destination, audience, row_id)) strict, without rowid;
create index if not exists members_person on members (person_id);
create table if not exists recipients (
    destination text not null, person_id text not null, primary key (destination, person_id)) strict, without rowid;
create table if not exists messages (
    seq integer primary key autoincrement, message_id text not null unique, destination text not null,
    audience text not null, purpose text not null, made_at text not null, attempts integer not null default 0,
    next_at real not null default 0, error text not null default '', dead integer not null default 0) strict;
create index if not exists messages_destination on messages (destination, seq);
create table if not exists items (
    message_id text not null, place integer not null, change text not null, row_id text not null,
    person_id text not null, raw text not null, primary key (message_id, place)) strict, without rowid;
create index if not exists items_person on items (person_id);
create table if not exists sent (
    seq integer primary key autoincrement, message_id text not null, destination text not null, audience text not null,
    sent_at text not null, attempts integer not null, rows integer not null) strict;
"""

KEEP_SENT = 10_000
"""Latest receipts that are kept; they name nobody."""


class OutboxBusyError(RuntimeError):
    """Another process exports, sends or erases; nothing is lost: call again."""


@dataclasses.dataclass(frozen=True)
class Item:
    """One row of a message.

    Attributes:
        change: What became of it.
        row_id: Person or action.
        person_id: Whose row.
        raw: JSON of the row.
    """

    change: Change
    row_id: str
    person_id: str
    raw: str


@dataclasses.dataclass(frozen=True)
class Message:
    """A message that waits.

    Attributes:
        message_id: The same over all attempts.
        destination: Webhook.
        audience: Of which it speaks.
        purpose: For which its rows may be told.
        made_at: ISO 8601, UTC.
        attempts: So far.
        next_at: Unix time before which it is not tried again.
        error: Of the last attempt.
        dead: No further attempt is made by itself.
    """

    message_id: str
    destination: str
    audience: str
    purpose: Purpose
    made_at: str
    attempts: int
    next_at: float
    error: str
    dead: bool


@dataclasses.dataclass(frozen=True)
class Place:
    """Somewhere that an audience was written to.

    Attributes:
        destination: Name in the yaml.
        audience: Name in the yaml.
        kind: ``files`` or ``sql``.
        place: Path of the file, or name of the table.
        detail: What is needed to find it again: the format, or the database's address before its variables are filled.
    """

    destination: str
    audience: str
    kind: str
    place: str
    detail: str


@contextlib.contextmanager
def alone(folder: pathlib.Path) -> Iterator[None]:
    """Only one process of an installation exports, sends or erases at a time.

    Raises:
        OutboxBusyError: Another one does.
        OutboundError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a")
    except OSError as error:
        raise OutboundError(
            f"{folder} cannot be written: {error.strerror}; expected a folder for what leaves"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OutboxBusyError(
                "another process exports or sends right now; call again when it is done"
            ) from error
        yield
