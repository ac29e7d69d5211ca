"""How much of what learners say about contacts the shop's trials support: numbers to shrink with, not tests to pass.

Acting on an effect only where it is significant throws away what is known; acting on it as estimated overstates it.
Averages of several channels are shrunk towards one another by a random-effects model (DerSimonian and Laird 1986).
Differences between customers are shrunk by how far later trials confirm them: the slope of the observed on the predicted
effect (best linear predictor, Chernozhukov et al. 2018), over all channels, times the share of it that is not noise
(positive-part shrinkage, James and Stein 1961).

Belongs here: the arithmetic. Does not belong here: learners, protocol (`train_contacts.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def agreement(
    score: Floats, treated: Flags, outcome: Floats, covariates: Floats, group: Ints
) -> tuple[float, float]:
    """Slope of the observed on the predicted effect in a trial that the prediction has not seen.

    Least squares of the outcome on covariates, the contact, and the contact by the predicted effect.

    Args:
        score: float64[M], predicted effects.
        treated: bool[M].
        outcome: float64[M].
        covariates: float64[M, K], known before, finite; they only take noise away.
        group: int64[M], rows of one customer have one number; errors may depend within it.

    Returns:
        Slope (1: as predicted, 0: the prediction says nothing about who differs) and its standard error; (0, infinite)
        where all predictions are equal.
    """
    spread = float(np.std(score))
    if spread < 1e-9:
        return 0.0, float("inf")
    z = (score - score.mean()) / spread
    contact = treated.astype(np.float64) - treated.mean()
    design = np.column_stack([np.ones(len(z)), covariates, z, contact, contact * z])
    inverse = np.linalg.pinv(design.T @ design)
    weight = inverse @ design.T @ outcome
    pull = design * (outcome - design @ weight)[:, None]
    _, place = np.unique(group, return_inverse=True)
    sums = np.zeros((int(place.max()) + 1, design.shape[1]))
    np.add.at(sums, place, pull)
    variance = inverse @ (sums.T @ sums) @ inverse
    return float(weight[-1] / spread), float(np.sqrt(max(variance[-1, -1], 0.0)) / spread)


def individual_share(slopes: Sequence[tuple[float, float]]) -> float:
    """Share of the differences between customers to act upon, from 0 to 1.

    Args:
        slopes: Slope and standard error of each channel, put together by precision.
    """
    known = [(slope, error) for slope, error in slopes if np.isfinite(error) and error > 0]
    if not known:
        return 0.0
    precision = np.array([1 / error**2 for _, error in known])
    slope = float(np.sum(precision * [slope for slope, _ in known]) / precision.sum())
    if slope <= 0:
        return 0.0
    return min(slope, 1.0) * max(0.0, 1 - 1 / float(precision.sum()) / slope**2)


def pooled(averages: Sequence[tuple[float, float]]) -> list[float]:
    """Averages shrunk towards one another, as far as their differences may be chance.

    Args:
        averages: Average effect and standard error (above 0) of each channel; one or two are left as they are.
    """
    value, error = (np.array(each, np.float64) for each in zip(*averages, strict=True))
    if len(value) < 3:
        return value.tolist()
    weight = 1 / error**2
    mean = float(np.sum(weight * value) / weight.sum())
    scatter = float(np.sum(weight * (value - mean) ** 2))
    between = max(0.0, (scatter - (len(value) - 1)) / float(weight.sum() - np.sum(weight**2) / weight.sum()))
    both = 1 / (error**2 + between)
    centre = float(np.sum(both * value) / both.sum())
    kept = between / (between + error**2)
    return (centre + kept * (value - centre)).tolist()
