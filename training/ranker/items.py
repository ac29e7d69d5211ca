"""What is known of products and stores at one moment: the tables that a release carries.

Training makes its candidates from the same tables, as of an earlier moment, that serving makes them from.
Nothing at or after the moment is seen, with one exception: displays and mailers of later weeks are kept,
because they are public when their week begins and are looked up by the week of the request.

Belongs here: building the tables. Does not belong here: candidates (`candidates.py`), writing a release
(`training/packaging.py`), loading it (`serving/engine/items.py`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import pathlib
from collections.abc import Mapping
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.sparse as sp

from contracts.features import MICROSECONDS_PER_DAY, PRODUCT_COLUMNS, STORE_PRODUCT_COLUMNS, week_of
from contracts.settings import Settings
from feature_repo.snapshots import attach, connect
from training.config import read_bundle
from training.continuum.data import load_vocabulary

NEIGHBOURS = 20
SHRINK = 20
"""Baskets added to both products' counts in a co-purchase score, against scores from chance."""

MIN_BASKETS = 5
"""Fewest baskets that a product needs to have neighbours."""

POPULAR = 500
POPULAR_DAYS = 28
EXPOSURE_WEEKS = 3
DISPLAY, MAILER = 1, 2
BLOCK = 1000

Arrays = dict[str, npt.NDArray[Any]]
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclasses.dataclass(frozen=True, eq=False)
class ItemTables:
    """The tables of a release.

    Attributes:
        items: items.npz. N products, sorted by id; ``features`` float32[N, P] (PRODUCT_COLUMNS, NaN where there
            is no row), ``neighbours`` int32[N, 20] (co-bought, best first, -1 where there are fewer),
            ``neighbour_scores`` float32[N, 20], ``popular`` int32[at most 500] (sellable, best first),
            ``encoder_id`` int32[N] (0: not in the encoder's vocabulary), ``stores`` U[S], and id, texts and
            flags of each product.
        exposures: exposures.npz: CSR by (week, store): ``week``, ``store`` int32[E], ``start``, ``stop``
            int64[E] into ``item`` int32[X] and ``flags`` uint8[X] (1 display, 2 mailer).
        store_products: store_products.npz: CSR by store: ``store_start`` int64[S + 1], ``item`` int32[X]
            ascending inside a store, ``rows`` float64[X, 4] (STORE_PRODUCT_COLUMNS).
    """

    items: Arrays
    exposures: Arrays
    store_products: Arrays


@dataclasses.dataclass(frozen=True, eq=False)
class Catalogue:
    """Products and stores by index, without anything that depends on a moment.

    Attributes:
        product_id: str[N], sorted.
        texts: str[N] by name: name, department, category, type, brand.
        sellable: bool[N].
        stores: str[S], sorted.
    """

    product_id: npt.NDArray[np.str_]
    texts: dict[str, npt.NDArray[np.str_]]
    sellable: npt.NDArray[np.bool_]
    stores: npt.NDArray[np.str_]


def build_item_table(
    settings: Settings,
    encoder_bundle: pathlib.Path,
    *,
    at: dt.datetime,
    lake: Mapping[str, int] | None = None,
) -> ItemTables:
    """The tables of a release as of one moment.

    Args:
        settings: Where lake and features lie.
        encoder_bundle: Bundle of the encoder whose ids the table carries.
        at: The moment, with a zone; sales at or after it are not seen.
        lake: Delta version by lake table; latest for those left out.

    Raises:
        SnapshotError: A table or version is missing.
        ConfigError: The encoder's bundle is incomplete.
    """
    con = open_lake(settings, lake or {})
    days = to_days(at)
    catalogue = read_catalogue(con)
    baskets = read_baskets(con, catalogue, days)
    neighbours, scores = co_bought(baskets, len(catalogue.product_id))
    record = read_bundle(encoder_bundle)
    vocabulary = load_vocabulary(encoder_bundle / record.files["vocabulary"]).product_id
    items: Arrays = {
        "product_id": catalogue.product_id,
        **catalogue.texts,
        "type_id": level_ids(catalogue.texts["type"]),
        "category_id": level_ids(catalogue.texts["category"]),
        "private": catalogue.texts["brand"] == "private",
        "sellable": catalogue.sellable,
        "encoder_id": encoder_ids(catalogue.product_id, vocabulary),
        "features": product_rows(con, settings, catalogue, days),
        "neighbours": neighbours,
        "neighbour_scores": scores,
        "popular": popular(baskets, catalogue, days),
        "stores": catalogue.stores,
    }
    return ItemTables(items, exposure_table(con, catalogue, days), store_rows(con, settings, catalogue, days))


def open_lake(settings: Settings, versions: Mapping[str, int]) -> duckdb.DuckDBPyConnection:
    """DuckDB with views ``events``, ``products`` and ``exposures`` over pinned snapshots."""
    con = connect()
    for table in ("events", "products", "exposures"):
        attach(con, table, settings.lake / table, versions.get(table))
    return con


