"""Uncertainty of measured numbers: bootstrap intervals over requests.

Requests are resampled with replacement (Efron 1979, percentile intervals); two systems that answered the
same requests are resampled together, so that what is hard for both cancels out.

Belongs here: intervals. Does not belong here: verdicts (`gates.py`), metrics (`metrics.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RESAMPLES = 2000
CHUNK = 100


@dataclasses.dataclass(frozen=True)
class Interval:
    """An estimate and where it would fall in 95 of 100 repetitions.

    Attributes:
        value: The estimate.
        low: Lower bound.
        high: Upper bound.
    """

    value: float
    low: float
    high: float


def mean_interval(values: Floats, seed: int = 0, resamples: int = RESAMPLES, level: float = 0.95) -> Interval:
    """Mean of per-request values with its interval.

    Raises:
        ValueError: No values.
    """
    return _interval([values], lambda means: means[0], seed, resamples, level)


def difference_interval(
    ours: Floats, theirs: Floats, seed: int = 0, resamples: int = RESAMPLES, level: float = 0.95
) -> Interval:
    """Mean of ours minus mean of theirs, paired by request.

    Raises:
        ValueError: No values, or unequal lengths.
    """
    return _interval([ours, theirs], lambda means: means[0] - means[1], seed, resamples, level)


def ratio_interval(
    ours: Floats, theirs: Floats, seed: int = 0, resamples: int = RESAMPLES, level: float = 0.95
) -> Interval:
    """Mean of ours over mean of theirs, paired by request; infinite where theirs is 0.

    Raises:
        ValueError: No values, or unequal lengths.
    """

    def ratio(means: Floats) -> Floats:
        return np.where(means[1] > 0, means[0] / np.where(means[1] > 0, means[1], 1.0), np.inf)

    return _interval([ours, theirs], ratio, seed, resamples, level)


def _interval(
    columns: list[Floats], statistic: Callable[[Floats], Floats], seed: int, resamples: int, level: float
) -> Interval:
    lengths = {len(column) for column in columns}
    if lengths == {0} or len(lengths) != 1:
        raise ValueError(
            f"per-request values have lengths {sorted(lengths)}; expected one length of at least 1"
        )
    data = np.stack([np.asarray(column, np.float64) for column in columns])
    drawn = np.concatenate([statistic(means) for means in _resampled(data, seed, resamples)])
    tail = (1 - level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(float(statistic(data.mean(axis=1, keepdims=True))[0]), float(low), float(high))


def _resampled(data: Floats, seed: int, resamples: int) -> Iterator[Floats]:
    """Means of resampled columns, float64[columns, at most CHUNK] at a time."""
    rng = np.random.default_rng(seed)
    size = data.shape[1]
    for start in range(0, resamples, CHUNK):
        picks = rng.integers(0, size, (min(CHUNK, resamples - start), size))
        yield data[:, picks].mean(axis=2)
