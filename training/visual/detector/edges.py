"""A second look at a box: what lies along its four sides says how far each of them is off.

A cell in the middle of a garment has to guess where it ends; features taken along the guessed sides see whether
they are there (border features, BorderDet, arXiv 2007.11056; a box refined once and a score that tells how well it
fits, VarifocalNet, arXiv 2008.13367). In the graph it looks at the peaks only.

Belongs here: sampling, moving sides, how well a box fits. Does not belong here: losses (`loss.py`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

ALONG = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Where along a side, as a share of it."""

ACROSS = (-0.2, -0.1, 0.0, 0.1, 0.2)
"""How far outside, as a share of the box's extent that way; the largest is also the farthest that a side moves."""


class Edges(nn.Module):
    """Moves the sides of boxes.

    Of each side, the strongest answer along it is taken at each distance from it, so that one button or hem is enough.

    Args:
        width: Channels of the features.
        classes: Number of classes.
        stride: Pixels between cells of the features.
        channels: That are looked at.
        hidden: Of what decides.
    """

    places: Tensor

    def __init__(self, width: int, classes: int, stride: int, channels: int = 48, hidden: int = 64) -> None:
        super().__init__()
        self.stride = stride
        self.seen = nn.Conv2d(width, channels, 1)
        self.register_buffer("places", _places(), persistent=False)
        self.side = nn.Parameter(torch.empty(4, channels * len(ACROSS), hidden))
        self.middle = nn.Linear(channels, 4 * hidden)
        self.kind = nn.Embedding(classes, 4 * hidden)
        self.size = nn.Linear(2, 4 * hidden)
        self.move = nn.Parameter(torch.zeros(4, hidden))
        self.fits = nn.Linear(4 * hidden, 1)
        nn.init.normal_(self.side, std=(2.0 / self.side.shape[1]) ** 0.5)
        nn.init.normal_(self.kind.weight, std=0.1)

    def forward(
        self, features: Tensor, picture: Tensor, kind: Tensor, boxes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Look at boxes.

        Args:
            features: float[B, width, h, w].
            picture: int64[N], which of them each box is in.
            kind: int64[N] classes.
            boxes: float[N, 4] left, top, right, bottom in pixels; no gradient flows into them.

        Returns:
            The moved boxes float[N, 4], and logits float[N] of how much of box and object is shared.
        """
        boxes = boxes.detach()
        low, extent = boxes[:, None, :2], (boxes[:, None, 2:] - boxes[:, None, :2]).clamp(min=1.0)
        spots = low + self.places * extent  # [N, 4 * across * along + 1, 2]
        found = sample(functional.relu(self.seen(features)), picture, spots / self.stride)
        sides = found[:, :-1].unflatten(1, (4, len(ACROSS), len(ALONG))).amax(3).flatten(2)
        size = torch.log(extent[:, 0] / (8 * self.stride))
        rest = self.middle(found[:, -1]) + self.kind(kind) + self.size(size)
        # [4, N, hidden]
        hidden = torch.bmm(sides.transpose(0, 1), self.side) + rest.unflatten(1, (4, -1)).transpose(0, 1)
        hidden = functional.relu(hidden).transpose(0, 1)
        moved = ACROSS[-1] * torch.tanh((hidden * self.move).sum(2))
        moved = moved * extent.repeat(1, 1, 2)[:, 0]
        return boxes + moved, self.fits(hidden.flatten(1))[:, 0]


def _places() -> Tensor:
    """Where to look in a box of side 1: float[4 * across * along + 1, 2] of x and y, its middle last."""
    along, across = torch.tensor(ALONG), torch.tensor(ACROSS)
    far, near = torch.meshgrid(across, along, indexing="ij")
    sides = [torch.stack(pair, 2) for pair in ((-far, near), (near, -far), (1 + far, near), (near, 1 + far))]
    return torch.cat([torch.stack(sides).flatten(0, 2), torch.tensor([[0.5, 0.5]])])


def sample(features: Tensor, picture: Tensor, spots: Tensor) -> Tensor:
    """Features between cells, weighed by nearness (bilinear); outside, those of the border.

    Args:
        features: float[B, C, h, w].
        picture: int64[N].
        spots: float[N, P, 2] of x and y in cells; the first cell's middle is at 0.5.

    Returns:
        float[N, P, C].
    """
    height, width = features.shape[2], features.shape[3]
    table = features.permute(0, 2, 3, 1).flatten(0, 2)
    x = (spots[..., 0] - 0.5).clamp(min=0.0, max=float(width - 1))
    y = (spots[..., 1] - 0.5).clamp(min=0.0, max=float(height - 1))
    left, top = torch.floor(x), torch.floor(y)
    right_share, bottom_share = (x - left)[..., None], (y - top)[..., None]
    column, row = left.to(torch.int64), top.to(torch.int64)
    next_column, next_row = (column + 1).clamp(max=width - 1), (row + 1).clamp(max=height - 1)
    base = (picture * (height * width))[:, None]

    def at(row: Tensor, column: Tensor) -> Tensor:
        return functional.embedding(base + row * width + column, table)

    upper = at(row, column) * (1 - right_share) + at(row, next_column) * right_share
    lower = at(next_row, column) * (1 - right_share) + at(next_row, next_column) * right_share
    return upper * (1 - bottom_share) + lower * bottom_share
