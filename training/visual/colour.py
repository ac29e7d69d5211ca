"""Colour that is really seen: a soft histogram of the pixels that belong to the item.

A trunk trained on objects forgets colour. Here every pixel (of a map a quarter as large) votes for the nearest of
some learned colours, and votes count as much as a learned attention map says the place belongs to the item, so
that walls, skin and grey borders count little. All of it is in the graph and learned with the rest.

Belongs here: the descriptor. Does not belong here: what is made of it (`embedder_model.py`).
"""

from __future__ import annotations

import colorsys

import torch
from torch import Tensor, nn

POOL = 4
"""Pixels are averaged over squares of this side."""

ATTENTION_STRIDE = 16
SOFTNESS = 0.012
"""First width of a colour's neighbourhood: squared distance at which a vote falls to 1 / e."""


def palette() -> Tensor:
    """First colours, float[K, 3] in `opponent` space: greys, and each of 12 hues light, vivid, dull and dark."""
    greys = [(level, level, level) for level in (0.03, 0.15, 0.28, 0.42, 0.56, 0.7, 0.84, 0.97)]
    shades = ((0.35, 0.95), (0.9, 0.85), (0.45, 0.6), (0.8, 0.4))
    hues = [
        colorsys.hsv_to_rgb(hue / 12, saturation, value) for hue in range(12) for saturation, value in shades
    ]
    return opponent(torch.tensor([*greys, *hues]).T[None, :, :, None])[0, :, :, 0].T.contiguous()


def opponent(rgb: Tensor) -> Tensor:
    """Lightness, red-green and blue-yellow of float[B, 3, H, W] in 0..1; distances there are roughly perceived ones."""
    red, green, blue = rgb.unbind(1)
    return torch.stack(
        [0.3 * red + 0.59 * green + 0.11 * blue, 0.9 * (red - green), 0.6 * (blue - 0.5 * (red + green))], 1
    )


class ColourDescriptor(nn.Module):
    """Soft histogram over learned colours.

    Args:
        width: Channels of the map that says where the item is.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.colours = nn.Parameter(palette())
        self.sharpness = nn.Parameter(torch.tensor(1.0 / SOFTNESS).log())
        self.attention = nn.Conv2d(width, 1, 1)
        nn.init.zeros_(self.attention.weight)
        nn.init.zeros_(self.attention.bias)

    @property
    def width(self) -> int:
        """How many numbers describe a picture."""
        return int(self.colours.shape[0])

    def forward(self, rgb: Tensor, features: Tensor) -> Tensor:
        """Describe pictures.

        Args:
            rgb: float[B, 3, S, S] in 0..1.
            features: float[B, C, S / 16, S / 16].

        Returns:
            float[B, K], not negative; its square sums to 1.
        """
        pixels = opponent(nn.functional.avg_pool2d(rgb, POOL)).flatten(2).transpose(1, 2)
        places = self.attention(features)
        places = nn.functional.interpolate(
            places, scale_factor=float(ATTENTION_STRIDE // POOL), mode="nearest"
        )
        weight = places.flatten(1).softmax(-1)
        colours = self.colours
        # |x - c|^2 without |x|^2, which softmax does not see.
        near = 2 * pixels @ colours.T - colours.square().sum(-1)
        votes = (near * self.sharpness.exp()).softmax(-1)
        histogram = (weight.unsqueeze(1) @ votes).squeeze(1)
        return torch.sqrt(histogram + 1e-6)
