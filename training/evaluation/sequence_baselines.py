"""Simple ways to name the next item of a history or session, each giving scores of the whole catalogue.

Belongs here: recent popularity, item-kNN, VSKNN, EASE. Does not belong here: splits and metrics
(`protocol.py`), networks, baselines of baskets (`baselines.py`).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.linalg import lapack

from training.evaluation.protocol import Scorer
from training.evaluation.public_sets import Lists

Ints = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]

RECENT = 0.1
"""Share of the latest sessions that recent popularity counts."""

TIE = 1e-6
"""What the most popular item gains, so that ties go to the popular."""


def item_counts(lists: Lists, size: int) -> npt.NDArray[np.float64]:
    """float64[V + 1], times each item occurs."""
    return np.bincount(lists.items, minlength=size + 1).astype(np.float64)


def recent_popularity(lists: Lists, size: int, share: float = 1.0) -> Scorer:
    """How often each item occurs in the latest lists, ties by all of them.

    Args:
        lists: What is known, the latest last.
        size: V.
        share: Part of the lists that counts.
    """
    latest = lists.select(np.arange(len(lists) - max(1, round(share * len(lists))), len(lists)))
    scores = (item_counts(latest, size) + _tie(lists, size)).astype(np.float32)
    return lambda histories: np.tile(scores, (len(histories), 1))


def weighted_histories(histories: Lists, size: int, halve: float) -> sp.csr_matrix:
    """float32[B, V + 1]; the item n places before the last weighs 2 ** (-n / halve), the latest of equals counts."""
    rows = np.repeat(np.arange(len(histories)), histories.sizes)
    back = histories.offsets[1:][rows] - 1 - np.arange(len(rows))
    weights = np.exp2(-back / halve).astype(np.float32)
    keep = histories.items > 0
    matrix = sp.coo_matrix(
        (weights[keep], (rows[keep], histories.items[keep])), shape=(len(histories), size + 1)
    )
    return _largest_of_equals(matrix)


def occurrence(lists: Lists, size: int) -> sp.csr_matrix:
    """float32[N, V + 1], 1 where a list holds an item."""
    rows = np.repeat(np.arange(len(lists)), lists.sizes)
    matrix = sp.csr_matrix(
        (np.ones(len(rows), np.float32), (rows, lists.items)), shape=(len(lists), size + 1)
    )
    matrix.data[:] = 1.0
    return matrix


@dataclasses.dataclass(frozen=True)
class KnnParams:
    """Parameters of item-kNN.

    Attributes:
        neighbours: Kept for each item.
        shrink: Added to the norms, against chance.
        halve: Places after which an item of the history weighs half.
    """

    neighbours: int = 100
    shrink: float = 10.0
    halve: float = 2.0


def item_knn(lists: Lists, size: int, params: KnnParams = KnnParams()) -> Scorer:
    """Cosine of items over lists, from the items of the history (Sarwar et al. 2001)."""
    seen = occurrence(lists, size)
    together = (seen.T @ seen).tocsr()
    count = together.diagonal()
    together.setdiag(0)
    together.eliminate_zeros()
    norm = np.sqrt(count)
    rows = np.repeat(np.arange(size + 1), np.diff(together.indptr))
    together.data /= norm[rows] * norm[together.indices] + params.shrink
    similar = _best(together, params.neighbours)
    tie = _tie(lists, size).astype(np.float32)

    def score(histories: Lists) -> Scores:
        return (weighted_histories(histories, size, params.halve) @ similar).toarray() + tie

    return score


@dataclasses.dataclass(frozen=True)
class VsknnParams:
    """Parameters of VSKNN; the defaults are those of its authors for clicks.

    Attributes:
        neighbours: Nearest sessions that vote (k).
        sample: Latest sessions with an item of the history that are looked at (m).
        idf: Weigh an item's score by 1 + idf * log(sessions / its sessions).
    """

    neighbours: int = 100
    sample: int = 1000
    idf: float = 1.0


def vsknn(lists: Lists, size: int, params: VsknnParams = VsknnParams()) -> Scorer:
    """Vector multiplication session-kNN (Ludewig and Jannach 2018, arXiv 1803.09587).

    Items of the session weigh linearly by place; the nearest of the latest sessions vote for their items, each
    divided by how far back the session's latest common item lies.
    """
    seen = occurrence(lists, size)
    by_item = seen.tocsc()
    by_item.sort_indices()
    frequency = np.maximum(np.asarray(seen.sum(axis=0)).ravel(), 1.0)
    level = (1.0 + params.idf * np.log(len(lists) / frequency)).astype(np.float32)
    tie = _tie(lists, size).astype(np.float32)

    def votes(history: Ints) -> Scores:
        latest, at = np.unique(history[::-1], return_index=True)
        known = latest > 0
        latest, back = latest[known], at[known]
        weights = (len(history) - back) / len(history)
        places = [by_item.indices[by_item.indptr[item] : by_item.indptr[item + 1]] for item in latest]
        if not len(places) or not sum(map(len, places)):
            return np.zeros(size + 1, np.float32)
        found = np.concatenate([place[-params.sample :] for place in places])
        lengths = [min(len(place), params.sample) for place in places]
        sessions, owner = np.unique(found, return_inverse=True)
        near = np.bincount(owner, np.repeat(weights, lengths), len(sessions))
        closest = np.full(len(sessions), np.iinfo(np.int64).max)
        np.minimum.at(closest, owner, np.repeat(back, lengths))
        pool = np.arange(len(sessions))[-params.sample :]
        best = pool[np.lexsort((-sessions[pool], -near[pool]))[: params.neighbours]]
        power = (near[best] / (closest[best] + 1)).astype(np.float32)
        part = seen[sessions[best]]
        return np.bincount(part.indices, np.repeat(power, np.diff(part.indptr)), size + 1).astype(np.float32)

    return lambda histories: np.stack([votes(histories[row]) for row in range(len(histories))]) * level + tie


def ease(lists: Lists, size: int, ridge: float, scale: float = 1e4) -> Scorer:
    """EASE: the linear item model in closed form (Steck 2019, arXiv 1905.03375).

    Holds one matrix float32[V + 1, V + 1].

    Args:
        lists: What is known.
        size: V.
        ridge: Added to the diagonal.
        scale: Shrinks the tie-break by popularity to below any score.
    """
    seen = occurrence(lists, size)
    gram = (seen.T @ seen).toarray(order="F")
    gram[np.diag_indices(size + 1)] += ridge
    factor, failed = lapack.spotrf(gram, lower=1, overwrite_a=1)
    if not failed:
        inverse, failed = lapack.spotri(factor, lower=1, overwrite_c=1)
    if failed:
        raise ValueError(f"the Gram matrix with ridge {ridge} is not positive; expected a larger ridge")
    _mirror(inverse)
    inverse = inverse.T  # The same numbers, being symmetric, and row by row in memory, as products read them.
    inverse /= -np.diag(inverse).copy()
    inverse[np.diag_indices(size + 1)] = 0.0
    tie = (_tie(lists, size) / scale).astype(np.float32)

    def score(histories: Lists) -> Scores:
        asked = occurrence(histories, size)
        return np.ascontiguousarray(asked @ inverse) + tie

    return score


def _mirror(lower: npt.NDArray[np.float32], step: int = 1024) -> None:
    """Fill the upper triangle from the lower one, in place and in blocks."""
    for start in range(0, len(lower), step):
        stop = min(start + step, len(lower))
        lower[start:stop, stop:] = lower[stop:, start:stop].T
        block = lower[start:stop, start:stop]
        block[...] = np.tril(block) + np.tril(block, -1).T


def _tie(lists: Lists, size: int) -> npt.NDArray[np.float64]:
    """float64[V + 1], at most TIE, by popularity."""
    count = item_counts(lists, size)
    return TIE * count / max(1.0, float(count.max(initial=0)))


def _best(matrix: sp.csr_matrix, k: int) -> sp.csr_matrix:
    """Only the k largest values of each row, ties to the lower column."""
    owner = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, owner))
    place = np.arange(len(order)) - matrix.indptr[:-1][owner]
    keep = order[place < k]
    return sp.csr_matrix((matrix.data[keep], (owner[keep], matrix.indices[keep])), shape=matrix.shape)


def _largest_of_equals(matrix: sp.coo_matrix) -> sp.csr_matrix:
    order = np.lexsort((-matrix.data, matrix.col, matrix.row))
    row, column, data = matrix.row[order], matrix.col[order], matrix.data[order]
    first = np.ones(len(row), bool)
    first[1:] = (row[1:] != row[:-1]) | (column[1:] != column[:-1])
    return sp.csr_matrix((data[first], (row[first], column[first])), shape=matrix.shape)
