"""Will this session end in a purchase? Gradient-boosted trees over a session's features, calibrated.

Trees are fitted with cross-fitting; their out-of-fold log-odds fit a Platt scaling (Platt 1999), so that calibration
never sees a session that its trees have learned from. Scores served are the mean log-odds of the folds' trees
through that scaling.

Belongs here: encoding of a session's fields, fit, predict. Does not belong here: export (`export.py`), reading files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import lightgbm as lgb
import msgspec
import numpy as np
import numpy.typing as npt
from scipy import optimize, special

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NUMBERS = (
    "Administrative", "Administrative_Duration", "Informational", "Informational_Duration", "ProductRelated",
    "ProductRelated_Duration", "BounceRates", "ExitRates", "PageValues", "SpecialDay", "OperatingSystems", "Browser",
    "Region", "TrafficType",
)  # fmt: skip
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "June", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
VISITORS = ("New_Visitor", "Other", "Returning_Visitor")
DERIVED = ("pages", "seconds", "seconds_per_product_page", "exit_over_bounce", "page_values_times_pages")
FEATURES = (*NUMBERS, "Month", "VisitorType", "Weekend", *DERIVED)


class IntentParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The trees.

    Attributes:
        trees: Per model.
        leaves: Of each tree.
        learning_rate: Shrinkage.
        min_leaf: Fewest sessions in a leaf.
        ridge: L2 penalty of leaves.
        feature_share: Share of features that a tree sees.
        row_share: Share of sessions that a tree sees.
        folds: Of cross-fitting.
        threads: CPU threads.
    """

    trees: int = 350
    leaves: int = 12
    learning_rate: float = 0.02
    min_leaf: int = 30
    ridge: float = 5.0
    feature_share: float = 0.5
    row_share: float = 0.7
    folds: int = 5
    threads: int = 1


def encode(columns: Mapping[str, Sequence[object] | npt.NDArray[np.generic]]) -> Floats:
    """Fields of sessions as features.

    Args:
        columns: By name as in online-shoppers-intention: NUMBERS, ``Month``, ``VisitorType`` and ``Weekend``.

    Returns:
        float64[M, len(FEATURES)].

    Raises:
        ValueError: A field is missing, or a value is unknown; the message names the field and what was expected.
    """
    for name in (*NUMBERS, "Month", "VisitorType", "Weekend"):
        if name not in columns:
            raise ValueError(
                f"field '{name}' is missing; expected all of {', '.join(FEATURES[: -len(DERIVED)])}"
            )
    found: dict[str, Floats] = {}
    for name in NUMBERS:
        try:
            found[name] = np.asarray(columns[name], np.float64)
        except ValueError as error:
            raise ValueError(f"field '{name}' holds something else than numbers: {error}") from error
    found["Month"] = _places("Month", columns["Month"], MONTHS)
    found["VisitorType"] = _places("VisitorType", columns["VisitorType"], VISITORS)
    weekend = [str(value).lower() for value in columns["Weekend"]]
    found["Weekend"] = _places("Weekend", weekend, ("false", "true"))
    pages = found["Administrative"] + found["Informational"] + found["ProductRelated"]
    seconds = sum(found[f"{kind}_Duration"] for kind in ("Administrative", "Informational", "ProductRelated"))
    derived = (
        pages, seconds, found["ProductRelated_Duration"] / np.maximum(found["ProductRelated"], 1),
        found["ExitRates"] - found["BounceRates"], found["PageValues"] * pages,
    )  # fmt: skip
    found |= dict(zip(DERIVED, derived, strict=True))
    return np.column_stack([found[name] for name in FEATURES])


def _places(name: str, values: Sequence[object] | npt.NDArray[np.generic], known: Sequence[str]) -> Floats:
    index = {value: place for place, value in enumerate(known)}
    found = [index.get(str(value), -1) for value in values]
    if -1 in found:
        wrong = values[found.index(-1)]
        raise ValueError(f"field '{name}' holds '{wrong}'; expected one of {', '.join(known)}")
    return np.array(found, np.float64)


