"""Baselines worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation import baselines
from training.evaluation.baselines import Purchases

NOW = 100.0


def purchases(rows: list[tuple[int, float, int]], customers: int = 3, items: int = 6) -> Purchases:
    ordered = sorted(rows)
    customer, at, item = (np.array(column) for column in zip(*ordered, strict=True))
    return Purchases(customer, item, at.astype(float), customers, items, NOW)


SHOP = purchases(
    [
        (0, 10.0, 0), (0, 10.0, 1), (0, 50.0, 0), (0, 99.0, 2),
        (1, 95.0, 0), (1, 95.0, 3), (1, 98.0, 3),
        (2, 20.0, 4), (2, 99.0, 3),
    ]
)  # fmt: skip


def test_popularity_counts_the_last_days_only() -> None:
    assert baselines.recent_popularity(SHOP, days=28).tolist() == [1, 0, 1, 3, 0, 0]


def test_counts_and_decayed_counts() -> None:
    assert baselines.frequency(SHOP).toarray()[0].tolist() == [2, 1, 1, 0, 0, 0]
    decayed = baselines.frequency(SHOP, 45.0).toarray()
    assert decayed[0, 0] == pytest.approx(2 ** (-90 / 45) + 2 ** (-50 / 45))
    assert decayed[0, 2] == pytest.approx(2 ** (-1 / 45))


def test_answers_break_ties_by_popularity_and_are_filled_with_it() -> None:
    answers = baselines.baseline_answers(SHOP, np.array([2, -1]), k=4)
    assert answers["personal_frequency"][0].tolist() == [3, 4, 0, 2]
    assert answers["personal_frequency"][1].tolist() == answers["recent_popularity"][1].tolist()
    assert set(answers) == {
        "recent_popularity", "personal_frequency", "personal_frequency_45d", "item_knn", "tifu_knn",
    }  # fmt: skip


def test_item_knn_spreads_to_what_is_bought_together() -> None:
    decayed = baselines.frequency(SHOP, 45.0)
    scores = baselines.item_knn(SHOP, decayed, np.array([0])).toarray()[0]
    own = decayed.toarray()[0]
    assert scores[3] == pytest.approx(own[0] / np.sqrt(3 * 3))
    assert scores[1] == pytest.approx(own[1] + own[0] / np.sqrt(3 * 1))


def test_tifu_vectors_are_the_papers_two_level_average() -> None:
    settings = baselines.TifuSettings(group=2, within=0.9, between=0.7)
    vector = baselines.tifu_vectors(SHOP, settings).toarray()[0]
    newest = np.array([0.9, 0, 1, 0, 0, 0]) / 2
    oldest = np.array([1, 1, 0, 0, 0, 0])
    np.testing.assert_allclose(vector, (newest + 0.7 * oldest) / 2)


def test_tifu_mixes_own_vector_and_nearest_neighbours() -> None:
    settings = baselines.TifuSettings(neighbours=2, own=0.75)
    vectors = baselines.tifu_vectors(SHOP, settings)
    dense = vectors.toarray()
    found = baselines.tifu_knn(vectors, vectors, np.array([0]), settings).toarray()[0]
    np.testing.assert_allclose(found, 0.75 * dense[0] + 0.25 * (dense[1] + dense[2]) / 2)


def test_last_baskets_cut_every_customers_history() -> None:
    cut = SHOP.last_baskets(1)
    assert list(zip(cut.customer.tolist(), cut.item.tolist(), strict=True)) == [(0, 2), (1, 3), (2, 3)]
