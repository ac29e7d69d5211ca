"""Rows in our own words, and plain columns.

``canonical`` is what `contracts.events.Event` says, as columns or JSON, and needs no mapping.
``rows`` is any table or document whose columns the retailer's mapping names.
"""

from __future__ import annotations

from contracts.retailer import Feed
from orchestration.sources.feeds.formats import Format

OWN = (
    "event_id", "occurred_at", "received_at", "session_id", "channel", "touchpoint", "action", "product_id",
    "quantity", "unit_price", "discount", "currency", "query", "media_id", "decision_id", "position", "moment",
)  # fmt: skip
"""Fields that are single values; identifiers, detail and consent are JSON."""

FORMAT = Format(
    name="canonical",
    preset=Feed(files=(), fields={name: name for name in OWN}, detail=()),  # type: ignore[misc]
    recognises=lambda keys: {"event_id", "occurred_at", "channel", "action"} <= keys,
)

ROWS = Format(name="rows", preset=Feed(files=()), recognises=lambda keys: True)
