"""Sub-item scoring, as a peer of the engine's own search: product quantisation, scored whole or with pruning.

An item is a code per part of its vector (and one for its bias); a request scores the 256 sub-items of each part once,
and an item's score is a sum of looked-up numbers (RecJPQ, arXiv 2312.06165; PQTopK, arXiv 2408.09992). With pruning,
sub-items are visited in the order of their scores until no unvisited item can reach the best k (RecJPQPrune,
arXiv 2505.00560): the same answer as without. Both are exact for the quantised table only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

CODES, SAMPLE, ROUNDS = 256, 20_000, 5
PARTS = 8
VISITED_AT_ONCE = 8
SEGMENT = 1 << 18

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


class SubItems:
    """A quantised table.

    Args:
        table: float32[N, d], d a multiple of PARTS.
        bias: float32[N].
        seed: Of the sample that the sub-items are learned from.
    """

    def __init__(self, table: Floats, bias: Floats, seed: int = 0) -> None:
        self.size, width = len(table), table.shape[1] // PARTS
        rng = np.random.default_rng(seed)
        sample = rng.choice(self.size, min(SAMPLE, self.size), replace=False)
        self.centres = np.stack(
            [_learned(table[sample, part * width : (part + 1) * width], rng) for part in range(PARTS)]
        )
        self.levels = np.quantile(bias, np.linspace(0, 1, CODES)).astype(np.float32)
        codes = np.empty((PARTS + 1, self.size), np.uint8)
        for start in range(0, self.size, SEGMENT):
            rows = slice(start, min(start + SEGMENT, self.size))
            for part in range(PARTS):
                codes[part, rows] = _nearest(
                    table[rows, part * width : (part + 1) * width], self.centres[part]
                )
        codes[PARTS] = np.searchsorted((self.levels[1:] + self.levels[:-1]) / 2, bias)
        # Pairs of parts share one table of 65,536 sums: half the look-ups.
        self.pairs = codes[0:PARTS:2].astype(np.uint16) * np.uint16(CODES) + codes[1:PARTS:2]
        self.last = codes[PARTS].copy()
        self._lists: list[tuple[npt.NDArray[np.int32], Ids]] = []
        self._codes = codes

    def prepare_pruning(self) -> None:
        """Lay out the items of each sub-item."""
        for column in self._codes:
            start = np.concatenate(([0], np.bincount(column, minlength=CODES).cumsum()))
            self._lists.append((np.argsort(column, kind="stable").astype(np.int32), start))
        self._rows = np.ascontiguousarray(self._codes.T)

    def reconstructed(self, ids: Ids) -> tuple[Floats, Floats]:
        """Vectors and biases that the codes stand for."""
        parts = [self.centres[part][self._codes[part, ids]] for part in range(PARTS)]
        return np.concatenate(parts, axis=1), self.levels[self._codes[PARTS, ids]]

    def sub_scores(self, state: Floats) -> Floats:
        """float32[PARTS + 1, CODES] of one state float32[d]."""
        products = np.einsum("pcw,pw->pc", self.centres, state.reshape(PARTS, -1))
        return np.concatenate((products, self.levels[None])).astype(np.float32)

    def search(self, state: Floats, k: int, denied: Ids) -> Ids:
        """The k best items by looking up every item."""
        scores = self.sub_scores(state)
        sums = [(scores[part][:, None] + scores[part + 1][None]).ravel() for part in range(0, PARTS, 2)]
        ids, values = np.zeros(0, np.int64), np.zeros(0, np.float32)
        for start in range(0, self.size, SEGMENT):
            part = slice(start, min(start + SEGMENT, self.size))
            total = scores[PARTS].take(self.last[part])
            for table, pair in zip(sums, self.pairs[:, part], strict=True):
                total += table.take(pair)
            total[denied[(denied >= part.start) & (denied < part.stop)] - part.start] = -np.inf
            count = min(k, len(total))
            top = np.argpartition(total, len(total) - count)[len(total) - count :]
            ids, values = _best(np.concatenate((ids, top + start)), np.concatenate((values, total[top])), k)
        return ids

    def pruned(self, state: Floats, k: int, denied: Ids) -> tuple[Ids, int]:
        """The k best items by visiting sub-items from the best down, and how many items were visited."""
        scores = self.sub_scores(state)
        order = np.argsort(-scores, axis=None, kind="stable")
        part_of, code_of = np.divmod(order, CODES)
        ranks = np.argsort(-scores, axis=1, kind="stable")
        ceilings = np.take_along_axis(scores, ranks, axis=1)
        reached = np.zeros(PARTS + 1, np.int64)
        ids, values = np.zeros(0, np.int64), np.zeros(0, np.float32)
        visited = 0
        for start in range(0, len(order), VISITED_AT_ONCE):
            group = slice(start, start + VISITED_AT_ONCE)
            found = []
            for part, code in zip(part_of[group].tolist(), code_of[group].tolist(), strict=True):
                items, starts = self._lists[part]
                found.append(items[starts[code] : starts[code + 1]])
                reached[part] += 1
            fresh = np.concatenate(found).astype(np.int64)
            visited += len(fresh)
            total = self._sums(scores, fresh)
            if len(ids) == k:
                near = total >= values[-1]
                fresh, total = fresh[near], total[near]
            fresh, first = np.unique(fresh, return_index=True)
            total = total[first]
            kept = ~np.isin(fresh, denied) & ~np.isin(fresh, ids)
            ids, values = _best(np.concatenate((ids, fresh[kept])), np.concatenate((values, total[kept])), k)
            if (reached == CODES).any():
                break  # Every item has a code of that part.
            # The margin covers sums that were rounded in another order.
            if len(ids) == k and ceilings[np.arange(PARTS + 1), reached].sum() < values[-1] - 1e-4:
                break
        return ids, visited

    def _sums(self, scores: Floats, ids: Ids) -> Floats:
        codes = self._rows[ids]
        total = scores[PARTS].take(codes[:, PARTS])
        for part in range(0, PARTS, 2):
            total += scores[part].take(codes[:, part]) + scores[part + 1].take(codes[:, part + 1])
        return total


def _best(ids: Ids, values: Floats, k: int) -> tuple[Ids, Floats]:
    order = np.lexsort((ids, -values))[:k]
    return ids[order], values[order]


def _learned(rows: Floats, rng: np.random.Generator) -> Floats:
    """Centres float32[CODES, w] by Lloyd's rounds."""
    centres = rows[rng.choice(len(rows), CODES, replace=len(rows) < CODES)].copy()
    for _ in range(ROUNDS):
        code = _nearest(rows, centres)
        count = np.bincount(code, minlength=CODES)
        sums = np.stack([np.bincount(code, column, CODES) for column in rows.T], axis=1)
        centres[count > 0] = (sums[count > 0] / count[count > 0, None]).astype(np.float32)
    return centres


def _nearest(rows: Floats, centres: Floats) -> npt.NDArray[Any]:
    distance = rows @ (-2 * centres.T)
    distance += (centres**2).sum(1)
    return distance.argmin(1)
