"""Micro-moments in a stream of events, found by one array program that lake and server share.

In plain words, with the numbers of `MomentRules`:

* want_to_buy: the first thing put into the basket in a session; in a shop, where no basket is seen, the first
  thing bought. want_to_know: the first look at a page that answers questions (reviews, size guide).
  want_to_go: the first look at a page about the way to a store. want_to_do: the first look at a page that
  teaches (a guide). Once per session and want.
* failed_search: a search that says it gave no result.
* repeated_search: a search in words that shares at least `overlap` of its distinct words (Jaccard) with an
  earlier search of the same person, at most `repeat_us` before.
* price_shock: a look at a product at more than `shock` times the price of the person's last look at it, at
  most `shock_us` before.
* delay: a delivery at least `late_days` late. out_of_stock, error, return, complaint: the event says so.
* whatever the sender itself named in ``Event.moment``.

Every found moment carries its evidence: the row that shows it and, where it takes two, the earlier row. Its
confidence is 1 where an event states the moment, else `CONFIDENCE`.

Belongs here: definitions, thresholds, the detector. Does not belong here: sessions (`contracts/sessions.py`),
the need behind the wants (`contracts/needs.py`), what to do about it (`contracts/recovery.py`).
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from contracts.events import MOMENTS
from contracts.sessions import (
    ACTION,
    CHANNEL,
    PLACES,
    Array,
    SessionRules,
    Sessions,
    Stream,
    is_any,
    sessions,
)

MOMENT = {name: place for place, name in enumerate(MOMENTS)}
WANTS: tuple[str, ...] = ("want_to_know", "want_to_go", "want_to_do", "want_to_buy")
BAD: tuple[str, ...] = tuple(name for name in MOMENTS if name not in WANTS)
"""Moments that hurt."""

SEARCHES: tuple[str, ...] = ("search", "visual_search", "voice_search")
WORDED: tuple[str, ...] = ("search", "voice_search")

CONFIDENCE = {
    "want_to_know": 0.85, "want_to_go": 0.99, "want_to_do": 0.99, "want_to_buy": 0.76,
    "repeated_search": 0.99, "price_shock": 0.97,
}  # fmt: skip
"""Probability that an inferred moment is one; 1 for those that the event itself states.

