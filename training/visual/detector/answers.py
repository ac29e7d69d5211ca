"""Answers of a detector on scenes, and how good they are.

Belongs here: from pictures through any detector (network or graph) to judged boxes. Does not belong here: average
precision itself (`training/evaluation/detection.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from training.evaluation.detection import Boxes, Found, judge
from training.visual.boxes import thin_out
from training.visual.classes import CLASSES
from training.visual.decode import letterbox
from training.visual.detector.scenes import Scene

Raw = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int64]]
Ask = Callable[[npt.NDArray[np.uint8]], Raw]
"""uint8 ``[B, S, S, 3]`` to boxes, scores and classes; see `network.Peaks`."""

BATCH = 8


def of_network(peaks: nn.Module) -> Ask:
    """Ask a network."""

    @torch.inference_mode()
    def ask(pixels: npt.NDArray[np.uint8]) -> Raw:
        boxes, scores, classes = peaks(torch.from_numpy(pixels))
        return boxes.numpy(), scores.numpy(), classes.numpy()

    return ask


def answers(ask: Ask, scenes: Sequence[Scene], size: int, iou: float) -> list[Boxes]:
    """Boxes per scene, in its pixels, thinned out and cut at its edges."""
    made = []
    for first in range(0, len(scenes), BATCH):
        part = scenes[first : first + BATCH]
        squares = [letterbox(Image.fromarray(scene.pixels), size) for scene in part]
        boxes, scores, classes = ask(np.stack([square for square, _ in squares]))
        for number, (scene, (_, scale)) in enumerate(zip(part, squares, strict=True)):
            height, width = scene.pixels.shape[:2]
            found = boxes[number] * size / scale
            found = np.minimum(found, np.array([width, height, width, height], np.float32))
            kept = thin_out(found, scores[number], classes[number], iou)
            made.append(Boxes(found[kept], classes[number][kept], scores[number][kept]))
    return made


def truth(scenes: Sequence[Scene]) -> list[Boxes]:
    """What is really in the scenes."""
    return [Boxes(scene.boxes, scene.classes) for scene in scenes]


def judged(ask: Ask, scenes: Sequence[Scene], size: int, iou: float) -> Found:
    """Average precision over all classes that the scenes show."""
    return judge(answers(ask, scenes, size, iou), truth(scenes), len(CLASSES))
