"""Qini: how well a score orders customers by what a contact changes (Radcliffe 2007).

Sort customers by score, highest first. After the first k of N, with n_t treated and n_c untreated customers
and y_t and y_c outcomes among them, the curve is ``Q(k) = (y_t - y_c n_t / n_c) / N_t``: outcomes that the contact
caused among those k, scaled to the group sizes, per treated customer of all; Q = 0 where n_c = 0. At the right
end it is the average effect. The coefficient is the area between the curve and the straight line from
(0, 0) to (1, Q(N)), over the share k / N, by trapezoids. It is not divided by the area of a perfect order,
which nobody can know. Customers with equal scores enter together, so their order does not matter.

Belongs here: the curve, the coefficient, its bootstrap. Does not belong here: scores (`uplift.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

RESAMPLES = 500


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """A Qini curve.

    Attributes:
        share: float64[P], shares of customers contacted, from 0 to 1.
        gain: float64[P], outcomes caused per treated customer.
    """

    share: Floats
    gain: Floats

    @property
    def coefficient(self) -> float:
        """Area between the curve and the straight line to its end."""
        return float(np.trapezoid(self.gain, self.share) - self.gain[-1] / 2)

    def at(self, share: float) -> float:
        """Gain when this share of customers is contacted."""
        return float(np.interp(share, self.share, self.gain))


class _Order:
    """Customers sorted by score once, so that many weightings can be evaluated."""

    def __init__(self, score: Floats, treated: Flags, outcome: Floats) -> None:
        self.by = np.argsort(-score, kind="stable")
        ordered = score[self.by]
        self.ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
        self.treated = treated[self.by].astype(np.float64)
        self.outcome = outcome[self.by]

    def curve(self, weight: Floats | None) -> Curve:
        w = np.ones(len(self.by)) if weight is None else weight[self.by]
        treated, control = w * self.treated, w * (1 - self.treated)
        sums = [
            np.cumsum(part)[self.ends]
            for part in (treated, control, treated * self.outcome, control * self.outcome)
        ]
        n_t, n_c, y_t, y_c = sums
        if n_t[-1] == 0 or n_c[-1] == 0:
            raise ValueError("treated holds one group only; expected treated and untreated customers")
        gain = np.where(n_c > 0, y_t - y_c * n_t / np.where(n_c > 0, n_c, 1.0), 0.0) / n_t[-1]
        share = (n_t + n_c) / (n_t[-1] + n_c[-1])
        return Curve(np.concatenate([[0.0], share]), np.concatenate([[0.0], gain]))


def check_trial(treated: npt.ArrayLike, outcome: npt.ArrayLike) -> tuple[Flags, Floats]:
    """Arms and outcomes of a trial as arrays, if they can be used.

    Raises:
        ValueError: Lengths differ, an arm is missing, or an outcome is not finite.
    """
    arm, y = np.asarray(treated), np.asarray(outcome, np.float64)
    if arm.shape != y.shape or arm.ndim != 1:
        raise ValueError(
            f"treated and outcome have shapes {arm.shape}, {y.shape}; expected one array [C] each"
        )
    if not np.isin(arm, (0, 1)).all():
        raise ValueError("treated holds other values than 0 and 1; expected one arm against none")
    if not np.isfinite(y).all():
        raise ValueError(
            f"outcome of customer {int(np.flatnonzero(~np.isfinite(y))[0])} is not a finite number"
        )
    if arm.min(initial=1) == arm.max(initial=0):
        raise ValueError("treated holds one group only; expected treated and untreated customers")
    return arm.astype(bool), y


def qini_curve(
    score: Floats, treated: npt.ArrayLike, outcome: npt.ArrayLike, weight: Floats | None = None
) -> Curve:
    """The curve of one score.

    Args:
        score: float64[C], higher first.
        treated: bool[C].
        outcome: float64[C].
        weight: float64[C], how often each customer counts; once by default.

    Raises:
        ValueError: See `check_trial`; or a score is not a number.
    """
    arm, y = check_trial(treated, outcome)
    if np.shape(score) != y.shape or np.isnan(score).any():
        raise ValueError(f"score has shape {np.shape(score)} or holds NaN; expected float64[{len(y)}]")
    return _Order(np.asarray(score, np.float64), arm, y).curve(weight)


def qini(
    score: Floats, treated: npt.ArrayLike, outcome: npt.ArrayLike, weight: Floats | None = None
) -> float:
    """The Qini coefficient; see the head of this module for its definition.

    Raises:
        ValueError: As in `qini_curve`.
    """
    return qini_curve(score, treated, outcome, weight).coefficient


def resampled_qini(
    scores: Mapping[str, Sequence[Floats]],
    parts: Sequence[npt.NDArray[np.int64]],
    treated: npt.ArrayLike,
    outcome: npt.ArrayLike,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Floats]:
    """Mean Qini over parts under the bootstrap of customers, every score on the same resamples.

    Scores of different parts (folds) come from different models and are never sorted together; a customer who
    is in several parts, as in repeated cross-validation, is drawn for all of them at once.

    Args:
        scores: By name, for each part float64[rows of the part].
        parts: For each part int64, which customers.
        treated: bool[C].
        outcome: float64[C].
        resamples: How many.
        seed: Of the draws.

    Returns:
        By name float64[resamples + 1]; the first is the estimate on the customers as they are.
    """
    arm, y = check_trial(treated, outcome)
    orders = {
        name: [_Order(np.asarray(score), arm[rows], y[rows]) for score, rows in zip(each, parts, strict=True)]
        for name, each in scores.items()
    }
    rng = np.random.default_rng(seed)
    found: dict[str, list[float]] = {name: [] for name in scores}
    for draw in range(resamples + 1):
        drawn = np.arange(len(y)) if draw == 0 else rng.integers(0, len(y), len(y))
        weight = np.bincount(drawn, minlength=len(y)).astype(np.float64)
        for name, each in orders.items():
            values = [order.curve(weight[rows]).coefficient for order, rows in zip(each, parts, strict=True)]
            found[name].append(float(np.mean(values)))
    return {name: np.array(values) for name, values in found.items()}