def to_days(moment: dt.datetime) -> float:
    """Days since 1970-01-01 UTC."""
    return (moment - EPOCH) / dt.timedelta(days=1)


def micros(days: float) -> int:
    """Whole microseconds since 1970-01-01 UTC."""
    return round(days * MICROSECONDS_PER_DAY)


def read_catalogue(con: duckdb.DuckDBPyConnection) -> Catalogue:
    """Every product ever sold and every store that sold one."""
    rows = con.execute(
        """
        with sold as (select distinct product_id from events where action = 'purchase' and product_id is not null)
        select s.product_id, coalesce(p.name, s.product_id) as name, coalesce(p.department, '') as department,
               coalesce(p.category, '') as category, coalesce(p.type, '') as type, coalesce(p.brand, '') as brand,
               coalesce(p.sellable, false) as sellable
        from sold s left join products p using (product_id) order by s.product_id
        """
    ).fetchnumpy()
    stores = con.execute(
        "select distinct store_id from events where action = 'purchase' and store_id is not null order by store_id"
    ).fetchnumpy()["store_id"]
    texts = {name: _texts(rows[name]) for name in ("name", "department", "category", "type", "brand")}
    return Catalogue(
        _texts(rows["product_id"]), texts, np.asarray(rows["sellable"], np.bool_), _texts(stores)
    )


