"""Dead letters: what broke the contract, to be read, mended and taken in after all.

A letter of the inbox keeps the event as it came. Once the reason is gone (the contract knows the channel
now, or the letters are mended by a patch), `replay` stores the event and removes the letter; killed in
between, the next replay finds the event stored and removes the letter alone. Letters of a bulk source go
away by themselves when their days are ingested again with a mended source.

Belongs here: reading and replaying letters. Does not belong here: why an event is refused (`intake.py`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import pathlib
from typing import Any

import msgspec

from contracts.events import Event, InvalidEvent, decode_event
from feature_repo.snapshots import attach, connect
from orchestration.lake import writing
from orchestration.lake.intake import INBOX, to_arrow, unseen
from orchestration.lake.tables import TABLES

REPLAY = "replay"
"""Application name of replayed batches."""


@dataclasses.dataclass(frozen=True)
class Replayed:
    """What a replay did.

    Attributes:
        events: Events stored.
        duplicates: Events that the lake held already; their letters are removed, too.
        still_broken: Letters that still break the contract, by reason.
        days: UTC days that got events, ascending.
    """

    events: int
    duplicates: int
    still_broken: dict[str, int]
    days: tuple[dt.date, ...]


def counts(lake: pathlib.Path) -> list[dict[str, Any]]:
    """Letters by origin, field and reason: how many, and the first and last day; most first."""
    if not (TABLES["dead_letters"].path(lake) / "_delta_log").is_dir():
        return []
    con = connect()
    attach(con, "letters", TABLES["dead_letters"].path(lake))
    rows = con.execute(
        """select origin, field, reason, count(*) as letters, min(day) as first_day, max(day) as last_day
        from letters group by all order by letters desc, reason"""
    ).to_arrow_table()
    return rows.to_pylist()


def replay(lake: pathlib.Path, reason: str = "", patch: dict[str, Any] | None = None) -> Replayed:
    """Take the inbox's letters in again; those that fit the contract now become events.

    Args:
        lake: Folder of the lake.
        reason: Only letters whose reason holds this text.
        patch: Fields to set in every letter before it is checked; None removes a field.

    Raises:
        SnapshotError: There is no table of dead letters.
    """
    table = TABLES["dead_letters"]
    con = connect()
    attach(con, "letters", table.path(lake))
    rows = con.execute(
        'select received_at, "offset", reason, raw from letters where origin = $origin and contains(reason, $reason) '
        "order by all",
        {"origin": INBOX, "reason": reason},
    ).fetchall()
    mended: dict[tuple[int, str], Event] = {}
    broken: dict[str, int] = {}
    for received, offset, _, raw in rows:
        try:
            event = decode_event(_patched(raw, patch), received)
        except InvalidEvent as error:
            broken[str(error)] = broken.get(str(error), 0) + 1
        else:
            mended[offset, raw] = msgspec.structs.replace(event, received_at=received)
    if not mended:
        return Replayed(0, 0, broken, ())
    events = TABLES["events"]
    writing.ensure(events, lake)
    new = unseen(lake, to_arrow(list(mended.values())))
    number = (writing.last_transaction(events, lake, REPLAY) or 0) + 1
    stored = writing.append_once(events, lake, new, REPLAY, number).rows
    writing.remove_letters(table, lake, list(mended))
    days = tuple(sorted(set(new["day"].to_pylist())))
    return Replayed(stored, len(mended) - stored, broken, days)


def _patched(raw: str, patch: dict[str, Any] | None) -> bytes:
    """A letter's JSON with some fields set; what is not a JSON object stays as it is, to be refused."""
    if not patch:
        return raw.encode()
    try:
        value = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return raw.encode()
    if not isinstance(value, dict):
        return raw.encode()
    merged = {**value, **patch}
    return msgspec.json.encode({name: content for name, content in merged.items() if content is not None})
