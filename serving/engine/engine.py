"""The engine: from a history, a moment and a release to ranked items with reasons.

The same code answers shoppers, writes the golden requests, and is judged by the gate. Ties are broken
by product id, so an answer is a function of its inputs.

Belongs here: the order of the steps, and running several requests through the encoder at once. Does not
belong here: the steps themselves.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.decisions import Reason, Source
from contracts.features import MICROSECONDS_PER_DAY, week_of
from contracts.release import Manifest
from serving.engine import reasons
from serving.engine.assemble import Scorer
from serving.engine.candidates import ENCODER, SOURCES, Candidates, candidates, described
from serving.engine.explore import explore
from serving.engine.items import Exposures, Filters, ItemTable, Mask, StoreProducts, TableError
from serving.engine.large import Answer, LargeEncoder
from serving.engine.memory import Memory, remember
from serving.engine.sessions import CPU, GraphError, Session
from serving.profiles.history import History, empty_history

EVERYTHING = Filters()
LENGTH_STEP = 32
"""Sequences are padded to a multiple of this, so that ONNX Runtime sees few different shapes."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Query:
    """One request to rank.

    Attributes:
        history: The customer's events; those at or after the moment are not used.
        at_days: Moment, days since 1970-01-01 UTC.
        store: Store index, -1 for none.
        n: Items wanted.
        filters: Which items may be shown.
        deny: int, item indices that must not be shown.
        touchpoint: Where the answer is shown.
        memory: The history digested by `Engine.remember`, if the caller kept it.
        exploration: Probability that the last slot explores.
        rng: Source of chance for it, or None to never explore.
    """

    history: History
    at_days: float
    store: int = -1
    n: int = 10
    filters: Filters = EVERYTHING
    deny: Sequence[int] = ()
    touchpoint: str = ""
    memory: Memory | None = None
    exploration: float = 0.0
    rng: np.random.Generator | None = None


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """An answer.

    Attributes:
        items: int32[n], best first.
        scores: float32[n], ranker scores; 1 / (place + 1) on the popular path.
        propensities: Probability of each item in its slot.
        sources: Who proposed each item.
        reasons: Why each item is shown.
        candidates: How many items were ranked.
        explored: The last item was drawn by exploration.
        graph_ns: Nanoseconds of this request's ONNX runs: encoder, ranker (a run that several requests share
            counts for each its share).
    """

    items: NDArray[np.int32]
    scores: NDArray[np.float32]
    propensities: list[float]
    sources: list[tuple[Source, ...]]
    reasons: list[Reason]
    candidates: int
    explored: bool = False
    graph_ns: tuple[int, int] = (0, 0)

    @property
    def model_ns(self) -> int:
        """Sum of the ONNX runs."""
        return sum(self.graph_ns)


