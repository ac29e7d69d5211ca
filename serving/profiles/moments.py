"""One person's sessions and moments, live: events to columns, columns to the shared detector.

Belongs here: reading a `contracts.sessions.Stream` out of `contracts.events.Event` objects, answers as records.
Does not belong here: definitions (`contracts/moments.py`, which the lake runs too).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np

from contracts.events import MOMENTS, Event
from contracts.moments import MOMENT, SEARCHES, WORDED, Found, MomentRules, moments
from contracts.needs import NEEDS, NeedModel, need_features, needs
from contracts.sessions import ACTION, CHANNEL, WORDS, Stream, query_row, session_id, text_key
from serving.profiles.history import to_microseconds, to_moment


class LiveMoment(msgspec.Struct, frozen=True):
    """A moment of one person.

    Attributes:
        kind: Of ``contracts.events.MOMENTS``.
        occurred_at: When.
        channel: Where.
        session_id: Session that holds it, or None outside of any.
        confidence: From 0 to 1.
        source: Of the event that shows it.
        event_id: The event that shows it.
        evidence: Events that it takes, earliest first.
    """

    kind: str
    occurred_at: dt.datetime
    channel: str
    session_id: str | None
    confidence: float
    source: str
    event_id: str
    evidence: tuple[str, ...]


class LiveSession(msgspec.Struct, frozen=True):
    """A session of one person.

    Attributes:
        session_id: As in the lake.
        started_at: First act.
        ended_at: Last act so far.
        acts: Acts so far.
    """

    session_id: str
    started_at: dt.datetime
    ended_at: dt.datetime
    acts: int


class OpenNeed(msgspec.Struct, frozen=True):
    """What a person most likely needs right now.

    Attributes:
        need: Of ``contracts.needs.NEEDS``.
        confidence: Its probability.
        chances: Probability of every need.
        session_id: The session under way.
        as_of: The last act that was taken into account.
        event_id: Of that act.
    """

    need: str
    confidence: float
    chances: dict[str, float]
    session_id: str
    as_of: dt.datetime
    event_id: str


class LiveStream(msgspec.Struct, frozen=True):
    """A person's stream and the events behind its rows."""

    stream: Stream
    events: tuple[Event, ...]


def live_stream(person: str, events: Iterable[Event], rules: MomentRules) -> LiveStream:
    """Read a stream out of one person's events.

    Args:
        person: The person's id, as the lake has it.
        events: In any order; an event that comes twice counts once.
        rules: Says what a page is for.
    """
    known = {(event.source, event.event_id): event for event in events}
    rows = sorted(known.values(), key=lambda event: (event.occurred_at, event.source, event.event_id))
    products: dict[str, int] = {}
    queries: dict[str, int] = {}
    size = len(rows)
    stream = Stream(
        person=np.zeros(size, np.int64),
        person_key=np.full(size, text_key(person), np.uint64),
        at_us=np.array([to_microseconds(event.occurred_at) for event in rows], np.int64),
        action=np.array([ACTION[event.action] for event in rows], np.int8),
        channel=np.array([CHANNEL[event.channel] for event in rows], np.int8),
        place=np.array([rules.place(event.touchpoint) for event in rows], np.int8),
        product=np.array([_number(event.product_id, products) for event in rows], np.int64),
        price=np.array([_float(event.unit_price) for event in rows], np.float64),
        query=np.array(
            [_number(event.query if event.action in WORDED else None, queries) for event in rows], np.int64
        ),
        words=np.array([query_row(text) for text in queries], np.uint64).reshape(-1, WORDS),
        results=np.array([_fact(event, "results", SEARCHES) for event in rows], np.float64),
        late_days=np.array([_fact(event, "late_days", ("delivery",)) for event in rows], np.float64),
        named=np.array([-1 if event.moment is None else MOMENT[event.moment] for event in rows], np.int8),
    )
    return LiveStream(stream, tuple(rows))


def live_moments(
    person: str, events: Iterable[Event], rules: MomentRules
) -> tuple[list[LiveSession], list[LiveMoment]]:
    """Sessions and moments of one person, in order of time.

    Args:
        person: The person's id, as the lake has it.
        events: In any order.
        rules: Thresholds.
    """
    live = live_stream(person, events, rules)
    found = moments(live.stream, rules, np)
    return live_sessions(found), [_moment(live, found, number) for number in range(len(found))]


def open_need(
    person: str, events: Iterable[Event], model: NeedModel, rules: MomentRules, now: dt.datetime
) -> OpenNeed | None:
    """The need behind the session that is under way, or None where none is.

    Args:
        person: The person's id, as the lake has it.
        events: In any order; those after `now` are left out.
        model: Coefficients.
        rules: Thresholds.
        now: The moment of the question, with a zone.
    """
    live = live_stream(person, [event for event in events if event.occurred_at <= now], rules)
    rows, features, cut = need_features(live.stream, rules, np)
    if not len(rows) or to_microseconds(now) - int(cut.end_us[-1]) > rules.session.gap_us:
        return None
    chance = needs(features[-1:], model, np)[0].tolist()
    best = max(range(len(NEEDS)), key=chance.__getitem__)
    event = live.events[int(rows[-1])]
    return OpenNeed(
        need=NEEDS[best],
        confidence=chance[best],
        chances=dict(zip(NEEDS, chance, strict=True)),
        session_id=session_id(cut.key[-1]),
        as_of=event.occurred_at,
        event_id=event.event_id,
    )


def live_sessions(found: Found) -> list[LiveSession]:
    """The sessions behind found moments."""
    cut = found.sessions
    return [
        LiveSession(session_id(key), to_moment(start), to_moment(end), acts)
        for key, start, end, acts in zip(
            cut.key.tolist(), cut.start_us.tolist(), cut.end_us.tolist(), cut.acts.tolist(), strict=True
        )
    ]


def _moment(live: LiveStream, found: Found, number: int) -> LiveMoment:
    row, earlier = int(found.row[number]), int(found.earlier[number])
    event, session = live.events[row], int(found.sessions.of_event[row])
    evidence = (live.events[earlier].event_id, event.event_id) if earlier >= 0 else (event.event_id,)
    return LiveMoment(
        kind=MOMENTS[int(found.kind[number])],
        occurred_at=event.occurred_at,
        channel=event.channel,
        session_id=None if session < 0 else session_id(found.sessions.key[session]),
        confidence=float(found.confidence[number]),
        source=event.source,
        event_id=event.event_id,
        evidence=evidence,
    )


def _number(text: str | None, numbers: dict[str, int]) -> int:
    return -1 if text is None else numbers.setdefault(text, len(numbers))


def _float(value: Any) -> float:
    """A number as it is, anything else (a text, a truth value, nothing) as NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return float("nan")
    return float(value)


def _fact(event: Event, name: str, actions: tuple[str, ...]) -> float:
    return _float(event.detail.get(name)) if event.action in actions else float("nan")
