"""Features and scores of one request's candidates: what the graph of features and ranker is fed.

Belongs here: finding a customer's and a store's rows, feeding the graph. Does not belong here: the
arithmetic (`contracts.features`, as a graph: `tracing.py`), counting (`serving/profiles/fold.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.features import RANKER_FEATURES
from serving.engine.candidates import Candidates
from serving.engine.items import ItemTable, StoreProducts, TableError
from serving.engine.memory import Memory
from serving.engine.sessions import CPU, Session, require_finite
from serving.engine.tracing import joined, trace


class Scorer:
    """Scores candidates with a release's ranker.

    Args:
        names: Feature names, in the order of the ranker's columns.
        items: The release's items.
        sales: How items sell by store.
        ranker: Bytes of the ranker's graph.
        providers: ONNX Runtime execution providers by preference.

    Raises:
        TableError: The ranker wants a feature that this code does not make.
        GraphError: ONNX Runtime refuses the graph.
    """

    def __init__(
        self,
        names: Sequence[str],
        items: ItemTable,
        sales: StoreProducts,
        ranker: bytes,
        providers: Sequence[str] = (CPU,),
    ) -> None:
        for name in names:
            if name not in RANKER_FEATURES:
                raise TableError(f"the ranker wants feature '{name}', which this server does not make")
        self._sales = sales
        self._session = Session("ranker", joined(trace(names), ranker), providers)
        self._fixed: dict[str, NDArray[Any]] = {
            "p": np.nan_to_num(items.features.astype(np.float64).T, nan=0.0).copy(),
            "type_id": items.type_id,
            "category_id": items.category_id,
            "encoder_id": items.encoder_id,
        }
        self._nothing = np.zeros(items.size, np.uint8)

    @property
    def provider(self) -> str:
        """The provider that runs the graph."""
        return self._session.provider

    def scores(
        self,
        memory: Memory,
        chosen: Candidates,
        at_days: float,
        store: int,
        flags: NDArray[np.uint8] | None,
        encoder_scores: NDArray[np.float32],
    ) -> tuple[NDArray[np.float32], int]:
        """float32[M], the ranker's scores of one request's candidates, and the nanoseconds of the run.

        Args:
            memory: The customer.
            chosen: The candidates.
            at_days: Moment of the request.
            store: Store index, -1 for none.
            flags: Promotion bits by item in the store's week, or None where nothing is known.
            encoder_scores: float32[V + 1], by encoder id.

        Raises:
            GraphError: The graph failed or gave scores that are not numbers.
        """
        if not len(chosen.items):
            return np.zeros(0, np.float32), 0
        found, nanoseconds = self._run("scores", memory, chosen, at_days, store, flags, encoder_scores)
        return require_finite("ranker", found.reshape(-1)), nanoseconds

    def features(
        self,
        memory: Memory,
        chosen: Candidates,
        at_days: float,
        store: int,
        flags: NDArray[np.uint8] | None,
        encoder_scores: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """float32[M, F], what the ranker is shown; arguments as of `scores`.

        Raises:
            GraphError: The graph failed.
        """
        return self._run("features", memory, chosen, at_days, store, flags, encoder_scores)[0]

    def _run(
        self,
        output: str,
        memory: Memory,
        chosen: Candidates,
        at_days: float,
        store: int,
        flags: NDArray[np.uint8] | None,
        encoder_scores: NDArray[np.float32],
    ) -> tuple[NDArray[np.float32], int]:
        sold, sold_rows = self._sales.rows(store)
        feed = {
            **self._fixed,
            "chosen": chosen.items,
            "now": np.array([[at_days]]),
            "c": memory.customer,
            "cp": memory.products.values,
            "cp_place": chosen.places,
            "ct": memory.types.values,
            "ct_place": memory.type_places,
            "cc": memory.categories.values,
            "cc_place": memory.category_places,
            "s": sold_rows,
            "cs": memory.in_store(store),
            "s_place": sold,
            "flags": self._nothing if flags is None else flags,
            "together": chosen.together,
            "encoder_scores": encoder_scores,
        }
        (values,), nanoseconds = self._session.run((output,), feed)
        return values, nanoseconds