class Engine:
    """Ranks items for customers with the models and tables of one release.

    Args:
        manifest: The release's manifest.
        encoder: Encoder graph, whole or cut for a large catalogue.
        ranker: Bytes of the ranker's graph.
        items: Item table.
        exposures: Promotions by store and week.
        sales: How items sell by store.
        providers: ONNX Runtime execution providers of the ranker by preference.

    Raises:
        TableError: The parts do not fit one another.
        GraphError: ONNX Runtime refuses the ranker.
    """

    def __init__(
        self,
        manifest: Manifest,
        encoder: Session | LargeEncoder,
        ranker: bytes,
        items: ItemTable,
        exposures: Exposures,
        sales: StoreProducts,
        providers: Sequence[str] = (CPU,),
    ) -> None:
        settings = manifest.component("encoder").settings
        try:
            self._length = int(settings["length"])
            self._vocabulary = int(settings["vocabulary"])
        except (KeyError, TypeError, ValueError) as error:
            raise TableError("the encoder's settings name no 'length' and 'vocabulary'") from error
        if len(items.by_encoder_id) > self._vocabulary + 1:
            raise TableError(
                f"items.npz: 'encoder_id' is above the encoder's vocabulary of {self._vocabulary}"
            )
        self.items = items
        self.nothing = empty_history()
        self._encoder = encoder
        self._exposures = exposures
        self._scorer = Scorer(manifest.features, items, sales, ranker, providers)
        self.providers = {"encoder": encoder.provider, "ranker": self._scorer.provider}
        self._by_encoder_id = np.full(self._vocabulary + 1, -1, np.int32)
        self._by_encoder_id[: len(items.by_encoder_id)] = items.by_encoder_id
        self._deny = self._denied(items.sellable)
        self._k = np.array([min(ENCODER, self._vocabulary)], np.int64)

    def remember(self, history: History) -> Memory:
        """Digest a history once for many requests."""
        return remember(history, self.items, self._length)

    def rank(
        self,
        history: History,
        at_days: float,
        store: int = -1,
        n: int = 10,
        filters: Filters | None = None,
        deny: Sequence[int] = (),
        touchpoint: str = "",
    ) -> Ranked:
        """Rank items for one customer at one moment.

        Args:
            history: The customer's events; those at or after the moment are not used.
            at_days: Moment, days since 1970-01-01 UTC.
            store: Store index, -1 for none.
            n: Items wanted.
            filters: Which items may be shown.
            deny: Item indices that must not be shown.
            touchpoint: Where the answer is shown.

        Raises:
            GraphError: A graph failed or gave scores that are not numbers.
        """
        query = Query(history, at_days, store, n, filters or EVERYTHING, deny, touchpoint)
        return self.rank_many([query])[0]

    def rank_many(self, queries: Sequence[Query]) -> list[Ranked]:
        """Rank for several requests with one run of the encoder; each gets what it would get alone.

        Raises:
            GraphError: A graph failed or gave scores that are not numbers.
        """
        if not queries:
            return []
        memories = [self._memory(query) for query in queries]
        flags = [self.promotions(query.at_days, query.store) for query in queries]
        allowed = [self._allowed(query, flag) for query, flag in zip(queries, flags, strict=True)]
        scores, tops, encoder_ns = self._encode(queries, memories, allowed)
        results = []
        for row, (query, memory, flag) in enumerate(zip(queries, memories, flags, strict=True)):
            narrowed = bool(query.filters) or len(query.deny) > 0
            chosen = candidates(memory, self.items, tops[row], allowed[row], narrowed)
            encoder_scores = self._of_row(scores, row, chosen)
            ranked, ranker_ns = self._scorer.scores(
                memory, chosen, query.at_days, query.store, flag, encoder_scores
            )
            graph_ns = (encoder_ns // len(queries), ranker_ns)
            results.append(self._answer(query, memory, chosen, ranked, tops[row], flag, graph_ns))
        return results

    def affinity(
        self, query: Query, items: NDArray[np.int32]
    ) -> tuple[NDArray[np.float32], NDArray[np.int32], int]:
        """What the models think of given items for one customer.

        Args:
            query: Who, when and where; its filters and size are not used.
            items: int32[M], ascending, each once.

        Returns:
            float32[M] of ranker scores, the encoder's list int32[k] (best first, -1 for none), and the
            nanoseconds of the ONNX runs.

        Raises:
            GraphError: A graph failed or gave scores that are not numbers.
        """
        memory = self._memory(query)
        flags = self.promotions(query.at_days, query.store)
        scores, tops, encoder_ns = self._encode([query], [memory], [self.items.sellable])
        chosen = described(memory, items, np.zeros(len(items), np.uint8))
        encoder_scores = self._of_row(scores, 0, chosen)
        ranked, ranker_ns = self._scorer.scores(
            memory, chosen, query.at_days, query.store, flags, encoder_scores
        )
        return ranked, tops[0], encoder_ns + ranker_ns

    def _of_row(
        self, scores: NDArray[np.float32] | Answer, row: int, chosen: Candidates
    ) -> NDArray[np.float32]:
        """float32[V + 1] of one request, known at least for its candidates."""
        if isinstance(scores, Answer):
            return scores.row(row, self.items.encoder_id[chosen.items])
        whole: NDArray[np.float32] = scores[row]
        return whole

    def popular(self, query: Query) -> Ranked:
        """What is popular among what may be shown; needs no model and no history."""
        flags = self.promotions(query.at_days, query.store)
        popularity = self.items.popularity
        order = popularity[self._allowed(query, flags)[popularity]]
        shown, propensities, explored = explore(order.astype(np.int64), query.n, query.exploration, query.rng)
        texts = [reasons.popular_reason(item, self.items) for item in shown.tolist()]
        if explored:
            texts[-1] = reasons.EXPLORED
        return Ranked(
            items=shown.astype(np.int32),
            scores=(1.0 / np.arange(1, len(shown) + 1)).astype(np.float32),
            propensities=propensities,
            sources=[("popular",)] * len(shown),
            reasons=texts,
            candidates=len(order),
            explored=explored,
        )

    def promotions(self, at_days: float, store: int) -> NDArray[np.uint8] | None:
        """uint8[N] of promotion bits in a store's week, or None where nothing is known."""
        return None if store < 0 else self._exposures.flags(int(week_of(at_days)), store)

    def _memory(self, query: Query) -> Memory:
        if query.memory is not None:
            return query.memory
        return self.remember(query.history.before(round(query.at_days * MICROSECONDS_PER_DAY)))

    def _allowed(self, query: Query, flags: NDArray[np.uint8] | None) -> Mask:
        if not query.filters and not len(query.deny):
            return self.items.sellable
        mask = self.items.allowed(query.filters, None if flags is None else flags > 0)
        mask[np.asarray(query.deny, np.int64)] = False
        return mask

    def _denied(self, allowed: Mask) -> Mask:
        """bool[V + 1] for the encoder: what it must not put forward."""
        denied = np.ones(self._vocabulary + 1, np.bool_)
        known = self._by_encoder_id >= 0
        denied[known] = ~allowed[self._by_encoder_id[known]]
        return denied

    def _encode(
        self, queries: Sequence[Query], memories: Sequence[Memory], allowed: Sequence[Mask]
    ) -> tuple[NDArray[np.float32] | Answer, NDArray[np.int32], int]:
        """Encoder scores float32[B, V + 1] (or what gives them), item indices of its best int32[B, k], nanoseconds."""
        longest = max(1, *(len(memory.sequence.item) for memory in memories))
        length = min(self._length, -(-longest // LENGTH_STEP) * LENGTH_STEP)
        parts = [memory.padded(length) for memory in memories]
        item = _stacked([part[0] for part in parts])
        action = _stacked([part[1] for part in parts])
        channel = _stacked([part[2] for part in parts])
        age = np.empty((len(queries), length), np.float32)
        for row, (query, memory, part) in enumerate(zip(queries, memories, parts, strict=True)):
            np.subtract(query.at_days, part[3], out=age[row], casting="same_kind")
            age[row, : length - len(memory.sequence.item)] = 0.0
        denied = [self._deny if mask is self.items.sellable else self._denied(mask) for mask in allowed]
        deny = denied[0][None] if len(denied) == 1 else np.stack(denied)
        feed: dict[str, NDArray[Any]] = {
            "item": item,
            "action": action,
            "channel": channel,
            "age": age,
            "deny": deny,
            "k": self._k,
        }
        scores: NDArray[np.float32] | Answer
        if isinstance(self._encoder, LargeEncoder):
            scores = self._encoder.answer(feed)
            values, ids, nanoseconds = scores.top_scores, scores.top_items, scores.nanoseconds
        else:
            outputs = ("scores", "top_scores", "top_items")
            (scores, values, ids), nanoseconds = self._encoder.run(outputs, feed)
        if any(math.isnan(best) for best in values[:, 0].tolist()):
            raise GraphError("'encoder' gave scores that are not numbers")
        tops = self._by_encoder_id[ids]
        if not all(
            math.isfinite(last) for last in values[:, -1].tolist()
        ):  # Fewer were allowed than asked for.
            tops = np.where(np.isfinite(values), tops, np.int32(-1))
        return scores, tops, nanoseconds

    def _answer(
        self,
        query: Query,
        memory: Memory,
        chosen: Candidates,
        scores: NDArray[np.float32],
        top: NDArray[np.int32],
        flags: NDArray[np.uint8] | None,
        graph_ns: tuple[int, int],
    ) -> Ranked:
        explores = query.exploration > 0 and query.rng is not None
        order = _best_first(scores, chosen.items, len(scores) if explores else query.n)
        shown, propensities, explored = explore(order, query.n, query.exploration, query.rng)
        picked = chosen.items[shown]
        bits = [0] * len(picked) if flags is None else flags[picked].tolist()
        texts = [
            reasons.explain(item, memory, self.items, query.at_days, promoted, top)
            for item, promoted in zip(picked.tolist(), bits, strict=True)
        ]
        if explored:
            texts[-1] = reasons.EXPLORED
        return Ranked(
            items=picked,
            scores=scores[shown],
            propensities=propensities,
            sources=[SOURCES[bits] for bits in chosen.bits[shown].tolist()],
            reasons=texts,
            candidates=len(chosen.items),
            explored=explored,
            graph_ns=graph_ns,
        )


def _best_first(scores: NDArray[np.float32], items: NDArray[np.int32], n: int) -> NDArray[np.int64]:
    """Places of the n highest scores, the highest first; of equal ones the lower item comes first."""
    negative = -scores
    if n >= len(scores):
        return np.lexsort((items, negative))
    head = np.flatnonzero(negative <= np.partition(negative, n - 1)[n - 1])
    return head[np.lexsort((items[head], negative[head]))][:n]


def _stacked(rows: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return rows[0][None] if len(rows) == 1 else np.stack(rows)
