"""The embedder: a picture becomes one unit vector, of which parts tell colour and attributes, and its attributes.

The vector is [sqrt(1 - v - w) shape, sqrt(v) told, sqrt(w) colour] of unit vectors, so that one dot product is the
weighted mean of the cosines, and an index needs to know nothing of it. ``told`` are the square roots of the
attributes' probabilities in fixed directions, whose dot product is how far two pictures are believed to share them
(Bhattacharyya): a picture between two types lies near its more probable one, which shape alone does not promise.

Belongs here: the network. Does not belong here: its trunk (`trunk.py`, `hub.py`), losses, training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.visual.colour import ColourDescriptor
from training.visual.trunk import MEAN, SCALE

HIDDEN = 128
FIRST_SHARE, FIRST_TOLD = 0.3, 0.2
HEAD, WAY = "head_", "way_"
"""Before the name of a head and of its directions: modules have methods called ``type`` and the like."""


class Parts(NamedTuple):
    """What the network makes of pictures.

    Attributes:
        shape: Unit vectors float[B, dim - colour_dim - told_dim].
        told: Unit vectors float[B, told_dim], without a gradient.
        colour: Unit vectors float[B, colour_dim].
        attributes: Logits float[B, values] by name.
    """

    shape: Tensor
    told: Tensor
    colour: Tensor
    attributes: dict[str, Tensor]


class GeM(nn.Module):
    """Generalised mean over places, with the exponent 3 (Radenovic et al. 2019)."""

    def forward(self, features: Tensor) -> Tensor:
        """Not negative float[B, C, H, W] to float[B, C]."""
        return ((features * features * features).mean((2, 3)) + 1e-6).pow(1.0 / 3.0)


class Embedder(nn.Module):
    """Trunk, pooling, the two parts of the vector, attribute heads.

    Args:
        trunk: Gives maps of stride 16 and 32; see `trunk.Lite`.
        dim: Width of the vector.
        colour_dim: How much of it tells colour.
        attributes: Number of values by attribute.
        dropout: Of pooled features while training.
        told: Attributes that the vector tells, none for no such part.
        told_dim: How much of it tells them.
        told_weights: How much each of ``told`` counts there; empty for all alike.
    """

    share: Tensor
    told_share: Tensor

    def __init__(
        self, trunk: nn.Module, dim: int, colour_dim: int, attributes: Mapping[str, int], dropout: float = 0.0,
        told: Sequence[str] = (), told_dim: int = 0, told_weights: Sequence[float] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        self.trunk = trunk
        width, middle = int(trunk.width), int(trunk.middle_width)  # type: ignore[arg-type]
        self.pool = GeM()
        self.dropout = nn.Dropout(dropout)
        self.told, told_dim = tuple(told), told_dim if told else 0
        self.shape = nn.Linear(width, dim - colour_dim - told_dim)
        self.colour_dim = colour_dim
        if colour_dim:
            self.seen = ColourDescriptor(middle)
            self.context = nn.Linear(width, HIDDEN // 2)
            self.colour = nn.Sequential(
                nn.Linear(self.seen.width + HIDDEN // 2, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, colour_dim)
            )
        self.heads = nn.ModuleDict(
            {f"{HEAD}{name}": nn.Linear(width + colour_dim, values) for name, values in attributes.items()}
        )
        for name, way in ways(self.told, told_weights, attributes, told_dim).items():
            self.register_buffer(f"{WAY}{name}", way)
        self.register_buffer("share", torch.tensor(FIRST_SHARE if colour_dim else 0.0))
        self.register_buffer("told_share", torch.tensor(FIRST_TOLD if told else 0.0))

    @property
    def attributes(self) -> list[str]:
        """Names of the heads, in the order of the outputs."""
        return sorted(name.removeprefix(HEAD) for name in self.heads)

    def parts(self, rgb: Tensor, half: Tensor, full: Tensor) -> Parts:
        """From pictures float[B, 3, S, S] in 0..1 and the trunk's two maps to what is made of them."""
        pooled = self.dropout(self.pool(full))
        shape = nn.functional.normalize(self.shape(pooled), dim=-1)
        if self.colour_dim:
            seen = torch.cat([self.seen(rgb, half), nn.functional.relu(self.context(pooled))], 1)
            colour = nn.functional.normalize(self.colour(seen), dim=-1)
        else:
            colour = shape[:, :0]
        both = torch.cat([pooled, colour], 1)
        attributes = {n.removeprefix(HEAD): h(both) for n, h in self.heads.items()}
        told = shape[:, :0]
        if self.told:
            roots = [
                (0.5 * attributes[name].detach().log_softmax(-1)).exp() @ self.get_buffer(f"{WAY}{name}")
                for name in self.told
            ]
            told = nn.functional.normalize(torch.stack(roots).sum(0), dim=-1)
        return Parts(shape, told, colour, attributes)

    def join(self, parts: Parts) -> Tensor:
        """One unit vector float[B, dim] of all parts."""
        return join(parts, self.share, self.told_share)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """uint8[B, S, S, 3] to unit vectors float[B, dim] and each attribute's logits, in order of their names."""
        values = pixels.permute(0, 3, 1, 2).to(torch.float32)
        half, full = self.trunk((values - MEAN) / SCALE)
        parts = self.parts(values / 255.0, half, full)
        return (self.join(parts), *(parts.attributes[name] for name in self.attributes))


def join(parts: Parts, share: Tensor, told_share: Tensor) -> Tensor:
    """Put all parts into one unit vector, see the module's text."""
    shape = torch.sqrt(1 - share - told_share) * parts.shape
    return torch.cat([shape, torch.sqrt(told_share) * parts.told, torch.sqrt(share) * parts.colour], 1)


def ways(
    told: Sequence[str], weights: Sequence[float], values: Mapping[str, int], width: int
) -> dict[str, Tensor]:
    """How each attribute is told: `directions` of its values, float[values, width], times its weight (1 without any)."""
    given = weights or [1.0] * len(told)
    return {name: weight * directions(values[name], width) for name, weight in zip(told, given, strict=True)}


def directions(values: int, width: int) -> Tensor:
    """Fixed unit vectors float[values, width], as far apart as chance makes them (the same at every call)."""
    drawn = torch.randn(values, width, generator=torch.Generator().manual_seed(values))
    return nn.functional.normalize(drawn, dim=-1)
