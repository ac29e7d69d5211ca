"""People's events as plain columns, and the sessions that they form; written once for lake and server.

A `Stream` holds the events of one or many people, each person's rows together and in order of time (ties in
order of source, then event id; never in order of arrival). `sessions` cuts each person's rows where that
person did nothing for `SessionRules.gap_us`, whatever the device or channel. What reaches a person without
their doing (an ad shown, a parcel delivered: `PASSIVE`) neither opens nor prolongs a session.

A session's number is a hash of the person and of the instant of its first act. So it follows from what
happened and not from what arrived when: late events give the very sessions that they would have given in time.

Belongs here: the columns, their reading from single values, sessions. Does not belong here: moments
(`contracts/moments.py`), where events come from (`orchestration/lake/sessions.py`,
`serving/profiles/moments.py`).
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Annotated, Any

import msgspec

from contracts.events import ACTIONS, CHANNELS

Array = Any
"""A numpy array, or any array that the passed array module `xp` works on."""

ACTION = {name: place for place, name in enumerate(ACTIONS)}
CHANNEL = {name: place for place, name in enumerate(CHANNELS)}

PASSIVE: tuple[str, ...] = ("impression", "delivery")
"""Actions that happen to a person; all others are acts."""

WORDS = 12
"""Distinct words of a query that are compared; later ones are left out."""

PLACES: tuple[str, ...] = ("other", "know", "go", "do")
"""What a page is for, as far as a want shows in it."""

_WORD = re.compile(r"[^\W_]+")
_MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


class SessionRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Thresholds of a session.

    Attributes:
        gap_us: A person's session ends after this many microseconds without an act (30 minutes, the custom
            of web analytics; the shop may choose another).
    """

    gap_us: Annotated[int, msgspec.Meta(gt=0)] = 30 * 60 * 1_000_000


class StreamError(ValueError):
    """Columns that break the stream's contract; the message names the column and what was expected."""


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """Events as columns, arrays ``(E,)`` unless said otherwise.

    Attributes:
        person: int64, number of the person, not decreasing.
        person_key: uint64, `text_key` of the person's name, equal within a person.
        at_us: int64, microseconds since 1970-01-01 UTC, not decreasing within a person.
        action: int8, index in ``contracts.events.ACTIONS``.
        channel: int8, index in ``contracts.events.CHANNELS``.
        place: int8, index in `PLACES`.
        product: int64, number of the product (only equality within a person counts), -1 for none.
        price: float64, price shown or paid, NaN for none.
        query: int64, row in `words`, -1 for none.
        words: uint64 ``(Q, WORDS)``, keys of the query's distinct words, 0 where there are fewer.
        results: float64, how many results a search gave, NaN where unknown.
        late_days: float64, days that a parcel was late, NaN where unknown.
        named: int8, index in ``contracts.events.MOMENTS`` of the moment that the sender named, -1 for none.
    """

    person: Array
    person_key: Array
    at_us: Array
    action: Array
    channel: Array
    place: Array
    product: Array
    price: Array
    query: Array
    words: Array
    results: Array
    late_days: Array
    named: Array

    def __len__(self) -> int:
        return len(self.at_us)


class Sessions(msgspec.Struct, frozen=True, kw_only=True):
    """Sessions of a stream.

    Attributes:
        of_event: int64 ``(E,)``, row of the event's session, -1 for a passive event outside of any.
        key: uint64 ``(S,)``, number of the session, the same wherever it is computed.
        person: int64 ``(S,)``.
        start_us: int64 ``(S,)``, first act.
        end_us: int64 ``(S,)``, last act.
        first_row: int64 ``(S,)``, row of the first act.
        acts: int64 ``(S,)``, acts inside.
    """

    of_event: Array
    key: Array
    person: Array
    start_us: Array
    end_us: Array
    first_row: Array
    acts: Array

    def __len__(self) -> int:
        return len(self.key)


