"""Several encoders that were trained alike from other seeds, as one: on few sessions each learns other chances by heart.

Their item vectors lie side by side, and so do their states, each over the number of members: the dot product is then the
mean of the members' scores, and whatever reads an encoder (export, servers of large catalogues) reads this one too. The
pointer is the mean of theirs. Means of log-probabilities are a product of experts (Hinton 2002), which on ranking does
as well as averaging probabilities and needs no sum over the catalogue.

Belongs here: how members are put together. Does not belong here: training them (`fit.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from training.continuum.memory import Memory
from training.continuum.model import Encoder, ItemTable, Readout


class Together(nn.Module):
    """The item tables of all members, side by side; see `ItemTable`."""

    trend: Tensor

    def __init__(self, tables: Sequence[ItemTable]):
        super().__init__()
        self.tables = nn.ModuleList(tables)
        self.rows, self.cold = tables[0].rows, tables[0].cold
        self.register_buffer("trend", torch.zeros(self.rows))

    def forward(self, ids: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Vectors float[..., members * d]."""
        return torch.cat([table(ids, hidden) for table in self.tables], dim=-1)

    def bias(self, ids: Tensor, hidden: Tensor | None = None) -> Tensor:
        """The mean of the members' popularity terms, float[...]."""
        tables = cast(Iterable[ItemTable], self.tables)
        return torch.stack([table.bias(ids, hidden) for table in tables]).mean(0) + self.trend[ids]


class Ensemble(Encoder):
    """Trained encoders of one vocabulary and one config as one encoder, for answering only.

    Args:
        members: At least one, none with a filled memory: the whole has one of its own.
    """

    def __init__(self, members: Sequence[Encoder]):
        nn.Module.__init__(self)
        first = members[0]
        self.params, self.request = first.params, first.request
        self.members = nn.ModuleList(members)
        self.items = Together([member.items for member in members])  # type: ignore[assignment]
        self.memory = None
        if first.memory is not None:
            self.memory = Memory(first.items.rows - 1, first.params.memory)
        for name in ("action_head", "channel_head", "buy_head"):
            setattr(self, name, _side_by_side([getattr(member, name) for member in members]))
        self.avoid_head = _diagonal([member.avoid_head for member in members])

    def read_vectors(self, vectors: Tensor, action: Tensor, channel: Tensor, age: Tensor) -> Readout:
        """What the members say at one request per customer; see `Encoder.read_vectors`."""
        parts, members = vectors.chunk(len(self.members), dim=-1), cast(Iterable[Encoder], self.members)
        found = [
            member.read_vectors(part, action, channel, age)
            for member, part in zip(members, parts, strict=True)
        ]
        pointers = [one.pointer for one in found if one.pointer is not None]
        return Readout(
            torch.cat([one.state for one in found], dim=-1) / len(found),
            torch.stack(pointers).mean(0) if pointers else None,
        )


@torch.no_grad()
def _side_by_side(heads: Sequence[nn.Linear]) -> nn.Linear:
    """The mean of heads, as one that reads the members' states side by side, each over their number."""
    whole = nn.Linear(sum(head.in_features for head in heads), heads[0].out_features)
    whole.weight.copy_(torch.cat([head.weight for head in heads], dim=1))
    whole.bias.copy_(torch.stack([head.bias for head in heads]).mean(0))
    return whole


@torch.no_grad()
def _diagonal(heads: Sequence[nn.Linear]) -> nn.Linear:
    """Not-to-recommend heads as one: each gives the direction of its own member's item vectors, all give one level."""
    count = len(heads)
    whole = nn.Linear(
        sum(head.in_features for head in heads), sum(head.out_features - 1 for head in heads) + 1
    )
    ways = torch.block_diag(*(head.weight[:-1] for head in heads))
    whole.weight.copy_(torch.cat([ways, torch.cat([head.weight[-1:] for head in heads], dim=1)]))
    level = torch.stack([head.bias[-1:] for head in heads]).mean(0)
    whole.bias.copy_(torch.cat([*(head.bias[:-1] / count for head in heads), level]))
    return whole
