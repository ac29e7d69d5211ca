"""Views of scenes: scale from 0.3 to 2, flips, other grounds, mosaics, light and colour.

Belongs here: chance applied to pixels and boxes together. Does not belong here: reading (`scenes.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from training.visual.boxes import areas
from training.visual.decode import GREY
from training.visual.detector.scenes import Scene, ground

VISIBLE = 0.35
"""A box of which less than this share is left after cropping is dropped."""

SMALLEST = 3.0
"""So is one that is narrower than this, in pixels."""

View = tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.int64]]


def batch(
    scenes: Sequence[Scene], chances: npt.NDArray[np.float64], count: int, height: int, width: int, size: int,
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.uint8], list[npt.NDArray[np.float32]], list[npt.NDArray[np.int64]]]:  # fmt: skip
    """Random views of random scenes.

    Args:
        scenes: To draw from.
        chances: Probability of each.
        count: How many.
        height: Of the views.
        width: The same.
        size: Side of the square that the detector will see a whole picture on.
        rng: All chance comes from here.

    Returns:
        Pixels uint8 ``[count, height, width, 3]``, boxes and classes of each.
    """
    views = []
    for number in rng.choice(len(scenes), count, p=chances):
        scene = scenes[number]
        if scene.kind == "look" and rng.random() < 0.25:
            views.append(mosaic([scene, *(scenes[n] for n in rng.choice(len(scenes), 3, p=chances))],
                                height, width, size, rng))  # fmt: skip
        else:
            views.append(view(scene, scenes, height, width, size, rng))
    return np.stack([v[0] for v in views]), [v[1] for v in views], [v[2] for v in views]


def view(
    scene: Scene, others: Sequence[Scene], height: int, width: int, size: int, rng: np.random.Generator
) -> View:
    """One view of a scene: most of them near to how a caller letterboxes, some far from it."""
    pixels = scene.pixels
    fill = np.full(3, GREY, np.int16)
    if scene.person is not None and rng.random() < (0.25 if scene.kind == "photo" else 0.5):
        pixels = _on_other_ground(scene, others, rng)
    if scene.kind != "photo" and rng.random() < 0.7:
        fill = ground(pixels)
    near = rng.random() < 0.7
    spread = rng.uniform(0.88, 1.15) if near else float(np.exp(rng.uniform(np.log(0.3), np.log(2.0))))
    scale = size / max(pixels.shape[:2]) * spread
    tall, wide = pixels.shape[0] * scale, pixels.shape[1] * scale
    if near:
        left, top = rng.uniform(-0.06, 0.06) * wide, rng.uniform(-0.06, 0.06) * tall
    else:
        left, top = _anywhere(width, wide, rng), _anywhere(height, tall, rng)
    made, boxes, classes = place(scene, pixels, scale, left, top, height, width, fill)
    if rng.random() < 0.5:
        # mirrored within its own extent, so that it stays where a letterboxed picture is
        first, last = max(0, round(left)), min(width, round(left + wide))
        made[:, first:last] = made[:, first:last][:, ::-1]
        boxes = boxes.copy()
        boxes[:, [0, 2]] = first + last - boxes[:, [2, 0]]
    return recolour(made, rng), boxes, classes


def _anywhere(room: float, length: float, rng: np.random.Generator) -> float:
    """Where a length begins: inside if it fits, else with the room full."""
    slack = room - length
    return float(rng.uniform(0, slack) if slack > 0 else rng.uniform(slack, 0))


def place(
    scene: Scene, pixels: npt.NDArray[np.uint8], scale: float, left: float, top: float, height: int, width: int,
    fill: npt.NDArray[np.int16],
) -> View:  # fmt: skip
    """A scene scaled and put somewhere on a canvas; what does not fit is cut off."""
    left, top = round(left), round(top)
    first_x, first_y = max(0, left), max(0, top)
    last_x = min(width, left + round(pixels.shape[1] * scale))
    last_y = min(height, top + round(pixels.shape[0] * scale))
    made = np.empty((height, width, 3), np.uint8)
    made[:] = fill.astype(np.uint8)
    if last_x > first_x and last_y > first_y:
        part = (
            (first_x - left) / scale,
            (first_y - top) / scale,
            (last_x - left) / scale,
            (last_y - top) / scale,
        )
        limit = (pixels.shape[1], pixels.shape[0]) * 2
        part = tuple(min(edge, most) for edge, most in zip(part, limit, strict=True))  # type: ignore[assignment]
        image = Image.fromarray(pixels).resize(
            (last_x - first_x, last_y - first_y), Image.Resampling.BILINEAR, box=part
        )
        made[first_y:last_y, first_x:last_x] = np.asarray(image)
    boxes = scene.boxes * scale + np.array([left, top, left, top], np.float32)
    return made, *cropped(boxes, scene.classes, (0.0, 0.0, float(width), float(height)))


def cropped(
    boxes: npt.NDArray[np.float32], classes: npt.NDArray[np.int64], window: tuple[float, float, float, float]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Boxes cut at a window; see `VISIBLE` and `SMALLEST`."""
    cut = np.stack(
        [np.clip(boxes[:, edge], window[edge % 2], window[2 + edge % 2]) for edge in range(4)], axis=1
    ).astype(np.float32)
    kept = (areas(cut) >= VISIBLE * areas(boxes)) & (
        (cut[:, 2:] - cut[:, :2]).min(axis=1, initial=1e9) >= SMALLEST
    )
    return cut[kept], classes[kept]


