"""Random views of pictures, as one operation on a batch.

Colours are changed little: a shade is a label. Beyond the edge of a picture there is the grey of letterboxes.

Belongs here: geometry and light. Does not belong here: how strong they are (`config.py`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from contracts.visual import GREY

LARGEST_TURN = math.radians(12)
LARGEST_SHAPE = math.log(1.2)
ERASED = 0.25
"""Share of pictures in which a rectangle is hidden."""


def views(pictures: Tensor, size: int, crop: float, jitter: Tensor, generator: torch.Generator) -> Tensor:
    """Cut, turn, mirror and light each picture at random.

    Args:
        pictures: uint8[B, S, S, 3].
        size: Side of the views.
        crop: Smallest share of a picture that is kept.
        jitter: float[B], strength of light changes.
        generator: Of all randomness.

    Returns:
        float32[B, 3, size, size] in 0..255.
    """
    count = len(pictures)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    side = torch.sqrt(uniform(crop, 1.15))
    shape = torch.exp(uniform(-LARGEST_SHAPE, LARGEST_SHAPE) / 2)
    turn, flip = uniform(-LARGEST_TURN, LARGEST_TURN), torch.sign(uniform(-1, 1))
    room = (1 - side).abs()
    across, down = room * uniform(-1, 1), room * uniform(-1, 1)
    cosine, sine = torch.cos(turn), torch.sin(turn)
    rows = [
        torch.stack([side * shape * cosine * flip, -side * shape * sine, across], 1),
        torch.stack([side / shape * sine * flip, side / shape * cosine, down], 1),
    ]
    grid = nn.functional.affine_grid(torch.stack(rows, 1), [count, 3, size, size], align_corners=False)
    values = pictures.permute(0, 3, 1, 2).float().contiguous() - GREY
    values = nn.functional.grid_sample(values, grid, padding_mode="zeros", align_corners=False) + GREY
    return _erase(_light(values, jitter, generator), generator)


def _light(values: Tensor, jitter: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, contrast and temperature of each picture."""
    count = len(values)

    def around(width: float) -> Tensor:
        return jitter * width * (2 * torch.rand(count, generator=generator) - 1)

    warm, tint = around(0.35), around(0.15)
    gain = torch.exp(around(1.0))[:, None] * torch.exp(torch.stack([warm, tint, -warm], 1))
    contrast = torch.exp(around(1.0))[:, None, None, None]
    middle = values.mean((1, 2, 3), keepdim=True)
    return (((values - middle) * contrast + middle) * gain[:, :, None, None]).clamp(0, 255)


def _erase(values: Tensor, generator: torch.Generator) -> Tensor:
    """Hide a rectangle of at most a third of each side in some pictures (Zhong et al. 2017)."""
    count, size = len(values), values.shape[-1]
    low, extent = torch.rand(count, 2, generator=generator), torch.rand(count, 2, generator=generator) / 3
    extent = extent * (torch.rand(count, 1, generator=generator) < ERASED)
    place = (torch.arange(size) + 0.5) / size
    inside = [(place >= low[:, at, None]) & (place < (low + extent)[:, at, None]) for at in (0, 1)]
    hidden = inside[0][:, :, None] & inside[1][:, None, :]
    return values.masked_fill(hidden[:, None], float(GREY))
