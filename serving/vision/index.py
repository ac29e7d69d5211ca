"""The index of a release: products by what they look like, searched per shard, filters first.

Exact search over a matrix: at the size of a retailer's category it takes about a millisecond, and what a
filter excludes can never push out what it allows. A larger shard is cut into cells (`cells.py`), of which the
nearest are looked at.

Belongs here: loading, checks, masks, search. Does not belong here: vectors (`models.py`), re-ranking.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from contracts.visual import INDEX_FILE, WHOLE
from serving.engine.items import ItemTable, Mask, TableError
from serving.vision.arrays import read_array
from serving.vision.cells import EXACT_SHARE, read_cells
from serving.vision.sizes import read_sizes

LENGTH_TOLERANCE = 1e-2

Found = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Rows and their similarities, best first."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What a result must be, beside looking right.

    Attributes:
        items: bool[items], which items of the release may be shown.
        price_min: Least price, or None.
        price_max: Largest price, or None.
        in_stock: Only what is in stock.
        sizes: Any of these sizes is in stock, of products that come in sizes of their kind; empty for all.
        colours: Any of these colours; empty for all.
        not_colours: None of these.
        types: Any of these types; empty for all.
    """

    items: Mask
    price_min: float | None = None
    price_max: float | None = None
    in_stock: bool = True
    sizes: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    not_colours: tuple[str, ...] = ()
    types: tuple[str, ...] = ()

    @property
    def narrow(self) -> bool:
        """Whether anything but stock is asked for."""
        bounds = (self.price_min, self.price_max)
        return bool(self.colours or self.not_colours or self.types) or bounds != (None, None)