@dataclasses.dataclass(frozen=True, eq=False)
class Intent:
    """A fitted intent model.

    Attributes:
        boosters: One per fold of the cross-fitting.
        slope: Of the Platt scaling.
        intercept: Of the Platt scaling.
        out_of_fold: float64[M], calibrated probability of each training session by trees that have not seen it;
            the scaling has two numbers, fitted on all of them.
    """

    boosters: tuple[lgb.Booster, ...]
    slope: float
    intercept: float
    out_of_fold: Floats

    def log_odds(self, X: Floats) -> Floats:
        """float64[M], uncalibrated: the mean of the folds."""
        return np.mean([booster.predict(X, raw_score=True) for booster in self.boosters], axis=0)

    def predict(self, X: Floats) -> Floats:
        """float64[M, F] to float64[M], probability that the session ends in a purchase.

        Raises:
            ValueError: The number of features differs from what was learned from.
        """
        X = single(X)
        width = self.boosters[0].num_feature()
        if X.ndim != 2 or X.shape[1] != width:
            raise ValueError(f"features have shape {X.shape}; expected float64[M, {width}]")
        return special.expit(self.slope * self.log_odds(X) + self.intercept)


def fit(
    X: Floats,
    bought: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    params: IntentParams | None = None,
    seed: int = 0,
) -> Intent:
    """Fit trees and calibration.

    Args:
        X: float64[M, F].
        bought: bool[M].
        groups: int64[M], rows that must stay together, such as sessions that are the same in every field; see
            `same_rows`. Each row by itself by default.
        params: The trees.
        seed: Of every random choice.

    Raises:
        ValueError: Shapes do not fit, or a fold holds one class only.
    """
    X, y = single(X), np.asarray(bought).astype(np.float64)
    if X.ndim != 2 or y.shape != (len(X),):
        raise ValueError(
            f"features and bought have shapes {X.shape}, {y.shape}; expected float64[M, F] and bool[M]"
        )
    chosen = params or IntentParams()
    fold = folds_of(y, np.arange(len(y)) if groups is None else groups, chosen.folds, seed)
    boosters, log_odds = [], np.zeros(len(y))
    for number in range(chosen.folds):
        inside = fold == number
        if y[~inside].min() == y[~inside].max():
            raise ValueError(f"fold {number} leaves one class only to learn from; expected sessions of both")
        booster = lgb.train(
            {
                "objective": "binary", "num_leaves": chosen.leaves, "learning_rate": chosen.learning_rate,
                "min_data_in_leaf": chosen.min_leaf, "lambda_l2": chosen.ridge,
                "feature_fraction": chosen.feature_share, "bagging_fraction": chosen.row_share, "bagging_freq": 1,
                "num_threads": chosen.threads, "seed": seed + number, "deterministic": True,
                "force_row_wise": True, "verbosity": -1,
            },
            lgb.Dataset(X[~inside], y[~inside]),
            num_boost_round=chosen.trees,
        )  # fmt: skip
        log_odds[inside] = booster.predict(X[inside], raw_score=True)
        boosters.append(booster)
    slope, intercept = platt(log_odds, y)
    return Intent(tuple(boosters), slope, intercept, special.expit(slope * log_odds + intercept))


def single(X: npt.ArrayLike) -> Floats:
    """Features with the precision that the served graph reads (float32), so that no threshold tells them apart."""
    return np.asarray(X, np.float32).astype(np.float64)


def platt(log_odds: Floats, happened: Floats) -> tuple[float, float]:
    """Slope and intercept that make log-odds probabilities, by maximum likelihood."""

    def loss(line: Floats) -> tuple[float, Floats]:
        z = line[0] * log_odds + line[1]
        gap = special.expit(z) - happened
        return float(np.mean(np.logaddexp(0, z) - happened * z)), np.array(
            [np.mean(gap * log_odds), gap.mean()]
        )

    found = optimize.minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS")
    return float(found.x[0]), float(found.x[1])


def same_rows(X: Floats) -> Ints:
    """Number of each row's group of equal rows."""
    return np.unique(np.asarray(X), axis=0, return_inverse=True)[1].ravel().astype(np.int64)


def folds_of(happened: npt.ArrayLike, groups: npt.ArrayLike, folds: int, seed: int) -> Ints:
    """Random folds, evenly by class, equal groups together.

    A group counts as a case if any of its rows does.

    Returns:
        int64[M] in [0, folds).

    Raises:
        ValueError: Fewer than two folds, or fewer groups than folds.
    """
    y = np.asarray(happened).astype(bool)
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    size = int(group.max()) + 1 if len(group) else 0
    if folds < 2 or size < folds:
        raise ValueError(f"{folds} folds of {size} groups; expected at least 2 folds and a group in each")
    case = np.bincount(group, y, minlength=size) > 0
    order = np.random.default_rng(seed).permutation(size)
    order = order[np.argsort(case[order], kind="stable")]
    fold = np.empty(size, np.int64)
    fold[order] = np.arange(size) % folds
    return fold[group]
