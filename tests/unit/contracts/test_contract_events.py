"""The event contract: what is accepted, what is refused, and how the refusal is worded."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from contracts.events import InvalidEvent, decode_event

NOW = dt.datetime(2017, 12, 1, 12, tzinfo=dt.UTC)
GOOD = {
    "event_id": "e1",
    "source": "till",
    "occurred_at": "2017-12-01T11:00:00Z",
    "channel": "store",
    "action": "purchase",
    "product_id": "42",
    "quantity": 2,
    "unit_price": 1.5,
    "identifiers": [{"kind": "loyalty_card", "value": "9"}, {"kind": "customer", "value": "7"}],
}


def encoded(**changes: object) -> bytes:
    return json.dumps({k: v for k, v in {**GOOD, **changes}.items() if v is not ...}).encode()


def test_a_good_event_is_decoded_with_its_customer() -> None:
    event = decode_event(encoded(), NOW)
    assert event.customer_id == "7"
    assert event.occurred_at == dt.datetime(2017, 12, 1, 11, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"action": "teleport"}, ["action"]),
        ({"channel": "pigeon"}, ["channel"]),
        ({"quantity": -1}, ["quantity", ">= 0"]),
        ({"unit_price": -0.01}, ["unit_price", ">= 0"]),
        ({"occurred_at": "2017-12-01T11:00:00"}, ["occurred_at", "timezone"]),
        ({"occurred_at": "2017-12-02T11:00:00Z"}, ["occurred_at", "passed"]),
        ({"event_id": ""}, ["event_id"]),
        ({"event_id": ...}, ["event_id"]),
        ({"product_id": ...}, ["product_id", "purchase"]),
        ({"qauntity": 1}, ["qauntity"]),
        ({"currency": "usd"}, ["currency"]),
        ({"identifiers": [{"kind": "customer"}]}, ["value", "identifiers"]),
    ],
)
def test_a_bad_event_is_refused_by_field(changes: dict[str, object], words: list[str]) -> None:
    with pytest.raises(InvalidEvent) as refusal:
        decode_event(encoded(**changes), NOW)
    for word in words:
        assert word in str(refusal.value)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff\xfe", b'"text"', b"null"])
def test_what_is_not_an_event_object_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidEvent):
        decode_event(raw, NOW)


def test_a_clock_slightly_ahead_is_tolerated() -> None:
    ahead = (NOW + dt.timedelta(minutes=4)).isoformat()
    assert decode_event(encoded(occurred_at=ahead), NOW).event_id == "e1"
