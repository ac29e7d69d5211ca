"""Exact top-k by inner product: a scan in 8 bits that bounds every score, then true scores where it matters.

A float32 table of a million items is 256 MB, and reading it takes longer than an answer may. Its 8-bit copy is
a quarter of that. With v = a q + e for an item (q whole numbers, a the item's scale) and h = g p + f for a state,

    h.v = g a (p.q) + h.e + a f.q,   so   |h.v - g a (p.q)| <= |h| |e| + |f| a |q|,

where p.q is exact integer arithmetic and every norm on the right is known. Items whose bound reaches the k-th best
true score found so far are scored in float64; no other item can be among the best k, whatever the table looks like.

The state has 7 bits: with 8, processors without VNNI saturate sums of two products, and the bound would not hold.

Belongs here: the index over vectors and its search. Does not belong here: where states come from (`large.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.engine.sessions import Session

SEGMENT = 1 << 18
"""Items scanned at once: their scores stay in the cache until they are read."""

BLOCK = 256
"""Items that share one error bound, and of which only the best is looked at first."""

STATE_LEVELS, ITEM_LEVELS = 63, 127
ZERO_POINT = 64
ROUNDING = 1e-6
"""Share of the largest possible score that float32 sums may be off by (four roundings of 2**-24, with room)."""

SPARSE = 32
"""Where fewer than one item in this many is denied, denied ones are named; otherwise all are masked."""

CHUNK = 1024
"""Items whose true scores are computed at once."""

TINY = 1e-30
OPSET, IR_VERSION = 20, 10

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Rescore = Callable[[int, Ids, Doubles], Doubles]
"""From (row of the batch, item ids, ``h.v + bias``) to final scores, none higher than what it was given."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Fixed:
    """Items whose final score the caller knows (those of the history).

    Attributes:
        ids: int64[H], each once.
        scores: float64[H].
    """

    ids: Ids
    scores: Doubles


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The best items of each row.

    Attributes:
        ids: int64[B, k], best first, of equal scores the lower id first; 0 where fewer are allowed than asked for.
        scores: float32[B, k], -inf where fewer are allowed.
        rescored: int64[B], items whose true score was computed.
    """

    ids: Ids
    scores: Floats
    rescored: Ids


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Segment:
    """Items ``start`` to ``stop``: the scan's graph, and norms per block for the bound."""

    start: int
    stop: int
    session: Session
    error: Doubles
    norm: Doubles


@dataclasses.dataclass(slots=True, eq=False)
class _Best:
    """The best k of one row so far."""

    k: int
    ids: Ids
    scores: Floats
    rescored: int = 0

    @property
    def floor(self) -> float:
        """Score that an item must reach to be among the best k."""
        return float(self.scores[-1]) if len(self.scores) >= self.k else -np.inf

    def add(self, ids: Ids, scores: Doubles) -> None:
        """Take in items with their final scores; none twice."""
        ids = np.concatenate((self.ids, ids))
        single = np.concatenate((self.scores, scores.astype(np.float32)))
        order = np.lexsort((ids, -single))[: self.k]
        self.ids, self.scores = ids[order], single[order]