Measured on the atelier (simulated shop), seeds 11 and 12: of a want, the share of visits whose need it was; of
the others, the share that the truth confirms (some pairs of looks are two people on one device)."""

_SHARE = Annotated[float, msgspec.Meta(gt=0, le=1)]
_COUNT = Annotated[int, msgspec.Meta(ge=1)]


class MomentRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Thresholds of the definitions above.

    Attributes:
        session: Thresholds of the sessions.
        overlap: Least share of common words of a repeated search.
        repeat_us: Longest time between a search and its repetition.
        searches_back: A search is compared with at most this many searches before it (bounds the work on
            a machine that searches a thousand times a second).
        shock: Price ratio above which a price shocks.
        shock_us: How long a seen price is remembered.
        late_days: Least lateness of a delivery that counts as a delay.
        know_pages: Touchpoints that answer questions.
        go_pages: Touchpoints about the way to a store.
        do_pages: Touchpoints that teach.
    """

    session: SessionRules = SessionRules()
    overlap: _SHARE = 0.5
    repeat_us: _COUNT = 30 * 60 * 1_000_000
    searches_back: _COUNT = 16
    shock: Annotated[float, msgspec.Meta(ge=1)] = 1.05
    shock_us: _COUNT = 30 * 86_400_000_000
    late_days: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    know_pages: tuple[str, ...] = ("reviews", "size-guide", "questions", "compare")
    go_pages: tuple[str, ...] = ("store-finder", "opening-hours", "directions")
    do_pages: tuple[str, ...] = ("guide", "how-to", "lookbook")

    def place(self, touchpoint: str | None) -> int:
        """Index in `contracts.sessions.PLACES` of a touchpoint."""
        for index, pages in enumerate(((), self.know_pages, self.go_pages, self.do_pages)):
            if touchpoint in pages:
                return index
        return 0


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Found moments, ordered by row and kind; arrays ``(M,)``.

    Attributes:
        row: int64, event that shows the moment.
        kind: int8, index in ``contracts.events.MOMENTS``.
        earlier: int64, the earlier event that it takes as evidence, -1 for none.
        confidence: float64, from 0 to 1.
        sessions: The sessions of the same stream.
    """

    row: Array
    kind: Array
    earlier: Array
    confidence: Array
    sessions: Sessions

    def __len__(self) -> int:
        return len(self.row)


def moments(stream: Stream, rules: MomentRules, xp: Any) -> Found:
    """Find all moments of a stream.

    Args:
        stream: Of any number of people.
        rules: Thresholds.
        xp: Array module (numpy).

    Raises:
        contracts.sessions.StreamError: The stream breaks its contract.
    """
    cut = sessions(stream, rules.session, xp)
    action = stream.action
    seen: list[tuple[str, Array, Array | None]] = [
        ("failed_search", is_any(action, SEARCHES, ACTION, xp) & (stream.results == 0), None),
        ("out_of_stock", action == ACTION["stockout"], None),
        ("delay", (action == ACTION["delivery"]) & (stream.late_days >= rules.late_days), None),
        ("error", action == ACTION["error"], None),
        ("return", action == ACTION["return"], None),
        ("complaint", action == ACTION["complaint"], None),
    ]
    parts = [(xp.flatnonzero(mask), MOMENT[kind], earlier, 1.0) for kind, mask, earlier in seen]
    parts += [
        (_first_of_session(mask, cut, xp), MOMENT[kind], None, CONFIDENCE[kind])
        for kind, mask in wants(stream, xp).items()
    ]
    row, before = _repeated(stream, rules, xp)
    parts.append((row, MOMENT["repeated_search"], before, CONFIDENCE["repeated_search"]))
    row, before = _shocks(stream, rules, xp)
    parts.append((row, MOMENT["price_shock"], before, CONFIDENCE["price_shock"]))
    told = xp.flatnonzero(stream.named >= 0)
    parts.append((told, stream.named[told], None, 1.0))
    return _merge(parts, cut, xp)


def wants(stream: Stream, xp: Any) -> dict[str, Array]:
    """Where an event shows a want: bool ``(E,)`` by name of the want."""
    looks = stream.action == ACTION["view"]
    bought = (stream.action == ACTION["purchase"]) & (stream.channel == CHANNEL["store"])
    places = {f"want_to_{name}": looks & (stream.place == code) for code, name in enumerate(PLACES) if code}
    return {**places, "want_to_buy": (stream.action == ACTION["add_to_cart"]) | bought}


def _first_of_session(mask: Array, cut: Sessions, xp: Any) -> Array:
    rows = xp.flatnonzero(mask & (cut.of_event >= 0))
    number = cut.of_event[rows]
    fresh = xp.ones(len(rows), bool)
    fresh[1:] = number[1:] != number[:-1]
    return rows[fresh]


def _repeated(stream: Stream, rules: MomentRules, xp: Any) -> tuple[Array, Array]:
    """Repeated searches and the latest search that each repeats."""
    rows = xp.flatnonzero(is_any(stream.action, WORDED, ACTION, xp) & (stream.query >= 0))
    rows = rows[stream.words[stream.query[rows], 0] != 0] if len(rows) else rows
    before = xp.full(len(rows), -1, xp.int64)
    late = xp.arange(len(rows))
    for back in range(1, rules.searches_back + 1):
        late = late[late >= back]
        here, there = rows[late], rows[late - back]
        near = stream.person[here] == stream.person[there]
        near &= stream.at_us[here] - stream.at_us[there] <= rules.repeat_us
        late, here, there = late[near], here[near], there[near]
        if not len(late):
            break
        alike = jaccard(stream.words[stream.query[here]], stream.words[stream.query[there]], xp)
        hit = (alike >= rules.overlap) & (before[late] < 0)
        before[late[hit]] = there[hit]
    found = before >= 0
    return rows[found], before[found]


def jaccard(one: Array, other: Array, xp: Any) -> Array:
    """Share of common words of rows of `Stream.words`: ``(N, WORDS)`` twice to float64 ``(N,)``."""
    common = xp.zeros(len(one), xp.int64)
    for column in range(one.shape[1]):
        word = one[:, column : column + 1]
        common += (word[:, 0] != 0) & xp.any(word == other, axis=1)
    union = (one != 0).sum(axis=1) + (other != 0).sum(axis=1) - common
    return common / xp.maximum(union, 1)


def _shocks(stream: Stream, rules: MomentRules, xp: Any) -> tuple[Array, Array]:
    """Looks at a price that has risen and the look before."""
    looks = (stream.action == ACTION["view"]) & (stream.product >= 0) & xp.isfinite(stream.price)
    rows = xp.flatnonzero(looks)
    rows = rows[xp.lexsort((rows, stream.product[rows], stream.person[rows]))]
    late, early = rows[1:], rows[:-1]
    higher = (stream.person[late] == stream.person[early]) & (stream.product[late] == stream.product[early])
    higher &= stream.at_us[late] - stream.at_us[early] <= rules.shock_us
    higher &= stream.price[late] > rules.shock * stream.price[early]
    return late[higher], early[higher]


def _merge(parts: list[tuple[Array, Any, Array | None, float]], cut: Sessions, xp: Any) -> Found:
    """One list; of two reports of one moment on one event the earlier part's evidence stays."""
    sizes = [len(part[0]) for part in parts]
    row = xp.concatenate([part[0] for part in parts]).astype(xp.int64)
    kind = xp.concatenate([xp.broadcast_to(xp.asarray(part[1], xp.int8), len(part[0])) for part in parts])
    earlier = xp.concatenate(
        [
            xp.full(size, -1, xp.int64) if part[2] is None else part[2]
            for part, size in zip(parts, sizes, strict=True)
        ]
    )
    confidence = xp.concatenate([xp.full(size, part[3]) for part, size in zip(parts, sizes, strict=True)])
    part_of = xp.repeat(xp.arange(len(parts)), xp.asarray(sizes))
    order = xp.lexsort((part_of, kind, row))
    row, kind, earlier, confidence = row[order], kind[order], earlier[order], confidence[order]
    again = xp.zeros(len(row), bool)
    again[1:] = (row[1:] == row[:-1]) & (kind[1:] == kind[:-1])
    if bool(xp.any(again)):
        told = xp.flatnonzero(again) - 1
        confidence[told] = 1.0
    fresh = ~again
    return Found(
        row=row[fresh], kind=kind[fresh], earlier=earlier[fresh], confidence=confidence[fresh], sessions=cut
    )
