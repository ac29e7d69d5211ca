"""Segments: known groups are found, their number is stable, and their names tell what is so."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from training.relationship import segments

FEATURES = ("spend", "visits", "days since last")


def groups(size: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three groups far apart."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, size)
    centre = np.array([[10.0, 0.0, 0.0], [0.0, 10.0, 0.0], [0.0, 0.0, 10.0]])
    return centre[label] + rng.normal(size=(size, 3)), label


def test_adjusted_rand_is_the_stock_one() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        left, right = rng.integers(0, 4, 80), rng.integers(0, 3, 80)
        assert segments.adjusted_rand(left, right) == pytest.approx(
            adjusted_rand_score(left, right), abs=1e-12
        )
    assert segments.adjusted_rand(left, (left + 1) % 4) == 1
    assert segments.adjusted_rand(np.zeros(5), np.zeros(5)) == 1


@pytest.mark.parametrize("method", ["kmeans", "gmm"])
def test_known_groups_are_found_with_their_number(method: segments.Method) -> None:
    X, label = groups()
    found = segments.fit(X, FEATURES, method, numbers=(2, 3, 4, 5), pairs=4)
    assert len(found.names) == 3
    assert found.stability[3] > 0.99 > found.stability[5]
    new, new_label = groups(seed=1)
    assert segments.adjusted_rand(found.predict(new), new_label) > 0.99
    names = {found.names[found.predict(X[label == group])[0]] for group in range(3)}
    assert {next(word for word in name.split(", ") if "high" in word) for name in names} == {
        "high spend", "high visits", "high days since last",
    }  # fmt: skip


def test_an_embedding_is_described_by_other_features() -> None:
    X, label = groups(300)
    spend = np.where(label == 0, 100.0, 5.0)[:, None]
    found = segments.fit(X, ("e0", "e1", "e2"), numbers=(3,), pairs=2, describe=(spend, ["spend"]))
    assert sum("high spend" in name for name in found.names) == 1
    assert len(set(found.names)) == 3
    assert not any("e0" in name for name in found.names)


def test_names_say_nothing_where_nothing_differs() -> None:
    X = np.random.default_rng(0).normal(size=(4000, 2))
    label = np.zeros(4000, np.int64)
    assert segments.name_segments(X, ("spend", "visits"), label, 1) == ["typical"]


def test_rfm_of_hand_worked_customers() -> None:
    days = np.array([1, 2, 50, 60, 90, 1, 30, 31, 32, 80.0])
    purchases = np.array([50, 40, 45, 1, 2, 1, 10, 11, 12, 3.0])
    spend = np.array([900, 800, 700, 5, 9, 4, 100, 110, 120, 20.0])
    found = segments.rfm(days, purchases, spend)
    assert found.segment[0] == "champions"
    assert found.segment[5] == "promising"
    assert found.segment[4] == "asleep"
    assert set(found.segment) <= set(segments.RFM_NAMES)
    assert found.recency.tolist() == segments.rfm(days * 2, purchases, spend).recency.tolist()
    assert (found.recency[0], found.frequency[0], found.money[0]) == (5, 5, 5)


def test_equal_customers_share_their_scores() -> None:
    found = segments.rfm(np.ones(10), np.ones(10), np.arange(10.0))
    assert len(set(found.recency)) == len(set(found.frequency)) == 1
    assert sorted(set(found.money)) == [1, 2, 3, 4, 5]


def test_features_that_cannot_be_used_are_named() -> None:
    X, _ = groups(50)
    with pytest.raises(ValueError, match="row 2, column 1 are nan"):
        segments.fit(np.where(np.arange(150).reshape(50, 3) == 7, np.nan, X), FEATURES)
    with pytest.raises(ValueError, match="2 feature names for 3 columns"):
        segments.fit(X, ("a", "b"))
    with pytest.raises(ValueError, match=r"numbers are \[2, 99\]"):
        segments.fit(X, FEATURES, numbers=(2, 99))
    with pytest.raises(ValueError, match="method is 'other'"):
        segments.fit(X, FEATURES, "other", (2,))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected as many each"):
        segments.rfm(np.ones(3), np.ones(4), np.ones(3))
    with pytest.raises(ValueError, match="columns; expected 3"):
        segments.fit(X, FEATURES, numbers=(2,), pairs=1).predict(X[:, :2])
