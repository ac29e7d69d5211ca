"""Pictures with boxes, held in memory at the size they are learned at.

Three kinds of sources teach the detector: photos with masks (street-looks), composed looks whose boxes are known, and
pack shots, of which the one box is what differs from the ground.

Belongs here: from a picture set to scenes, and their parts (learn, validate, report). Does not belong here: chance
(`augment.py`).
"""

from __future__ import annotations

import csv
import dataclasses
import io
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from training.config import ConfigError
from training.visual.boxes import label_boxes
from training.visual.classes import ATELIER_TYPES, CLASSES, STREET_LABELS, WHOLE
from training.visual.pictures import Picture, PictureSet, open_pictures

VALIDATION = 0.07
"""Last share of the pictures to learn from that is kept for choosing; neighbours in street-looks look alike."""

LARGEST = 2048
"""Longer side of a scene for reporting; larger pictures are scaled down."""

GROUND_GAP = 24
"""A pixel of a pack shot belongs to the product if a channel differs from the ground by more."""


@dataclasses.dataclass(frozen=True)
class Scene:
    """One picture.

    Attributes:
        key: In its set.
        kind: ``photo``, ``look`` or ``packshot``.
        pixels: uint8 ``[H, W, 3]``.
        boxes: In pixels of these, ``[M, 4]``.
        classes: Number of each in `CLASSES`.
        scale: Pixels here over pixels of the picture.
        person: Where the picture's own content is, bool ``[H, W]``; None where nobody knows.
    """

    key: str
    kind: str
    pixels: npt.NDArray[np.uint8]
    boxes: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    scale: float
    person: npt.NDArray[np.bool_] | None = None


@dataclasses.dataclass(frozen=True)
class Parts:
    """Scenes of one source that may be looked at.

    Attributes:
        learn: To learn from.
        validate: To choose on.
    """

    learn: list[Scene]
    validate: list[Scene]


def read_source(layout: str, root: pathlib.Path, side: int, limit: int = 0) -> Parts:
    """Read what is learned from and chosen on.

    Args:
        layout: ``street-looks``, ``drawn-looks``, ``fashion-products`` or ``drawn``.
        root: Its folder.
        side: Longer side of the scenes in pixels; smaller pictures stay as they are.
        limit: At most this many pictures, spread evenly; 0 for all.

    Raises:
        ConfigError: No boxes are known for the layout.
        PictureSetError: The folder is not in its layout.
    """
    maker, pictures = _open(layout, root)
    rows = _some(pictures.part("train"), limit)
    made = [maker(row, side) for row in rows]
    cut = len(made) - (max(1, round(len(made) * VALIDATION)) if len(made) > 1 else 0)
    return Parts(made[:cut], made[cut:])


def read_report(layout: str, root: pathlib.Path, limit: int = 0) -> list[Scene]:
    """Read the pictures for reporting, at their own size; see `read_source`."""
    maker, pictures = _open(layout, root)
    return [maker(row, LARGEST) for row in _some(pictures.part("test"), limit)]


def _open(layout: str, root: pathlib.Path) -> tuple[Callable[[Picture, int], Scene], PictureSet]:
    if layout not in _MAKERS:
        raise ConfigError(f"`$.sources` names layout {layout!r}; expected one of: {', '.join(_MAKERS)}")
    pictures = open_pictures(layout, root)
    return _MAKERS[layout](pictures, root), pictures


def _some(rows: list[Picture], limit: int) -> list[Picture]:
    if not limit or len(rows) <= limit:
        return rows
    return [rows[place] for place in np.linspace(0, len(rows) - 1, limit).astype(int)]


