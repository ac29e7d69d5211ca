"""From rows that look right to what is shown: products, their order for this shopper, reasons.

Belongs here: one list of results. Does not belong here: searching (`seek.py`), the order's rule
(`personal.py`), the answer as a whole (`desk.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from contracts.decisions import Reason, Source
from serving.answers import Prepared
from serving.engine import reasons
from serving.engine.engine import Engine
from serving.engine.explore import explore
from serving.engine.items import Mask
from serving.vision.index import Index
from serving.vision.personal import BAND, order

PERSONAL = {"repeat_due", "bought_often", "bought_together", "history"}
"""Codes of reasons that are about this shopper."""

Words = Callable[[int, int], tuple[str, str]]
"""Code and sentence of the reason for a place and a row."""


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """One list to fill.

    Attributes:
        rows: int64[K], best first.
        similar: float32[K].
        source: What proposed them.
        words: What to say of a result.
        colour: Code of the colour that was seen, -1 for none: others do not move up.
        band: Width of what may change places.
    """

    rows: NDArray[np.int64]
    similar: NDArray[np.float32]
    source: Source
    words: Words
    colour: int = -1
    band: float = BAND


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """One result.

    Attributes:
        item: Item index.
        row: Row of the index.
        score: By which it was ordered.
        similarity: With what was searched for.
        propensity: Probability of it at its place.
        source: What proposed it.
        reason: Why.
    """

    item: int
    row: int
    score: float
    similarity: float
    propensity: float
    source: Source
    reason: Reason


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """Products of one list before they are ordered.

    Attributes:
        items: int32[M], by falling similarity.
        rows: int64[M].
        similar: float32[M].
    """

    items: NDArray[np.int32]
    rows: NDArray[np.int64]
    similar: NDArray[np.float32]


def expand(index: Index, group: Group, allowed: Mask, most: int) -> Candidate:
    """The products that a list's rows stand for, each once.

    Args:
        index: The index.
        group: The list.
        allowed: bool[items].
        most: Products at most.
    """
    found: dict[int, tuple[int, float]] = {}
    for row, similar in zip(group.rows.tolist(), group.similar.tolist(), strict=True):
        for item in index.answers(row).tolist():
            if item >= 0 and item not in found and allowed[item]:
                found[item] = (row, similar)
        if len(found) >= most:
            break
    kept = list(found.items())[:most]
    return Candidate(
        np.array([item for item, _ in kept], np.int32),
        np.array([row for _, (row, _) in kept], np.int64),
        np.array([similar for _, (_, similar) in kept], np.float32),
    )


class Taste:
    """What the release's ranker thinks of candidates for one shopper; asked once for a whole answer.

    Args:
        engine: The release's engine.
        prepared: Who asks.
        lists: Candidates of every list.

    Raises:
        GraphError: A graph failed.
    """

    def __init__(self, engine: Engine, prepared: Prepared, lists: Iterable[Candidate]) -> None:
        self._items = np.unique(np.concatenate([np.zeros(0, np.int32), *(one.items for one in lists)]))
        self._engine = engine
        self._prepared = prepared
        self._top = np.zeros(0, np.int32)
        self._scores = np.zeros(0, np.float32)
        self.run_ns = 0
        if len(self._items):
            self._scores, self._top, self.run_ns = engine.affinity(prepared.query, self._items)

    def of(self, items: NDArray[np.int32]) -> NDArray[np.float32]:
        """float32[M], scores of some of the candidates."""
        return self._scores[np.searchsorted(self._items, items)]

    def reason(self, item: int) -> Reason | None:
        """What ties a product to this shopper, or None where nothing does."""
        memory = self._prepared.query.memory
        if memory is None:
            return None
        at_days = self._prepared.query.at_days
        found = reasons.explain(item, memory, self._engine.items, at_days, 0, self._top)
        return found if found.code in PERSONAL else None


def choose(
    index: Index,
    group: Group,
    candidates: Candidate,
    taste: Taste | None,
    n: int,
    exploration: float,
    rng: np.random.Generator | None,
) -> list[Entry]:
    """Order one list and take its best.

    Args:
        index: The index.
        group: The list.
        candidates: Its products.
        taste: Of the shopper, or None where nobody is known.
        n: Results.
        exploration: Probability that the last place shows a uniformly drawn further product of those within the floor.
        rng: Source of chance for it, or None.
    """
    may_rise = None if group.colour < 0 else index.colour[candidates.rows] == group.colour
    liked = None if taste is None else taste.of(candidates.items)
    ordered = order(candidates.similar, liked, may_rise, group.band)
    shown, propensities, explored = ordered.places[:n], [1.0] * min(n, len(ordered.places)), False
    if ordered.within >= n:
        shown, propensities, explored = explore(ordered.places[: ordered.within], n, exploration, rng)
    score_of = dict(zip(ordered.places.tolist(), ordered.scores.tolist(), strict=True))
    rose = dict(zip(ordered.places.tolist(), ordered.gained.tolist(), strict=True))
    entries = []
    for place, (candidate, propensity) in enumerate(zip(shown.tolist(), propensities, strict=True)):
        item, row = int(candidates.items[candidate]), int(candidates.rows[candidate])
        similar = float(candidates.similar[candidate])
        if explored and place == len(shown) - 1:
            reason = reasons.EXPLORED
        else:
            moved = rose[candidate] if taste is not None else 0
            personal = taste.reason(item) if taste is not None and moved > 0 else None
            reason = _reason(*group.words(candidate, row), similar, moved, personal)
        entries.append(
            Entry(item, row, round(score_of[candidate], 6), similar, propensity, group.source, reason)
        )
    return entries


def described(index: Index, row: int, colour: int) -> str:
    """What a row is beside what was seen: "the same red", "in blue", or nothing."""
    own = int(index.colour[row])
    if own < 0:
        return ""
    return f"the same {index.colours[own]}" if own == colour else f"in {index.colours[own]}"


def sentence(parts: Sequence[str]) -> str:
    """Parts that are not empty, joined by commas, with a capital first letter."""
    joined = ", ".join(part for part in parts if part)
    return joined[:1].upper() + joined[1:]


def _reason(code: str, text: str, similar: float, rose: int, personal: Reason | None) -> Reason:
    evidence: dict[str, object] = {"similarity": round(similar, 4)}
    if rose > 0:
        evidence["places_up"] = rose
    if personal is not None:
        evidence |= {"personal": personal.code, **personal.evidence}
        text = f"{text}; {personal.text[:1].lower()}{personal.text[1:]}"
    return Reason(code=code, text=text, evidence=evidence)
