"""The index: vectors of a shop's pictures by shard, and cells in shards too large to be searched whole.

Exact search over one matrix is fastest up to some ten thousand rows. Above `exact_limit` a shard's rows are laid
side by side by cell (k-means over directions, Jegou et al. 2011's inverted file without compression): a search
looks at the `probes` cells whose centres are nearest. Filters are applied to rows before any are ranked, which graph
indexes with a Python binding do not offer, and the whole index stays plain arrays. How many cells a search needs is
measured here, on the shard's own vectors, until the recall wanted is reached.

Belongs here: building the arrays of `contracts.visual.INDEX_FILE`. Does not belong here: searching
(`serving/vision`), vectors (`embedding.py`), prices and stock (the orchestrator brings them).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.visual import CLASSES, IndexSettings

Vectors = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Progress = Callable[[str], None]

ROWS_PER_CELL = 1024
"""Aimed at: a search costs about as much for the centres as for the rows at the square root of all rows."""

LEARNED_PER_CELL = 64
"""Rows per cell that the centres are learned from."""

ROUNDS = 8
BLOCK = 8192
RECALL = 0.985
"""Share of the true ten that the chosen number of cells finds, on rows moved a little."""

ASKED = 400
APART = 0.6
"""Length of what is added to rows to make the questions that recall is measured with: a shopper's photo is no copy of
a catalogue picture (they then have a cosine of about 0.86 with it)."""

LEAST_PROBES = 8
MOST_PROBES = 0.25
"""Of all cells; a shard that would need more is searched exactly."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Product:
    """One row before it has a vector.

    Attributes:
        key: Product id, or the class's name where a row is a type of product.
        shard: Class, one of `contracts.visual.CLASSES`.
        type: In the shop's words.
        colour: Likewise, empty for unknown.
        price: NaN where unknown.
        in_stock: Whether it can be bought now.
        sizes: Sizes it is made in, and whether each is in stock; empty where sizes do not matter.
        answers: Products it stands for, best first.
        slot: Slot in an outfit, 0 for none.
    """

    key: str
    shard: str
    type: str = ""
    colour: str = ""
    price: float = math.nan
    in_stock: bool = True
    sizes: Mapping[str, bool] = dataclasses.field(default_factory=dict)
    answers: tuple[str, ...]
    slot: int = 0


@dataclasses.dataclass(frozen=True)
class Built:
    """An index.

    Attributes:
        arrays: Content of `INDEX_FILE`.
        settings: Of its component.
        order: Place of each row among the products that were given.
        recalls: Measured recall at 10 per shard that has cells.
    """

    arrays: dict[str, npt.NDArray[Any]]
    settings: IndexSettings
    order: Integers
    recalls: dict[str, float]


