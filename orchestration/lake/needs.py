"""Fitting the model of open needs, and needs as the lake sees them.

Belongs here: the fit (a multinomial logistic regression) and its export. Does not belong here: features and
arithmetic (`contracts/needs.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.needs import FEATURES, NEEDS, NeedModel


def fit_needs(
    features: npt.NDArray[np.float64],
    need: npt.NDArray[np.int64],
    weight: npt.NDArray[np.float64],
    origin: str,
    strength: float = 1.0,
) -> NeedModel:
    """Fit coefficients on labelled moments.

    Args:
        features: ``(N, len(FEATURES))`` of `contracts.needs.need_features`.
        need: ``(N,)``, index in `contracts.needs.NEEDS`; the label: what the session turned out to be for.
        weight: ``(N,)``, for example 1 / acts, so that long sessions do not count for more.
        origin: What the labels are, for people.
        strength: Inverse of the L2 penalty.

    Raises:
        ValueError: A need has no example.
    """
    from sklearn.linear_model import LogisticRegression

    missing = sorted(set(range(len(NEEDS))) - set(np.unique(need).tolist()))
    if missing:
        raise ValueError(
            f"no example of need '{NEEDS[missing[0]]}'; expected some of each of {', '.join(NEEDS)}"
        )
    mean, scale = features.mean(0), features.std(0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    model: Any = LogisticRegression(C=strength, max_iter=300)
    model.fit((features - mean) / scale, need, sample_weight=weight)
    return NeedModel(
        features=FEATURES,
        mean=tuple(mean.tolist()),
        scale=tuple(scale.tolist()),
        weight=tuple(tuple(row) for row in model.coef_.tolist()),
        bias=tuple(model.intercept_.tolist()),
        origin=origin,
    )