class BoundedIndex:
    """Item vectors, searched exactly.

    Args:
        table: float32[V + 1, d], kept as it is; it may be mapped from a file.
        bias: float32[V + 1].
        segment: Items scanned at once.

    Attributes:
        size: V + 1.

    Raises:
        ValueError: The arrays do not fit one another, or hold numbers that are not finite.
    """

    def __init__(self, table: Floats, bias: Floats, segment: int = SEGMENT) -> None:
        if table.ndim != 2 or bias.shape != table.shape[:1] or not len(table):
            raise ValueError(
                f"table is {list(table.shape)} and bias {list(bias.shape)}; expected [V + 1, d] and [V + 1]"
            )
        if segment < BLOCK or segment % BLOCK:
            raise ValueError(f"segment is {segment}; expected a multiple of {BLOCK}")
        self.size = len(table)
        self._table, self._bias = table, bias
        self._segments: list[_Segment] = []
        self._longest = self._largest_bias = 0.0
        for start in range(0, self.size, segment):
            self._segments.append(self._quantised(start, min(start + segment, self.size)))

    def _quantised(self, start: int, stop: int) -> _Segment:
        vectors, bias = self._table[start:stop], self._bias[start:stop]
        if not (np.isfinite(vectors).all() and np.isfinite(bias).all()):
            raise ValueError(f"items {start} to {stop}: a vector or bias is not finite")
        size = -(-len(vectors) // BLOCK) * BLOCK
        scale = np.zeros(size, np.float32)
        scale[: len(vectors)] = np.abs(vectors).max(1) / ITEM_LEVELS
        safe = np.where(scale > 0, scale, np.float32(1))[: len(vectors), None]
        whole = np.zeros((size, vectors.shape[1]), np.int8)
        whole[: len(vectors)] = np.rint(vectors / safe)
        error, norm = np.zeros(size), np.zeros(size)
        back = scale[:, None].astype(np.float64) * whole
        error[: len(vectors)] = np.linalg.norm(vectors - back[: len(vectors)], axis=1)
        norm[:] = np.linalg.norm(back, axis=1)
        padded = np.full(size, -np.inf, np.float32)
        padded[: len(bias)] = bias
        self._longest = max(self._longest, float(norm.max() + error.max()))
        self._largest_bias = max(self._largest_bias, float(np.abs(bias).max()))
        blocks = (size // BLOCK, BLOCK)
        return _Segment(
            start, stop, _scan_session(whole.T, scale, padded),
            error.reshape(blocks).max(1), norm.reshape(blocks).max(1),
        )  # fmt: skip

    def scores(self, state: Floats, ids: Ids) -> Doubles:
        """``h.v + bias`` of items int64[n] for one state float32[d], float64[n]."""
        return self.products(state.astype(np.float64), ids) + self._bias[ids]

    def products(self, vector: Doubles, ids: Ids) -> Doubles:
        """Inner products float64[n] of a vector float64[d] with items int64[n]."""
        return np.asarray(self._table[ids].astype(np.float64) @ vector)

    def search(
        self,
        states: Floats,
        k: int,
        deny: NDArray[np.bool_] | None = None,
        fixed: Sequence[Fixed] | None = None,
        rescore: Rescore | None = None,
        forbidden: int | None = None,
    ) -> Found:
        """The k best items of each state.

        Args:
            states: float32[B, d].
            k: Items wanted per row.
            deny: bool[B, V + 1] or bool[1, V + 1] for all rows, items that must not be found.
            fixed: Per row, items with a final score of their own.
            rescore: Lowers scores; None where ``h.v + bias`` is final.
            forbidden: An item that no row may find, besides denied ones.

        Raises:
            ValueError: A state is not finite, or shapes do not fit.
            GraphError: ONNX Runtime failed.
        """
        if states.ndim != 2 or states.shape[1] != self._table.shape[1] or k < 1:
            raise ValueError(f"states are {list(states.shape)} and k {k}; expected [B, d] and at least 1")
        if deny is not None and (deny.ndim != 2 or deny.shape[1] != self.size):
            raise ValueError(f"deny is {list(deny.shape)}; expected [B, {self.size}]")
        if not np.isfinite(states).all():
            raise ValueError("a state holds numbers that are not finite")
        lengths = np.linalg.norm(states.astype(np.float64), axis=1)
        rests = np.linalg.norm(states - _rounded(states)[2], axis=1)
        best = [_Best(k, np.zeros(0, np.int64), np.zeros(0, np.float32)) for _ in states]
        for row, own in enumerate(fixed or ()):
            shown = np.ones(len(own.ids), bool) if deny is None else ~deny[row % len(deny), own.ids]
            best[row].add(own.ids[shown], own.scores[shown])
        for segment, scan in self._scans(states):
            for row, state in enumerate(states):
                close, part = scan[row], slice(segment.start, segment.stop)
                if deny is not None:
                    _leave_out(close, deny[row % len(deny), part])
                if forbidden is not None and part.start <= forbidden < part.stop:
                    close[forbidden - part.start] = -np.inf
                if fixed is not None:
                    known = fixed[row].ids
                    close[known[(known >= part.start) & (known < part.stop)] - part.start] = -np.inf
                room = lengths[row] * segment.error + rests[row] * segment.norm
                room += ROUNDING * (lengths[row] * self._longest + self._largest_bias)
                self._collect(segment.start, row, close, room, state, best[row], rescore)
        return Found(
            np.stack([_padded(row.ids, k, np.int64(0)) for row in best]),
            np.stack([_padded(row.scores, k, np.float32(-np.inf)) for row in best]),
            np.array([row.rescored for row in best], np.int64),
        )

    def approximate(self, states: Floats) -> Iterator[tuple[slice, Floats]]:
        """The scan alone: each segment's items and their 8-bit scores float32[B, n]."""
        for segment, scan in self._scans(states):
            yield slice(segment.start, segment.stop), scan[:, : segment.stop - segment.start]

    def _scans(self, states: Floats) -> Iterator[tuple[_Segment, Floats]]:
        whole, step, _ = _rounded(states)
        feed: dict[str, NDArray[Any]] = {"state": (whole + ZERO_POINT).astype(np.uint8), "step": step}
        for segment in self._segments:
            (scan,), _ = segment.session.run(("scores",), feed)
            yield segment, scan

    def _collect(
        self,
        start: int,
        row: int,
        close: Floats,
        room: Doubles,
        state: Floats,
        best: _Best,
        rescore: Rescore | None,
    ) -> None:
        """Take in whatever of a segment may be among the best k.

        Args:
            start: First item of the segment.
            row: Row of the batch.
            close: float32[n], scores of the scan, -inf for what must not be found; written to.
            room: float64[n / BLOCK], how far each true score may be above the scan's.
            state: float32[d].
            best: The best so far.
            rescore: See `search`.
        """

        def take(places: Ids) -> None:
            ids = places + start
            scores = self.scores(state, ids)
            best.add(ids, scores if rescore is None else rescore(row, ids, scores))
            best.rescored += len(ids)
            close[places] = -np.inf

        blocks = close.reshape(-1, BLOCK)
        peaks = blocks.max(1)
        if best.floor == -np.inf:
            take(_likely(close, peaks, best.k))
        live = np.flatnonzero((peaks + room >= best.floor) & (peaks > -np.inf))
        reach = blocks[live] + room[live, None]
        at, inside = np.nonzero((reach >= best.floor) & (reach > -np.inf))
        places, reach = live[at] * BLOCK + inside, reach[at, inside]
        if len(places) > CHUNK:
            order = np.argsort(-reach, kind="stable")
            places, reach = places[order], reach[order]
        for first in range(0, len(places), CHUNK):
            part = slice(first, first + CHUNK)
            # Sorted, so that none follows one that is below the floor.
            take(places[part][reach[part] >= best.floor])


def _rounded(states: Floats) -> tuple[Doubles, Floats, Doubles]:
    """States float32[B, d] as whole numbers, the size of their step float32[1], and their product.

    The batch shares one step; what a row loses to it is in the row's own bound.
    """
    step = np.array([max(float(np.abs(states).max(initial=0.0)) / STATE_LEVELS, TINY)], np.float32)
    whole = np.rint(states / step.astype(np.float64))
    return whole, step, step.astype(np.float64) * whole


def _likely(close: Floats, peaks: Floats, k: int) -> Ids:
    """Places of k items that are probably among the best (fewer where fewer are there)."""
    if len(peaks) >= k:
        blocks = np.argpartition(peaks, len(peaks) - k)[len(peaks) - k :]
        places = blocks * BLOCK + close.reshape(-1, BLOCK)[blocks].argmax(1)
    else:
        places = (
            np.argpartition(close, len(close) - k)[len(close) - k :]
            if k < len(close)
            else np.arange(len(close))
        )
    found: Ids = places[close[places] > -np.inf].astype(np.int64)
    return found


def _leave_out(close: Floats, denied: NDArray[np.bool_]) -> None:
    """Set the scores of denied items to -inf; ``close`` may be longer by padding."""
    if np.count_nonzero(denied) * SPARSE < len(denied):
        close[np.flatnonzero(denied)] = -np.inf
    else:
        part = close[: len(denied)]
        np.copyto(part, np.where(denied, np.float32(-np.inf), part))


def _padded(values: NDArray[Any], k: int, filler: np.generic) -> NDArray[Any]:
    return np.concatenate((values, np.full(k - len(values), filler)))


def _scan_session(vectors: NDArray[np.int8], scale: Floats, bias: Floats) -> Session:
    """Graph from ``state`` uint8[B, d] and ``step`` float32[1] to ``scores`` float32[B, N].

    Args:
        vectors: int8[d, N].
        scale: float32[N].
        bias: float32[N].
    """
    from onnx import TensorProto, helper, numpy_helper

    # Faster than the one fused operator, whose output stage is not vectorised for a scale per column.
    nodes = [
        helper.make_node("MatMulInteger", ["state", "vectors", "zero"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["products"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["products", "scale"], ["scaled"]),
        helper.make_node("Mul", ["scaled", "step"], ["stepped"]),
        helper.make_node("Add", ["stepped", "bias"], ["scores"]),
    ]
    constants: dict[str, NDArray[Any]] = {
        "vectors": np.ascontiguousarray(vectors), "scale": scale, "bias": bias,
        "zero": np.array(ZERO_POINT, np.uint8),
    }  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "scan",
        [
            helper.make_tensor_value_info("state", TensorProto.UINT8, ["B", vectors.shape[0]]),
            helper.make_tensor_value_info("step", TensorProto.FLOAT, [1]),
        ],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["B", vectors.shape[1]])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return Session("scan", model.SerializeToString())
