"""How well boxes are found: average precision as COCO defines it, and recall.

Belongs here: matching and precision over any detector's answers. Does not belong here: pictures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""Intersection over union that a box must reach; AP is the mean over them."""

RECALLS = np.linspace(0.0, 1.0, 101)
"""Recalls at which precision is read off."""

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Boxes:
    """Boxes of one picture, found or true.

    Attributes:
        boxes: (x1, y1, x2, y2), ``[M, 4]``.
        classes: Number of each.
        scores: Confidence of each; not read for true boxes.
    """

    boxes: npt.NDArray[np.floating]
    classes: npt.NDArray[np.integer]
    scores: npt.NDArray[np.floating] = dataclasses.field(default_factory=lambda: np.zeros(0))


@dataclasses.dataclass(frozen=True)
class Found:
    """Average precision and recall.

    Attributes:
        precision: By class and threshold, ``[C, T]``; NaN for a class without a true box.
        recall: Best recall, the same shape.
        truths: True boxes by class.
    """

    precision: Floats
    recall: Floats
    truths: npt.NDArray[np.int64]

    @property
    def ap(self) -> float:
        """Mean over classes and thresholds."""
        return float(np.nanmean(self.precision))

    @property
    def ap50(self) -> float:
        """Mean over classes at the first threshold."""
        return float(np.nanmean(self.precision[:, 0]))

    @property
    def ar(self) -> float:
        """Mean best recall over classes and thresholds."""
        return float(np.nanmean(self.recall))


def judge(
    found: Sequence[Boxes],
    true: Sequence[Boxes],
    classes: int,
    thresholds: Floats = THRESHOLDS,
    most: int = 100,
) -> Found:
    """Average precision, COCO style: boxes of all sizes, matched greedily by score within picture and class.

    A box takes the free true box that it overlaps most (the later one on a tie), if that reaches the threshold.
    Precision is made monotone and read at 101 recalls.

    Args:
        found: Answers by picture.
        true: Truth by picture.
        classes: Number of classes C.
        thresholds: Of intersection over union, ascending.
        most: At most so many boxes per picture and class count, best first.

    Raises:
        ValueError: The two differ in length.
    """
    if len(found) != len(true):
        raise ValueError(f"answers for {len(found)} pictures, truth for {len(true)}; expected as many")
    precision = np.full((classes, len(thresholds)), np.nan)
    recall = np.full((classes, len(thresholds)), np.nan)
    truths = np.zeros(classes, np.int64)
    for kind in range(classes):
        scores, hits = [], []
        for answer, truth in zip(found, true, strict=True):
            wanted = truth.boxes[truth.classes == kind]
            truths[kind] += len(wanted)
            mine = np.flatnonzero(answer.classes == kind)
            mine = mine[np.argsort(-answer.scores[mine], kind="mergesort")][:most]
            scores.append(answer.scores[mine])
            hits.append(_match(_overlaps(answer.boxes[mine], wanted), thresholds))
        if truths[kind]:
            order = np.argsort(-np.concatenate(scores), kind="mergesort")
            right = np.concatenate(hits)[order]
            for number in range(len(thresholds)):
                precision[kind, number], recall[kind, number] = _average(right[:, number], truths[kind])
    return Found(precision, recall, truths)


def _overlaps(one: npt.NDArray[np.floating], other: npt.NDArray[np.floating]) -> Floats:
    one, other = np.asarray(one, np.float64).reshape(-1, 4), np.asarray(other, np.float64).reshape(-1, 4)
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    sizes = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (one, other)]
    return shared / np.maximum(sizes[0][:, None] + sizes[1][None] - shared, 1e-12)


def _match(overlap: Floats, thresholds: Floats) -> npt.NDArray[np.bool_]:
    """Which answers hit, ``[M, T]``, for overlaps ``[M, N]`` with answers in order of score."""
    hits = np.zeros((len(overlap), len(thresholds)), bool)
    for number, threshold in enumerate(thresholds):
        free = np.ones(overlap.shape[1], bool)
        for answer, row in enumerate(overlap):
            best, chosen = min(threshold, 1 - 1e-10), -1
            for truth in np.flatnonzero(free):
                if row[truth] >= best:
                    best, chosen = row[truth], truth
            if chosen >= 0:
                hits[answer, number], free[chosen] = True, False
    return hits


def _average(right: npt.NDArray[np.bool_], truths: int) -> tuple[float, float]:
    """Average precision and best recall of answers in order of score."""
    if not len(right):
        return 0.0, 0.0
    true = np.cumsum(right)
    recall = true / truths
    precision = true / (np.arange(len(right)) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, RECALLS, side="left")
    read = np.where(places < len(precision), precision[np.minimum(places, len(precision) - 1)], 0.0)
    return float(read.mean()), float(recall[-1])


def best_threshold(found: Sequence[Boxes], true: Sequence[Boxes], iou: float = 0.5) -> tuple[float, float]:
    """The score above which showing boxes has the best F1, over all classes together.

    Returns:
        Score and F1; (0.5, 0.0) where nothing is ever right.
    """
    scores, right, truths = [], [], 0
    for answer, truth in zip(found, true, strict=True):
        truths += len(truth.boxes)
        for kind in np.unique(answer.classes):
            mine = np.flatnonzero(answer.classes == kind)
            mine = mine[np.argsort(-answer.scores[mine], kind="mergesort")]
            overlap = _overlaps(answer.boxes[mine], truth.boxes[truth.classes == kind])
            scores.append(answer.scores[mine])
            right.append(_match(overlap, np.array([iou]))[:, 0])
    if not scores or not np.concatenate(right).any():
        return 0.5, 0.0
    all_scores = np.concatenate(scores)
    order = np.argsort(-all_scores, kind="mergesort")
    true_above = np.cumsum(np.concatenate(right)[order])
    f1 = 2 * true_above / (np.arange(len(order)) + 1 + truths)
    best = int(f1.argmax())
    return float(all_scores[order][best]), float(f1[best])