def build(
    products: Sequence[Product],
    vectors: Vectors,
    embedder_sha256: str,
    projected: Vectors | None = None,
    exact_limit: int = 100_000,
    meaning: str = "product",
    votes: bool = False,
    progress: Progress = lambda line: None,
) -> Built:
    """Lay out an index.

    Args:
        products: N rows.
        vectors: ``float32[N, d]`` of length 1.
        embedder_sha256: Of the graph that made the vectors.
        projected: ``float32[N, p]``, or None without an outfit model.
        exact_limit: Shards with more rows get cells.
        meaning: What a row is, see `IndexSettings`.
        votes: Whether rows tell what is stated, likewise.
        progress: Receives a line per shard with cells.

    Raises:
        ValueError: Keys repeat, a shard is unknown, or vectors are not finite and of length 1.
    """
    size = len(products)
    keys = [product.key for product in products]
    if len(set(keys)) < size:
        raise ValueError("a product stands in the index twice; expected each once")
    if unknown := sorted({product.shard for product in products} - set(CLASSES)):
        raise ValueError(f"shard '{unknown[0]}' is unknown; expected one of: {', '.join(CLASSES)}")
    if vectors.shape[0] != size or not _of_length_one(vectors):
        raise ValueError(f"vectors are {list(vectors.shape)}; expected {size} rows of length 1")
    shard = np.array([CLASSES.index(product.shard) for product in products], np.int32)
    cell, made, recalls = np.zeros(size, np.int64), [], {}
    for number in np.unique(shard):
        rows = np.flatnonzero(shard == number)
        if len(rows) <= exact_limit:
            continue
        cells = find_cells(vectors[rows], int(number))
        progress(f"index: {CLASSES[number]}, {len(rows):,} rows in {len(cells.centres):,} cells")
        if cells.probes > MOST_PROBES * len(cells.centres):
            progress(f"index: {CLASSES[number]} is searched exactly: it would need {cells.probes} of them")
            continue
        cell[rows], recalls[CLASSES[number]] = cells.cell, cells.recall
        made.append((int(number), cells))
    order = np.lexsort((np.array(keys), cell, shard)) if size else np.zeros(0, np.int64)
    arrays = _columns([products[place] for place in order])
    arrays |= {
        "vectors": np.ascontiguousarray(vectors[order], np.float32),
        "shard": shard[order], "shards": np.array(CLASSES),
        "projected": np.zeros((size, 0), np.float32) if projected is None else projected[order].astype(np.float32),
        "embedder_sha256": np.array(embedder_sha256),
        **_cell_arrays(shard[order], cell[order], made, vectors.shape[1]),
    }  # fmt: skip
    settings = IndexSettings(
        products=size, dim=vectors.shape[1], exact_limit=exact_limit, meaning=meaning, votes=votes,
        cells={CLASSES[number]: cells.probes for number, cells in made},
    )  # fmt: skip
    return Built(arrays, settings, order, recalls)


@dataclasses.dataclass(frozen=True)
class Cells:
    """How a shard is cut.

    Attributes:
        centres: ``float32[C, d]`` of length 1.
        cell: Of each row.
        probes: Cells that a search looks at.
        recall: Measured with them.
    """

    centres: Vectors
    cell: Integers
    probes: int
    recall: float


def find_cells(vectors: Vectors, seed: int = 0, recall: float = RECALL) -> Cells:
    """Cut a shard into cells, and find how many of them a search has to look at.

    Args:
        vectors: ``float32[N, d]`` of length 1.
        seed: Of the sample and the first centres.
        recall: Share of the true ten to be found.
    """
    rng = np.random.default_rng(seed)
    count = max(2, math.ceil(len(vectors) / ROWS_PER_CELL))
    sample = rng.permutation(len(vectors))[: count * LEARNED_PER_CELL]
    centres = _centres(vectors[np.sort(sample)], count, rng)
    cell = _nearest(vectors, centres)
    asked = vectors[rng.permutation(len(vectors))[:ASKED]]
    moved = rng.standard_normal(asked.shape).astype(np.float32)
    asked = asked + moved * (APART / np.linalg.norm(moved, axis=1, keepdims=True))
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    # The place of a true neighbour's cell among the centres is the number of cells that finds it.
    rank = np.empty((len(asked), count), np.int32)
    np.put_along_axis(
        rank, np.argsort(-(asked @ centres.T), axis=1), np.arange(count, dtype=np.int32)[None], axis=1
    )
    needed = np.take_along_axis(rank, cell[_ten_nearest(vectors, asked)], axis=1) + 1
    enough = int(np.sort(needed, axis=None)[math.ceil(recall * needed.size) - 1])
    probes = min(count, max(LEAST_PROBES, enough))
    return Cells(centres, cell, probes, float((needed <= probes).mean()))


def _ten_nearest(vectors: Vectors, asked: Vectors) -> Integers:
    """Rows of the ten nearest of each question, ``int64[Q, 10]``."""
    best = np.full((len(asked), 10), -np.inf, np.float32)
    rows = np.zeros((len(asked), 10), np.int64)
    for start in range(0, len(vectors), BLOCK):
        similar = asked @ vectors[start : start + BLOCK].T
        every = np.concatenate([best, similar], axis=1)
        top = np.argpartition(-every, 9, axis=1)[:, :10]
        places = np.concatenate(
            [rows, np.broadcast_to(np.arange(start, start + similar.shape[1]), similar.shape)], axis=1
        )
        best, rows = np.take_along_axis(every, top, axis=1), np.take_along_axis(places, top, axis=1)
    return rows


