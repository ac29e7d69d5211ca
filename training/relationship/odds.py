"""What a contact changes, as one factor on the odds that few traits of the customer move.

Trees that look for an effect anywhere need far more customers than most shops contact. Here trees only learn how likely
a response is (from everybody, contacted or not, cross-fitted), and a logistic regression with few coefficients learns how
a contact moves these odds: by a common factor, more or less with the chance itself and with a few named traits.
A contact thus moves those most who might come anyway or not (an even chance), unless the trial says otherwise.

Belongs here: the learner. Does not belong here: other learners (`uplift.py`), how they are judged (`qini.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from training.relationship.intent import folds_of
from training.relationship.qini import check_trial
from training.relationship.uplift import UpliftParams

Floats = npt.NDArray[np.float64]

BASE_TREES, BASE_LEAVES = 120, 8
RIDGE = 20.0
"""Penalty of the traits' coefficients (on standardised traits), in units of one customer's log-likelihood."""


@dataclasses.dataclass(frozen=True, eq=False)
class Odds:
    """A fitted learner.

    Attributes:
        trees: Of the chance of a response, one per fold.
        traits: Columns of X that may move the effect.
        mean: float64[1 + traits] of log-odds and traits.
        scale: float64[1 + traits].
        weight: float64[3 + 1 + 2 traits]: intercept, slope of the log-odds, the contact, the contact by log-odds and by
            each trait, each trait by itself (the trees have learned from contacted customers too, and what a trait does
            to the effect has gone into them).
    """

    trees: tuple[lgb.Booster, ...]
    traits: tuple[int, ...]
    mean: Floats
    scale: Floats
    weight: Floats

    def predict(self, X: npt.ArrayLike) -> Floats:
        """float64[C, F] to float64[C]: change of the chance of a response by a contact."""
        rows = np.asarray(X, np.float64)
        base = np.mean([tree.predict(rows, raw_score=True, num_threads=1) for tree in self.trees], axis=0)
        z, size = self._standard(rows, base), 1 + len(self.traits)
        bare = self.weight[0] + self.weight[1] * base + z[:, 1:] @ self.weight[3 + size :]
        moved = bare + self.weight[2] + z @ self.weight[3 : 3 + size]
        return special.expit(moved) - special.expit(bare)

    def _standard(self, rows: Floats, base: Floats) -> Floats:
        z = (np.column_stack([base, rows[:, self.traits]]) - self.mean) / self.scale
        return np.where(np.isfinite(z), z, 0.0)

    def to_dict(self) -> dict[str, Any]:
        """The learner as JSON can hold it."""
        return {
            "learner": "odds", "trees": [tree.model_to_string() for tree in self.trees], "traits": list(self.traits),
            "mean": self.mean.tolist(), "scale": self.scale.tolist(), "weight": self.weight.tolist(),
        }  # fmt: skip


def odds_of(saved: Mapping[str, Any]) -> Odds:
    """A learner from what `Odds.to_dict` gave."""
    return Odds(
        tuple(lgb.Booster(model_str=text) for text in saved["trees"]), tuple(saved["traits"]),
        np.array(saved["mean"]), np.array(saved["scale"]), np.array(saved["weight"]),
    )  # fmt: skip


def fit(
    X: Floats,
    treated: npt.ArrayLike,
    outcome: npt.ArrayLike,
    traits: Sequence[int],
    groups: npt.ArrayLike | None = None,
    params: UpliftParams | None = None,
    seed: int = 0,
) -> Odds:
    """Fit the chance of a response, then how a contact moves it.

    Args:
        X: float64[C, F], known before the contact; NaN where a value is missing.
        treated: bool[C].
        outcome: float64[C], 0 or 1.
        traits: Columns of X that may move the effect.
        groups: int64[C], rows of one customer have one number; each row by itself by default.
        params: Leaf size, ridge and threads of the trees.
        seed: Of every random choice.

    Raises:
        ValueError: The trial cannot be used (see `check_trial`), or an outcome is neither 0 nor 1.
    """
    arm, y = check_trial(treated, outcome)
    if not np.isin(y, (0.0, 1.0)).all():
        raise ValueError("outcome holds other values than 0 and 1; expected whether a customer responded")
    X = np.asarray(X, np.float64)
    chosen = params or UpliftParams()
    fold = folds_of(y, np.arange(len(y)) if groups is None else groups, chosen.folds, seed)
    base, trees = np.zeros(len(y)), []
    for number in range(chosen.folds):
        inside = fold == number
        tree = lgb.train(
            {**chosen.lightgbm(seed + number), "objective": "binary", "num_leaves": BASE_LEAVES,
             "min_data_in_leaf": max(20, chosen.min_leaf // 4)},
            lgb.Dataset(X[~inside], y[~inside]), num_boost_round=BASE_TREES,
        )  # fmt: skip
        base[inside] = tree.predict(X[inside], raw_score=True, num_threads=chosen.threads)
        trees.append(tree)
    z = np.column_stack([base, X[:, list(traits)]])
    mean, scale = np.nanmean(z, axis=0), np.nanstd(z, axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    z = np.where(np.isfinite(z), (z - mean) / scale, 0.0)
    design = np.column_stack([np.ones(len(y)), base, arm, z * arm[:, None], z[:, 1:]])
    penalty = np.array([0.0, 0.0, 0.0, *[RIDGE] * (design.shape[1] - 3)])
    start = np.zeros(design.shape[1])
    start[1] = 1.0

    def loss(weight: Floats) -> tuple[float, Floats]:
        score = design @ weight
        value = np.sum(np.logaddexp(0, score) - y * score) + np.sum(penalty * weight**2) / 2
        slope = design.T @ (special.expit(score) - y) + penalty * weight
        return float(value), slope

    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B")
    return Odds(tuple(trees), tuple(int(place) for place in traits), mean, scale, found.x)
