"""The detector's network: trunk, pyramid, heads, and the peaks that are its answer.

Belongs here: from pixels to boxes with scores. Does not belong here: losses (`loss.py`), files (`export.py`).
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from training.visual.detector.edges import Edges
from training.visual.detector.trunk import Levels, Plain
from training.visual.trunk import MEAN, SCALE

STRIDE = 8
PEAKS = 100
"""Boxes per picture that the graph returns."""

FIT_SHARE = 0.5
"""Share of how well a box fits in its score, the rest is the height of its peak (their weighted geometric mean)."""


class Network(nn.Module):
    """Heat-map of centres and a box for each class at each cell.

    Boxes belong to classes since garments lie over one another: a coat and the blouse under it share a centre.
    Coordinates are given to the pyramid because people in photos stand upright: hats are above shoes.

    Args:
        trunk: Features at strides 8, 16 and 32.
        classes: Number of classes C.
        size: Side of the square in pixels; coordinates are fractions of it.
        width: Channels of pyramid and heads.
    """

    def __init__(self, trunk: Levels | Plain, classes: int, size: int, width: int = 96) -> None:
        super().__init__()
        self.trunk, self.classes, self.size = trunk, classes, size
        self.side = nn.ModuleList([nn.Conv2d(channels + 2, width, 1) for channels in trunk.channels])
        self.smooth = nn.ModuleList([_conv(width) for _ in range(2)])
        self.edges = Edges(width, classes, STRIDE)
        self.heat = nn.Sequential(_conv(width), nn.Conv2d(width, classes, 1))
        self.reach = nn.Sequential(_conv(width), nn.Conv2d(width, 4 * classes, 1))
        nn.init.normal_(self.heat[1].weight, std=0.01)
        nn.init.constant_(self.heat[1].bias, -math.log(99))
        nn.init.normal_(self.reach[1].weight, std=0.01)
        nn.init.constant_(self.reach[1].bias, math.log(4))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Find centres.

        Args:
            pixels: uint8 ``[B, H, W, 3]``, sides multiples of 32.

        Returns:
            Logits ``[B, C, H/8, W/8]``, distances in pixels from the cell's middle to left, top, right and
            bottom ``[B, C, 4, H/8, W/8]``, and the features that `Edges` looks at ``[B, width, H/8, W/8]``.
        """
        x = (pixels.permute(0, 3, 1, 2).to(torch.float32) - MEAN) / SCALE
        # channels last in memory: three times faster on CPU
        levels = self.trunk(x.contiguous(memory_format=torch.channels_last))
        p3, p4, p5 = (
            side(torch.cat([level, self._places(level, STRIDE * 2**number)], dim=1))
            for number, (side, level) in enumerate(zip(self.side, levels, strict=True))
        )
        p4 = self.smooth[0](
            functional.relu(p4 + functional.interpolate(p5, scale_factor=2.0, mode="nearest"))
        )
        p3 = self.smooth[1](
            functional.relu(p3 + functional.interpolate(p4, scale_factor=2.0, mode="nearest"))
        )
        logits = self.heat(p3)
        reach = torch.exp(self.reach(p3).clamp(max=5.0)) * STRIDE
        return logits, reach.unflatten(1, (self.classes, 4)), p3

    def _places(self, level: Tensor, stride: int) -> Tensor:
        """Coordinates of a level's cells, ``[B, 2, h, w]``, -1 to 1 over the square."""
        height, width = level.shape[2:]
        y = (torch.arange(height, device=level.device, dtype=level.dtype) + 0.5) * (
            2 * stride / self.size
        ) - 1
        x = (torch.arange(width, device=level.device, dtype=level.dtype) + 0.5) * (2 * stride / self.size) - 1
        grid = torch.stack([x[None, :].expand(height, width), y[:, None].expand(height, width)])
        return grid[None].expand(level.shape[0], -1, -1, -1)


def _conv(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


def without_norms(network: Network) -> Network:
    """A copy in evaluation mode whose batch norms are part of the convolutions before them."""
    plain = copy.deepcopy(network).eval()
    for module in plain.modules():
        if isinstance(module, nn.Sequential):
            for place in range(len(module) - 1):
                conv, norm = module[place], module[place + 1]
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    module[place], module[place + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return plain


class Peaks(nn.Module):
    """The network with its peaks picked: what is exported."""

    def __init__(self, network: Network, count: int = PEAKS) -> None:
        super().__init__()
        self.network, self.count = network, count

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes of a batch of squares.

        Args:
            pixels: uint8 ``[B, S, S, 3]``.

        Returns:
            ``boxes`` float32 ``[B, K, 4]`` as fractions of the square, ``scores`` float32 ``[B, K]``
            descending, ``classes`` int64 ``[B, K]``.
        """
        logits, reach, features = self.network(pixels)
        return pick(logits, reach, features, self.network.edges, self.count, self.network.size)


def pick(
    logits: Tensor, reach: Tensor, features: Tensor, edges: Edges, count: int, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The highest peaks of heat-maps and their boxes, looked at again; see `Peaks.forward`."""
    heat = torch.sigmoid(logits)
    heat = heat * (heat == functional.max_pool2d(heat, 3, 1, 1))
    height, width = logits.shape[2:]
    heights, places = heat.flatten(1).topk(count, dim=1)
    classes = torch.div(places, height * width, rounding_mode="floor")
    cell = places - classes * (height * width)
    row = torch.div(cell, width, rounding_mode="floor")
    y = (row.to(reach.dtype) + 0.5) * STRIDE
    x = ((cell - row * width).to(reach.dtype) + 0.5) * STRIDE
    sides = reach.transpose(1, 2).flatten(2)
    left, top, right, bottom = (sides[:, side].gather(1, places) for side in range(4))
    boxes = torch.stack([x - left, y - top, x + right, y + bottom], dim=2)
    picture = torch.arange(logits.shape[0], device=logits.device)[:, None].expand_as(places)
    moved, fits = edges(features, picture.flatten(), classes.flatten(), boxes.flatten(0, 1))
    fit = torch.sigmoid(fits).view_as(heights)
    scores, order = (heights ** (1 - FIT_SHARE) * fit**FIT_SHARE).sort(dim=1, descending=True)
    boxes = moved.view_as(boxes).gather(1, order[:, :, None].expand_as(boxes)) / size
    return boxes.clamp(0.0, 1.0), scores, classes.gather(1, order)
