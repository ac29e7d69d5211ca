"""The encoder on a large catalogue: the network as a graph, the best items from an exact bounded search.

Scores are those of the whole graph: ``h.v + bias``; over an item of the history the pointer's evidence is added
under the logarithm, the memory's terms are added to items that came together with the history's, and a trained
not-to-recommend head lowers them. Only items that can be among the best, and those that the ranker asks for, are
ever scored.

Belongs here: what stands in for the encoder's session, and when. Does not belong here: cutting the graph
(`split.py`), the search itself (`bounded.py`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.engine.bounded import BoundedIndex, Doubles, Fixed, Ids
from serving.engine.sessions import CPU, GraphError, Session
from serving.engine.split import PARTS, VECTORS, Halves, split

LARGE = 50_000
"""Items from which on the search is faster than scoring all of them in the graph (`bench catalogue-latency`)."""

TINY = 1e-30
"""As in `training/continuum/model.py`: evidence of no event."""


class LargeEncoder:
    """Answers like the encoder's session, without scoring the catalogue.

    Args:
        halves: The cut encoder.
        providers: ONNX Runtime execution providers of the network by preference.

    Attributes:
        provider: The provider that runs the network.
        inputs: Type by input name of the encoder as released.
        outputs: Type by output name of the encoder as released.
        index: The items.

    Raises:
        GraphError: ONNX Runtime refuses the network, or the table holds numbers that are not finite.
    """

    def __init__(self, halves: Halves, providers: Sequence[str] = (CPU,)) -> None:
        self._network = Session("encoder", halves.network, providers)
        try:
            self.index = BoundedIndex(halves.table, halves.bias)
        except ValueError as error:
            raise GraphError(f"the encoder's item table: {error}") from error
        self._table = halves.table
        self._parts = tuple(name for name in PARTS if name in halves.outputs)
        self.provider = self._network.provider
        self.inputs, self.outputs = halves.inputs_of_whole, halves.outputs_of_whole

    def answer(self, feed: dict[str, NDArray[Any]]) -> Answer:
        """Encode histories and find each one's best items.

        Args:
            feed: As of the whole graph: ``item``, ``action``, ``channel``, ``age``, ``deny``, ``k``.

        Raises:
            GraphError: The network failed, or its state is not finite.
        """
        started = time.perf_counter_ns()
        item = feed["item"]
        inputs = {name: feed[name] for name in self._network.inputs if name != VECTORS}
        found, _ = self._network.run(self._parts, {**inputs, VECTORS: self._table[item]})
        parts = dict(zip(self._parts, found, strict=True))
        if not np.isfinite(parts["state"]).all():
            raise GraphError("'encoder' gave a state of numbers that are not finite")
        answer = Answer(self.index, item, parts)
        answer.search(int(feed["k"][0]), feed["deny"])
        answer.nanoseconds = time.perf_counter_ns() - started
        return answer


class Answer:
    """What the encoder says about some histories.

    Args:
        index: The items.
        item: int64[B, L] encoder ids of the histories, 0 is padding.
        parts: ``state`` float32[B, d]; ``pointer`` float32[B, L], ``remembered_items`` int64[B, M] with ``remembered``
            float32[B, M], and ``avoid`` float32[B, d + 1] where they exist.

    Attributes:
        top_scores: float32[B, k].
        top_items: int64[B, k].
        rescored: int64[B], items whose true score the search computed.
        nanoseconds: Spent on the answer.
    """

    def __init__(self, index: BoundedIndex, item: Ids, parts: dict[str, NDArray[np.float32]]) -> None:
        self._index, self._state, self._avoid = index, parts["state"], parts.get("avoid")
        self._own = [
            _evidence(ids, None if "pointer" not in parts else parts["pointer"][row])
            for row, ids in enumerate(item)
        ]
        self._added = [
            _summed(parts["remembered_items"][row], parts["remembered"][row].astype(np.float64))
            if "remembered" in parts
            else _summed(item[row, :0], np.zeros(0))
            for row in range(len(item))
        ]
        self.top_scores: NDArray[np.float32] = np.zeros((len(item), 0), np.float32)
        self.top_items: Ids = np.zeros((len(item), 0), np.int64)
        self.rescored: Ids = np.zeros(len(item), np.int64)
        self.nanoseconds = 0

    def search(self, k: int, deny: NDArray[np.bool_]) -> None:
        """Find the best items; item 0 is never among them."""
        known = [np.union1d(own, added) for (own, _), (added, _) in zip(self._own, self._added, strict=True)]
        fixed = [Fixed(ids, self.exact(row, ids)) for row, ids in enumerate(known)]
        found = self._index.search(
            self._state, k, deny, fixed, None if self._avoid is None else self._lowered, forbidden=0
        )
        self.top_scores, self.top_items, self.rescored = found.scores, found.ids, found.rescored

    def exact(self, row: int, ids: Ids) -> Doubles:
        """float64[n], the scores of items int64[n] for one history."""
        scores: Doubles = self._index.scores(self._state[row], ids)
        own, evidence = self._own[row]
        if len(own):
            place = np.minimum(np.searchsorted(own, ids), len(own) - 1)
            known = own[place] == ids
            scores[known] = np.logaddexp(scores[known], np.log(evidence[place[known]] + TINY))
        added, mass = self._added[row]
        if len(added):
            place = np.minimum(np.searchsorted(added, ids), len(added) - 1)
            scores += np.where(added[place] == ids, mass[place], 0.0)
        return scores if self._avoid is None else self._lowered(row, ids, scores)

    def row(self, row: int, ids: Ids) -> NDArray[np.float32]:
        """float32[V + 1] that holds the scores of the given items and is 0 elsewhere."""
        scores = np.zeros(self._index.size, np.float32)
        scores[ids] = self.exact(row, ids)
        return scores

    def _lowered(self, row: int, ids: Ids, scores: Doubles) -> Doubles:
        assert self._avoid is not None
        head = self._avoid[row].astype(np.float64)
        return np.asarray(scores - np.logaddexp(0.0, self._index.products(head[:-1], ids) + head[-1]))


def open_encoder(
    name: str, content: bytes, providers: Sequence[str] = (CPU,), large: int = LARGE
) -> Session | LargeEncoder:
    """The encoder as it answers fastest: whole, or cut in two where the catalogue is large.

    Args:
        name: For messages.
        content: Bytes of the ONNX file.
        providers: ONNX Runtime execution providers by preference.
        large: Items from which on a catalogue is large.

    Raises:
        GraphError: ONNX Runtime refuses the graph, or its table cannot be cut out.
    """
    if CPU in providers[:1] and _items(content) >= large:
        halves = split(content)
        if halves is not None:
            return LargeEncoder(halves, providers)
    return Session(name, content, providers)


def _items(content: bytes) -> int:
    """Items that a graph scores: the width of its input ``deny``; 0 where it has none of a known width."""
    import onnx

    model = onnx.load_model_from_string(content)
    for value in model.graph.input:
        if value.name == "deny":
            return int(value.type.tensor_type.shape.dim[-1].dim_value)
    return 0


def _evidence(item: Ids, pointer: NDArray[np.float32] | None) -> tuple[Ids, Doubles]:
    """Items of a history, each once and ascending, and the sum of the weights of their events."""
    if pointer is None:
        return np.zeros(0, np.int64), np.zeros(0)
    return _summed(item, np.exp(pointer.astype(np.float64)))


def _summed(item: Ids, mass: Doubles) -> tuple[Ids, Doubles]:
    """Items each once and ascending with their sums, those that are none or get nothing left out."""
    ids, place = np.unique(item, return_inverse=True)
    sums: Doubles = np.bincount(place, mass, len(ids)).astype(np.float64)
    real = (ids > 0) & (sums > 0)
    return ids[real], sums[real]
