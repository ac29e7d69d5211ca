"""What a contact changes, for each customer: S, T, X and DR learners over LightGBM.

S and T learners are the plain ones, the X learner is that of Künzel et al. (2019), the DR learner that of
Kennedy (2023, algorithm 1): outcome models on some folds, the effect on another, averaged over rotations. Who was
contacted is expected to be random with a known probability, as in a trial; the probability may vary by customer.

Belongs here: the learners, how one is chosen. Does not belong here: how they are judged (`qini.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import lightgbm as lgb
import msgspec
import numpy as np
import numpy.typing as npt

from training.relationship.qini import check_trial, qini

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Learner = Literal["s", "t", "x", "dr", "blend"]

SINGLE: tuple[Learner, ...] = ("s", "t", "x", "dr")
LEARNERS: tuple[Learner, ...] = (*SINGLE, "blend")


class UpliftParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The trees under every learner.

    Attributes:
        trees: Per model.
        leaves: Of each tree.
        learning_rate: Shrinkage.
        min_leaf: Fewest customers in a leaf.
        ridge: L2 penalty of leaves.
        feature_share: Share of features that a tree sees.
        folds: Of the DR learner's sample splitting.
        threads: CPU threads.
    """

    trees: int = 60
    leaves: int = 4
    learning_rate: float = 0.03
    min_leaf: int = 400
    ridge: float = 10.0
    feature_share: float = 0.8
    folds: int = 3
    threads: int = 1

    def lightgbm(self, seed: int) -> dict[str, float | int | bool]:
        """The same as LightGBM calls it."""
        return {
            "num_leaves": self.leaves, "learning_rate": self.learning_rate, "min_data_in_leaf": self.min_leaf,
            "lambda_l2": self.ridge, "feature_fraction": self.feature_share, "num_threads": self.threads,
            "seed": seed, "verbosity": -1, "deterministic": True, "force_row_wise": True,
        }  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Trees:
    """One LightGBM model.

    Attributes:
        booster: The trees.
        threads: CPU threads of a prediction.
    """

    booster: lgb.Booster
    threads: int = 1

    def __call__(self, X: Floats) -> Floats:
        """float64[C, F] to float64[C]."""
        return np.asarray(self.booster.predict(X, num_threads=self.threads), np.float64)


@dataclasses.dataclass(frozen=True, eq=False)
class Effect:
    """A fitted learner.

    Attributes:
        learner: Which one; it says how its trees are put together.
        trees: ``s``: one model that also reads the arm. ``t``: of the treated, of the others. ``x``: the effect learned
            from the others, from the treated. ``dr``: one per rotation. ``blend``: none.
        share: Weight of the first effect of ``x``.
        parts: The learners that ``blend`` averages.
    """

    learner: Learner
    trees: tuple[Trees, ...] = ()
    share: float = 0.5
    parts: tuple[Effect, ...] = ()

    def predict(self, X: npt.ArrayLike) -> Floats:
        """float64[C, F] to float64[C]: change of the outcome's mean by a contact."""
        rows = np.asarray(X, np.float64)
        if self.learner == "blend":
            return np.mean([part.predict(rows) for part in self.parts], axis=0)
        if self.learner == "s":
            ones = np.ones(len(rows))
            (model,) = self.trees
            return model(np.column_stack([rows, ones])) - model(np.column_stack([rows, 0 * ones]))
        found = [trees(rows) for trees in self.trees]
        if self.learner == "t":
            return found[0] - found[1]
        if self.learner == "x":
            return self.share * found[0] + (1 - self.share) * found[1]
        return np.mean(found, axis=0)

    def to_dict(self) -> dict[str, Any]:
        """The learner as JSON can hold it."""
        return {
            "learner": self.learner, "share": self.share,
            "trees": [trees.booster.model_to_string() for trees in self.trees],
            "parts": [part.to_dict() for part in self.parts],
        }  # fmt: skip


def effect_of(saved: Mapping[str, Any], threads: int = 1) -> Effect:
    """A learner from what `Effect.to_dict` gave.

    Raises:
        ValueError: The learner is unknown.
    """
    if saved["learner"] not in LEARNERS:
        raise ValueError(f"learner is '{saved['learner']}'; expected one of {', '.join(LEARNERS)}")
    return Effect(
        saved["learner"],
        tuple(Trees(lgb.Booster(model_str=text), threads) for text in saved["trees"]),
        float(saved["share"]),
        tuple(effect_of(part, threads) for part in saved["parts"]),
    )


def fit(
    learner: Learner,
    X: Floats,
    treated: npt.ArrayLike,
    outcome: npt.ArrayLike,
    propensity: Floats | float | None = None,
    params: UpliftParams | None = None,
    seed: int = 0,
) -> Effect:
    """Fit one learner.

    Args:
        learner: ``s``, ``t``, ``x``, ``dr``, or ``blend``: the mean of these four.
        X: float64[C, F], known before the contact; NaN where a value is missing.
        treated: bool[C].
        outcome: float64[C]; with 0 and 1 only, outcomes are learned as probabilities.
        propensity: Probability of being treated, one number or float64[C]; the share treated by default.
        params: The trees.
        seed: Of every random choice.

    Raises:
        ValueError: The trial cannot be used (see `check_trial`), or a propensity is not inside (0, 1).
    """
    arm, y = check_trial(treated, outcome)
    X = np.asarray(X, np.float64)
    if X.ndim != 2 or len(X) != len(y):
        raise ValueError(f"X has shape {X.shape}; expected float64[{len(y)}, F]")
    share = np.broadcast_to(np.asarray(arm.mean() if propensity is None else propensity, np.float64), y.shape)
    if not np.all((share > 0) & (share < 1)):
        raise ValueError("propensity reaches 0 or 1; expected numbers between, or nobody can be compared")
    chosen = params or UpliftParams()
    if learner == "blend":
        return Effect("blend", parts=tuple(fit(name, X, arm, y, share, chosen, seed) for name in SINGLE))
    if learner not in SINGLE:
        raise ValueError(f"learner is '{learner}'; expected one of {', '.join(LEARNERS)}")
    return {"s": _fit_s, "t": _fit_t, "x": _fit_x, "dr": _fit_dr}[learner](X, arm, y, share, chosen, seed)


