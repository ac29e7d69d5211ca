"""Segments of customers: recency, frequency and money; or clusters whose number is the most stable one.

Clusters are k-means or Gaussian mixtures on standardised features or on embeddings. Their number is chosen by bootstrap
stability (Hennig 2007; Ben-Hur, Elisseeff and Guyon 2002): the model is fitted on two resamples and both label all
customers; the adjusted Rand index of the labels (Hubert and Arabie 1985), averaged over pairs, says how far the
segments are a property of the customers and not of the draw. Names state the features that set a segment apart.

Belongs here: assignment, choice of the number, names. Does not belong here: features (`summaries.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from contracts.predictions import RFM_SEGMENTS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Method = Literal["kmeans", "gmm"]

RFM_NAMES = {
    "champions": "bought lately, often, and much",
    "loyal": "buy often",
    "promising": "bought lately, not yet often",
    "slipping": "used to buy often, not lately",
    "asleep": "have not bought for long and never did often",
    "steady": "in the middle of everything",
}
assert tuple(RFM_NAMES) == RFM_SEGMENTS
TYPICAL = 0.5
"""Deviations from the mean below which a feature does not set a segment apart."""


@dataclasses.dataclass(frozen=True, eq=False)
class Rfm:
    """Quintile scores and the segment they lead to.

    Attributes:
        recency: int64[C] from 1 (longest ago) to 5 (latest).
        frequency: int64[C] from 1 to 5.
        money: int64[C] from 1 to 5.
        segment: str[C], a key of RFM_NAMES.
    """

    recency: Ints
    frequency: Ints
    money: Ints
    segment: npt.NDArray[np.str_]


def rfm(days_since: Floats, purchases: Floats, spend: Floats) -> Rfm:
    """Segment by recency, frequency and money.

    Args:
        days_since: float64[C], days since the last purchase.
        purchases: float64[C], how many.
        spend: float64[C], money.

    Raises:
        ValueError: Shapes differ, nobody is given, or a value is not finite.
    """
    columns = [
        check_matrix(np.asarray(each, np.float64)[:, None])[:, 0] for each in (days_since, purchases, spend)
    ]
    if len({len(column) for column in columns}) != 1:
        raise ValueError(
            f"days_since, purchases and spend have {[len(c) for c in columns]} rows; expected as many each"
        )
    r, f, m = _quintile(-columns[0]), _quintile(columns[1]), _quintile(columns[2])
    rules = [
        ("champions", (r >= 4) & (f >= 4) & (m >= 4)),
        ("slipping", (r <= 2) & (f >= 3)),
        ("loyal", (r >= 3) & (f >= 4)),
        ("promising", (r >= 4) & (f <= 3)),
        ("asleep", (r <= 2) & (f <= 2)),
    ]
    names = np.select([rule for _, rule in rules], [name for name, _ in rules], "steady")
    return Rfm(r, f, m, names.astype(np.str_))


def _quintile(values: Floats) -> Ints:
    """1 to 5; equal values share a score, by the middle of their ranks."""
    from scipy import stats

    share = (stats.rankdata(values) - 0.5) / len(values)
    return np.minimum((share * 5).astype(np.int64), 4) + 1


@dataclasses.dataclass(frozen=True, eq=False)
class Segmentation:
    """Fitted segments.

    Attributes:
        model: The fitted k-means or mixture.
        mean: float64[F] of the features learned from.
        deviation: float64[F].
        stability: Mean adjusted Rand index by number of segments.
        names: In plain words, one per segment.
    """

    model: Any
    mean: Floats
    deviation: Floats
    stability: Mapping[int, float]
    names: tuple[str, ...]

    def predict(self, X: npt.ArrayLike) -> Ints:
        """float64[C, F] to int64[C], the segment of each customer.

        Raises:
            ValueError: Another number of features, or a value that is not finite.
        """
        rows = check_matrix(X)
        if rows.shape[1] != len(self.mean):
            raise ValueError(f"features have {rows.shape[1]} columns; expected {len(self.mean)}")
        return np.asarray(self.model.predict((rows - self.mean) / self.deviation), np.int64)


def check_matrix(X: npt.ArrayLike) -> Floats:
    """Features as float64[C, F] without gaps.

    Raises:
        ValueError: Another shape, no rows, or a value that is not finite; the message names its place.
    """
    found = np.asarray(X, np.float64)
    if found.ndim != 2 or not found.size:
        raise ValueError(f"features have shape {found.shape}; expected float64[C, F] with rows and columns")
    if not np.isfinite(found).all():
        row, column = np.argwhere(~np.isfinite(found))[0].tolist()
        raise ValueError(
            f"features at row {row}, column {column} are {found[row, column]}; expected finite numbers"
        )
    return found


def fit(
    X: npt.ArrayLike,
    features: Sequence[str],
    method: Method = "kmeans",
    numbers: Sequence[int] = (2, 3, 4, 5, 6, 7, 8),
    pairs: int = 10,
    describe: tuple[npt.ArrayLike, Sequence[str]] | None = None,
    seed: int = 0,
) -> Segmentation:
    """Choose the most stable number of segments, fit, and name them.

    Args:
        X: float64[C, F]; skewed amounts are better given as logarithms.
        features: Names of the columns, in words that people read.
        method: ``kmeans`` or ``gmm`` (diagonal covariances).
        numbers: Candidates; among equals (within 0.01) the larger one wins, as it says more.
        pairs: Pairs of resamples for each.
        describe: float64[C, D] and names to describe segments with instead, where X is an embedding.
        seed: Of every random choice.

    Raises:
        ValueError: Features cannot be used, names do not match, a candidate is below 2 or above the number of
            distinct customers, or the method is unknown.
    """
    rows = check_matrix(X)
    if len(features) != rows.shape[1]:
        raise ValueError(f"{len(features)} feature names for {rows.shape[1]} columns; expected one each")
    distinct = len(np.unique(rows, axis=0))
    if not numbers or min(numbers) < 2 or max(numbers) > distinct:
        raise ValueError(
            f"numbers are {list(numbers)}; expected some from 2 to {distinct}, the distinct customers"
        )
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1.0)
    scaled = (rows - mean) / deviation
    found = {number: stability(scaled, number, method, pairs, seed) for number in numbers}
    best = max(found.values())
    chosen = max(number for number, value in found.items() if value >= best - 0.01)
    model = _cluster(scaled, chosen, method, seed)
    labels = np.asarray(model.predict(scaled), np.int64)
    table, words = (rows, features) if describe is None else (check_matrix(describe[0]), describe[1])
    if len(table) != len(rows) or len(words) != table.shape[1]:
        raise ValueError(
            f"describe has shape {table.shape} and {len(words)} names; expected {len(rows)} rows, one each"
        )
    return Segmentation(model, mean, deviation, found, tuple(name_segments(table, words, labels, chosen)))


def stability(scaled: Floats, number: int, method: Method, pairs: int, seed: int = 0) -> float:
    """Mean adjusted Rand index of the labels that pairs of resampled fits give to all customers."""
    rng = np.random.default_rng(seed)
    values = []
    for pair in range(pairs):
        labels = [
            _cluster(scaled[rng.integers(0, len(scaled), len(scaled))], number, method, seed + pair).predict(
                scaled
            )
            for _ in range(2)
        ]
        values.append(adjusted_rand(*labels))
    return float(np.mean(values))


def _cluster(scaled: Floats, number: int, method: Method, seed: int) -> Any:
    from sklearn.cluster import KMeans
    from sklearn.mixture import GaussianMixture

    if method == "kmeans":
        return KMeans(number, n_init=4, random_state=seed).fit(scaled)
    if method == "gmm":
        return GaussianMixture(
            number, covariance_type="diag", n_init=2, reg_covar=1e-4, random_state=seed
        ).fit(scaled)
    raise ValueError(f"method is '{method}'; expected 'kmeans' or 'gmm'")


def adjusted_rand(left: npt.ArrayLike, right: npt.ArrayLike) -> float:
    """Agreement of two labelings, 1 if they are the same up to names, 0 on average by chance."""
    _, a = np.unique(np.asarray(left), return_inverse=True)
    _, b = np.unique(np.asarray(right), return_inverse=True)
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1)

    def couples(counts: Floats) -> float:
        return float(np.sum(counts * (counts - 1)) / 2)

    both, rows, columns = couples(table), couples(table.sum(axis=1)), couples(table.sum(axis=0))
    chance, most = rows * columns / couples(np.array([float(len(a))])), (rows + columns) / 2
    return 1.0 if most == chance else (both - chance) / (most - chance)


def name_segments(X: Floats, features: Sequence[str], labels: Ints, number: int, most: int = 3) -> list[str]:
    """Names such as ``high spend, low days since last``: the features furthest from everybody's mean.

    Args:
        X: float64[C, F].
        features: Names of the columns.
        labels: int64[C].
        number: Of segments.
        most: Features named at most.

    Returns:
        One name per segment, all different; ``typical`` where nothing sets it apart.
    """
    deviation = X.std(axis=0)
    z_all = (X - X.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    names: list[str] = []
    for segment in range(number):
        inside = labels == segment
        z = z_all[inside].mean(axis=0) if inside.any() else np.zeros(X.shape[1])
        order = np.argsort(-np.abs(z), kind="stable")
        strong = [place for place in order if abs(z[place]) >= TYPICAL]
        words = [
            f"{'very ' if abs(z[place]) >= 3 * TYPICAL else ''}{'high' if z[place] > 0 else 'low'} {features[place]}"
            for place in strong[:most]
        ]
        name = ", ".join(words) or "typical"
        while name in names:
            place = order[min(len(words), len(order) - 1)]
            words.append(f"{'more' if z[place] > 0 else 'less'} {features[place]}")
            name = ", ".join(words) if len(words) <= len(order) else f"{name} ({segment + 1})"
        names.append(name)
    return names
