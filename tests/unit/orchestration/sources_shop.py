"""Small shops made of files that a test writes."""

from __future__ import annotations

import datetime as dt
import json
import pathlib
from typing import Any

from contracts.retailer import Feed, Retailer
from orchestration.sources import Window
from orchestration.sources.feeds.parts import Part
from orchestration.sources.files import Files

FIRST, LAST = dt.date(2024, 1, 1), dt.date(2024, 12, 31)
NOW = dt.datetime(2025, 6, 1, tzinfo=dt.UTC)
YEAR = Window(FIRST, LAST, first=FIRST)


def shop(tmp_path: pathlib.Path, connections: dict[str, str] | None = None, **feeds: Feed) -> Files:
    retailer = Retailer(
        name="corner", title="Corner", source="files", currency="EUR", first_day=FIRST, last_day=LAST,
        mapping=feeds, connections=connections or {},
    )  # fmt: skip
    return Files(retailer, tmp_path / "home" / "sources")


def jsonl(path: pathlib.Path, rows: list[Any]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(source: Files) -> list[Part]:
    return list(source.sync(NOW).read)


def events(source: Files, window: Window = YEAR) -> list[dict[str, Any]]:
    """Good rows of a window, by event id, without what is null."""
    source.sync(NOW)
    rows = source.events(window).read_all().to_pylist()
    kept = [{name: value for name, value in row.items() if value is not None} for row in rows]
    good = [row for row in kept if "rejected" not in json.loads(row.get("detail") or "{}")]
    return sorted(good, key=lambda row: str(row["event_id"]))


def one(tmp_path: pathlib.Path, feed: Feed) -> tuple[list[dict[str, Any]], Part]:
    """The events of a feed of one file, and its part."""
    source = shop(tmp_path, web=feed)
    part = read(source)[0]
    assert part.error is None, part.error
    return events(source), part
