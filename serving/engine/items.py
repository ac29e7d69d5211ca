"""The item table of a release: what can be shown, and everything about it that a request needs.

Belongs here: loading and checking the arrays, look-ups, filter masks, promotions by store and week.
Does not belong here: per-customer state, scoring.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from contracts.features import PRODUCT_COLUMNS, STORE_PRODUCT_COLUMNS

DISPLAY, MAILER = 1, 2
NEIGHBOURS = 20
KEPT_STORES = 64
"""Stores whose tables are kept laid out by item (a few hundred kilobytes each)."""

Mask = NDArray[np.bool_]


class TableError(ValueError):
    """Arrays that do not form an item table; the message names the array."""


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Which items an answer may hold; an empty field does not filter.

    Attributes:
        department: Any of these.
        category: Any of these.
        brand: Any of these.
        exclude: Product ids to leave out.
        in_promotion: Only items in the store's display or mailer this week.
    """

    department: tuple[str, ...] = ()
    category: tuple[str, ...] = ()
    brand: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    in_promotion: bool = False

    def __bool__(self) -> bool:
        return bool(self.department or self.category or self.brand or self.exclude or self.in_promotion)


class ItemTable:
    """Items of a release, by index.

    Args:
        arrays: Content of items.npz.

    Attributes:
        product_id: str[N], sorted.
        name: str list of N.
        type: str list of N.
        category: str list of N.
        type_id: int32[N], -1 for no type.
        category_id: int32[N], -1 for no category.
        types: Number of types.
        categories: Number of categories.
        private: bool[N], private label.
        sellable: bool[N].
        encoder_id: int64[N], 0 for items that the encoder does not know.
        features: float32[N, P], columns PRODUCT_COLUMNS.
        neighbours: int32[N, 20], co-bought items, best first, -1 where there are fewer.
        neighbour_scores: float32[N, 20].
        popular: int32, recent popularity, best first, sellable only.
        recent_orders: float32[N], baskets with the item in 28 days.
        popularity: int32, every sellable item: `popular` first, then by baskets in 28 days and ever.
        stores: str list of S.
        index: Item index by product id.

    Raises:
        TableError: An array is missing, of another shape, or points outside the table.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.product_id = _text(arrays, "product_id")
        size = self.size = len(self.product_id)
        if size == 0 or bool(np.any(self.product_id[1:] <= self.product_id[:-1])):
            raise TableError("items.npz: 'product_id' is empty, or not sorted and unique")
        self.product_ids: list[str] = self.product_id.tolist()
        self.name: list[str] = _text(arrays, "name", size).tolist()
        self.type: list[str] = _text(arrays, "type", size).tolist()
        self.category: list[str] = _text(arrays, "category", size).tolist()
        self._levels = {key: _text(arrays, key, size) for key in ("department", "category", "brand")}
        self.type_id = _numbers(arrays, "type_id", (size,), np.int32)
        self.category_id = _numbers(arrays, "category_id", (size,), np.int32)
        if int(self.type_id.min(initial=0)) < -1 or int(self.category_id.min(initial=0)) < -1:
            raise TableError("items.npz: 'type_id' or 'category_id' is below -1")
        self.types = int(self.type_id.max(initial=-1)) + 1
        self.categories = int(self.category_id.max(initial=-1)) + 1
        self.private = _numbers(arrays, "private", (size,), np.bool_)
        self.sellable = _numbers(arrays, "sellable", (size,), np.bool_)
        self.encoder_id = _numbers(arrays, "encoder_id", (size,), np.int64)
        self.features = _numbers(arrays, "features", (size, len(PRODUCT_COLUMNS)), np.float32)
        self.neighbours = _numbers(arrays, "neighbours", (size, NEIGHBOURS), np.int32)
        self.neighbour_scores = _numbers(arrays, "neighbour_scores", (size, NEIGHBOURS), np.float32)
        popular = _numbers(arrays, "popular", (-1,), np.int32)
        self.stores: list[str] = _text(arrays, "stores").tolist()
        tables = {"neighbours": self.neighbours, "popular": popular}
        for key, column in tables.items():
            if column.size and (int(column.min()) < -1 or int(column.max()) >= size):
                raise TableError(f"items.npz: '{key}' points outside the table")
        self.popular = popular[(popular >= 0) & self.sellable[popular]]
        recent = self.features[:, PRODUCT_COLUMNS.index("p_orders_28")]
        self.recent_orders: NDArray[np.float32] = np.nan_to_num(recent, nan=0.0)
        self.popularity = self._popularity()
        self.index: dict[str, int] = {key: place for place, key in enumerate(self.product_ids)}
        self.store_index: dict[str, int] = {key: place for place, key in enumerate(self.stores)}
        self.by_encoder_id = self._by_encoder_id()
        self._codes = {key: _codes(values) for key, values in self._levels.items()}

    def _popularity(self) -> NDArray[np.int32]:
        ever = np.nan_to_num(self.features[:, PRODUCT_COLUMNS.index("p_orders")], nan=-1.0)
        place = np.full(self.size, self.size, np.int64)
        place[self.popular[::-1]] = np.arange(len(self.popular))[::-1]
        order = np.lexsort((np.arange(self.size), -ever, -self.recent_orders, place))
        ranked: NDArray[np.int32] = order[self.sellable[order]].astype(np.int32)
        return ranked

    def _by_encoder_id(self) -> NDArray[np.int32]:
        known = np.flatnonzero(self.encoder_id > 0)
        table = np.full(int(self.encoder_id.max(initial=0)) + 1, -1, np.int32)
        if int(self.encoder_id.min(initial=0)) < 0 or len(np.unique(self.encoder_id[known])) != len(known):
            raise TableError("items.npz: 'encoder_id' is negative or used twice")
        table[self.encoder_id[known]] = known
        return table

    def levels(self, item: int) -> dict[str, str]:
        """Department, category and brand of an item."""
        return {key: str(values[item]) for key, values in self._levels.items()}

    def indices(self, product_ids: Iterable[str]) -> NDArray[np.int32]:
        """Item index of each product id, -1 for unknown ones."""
        return np.array([self.index.get(key, -1) for key in product_ids], np.int32)

    def lookup(self, product_ids: NDArray[np.str_]) -> NDArray[np.int32]:
        """Like `indices` for a large array, with a last extra entry of -1."""
        return _lookup(self.product_id, product_ids)

    def lookup_stores(self, stores: NDArray[np.str_]) -> NDArray[np.int32]:
        """Store index of each store id, -1 for unknown ones, with a last extra entry of -1."""
        return np.append(
            np.array([self.store_index.get(s, -1) for s in stores.tolist()], np.int32), np.int32(-1)
        )

    def allowed(self, filters: Filters, promoted: Mask | None = None) -> Mask:
        """Which items pass the filters and may be sold.

        Args:
            filters: The request's filters.
            promoted: bool[N], items in promotion, needed for ``in_promotion``.
        """
        mask = self.sellable.copy()
        for key in ("department", "category", "brand"):
            wanted = getattr(filters, key)
            if wanted:
                codes, column = self._codes[key]
                chosen = [codes[value.casefold()] for value in wanted if value.casefold() in codes]
                mask &= np.isin(column, chosen)
        if filters.exclude:
            banned = self.indices(filters.exclude)
            mask[banned[banned >= 0]] = False
        if filters.in_promotion:
            mask &= np.zeros(self.size, np.bool_) if promoted is None else promoted
        return mask


class Exposures:
    """Which items were on display or in the mailer, by store and week.

    Args:
        arrays: Content of exposures.npz.
        items: Size of the item table.
        stores: Size of the store table.

    Raises:
        TableError: An array is missing, of another shape, or points outside its table.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], items: int, stores: int) -> None:
        week = _numbers(arrays, "week", (-1,), np.int32)
        store = _numbers(arrays, "store", (len(week),), np.int32)
        start = _numbers(arrays, "start", (len(week),), np.int64)
        stop = _numbers(arrays, "stop", (len(week),), np.int64)
        self._item = _numbers(arrays, "item", (-1,), np.int32)
        self._flags = _numbers(arrays, "flags", (len(self._item),), np.uint8)
        if self._item.size and (int(self._item.min()) < 0 or int(self._item.max()) >= items):
            raise TableError("exposures.npz: 'item' points outside the item table")
        if len(week) and (int(store.min()) < 0 or int(store.max()) >= stores):
            raise TableError("exposures.npz: 'store' points outside the store table")
        if len(week) and (
            int(start.min()) < 0 or bool(np.any(stop < start)) or int(stop.max()) > len(self._item)
        ):
            raise TableError("exposures.npz: 'start' and 'stop' do not fit 'item'")
        self._slices = {
            (int(w), int(s)): slice(int(a), int(b))
            for w, s, a, b in zip(week, store, start, stop, strict=True)
        }
        self._size = items
        self._dense = functools.lru_cache(maxsize=KEPT_STORES)(self._spread)

    def flags(self, week: int, store: int) -> NDArray[np.uint8] | None:
        """uint8[N] of DISPLAY and MAILER bits, or None where nothing is known of that store and week."""
        part = self._slices.get((week, store))
        return None if part is None else self._dense(part.start, part.stop)

    def _spread(self, start: int, stop: int) -> NDArray[np.uint8]:
        flags = np.zeros(self._size, np.uint8)
        flags[self._item[start:stop]] = self._flags[start:stop]
        flags.flags.writeable = False
        return flags


