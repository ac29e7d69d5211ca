"""Sequence baselines against their definitions, computed by hand or densely."""

from __future__ import annotations

import math

import numpy as np
import pytest

from training.evaluation.public_sets import Lists, lists_of
from training.evaluation.sequence_baselines import (
    KnnParams,
    VsknnParams,
    ease,
    item_knn,
    recent_popularity,
    vsknn,
)

LISTS = lists_of([[1, 2, 3], [1, 2], [2, 4], [5, 1, 2], [3, 4]])
SIZE = 5


def drawn(rows: int = 60, size: int = 12) -> Lists:
    rng = np.random.default_rng(0)
    return lists_of(
        [rng.choice(np.arange(1, size + 1), rng.integers(2, 6), replace=False).tolist() for _ in range(rows)]
    )


def dense(lists: Lists, size: int) -> np.ndarray:
    out = np.zeros((len(lists), size + 1))
    for row in range(len(lists)):
        out[row, lists[row]] = 1.0
    return out


def test_popularity_counts_the_latest_and_breaks_ties_by_all() -> None:
    scores = recent_popularity(LISTS, SIZE, share=0.4)(lists_of([[1], [2]]))
    assert np.argsort(-scores[0, 1:]).tolist()[0] + 1 == 2
    assert np.array_equal(scores[0], scores[1])
    assert scores[0].round(3).tolist() == [0, 1, 1, 1, 1, 1]


def test_item_knn_is_the_cosine_weighted_by_place() -> None:
    lists, size = drawn(), 12
    params = KnnParams(neighbours=99, shrink=3.0, halve=2.0)
    asked = lists_of([[3, 7, 1], [2]])
    got = item_knn(lists, size, params)(asked)
    seen = dense(lists, size)
    together, count = seen.T @ seen, seen.sum(0)
    similar = together / (np.sqrt(np.outer(count, count)) + params.shrink)
    np.fill_diagonal(similar, 0)
    wanted = similar[1] + similar[7] * 2**-0.5 + similar[3] * 0.5
    assert np.allclose(got[0], wanted, atol=2e-6)
    assert np.allclose(got[1], similar[2], atol=2e-6)
    few = item_knn(lists, size, KnnParams(neighbours=2, shrink=3.0))(asked)
    assert (few[1] > 1e-3).sum() == 2


def test_ease_is_its_closed_form() -> None:
    lists, size = drawn(), 12
    seen = dense(lists, size)
    gram = seen.T @ seen + 5.0 * np.eye(size + 1)
    inverse = np.linalg.inv(gram)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    got = ease(lists, size, 5.0)(lists_of([[3, 7, 1]]))
    assert np.allclose(got[0], weights[[3, 7, 1]].sum(0), atol=1e-5)


def test_vsknn_is_worked_by_hand() -> None:
    """Session 2, 1: weights 1/2 and 1; the latest common item divides by how far back it lies."""
    scores = vsknn(LISTS, SIZE, VsknnParams(neighbours=9, sample=9, idf=0.5))(lists_of([[2, 1]]))[0]
    votes = {0: 1.5, 1: 1.5, 2: 0.5 / 2, 3: 1.5}
    for item in range(1, SIZE + 1):
        holds = [row for row in votes if item in LISTS[row]]
        count = sum(item in LISTS[row] for row in range(len(LISTS)))
        wanted = sum(votes[row] for row in holds) * (1 + 0.5 * math.log(5 / count))
        assert scores[item] == pytest.approx(wanted, abs=1e-5)
    nearest = vsknn(LISTS, SIZE, VsknnParams(neighbours=1, sample=9, idf=0.0))(lists_of([[2, 1]]))[0]
    assert nearest.round(3).tolist() == [0, 1.5, 1.5, 0, 0, 1.5]


def test_an_unknown_session_gets_the_popular() -> None:
    for make in (item_knn, vsknn):
        scores = make(LISTS, SIZE)(lists_of([[0], []]))
        assert scores[:, 1:].argmax(1).tolist() == [1, 1]
