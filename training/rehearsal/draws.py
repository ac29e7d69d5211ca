"""Random numbers that belong to someone: a hash of (seed, day, key, purpose) instead of a stream.

A number does not depend on how many others were drawn before it, so two runs that differ in one cause
share all the rest (common random numbers). The hash is the finaliser of SplitMix64 (Steele, Lea and
Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).

Belongs here: uniform, normal and categorical draws. Does not belong here: what they decide.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_A = np.uint64(0xBF58476D1CE4E5B9)
_B = np.uint64(0x94D049BB133111EB)


def mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser, element by element."""
    z = values + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _A
    z = (z ^ (z >> np.uint64(27))) * _B
    return z ^ (z >> np.uint64(31))


class Draws:
    """Draws of one day.

    Args:
        seed: Of the simulation.
        day: Number of the day, or -1 for what is fixed before the first.
    """

    def __init__(self, seed: int, day: int) -> None:
        self._base = mix(np.array([seed * 1_000_003 + day + 1], np.uint64))[0]

    def uniform(self, purpose: str, keys: npt.ArrayLike) -> Floats:
        """One number in (0, 1) for each key; keys are integers of any shape."""
        with np.errstate(over="ignore"):
            salt = mix(np.array([zlib.crc32(purpose.encode())], np.uint64) ^ self._base)
            bits = mix(mix(np.asarray(keys).astype(np.uint64)) ^ salt)
        return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53

    def normal(self, purpose: str, keys: npt.ArrayLike) -> Floats:
        """One standard normal number for each key."""
        return ndtri(self.uniform(purpose, keys))

    def below(self, purpose: str, keys: npt.ArrayLike, bound: npt.ArrayLike) -> Ints:
        """One integer of 0 to bound - 1 for each key; a bound below 1 gives 0."""
        limit = np.maximum(np.asarray(bound), 1)
        return np.minimum((self.uniform(purpose, keys) * limit).astype(np.int64), limit - 1)

    def choice(self, purpose: str, keys: npt.ArrayLike, weights: npt.ArrayLike) -> Ints:
        """One index for each key, by weights ``[options]`` or ``[keys, options]``."""
        cumulative = np.cumsum(np.asarray(weights, np.float64), axis=-1)
        at = self.uniform(purpose, keys) * cumulative[..., -1]
        if cumulative.ndim == 1:
            return np.minimum(np.searchsorted(cumulative, at, side="right"), len(cumulative) - 1)
        return np.minimum((at[:, None] >= cumulative).sum(axis=1), cumulative.shape[1] - 1)
