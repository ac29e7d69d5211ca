"""Exploration in the last slot, with exact propensities.

With probability epsilon the last slot shows one of the further candidates, drawn uniformly, instead of
the item that ranks there. The propensity of what is shown is exact, so off-policy estimates that weigh
by it are unbiased (inverse propensity scoring: Horvitz and Thompson, 1952).

Belongs here: the draw and its probabilities. Does not belong here: ranking.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def explore(
    order: NDArray[np.int64], n: int, epsilon: float, rng: np.random.Generator | None
) -> tuple[NDArray[np.int64], list[float], bool]:
    """Choose what is shown.

    Args:
        order: Every candidate, best first.
        n: Slots.
        epsilon: Probability of exploring in the last slot.
        rng: Source of chance, or None to never explore.

    Returns:
        The shown candidates, the propensity of each in its slot, and whether the last one was drawn.
    """
    shown = order[:n]
    further = len(order) - len(shown)
    propensities = [1.0] * len(shown)
    if rng is None or epsilon <= 0 or further == 0 or len(shown) == 0:
        return shown, propensities, False
    if rng.random() >= epsilon:
        propensities[-1] = 1.0 - epsilon
        return shown, propensities, False
    drawn = int(rng.integers(further))
    propensities[-1] = epsilon / further
    return np.append(shown[:-1], order[len(shown) + drawn]), propensities, True
