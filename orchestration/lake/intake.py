"""From the inbox into the lake: batches of accepted events, each exactly once.

The server acknowledges an event when it is on disk in the inbox; `drain` moves it into the lake. The
number of a batch is the inbox offset of its last event, written into the Delta commit as an application
transaction, so a batch that is drained twice (a killed process, a retried run) lands once. An event that
the lake already holds under its (source, event_id) changes nothing.

Belongs here: inbox rows -> events and dead letters. Does not belong here: reading the inbox file
(`serving/inbox/reader.py`), bulk sources (`ingest.py`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from contracts.events import Event, InvalidEvent, decode_event
from contracts.identity import TOMBSTONES_FILE, read_tombstones
from feature_repo.snapshots import attach, connect
from orchestration.lake import tables, writing
from orchestration.lake.erasure_shield import admitted
from orchestration.lake.tables import TABLES
from orchestration.lake.validation import derive

INBOX = "inbox"
REFUSED = "refused"
"""Application names of the two streams of batches."""

LARGEST_POSITION = 2**31 - 1

InboxRow = tuple[int, dt.datetime, bytes]
"""Offset, receiver's clock in UTC, JSON of `contracts.events.Event` (`serving.inbox.reader.read_after`)."""

RefusedRow = tuple[int, dt.datetime, int, str, str, bytes]
"""Offset, receiver's clock, index in its batch, field, reason, raw (`serving.inbox.reader.read_refused`)."""


@dataclasses.dataclass(frozen=True)
class Drained:
    """What one batch did.

    Attributes:
        offset: Inbox offset up to which the lake is complete.
        events: Events stored.
        duplicates: Events that the lake (or the batch itself) already held.
        rejected: Events that broke the contract and became dead letters.
        first_day: Earliest UTC day that got events, or None.
        last_day: Latest such day, or None.
        version: Version of the events table.
    """

    offset: int
    events: int
    duplicates: int
    rejected: int
    first_day: dt.date | None
    last_day: dt.date | None
    version: int


def drained_offset(lake: pathlib.Path) -> int:
    """Inbox offset up to which the lake is complete, 0 at the beginning."""
    return writing.last_transaction(TABLES["events"], lake, INBOX) or 0


def refused_offset(lake: pathlib.Path) -> int:
    """Offset up to which refused events are in the dead letters, 0 at the beginning."""
    return writing.last_transaction(TABLES["dead_letters"], lake, REFUSED) or 0


def drain(lake: pathlib.Path, rows: Iterable[InboxRow]) -> Drained:
    """Store a batch of inbox rows, exactly once.

    Dead letters are committed before events, so a killed drain is completed by the next one.

    Args:
        lake: Folder of the lake.
        rows: Rows in order of their offsets; those that were drained before are skipped.
    """
    done = drained_offset(lake)
    fresh = [row for row in rows if row[0] > done]
    table = TABLES["events"]
    if not fresh:
        return Drained(done, 0, 0, 0, None, None, int(writing.ensure(table, lake).version()))
    last = fresh[-1][0]
    accepted, letters = _decode(fresh)
    letters_done = writing.last_transaction(TABLES["dead_letters"], lake, INBOX) or 0
    unwritten = [letter for letter in letters if letter["offset"] > letters_done]
    if unwritten:
        batch = pa.Table.from_pylist(unwritten, schema=tables.DEAD_LETTERS)
        writing.append_once(TABLES["dead_letters"], lake, batch, INBOX, last)
    new = unseen(lake, to_arrow(accepted))
    commit = writing.append_once(table, lake, new, INBOX, last)
    days = new["day"].to_pylist()
    return Drained(
        offset=last,
        events=commit.rows,
        duplicates=len(accepted) - new.num_rows,
        rejected=len(letters),
        first_day=min(days, default=None),
        last_day=max(days, default=None),
        version=commit.version,
    )


def drain_refused(lake: pathlib.Path, rows: Iterable[RefusedRow]) -> int:
    """Store what the server refused at the door as dead letters, exactly once.

    Returns:
        How many letters were stored.
    """
    done = refused_offset(lake)
    letters = [
        _letter(offset, received, raw, field, f"event {position} of its batch: {reason}")
        for offset, received, position, field, reason, raw in rows
        if offset > done
    ]
    if not letters:
        return 0
    batch = pa.Table.from_pylist(letters, schema=tables.DEAD_LETTERS)
    return writing.append_once(TABLES["dead_letters"], lake, batch, REFUSED, letters[-1]["offset"]).rows


def to_arrow(events: Sequence[Event]) -> pa.Table:
    """Checked events as rows of the events table (`tables.EVENTS`)."""
    encode = msgspec.json.encode
    columns: dict[str, list[Any]] = {
        name: [getattr(event, name) for event in events] for name in tables.CANONICAL.names
    }
    for name in ("identifiers", "detail", "consent"):
        columns[name] = [encode(value).decode() for value in columns[name]]
    for name in ("occurred_at", "received_at"):
        columns[name] = [None if value is None else value.astimezone(dt.UTC) for value in columns[name]]
    return derive(pa.table(columns, schema=tables.CANONICAL))


def _decode(rows: Sequence[InboxRow]) -> tuple[list[Event], list[dict[str, Any]]]:
    accepted: list[Event] = []
    letters: list[dict[str, Any]] = []
    for offset, received, raw in rows:
        try:
            event = decode_event(raw, received)
            if event.position is not None and event.position > LARGEST_POSITION:
                raise InvalidEvent(f"`$.position` is {event.position}; expected at most {LARGEST_POSITION}")
        except InvalidEvent as error:
            letters.append(_letter(offset, received, raw, field_of(str(error)), str(error)))
        else:
            accepted.append(msgspec.structs.replace(event, received_at=received))
    return accepted, letters


def field_of(message: str) -> str:
    """The field that a contract error names, such as ``identifiers[0].value``; empty for a whole event."""
    found = re.search(r"`\$\.([^`]*)`", message) or re.search(r"field `([^`]*)`", message)
    return found.group(1) if found else ""


def _letter(offset: int, received: dt.datetime, raw: bytes, field: str, reason: str) -> dict[str, Any]:
    return {
        "received_at": received,
        "source": _source_of(raw),
        "reason": reason,
        "field": field,
        "raw": raw.decode(errors="replace"),
        "origin": "inbox",
        "offset": offset,
        "day": received.astimezone(dt.UTC).date(),
    }


def _source_of(raw: bytes) -> str | None:
    try:
        event = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    source = event.get("source") if isinstance(event, dict) else None
    return source if isinstance(source, str) else None


def unseen(lake: pathlib.Path, batch: pa.Table) -> pa.Table:
    """The first of each (source, event_id) of the batch that the lake does not hold yet, in their order.

    Events of erased persons are not among them: the inbox lets none in, but a drain may run during an erasure.
    """
    batch = admitted(batch, read_tombstones(lake.parent / "inbox" / TOMBSTONES_FILE))
    con = connect()
    attach(con, "stored", TABLES["events"].path(lake))
    con.register("batch", batch.append_column("row", pa.array(range(batch.num_rows), pa.int64())))
    rows = con.sql(
        """with firsts as (select source, event_id, min(row) as row from batch group by source, event_id)
        select row from firsts anti join stored using (source, event_id) order by row"""
    ).to_arrow_table()
    return batch.take(rows["row"])