def _model(X: Floats, y: Floats, params: UpliftParams, seed: int) -> Trees:
    binary = bool(np.isin(y, (0.0, 1.0)).all())
    booster = lgb.train(
        {**params.lightgbm(seed), "objective": "binary" if binary else "regression"},
        lgb.Dataset(X, y),
        num_boost_round=params.trees,
    )
    return Trees(booster, params.threads)


def _fit_s(X: Floats, arm: Flags, y: Floats, share: Floats, params: UpliftParams, seed: int) -> Effect:
    return Effect("s", (_model(np.column_stack([X, arm]), y, params, seed),))


def _fit_t(X: Floats, arm: Flags, y: Floats, share: Floats, params: UpliftParams, seed: int) -> Effect:
    return Effect("t", (_model(X[arm], y[arm], params, seed), _model(X[~arm], y[~arm], params, seed)))


def _fit_x(X: Floats, arm: Flags, y: Floats, share: Floats, params: UpliftParams, seed: int) -> Effect:
    treated, control = _model(X[arm], y[arm], params, seed), _model(X[~arm], y[~arm], params, seed)
    of_treated = _model(X[arm], y[arm] - control(X[arm]), params, seed + 1)
    of_control = _model(X[~arm], treated(X[~arm]) - y[~arm], params, seed + 1)
    return Effect("x", (of_control, of_treated), float(share.mean()))


def _fit_dr(X: Floats, arm: Flags, y: Floats, share: Floats, params: UpliftParams, seed: int) -> Effect:
    fold = split(arm, y, params.folds, seed)
    finals = []
    for number in range(params.folds):
        inside, outside = fold == number, fold != number
        treated = _model(X[outside & arm], y[outside & arm], params, seed)(X[inside])
        control = _model(X[outside & ~arm], y[outside & ~arm], params, seed)(X[inside])
        known = np.where(arm[inside], treated, control)
        weight = (arm[inside] - share[inside]) / (share[inside] * (1 - share[inside]))
        pseudo = treated - control + weight * (y[inside] - known)
        finals.append(_model(X[inside], pseudo, params, seed + 1))
    return Effect("dr", tuple(finals))


def split(treated: npt.ArrayLike, outcome: npt.ArrayLike, folds: int, seed: int) -> Ints:
    """Fold of each customer, with arms and (0, 1) outcomes spread evenly.

    Returns:
        int64[C] in [0, folds).

    Raises:
        ValueError: Fewer than two folds, or the trial cannot be used.
    """
    if folds < 2:
        raise ValueError(f"folds is {folds}; expected at least 2")
    arm, y = check_trial(treated, outcome)
    order = np.random.default_rng(seed).permutation(len(y))
    order = order[np.lexsort((y[order], arm[order]))]
    fold = np.empty(len(y), np.int64)
    fold[order] = np.arange(len(y)) % folds
    return fold


def choose(
    X: Floats,
    treated: npt.ArrayLike,
    outcome: npt.ArrayLike,
    params: UpliftParams | None = None,
    learners: Sequence[Learner] = LEARNERS,
    folds: int = 3,
    seed: int = 0,
) -> tuple[Learner, dict[str, float]]:
    """The learner with the highest mean Qini on folds inside the given customers.

    Returns:
        Its name, and the mean Qini by learner.
    """
    arm, y = check_trial(treated, outcome)
    fold = split(arm, y, folds, seed)
    values: dict[str, list[float]] = {name: [] for name in learners}
    for number in range(folds):
        inside, outside = fold == number, fold != number
        scores = effects(X[outside], arm[outside], y[outside], X[inside], params, learners, seed)
        for name in learners:
            values[name].append(qini(scores[name], arm[inside], y[inside]))
    means = {name: float(np.mean(each)) for name, each in values.items()}
    return max(learners, key=lambda name: means[name]), means


def effects(
    X: Floats,
    treated: npt.ArrayLike,
    outcome: npt.ArrayLike,
    ask: Floats,
    params: UpliftParams | None = None,
    learners: Sequence[Learner] = LEARNERS,
    seed: int = 0,
) -> dict[str, Floats]:
    """Fit several learners on some customers and ask them about others.

    Returns:
        By learner float64[A], effects on the customers of ``ask``.
    """
    needed = SINGLE if "blend" in learners else [name for name in learners if name != "blend"]
    found = {name: fit(name, X, treated, outcome, None, params, seed).predict(ask) for name in needed}
    if "blend" in learners:
        found["blend"] = np.mean([found[name] for name in SINGLE], axis=0)
    return {name: found[name] for name in learners}
