"""Live = lake: sessions and moments of the same events are identical, whatever the order of arrival."""

import datetime as dt
import json

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.events import ACTIONS, CHANNELS, MOMENTS, Event, Identifier
from contracts.moments import MomentRules
from contracts.needs import FEATURES, NEEDS, NeedModel
from orchestration.lake import tables
from orchestration.lake.moments import detect
from orchestration.lake.needs import needs_table
from orchestration.lake.sessions import stream_of
from orchestration.lake.validation import derive
from serving.profiles.moments import live_moments, open_need

START = dt.datetime(2025, 3, 1, tzinfo=dt.UTC)
TELLING = (
    "view", "search", "voice_search", "visual_search", "add_to_cart", "purchase", "delivery", "impression",
)  # fmt: skip
FACTS = st.one_of(st.integers(-1, 3), st.floats(0, 3), st.sampled_from([True, "2", None, 0.0, 2**70]))


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Up to 25 events of three people that crowd into the same minutes, pages, products and words."""
    events = []
    for number in range(draw(st.integers(1, 25))):
        action = draw(st.one_of(st.sampled_from(TELLING), st.sampled_from(ACTIONS)))
        words = st.lists(st.sampled_from(["Red", "red", "shoe", "bag", "—", "straße"]), max_size=3)
        events.append(
            Event(
                event_id=f"e{draw(st.integers(0, 3))}-{number}",
                source=draw(st.sampled_from(["shop", "till"])),
                occurred_at=START + dt.timedelta(minutes=draw(st.integers(0, 90)), microseconds=draw(st.integers(0, 1))),
                received_at=START + dt.timedelta(days=draw(st.integers(1, 60))),
                identifiers=(Identifier("customer", draw(st.sampled_from(["ann", "bob", "Cé"]))),),
                channel=draw(st.sampled_from(CHANNELS)),
                action=action,
                touchpoint=draw(st.sampled_from([None, "reviews", "store-finder", "guide", "product"])),
                product_id=draw(st.sampled_from(["p", "q"])),
                unit_price=draw(st.sampled_from([None, 10.0, 10.5, 10.6, 12.0])),
                query=draw(st.none() | words.map(" ".join)),
                moment=draw(st.none() | st.sampled_from(MOMENTS)),
                detail=draw(st.dictionaries(st.sampled_from(["results", "late_days", "x"]), FACTS, max_size=2)),
            )
        )  # fmt: skip
    return events


def as_lake(events: list[Event]) -> pa.Table:
    rows = [
        {
            **{name: getattr(event, name) for name in tables.CANONICAL.names},
            "identifiers": json.dumps([{"kind": i.kind, "value": i.value} for i in event.identifiers]),
            "detail": json.dumps(event.detail),
            "consent": "[]",
        }
        for event in events
    ]
    return derive(pa.Table.from_pylist(rows, schema=tables.CANONICAL))


@settings(max_examples=60, deadline=None)
@given(histories(), st.randoms(use_true_random=False))
def test_the_server_finds_what_the_lake_finds(events, random):
    rules = MomentRules()
    sessions, moments = detect(as_lake(events), rules)
    arrived = [*events, *events[:3]]
    random.shuffle(arrived)
    shuffled = list(events)
    random.shuffle(shuffled)
    again = detect(as_lake(shuffled), rules)
    assert again[0].equals(sessions)
    assert again[1].equals(moments)
    for person in {event.customer_id for event in events}:
        live_s, live_m = live_moments(person, [e for e in arrived if e.customer_id == person], rules)
        lake_s = [row for row in sessions.to_pylist() if row["person_id"] == person]
        lake_m = [row for row in moments.to_pylist() if row["person_id"] == person]
        names = ("session_id", "started_at", "ended_at", "acts")
        assert [tuple(row[n] for n in names) for row in lake_s] == [
            tuple(getattr(row, n) for n in names) for row in live_s
        ]
        names = ("kind", "occurred_at", "channel", "session_id", "confidence", "source", "event_id")
        assert [(*(row[n] for n in names), tuple(row["evidence"])) for row in lake_m] == [
            (*(getattr(row, n) for n in names), row.evidence) for row in live_m
        ]


@settings(max_examples=30, deadline=None)
@given(histories(), st.integers(0, 2**32 - 1))
def test_the_open_need_is_the_lakes_to_the_last_bit(events, seed):
    rules, rng, size = MomentRules(), np.random.default_rng(seed), len(FEATURES)
    model = NeedModel(
        FEATURES, tuple(rng.random(size)), tuple(rng.random(size) + 0.1),
        tuple(tuple(rng.normal(size=size)) for _ in NEEDS), tuple(rng.normal(size=len(NEEDS))), "drawn by a test",
    )  # fmt: skip
    table = needs_table(stream_of(as_lake(events), rules), model, rules).to_pylist()
    for person in {event.customer_id for event in events}:
        mine = [event for event in events if event.customer_id == person]
        now = max(event.occurred_at for event in mine)
        live = open_need(person, reversed(mine), model, rules, now)
        latest = [row for row in table if row["person_id"] == person][-1:]
        if live is None:
            assert not latest or now - latest[0]["as_of"] > dt.timedelta(minutes=30)
        else:
            row = latest[0]
            assert (live.session_id, live.as_of, live.need) == (row["session_id"], row["as_of"], row["need"])
            assert live.chances == {need: row[f"p_{need}"] for need in NEEDS}
        assert open_need(person, mine, model, rules, now + dt.timedelta(hours=2)) is None