class StoreProducts:
    """Rows of view `store_product` by store: how an item sells in one store.

    Args:
        arrays: Content of store_products.npz.
        items: Size of the item table.
        stores: Size of the store table.

    Raises:
        TableError: An array is missing, of another shape, or points outside its table.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], items: int, stores: int) -> None:
        self._start = _numbers(arrays, "store_start", (stores + 1,), np.int64)
        self._item = _numbers(arrays, "item", (-1,), np.int32)
        size = len(self._item)
        rows = _numbers(arrays, "rows", (size, len(STORE_PRODUCT_COLUMNS)), np.float64)
        if int(self._start[0]) != 0 or int(self._start[-1]) != size or bool(np.any(np.diff(self._start) < 0)):
            raise TableError("store_products.npz: 'store_start' does not fit 'item'")
        if size and (int(self._item.min()) < 0 or int(self._item.max()) >= items):
            raise TableError("store_products.npz: 'item' points outside the item table")
        self._size = items
        self._dense = functools.lru_cache(maxsize=KEPT_STORES)(self._spread)
        self._rows = np.zeros((len(STORE_PRODUCT_COLUMNS), size + 1))  # The first row is that of no sale.
        self._rows[:, 1:] = np.nan_to_num(rows.T, nan=0.0)

    def rows(self, store: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """How the items sell in a store (-1 for none).

        Returns:
            int32[N], the row of each item, 0 where it was never sold, and float64[columns, rows] with
            STORE_PRODUCT_COLUMNS, whose first row is 0.
        """
        return self._dense(max(store, -1)), self._rows

    def _spread(self, store: int) -> NDArray[np.int32]:
        table = np.zeros(self._size, np.int32)
        if store >= 0:
            part = slice(int(self._start[store]), int(self._start[store + 1]))
            table[self._item[part]] = np.arange(part.start + 1, part.stop + 1, dtype=np.int32)
        table.flags.writeable = False
        return table


def places(keys: NDArray[np.int32], wanted: NDArray[np.int32]) -> NDArray[np.int32]:
    """1 + the place of each wanted key among ascending keys, 0 where it is not there."""
    if not len(keys):
        return np.zeros(len(wanted), np.int32)
    found = keys.searchsorted(wanted)
    found[found == len(keys)] = 0
    found += 1
    found *= keys.take(found - 1) == wanted
    return found.astype(np.int32)


def read_arrays(name: str, content: bytes) -> dict[str, NDArray[Any]]:
    """Open an ``.npz`` without ever unpickling.

    Raises:
        TableError: Not an array archive, or it holds objects.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (ValueError, OSError, EOFError, KeyError) as error:
        raise TableError(f"{name} is not an archive of plain arrays") from error


