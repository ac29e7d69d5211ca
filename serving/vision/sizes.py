"""Sizes of products: which fit somebody who wears certain ones.

Sizes of one kind are those that products come in together: letters of shirts, numbers of shoes. Who says "M" has said
nothing of shoes, so that all shoes stay; of shirts only those with an M in stock do.

Belongs here: reading sizes, what fits, which sizes somebody buys. Does not belong here: who asks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.events import ACTIONS
from contracts.visual import INDEX_FILE
from serving.engine.items import Mask, TableError
from serving.profiles.history import History, size_key
from serving.vision.arrays import read_array

MADE, OFFERED = 1, 2
"""A product comes in this size; and it is in stock."""

LATEST = 10
"""Pieces of a kind of size that tell what is worn now: bodies change, and children grow."""

LEAST_PIECES = 2
"""Of them in one size: a single piece may have been a gift."""

_PURCHASE = ACTIONS.index("purchase")


class Sizes:
    """Sizes by row of an index.

    Args:
        names: Z sizes.
        sized: int8[N, Z]: 0, `MADE` or `OFFERED`.

    Attributes:
        names: The same.
        kinds: int64[Z], equal for sizes of one kind: its first size.
    """

    def __init__(self, names: Sequence[str], sized: NDArray[np.int8]) -> None:
        self.names = list(names)
        self._sized = sized
        self._place = {name: place for place, name in enumerate(self.names)}
        self._place_of_key = {size_key(name): place for name, place in self._place.items()}
        made = (sized >= MADE).astype(np.float32)
        together = (made.T @ made > 0) | np.eye(len(self.names), dtype=bool)
        self.kinds: NDArray[np.int64] = np.arange(len(self.names))
        while len(self.names):
            least = np.where(together, self.kinds, len(self.names)).min(axis=1)
            if np.array_equal(least, self.kinds):
                break
            self.kinds = least

    def known(self, size: str) -> bool:
        """Whether any product comes in a size."""
        return size in self._place

    def groups(self) -> list[list[str]]:
        """Sizes kind by kind, kinds of one size left out: there is nothing to choose."""
        found = [
            [self.names[at] for at in np.flatnonzero(self.kinds == kind)] for kind in np.unique(self.kinds)
        ]
        return [group for group in found if len(group) > 1]

    def usual(self, history: History) -> list[str]:
        """The size of each kind that a shopper buys most often of late, where they bought it more than once.

        Args:
            history: The shopper's events, by time.
        """
        bought = history.size[(history.action == _PURCHASE) & (history.size >= 0)]
        places = [self._place_of_key[key] for key in bought.tolist()[::-1] if key in self._place_of_key]
        found = []
        for kind in dict.fromkeys(self.kinds[places].tolist()):
            latest = [place for place in places if self.kinds[place] == kind][:LATEST]
            # Of sizes bought as often, the one that was bought last.
            best = max(dict.fromkeys(latest), key=latest.count)
            if latest.count(best) >= LEAST_PIECES and (self.kinds == kind).sum() > 1:
                found.append(self.names[best])
        return found

    def offered(self, row: int) -> list[str]:
        """Sizes of a row that are in stock."""
        return [self.names[at] for at in np.flatnonzero(self._sized[row] == OFFERED)]

    def fitting(self, sizes: Sequence[str]) -> Mask:
        """bool[N], False for rows made in sizes of a kind that is asked for, none of which is in stock."""
        wanted = [self._place[size] for size in sizes if size in self._place]
        mask: Mask = np.ones(len(self._sized), bool)
        for kind in np.unique(self.kinds[wanted]):
            of_kind = (self._sized[:, self.kinds == kind] >= MADE).any(axis=1)
            some = [place for place in wanted if self.kinds[place] == kind]
            mask &= ~of_kind | (self._sized[:, some] == OFFERED).any(axis=1)
        return mask


def read_sizes(arrays: Mapping[str, NDArray[Any]], rows: int) -> Sizes:
    """Sizes of an index; none where its release is older than sizes.

    Raises:
        TableError: An array is of another shape, or says something unknown.
    """
    if "sizes" not in arrays and "sized" not in arrays:
        return Sizes([], np.zeros((rows, 0), np.int8))
    names: list[str] = read_array(arrays, "sizes", "U", (-1,)).tolist()
    sized = read_array(arrays, "sized", "i", (rows, len(names))).astype(np.int8)
    if sized.size and (int(sized.min()) < 0 or int(sized.max()) > OFFERED):
        raise TableError(f"{INDEX_FILE}: 'sized' holds {int(sized.max())}; expected 0, {MADE} or {OFFERED}")
    return Sizes(names, sized)
