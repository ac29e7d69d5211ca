"""Real days of the archive as the events a till would send."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from typing import Any

from contracts.retailer import Retailer
from orchestration.sources import Window, load

JSON_FIELDS = ("identifiers", "detail", "consent")


def events_of(retailer: Retailer, first: dt.date, last: dt.date) -> list[dict[str, Any]]:
    """Canonical events of the archive's days as JSON objects, in the order they happened."""
    window = Window(first, last, retailer.households, retailer.first_day)
    rows = load(retailer.source).events(window).read_all().to_pylist()
    rows.sort(key=lambda row: (row["occurred_at"], row["event_id"]))
    return [_as_event(row) for row in rows]


def batches(events: list[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Consecutive slices of at most `size` events."""
    for start in range(0, len(events), size):
        yield events[start : start + size]


def _as_event(row: dict[str, Any]) -> dict[str, Any]:
    event = {name: value for name, value in row.items() if value is not None and name != "received_at"}
    for name in JSON_FIELDS:
        if name in event:
            event[name] = json.loads(event[name])
    event["occurred_at"] = row["occurred_at"].isoformat()
    return event
