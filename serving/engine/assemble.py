"""The ranker's input for one request: stored rows looked up, request-time arithmetic applied.

Belongs here: bringing a customer's rows, the item table, promotions and encoder scores together by
candidate. Does not belong here: the arithmetic (`contracts.features`, as a graph: `tracing.py`), counting
(`serving/profiles/fold.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from contracts.features import RANKER_FEATURES
from serving.engine.items import DISPLAY, MAILER, ItemTable, StoreProducts, TableError
from serving.engine.memory import Memory
from serving.engine.sessions import Session
from serving.engine.tracing import trace


class Assembler:
    """Makes feature matrices in the order of a release's ranker.

    Args:
        names: Feature names, in the order of the ranker's columns.
        items: The release's items.
        sales: How items sell by store.

    Raises:
        TableError: The ranker wants a feature that this code does not make.
    """

    def __init__(self, names: Sequence[str], items: ItemTable, sales: StoreProducts) -> None:
        for name in names:
            if name not in RANKER_FEATURES:
                raise TableError(f"the ranker wants feature '{name}', which this server does not make")
        self._items = items
        self._sales = sales
        self._products = np.nan_to_num(items.features.astype(np.float64).T, nan=0.0).copy()
        self._arithmetic = Session("features", trace(names))

    def features(
        self,
        memory: Memory,
        chosen: NDArray[np.int32],
        at_days: float,
        store: int,
        flags: NDArray[np.uint8] | None,
        encoder_scores: NDArray[np.float32],
    ) -> tuple[NDArray[np.float32], int]:
        """float32[M, F] for the candidates of one request, and the nanoseconds of the arithmetic.

        Args:
            memory: The customer.
            chosen: int32[M], item indices.
            at_days: Moment of the request.
            store: Store index, -1 for none.
            flags: Promotion bits by item in the store's week, or None where nothing is known.
            encoder_scores: float32[V + 1], by encoder id.

        Raises:
            GraphError: The arithmetic failed.
        """
        items = self._items
        types = memory.types.places(items.type_id.take(chosen), items.types)
        categories = memory.categories.places(items.category_id.take(chosen), items.categories)
        promotions = np.zeros((2, len(chosen)))
        if flags is not None:
            bits = flags.take(chosen)
            promotions[0] = bits & DISPLAY
            promotions[1] = (bits & MAILER) >> 1
        models = np.empty((2, len(chosen)))
        ids = items.encoder_id.take(chosen)
        models[0] = np.where(ids > 0, encoder_scores.take(ids), 0.0)
        models[1] = _together(memory, chosen, items.size)
        feed = {
            "c": memory.customer,
            "cp": memory.products.values.take(memory.products.places(chosen, items.size), axis=1),
            "ct": memory.types.values.take(types, axis=1),
            "cc": memory.categories.values.take(categories, axis=1),
            "p": self._products.take(chosen, axis=1),
            "s": self._sales.rows(store, chosen),
            "x": promotions,
            "m": models,
            "now": np.array([[at_days]]),
        }
        (matrix,), nanoseconds = self._arithmetic.run(("features",), feed)
        return matrix, nanoseconds


def _together(memory: Memory, chosen: NDArray[np.int32], size: int) -> NDArray[np.float32]:
    scores = np.zeros(size, np.float32)
    scores[memory.together] = memory.together_scores
    return scores.take(chosen)
