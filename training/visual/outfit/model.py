"""The outfit network: a set of items and the slot that is missing to a point where what fits lies near.

The recipe is OutfitTransformer's (Sarkar et al. 2022): tokens of the items and one of the target slot, attention, the
target's token as the query. With few looks a linear model over pairs of slots is hard to beat (as in Vasileva et al.
2018), so it is the trunk here and the transformer learns what it misses, from nothing. Several such members, each
with its own chance, are laid side by side: their points are joined, so the dot product is their mean.

Belongs here: the network. Does not belong here: its loss (`learn.py`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Self-attention with padding, written out so that the graph keeps batch and length open."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.each = heads, width // heads
        self.ask, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """[B, T, width], and [B, T] True where nobody looks."""

        def split(y: Tensor) -> Tensor:
            return y.unflatten(2, (self.heads, self.each)).transpose(1, 2)

        weights = split(self.ask(x)) @ split(self.key(x)).transpose(2, 3) / self.each**0.5
        weights = weights.masked_fill(hidden[:, None, None, :], -1e9).softmax(3)
        return self.out((weights @ split(self.value(x))).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention, self.dropout = Attention(width, heads), nn.Dropout(dropout)
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """[B, T, width] to the same."""
        x = x + self.dropout(self.attention(self.before(x), hidden))
        return x + self.dropout(self.feed(self.between(x)))


class Member(nn.Module):
    """One model.

    Args:
        given: Width d of the items' vectors.
        slots: Number of slots; 0 stands for padding.
        dim: Width of its points.
        width: Of the transformer.
        layers: Of the same; 0 leaves the linear model alone.
        heads: Of attention.
        dropout: Of vectors and of blocks' outputs.
    """

    def __init__(
        self, given: int, slots: int, dim: int, width: int, layers: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.item = nn.Linear(given, dim, bias=False)
        self.give = nn.Linear(given, dim, bias=False)
        self.own = nn.Embedding(slots + 1, dim)
        self.pair = nn.Embedding((slots + 1) ** 2, dim)
        self.shift = nn.Embedding((slots + 1) ** 2, dim)
        self.slots = slots
        for embedding, value in ((self.own, 1.0), (self.pair, 1.0), (self.shift, 0.0)):
            nn.init.constant_(embedding.weight, value)
        self.layers = layers
        if layers:
            self.token, self.slot = nn.Linear(given, width), nn.Embedding(slots + 1, width)
            self.wanted = nn.Embedding(slots + 1, width)
            self.blocks = nn.ModuleList([Block(width, heads, dropout) for _ in range(layers)])
            self.norm, self.point = nn.LayerNorm(width), nn.Linear(width, dim)
            nn.init.zeros_(self.point.weight)
            nn.init.zeros_(self.point.bias)

    def project(self, vectors: Tensor, types: Tensor) -> Tensor:
        """Items [..., d] of slots [...] to unit points [..., dim]."""
        return functional.normalize(self.item(self.dropout(vectors)) * self.own(types), dim=-1)

    def ask(self, vectors: Tensor, types: Tensor, target: Tensor) -> Tensor:
        """Sets [B, N, d] of slots [B, N] and the slots [B] that are missing to unit points [B, dim]."""
        there = (types > 0).to(vectors.dtype)[..., None]
        seen = self.dropout(vectors)
        pairs = types * (self.slots + 1) + target[:, None]
        given = functional.normalize(self.give(seen) * self.pair(pairs) + self.shift(pairs), dim=-1)
        point = (given * there).sum(1) / there.sum(1).clamp(min=1.0)
        if self.layers:
            tokens = self.token(seen) + self.slot(types)
            x = torch.cat([self.wanted(target)[:, None], tokens], 1)
            hidden = torch.cat([torch.zeros_like(target[:, None], dtype=torch.bool), types == 0], 1)
            for block in self.blocks:
                x = block(x, hidden)
            point = point + self.point(self.norm(x[:, 0]))
        return functional.normalize(point, dim=-1)


class Outfit(nn.Module):
    """Members side by side.

    Args:
        members: How many.
        given: See `Member`.
        slots: The same, as are the rest.
    """

    def __init__(
        self,
        members: int,
        given: int,
        slots: int,
        dim: int,
        width: int,
        layers: int,
        heads: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(
            [Member(given, slots, dim, width, layers, heads, dropout) for _ in range(members)]
        )
        self.register_buffer("middle", torch.zeros(given))
        self.register_buffer("whiten", torch.eye(given))
        self.dim = members * dim

    def prepare(self, vectors: Tensor) -> Tensor:
        """Vectors centred and whitened."""
        return (vectors - self.middle) @ self.whiten

    def query(self, vectors: Tensor, types: Tensor, target: Tensor) -> Tensor:
        """The point [B, p] where the missing item should lie, see `Member.ask`."""
        ready = self.prepare(vectors)
        joined = torch.cat([member.ask(ready, types, target) for member in self.members], 1)
        return joined / len(self.members) ** 0.5

    def project(self, vectors: Tensor, types: Tensor) -> Tensor:
        """Points of items [B, p]; a query's dot product with one is how well it fits, -1 to 1."""
        ready = self.prepare(vectors)
        joined = torch.cat([member.project(ready, types) for member in self.members], -1)
        return joined / len(self.members) ** 0.5

    def compatibility(self, vectors: Tensor, types: Tensor) -> Tensor:
        """How well sets [B, N, d] fit as a whole [B]: the mean fit of each item to the rest; 0 for a single item."""
        there = types > 0
        count = types.shape[1]
        rest = types[:, None, :] * (1 - torch.eye(count, dtype=types.dtype, device=types.device))
        many = vectors[:, None].expand(-1, count, -1, -1).flatten(0, 1)
        asked = self.query(many, rest.flatten(0, 1), types.flatten())
        fits = (asked * self.project(vectors, types).flatten(0, 1)).sum(1).unflatten(0, (-1, count))
        counted = (there & (rest > 0).any(2)).to(fits.dtype)
        return (fits * counted).sum(1) / counted.sum(1).clamp(min=1.0)
