"""Metrics against slow and obvious versions of themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation import metrics


@st.composite
def judged_requests(draw: st.DrawFn) -> tuple[list[list[int]], list[set[int]]]:
    count = draw(st.integers(1, 6))
    answers = [draw(st.lists(st.integers(0, 15), max_size=12, unique=True)) for _ in range(count)]
    targets = [draw(st.sets(st.integers(0, 15), min_size=1, max_size=14)) for _ in range(count)]
    return answers, targets


def padded(answers: list[list[int]]) -> np.ndarray:
    table = np.full((len(answers), 12), -1)
    for row, answer in zip(table, answers, strict=True):
        row[: len(answer)] = answer
    return table


def slow_ndcg(answer: list[int], wanted: set[int], k: int) -> float:
    reached = sum(1 / math.log2(place + 2) for place, item in enumerate(answer[:k]) if item in wanted)
    return reached / sum(1 / math.log2(place + 2) for place in range(min(k, len(wanted))))


def slow_mrr(answer: list[int], wanted: set[int], k: int) -> float:
    return next((1 / (place + 1) for place, item in enumerate(answer[:k]) if item in wanted), 0.0)


@given(judged_requests(), st.integers(1, 12))
def test_equal_to_the_definitions(requests: tuple[list[list[int]], list[set[int]]], k: int) -> None:
    answers, wanted = requests
    table, targets = padded(answers), metrics.targets_of([list(each) for each in wanted])
    pairs = list(zip(answers, wanted, strict=True))
    expected = {
        metrics.ndcg: [slow_ndcg(a, w, k) for a, w in pairs],
        metrics.recall: [len(set(a[:k]) & w) / len(w) for a, w in pairs],
        metrics.hit_rate: [float(bool(set(a[:k]) & w)) for a, w in pairs],
        metrics.mrr: [slow_mrr(a, w, k) for a, w in pairs],
    }
    for metric, values in expected.items():
        np.testing.assert_allclose(metric(table, targets, k), values, atol=1e-12)
    assert metrics.coverage(table, 20, k) == len({i for a in answers for i in a[:k]}) / 20


def test_items_outside_the_table_count_as_wanted_and_never_as_found() -> None:
    targets = metrics.targets_of([[3, -1]])
    assert targets.counts.tolist() == [2]
    answers = np.array([[3, -1, -1]])
    assert metrics.recall(answers, targets).tolist() == [0.5]


def test_novelty_is_the_mean_information_of_what_is_shown() -> None:
    popularity = np.array([3.0, 1.0, 0.0])
    answers = np.array([[0, 1], [2, -1], [-1, -1]])
    bits = [-math.log2(4 / 5), -math.log2(2 / 5), -math.log2(1 / 5)]
    np.testing.assert_allclose(metrics.novelty(answers, popularity), [(bits[0] + bits[1]) / 2, bits[2], 0.0])


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), unique=True, min_size=1), st.integers(1, 5))
def test_top_k_is_sorting_with_ties_by_item(pairs: list[tuple[int, int]], k: int) -> None:
    pairs = sorted(pairs)
    rows, items = np.array(pairs).T
    scores = (items * 7 + rows) % 3 * 1.0
    best = metrics.top_k(scores, rows, items, 5, k)
    for row in range(5):
        mine = [(-score, item) for score, r, item in zip(scores, rows, items, strict=True) if r == row]
        expected = [item for _, item in sorted(mine)][:k]
        assert best[row].tolist() == expected + [-1] * (k - len(expected))


def test_selecting_requests_keeps_their_targets() -> None:
    targets = metrics.targets_of([[1, 2], [], [5], [7, 8, 9]])
    chosen = targets.select(np.array([3, 0]))
    assert chosen.counts.tolist() == [3, 2]
    assert chosen.items.tolist() == [7, 8, 9, 1, 2]


def test_a_request_without_targets_scores_nothing() -> None:
    assert metrics.ndcg(np.array([[1, 2]]), metrics.targets_of([[]])).tolist() == [pytest.approx(0.0)]
