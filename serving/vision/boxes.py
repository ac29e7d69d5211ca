"""Boxes: what the detector saw, in the photo's own terms, and what is cut out for the embedder.

A box is (left, top, right, bottom) as shares of the upright photo.

Belongs here: letterboxing, suppression of doubles, choosing by box or point, crops. Does not belong
here: decoding, running graphs.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contracts.visual import GREY

Box = tuple[float, float, float, float]

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
GAP = 1.2
"""A picture that is larger than this many times twice what is wanted is first averaged over whole squares of pixels:
three times as fast, and the same as one smooth step up to that size, which pictures of training do not exceed."""

SMALLEST_SHARE = 0.01
"""A box thinner than this share of the photo holds nothing that could be recognised."""

POINT_SHARE = 0.35
"""Side of the box that is put around a point where nothing was found, as a share of the shorter side."""


class Detection(msgspec.Struct, frozen=True):
    """One item in a photo.

    Attributes:
        box: Where.
        label: Its class, empty where the photo says nothing of it.
        confidence: From 0 to 1.
    """

    box: Box
    label: str
    confidence: float


def letterboxed(image: Image.Image, side: int) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """Fit a picture into a square: scaled, pasted top left, grey beside it.

    Returns:
        uint8[side, side, 3], and the share of the square that the picture fills in width and height.
    """
    scale = side / max(image.size)
    width, height = (max(1, min(side, round(edge * scale))) for edge in image.size)
    small = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=GAP)
    square = np.full((side, side, 3), GREY, np.uint8)
    square[:height, :width] = np.asarray(small)
    return square, (width / side, height / side)


def detections(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    classes: NDArray[np.int64],
    names: Sequence[str],
    filled: tuple[float, float],
    threshold: float,
    overlap: float,
    most: int,
) -> list[Detection]:
    """The items of one photo, the surest first.

    Args:
        boxes: float32[K, 4] as shares of the letterboxed square.
        scores: float32[K].
        classes: int64[K], index in ``names``.
        names: Class names.
        filled: Share of the square that the photo fills in width and height.
        threshold: Least score.
        overlap: Largest intersection over union of two boxes of one class.
        most: Items at most.
    """
    known = np.isfinite(boxes).all(1) & (scores >= threshold) & (classes >= 0) & (classes < len(names))
    share = np.array([*filled, *filled], np.float32)
    placed: NDArray[np.float32] = np.clip(boxes[known] / share, 0.0, 1.0).astype(np.float32)
    wide = (placed[:, 2:] - placed[:, :2] >= SMALLEST_SHARE).all(1)
    placed, kept_scores, kept_classes = placed[wide], scores[known][wide], classes[known][wide]
    order = np.argsort(-kept_scores, kind="stable")
    chosen: list[int] = []
    for place in order.tolist():
        same = [other for other in chosen if kept_classes[other] == kept_classes[place]]
        if same and float(iou(placed[place], placed[same]).max()) > overlap:
            continue
        chosen.append(place)
        if len(chosen) == most:
            break
    return [
        Detection(as_box(placed[place]), names[int(kept_classes[place])], float(kept_scores[place]))
        for place in chosen
    ]


def iou(box: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of one box with others float32[N, 4]."""
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[2:], others[:, 2:])
    inner = np.prod(np.clip(high - low, 0.0, None), axis=1)
    area = np.prod(others[:, 2:] - others[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    shared: NDArray[np.float32] = inner / np.maximum(area - inner, 1e-9)
    return shared


def at_point(found: Sequence[Detection], x: float, y: float) -> Detection | None:
    """The smallest found item that holds a point, or None."""
    holding = [d for d in found if d.box[0] <= x <= d.box[2] and d.box[1] <= y <= d.box[3]]
    return min(holding, key=lambda d: _area(d.box), default=None)


def around(x: float, y: float, width: int, height: int) -> Box:
    """A square box around a point, inside the photo."""
    side = POINT_SHARE * min(width, height)
    half = (side / 2 / width, side / 2 / height)
    return (max(0.0, x - half[0]), max(0.0, y - half[1]), min(1.0, x + half[0]), min(1.0, y + half[1]))


def cut(image: Image.Image, box: Box, side: int, margin: float, letterbox: bool) -> NDArray[np.uint8]:
    """What a box holds, as the embedder wants it: uint8[side, side, 3].

    Args:
        image: The photo.
        box: Where.
        side: Pixels.
        margin: Added on every side, as a share of the box.
        letterbox: Keep the proportions, top left on grey; otherwise stretch.
    """
    width, height = image.size
    dx, dy = margin * (box[2] - box[0]), margin * (box[3] - box[1])
    left = min(max(0.0, box[0] - dx) * width, width - 1.0)
    top = min(max(0.0, box[1] - dy) * height, height - 1.0)
    right = max(min(1.0, box[2] + dx) * width, left + 1.0)
    bottom = max(min(1.0, box[3] + dy) * height, top + 1.0)
    area = (left, top, right, bottom)
    if not letterbox:
        return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, area, GAP))
    scale = side / max(right - left, bottom - top)
    wide, high = (max(1, min(side, round(edge * scale))) for edge in (right - left, bottom - top))
    square = np.full((side, side, 3), GREY, np.uint8)
    square[:high, :wide] = np.asarray(image.resize((wide, high), Image.Resampling.BILINEAR, area, GAP))
    return square


def as_box(values: NDArray[np.float32]) -> Box:
    """Four numbers as a box."""
    left, top, right, bottom = (round(float(value), 5) for value in values)
    return (left, top, right, bottom)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
