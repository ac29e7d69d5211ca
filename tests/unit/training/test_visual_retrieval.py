"""Metrics of retrieval against lists that are sorted by hand."""

import numpy as np
import pytest

from training.evaluation import retrieval


def _unit(rows: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(rows, 8)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_nearest_is_a_sorted_scan() -> None:
    queries, gallery = _unit(30, 1), _unit(50, 2)
    rows, scores = retrieval.nearest(queries, gallery, 7)
    for query, row, score in zip(queries, rows, scores, strict=True):
        wanted = sorted(range(50), key=lambda at: (-float(query @ gallery[at]), at))[:7]
        assert row.tolist() == wanted
        assert score.tolist() == pytest.approx([float(query @ gallery[at]) for at in wanted], abs=1e-6)


def test_nearest_breaks_ties_by_row_and_stops_at_the_gallery() -> None:
    gallery = np.repeat(_unit(1, 3), 3, axis=0)
    rows, _ = retrieval.nearest(gallery[:1], gallery, 9)
    assert rows.tolist() == [[0, 1, 2]]


def test_recall_and_precision_count_labels_and_never_unknown_ones() -> None:
    asked = np.array([1, 2, -1])
    found = np.array([[0, 1, 1], [0, 0, 0], [-1, -1, -1]])
    assert retrieval.recall_at(asked, found, 1).tolist() == [0, 0, 0]
    assert retrieval.recall_at(asked, found, 2).tolist() == [1, 0, 0]
    assert retrieval.precision_at(asked, found, 3).tolist() == pytest.approx([2 / 3, 0, 0])


def test_votes_weigh_by_similarity() -> None:
    found = np.array([[0, 1, 1], [2, 0, 0]])
    similarity = np.array([[0.9, 0.88, 0.88], [0.9, 0.2, 0.2]], np.float32)
    assert retrieval.knn_votes(found, similarity, 3).tolist() == [1, 2]


def test_a_row_finds_itself_also_beside_its_double() -> None:
    vectors = _unit(5, 4)
    assert retrieval.finds_itself(np.concatenate([vectors, vectors[:1]])).all()
    # A vector that is not of length 1 outshines what it resembles.
    lone = np.eye(3, dtype=np.float32)
    assert retrieval.finds_itself(np.concatenate([lone, 3 * lone[:1]])).tolist() == [0, 1, 1, 1]
