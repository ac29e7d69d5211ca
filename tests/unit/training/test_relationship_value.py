"""Summaries, survival and ZILN: brute force, leakage, known distributions, ONNX."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import pytest

from training.relationship import cuts, export, survival, ziln
from training.relationship.network import NetworkParams
from training.relationship.summaries import FEATURES, Visits, counts, features, make_visits, next_purchase

CUT = 100.0
FAST = NetworkParams(width=16, epochs=25, batch=256, dropout=0.0)


def visits(seed: int = 0, customers: int = 40) -> Visits:
    rng = np.random.default_rng(seed)
    size = customers * 12
    at = rng.uniform(0, 160, size)
    names = rng.integers(0, customers, size).astype(str)
    return make_visits(names, at, rng.gamma(2, 10, size), rng.integers(1, 9, size), rng.random(size))


def test_features_are_those_of_a_loop_over_customers() -> None:
    shop = visits()
    who, found = features(shop, CUT)
    for row, customer in enumerate(who):
        mine = (shop.customer == customer) & (shop.at < CUT)
        at, spend = shop.at[mine], shop.spend[mine]
        values = dict(zip(FEATURES, found[row], strict=True))
        gaps = np.diff(at)
        expected = {
            "days_since_last": CUT - at[-1], "days_since_first": CUT - at[0], "visits": len(at), "spend": spend.sum(),
            "last_spend": spend[-1], "visits_28d": (CUT - at <= 28).sum(), "spend_91d": spend[CUT - at <= 91].sum(),
            "visit_days": len(np.unique(np.floor(at))), "spend_half_14d": (spend * 0.5 ** ((CUT - at) / 14)).sum(),
            "lines_per_visit": shop.lines[mine].mean(),
            "discount_share": shop.discount[mine].sum() / (spend.sum() + shop.discount[mine].sum()),
        }  # fmt: skip
        if len(gaps):
            expected |= {
                "gap_mean": gaps.mean(), "gap_std": gaps.std(), "gap_median": np.median(gaps), "gap_last": gaps[-1],
                "recency_over_gap": (CUT - at[-1]) / max(gaps.mean(), 0.5),
            }  # fmt: skip
        else:
            assert np.isnan(values["gap_mean"])
        for name, value in expected.items():
            assert values[name] == pytest.approx(value, abs=1e-6), name


def test_what_happens_later_changes_no_feature_and_no_count() -> None:
    shop = visits()
    later = shop.at >= CUT
    moved = dataclasses.replace(
        shop, at=np.where(later, shop.at + 3, shop.at), spend=np.where(later, 7 * shop.spend, shop.spend)
    )
    for left, right in zip(features(shop, CUT), features(moved, CUT), strict=True):
        np.testing.assert_array_equal(left, right)
    for left, right in zip(
        dataclasses.astuple(counts(shop, CUT)), dataclasses.astuple(counts(moved, CUT)), strict=True
    ):
        np.testing.assert_array_equal(left, right)


def test_learning_rows_do_not_see_the_judged_window() -> None:
    shop = visits()
    later = shop.at >= 120
    moved = dataclasses.replace(
        shop, spend=np.where(later, 0.0, shop.spend), at=np.where(later, 150.0, shop.at)
    )
    for censored, horizon in ((False, 20.0), (True, 56.0)):
        pair = [
            cuts.rows_at(each, np.array([80.0, 100.0]), horizon, 120.0, censored) for each in (shop, moved)
        ]
        for field in dataclasses.fields(cuts.Rows):
            np.testing.assert_array_equal(getattr(pair[0], field.name), getattr(pair[1], field.name))
    with pytest.raises(ValueError, match="ends after known_until"):
        cuts.rows_at(shop, np.array([110.0]), 20.0, 120.0)


def test_learning_cuts_end_by_the_judged_one() -> None:
    found = cuts.learning_cuts(0.0, 300.0, 91.0)
    assert found[-1] == 209.0
    assert found[0] >= 35.0
    np.testing.assert_array_equal(np.diff(found), 14)
    with pytest.raises(ValueError, match="expected at least 3"):
        cuts.learning_cuts(0.0, 130.0, 91.0)


def test_counts_treat_a_day_as_one_purchase() -> None:
    shop = make_visits(["a"] * 4 + ["b"], [1.2, 1.9, 5.0, 9.5, 50.0], [10.0, 5.0, 20.0, 40.0, 1.0])
    found = counts(shop, 30.0)
    assert found.customer.tolist() == [0]
    assert (found.frequency[0], found.recency[0], found.age[0]) == (2, 8, 29)
    assert found.average[0] == pytest.approx(30)
    days, spend = next_purchase(shop, np.array([0, 1]), 9.0, 45.0)
    np.testing.assert_allclose(days, [0.5, 41.0])
    np.testing.assert_allclose(spend, [40.0, 1.0])


def test_columns_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"spend has shape \(1,\); expected \(2,\)"):
        make_visits(["a", "b"], [1, 2], [3])
    with pytest.raises(ValueError, match="at of visit 1"):
        make_visits(["a", "b"], [1, np.nan], [3, 3])


def test_survival_targets_of_hand_worked_cases() -> None:
    edges = (1.0, 7.0, 28.0)
    days = np.array([0.5, 3.0, np.inf, np.inf, 10.0, 7.0])
    observed = np.array([28.0, 28.0, 28.0, 10.0, 8.0, 28.0])
    found = survival.targets(days, observed, edges)
    np.testing.assert_array_equal(
        found[:, 0], [[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 0], [1, 1, 0], [1, 1, 1]]
    )
    assert survival.targets(np.array([8.0]), np.array([9.0]), edges)[0].tolist() == [[1, 1, 0], [0, 0, 0]]
    np.testing.assert_array_equal(
        found[:, 1], [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1]]
    )
    with pytest.raises(ValueError, match="days of customer 0"):
        survival.targets(np.array([-1.0]), np.array([3.0]))


def buyers(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features and exponential days to the next purchase with a rate that one feature decides."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.integers(0, 2, size), rng.normal(size=size)]).astype(float)
    return X, rng.exponential(np.where(X[:, 0] > 0, 5.0, 30.0))


def test_survival_is_that_of_the_known_distribution_despite_censoring(tmp_path: pathlib.Path) -> None:
    X, days = buyers(6000, 0)
    observed = np.random.default_rng(2).uniform(5, 80, len(X))
    held, held_days = buyers(2000, 1)
    wanted = survival.targets(days, observed), survival.targets(held_days, np.full(2000, 56.0))
    model = survival.fit(X, wanted[0], (held, wanted[1]), FAST)
    asked = np.array([[1.0, 0.0], [0.0, 0.0]])
    found = model.survival(asked)
    assert (np.diff(found, axis=1) <= 0).all()
    edges = np.array(model.edges)
    np.testing.assert_allclose(found[0], np.exp(-edges / 5), atol=0.06)
    np.testing.assert_allclose(found[1], np.exp(-edges / 30), atol=0.06)
    assert model.churn(asked, 28.0) == pytest.approx(found[:, model.edges.index(28.0)])
    between = model.churn(asked, 35.0)
    assert (between < model.churn(asked, 28.0)).all()
    assert (between > model.churn(asked, 42.0)).all()
    assert model.median_days(asked)[0] == 5.0
    with pytest.raises(ValueError, match="days is 99"):
        model.churn(asked, 99.0)
    path = tmp_path / "churn.onnx"
    export.export_head(model.head, 2, "survival", path)
    rows = np.concatenate([held[:30], [[np.nan, 1e6]]])
    assert export.check_parity(path, "survival", model.survival, rows) < 1e-5


def test_ziln_is_that_of_the_known_distribution() -> None:
    rng = np.random.default_rng(0)
    X = rng.integers(0, 2, (8000, 1)).astype(float)
    spends = rng.random(8000) < np.where(X[:, 0] > 0, 0.9, 0.3)
    spend = np.where(spends, np.exp(rng.normal(np.where(X[:, 0] > 0, 4.0, 3.0), 0.5)), 0.0)
    model = ziln.fit(X[:6000], spend[:6000], (X[6000:], spend[6000:]), FAST)
    asked = np.array([[1.0], [0.0]])
    np.testing.assert_allclose(model.p_spend(asked), [0.9, 0.3], atol=0.03)
    np.testing.assert_allclose(model.expected(asked), [0.9 * np.exp(4.125), 0.3 * np.exp(3.125)], rtol=0.08)
    np.testing.assert_allclose(model.median(asked), [np.median(spend[X[:, 0] > 0]), 0.0], rtol=0.08)
    with pytest.raises(ValueError, match="spend holds negative"):
        ziln.fit(X, spend - 1, (X, spend), FAST)
    with pytest.raises(ValueError, match="spend is 0 for every customer"):
        ziln.fit(X, 0 * spend, (X, spend), FAST)
