"""Intent: encoding, folds, calibration and its ONNX file; measures against stock ones."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from training.relationship import export, intent, measures
from training.relationship.intent import IntentParams

QUICK = IntentParams(trees=40, leaves=6, learning_rate=0.1, folds=3)


def sessions(size: int = 1500, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    columns: dict[str, object] = {name: rng.gamma(1.0, 2.0, size).round(2) for name in intent.NUMBERS}
    columns["Month"] = rng.choice(intent.MONTHS, size)
    columns["VisitorType"] = rng.choice(intent.VISITORS, size)
    columns["Weekend"] = rng.choice(["TRUE", "FALSE"], size)
    X = intent.encode(columns)
    chance = 1 / (1 + np.exp(2.5 - X[:, intent.FEATURES.index("PageValues")]))
    return X, (rng.random(size) < chance).astype(float)


def test_encoding_names_what_is_wrong() -> None:
    one: dict[str, list[object]] = {name: [1.0] for name in intent.NUMBERS}
    one |= {"Month": ["June"], "VisitorType": ["Other"], "Weekend": [True]}
    row = dict(zip(intent.FEATURES, intent.encode(one)[0], strict=True))
    assert (row["Month"], row["VisitorType"], row["Weekend"], row["pages"]) == (5, 1, 1, 3)
    with pytest.raises(ValueError, match="field 'Month' holds 'Juni'; expected one of Jan"):
        intent.encode({**one, "Month": ["Juni"]})
    with pytest.raises(ValueError, match="field 'PageValues' is missing"):
        intent.encode({name: value for name, value in one.items() if name != "PageValues"})
    with pytest.raises(ValueError, match="field 'BounceRates' holds something else"):
        intent.encode({**one, "BounceRates": ["much"]})


def test_folds_keep_equal_rows_together_and_classes_even() -> None:
    X, bought = sessions(300)
    X, bought = np.concatenate([X, X[:50]]), np.concatenate([bought, bought[:50]])
    groups = intent.same_rows(X)
    fold = intent.folds_of(bought, groups, 5, 0)
    np.testing.assert_array_equal(fold[:50], fold[300:])
    shares = [bought[fold == number].mean() for number in range(5)]
    assert max(shares) - min(shares) < 0.1
    with pytest.raises(ValueError, match="5 folds of 1 groups"):
        intent.folds_of(bought, np.zeros(350), 5, 0)


def test_platt_is_logistic_regression() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=3000)
    y = (rng.random(3000) < 1 / (1 + np.exp(-(0.5 * z - 1)))).astype(float)
    stock = LogisticRegression(C=np.inf, tol=1e-8).fit(z[:, None], y)
    slope, intercept = intent.platt(z, y)
    assert (slope, intercept) == pytest.approx((stock.coef_[0, 0], stock.intercept_[0]), abs=1e-3)


def test_probabilities_of_unseen_sessions_are_calibrated_and_ordered() -> None:
    X, bought = sessions(3000)
    new, later = sessions(3000, seed=1)
    model = intent.fit(X, bought, params=QUICK)
    probability = model.predict(new)
    assert measures.auc(probability, later) > 0.75
    assert measures.reliability(probability, later, 8).error < 0.05
    assert measures.auc(model.out_of_fold, bought) < measures.auc(model.predict(X), bought)


def test_onnx_says_the_same(tmp_path: pathlib.Path) -> None:
    X, bought = sessions()
    model = intent.fit(X, bought, params=QUICK)
    path = tmp_path / "intent.onnx"
    export.export_intent(model, path)
    assert export.check_parity(path, "probability", model.predict, X) < 1e-5
    with pytest.raises(export.ParityError, match="differs by"):
        export.check_parity(path, "probability", lambda rows: model.predict(rows) + 0.01, X)


def test_auc_is_the_stock_one_with_ties() -> None:
    rng = np.random.default_rng(0)
    score, happened = rng.integers(0, 10, 500).astype(float), rng.integers(0, 2, 500).astype(float)
    assert measures.auc(score, happened) == pytest.approx(roc_auc_score(happened, score), abs=1e-12)
    with pytest.raises(ValueError, match="3 cases and 0 others"):
        measures.auc(np.arange(3.0), np.ones(3))


def test_gini_is_one_for_the_perfect_order_and_zero_on_average_for_a_random_one() -> None:
    rng = np.random.default_rng(0)
    amount = rng.gamma(0.5, 10, 800)
    assert measures.normalized_gini(amount, amount) == pytest.approx(1)
    assert measures.normalized_gini(-amount, amount) == pytest.approx(-1, abs=0.02)
    shuffled = [measures.normalized_gini(rng.random(800), amount) for _ in range(200)]
    assert abs(np.mean(shuffled)) < 0.01


def test_calibration_errors_of_a_hand_worked_case() -> None:
    p, y = np.array([0.1, 0.1, 0.9, 0.9]), np.array([0.0, 1.0, 1.0, 1.0])
    assert measures.reliability(p, y, 2).error == pytest.approx((0.4 + 0.1) / 2)
    assert measures.equal_width_error(p, y, 10) == pytest.approx((2 * 0.4 + 2 * 0.1) / 4)
    with pytest.raises(ValueError, match="outside of 0 to 1"):
        measures.reliability(np.array([1.2, 0.1]), y[:2], 2)


def test_bootstrap_is_paired() -> None:
    rng = np.random.default_rng(0)
    score, happened = rng.random(200), rng.integers(0, 2, 200).astype(float)
    drawn = measures.paired_bootstrap(measures.auc, {"a": score, "b": 2 * score}, happened, 30)
    np.testing.assert_array_equal(drawn["a"], drawn["b"])
    found = measures.interval_of(drawn["a"])
    assert found.low <= found.value <= found.high