def sessions(stream: Stream, rules: SessionRules, xp: Any) -> Sessions:
    """Cut a stream into sessions.

    Args:
        stream: Of any number of people.
        rules: Thresholds.
        xp: Array module (numpy).

    Raises:
        StreamError: Columns differ in length or rows are out of order.
    """
    check_stream(stream, xp)
    act = ~is_any(stream.action, PASSIVE, ACTION, xp)
    rows = xp.flatnonzero(act)
    person, at = stream.person[rows], stream.at_us[rows]
    opens = xp.ones(len(rows), bool)
    opens[1:] = (person[1:] != person[:-1]) | (at[1:] - at[:-1] > rules.gap_us)
    first = xp.flatnonzero(opens)
    number = xp.cumsum(opens) - 1
    last = xp.concatenate([first[1:], xp.asarray([len(rows)], first.dtype)])[: len(first)] - 1
    start = at[first]
    key = mix(stream.person_key[rows[first]] ^ mix(start.astype(xp.uint64), xp), xp)
    return Sessions(
        of_event=_join(stream, rows, number, rules, xp),
        key=key,
        person=person[first],
        start_us=start,
        end_us=at[last],
        first_row=rows[first],
        acts=last - first + 1,
    )


def _join(stream: Stream, rows: Array, number: Array, rules: SessionRules, xp: Any) -> Array:
    """Session of every event; a passive one belongs to the session that its person's last act left open."""
    if not len(rows):
        return xp.full(len(stream), -1, xp.int64)
    before = xp.searchsorted(rows, xp.arange(len(stream)), side="right") - 1
    last = rows[xp.maximum(before, 0)]
    open_ = (before >= 0) & (stream.person[last] == stream.person)
    open_ &= stream.at_us - stream.at_us[last] <= rules.gap_us
    return xp.where(open_, number[xp.maximum(before, 0)], -1).astype(xp.int64)


def check_stream(stream: Stream, xp: Any) -> None:
    """Hold a stream to its contract.

    Raises:
        StreamError: With the column and what was expected.
    """
    size = len(stream.at_us)
    for name in Stream.__struct_fields__:
        column = getattr(stream, name)
        if name == "words":
            if column.ndim != 2 or column.shape[1] != WORDS:
                raise StreamError(f"column 'words' has shape {column.shape}; expected (queries, {WORDS})")
        elif column.shape != (size,):
            raise StreamError(f"column '{name}' has shape {column.shape}; expected ({size},)")
    step = stream.person[1:] - stream.person[:-1]
    if bool(xp.any(step < 0)):
        raise StreamError("column 'person' decreases; expected each person's rows together, in order")
    if bool(xp.any((step == 0) & (stream.at_us[1:] < stream.at_us[:-1]))):
        raise StreamError("column 'at_us' decreases within a person; expected rows in order of time")


def session_id(key: int) -> str:
    """The text of a session's number."""
    return f"s{int(key):016x}"


def text_key(text: str) -> int:
    """64 bits that stand for a text: the first eight bytes of its MD5, big end first."""
    return int.from_bytes(
        hashlib.md5(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()[:8]
    )


def mix(values: Array, xp: Any) -> Array:
    """Scramble uint64 so that every input bit moves every output bit (the finalizer of SplitMix64)."""
    values = (values ^ (values >> xp.uint64(30))) * xp.uint64(_MIX[0])
    values = (values ^ (values >> xp.uint64(27))) * xp.uint64(_MIX[1])
    return values ^ (values >> xp.uint64(31))


def query_words(query: str) -> tuple[str, ...]:
    """Distinct words of a query in order, without case, accents' encoding or punctuation, at most `WORDS`."""
    words = _WORD.findall(unicodedata.normalize("NFKC", query).casefold())
    return tuple(dict.fromkeys(words))[:WORDS]


def query_row(query: str) -> list[int]:
    """The row of `Stream.words` for a query."""
    keys = [text_key(word) or 1 for word in query_words(query)]
    return keys + [0] * (WORDS - len(keys))


def is_any(codes: Array, names: tuple[str, ...], table: dict[str, int], xp: Any) -> Array:
    """Where a code column holds one of several names."""
    member = xp.zeros(len(table), bool)
    for name in names:
        member[table[name]] = True
    return member[codes]
