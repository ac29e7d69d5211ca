"""How good vectors are at finding: recall, precision, nearest neighbours, a picture finding itself.

All functions take unit vectors ``float32[N, d]``, so that a product of two is their cosine, and rank by it.

Belongs here: metrics of search by vectors. Does not belong here: who is asked for what (`training/visual`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

BLOCK = 1024
"""Queries that are compared at once."""

SAME = 1e-6
"""Two products that differ by less are equal."""


def nearest(queries: Vectors, gallery: Vectors, k: int) -> tuple[Ints, Vectors]:
    """The k most similar rows of a gallery, best first (ties: lower row first), and their similarity.

    Returns:
        int64[Q, k] and float32[Q, k]; k is cut to the gallery's size.
    """
    k = min(k, len(gallery))
    rows, scores = [np.zeros((0, k), np.int64)], [np.zeros((0, k), np.float32)]
    for block in _blocks(queries):
        product = block @ gallery.T
        best = np.argsort(-product, axis=1, kind="stable")[:, :k]
        rows.append(best)
        scores.append(np.take_along_axis(product, best, 1))
    return np.concatenate(rows), np.concatenate(scores)


def _blocks(queries: Vectors) -> Iterator[Vectors]:
    for first in range(0, len(queries), BLOCK):
        yield queries[first : first + BLOCK]


def hits(asked: Ints, found: Ints) -> npt.NDArray[np.bool_]:
    """Whether each neighbour has the query's label: int64[Q], int64[Q, k] to bool[Q, k]; -1 never has."""
    return (asked[:, None] == found) & (asked[:, None] >= 0)


def recall_at(asked: Ints, found: Ints, k: int) -> Floats:
    """Per query 1 if one of the first k neighbours has its label."""
    return hits(asked, found[:, :k]).any(1).astype(np.float64)


def precision_at(asked: Ints, found: Ints, k: int) -> Floats:
    """Per query the share of the first k neighbours that have its label."""
    return hits(asked, found[:, :k]).mean(1)


def knn_votes(found: Ints, similarity: Vectors, classes: int, sharpness: float = 20.0) -> Ints:
    """What the neighbours vote for, weighted by exp(sharpness * similarity): int64[Q]."""
    weight = np.exp(sharpness * (similarity - similarity[:, :1]).astype(np.float64))
    votes = np.zeros((len(found), classes))
    query = np.repeat(np.arange(len(found)), found.shape[1])
    counted = found.ravel() >= 0
    np.add.at(votes, (query[counted], found.ravel()[counted]), weight.ravel()[counted])
    return votes.argmax(1)


def finds_itself(vectors: Vectors) -> Floats:
    """Per row 1 if no other row is more similar to it than it is to itself."""
    own = np.einsum("nd,nd->n", vectors, vectors)
    best = np.concatenate([(block @ vectors.T).max(1) for block in _blocks(vectors)])
    return (best <= own + SAME).astype(np.float64)
