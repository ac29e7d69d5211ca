"""Large shards by cells: only the rows near a vector are looked at, and of these only what a filter allows.

Belongs here: which cells are looked at. Does not belong here: cutting a shard into cells (training does), ranking
what is found (`index.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.engine.items import Mask, TableError

EXACT_SHARE = 4
"""Up to so many times the rows that a search by cells looks at, looking at all allowed rows costs no more."""

Found = tuple[NDArray[np.int64], NDArray[np.float32]]


class Cells:
    """The cells of one shard.

    Args:
        centres: float32[C, d].
        rows: int64[C, 2], first and last row (exclusive) of each cell.
        probes: Cells that an unfiltered search looks at.
    """

    def __init__(self, centres: NDArray[np.float32], rows: NDArray[np.int64], probes: int) -> None:
        self._centres = np.ascontiguousarray(centres, np.float32)
        self._rows = rows
        self._probes = probes
        self.looked_at = int(np.ceil(probes * float((rows[:, 1] - rows[:, 0]).mean())))
        """Rows that an unfiltered search looks at, about."""

    def nearby(self, vectors: NDArray[np.float32], query: NDArray[np.float32], allowed: Mask | None) -> Found:
        """Allowed rows of the cells nearest to a vector, and their similarities.

        Cells are looked at until as many allowed rows were seen as an unfiltered search sees, so that a filter
        neither shortens an answer nor makes it worse.

        Args:
            vectors: float32[N, d], of the whole index.
            query: float32[d].
            allowed: bool[N], None for all.
        """
        near = self._centres @ query
        count = len(near)
        order = (
            np.argpartition(-near, self._probes - 1)[: self._probes]
            if self._probes < count
            else np.arange(count)
        )
        if allowed is None:
            return self._look(vectors, query, order)
        seen = self._allowed(order, allowed)
        if sum(map(len, seen)) < self.looked_at and self._probes < count:
            order = np.argsort(-near, kind="stable")
            seen, total = [], 0
            for start in range(0, count, self._probes):
                some = self._allowed(order[start : start + self._probes], allowed)
                seen += some
                total += sum(map(len, some))
                if total >= self.looked_at:
                    break
        rows = np.concatenate(seen)
        return rows, vectors[rows] @ query

    def _look(
        self, vectors: NDArray[np.float32], query: NDArray[np.float32], cells: NDArray[np.int64]
    ) -> Found:
        spans = self._rows[cells].tolist()
        similar = np.concatenate([vectors[a:b] @ query for a, b in spans])
        return np.concatenate([np.arange(a, b) for a, b in spans]), similar

    def _allowed(self, cells: NDArray[np.int64], allowed: Mask) -> list[NDArray[np.int64]]:
        return [np.flatnonzero(allowed[a:b]) + a for a, b in self._rows[cells].tolist()]


def read_cells(
    arrays: Mapping[str, NDArray[Any]], dim: int, shards: list[slice], file: str
) -> dict[int, Cells]:
    """The cells of every shard that has some.

    Args:
        arrays: Content of an index; without `probes` no shard has cells.
        dim: Width of the vectors.
        shards: Rows of each shard.
        file: For messages.

    Raises:
        TableError: Cells do not cover their shard, or are of another width.
    """
    if "probes" not in arrays:
        return {}
    names = ("centres", "cell_shard", "cell_rows", "probes")
    if missing := [name for name in names if name not in arrays]:
        raise TableError(f"{file}: '{missing[0]}' is missing")
    centres, owner, rows, probes = (np.asarray(arrays[name]) for name in names)
    fits = (
        centres.dtype.kind == "f" and centres.ndim == 2 and centres.shape[1] == dim
        and owner.dtype.kind == rows.dtype.kind == probes.dtype.kind == "i"
        and owner.shape == (len(centres),) and rows.shape == (len(centres), 2) and probes.shape == (len(shards),)
    )  # fmt: skip
    if not fits:
        raise TableError(
            f"{file}: cells do not fit one another; expected float32[C, {dim}] centres with their rows"
        )
    found = {}
    for number in np.flatnonzero(probes).tolist():
        mine = np.flatnonzero(owner == number)
        spans = rows[mine]
        covered = (
            len(mine) > 0
            and spans[0, 0] == shards[number].start
            and spans[-1, 1] == shards[number].stop
            and bool(np.all(spans[1:, 0] == spans[:-1, 1]))
            and bool(np.all(spans[:, 0] <= spans[:, 1]))
        )
        if not covered or not 0 < int(probes[number]) <= len(mine):
            raise TableError(f"{file}: the cells of shard {number} do not cover it")
        found[number] = Cells(centres[mine], spans.astype(np.int64), int(probes[number]))
    return found
