"""What the door lets in, what it refuses, and how it names the reason."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.inbox.intake import (
    MAX_EVENT_BYTES,
    MalformedBodyError,
    TooManyEventsError,
    check_events,
    field_of,
    split_body,
)

NOW = dt.datetime(2018, 1, 2, tzinfo=dt.UTC)


def event(**changes: Any) -> dict[str, Any]:
    value = {
        "event_id": "e1", "source": "test", "occurred_at": "2018-01-01T10:00:00+02:00", "channel": "web",
        "action": "view", "product_id": "p1", **changes,
    }  # fmt: skip
    return {name: content for name, content in value.items() if content is not None}


def check(*values: Any, latest: dt.datetime | None = None) -> tuple[list[Any], list[Any]]:
    parts = [value if isinstance(value, bytes) else json.dumps(value).encode() for value in values]
    return check_events(parts, NOW, latest)


def test_a_good_event_is_stored_in_utc_with_the_receivers_time() -> None:
    good, refused = check(event(identifiers=[{"kind": "customer", "value": "7"}], session_id="s"))
    assert refused == []
    stored = json.loads(good[0].raw)
    assert stored["occurred_at"] == "2018-01-01T08:00:00Z"
    assert stored["received_at"] == "2018-01-02T00:00:00Z"
    assert (good[0].customer_id, good[0].session_id) == ("7", "s")


def test_the_sender_cannot_set_the_time_of_receipt() -> None:
    good, _ = check(event(received_at="2001-01-01T00:00:00Z"))
    assert json.loads(good[0].raw)["received_at"] == "2018-01-02T00:00:00Z"


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"action": "teleport"}, "action", "expected one of impression"),
        ({"channel": "carrier pigeon"}, "channel", "expected one of web"),
        ({"occurred_at": "2018-01-03T00:00:00Z"}, "occurred_at", "expected a time that has passed"),
        ({"occurred_at": "2018-01-01T00:00:00"}, "occurred_at", "timezone"),
        ({"occurred_at": "yesterday"}, "occurred_at", "datetime"),
        ({"occurred_at": "0001-01-01T00:00:00+23:59"}, "occurred_at", "calendar"),
        ({"quantity": -1}, "quantity", ">= 0"),
        ({"unit_price": -0.01}, "unit_price", ">= 0"),
        ({"discount": -3}, "discount", ">= 0"),
        ({"quantity": 1e30}, "quantity", "at most"),
        ({"quantity": "two"}, "quantity", "float"),
        ({"event_id": None}, "event_id", "required"),
        ({"event_id": ""}, "event_id", "length"),
        ({"source": "s" * 300}, "source", "length"),
        ({"identifiers": [{"kind": "customer"}]}, "identifiers[0].value", "required"),
        ({"colour": "red"}, "colour", "unknown field"),
        ({"action": "purchase", "product_id": None}, "product_id", "expected a product"),
        ({"moment": "want_to_nap"}, "moment", "expected one of want_to_know"),
        ({"currency": "usd"}, "currency", "regex"),
        ({"position": -1}, "position", ">= 0"),
    ],
)
def test_a_bad_event_names_its_field_and_what_was_expected(
    change: dict[str, Any], field: str, words: str
) -> None:
    good, refused = check(event(**change))
    assert good == []
    assert refused[0].field == field
    assert words in refused[0].message


def test_one_bad_event_costs_no_other() -> None:
    good, refused = check(event(event_id="a"), event(action="nope"), event(event_id="b"))
    assert [e.event_id for e in good] == ["a", "b"]
    assert [e.index for e in good] == [0, 2]
    assert [(r.index, r.field) for r in refused] == [(1, "action")]


def test_deep_and_large_events_are_refused() -> None:
    deep: Any = "end"
    for _ in range(40):
        deep = [deep]
    bottomless = b'{"event_id":"e","source":"s","occurred_at":"2018-01-01T00:00:00Z","channel":"web",' + (
        b'"action":"view","detail":{"a":' + b"[" * 3000 + b"]" * 3000 + b"}}"
    )
    _, refused = check(
        event(detail={"a": deep}), bottomless, event(query="x", detail={"a": "y" * MAX_EVENT_BYTES})
    )
    assert [r.field for r in refused] == ["detail", "detail", ""]
    assert "bytes" in refused[2].message


def test_an_event_far_ahead_of_the_shops_clock_is_refused() -> None:
    latest = dt.datetime(2017, 12, 31, tzinfo=dt.UTC)
    good, refused = check(event(), event(occurred_at="2017-12-30T00:00:00Z"), latest=latest)
    assert len(good) == 1
    assert refused[0].field == "occurred_at"
    assert "shop's clock" in refused[0].message


@pytest.mark.parametrize(
    "body", [b"", b"null", b'"event"', b"[", b'{"a":', b"[1,]", b"{}x", b"\xff\xfe", b"[" * 100_000]
)
def test_a_body_that_is_no_event_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedBodyError):
        split_body(body, 10)


def test_a_batch_is_bounded() -> None:
    assert len(split_body(b"[{},{}]", 2)) == 2
    with pytest.raises(TooManyEventsError, match="3 events"):
        split_body(b"[{},{},{}]", 2)


def test_fields_are_found_in_messages() -> None:
    assert field_of("Expected `int` >= 1 - at `$.n`") == "n"
    assert field_of("Object missing required field `value` - at `$.identifiers[2]`") == "identifiers[2].value"
    assert field_of("Input data was truncated") == ""


@given(st.binary(max_size=300))
def test_no_bytes_whatsoever_break_the_door(body: bytes) -> None:
    try:
        parts = split_body(body, 100)
    except MalformedBodyError:
        return
    good, refused = check_events(parts, NOW)
    assert len(good) + len(refused) == len(parts)


@given(
    st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(), st.lists, max_leaves=8)
)
def test_no_value_in_any_field_breaks_the_door(value: Any) -> None:
    for name in ("event_id", "occurred_at", "identifiers", "quantity", "detail", "consent", "position"):
        good, refused = check(event(**{name: value}))
        assert len(good) + len(refused) == 1