class Index:
    """Rows of products by shard.

    Args:
        arrays: Content of `INDEX_FILE`.
        embedder: sha256 of the embedder of the same release.
        dim: Width of its vectors.
        items: Items of the release.
        votes: See `IndexSettings`.

    Attributes:
        size: Rows.
        votes: Likewise.
        products: str list of N, the product of each row.
        vectors: float32[N, d], rows of one shard side by side.
        shards: Names of the shards.
        shard: int32[N].
        projected: float32[N, p], p = 0 without an outfit model.
        slot: int64[N], slot of each row in an outfit, 0 for none.
        colours: Names of the colours.
        colour: int32[N], -1 for none.
        types: Names of the types.
        type: int32[N], -1 for none.
        price: float32[N], NaN where unknown.
        in_stock: bool[N].
        sizes: Sizes of products, see `Sizes`.

    Raises:
        TableError: An array is missing or of another shape, or the vectors were made by another embedder.
    """

    def __init__(
        self,
        arrays: Mapping[str, NDArray[Any]],
        embedder: str,
        dim: int,
        items: ItemTable,
        votes: bool = False,
    ) -> None:
        self.votes = votes
        made_by = str(read_array(arrays, "embedder_sha256", "U", ()))
        if made_by != embedder:
            raise TableError(
                f"{INDEX_FILE} was made by embedder {made_by[:12]}, the release brings {embedder[:12]}; "
                "expected vectors of the same embedder"
            )
        self.products: list[str] = read_array(arrays, "product_id", "U", (-1,)).tolist()
        size = self.size = len(self.products)
        self.vectors: NDArray[np.float32] = np.ascontiguousarray(
            read_array(arrays, "vectors", "f", (size, dim)), np.float32
        )
        lengths = np.linalg.norm(self.vectors, axis=1)
        if size and not float(np.abs(lengths - 1.0).max()) <= LENGTH_TOLERANCE:
            raise TableError(f"{INDEX_FILE}: 'vectors' are not of length 1")
        self.shards: list[str] = read_array(arrays, "shards", "U", (-1,)).tolist()
        self.shard = _codes(arrays, "shard", size, len(self.shards))
        if size and (bool(np.any(np.diff(self.shard) < 0)) or int(self.shard.min()) < 0):
            raise TableError(f"{INDEX_FILE}: rows are not sorted by 'shard'")
        places = np.searchsorted(self.shard, np.arange(len(self.shards) + 1))
        self._slices = [slice(int(a), int(b)) for a, b in itertools.pairwise(places)]
        self.projected: NDArray[np.float32] = read_array(arrays, "projected", "f", (size, -1)).astype(
            np.float32
        )
        self.slot: NDArray[np.int64] = read_array(arrays, "slot", "i", (size,)).astype(np.int64)
        self.colours: list[str] = read_array(arrays, "colours", "U", (-1,)).tolist()
        self.colour = _codes(arrays, "colour", size, len(self.colours))
        self.types: list[str] = read_array(arrays, "types", "U", (-1,)).tolist()
        self.type = _codes(arrays, "type", size, len(self.types))
        self.price: NDArray[np.float32] = read_array(arrays, "price", "f", (size,)).astype(np.float32)
        self.in_stock: NDArray[np.bool_] = read_array(arrays, "in_stock", "b", (size,))
        self.sizes = read_sizes(arrays, size)
        self._cells = read_cells(arrays, dim, self._slices, INDEX_FILE)
        self._read_answers(arrays, items)
        self.row_of: dict[str, int] = {key: row for row, key in enumerate(self.products)}
        self.row_of_item = self._rows_of_items()
        self._usual = [_median(self.price[part]) for part in self._slices]

    def _rows_of_items(self) -> dict[int, int]:
        """Row by item index; of several rows that an item answers for, the first."""
        counts = np.diff(self._starts)
        pairs = zip(self._answers.tolist(), np.repeat(np.arange(self.size), counts).tolist(), strict=True)
        rows: dict[int, int] = {}
        for item, row in pairs:
            if item >= 0:
                rows.setdefault(item, row)
        return rows

    def usual_price(self, shard: int) -> float:
        """Median price of a shard, 0 where no price is known."""
        return self._usual[shard]

    def _read_answers(self, arrays: Mapping[str, NDArray[Any]], items: ItemTable) -> None:
        """Which items each row stands for; a product of its own for most shops."""
        starts = read_array(arrays, "answers_from", "i", (self.size + 1,)).astype(np.int64)
        answers = read_array(arrays, "answers", "U", (-1,))
        if int(starts[0]) != 0 or int(starts[-1]) != len(answers) or bool(np.any(np.diff(starts) < 0)):
            raise TableError(f"{INDEX_FILE}: 'answers_from' does not fit 'answers'")
        self._starts, self._answers = starts, items.indices(answers.tolist())
        self._single = bool(np.all(np.diff(starts) == 1))

    def answers(self, row: int) -> NDArray[np.int32]:
        """Items that a row stands for, best first; -1 for products that the release does not list."""
        return self._answers[self._starts[row] : self._starts[row + 1]]

    def of_rows(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[N] from float32[items]: of the items that a row stands for, the largest value."""
        known = np.where(self._answers >= 0, values[self._answers], np.float32(0))
        if self._single:
            return known
        rows = np.repeat(np.arange(self.size), np.diff(self._starts))
        most = np.zeros(self.size, np.float32)
        np.maximum.at(most, rows, known)
        return most

    def rows_in(self, shard: str) -> int:
        """How many rows a shard has."""
        return 0 if shard not in self.shards else _length(self._slices[self.shards.index(shard)])

    def allowed(self, wish: Wish) -> Mask:
        """bool[N], which rows may be shown."""
        known = wish.items[self._answers] & (self._answers >= 0)
        if self._single:
            mask: Mask = known.copy()
        else:
            counts = np.concatenate(([0], np.cumsum(known)))
            mask = counts[self._starts[1:]] > counts[self._starts[:-1]]
        if wish.in_stock:
            mask &= self.in_stock
        if wish.sizes:
            mask &= self.sizes.fitting(wish.sizes)
        with np.errstate(invalid="ignore"):
            if wish.price_min is not None:
                mask &= self.price >= wish.price_min
            if wish.price_max is not None:
                mask &= self.price <= wish.price_max
        for names, column, values in (
            (self.colours, self.colour, wish.colours),
            (self.types, self.type, wish.types),
        ):
            if values:
                mask &= np.isin(column, [place for place, name in enumerate(names) if name in values])
        if wish.not_colours:
            banned = [place for place, name in enumerate(self.colours) if name in wish.not_colours]
            mask &= ~np.isin(self.colour, banned)
        return mask

    def searched(self, label: str) -> str:
        """The shard that answers for a class: its own if it has rows, otherwise all (empty name)."""
        return label if label != WHOLE and self.rows_in(label) else ""

    def search(self, vectors: NDArray[np.float32], shard: str, allowed: Mask, count: int) -> list[Found]:
        """The nearest allowed rows of each vector.

        Args:
            vectors: float32[Q, d], each of length 1.
            shard: Name of a shard, empty for all.
            allowed: bool[N].
            count: Rows wanted; fewer where fewer are allowed.

        Returns:
            For each vector rows and similarities, best first; equal ones in the index's order.
        """
        wanted = [self.shards.index(shard)] if shard else range(len(self.shards))
        cut = [number for number in wanted if number in self._cells]
        if not cut:
            part = self._slices[self.shards.index(shard)] if shard else slice(0, self.size)
            return self._exactly(vectors, part, allowed, count)
        parts = [
            self._exactly(vectors, self._slices[n], allowed, count) for n in wanted if n not in self._cells
        ]
        parts += [self._by_cells(vectors, number, allowed, count) for number in cut]
        answers = []
        for found in zip(*parts, strict=True):
            rows, similar = (np.concatenate(column) for column in zip(*found, strict=True))
            answers.append(best_rows(rows, similar, count))
        return answers

    def _by_cells(self, vectors: NDArray[np.float32], number: int, allowed: Mask, count: int) -> list[Found]:
        cells, part = self._cells[number], self._slices[number]
        left = int(np.count_nonzero(allowed[part]))
        if left <= EXACT_SHARE * cells.looked_at:
            return self._exactly(vectors, part, allowed, count)
        mask = None if left == _length(part) else allowed
        found = [cells.nearby(self.vectors, vector, mask) for vector in vectors]
        return [best_rows(rows, similar, count) for rows, similar in found]

    def _exactly(self, vectors: NDArray[np.float32], part: slice, allowed: Mask, count: int) -> list[Found]:
        sweep = self._sweep(part, allowed)
        similar = sweep.dots(vectors, slice(0, vectors.shape[1]))
        return [best_rows(sweep.rows, similar[:, place], count) for place in range(len(vectors))]

    def sweep(self, shard: str, allowed: Mask) -> Sweep | None:
        """The allowed rows of a shard (empty name: of all), to be scored; None where cells are looked at instead."""
        if not shard:
            return None if self._cells else self._sweep(slice(0, self.size), allowed)
        number = self.shards.index(shard)
        return None if number in self._cells else self._sweep(self._slices[number], allowed)

    def _sweep(self, part: slice, allowed: Mask) -> Sweep:
        rows = np.flatnonzero(allowed[part]) + part.start
        # Reading a contiguous block is faster than gathering rows, unless the filter leaves few.
        if 4 * len(rows) <= _length(part):
            return Sweep(rows, self.vectors[rows], None)
        return Sweep(rows, self.vectors[part], rows - part.start if len(rows) < _length(part) else None)


@dataclasses.dataclass(frozen=True, eq=False)
class Sweep:
    """Rows of the index that are all scored.

    Attributes:
        rows: int64[M].
        block: float32[M', d], in which they lie.
        places: int64[M], where in it; None where it is them.
    """

    rows: NDArray[np.int64]
    block: NDArray[np.float32]
    places: NDArray[np.int64] | None

    def dots(self, vectors: NDArray[np.float32], columns: slice) -> NDArray[np.float32]:
        """float32[M, Q], dot products of some columns of the rows and of vectors float32[Q, d]."""
        similar: NDArray[np.float32] = self.block[:, columns] @ vectors[:, columns].T
        return similar if self.places is None else similar[self.places]


def best_rows(rows: NDArray[np.int64], similar: NDArray[np.float32], count: int) -> Found:
    """The so many rows of the highest scores, best first; equal ones in the order of the rows.

    Args:
        rows: int64[M].
        similar: float32[M].
        count: Rows wanted.
    """
    if count < len(similar):
        # All that tie with the last one stay in, so that ties are broken by the index's order.
        last = np.partition(similar, len(similar) - count)[len(similar) - count]
        head = np.flatnonzero(similar >= last)
    else:
        head = np.arange(len(similar))
    order = head[np.lexsort((rows[head], -similar[head]))][:count]
    return rows[order], similar[order]


def _median(price: NDArray[np.float32]) -> float:
    known = price[np.isfinite(price)]
    return float(np.median(known)) if len(known) else 0.0


def _length(part: slice) -> int:
    return int(part.stop) - int(part.start)


def _codes(arrays: Mapping[str, NDArray[Any]], key: str, size: int, names: int) -> NDArray[np.int32]:
    column = read_array(arrays, key, "i", (size,)).astype(np.int32)
    if size and (int(column.min()) < -1 or int(column.max()) >= names):
        raise TableError(f"{INDEX_FILE}: '{key}' points outside its names")
    return column
