"""The Qini against counting by hand and by brute force; learners against an effect that is known."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from training.relationship.qini import qini, qini_curve, resampled_qini
from training.relationship.uplift import LEARNERS, UpliftParams, choose, effect_of, effects, fit, split

SMALL = UpliftParams(trees=60, leaves=4, min_leaf=50, learning_rate=0.1)


def brute_force(score: np.ndarray, treated: np.ndarray, outcome: np.ndarray) -> float:
    """One customer after the other, in an order without ties."""
    order = sorted(range(len(score)), key=lambda place: -score[place])
    points = [0.0]
    n_t = n_c = y_t = y_c = 0.0
    for place in order:
        if treated[place]:
            n_t, y_t = n_t + 1, y_t + outcome[place]
        else:
            n_c, y_c = n_c + 1, y_c + outcome[place]
        points.append((y_t - y_c * n_t / n_c if n_c else 0.0) / treated.sum())
    area = sum((a + b) / 2 for a, b in itertools.pairwise(points)) / len(order)
    return area - points[-1] / 2


def trial(size: int = 8000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features, arm, outcome (0, 1) and the true effect, which the second feature alone decides."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(size, 4))
    treated = rng.random(size) < 0.4
    effect = np.where(X[:, 1] > 0, 0.25, -0.05)
    chance = 0.3 + 0.1 * np.tanh(X[:, 0]) + treated * effect
    return X, treated, (rng.random(size) < chance).astype(float), effect


def test_qini_of_a_hand_worked_case() -> None:
    score = np.array([4.0, 3.0, 2.0, 1.0])
    treated = np.array([1, 0, 1, 0])
    outcome = np.array([1.0, 0.0, 0.0, 1.0])
    curve = qini_curve(score, treated, outcome)
    # k=1: no control yet, 0. k=2: 1 - 0. k=3: 1 - 0 * 2. k=4: 1 - 1 * 2 / 2 = 0; each over 2 treated.
    np.testing.assert_allclose(curve.gain, [0, 0, 0.5, 0.5, 0])
    assert curve.coefficient == pytest.approx((0 + 0.25 + 0.5 + 0.25) / 4)
    assert curve.at(0.625) == pytest.approx(0.5)


def test_qini_is_that_of_brute_force() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        size = int(rng.integers(5, 60))
        treated = rng.random(size) < 0.5
        treated[:2] = True, False
        score, outcome = rng.permutation(size).astype(float), rng.poisson(1, size).astype(float)
        assert qini(score, treated, outcome) == pytest.approx(brute_force(score, treated, outcome), abs=1e-12)


def test_ties_enter_together_so_their_order_does_not_matter() -> None:
    X, treated, outcome, _ = trial(500)
    score = np.round(X[:, 1])
    order = np.random.default_rng(0).permutation(500)
    assert qini(score, treated, outcome) == pytest.approx(
        qini(score[order], treated[order], outcome[order]), abs=1e-12
    )
    assert qini(np.zeros(500), treated, outcome) == pytest.approx(0, abs=1e-12)


def test_weights_are_repetitions() -> None:
    X, treated, outcome, _ = trial(300)
    weight = np.random.default_rng(0).integers(0, 4, 300)
    rows = np.repeat(np.arange(300), weight)
    assert qini(X[:, 1], treated, outcome, weight.astype(float)) == pytest.approx(
        qini(X[rows, 1], treated[rows], outcome[rows]), abs=1e-12
    )


def test_resampling_keeps_the_estimate_first_and_pairs_scores() -> None:
    _X, treated, outcome, effect = trial(2000)
    parts = [np.arange(1000), np.arange(1000, 2000)]
    scores = {"truth": [effect[rows] for rows in parts], "same": [2 * effect[rows] for rows in parts]}
    drawn = resampled_qini(scores, parts, treated, outcome, 50)
    expected = np.mean([qini(effect[rows], treated[rows], outcome[rows]) for rows in parts])
    assert drawn["truth"][0] == pytest.approx(expected)
    np.testing.assert_allclose(drawn["truth"], drawn["same"])
    assert drawn["truth"][1:].std() > 0


@pytest.mark.parametrize("learner", LEARNERS)
def test_learners_find_the_effect(learner: str) -> None:
    X, treated, outcome, _ = trial()
    new, new_arm, new_outcome, effect = trial(seed=1)
    found = fit(learner, X, treated, outcome, 0.4, SMALL).predict(new)
    assert np.corrcoef(found, effect)[0, 1] > 0.7
    assert found[effect > 0].mean() - found[effect < 0].mean() == pytest.approx(0.3, abs=0.12)
    assert qini(found, new_arm, new_outcome) > 0.7 * qini(effect, new_arm, new_outcome)


def test_t_learner_is_the_difference_of_two_plain_models() -> None:
    import lightgbm as lgb

    X, treated, outcome, _ = trial(2000)
    models = [
        lgb.train(
            {**SMALL.lightgbm(0), "objective": "binary"}, lgb.Dataset(X[arm], outcome[arm]), SMALL.trees
        )
        for arm in (treated, ~treated)
    ]
    expected = models[0].predict(X) - models[1].predict(X)
    np.testing.assert_allclose(fit("t", X, treated, outcome, None, SMALL).predict(X), expected)


def test_doubly_robust_survives_confounding_when_propensities_are_known() -> None:
    rng = np.random.default_rng(5)
    X = rng.normal(size=(12_000, 2))
    share = 1 / (1 + np.exp(-1.5 * X[:, 0]))
    treated = rng.random(len(X)) < share
    outcome = 2 * X[:, 0] + 0.5 * treated + rng.normal(size=len(X))
    found = fit("dr", X, treated, outcome, share, SMALL).predict(X)
    naive = outcome[treated].mean() - outcome[~treated].mean()
    assert abs(found.mean() - 0.5) < 0.15 < abs(naive - 0.5)


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_saved_learner_says_the_same(learner: str) -> None:
    X, treated, outcome, _ = trial(1500)
    model = fit(learner, X, treated, outcome, None, SMALL)
    loaded = effect_of(json.loads(json.dumps(model.to_dict())))
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    with pytest.raises(ValueError, match="learner is 'q'"):
        effect_of({"learner": "q"})


def test_choice_sees_only_the_given_customers() -> None:
    X, treated, outcome, _ = trial(3000)
    first, values = choose(X, treated, outcome, SMALL, ("s", "t", "blend"), folds=2)
    assert set(values) == {"s", "t", "blend"}
    assert first == max(values, key=lambda name: values[name])
    asked = effects(X, treated, outcome, X[:10], SMALL, ("t", "blend"))
    assert list(asked) == ["t", "blend"]


def test_split_spreads_arms_and_outcomes() -> None:
    _, treated, outcome, _ = trial(1000)
    fold = split(treated, outcome, 4, 0)
    for arm in (True, False):
        for value in (0.0, 1.0):
            sizes = np.bincount(fold[(treated == arm) & (outcome == value)], minlength=4)
            assert sizes.max() - sizes.min() <= 1


def test_trials_that_cannot_be_used_are_refused() -> None:
    X, treated, outcome, _ = trial(100)
    with pytest.raises(ValueError, match="one group only"):
        qini(X[:, 0], np.ones(100), outcome)
    with pytest.raises(ValueError, match="other values than 0 and 1"):
        qini(X[:, 0], np.arange(100), outcome)
    with pytest.raises(ValueError, match="outcome of customer 3"):
        qini(X[:, 0], treated, np.where(np.arange(100) == 3, np.nan, outcome))
    with pytest.raises(ValueError, match="propensity reaches 0 or 1"):
        fit("x", X, treated, outcome, 1.0, SMALL)
    with pytest.raises(ValueError, match="learner is 'z'"):
        fit("z", X, treated, outcome, None, SMALL)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="X has shape"):
        fit("s", X[:50], treated, outcome, None, SMALL)
