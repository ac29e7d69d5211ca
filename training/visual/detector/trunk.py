"""Trunks of the detector: what turns a picture into features at strides 8, 16 and 32.

Belongs here: the convolutions and their start. Does not belong here: the pyramid and the heads (`network.py`).
"""

from __future__ import annotations

from torch import Tensor, nn

from training.config import ConfigError
from training.visual.trunk import VARIANTS, folded, make_trunk

TRUNKS = (*VARIANTS, "plain")


class Levels(nn.Module):
    """EfficientNet-Lite without its head, batch norms folded, so that fine-tuning on few pictures keeps its scale.

    The parts up to stride 8 keep their weights: edges and textures are the same in any photo.
    """

    def __init__(self, variant: str, weights: str) -> None:
        super().__init__()
        lite = folded(make_trunk(weights, variant))
        self.ends, self.channels = lite.ends, lite.channels
        self.parts = nn.ModuleList(lite.parts[: self.ends[-1] + 1])
        self.frozen = self.ends[0] + 1
        for part in self.parts[: self.frozen]:
            part.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, 3, H, W] to features at strides 8, 16 and 32."""
        kept = []
        for number, part in enumerate(self.parts):
            x = part(x)
            if number in self.ends:
                kept.append(x)
        return kept[0], kept[1], kept[2]


class Plain(nn.Module):
    """Plain 3x3 convolutions with batch normalisation, for drawings: learned from nothing, fast as int8."""

    channels = (64, 96, 128)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(_step(3, 16, 2), _step(16, 32, 2), _step(32, 64, 2), _step(64, 64, 1))
        self.second = nn.Sequential(_step(64, 96, 2), _step(96, 96, 1))
        self.third = nn.Sequential(_step(96, 128, 2), _step(128, 128, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, 3, H, W] to features at strides 8, 16 and 32."""
        first = self.first(x)
        second = self.second(first)
        return first, second, self.third(second)


def _step(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def open_trunk(name: str, weights: str = "imagenet") -> Levels | Plain:
    """A trunk by name.

    Args:
        name: One of TRUNKS.
        weights: What a lite one begins with, see `trunk.make_trunk`.

    Raises:
        ConfigError: No such trunk, or its weights are missing.
    """
    if name == "plain":
        return Plain()
    if name in VARIANTS:
        return Levels(name, weights)
    raise ConfigError(f"`$.params.trunk` is {name!r}; expected one of: {', '.join(TRUNKS)}")
