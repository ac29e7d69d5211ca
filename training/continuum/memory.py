"""What came together before, as a sparse term beside the network: pairs of items, counted.

A network of few numbers learns what is common; what two rare items have to do with one another only counting can
tell. The memory keeps for each item the items that *followed* it (share of its followers: a Markov chain) and those
that came *along* with it (damped cosine: item-kNN), both weighed by their distance. The rows of the latest events
are added to the network's scores, each step back counting less. How much each relation weighs is chosen on the
validation requests, which the network has not learned from: weights learned from what the network has seen as
well would trust the network too much and the memory too little (measured: +0.5 % instead of +3 % on clicks).

Belongs here: counting, choosing weights, what is added. Does not belong here: the network (`model.py`), its training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from training.continuum.data import Sequences

RELATIONS = ("followed", "along")
"""Order of ``memory_weights``."""

FOLLOW_REACH, FOLLOW_HALVE = 5, 1.0
ALONG_REACH, ALONG_HALVE = 12, 4.0
"""Largest distance of a pair in steps, and the further steps after which it counts half."""

FOLLOW_DAMPING, ALONG_DAMPING = 2.0, 5.0
"""Added to what counts are divided by, so that a pair seen once is no certainty."""

RECENCY = 2.0
"""Steps back after which an event's row counts half."""

GRIDS = ((0.0, 1.0, 3.0, 10.0, 20.0, 40.0, 80.0, 160.0),) * 2
"""Weights that are tried, by relation."""


def relations(sequences: Sequences, step: npt.NDArray[np.int64], size: int) -> tuple[sp.csr_matrix, ...]:
    """Both relations, float32[V + 1, V + 1] from an item (row) to another.

    Args:
        sequences: What may be learned from.
        step: int64[E], number of each event's step over all customers (`batches.Steps.of`).
        size: V.
    """
    follow = _pairs(sequences, step, size, FOLLOW_REACH, FOLLOW_HALVE)
    total = np.asarray(follow.sum(axis=1)).ravel() + FOLLOW_DAMPING
    followed = sp.diags((1.0 / total).astype(np.float32)) @ follow
    along = _pairs(sequences, step, size, ALONG_REACH, ALONG_HALVE)
    both = (along + along.T).tocoo()
    norm = np.sqrt(np.asarray(both.sum(axis=1)).ravel())
    share = both.data / (norm[both.row] * norm[both.col] + ALONG_DAMPING)
    return followed.tocsr(), sp.csr_matrix((share.astype(np.float32), (both.row, both.col)), shape=both.shape)


def _pairs(
    sequences: Sequences, step: npt.NDArray[np.int64], size: int, reach: int, halve: float
) -> sp.csr_matrix:
    """How often the column's item came up to ``reach`` steps after the row's, near pairs counting more."""
    total = sp.csr_matrix((size + 1, size + 1), dtype=np.float32)
    if not len(step):
        return total
    steps, real = int(step[-1]) + 1, sequences.item > 0
    member = sp.csr_matrix(
        (np.ones(int(real.sum()), np.float32), (step[real], sequences.item[real])), shape=(steps, size + 1)
    )
    owner = np.zeros(steps, np.int64)
    owner[step] = np.repeat(np.arange(len(sequences.customers)), np.diff(sequences.offsets))
    for apart in range(1, min(reach, steps - 1) + 1):
        first = np.flatnonzero(owner[apart:] == owner[:-apart])
        weight = np.float32(2.0 ** (-(apart - 1) / halve))
        total = total + (member[first].T @ member[first + apart]).tocsr() * weight
    return total.tocsr()


class Memory(nn.Module):
    """The weighed sum of the relations, the largest pairs of each item only.

    Args:
        size: V.
        width: Pairs kept for each item.
    """

    ids: Tensor
    weights: Tensor

    def __init__(self, size: int, width: int):
        super().__init__()
        self.register_buffer("ids", torch.zeros(size + 1, width, dtype=torch.int64))
        self.register_buffer("weights", torch.zeros(size + 1, width))

    @torch.no_grad()
    def fill(self, tables: Sequence[sp.csr_matrix], weights: Sequence[float]) -> None:
        """Keep the largest of the relations' weighed sum.

        Args:
            tables: As `relations` gives them.
            weights: One for each.
        """
        total = sum(
            (table * np.float32(weight) for table, weight in zip(tables, weights, strict=True)), tables[0] * 0
        )
        total = total.tocsr()
        row = np.repeat(np.arange(total.shape[0]), np.diff(total.indptr))
        order = np.lexsort((total.indices, -total.data, row))
        nth = np.arange(len(order)) - total.indptr[:-1][row]
        order, nth = order[nth < self.ids.shape[1]], nth[nth < self.ids.shape[1]]
        place = (torch.from_numpy(row[order]), torch.from_numpy(nth.astype(np.int64)))
        self.ids.zero_()[place] = torch.from_numpy(total.indices[order].astype(np.int64))
        self.weights.zero_()[place] = torch.from_numpy(total.data[order])

    def forward(self, item: Tensor, back: Tensor) -> tuple[Tensor, Tensor]:
        """What is added to the scores: items int64[B, L * N], with repeats, and how much float[B, L * N].

        Args:
            item: int64[B, L] history; item 0 has no pairs.
            back: int64[B, L] steps before the latest one.
        """
        share = torch.exp(back.to(self.weights.dtype) * (-math.log(2.0) / RECENCY))
        return self.ids[item].flatten(1), (self.weights[item] * share.unsqueeze(2)).flatten(1)


def latest(inputs: dict[str, npt.NDArray], size: int) -> sp.csr_matrix:
    """What `Memory` weighs the rows of items by, float32[B, V + 1].

    Args:
        inputs: ``item``, ``action`` int64[B, L] and ``age`` float32[B, L] as `infer.pack` gives them.
        size: V.
    """
    item, real, age = inputs["item"], inputs["action"] > 0, inputs["age"]
    changed = (age[:, 1:] != age[:, :-1]) & real[:, :-1]
    step = np.concatenate([np.zeros((len(item), 1), np.int64), changed.cumsum(axis=1)], axis=1)
    share = np.exp2(-(step.max(axis=1, keepdims=True) - step) / RECENCY).astype(np.float32)
    row, column = np.nonzero(real & (item > 0))
    return sp.csr_matrix((share[row, column], (row, item[row, column])), shape=(len(item), size + 1))


def choose(quality: Callable[[Sequence[float]], float]) -> tuple[float, ...]:
    """The best weights, one relation after the other, twice.

    Args:
        quality: Of weights, on the validation requests; the first best counts, so that less memory wins a tie.
    """
    best = [grid[0] for grid in GRIDS]
    known: dict[tuple[float, ...], float] = {}

    def ask(weights: list[float]) -> float:
        key = tuple(weights)
        if key not in known:
            known[key] = quality(key)
        return known[key]

    for _ in range(2):
        for place, grid in enumerate(GRIDS):
            tried = [ask([*best[:place], weight, *best[place + 1 :]]) for weight in grid]
            best[place] = grid[int(np.argmax(tried))]
    return tuple(best)
