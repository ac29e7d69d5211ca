"""How good a prediction about customers is: order, calibration, and paired intervals.

Belongs here: measures of any score against what happened. Does not belong here: Qini (`qini.py`), ranking
(`training/evaluation`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from scipy import stats

from training.evaluation.statistics import Interval

Floats = npt.NDArray[np.float64]
Measure = Callable[[Floats, Floats], float]

BINS = 15
RESAMPLES = 500


def auc(score: Floats, happened: Floats) -> float:
    """Probability that a random case scores above a random other one, ties counting half (Mann and Whitney).

    Raises:
        ValueError: Only one class.
    """
    score, positive = np.asarray(score, np.float64), np.asarray(happened).astype(bool)
    n_1, n_0 = int(positive.sum()), int((~positive).sum())
    if not n_1 or not n_0:
        raise ValueError(f"happened holds {n_1} cases and {n_0} others; expected some of both")
    ranks = stats.rankdata(score)
    return float((ranks[positive].sum() - n_1 * (n_1 + 1) / 2) / (n_1 * n_0))


def normalized_gini(score: Floats, amount: Floats) -> float:
    """Gini of amounts sorted by score over that of the perfect order (Wang, Liu and Miao 2019); 1 is perfect.

    The area is taken over customers sorted by falling score, ties in the given order.

    Raises:
        ValueError: Amounts are negative or all equal.
    """
    amount = np.asarray(amount, np.float64)
    if np.any(amount < 0) or amount.max() == amount.min():
        raise ValueError("amounts are negative or all equal; expected amounts of at least 0 that differ")

    def area(by: Floats) -> float:
        gained = np.cumsum(amount[np.argsort(-by, kind="stable")])
        return float(np.mean(gained / gained[-1]) - (len(amount) + 1) / (2 * len(amount)))

    return area(np.asarray(score, np.float64)) / area(amount)


def spearman(score: Floats, amount: Floats) -> float:
    """Correlation of ranks."""
    return float(stats.spearmanr(score, amount).statistic)


def mean_absolute_error(predicted: Floats, amount: Floats) -> float:
    """Mean of absolute differences."""
    return float(np.mean(np.abs(np.asarray(predicted) - np.asarray(amount))))


@dataclasses.dataclass(frozen=True, eq=False)
class Reliability:
    """A calibration curve.

    Attributes:
        predicted: float64[B], mean probability per bin.
        happened: float64[B], share that happened.
        size: float64[B], predictions in the bin.
    """

    predicted: Floats
    happened: Floats
    size: Floats

    @property
    def error(self) -> float:
        """Expected calibration error: mean gap of the bins, weighted by size."""
        return float(np.average(np.abs(self.predicted - self.happened), weights=self.size))


def reliability(probability: Floats, happened: Floats, bins: int = BINS) -> Reliability:
    """Calibration in bins of equal size by rank (15 by default).

    Raises:
        ValueError: A probability is outside [0, 1], or there are fewer predictions than bins.
    """
    p, y = np.asarray(probability, np.float64), np.asarray(happened, np.float64)
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError("probability reaches outside of 0 to 1")
    if len(p) < bins:
        raise ValueError(f"{len(p)} predictions for {bins} bins; expected at least one in each")
    parts = np.array_split(np.argsort(p, kind="stable"), bins)
    return Reliability(
        np.array([p[part].mean() for part in parts]),
        np.array([y[part].mean() for part in parts]),
        np.array([len(part) for part in parts], np.float64),
    )


def equal_width_error(probability: Floats, happened: Floats, bins: int = BINS) -> float:
    """Expected calibration error over bins of equal width on [0, 1] (Guo et al. 2017)."""
    p, y = np.asarray(probability, np.float64), np.asarray(happened, np.float64)
    place = np.minimum((p * bins).astype(np.int64), bins - 1)
    gap = np.abs(np.bincount(place, p - y, minlength=bins))
    return float(gap.sum() / len(p))


def paired_bootstrap(
    measure: Measure,
    predictions: Mapping[str, Floats],
    happened: Floats,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Floats]:
    """A measure of several predictions on the same resampled customers.

    Returns:
        By name float64[resamples + 1]; the first is the estimate on the customers as they are. Differences of
        two rows are paired.
    """
    happened = np.asarray(happened, np.float64)
    rng = np.random.default_rng(seed)
    size = len(happened)
    picks = [np.arange(size), *(rng.integers(0, size, size) for _ in range(resamples))]
    return {
        name: np.array([measure(values[rows], happened[rows]) for rows in picks])
        for name, values in predictions.items()
    }


def interval_of(draws: Floats, level: float = 0.95) -> Interval:
    """Estimate and percentile interval of one row of `paired_bootstrap`, or of a difference of two."""
    tail = (1 - level) / 2
    low, high = np.quantile(draws[1:], [tail, 1 - tail])
    return Interval(float(draws[0]), float(low), float(high))