class _Street:
    """Photos with a mask of labels."""

    def __init__(self, pictures: PictureSet, root: pathlib.Path) -> None:
        self.pictures = pictures
        with (root / "labels.csv").open(newline="") as file:
            names = {int(row["index"]): row["label"] for row in csv.DictReader(file)}
        self.classes = {
            index: CLASSES.index(STREET_LABELS[name])
            for index, name in names.items()
            if name in STREET_LABELS
        }

    def __call__(self, row: Picture, side: int) -> Scene:
        mask = np.asarray(Image.open(io.BytesIO(self.pictures.read_mask(row.key))))
        boxes, labels = label_boxes(mask, np.array(list(self.classes)))
        pixels, scale = _shrunk(self.pictures.read(row.key), side)
        small = Image.fromarray(mask > 0).resize((pixels.shape[1], pixels.shape[0]))
        classes = np.array([self.classes[int(label)] for label in labels], np.int64)
        return Scene(row.key, "photo", pixels, boxes * scale, classes, scale, np.asarray(small))


class _Looks:
    """Composed looks, boxed by who composed them."""

    def __init__(self, pictures: PictureSet, root: pathlib.Path) -> None:
        self.pictures = pictures

    def __call__(self, row: Picture, side: int) -> Scene:
        pixels, scale = _shrunk(self.pictures.read(row.key), side)
        height, width = pixels.shape[:2]
        known = [box for box in row.boxes if box.label in ATELIER_TYPES]
        boxes = np.array([(box.left, box.top, box.right, box.bottom) for box in known], np.float32).reshape(
            -1, 4
        )
        classes = np.array([CLASSES.index(ATELIER_TYPES[box.label]) for box in known], np.int64)
        return Scene(
            row.key,
            "look",
            pixels,
            boxes * np.array([width, height, width, height], np.float32),
            classes,
            scale,
        )


class _Packshots:
    """One product on a plain ground."""

    def __init__(self, pictures: PictureSet, root: pathlib.Path) -> None:
        self.pictures = pictures

    def __call__(self, row: Picture, side: int) -> Scene:
        pixels, scale = _shrunk(self.pictures.read(row.key), side)
        product = np.abs(pixels.astype(np.int16) - ground(pixels)).max(axis=2) > GROUND_GAP
        boxes, _ = label_boxes(product.astype(np.uint8), np.array([1]))
        return Scene(
            row.key, "packshot", pixels, boxes, np.full(len(boxes), CLASSES.index(WHOLE)), scale, product
        )


_MAKERS = {
    "street-looks": _Street, "drawn-looks": _Looks, "fashion-products": _Packshots, "drawn": _Packshots,
}  # fmt: skip


def ground(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int16]:
    """Colour of a picture's edge: the median of its outermost pixels."""
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return np.median(edge, axis=0).astype(np.int16)


def _shrunk(content: bytes, side: int) -> tuple[npt.NDArray[np.uint8], float]:
    image = Image.open(io.BytesIO(content)).convert("RGB")
    scale = min(1.0, side / max(image.size))
    if scale < 1:
        size = tuple(max(1, round(length * scale)) for length in image.size)
        image = image.resize((size[0], size[1]), Image.Resampling.BILINEAR)
    return np.asarray(image), scale


def class_counts(scenes: Sequence[Scene]) -> npt.NDArray[np.int64]:
    """Boxes per class."""
    return np.bincount(np.concatenate([scene.classes for scene in scenes]), minlength=len(CLASSES))


def draw_weights(scenes: Sequence[Scene], often: float = 0.12) -> npt.NDArray[np.float64]:
    """How often each scene is drawn: more where a class is in it that few scenes show.

    Repeat factors of LVIS (Gupta, Dollar, Girshick 2019): the square root of `often` over the share of scenes with the
    class, at least 1, and of a scene's classes the largest.

    Returns:
        Probabilities ``[N]``.
    """
    shares = np.zeros(len(CLASSES))
    for scene in scenes:
        shares[np.unique(scene.classes)] += 1 / len(scenes)
    factor = np.maximum(1.0, np.sqrt(often / np.maximum(shares, 1e-9)))
    weights = np.array([factor[scene.classes].max(initial=1.0) for scene in scenes])
    return weights / weights.sum()
