"""From feeds into the lake, as little as needed: what is new is read, the days that it touches are taken in.

A part is noted as landed when the commits of its days are done, so a killed pull is completed by the next.

Belongs here: which windows to ingest. Does not belong here: ingesting (`orchestration/lake/ingest.py`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import pathlib
from collections.abc import Iterable, Iterator
from typing import cast

import pyarrow as pa

from contracts.retailer import Retailer
from orchestration.lake import ingest
from orchestration.sources import Source, Window
from orchestration.sources.feeds import parts
from orchestration.sources.feeds.parts import Part
from orchestration.sources.files import NAME, Files

LARGEST_WINDOW = 1_500_000


@dataclasses.dataclass(frozen=True)
class Taken:
    """What one pull did.

    Attributes:
        read: Parts that were made.
        unchanged: Files and tables with nothing new.
        days: Days that were taken in.
        events: Events of these days in the lake now.
        dead_letters: Dead letters of these days.
        outside: Days that lie outside the profile's range and were left.
        changes: What is different about the columns of a file from the one read before, in words.
    """

    read: tuple[Part, ...]
    unchanged: int
    days: tuple[dt.date, ...]
    events: int
    dead_letters: int
    outside: int
    changes: tuple[str, ...] = ()


def pull(lake: pathlib.Path, source: Files, now: dt.datetime | None = None) -> Taken:
    """Read what is new and take the days it touches into the lake.

    Args:
        lake: Folder of the lake.
        source: The shop's files.
        now: The clock.

    Raises:
        NothingToReadError: A feed none of whose files can be used.
    """
    retailer = source.retailer
    synced = source.sync(now)
    source.complain()
    due = source.due()
    inside = {day for day in due.days if retailer.first_day <= day <= retailer.last_day}
    outside = len(due.days) - len(inside)
    if due.timeless:
        inside.add(retailer.first_day)  # Rows without a readable time count as of the first day.
    events = letters = 0
    for window in windows(inside, source, retailer):
        done = take(lake, source, window, now)
        events, letters = events + done.events.rows, letters + done.dead_letters.rows
    changes = tuple(_changes(source, synced.read))
    source.settle(due)
    days = tuple(sorted(inside))
    return Taken(synced.read, synced.unchanged, days, events, letters, outside, changes)


def _changes(source: Files, read: tuple[Part, ...]) -> Iterator[str]:
    """Columns that a file has or lacks, beside the file of its feed that was read before it."""
    for part in read:
        before = [
            other for other in parts.stored(source.root, part.feed)
            if other.created_ns < part.created_ns and other.columns and other.container == part.container
        ]  # fmt: skip
        if not before or not part.columns or part.container == "documents":
            continue
        new = [name for name in part.columns if name not in before[-1].columns]
        gone = [name for name in before[-1].columns if name not in part.columns]
        told = ([f"new columns {', '.join(new)}"] if new else []) + (
            [f"no more {', '.join(gone)}"] if gone else []
        )
        if told:
            yield f"{part.feed}: {pathlib.Path(part.origin).name} has {'; '.join(told)}"


class _Read:
    """A source as it has been read, so that all windows of a pull see the same."""

    def __init__(self, source: Files) -> None:
        self._source = source

    def events(self, window: Window) -> pa.RecordBatchReader:
        return self._source.answer(window)


def take(
    lake: pathlib.Path, source: Files, window: Window, now: dt.datetime | None = None
) -> ingest.Ingested:
    """Take one window of what has been read into the lake (`orchestration.lake.ingest.ingest_events`)."""
    return ingest.ingest_events(lake, NAME, cast(Source, _Read(source)), window, now)


def windows(days: Iterable[dt.date], source: Files, retailer: Retailer) -> Iterator[Window]:
    """Days as windows, each a run of days that one commit holds in memory (about `LARGEST_WINDOW` rows)."""
    live = [part for part in source.live() if part.days]
    rows: dict[dt.date, float] = {}
    for part in live:
        for day in part.days:
            rows[day] = rows.get(day, 0.0) + part.rows / len(part.days)
    for first, last in ranges(days):
        start, held, day = first, 0.0, first
        while day <= last:
            if held and held + rows.get(day, 0.0) > LARGEST_WINDOW:
                yield Window(start, day - dt.timedelta(days=1), retailer.households, retailer.first_day)
                start, held = day, 0.0
            held, day = held + rows.get(day, 0.0), day + dt.timedelta(days=1)
        yield Window(start, last, retailer.households, retailer.first_day)


def ranges(days: Iterable[dt.date]) -> Iterator[tuple[dt.date, dt.date]]:
    """Runs of days that follow one another, as first and last."""
    ordered = sorted(days)
    while ordered:
        end = 1
        while end < len(ordered) and ordered[end] - ordered[end - 1] == dt.timedelta(days=1):
            end += 1
        yield ordered[0], ordered[end - 1]
        ordered = ordered[end:]
