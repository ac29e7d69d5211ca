"""From a request body to checked events: every event is judged on its own.

Belongs here: splitting a body into events, the checks of the contract and of the server's own limits.
Does not belong here: HTTP status codes (`serving/routes`), storage (`writer.py`).
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from contracts.events import ACTIONS, CHANNELS, MOMENTS, Event, InvalidEvent, decode_event
from serving.inbox.writer import Incoming, Refused
from serving.profiles.history import to_microseconds

MAX_EVENT_BYTES = 65_536
MAX_DETAIL_DEPTH = 12
LARGEST_AMOUNT = 1e9
"""Upper bound of quantity, unit_price and discount: far above any till, far below float32's range."""

_PATH = re.compile(r"`\$([^`]*)`")
_MISSING = re.compile(r"required field `([^`]+)`")
_UNKNOWN = re.compile(r"unknown field `([^`]+)`")
_WORDS = {"action": ACTIONS, "channel": CHANNELS, "moment": MOMENTS}
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_ONE = msgspec.json.Decoder(msgspec.Raw)
_ENCODER = msgspec.json.Encoder()


class MalformedBodyError(ValueError):
    """A body that is not JSON, or neither an event nor a list of events."""


class TooManyEventsError(ValueError):
    """A batch above the limit."""


def field_of(message: str) -> str:
    """The field that a msgspec message is about, for example ``items[3].price``; empty for the whole."""
    path = _PATH.search(message)
    prefix = path.group(1).lstrip(".") if path else ""
    named = _MISSING.search(message) or _UNKNOWN.search(message)
    if named is None:
        return prefix
    return f"{prefix}.{named.group(1)}" if prefix else named.group(1)


def split_body(body: bytes, max_events: int) -> list[bytes]:
    """The raw JSON of each event of a body, which is one event or a list of events.

    Raises:
        MalformedBodyError: Not JSON, or neither form.
        TooManyEventsError: More than ``max_events``.
    """
    start = body.lstrip(b" \t\r\n")[:1]
    if start not in (b"{", b"["):
        raise MalformedBodyError("expected one JSON event or a JSON list of events")
    try:
        parts = _ARRAY.decode(body) if start == b"[" else [_ONE.decode(body)]
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedBodyError(_json_words(error)) from error
    if len(parts) > max_events:
        raise TooManyEventsError(f"the batch holds {len(parts)} events; expected at most {max_events}")
    return [bytes(part) for part in parts]


def check_events(
    parts: Sequence[bytes], received_at: dt.datetime, latest: dt.datetime | None = None
) -> tuple[list[Incoming], list[Refused]]:
    """Check events one by one; a bad one never costs a good one.

    Args:
        parts: Raw JSON of each event.
        received_at: The server's wall clock, UTC.
        latest: No event may lie after this moment of the shop's own clock, or None.

    Returns:
        The good events, canonical and stamped with ``received_at``, and the refused ones with the
        field and what was expected.
    """
    good: list[Incoming] = []
    refused: list[Refused] = []
    for index, part in enumerate(parts):
        try:
            good.append(_check(index, part, received_at, latest))
        except InvalidEvent as error:
            message = str(error)
            field = field_of(message)
            if message.startswith("Invalid enum value") and field in _WORDS:
                message += f"; expected one of {', '.join(_WORDS[field])}"
            refused.append(Refused(index, field, message, part))
    return good, refused


def _check(index: int, part: bytes, received_at: dt.datetime, latest: dt.datetime | None) -> Incoming:
    if len(part) > MAX_EVENT_BYTES:
        raise InvalidEvent(f"the event has {len(part)} bytes; expected at most {MAX_EVENT_BYTES}")
    try:
        event = decode_event(part, received_at)
        occurred_at = event.occurred_at.astimezone(dt.UTC)
    except OverflowError as error:
        raise InvalidEvent("`$.occurred_at` is outside the calendar; expected a past time") from error
    except RecursionError as error:
        raise InvalidEvent(
            f"`$.detail` is nested too deeply; expected at most {MAX_DETAIL_DEPTH} levels"
        ) from error
    if latest is not None and occurred_at > latest:
        raise InvalidEvent(
            f"`$.occurred_at` is {occurred_at.isoformat()}, far ahead of this shop's clock; "
            f"expected at most {latest.isoformat()}"
        )
    _check_amounts(event)
    if _depth(event.detail) > MAX_DETAIL_DEPTH:
        raise InvalidEvent(f"`$.detail` is nested too deeply; expected at most {MAX_DETAIL_DEPTH} levels")
    event = msgspec.structs.replace(event, occurred_at=occurred_at, received_at=received_at)
    return Incoming(
        index=index,
        source=event.source,
        event_id=event.event_id,
        occurred_us=to_microseconds(occurred_at),
        customer_id=event.customer_id,
        session_id=event.session_id,
        raw=_ENCODER.encode(event),
        identifiers=tuple((identifier.kind, identifier.value) for identifier in event.identifiers),
    )


def _check_amounts(event: Event) -> None:
    for name in ("quantity", "unit_price", "discount"):
        value = getattr(event, name)
        if value is not None and value > LARGEST_AMOUNT:
            raise InvalidEvent(f"`$.{name}` is {value}; expected at most {LARGEST_AMOUNT:.0f}")


def _depth(value: Any) -> int:
    """Levels of nesting, counted level by level so that no input can exhaust the stack."""
    level, depth = [value], 0
    while level and depth <= MAX_DETAIL_DEPTH:
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        depth += 1
        level = below
    return depth


def _json_words(error: Exception) -> str:
    return "the JSON is nested too deeply" if isinstance(error, RecursionError) else str(error)
