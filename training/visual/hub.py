"""Image encoders of the Hugging Face hub as trunks, by name: for example ``hub:Marqo/marqo-fashionSigLIP``.

Weights are fetched by the optional package `transformers`; a folder on disk works like a name. What encoders
give per patch becomes one map that serves as both of the embedder's.

Belongs here: loading, from patches to maps. Does not belong here: training.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn

from training.config import ConfigError
from training.visual.trunk import MEAN, SCALE


class HubTrunk(nn.Module):
    """A vision transformer of the hub with the interface of `trunk.Lite`.

    Args:
        encoder: Gives ``last_hidden_state`` float[B, tokens, width] of ``pixel_values``.
        width: Of a token.
        grid: Patches along a side; further tokens before them (a class token) are dropped.
        mean: Of the encoder's own normalisation, per channel in 0..1.
        std: The same.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, encoder: nn.Module, width: int, grid: int, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.encoder, self.grid = encoder, grid
        self.width = self.middle_width = width
        self.norm = nn.LayerNorm(width)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """float[B, 3, S, S], normalised as for `trunk.Lite`, to float[B, width, S / 16, S / 16] twice."""
        values = (pixels * SCALE + MEAN) / 255.0
        tokens = self.encoder(pixel_values=(values - self.mean) / self.std).last_hidden_state
        tokens = self.norm(tokens[:, -self.grid * self.grid :])
        features = tokens.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        wanted = pixels.shape[-1] // 16
        features = nn.functional.interpolate(features, size=(wanted, wanted), mode="nearest")
        return features, nn.functional.relu(features)


def make_hub_trunk(name: str, size: int) -> HubTrunk:
    """Load an image encoder.

    Args:
        name: Of the hub, or a folder.
        size: Pixels a side that it will be given.

    Raises:
        ConfigError: `transformers` is not installed, there is no such model, it has no vision part, or it
            reads pictures of another size.
    """
    try:
        hub: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise ConfigError(
            f"`$.params.trunk` is 'hub:{name}', which needs the package transformers; expected it, or 'lite0'"
        ) from error
    try:
        whole = hub.AutoModel.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"`$.params.trunk` is 'hub:{name}', which cannot be loaded: {error}; expected a model of the hub"
        ) from error
    encoder = getattr(whole, "vision_model", whole)
    config = getattr(whole.config, "vision_config", whole.config)
    if not hasattr(config, "patch_size") or not hasattr(config, "image_size"):
        raise ConfigError(
            f"`$.params.trunk` is 'hub:{name}'; expected a vision transformer that reads patches"
        )
    if config.image_size != size:
        raise ConfigError(f"`$.params.size` is {size}; expected {config.image_size}, which hub:{name} reads")
    mean, std = _normalisation(hub, name)
    return HubTrunk(encoder, config.hidden_size, size // config.patch_size, mean, std)


def _normalisation(hub: Any, name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation that the encoder was trained with; halves where it does not say."""
    try:
        told, _ = hub.ImageProcessingMixin.get_image_processor_dict(name)
    except (OSError, ValueError):
        told = {}
    half = (0.5, 0.5, 0.5)
    return tuple(told.get("image_mean") or half), tuple(told.get("image_std") or half)