def mosaic(scenes: Sequence[Scene], height: int, width: int, size: int, rng: np.random.Generator) -> View:
    """Four scenes in one view, each in its quarter."""
    middle_y, middle_x = round(height * rng.uniform(0.35, 0.65)), round(width * rng.uniform(0.35, 0.65))
    made = np.full((height, width, 3), GREY, np.uint8)
    boxes, classes = [], []
    for scene, (y, x, rows, columns) in zip(
        scenes,
        ((0, 0, middle_y, middle_x), (0, middle_x, middle_y, width - middle_x),
         (middle_y, 0, height - middle_y, middle_x), (middle_y, middle_x, height - middle_y, width - middle_x)),
        strict=True,
    ):  # fmt: skip
        scale = min(rows / scene.pixels.shape[0], columns / scene.pixels.shape[1]) * rng.uniform(0.9, 1.4)
        slack = rows - scene.pixels.shape[0] * scale, columns - scene.pixels.shape[1] * scale
        top, left = (rng.uniform(min(0, gap), max(0, gap)) for gap in slack)
        part, found, kinds = place(
            scene, scene.pixels, scale, left, top, rows, columns, np.full(3, GREY, np.int16)
        )
        made[y : y + rows, x : x + columns] = part
        boxes.append(found + np.array([x, y, x, y], np.float32))
        classes.append(kinds)
    return recolour(made, rng), np.concatenate(boxes), np.concatenate(classes)


def _on_other_ground(
    scene: Scene, others: Sequence[Scene], rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """A scene's content before a plain ground, a blurred photo, or noise."""
    assert scene.person is not None
    height, width = scene.pixels.shape[:2]
    kind = rng.random()
    if kind < 0.4:
        behind = np.empty((height, width, 3), np.uint8)
        behind[:] = rng.integers(0, 256, 3) if rng.random() < 0.5 else np.full(3, rng.integers(90, 256))
    elif kind < 0.8:
        other = others[int(rng.integers(len(others)))].pixels
        image = Image.fromarray(other).transpose(Image.Transpose.FLIP_TOP_BOTTOM).resize((width, height))
        behind = np.asarray(image.filter(ImageFilter.GaussianBlur(float(rng.uniform(2, 9)))))
    else:
        coarse = rng.integers(0, 256, (int(rng.integers(2, 24)), int(rng.integers(2, 24)), 3), np.uint8)
        behind = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    soft = Image.fromarray((scene.person * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1.0))
    return np.asarray(Image.composite(Image.fromarray(scene.pixels), Image.fromarray(behind), soft))


def recolour(pixels: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Light, contrast, warmth and saturation of another camera; sometimes no colour at all."""
    if rng.random() < 0.2:
        return pixels
    gain = (1 + rng.uniform(-0.3, 0.3)) * (1 + rng.uniform(-0.12, 0.12, 3))
    bias = rng.uniform(-25, 25)
    saturation = 0.0 if rng.random() < 0.04 else rng.uniform(0.6, 1.35)
    matrix = gain[:, None] * (saturation * np.eye(3) + (1 - saturation) * np.array([0.299, 0.587, 0.114]))
    values = np.concatenate([matrix, np.full((3, 1), bias)], axis=1)
    return np.asarray(Image.fromarray(pixels).convert("RGB", tuple(values.ravel().tolist())))
