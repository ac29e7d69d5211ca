"""Ranking metrics over many requests at once, relevance being binary.

Answers are item indices ``int[R, K]``, best first, -1 where an answer is shorter. Targets are given as
`Targets`: the distinct relevant items of each request, whether or not they were candidates.

Belongs here: metrics per request and over the whole set. Does not belong here: intervals
(`statistics.py`), what is ranked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Targets:
    """Relevant items by request.

    Attributes:
        offsets: int64[R + 1] into ``items``.
        items: int64, item indices, ascending inside a request, distinct; -1 for items outside the table.
    """

    offsets: Ints
    items: Ints

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> Ints:
        """int64[R], relevant items per request."""
        return np.diff(self.offsets)

    def select(self, rows: npt.NDArray[np.integer]) -> Targets:
        """The targets of some requests, in that order."""
        lengths = self.counts[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        places = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - self.offsets[rows], lengths)
        return Targets(offsets, self.items[places])


def targets_of(sets: Sequence[Sequence[int]]) -> Targets:
    """Targets from one collection of item indices per request; -1 may repeat, others count once."""
    rows = [
        np.sort(np.concatenate([np.unique(known[known >= 0]), known[known < 0]]))
        for known in (np.asarray(list(each), np.int64) for each in sets)
    ]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return Targets(offsets, np.concatenate(rows) if rows else np.zeros(0, np.int64))


def hits(answers: npt.NDArray[np.integer], targets: Targets) -> npt.NDArray[np.bool_]:
    """Which answered items are relevant.

    Returns:
        bool[R, K].
    """
    wanted = answers.astype(np.int64)
    rows = np.repeat(np.arange(len(targets)), targets.counts)
    width = int(max(wanted.max(initial=0), targets.items.max(initial=0))) + 1
    known = targets.items >= 0
    keys = np.sort(rows[known] * width + targets.items[known])
    asked = np.arange(len(wanted))[:, None] * width + wanted
    if not len(keys):
        return np.zeros(wanted.shape, np.bool_)
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return (keys[place] == asked) & (wanted >= 0)


def gains(k: int) -> Floats:
    """float64[k], 1 / log2(position + 2)."""
    return 1 / np.log2(np.arange(2, k + 2))


def ndcg(answers: npt.NDArray[np.integer], targets: Targets, k: int = 10) -> Floats:
    """NDCG@k per request; the ideal has min(k, relevant items) hits at the top.

    Returns:
        float64[R]; 0 for a request without relevant items.
    """
    found = hits(answers[:, :k], targets)
    weights = gains(k)
    ideal = np.concatenate([[0.0], np.cumsum(weights)])[np.minimum(targets.counts, k)]
    reached = (found * weights[: found.shape[1]]).sum(axis=1)
    return np.where(ideal > 0, reached / np.maximum(ideal, 1e-12), 0.0)


def recall(answers: npt.NDArray[np.integer], targets: Targets, k: int = 10) -> Floats:
    """Share of the relevant items among the first k, per request."""
    found = hits(answers[:, :k], targets).sum(axis=1)
    return found / np.maximum(targets.counts, 1)


def hit_rate(answers: npt.NDArray[np.integer], targets: Targets, k: int = 10) -> Floats:
    """1.0 where at least one of the first k is relevant, per request."""
    return hits(answers[:, :k], targets).any(axis=1).astype(np.float64)


def mrr(answers: npt.NDArray[np.integer], targets: Targets, k: int = 10) -> Floats:
    """1 / position of the first relevant item among the first k, else 0, per request."""
    found = hits(answers[:, :k], targets)
    if not found.shape[1]:
        return np.zeros(len(found))
    return np.where(found.any(axis=1), 1.0 / (found.argmax(axis=1) + 1), 0.0)


def coverage(answers: npt.NDArray[np.integer], items: int, k: int = 10) -> float:
    """Share of the catalogue that appears among the first k of any answer.

    Args:
        answers: int[R, K].
        items: Size of the catalogue.
        k: Cut-off.
    """
    shown = answers[:, :k]
    return len(np.unique(shown[shown >= 0])) / max(items, 1)


def novelty(answers: npt.NDArray[np.integer], popularity: Floats, k: int = 10) -> Floats:
    """Mean self-information of the first k, in bits, per request.

    Self-information of an item is -log2 of its share of customers (Zhou et al. 2010); one customer is added
    to every count so that an item never bought has a finite value.

    Args:
        answers: int[R, K].
        popularity: float64[N], customers who bought each item; its largest value plus one stands for all.
        k: Cut-off.
    """
    bits = -np.log2((popularity + 1) / (popularity.max(initial=0) + 2))
    shown = answers[:, :k]
    real = shown >= 0
    values = np.where(real, bits[np.where(real, shown, 0)], 0.0)
    return values.sum(axis=1) / np.maximum(real.sum(axis=1), 1)


def top_k(scores: Floats, rows: Ints, items: Ints, requests: int, k: int = 10) -> Ints:
    """Best k items of each request from flat candidate scores; ties go to the lower item index.

    Args:
        scores: float[M].
        rows: int64[M], request of each candidate.
        items: int64[M], item of each candidate.
        requests: R.
        k: Answer length.

    Returns:
        int64[R, k], -1 where a request has fewer candidates.
    """
    order = np.lexsort((items, -scores, rows))
    ordered = rows[order]
    position = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
    keep = position < k
    best = np.full((requests, k), -1, np.int64)
    best[ordered[keep], position[keep]] = items[order][keep]
    return best
