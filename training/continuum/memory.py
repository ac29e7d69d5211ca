"""What came together before, as a sparse term beside the network: pairs of items, counted.

A network of few numbers learns what is common; what two rare items have to do with one another only counting can
tell. The memory keeps for each item the items that *followed* it (share of its followers: a Markov chain) and those
that came *along* with it (damped cosine: item-kNN), both weighed by their distance. The rows of the latest events
are added to the network's scores, each step back counting less. What is added to other items is taken from those that
come *again*, whose standing the network has learned without a memory: the item itself is a relation too, which gives
it back (on Diginetica's validation sessions, for what had been seen but not last: MRR@20 0.27 without a memory, 0.35
with the first two relations; for what had been seen last 0.89 and 0.80). How much each relation weighs is chosen on
the validation requests, which the network has not learned from: weights learned from what the network has seen as
well would trust the network too much and the memory too little (measured: +0.5 % instead of +3 % on clicks).

Belongs here: counting, choosing weights, what is added. Does not belong here: the network (`model.py`), its training.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import cast

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from training.continuum.data import Sequences
from training.continuum.pairs import count_pairs

RELATIONS = ("followed", "along", "again")
Tables = tuple[sp.csr_matrix, sp.csr_matrix, sp.csr_matrix]
Weights = tuple[float, float, float]
"""One of each relation, in this order."""

FOLLOW_REACH, FOLLOW_HALVE = 5, 1.0
ALONG_REACH, ALONG_HALVE = 12, 4.0
"""Largest distance of a pair in steps, and the further steps after which it counts half."""

FOLLOW_DAMPING, ALONG_DAMPING = 2.0, 5.0
"""Added to what counts are divided by, so that a pair seen once is no certainty."""

RECENCY = 2.0
"""Steps back after which an event's row counts half."""

GRID = (0.0, 1.0, 3.0, 10.0, 20.0, 40.0, 80.0, 160.0)
"""Weights that are tried."""

ROUNDS = 4
NONE: Weights = (0.0, 0.0, 0.0)


def relations(sequences: Sequences, step: npt.NDArray[np.int64], size: int, fade: float = 0.0) -> Tables:
    """All relations, float32[V + 1, V + 1] from an item (row) to another; arguments as of `count_pairs`."""
    follow = count_pairs(sequences, step, size, FOLLOW_REACH, FOLLOW_HALVE, fade)
    total = np.asarray(follow.sum(axis=1)).ravel() + FOLLOW_DAMPING
    followed = sp.diags((1.0 / total).astype(np.float32)) @ follow
    along = count_pairs(sequences, step, size, ALONG_REACH, ALONG_HALVE, fade)
    both = (along + along.T).tocoo()
    norm = np.sqrt(np.asarray(both.sum(axis=1)).ravel())
    share = both.data / (norm[both.row] * norm[both.col] + ALONG_DAMPING)
    known = np.unique(sequences.item[sequences.item > 0])
    again = (np.ones(len(known), np.float32), (known, known))
    return (
        followed.tocsr(),
        sp.csr_matrix((share.astype(np.float32), (both.row, both.col)), shape=both.shape),
        sp.csr_matrix(again, shape=both.shape),
    )


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
    def fill(self, tables: Tables, weights: Weights) -> None:
        """Keep the largest of the weighed sum of what `relations` gives."""
        total = sum(table * np.float32(weight) for table, weight in zip(tables, weights, strict=True)).tocsr()
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


def choose(quality: Callable[[Weights], float]) -> Weights:
    """The best weights, one relation after the other, until none changes.

    Args:
        quality: Of weights, on the validation requests; the first best counts, so that less memory wins a tie.
    """
    asked = functools.cache(quality)
    best: Weights = NONE
    for _ in range(ROUNDS):
        before = best
        for place in range(len(best)):
            tried = [cast(Weights, (*best[:place], weight, *best[place + 1 :])) for weight in GRID]
            best = max(tried, key=asked)
        if best == before:
            break
    return best
