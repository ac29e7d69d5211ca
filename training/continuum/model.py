"""The continuum encoder as a torch module, readable from top to bottom.

A token is the sum of item, content, action and channel embeddings. Pre-norm LiGR blocks (eSASRec,
arXiv 2508.06450) with relative time-bucket bias (HSTU, arXiv 2402.17152) follow. A *request* is a further
row that sees every earlier step and starts from a learned vector plus the mean of the latest step;
its final state h scores items as ``h . item + bias``, and the pointer adds ``log(1 + sum exp(phi))``
over the item's own events in the history: a learned, content-aware decayed count, which is what
repeat buying needs (cf. RepeatNet, arXiv 1812.02646). The memory adds what counting pairs tells (`memory.py`).

Belongs here: items, the network, scores. Does not belong here: its blocks (`blocks.py`), losses (`loss.py`), how
batches are made (`batches.py`).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor, nn

from contracts.events import ACTIONS, CHANNELS
from training.config import EncoderParams
from training.continuum.blocks import FAR, SECONDS_PER_DAY, Block, PlainBlock, RelativeBias
from training.continuum.data import Vocabulary
from training.continuum.memory import Memory

CEILING = 30.0
"""Largest log-weight of one event in the pointer."""

TINY = 1e-30

SIZES = 24
"""Half octaves of the number of seen events that a request can tell apart."""

PRIOR_HALF_LIFE = 45.0
"""Days; where the pointer's time curve starts before it is learned."""

PRIOR_SHARE = 1.0
"""Weight of one fresh purchase in the pointer at the start, as a share of all counts in the vocabulary."""