def _lookup(table: NDArray[np.str_], keys: NDArray[np.str_]) -> NDArray[np.int32]:
    found = np.full(len(keys) + 1, -1, np.int32)
    if len(keys):
        place = np.minimum(np.searchsorted(table, keys), len(table) - 1)
        found[:-1] = np.where(table[place] == keys, place, -1)
    return found


def _codes(values: NDArray[np.str_]) -> tuple[dict[str, int], NDArray[np.int64]]:
    names, column = np.unique(values, return_inverse=True)
    folded: dict[str, int] = {}
    remap = np.array([folded.setdefault(name.casefold(), len(folded)) for name in names.tolist()], np.int64)
    return folded, remap[column]


def _text(arrays: Mapping[str, NDArray[Any]], key: str, size: int | None = None) -> NDArray[np.str_]:
    column = arrays.get(key)
    if column is None or column.ndim != 1 or (column.dtype.kind != "U" and len(column)):
        raise TableError(f"'{key}' is missing or no row of text")
    if size is not None and len(column) != size:
        raise TableError(f"'{key}' has {len(column)} entries; expected {size}")
    return column.astype(np.str_)


def _numbers(
    arrays: Mapping[str, NDArray[Any]], key: str, shape: tuple[int, ...], dtype: type[np.generic]
) -> NDArray[Any]:
    column = arrays.get(key)
    if column is None:
        raise TableError(f"'{key}' is missing")
    fits = column.ndim == len(shape) and all(w in (-1, h) for w, h in zip(shape, column.shape, strict=True))
    if not fits or not np.can_cast(column.dtype, dtype, "same_kind"):
        raise TableError(
            f"'{key}' is {column.dtype}{list(column.shape)}; expected {np.dtype(dtype).name}{list(shape)}"
        )
    return np.ascontiguousarray(column, dtype)
