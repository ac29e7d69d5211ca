"""Boxes: from masks, compared, and thinned out.

A box is (x1, y1, x2, y2), left-top inclusive and right-bottom exclusive, in pixels unless fractions are said.

Belongs here: geometry. Does not belong here: which label is which class (`classes.py`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

LEAST_PIXELS = 150
"""A label with fewer pixels is taken for noise."""

LEAST_SHARE = 0.05
"""So is a connected part of a label with less than this share of its largest part."""


def label_boxes(mask: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer]) -> tuple[Floats, Integers]:
    """One box per label of a mask: all of its parts together, so two shoes are one pair.

    Args:
        mask: Label of each pixel, ``[H, W]``.
        labels: Labels that are boxed.

    Returns:
        Boxes ``[M, 4]`` and the label of each ``[M]``, in order of label.
    """
    counts = np.bincount(mask.ravel(), minlength=256)
    boxes, found = [], []
    for label in sorted(int(value) for value in labels):
        if counts[label] < LEAST_PIXELS:
            continue
        parts, number = ndimage.label(mask == label, structure=np.ones((3, 3)))
        sizes = np.bincount(parts.ravel())[1:]
        kept = 1 + np.flatnonzero(sizes >= LEAST_SHARE * sizes.max())
        slices = ndimage.find_objects(parts, number)
        rows = [slices[part - 1][0] for part in kept]
        columns = [slices[part - 1][1] for part in kept]
        boxes.append((
            min(place.start for place in columns), min(place.start for place in rows),
            max(place.stop for place in columns), max(place.stop for place in rows),
        ))  # fmt: skip
        found.append(label)
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(found, np.int64)


def overlaps(one: Floats, other: Floats) -> Floats:
    """Intersection over union of each pair, ``[M, N]``."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    union = areas(one)[:, None] + areas(other)[None] - shared
    return shared / np.maximum(union, 1e-12)


def areas(boxes: Floats) -> Floats:
    """Area of each box."""
    return np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1)


def thin_out(boxes: Floats, scores: Floats, classes: Integers, iou: float) -> Integers:
    """Greedy non-maximum suppression within each class.

    Returns:
        Numbers of the boxes that stay, by descending score.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    for number in order:
        rivals = [other for other in kept if classes[other] == classes[number]]
        if not rivals or overlaps(boxes[[number]], boxes[rivals]).max() <= iou:
            kept.append(int(number))
    return np.array(kept, np.int64)
