"""The index at a million products: recall and speed of the server's own search, by cells against exactly.

Vectors are made, not seen: 60 types hold 40,000 models of heavy-tailed popularity (Pareto 1.5), of which each product
is a variation; every level adds normal deviates whose spread falls with the square root of the dimension's number, as
the spectrum of real embeddings does, so that a type is a cloud, a model a denser one in it. Questions are products
moved off their place by noise of a length of 0.6, as a shopper's photo is off the catalogue picture. Exact search is
the server's own over the same rows without cells; both answer one question at a time on one thread.

Belongs here: making vectors, asking, timing. Does not belong here: the index (`training/visual/index.py`), the search
(`serving/vision/index.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from contracts.visual import CLASSES
from serving.vision.index import Index, Wish
from training.visual import index as building

ROWS, QUICK_ROWS = 1_000_000, 100_000
DIM = 256
QUESTIONS = 200
TYPES, MODELS = 60, 40_000
SPREAD = {"model": 0.8, "product": 0.45}
SEED = 0
SHA = "0" * 64
FILTERED = 0.1
"""Share of rows that the filtered questions leave."""

Vectors = npt.NDArray[np.float32]


class _Items:
    """As many items as rows; row n of the index answers with item n."""

    def __init__(self, size: int) -> None:
        self.size = size

    def indices(self, ids: list[str]) -> npt.NDArray[np.int32]:
        return np.array(ids, np.int32)


def run(quick: bool, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure; see `tests/benchmarks/report.py` for what becomes of the numbers."""
    rows = QUICK_ROWS if quick else ROWS
    vectors = make(rows)
    progress(f"{rows:,} vectors made")
    # What lies in one shard is what a category has: here all of it.
    products = [building.Product(key=str(row), shard=CLASSES[0], answers=(str(row),)) for row in range(rows)]
    started = time.perf_counter()
    built = building.build(products, vectors, SHA, exact_limit=rows // 2, progress=progress)
    seconds = time.perf_counter() - started
    asked = _questions(vectors)
    del products, vectors
    cells = Index(built.arrays, SHA, DIM, _Items(rows))  # type: ignore[arg-type]
    names = ("centres", "cell_shard", "cell_rows", "probes")
    whole = {key: value for key, value in built.arrays.items() if key not in names}
    exact = Index(whole, SHA, DIM, _Items(rows))  # type: ignore[arg-type]
    every = np.ones(rows, bool)
    some = np.random.default_rng(SEED + 2).random(rows) < FILTERED
    measured: dict[str, Any] = {}
    for name, mask in (("", every), ("filtered_", some)):
        with threadpool_limits(1):
            true, slow = _ask(exact, asked, mask)
            found, fast = _ask(cells, asked, mask)
        hits = [len(set(a.tolist()) & set(b.tolist())) / 10 for a, b in zip(true, found, strict=True)]
        measured[f"{name}recall_at_10"] = float(np.mean(hits))
        measured[f"{name}speedup_over_exact"] = float(np.median(slow) / np.median(fast))
        measured[f"{name}p50_ms"] = float(np.median(fast))
        measured[f"{name}exact_p50_ms"] = float(np.median(slow))
        progress(f"{name or 'all rows: '}{measured[f'{name}speedup_over_exact']:.1f} times as fast")
    measured["build_seconds"] = seconds
    nearest = exact.search(asked, "", every, 10)
    setup = {
        "data": f"{rows:,} x {DIM} made vectors (see the bench's docstring), one shard",
        "rows": rows,
        "questions": QUESTIONS,
        "cells": len(built.arrays["centres"]),
        "probes": int(built.arrays["probes"].max()),
        "cosine_to_1st": float(np.mean([similar[0] for _, similar in nearest])),
        "cosine_to_10th": float(np.mean([similar[9] for _, similar in nearest])),
        "filtered_share": FILTERED,
        "seed": SEED,
    }
    return {"measured": measured, "setup": setup}


def make(rows: int, seed: int = SEED) -> Vectors:
    """Vectors of length 1, clustered as the module says, ``float32[rows, DIM]``."""
    rng = np.random.default_rng(seed)
    spectrum = (1 / np.sqrt(np.arange(1, DIM + 1))).astype(np.float32)

    def moved(count: int, by: float) -> Vectors:
        return rng.standard_normal((count, DIM), np.float32) * spectrum * np.float32(by)

    models = moved(TYPES, 1.0)[rng.integers(0, TYPES, MODELS)] + moved(MODELS, SPREAD["model"])
    share = rng.pareto(1.5, MODELS) + 0.1
    model = rng.choice(MODELS, rows, p=share / share.sum())
    vectors = np.empty((rows, DIM), np.float32)
    for start in range(0, rows, building.BLOCK):
        some = model[start : start + building.BLOCK]
        vectors[start : start + building.BLOCK] = models[some] + moved(len(some), SPREAD["product"])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _questions(vectors: Vectors) -> Vectors:
    rng = np.random.default_rng(SEED + 1)
    rows = vectors[rng.choice(len(vectors), QUESTIONS, replace=False)]
    noise = rng.standard_normal(rows.shape, np.float32)
    asked = rows + noise * (building.APART / np.linalg.norm(noise, axis=1, keepdims=True))
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    return asked.astype(np.float32)


def _ask(
    index: Index, asked: Vectors, mask: npt.NDArray[np.bool_]
) -> tuple[list[npt.NDArray[np.int64]], list[float]]:
    allowed = index.allowed(Wish(items=mask, in_stock=False))
    found, spent = [], []
    for query in asked:
        started = time.perf_counter()
        ((rows, _),) = index.search(query[None], CLASSES[0], allowed, 10)
        spent.append(1e3 * (time.perf_counter() - started))
        found.append(rows)
    return found, spent