def _centres(vectors: Vectors, count: int, rng: np.random.Generator) -> Vectors:
    centres = vectors[rng.permutation(len(vectors))[:count]].copy()
    for _ in range(ROUNDS):
        cell = _nearest(vectors, centres)
        order = np.argsort(cell, kind="stable")
        counts = np.bincount(cell, minlength=count)
        filled = np.flatnonzero(counts)
        starts = (np.cumsum(counts) - counts)[filled]
        centres[filled] = np.add.reduceat(vectors[order], starts, axis=0)
        lost = np.flatnonzero(counts == 0)
        centres[lost] = vectors[rng.permutation(len(vectors))[: len(lost)]]
        centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
    return centres


def _nearest(vectors: Vectors, centres: Vectors) -> Integers:
    found = np.empty(len(vectors), np.int64)
    for start in range(0, len(vectors), BLOCK):
        found[start : start + BLOCK] = (vectors[start : start + BLOCK] @ centres.T).argmax(axis=1)
    return found


def _of_length_one(vectors: Vectors) -> bool:
    lengths = np.linalg.norm(vectors, axis=1)
    return bool(np.isfinite(lengths).all() and np.abs(lengths - 1).max(initial=0.0) < 1e-3)


def _columns(products: Sequence[Product]) -> dict[str, npt.NDArray[Any]]:
    counts = [len(product.answers) for product in products]
    answers = [answer for product in products for answer in product.answers]
    colours = sorted({product.colour for product in products} - {""})
    types = sorted({product.type for product in products} - {""})
    # In the order in which products list them, which is the order of wear.
    sizes = list(dict.fromkeys(size for product in products for size in product.sizes))
    sized = np.zeros((len(products), len(sizes)), np.int8)
    for row, product in enumerate(products):
        for size, offered in product.sizes.items():
            sized[row, sizes.index(size)] = 2 if offered else 1
    return {
        "product_id": np.array([product.key for product in products], np.str_),
        "slot": np.array([product.slot for product in products], np.int64),
        "colour": _codes([product.colour for product in products], colours),
        "colours": np.array(colours, np.str_),
        "type": _codes([product.type for product in products], types),
        "types": np.array(types, np.str_),
        "price": np.array([product.price for product in products], np.float32),
        "in_stock": np.array([product.in_stock for product in products], bool),
        "sizes": np.array(sizes, np.str_),
        "sized": sized,
        "answers_from": np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        "answers": np.array(answers, np.str_),
    }


def _codes(values: Sequence[str], names: Sequence[str]) -> npt.NDArray[np.int32]:
    place: Mapping[str, int] = {name: number for number, name in enumerate(names)}
    return np.array([place.get(value, -1) for value in values], np.int32)


def _cell_arrays(
    shard: npt.NDArray[np.int32], cell: Integers, made: Sequence[tuple[int, Cells]], dim: int
) -> dict[str, npt.NDArray[Any]]:
    centres, shards, places = [np.zeros((0, dim), np.float32)], [], [np.zeros((0, 2), np.int64)]
    probes = np.zeros(len(CLASSES), np.int32)
    for number, cells in made:
        rows = np.flatnonzero(shard == number)
        edges = rows[0] + np.searchsorted(cell[rows], np.arange(len(cells.centres) + 1))
        centres.append(cells.centres)
        shards += [number] * len(cells.centres)
        places.append(np.stack([edges[:-1], edges[1:]], axis=1))
        probes[number] = cells.probes
    return {
        "centres": np.concatenate(centres),
        "cell_shard": np.array(shards, np.int32),
        "cell_rows": np.concatenate(places),
        "probes": probes,
    }
