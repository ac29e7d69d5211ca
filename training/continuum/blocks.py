"""Blocks of the encoder: attention of requests over tokens, and the relative biases in it.

Attention is written by hand so that ONNX keeps batch and length dynamic. Belongs here: layers that know no items.
Does not belong here: the network (`model.py`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from training.config import EncoderParams

FAR = -1e9
"""Logit of what must not be seen; finite, so that an empty history stays finite."""

SECONDS_PER_DAY = 86_400.0

OCTAVES = 26
"""log2 of the longest distinguished time difference in seconds (about two years)."""


class Attention(nn.Module):
    """Multi-head attention of rows over tokens, with one learned token that is always visible."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads, self.width = heads, dim // heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.sink_key = nn.Parameter(torch.zeros(heads, self.width, 1))
        self.sink_value = nn.Parameter(torch.zeros(heads, 1, self.width))

    def forward(self, rows: Tensor, tokens: Tensor, bias: Tensor) -> Tensor:
        """Attend.

        Args:
            rows: float[B, R, d].
            tokens: float[B, L, d].
            bias: float[B, H, R, L], FAR where a row must not see a token.
        """
        query = self._split(self.query(rows))
        logits = query @ self._split(self.key(tokens)).transpose(2, 3) / math.sqrt(self.width) + bias
        sink = query @ self.sink_key / math.sqrt(self.width)
        share = torch.softmax(torch.cat([sink, logits], dim=-1), dim=-1)
        mixed = share[..., 1:] @ self._split(self.value(tokens)) + share[..., :1] * self.sink_value
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, self.width)).transpose(1, 2)


class SwiGLU(nn.Module):
    """Gated feed-forward layer without bias (arXiv 2002.05202)."""

    def __init__(self, dim: int, expansion: int):
        super().__init__()
        self.gate = nn.Linear(dim, dim * expansion, bias=False)
        self.up = nn.Linear(dim, dim * expansion, bias=False)
        self.down = nn.Linear(dim * expansion, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """float[..., d] to float[..., d]."""
        return self.down(nn.functional.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """LiGR block: pre-norm, and a sigmoid gate from the block's input on both outputs."""

    def __init__(self, dim: int, heads: int, expansion: int, dropout: float):
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim, bias=False)
        self.feed_norm = nn.LayerNorm(dim, bias=False)
        self.attention = Attention(dim, heads)
        self.feed = SwiGLU(dim, expansion)
        self.attention_gate = nn.Linear(dim, dim, bias=False)
        self.feed_gate = nn.Linear(dim, dim, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, rows: Tensor, tokens: Tensor, bias: Tensor) -> Tensor:
        """Update rows float[B, R, d] from tokens float[B, L, d]."""
        seen = self.attention(self.attention_norm(rows), self.attention_norm(tokens), bias)
        rows = rows + torch.sigmoid(self.attention_gate(rows)) * self.dropout(seen)
        return rows + torch.sigmoid(self.feed_gate(rows)) * self.dropout(self.feed(self.feed_norm(rows)))


class PlainBlock(nn.Module):
    """Pre-norm block without gates, with ReLU: the ablation of `Block` (SASRec, arXiv 1808.09781)."""

    def __init__(self, dim: int, heads: int, expansion: int, dropout: float):
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim, bias=False)
        self.feed_norm = nn.LayerNorm(dim, bias=False)
        self.attention = Attention(dim, heads)
        self.feed = nn.Sequential(
            nn.Linear(dim, dim * expansion), nn.ReLU(), nn.Dropout(dropout), nn.Linear(dim * expansion, dim)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, rows: Tensor, tokens: Tensor, bias: Tensor) -> Tensor:
        """Update rows float[B, R, d] from tokens float[B, L, d]."""
        rows = rows + self.dropout(
            self.attention(self.attention_norm(rows), self.attention_norm(tokens), bias)
        )
        return rows + self.dropout(self.feed(self.feed_norm(rows)))


class RelativeBias(nn.Module):
    """One learned number per column for each bucket of time difference and of distance in steps."""

    def __init__(self, columns: int, params: EncoderParams):
        super().__init__()
        self.per_octave = params.buckets_per_octave
        self.time = (
            nn.Parameter(torch.zeros(OCTAVES * self.per_octave + 1, columns)) if params.time_bias else None
        )
        self.steps = nn.Parameter(torch.zeros(params.step_bias + 1, columns)) if params.step_bias else None

    def forward(self, elapsed: Tensor, steps: Tensor) -> Tensor:
        """float[B, R, L, columns] from days float[B, R, L] and step distances int64[B, R, L]."""
        total = torch.zeros_like(elapsed).unsqueeze(-1)
        if self.time is not None:
            total = total + self.time[time_bucket(elapsed, self.per_octave)]
        if self.steps is not None:
            total = total + self.steps[steps.clamp(0, self.steps.shape[0] - 1)]
        return total


def time_bucket(elapsed: Tensor, per_octave: int) -> Tensor:
    """Log2 bucket of a time difference in days; 0 for less than a second and for the future."""
    octave = torch.log2(1.0 + elapsed.clamp(min=0.0) * SECONDS_PER_DAY)
    return (octave * per_octave).long().clamp(0, OCTAVES * per_octave)
