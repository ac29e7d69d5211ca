"""What the detector learns from: Gaussian targets and the losses.

Belongs here: targets and losses. Does not belong here: the loop (`learn.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from training.visual.detector.edges import Edges
from training.visual.detector.network import STRIDE

SPREAD = 0.54
"""Size of an object's Gaussian over the size of its box (TTFNet)."""

NEAR = 0.6
"""Boxes of cells whose Gaussian is at least so high are looked at again: peaks stand near centres."""

FIT_WEIGHT = 0.25
"""Of how well a box fits, over its sides."""


@dataclasses.dataclass(frozen=True)
class Targets:
    """What a batch should give.

    Attributes:
        heat: Centres, 1 at each and a Gaussian around it, ``[B, C, h, w]``.
        cell: Picture, class, row and column of the cells that learn a box, int64 ``[4, M]``.
        boxes: The box of each such cell in pixels, ``[M, 4]``.
        weight: Its weight, ``[M]``.
        near: The Gaussian there, ``[M]``.
        objects: Number of objects.
    """

    heat: Tensor
    cell: Tensor
    boxes: Tensor
    weight: Tensor
    near: Tensor
    objects: int


def targets(
    boxes: Sequence[npt.NDArray[np.float32]], classes: Sequence[npt.NDArray[np.int64]], count: int,
    height: int, width: int,
) -> Targets:  # fmt: skip
    """Targets of a batch.

    Args:
        boxes: Per picture its boxes in pixels.
        classes: Per picture the class of each.
        count: Number of classes.
        height: Of the pictures, in pixels.
        width: The same.
    """
    h, w = height // STRIDE, width // STRIDE
    heat = np.zeros((len(boxes), count, h, w), np.float32)
    cells, wanted, weights, nearness = [], [], [], []
    for picture, (found, kinds) in enumerate(zip(boxes, classes, strict=True)):
        area = (found[:, 2] - found[:, 0]) * (found[:, 3] - found[:, 1])
        owner: dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]] = {}
        for number in np.argsort(-area, kind="stable"):
            box, kind = found[number], int(kinds[number])
            column = min(int((box[0] + box[2]) / 2 / STRIDE), w - 1)
            row = min(int((box[1] + box[3]) / 2 / STRIDE), h - 1)
            bell, top, left = _bell(box, row, column, h, w)
            rows, columns = bell.shape
            place = heat[picture, kind, top : top + rows, left : left + columns]
            np.maximum(place, bell, out=place)
            who, strength = owner.setdefault(kind, (np.full((h, w), -1), np.zeros((h, w), np.float32)))
            who[top : top + rows, left : left + columns][bell > 0] = number
            strength[top : top + rows, left : left + columns][bell > 0] = bell[bell > 0]
        for kind, (who, strength) in owner.items():
            y, x = np.nonzero(who >= 0)
            numbers, share = who[y, x], strength[y, x]
            total = np.bincount(numbers, share, minlength=len(found))[numbers]
            cells.append(np.stack([np.full_like(y, picture), np.full_like(y, kind), y, x]))
            wanted.append(found[numbers])
            weights.append(share / total * np.log1p(area[numbers]))
            nearness.append(share)
    if not cells:
        cell, box_of = np.zeros((4, 0), np.int64), np.zeros((0, 4), np.float32)
        weight = near = np.zeros(0, np.float32)
    else:
        cell, box_of, weight = np.concatenate(cells, 1), np.concatenate(wanted), np.concatenate(weights)
        near = np.concatenate(nearness)
    return Targets(
        torch.from_numpy(heat), torch.from_numpy(cell), torch.from_numpy(box_of.astype(np.float32)),
        torch.from_numpy(weight.astype(np.float32)), torch.from_numpy(near), sum(len(found) for found in boxes),
    )  # fmt: skip


def _bell(
    box: npt.NDArray[np.float32], row: int, column: int, h: int, w: int
) -> tuple[npt.NDArray[np.float32], int, int]:
    """A Gaussian cut off at three sigmas, its top row and left column; exactly 1 at the centre."""
    high = max(int((box[3] - box[1]) / STRIDE / 2 * SPREAD), 0)
    wide = max(int((box[2] - box[0]) / STRIDE / 2 * SPREAD), 0)
    y, x = np.arange(-high, high + 1), np.arange(-wide, wide + 1)
    bell = np.exp(-(y[:, None] ** 2) / (2 * ((2 * high + 1) / 6) ** 2)) * np.exp(
        -(x[None] ** 2) / (2 * ((2 * wide + 1) / 6) ** 2)
    )
    top, left = row - high, column - wide
    bell = bell[max(0, -top) : h - top, max(0, -left) : w - left].astype(np.float32)
    return bell, max(top, 0), max(left, 0)


def losses(
    logits: Tensor, reach: Tensor, features: Tensor, edges: Edges, wanted: Targets
) -> tuple[Tensor, Tensor]:
    """Focal loss of the centres (Law and Deng 2018) and what boxes lose.

    A box loses generalised IoU (Rezatofighi et al. 2019) as the cell says it, again after its sides were moved, and
    the cross-entropy of how much of box and object is believed to be shared.

    Args:
        logits: See `Network.forward`.
        reach: The same.
        features: The same.
        edges: Moves sides.
        wanted: From `targets`.
    """
    score = torch.sigmoid(logits)
    right = functional.logsigmoid(logits) * (1 - score) ** 2 * (wanted.heat == 1)
    wrong = functional.logsigmoid(-logits) * score**2 * (1 - wanted.heat) ** 4
    centres = -(right + wrong).sum() / max(wanted.objects, 1)
    picture, kind, row, column = wanted.cell
    sides = reach[picture, kind, :, row, column]
    x, y = (column + 0.5) * STRIDE, (row + 0.5) * STRIDE
    given = torch.stack([x - sides[:, 0], y - sides[:, 1], x + sides[:, 2], y + sides[:, 3]], 1)
    first = _mean(1 - giou(given, wanted.boxes), wanted.weight)
    near = wanted.near >= NEAR
    boxes, weight = wanted.boxes[near], wanted.weight[near]
    moved, fits = edges(features, picture[near], kind[near], given[near])
    second = _mean(1 - giou(moved, boxes), weight)
    fit = functional.binary_cross_entropy_with_logits(fits, iou(moved.detach(), boxes), reduction="none")
    return centres, first + second + FIT_WEIGHT * _mean(fit, weight)


def _mean(loss: Tensor, weight: Tensor) -> Tensor:
    return (loss * weight).sum() / weight.sum().clamp(min=1e-6)


def iou(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of boxes pair by pair, 0 to 1."""
    shared, union, _ = _overlap(one, other)
    return shared / union.clamp(min=1e-6)


def giou(one: Tensor, other: Tensor) -> Tensor:
    """Generalised intersection over union of boxes pair by pair, -1 to 1."""
    shared, union, hull = _overlap(one, other)
    return shared / union.clamp(min=1e-6) - (hull - union) / hull.clamp(min=1e-6)


def _overlap(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Areas of what two boxes share, of both together and of the smallest box around them."""
    low, high = torch.maximum(one[:, :2], other[:, :2]), torch.minimum(one[:, 2:], other[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    union = (one[:, 2:] - one[:, :2]).prod(1) + (other[:, 2:] - other[:, :2]).prod(1) - shared
    hull = (torch.maximum(one[:, 2:], other[:, 2:]) - torch.minimum(one[:, :2], other[:, :2])).prod(1)
    return shared, union, hull
