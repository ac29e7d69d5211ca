"""Items that belong together, as vectors.

Belongs here: looks as arrays, parts, batches of padded sets. Does not belong here: where they come from (`items.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Looks:
    """Items by look.

    Attributes:
        vectors: Unit vector of each item, ``[M, d]``.
        slots: Slot of each, from 1.
        looks: Number of the look that each belongs to, ascending.
    """

    vectors: Floats
    slots: Integers
    looks: Integers

    def __len__(self) -> int:
        return len(self.slots)

    def members(self) -> list[Integers]:
        """Numbers of the items of each look of at least two."""
        cuts = np.flatnonzero(np.diff(self.looks)) + 1
        return [group for group in np.split(np.arange(len(self)), cuts) if len(group) > 1]

    def count(self) -> int:
        """Number of looks of at least two items."""
        return len(self.members())

    def last(self, share: float) -> npt.NDArray[np.bool_]:
        """Which items belong to the last looks."""
        return self.looks >= (int(self.looks.max(initial=-1)) + 1) * (1 - share)

    def only(self, kept: npt.NDArray[np.bool_]) -> Looks:
        """Some of the items."""
        return Looks(self.vectors[kept], self.slots[kept], self.looks[kept])


def joined(parts: Sequence[Looks]) -> Looks:
    """Looks of several sources, numbered on."""
    numbers, first = [], 0
    for part in parts:
        numbers.append(part.looks + first)
        first += int(part.looks.max(initial=-1)) + 1
    return Looks(
        np.concatenate([part.vectors for part in parts]), np.concatenate([part.slots for part in parts]),
        np.concatenate(numbers),
    )  # fmt: skip


def padded(looks: Looks, sets: Sequence[Integers]) -> tuple[Floats, Integers]:
    """Sets of items as arrays.

    Returns:
        Vectors ``[B, N, d]`` and slots ``[B, N]``, 0 where a set is shorter.
    """
    length = max(len(group) for group in sets)
    vectors = np.zeros((len(sets), length, looks.vectors.shape[1]), np.float32)
    slots = np.zeros((len(sets), length), np.int64)
    for number, group in enumerate(sets):
        vectors[number, : len(group)] = looks.vectors[group]
        slots[number, : len(group)] = looks.slots[group]
    return vectors, slots