def register_index(con: duckdb.DuckDBPyConnection, catalogue: Catalogue) -> None:
    """Offer the catalogue's indices to SQL as ``item_index`` and ``store_index``."""
    ids, stores = catalogue.product_id, catalogue.stores
    con.register(
        "item_index", pa.table({"product_id": pa.array(ids), "item": np.arange(len(ids), dtype=np.int32)})
    )
    con.register(
        "store_index",
        pa.table({"store_id": pa.array(stores), "store": np.arange(len(stores), dtype=np.int32)}),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Baskets:
    """Product lines by basket (customer and moment; a stranger's by moment), before a moment.

    Attributes:
        basket: int64[E], dense number.
        item: int64[E].
        at: float64[E], days.
    """

    basket: npt.NDArray[np.int64]
    item: npt.NDArray[np.int64]
    at: npt.NDArray[np.float64]

    def before(self, moment: float) -> Baskets:
        """Only those strictly before a moment."""
        seen = self.at < moment
        return Baskets(self.basket[seen], self.item[seen], self.at[seen])


def read_baskets(con: duckdb.DuckDBPyConnection, catalogue: Catalogue, until: float) -> Baskets:
    """Distinct (basket, product) pairs strictly before a moment in days."""
    register_index(con, catalogue)
    rows = con.execute(
        """
        select dense_rank() over (order by customer_id, occurred_at) - 1 as basket, item,
               epoch_us(occurred_at) as us
        from (select distinct customer_id, occurred_at, product_id from events
              where action = 'purchase' and epoch_us(occurred_at) < $until)
             join item_index using (product_id)
        """,
        {"until": micros(until)},
    ).fetchnumpy()
    return Baskets(
        np.asarray(rows["basket"], np.int64), np.asarray(rows["item"], np.int64),
        np.asarray(rows["us"], np.int64) / MICROSECONDS_PER_DAY,
    )  # fmt: skip


def co_bought(baskets: Baskets, items: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """The 20 products most bought together with each.

    The score of i and j is n_ij / sqrt((n_i + 20)(n_j + 20)), n counting baskets: a cosine that chance
    meetings of rare products cannot win. Ties go to the lower index.

    Returns:
        int32[N, 20], -1 where there are fewer, and float32[N, 20], 0 there.
    """
    counts = np.bincount(baskets.item, minlength=items)
    kept = np.flatnonzero(counts >= MIN_BASKETS)
    place = np.full(items, -1)
    place[kept] = np.arange(len(kept))
    line = place[baskets.item] >= 0
    bought = sp.csr_matrix(
        (np.ones(int(line.sum()), np.float32), (baskets.basket[line], place[baskets.item[line]])),
        shape=(int(baskets.basket.max(initial=-1)) + 1, len(kept)),
    )
    norm = np.sqrt(counts[kept] + SHRINK)
    by_item = bought.T.tocsr()
    neighbours = np.full((items, NEIGHBOURS), -1, np.int32)
    scores = np.zeros((items, NEIGHBOURS), np.float32)
    for start in range(0, len(kept), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(kept)))
        together = (by_item[rows] @ bought).tocoo()
        other = together.col != rows[together.row]
        row, column = together.row[other], together.col[other]
        value = (together.data[other] / (norm[rows[row]] * norm[column])).astype(np.float32)
        order = np.lexsort((column, -value, row))
        row, column, value = row[order], column[order], value[order]
        position = np.arange(len(row)) - np.searchsorted(row, row)
        best = position < NEIGHBOURS
        target = kept[rows[row[best]]], position[best]
        neighbours[target], scores[target] = kept[column[best]], value[best]
    return neighbours, scores


def popular(baskets: Baskets, catalogue: Catalogue, at: float) -> npt.NDArray[np.int32]:
    """The sellable products in most baskets of the last 28 days, best first, at most 500."""
    recent = (baskets.at >= at - POPULAR_DAYS) & (baskets.at < at)
    counts = np.bincount(baskets.item[recent], minlength=len(catalogue.product_id))
    counts = np.where(catalogue.sellable, counts, 0)
    order = np.argsort(-counts, kind="stable")[:POPULAR]
    return order[counts[order] > 0].astype(np.int32)


def product_rows(
    con: duckdb.DuckDBPyConnection, settings: Settings, catalogue: Catalogue, at: float
) -> npt.NDArray[np.float32]:
    """Latest rows of view ``product`` at a moment, float32[N, P]; NaN where there is none.

    A row of the midnight `at` itself counts sales before it, so it is seen.
    """
    attach(con, "product_feature", settings.features / "product")
    register_index(con, catalogue)
    columns = ", ".join(PRODUCT_COLUMNS)
    rows = con.execute(
        f"""
        select item, {columns} from product_feature join item_index using (product_id)
        where epoch_us(event_timestamp) <= $at
        qualify row_number() over (partition by item order by event_timestamp desc) = 1
        """,
        {"at": micros(at)},
    ).fetchnumpy()
    table = np.full((len(catalogue.product_id), len(PRODUCT_COLUMNS)), np.nan, np.float32)
    for place, name in enumerate(PRODUCT_COLUMNS):
        table[np.asarray(rows["item"]), place] = _numbers(rows[name])
    return table


def store_rows(con: duckdb.DuckDBPyConnection, settings: Settings, catalogue: Catalogue, at: float) -> Arrays:
    """Latest rows of view ``store_product`` before a moment, by store."""
    attach(con, "store_feature", settings.features / "store_product")
    register_index(con, catalogue)
    columns = ", ".join(STORE_PRODUCT_COLUMNS)
    rows = con.execute(
        f"""
        select store, item, {columns}
        from store_feature join item_index using (product_id) join store_index using (store_id)
        where epoch_us(event_timestamp) < $at
        qualify row_number() over (partition by store, item order by event_timestamp desc) = 1
        order by store, item
        """,
        {"at": micros(at)},
    ).fetchnumpy()
    store = np.asarray(rows["store"], np.int64)
    return {
        "store_start": np.searchsorted(store, np.arange(len(catalogue.stores) + 1)).astype(np.int64),
        "item": np.asarray(rows["item"], np.int32),
        "rows": np.stack([_numbers(rows[name]) for name in STORE_PRODUCT_COLUMNS], axis=1).astype(np.float64),
    }


def exposure_table(con: duckdb.DuckDBPyConnection, catalogue: Catalogue, at: float) -> Arrays:
    """Displays and mailers by week and store, from three weeks up to the week of a moment onwards."""
    register_index(con, catalogue)
    rows = con.execute(
        """
        select week, store, item, max(display::utinyint) as display, max(mailer::utinyint) as mailer
        from exposures join item_index using (product_id) join store_index using (store_id)
        where week > $week and (display or mailer) group by all order by week, store, item
        """,
        {"week": int(week_of(at)) - EXPOSURE_WEEKS},
    ).fetchnumpy()
    week, store = np.asarray(rows["week"], np.int32), np.asarray(rows["store"], np.int32)
    new = np.ones(len(week), np.bool_)
    new[1:] = (week[1:] != week[:-1]) | (store[1:] != store[:-1])
    start = np.flatnonzero(new)
    return {
        "week": week[start], "store": store[start],
        "start": start.astype(np.int64), "stop": np.append(start, len(week))[1:].astype(np.int64),
        "item": np.asarray(rows["item"], np.int32),
        "flags": (np.asarray(rows["display"]) * DISPLAY + np.asarray(rows["mailer"]) * MAILER).astype(np.uint8),
    }  # fmt: skip


def level_ids(names: npt.NDArray[np.str_]) -> npt.NDArray[np.int32]:
    """Dense ids of a level of the catalogue in the order of names; -1 for the empty name."""
    known = np.unique(names[names != ""])
    return np.where(names == "", -1, np.searchsorted(known, names)).astype(np.int32)


def encoder_ids(product_id: npt.NDArray[np.str_], vocabulary: npt.NDArray[np.str_]) -> npt.NDArray[np.int32]:
    """Encoder id of each product, 0 for those outside the vocabulary (row 0 of which is padding)."""
    order = np.argsort(vocabulary[1:])
    known = vocabulary[1:][order]
    place = np.minimum(np.searchsorted(known, product_id), len(known) - 1)
    return np.where(known[place] == product_id, order[place] + 1, 0).astype(np.int32)


def _texts(values: npt.NDArray[Any]) -> npt.NDArray[np.str_]:
    return np.asarray(np.ma.filled(values, "")).astype(np.str_)


def _numbers(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.ma.filled(np.ma.asarray(values, np.float64), np.nan)