class ItemTable(nn.Module):
    """Item vectors and popularity terms: an item's own embedding plus embeddings of its content fields.

    Cold items have no embedding of their own and live from content alone.
    """

    codes: Tensor
    tags: Tensor
    vectors: Tensor
    cold: Tensor
    trend: Tensor

    def __init__(self, vocabulary: Vocabulary, dim: int, item_bias: bool, unit: bool = False):
        super().__init__()
        self.unit = unit
        content = vocabulary.content
        size = len(vocabulary.product_id)
        self.own = nn.Embedding(size, dim)
        self.own_bias = (
            nn.Parameter(torch.log1p(torch.from_numpy(vocabulary.count)).float()) if item_bias else None
        )
        self.fields = nn.ModuleList(nn.Embedding(len(values) + 1, dim) for values in content.values)
        self.field_biases = nn.ParameterList(
            nn.Parameter(torch.zeros(len(values) + 1)) for values in (content.values if item_bias else ())
        )
        tags = np.zeros((size, 0), np.int64) if content.tags is None else content.tags
        number = int(tags.max(initial=0)) + 1
        self.tag = nn.EmbeddingBag(number, dim, mode="mean", padding_idx=0) if tags.size else None
        self.tag_bias = (
            nn.EmbeddingBag(number, 1, mode="mean", padding_idx=0) if tags.size and item_bias else None
        )
        width = 0 if content.vectors is None else content.vectors.shape[1]
        self.project = nn.Linear(width, dim, bias=False) if width else None
        self.register_buffer("codes", torch.from_numpy(content.codes), persistent=False)
        self.register_buffer("tags", torch.from_numpy(tags), persistent=False)
        vectors = np.zeros((size, 0), np.float32) if content.vectors is None else content.vectors
        self.register_buffer("vectors", torch.from_numpy(vectors), persistent=False)
        self.register_buffer("cold", torch.from_numpy(vocabulary.cold), persistent=False)
        self.register_buffer("trend", torch.zeros(size))
        for table in (self.own, *self.fields):
            nn.init.normal_(table.weight, std=0.5 / math.sqrt(dim))
        if self.tag is not None:
            nn.init.normal_(self.tag.weight, std=0.5 / math.sqrt(dim))
        if self.tag_bias is not None:
            nn.init.zeros_(self.tag_bias.weight)

    @property
    def rows(self) -> int:
        """V + 1, the items with the padding."""
        return self.own.num_embeddings

    def forward(self, ids: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Vectors float[..., d] of items int64[...].

        Args:
            ids: Encoder ids.
            hidden: bool[V + 1], items whose own embedding is hidden, or None.
        """
        total = self.own(ids).masked_fill(self._hidden(ids, hidden).unsqueeze(-1), 0.0)
        for column, table in enumerate(self.fields):
            total = total + table(self.codes[ids, column])
        if self.tag is not None:
            total = total + self.tag(self.tags[ids].flatten(0, -2)).view(total.shape)
        if self.project is not None:
            total = total + self.project(self.vectors[ids])
        return nn.functional.normalize(total, dim=-1) if self.unit else total

    def bias(self, ids: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Popularity terms float[...] of items int64[...]; starts at log(1 + count)."""
        if self.own_bias is None:
            return self.trend[ids]
        total = self.trend[ids] + self.own_bias[ids].masked_fill(self._hidden(ids, hidden), 0.0)
        for column, table in enumerate(self.field_biases):
            total = total + table[self.codes[ids, column]]
        if self.tag_bias is not None:
            total = total + self.tag_bias(self.tags[ids].flatten(0, -2)).view(total.shape)
        return total

    def _hidden(self, ids: Tensor, hidden: Tensor | None) -> Tensor:
        return (self.cold if hidden is None else self.cold | hidden)[ids]


@dataclasses.dataclass(frozen=True)
class Readout:
    """What the network says at R requests of B customers.

    Attributes:
        state: float[B, R, d], scores items by their dot product.
        pointer: float[B, R, L], log-weight of each event for its own item, FAR if not seen; None without pointer.
    """

    state: Tensor
    pointer: Tensor | None


class Encoder(nn.Module):
    """The continuum encoder."""

    def __init__(self, vocabulary: Vocabulary, params: EncoderParams):
        super().__init__()
        dim, self.params = params.dim, params
        self.items = ItemTable(vocabulary, dim, params.item_bias, params.unit_items)
        self.actions = nn.Embedding(len(ACTIONS) + 1, dim)
        self.channels = nn.Embedding(len(CHANNELS) + 1, dim)
        self.request = nn.Parameter(torch.zeros(dim))
        self.sizes = nn.Embedding(SIZES + 1, dim)
        self.dropout = nn.Dropout(params.dropout)
        block = Block if params.block == "ligr" else PlainBlock
        self.blocks = nn.ModuleList(
            block(dim, params.heads, params.expansion, params.dropout) for _ in range(params.blocks)
        )
        columns = params.heads
        self.biases = nn.ModuleList(RelativeBias(columns, params) for _ in range(params.blocks))
        self.norm = nn.LayerNorm(dim, bias=False)
        self.action_head = nn.Linear(dim, len(ACTIONS))
        self.channel_head = nn.Linear(dim, len(CHANNELS))
        self.buy_head = nn.Linear(dim, 1)
        self.avoid_head = nn.Linear(dim, dim + 1)
        for table in (self.actions, self.channels, self.sizes):
            nn.init.normal_(table.weight, std=0.5 / math.sqrt(dim))
        nn.init.normal_(self.request, std=0.5 / math.sqrt(dim))
        if params.pointer:
            self.pointer_query = nn.Linear(dim, dim, bias=False)
            self.pointer_key = nn.Linear(dim, dim, bias=False)
            self.pointer_level = nn.Linear(dim, 1)
            self.pointer_token = nn.Linear(dim, 1, bias=False)
            self.pointer_bias = RelativeBias(1, params)
            self._start_pointer(float(vocabulary.count.sum()))
        self.memory = Memory(vocabulary.size, params.memory) if params.memory else None

    def _start_pointer(self, total: float) -> None:
        nn.init.zeros_(self.pointer_query.weight)
        nn.init.zeros_(self.pointer_level.weight)
        nn.init.zeros_(self.pointer_token.weight)
        nn.init.constant_(self.pointer_level.bias, math.log(max(2.0, total) * PRIOR_SHARE))
        table = self.pointer_bias.time
        if table is not None:
            days = 2.0 ** (torch.arange(len(table)) / self.params.buckets_per_octave) / SECONDS_PER_DAY
            with torch.no_grad():
                table[:, 0] = -math.log(2.0) * days / PRIOR_HALF_LIFE

    def tokens(self, item_vectors: Tensor, action: Tensor, channel: Tensor) -> Tensor:
        """Sum of embeddings, float[B, L, d]."""
        return self.dropout(item_vectors + self.actions(action) + self.channels(channel))

    def encode(
        self, x: Tensor, valid: Tensor, time: Tensor, step: Tensor, request_time: Tensor, request_step: Tensor
    ) -> Readout:
        """Run the blocks; causal by step.

        Args:
            x: float[B, L, d] tokens.
            valid: bool[B, L].
            time: float[B, L] days.
            step: int64[B, L].
            request_time: float[B, R] days.
            request_step: int64[B, R]; a request sees the tokens of smaller steps.

        Where all customers share times and steps, the last four may have one row.
        """
        before = valid.unsqueeze(1) & (step.unsqueeze(1) < request_step.unsqueeze(2))
        elapsed = request_time.unsqueeze(2) - time.unsqueeze(1)
        distance = request_step.unsqueeze(2) - step.unsqueeze(1) - 1
        latest = (before & (distance == 0)).to(x.dtype)
        size = (2 * torch.log2(1.0 + before.sum(-1).to(x.dtype))).long().clamp(0, SIZES)
        rows = self.request + self.sizes(size) + latest @ x / latest.sum(-1, keepdim=True).clamp(min=1.0)
        for index, (block, bias) in enumerate(zip(self.blocks, self.biases, strict=True)):
            seen = _mask(bias(elapsed, distance), before)
            rows = block(rows, x, seen)
            if index + 1 < len(self.blocks):
                causal = valid.unsqueeze(1) & (step.unsqueeze(1) <= step.unsqueeze(2))
                gap = time.unsqueeze(2) - time.unsqueeze(1)
                x = block(x, x, _mask(bias(gap, step.unsqueeze(2) - step.unsqueeze(1)), causal))
        state = self.norm(rows)
        if not self.params.pointer:
            return Readout(state, None)
        logits = self.pointer_query(state) @ self.pointer_key(x).transpose(1, 2) / math.sqrt(x.shape[-1])
        logits = logits + self.pointer_level(state) + self.pointer_token(x).transpose(1, 2)
        logits = logits + self.pointer_bias(elapsed, distance).squeeze(-1)
        return Readout(state, logits.clamp(max=CEILING).masked_fill(~before, FAR))

    def forward(self, item: Tensor, action: Tensor, channel: Tensor, age: Tensor) -> tuple[Tensor, Tensor]:
        """`score` with the network's own item table."""
        catalogue = torch.arange(self.items.rows, device=item.device)
        return self.score(self.items(catalogue), self.items.bias(catalogue), item, action, channel, age)

    def score(
        self, table: Tensor, bias: Tensor, item: Tensor, action: Tensor, channel: Tensor, age: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Score the whole catalogue at one request per customer.

        Args:
            table: float[V + 1, d] item vectors.
            bias: float[V + 1] popularity terms.
            item: int64[B, L] encoder ids in time order, padding on the left.
            action: int64[B, L] index + 1, 0 is padding.
            channel: int64[B, L] index + 1.
            age: float32[B, L] days before the request; equal ages form one step.

        Returns:
            scores float[B, V + 1] and the request's state float[B, d].
        """
        found = self.read(table, item, action, channel, age)
        return self.catalogue_scores(table, bias, item, action, age, found), found.state[:, 0]

    def read(self, table: Tensor, item: Tensor, action: Tensor, channel: Tensor, age: Tensor) -> Readout:
        """What the network says at one request per customer; arguments as of `score`."""
        return self.read_vectors(table[item], action, channel, age)

    def read_vectors(self, vectors: Tensor, action: Tensor, channel: Tensor, age: Tensor) -> Readout:
        """As `read`, of the history's item vectors float[B, L, d]."""
        valid = action > 0
        x = self.tokens(vectors, action, channel)
        step = step_numbers(age, valid)
        request_step = torch.where(valid, step + 1, 0).amax(1, keepdim=True)
        return self.encode(x, valid, -age, step, torch.zeros_like(age[:, :1]), request_step)

    def catalogue_scores(
        self, table: Tensor, bias: Tensor, item: Tensor, action: Tensor, age: Tensor, found: Readout
    ) -> Tensor:
        """Scores float[B, V + 1] of the whole catalogue from what `read` found; arguments as of `score`."""
        scores = found.state[:, 0] @ table.T + bias
        if found.pointer is not None:
            # Only items of the history change, so the logarithms run over L of them and not over V.
            evidence = torch.zeros_like(scores).scatter_add(1, item, torch.exp(found.pointer[:, 0]))
            scores = scores.scatter(1, item, mix(scores.gather(1, item), evidence.gather(1, item)))
        return scores if self.memory is None else scores.scatter_add(1, *self.remembered(item, action, age))

    def remembered(self, item: Tensor, action: Tensor, age: Tensor) -> tuple[Tensor, Tensor]:
        """What the memory adds to the scores, as `Memory` gives it; arguments as of `score`."""
        assert self.memory is not None
        valid = action > 0
        step = step_numbers(age, valid)
        ids, mass = self.memory(item * valid, step.amax(1, keepdim=True) - step)
        return ids, mass

    def buy_logit(self, state: Tensor) -> Tensor:
        """Logit that the running session goes on to a purchase, float[...]."""
        return self.buy_head(state).squeeze(-1)

    def avoid_logits(self, state: Tensor, item_vectors: Tensor) -> Tensor:
        """Logits that an item would get a negative action: float[B, Q, U] from [B, Q, d] and [B, U, d]."""
        head = self.avoid_head(state)
        return head[..., :-1] @ item_vectors.transpose(1, 2) + head[..., -1:]


def mix(explore: Tensor, evidence: Tensor) -> Tensor:
    """Log of the sum of two kinds of mass: ``exp(explore)`` and the pointer's evidence (0 or more)."""
    return torch.logaddexp(explore, torch.log(evidence + TINY))


def step_numbers(age: Tensor, valid: Tensor) -> Tensor:
    """Number steps from ages int64[B, L]: 0 for the oldest, one more wherever the age changes."""
    changed = (age[:, 1:] != age[:, :-1]) & valid[:, :-1]
    return torch.cat([torch.zeros_like(valid[:, :1]), changed], dim=1).long().cumsum(1)


def _mask(bias: Tensor, visible: Tensor) -> Tensor:
    return bias.permute(0, 3, 1, 2).masked_fill(~visible.unsqueeze(1), FAR)
