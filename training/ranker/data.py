"""From requests and candidates to the matrix that the trees read.

Stored feature rows come from Feast through the point-in-time join (`feature_repo/retrieval.py`), what the
moment adds from `contracts.features.ranker_features`, the same function that serving calls. Rows are joined
as of the request's cut, because a release's tables are of that moment; the customer has bought nothing
between the cut and the request, so the customer's own rows are those of the request's moment.

Belongs here: labels, sampling of negatives, promotions, the matrix. Does not belong here: which requests
and candidates (`requests.py`, `candidates.py`), fitting (`model.py`).
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.features import (
    CUSTOMER_CATEGORY_COLUMNS,
    CUSTOMER_COLUMNS,
    CUSTOMER_PRODUCT_COLUMNS,
    CUSTOMER_STORE_PRODUCT_COLUMNS,
    CUSTOMER_TYPE_COLUMNS,
    PRODUCT_COLUMNS,
    RANKER_FEATURES,
    STORE_PRODUCT_COLUMNS,
    ranker_features,
    week_of,
)
from contracts.settings import Settings
from feature_repo.retrieval import historical_batches
from training.evaluation.metrics import Targets, hits
from training.ranker.candidates import Candidates
from training.ranker.items import Catalogue, register_index
from training.ranker.params import RankerParams
from training.ranker.requests import Requests

Singles = npt.NDArray[np.float32]
TIMESTAMP = pa.timestamp("us", tz="UTC")
ENTITY_ROWS = 250_000
NOBODY = "\x00"
"""Key of a row that exists nowhere, such as the store of a request without one."""


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """What is ranked, with features and labels.

    Attributes:
        features: float32[M, F], columns RANKER_FEATURES.
        label: bool[M], bought in the request's basket.
        candidates: The candidates; those of one request follow one another.
        requests: Number of requests.
    """

    features: Singles
    label: npt.NDArray[np.bool_]
    candidates: Candidates
    requests: int

    @property
    def groups(self) -> npt.NDArray[np.int64]:
        """Candidates per request in the order of the requests here, without requests that have none."""
        starts = np.flatnonzero(np.diff(self.candidates.row, prepend=-1))
        return np.diff(starts, append=len(self.label))

    def rows(self, keep: npt.NDArray[np.bool_] | slice) -> Dataset:
        """Some of the candidates; a slice shares memory with this data set."""
        return Dataset(self.features[keep], self.label[keep], self.candidates.select(keep), self.requests)


@dataclasses.dataclass(frozen=True, eq=False)
class OnnxScorer:
    """The encoder's scores of requests.

    Attributes:
        encoder: `training.continuum.infer.OnnxEncoder`.
        sequences: `training.continuum.data.Sequences` in its vocabulary.
        customers: str[C], the customers that requests refer to.
    """

    encoder: object
    sequences: object
    customers: npt.NDArray[np.str_]

    def batches(self, requests: Requests) -> Iterator[tuple[slice, Singles]]:
        """See `training.ranker.candidates.Scorer`."""
        known = self.sequences.customers
        wanted = self.customers[requests.customer]
        place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        rows = np.where(known[place] == wanted, place, -1)
        yield from self.encoder.batches(self.sequences, rows, requests.at)


def labels(candidates: Candidates, targets: Targets) -> npt.NDArray[np.bool_]:
    """Which candidates were bought."""
    counts = np.bincount(candidates.row, minlength=len(targets))
    width = int(counts.max(initial=0))
    table = np.full((len(targets), width), -1, np.int64)
    place = np.arange(len(candidates)) - np.repeat(np.cumsum(counts) - counts, counts)
    table[candidates.row, place] = candidates.item
    return hits(table, targets)[candidates.row, place]


def sample(
    candidates: Candidates, label: npt.NDArray[np.bool_], params: RankerParams, seed: int
) -> npt.NDArray[np.bool_]:
    """Which candidates to learn from: all that were bought, a share of the others."""
    chance = np.random.default_rng(seed).random(len(candidates))
    share = np.where(candidates.weight > params.strong, params.keep_strong, params.keep_weak)
    return label | (chance < share)


@dataclasses.dataclass(frozen=True, eq=False)
class Promotions:
    """Displays and mailers by week, store and item.

    Attributes:
        keys: int64[X], ascending: (week * stores + store) * items + item.
        display: bool[X].
        mailer: bool[X].
        stores: Number of stores.
        items: Number of items.
    """

    keys: npt.NDArray[np.int64]
    display: npt.NDArray[np.bool_]
    mailer: npt.NDArray[np.bool_]
    stores: int
    items: int

    def flags(
        self, week: npt.NDArray[np.int64], store: npt.NDArray[np.int64], item: npt.NDArray[np.int64]
    ) -> dict[str, npt.NDArray[np.float64]]:
        """``x_display`` and ``x_mailer`` of candidates; 0 where the store is not known (-1)."""
        wanted = (week * self.stores + store) * self.items + item
        if not len(self.keys):
            return {"x_display": np.zeros(len(item)), "x_mailer": np.zeros(len(item))}
        place = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        found = (self.keys[place] == wanted) & (store >= 0)
        return {
            "x_display": (found & self.display[place]) * 1.0,
            "x_mailer": (found & self.mailer[place]) * 1.0,
        }


def read_promotions(
    con: duckdb.DuckDBPyConnection, catalogue: Catalogue, first: float, last: float
) -> Promotions:
    """Promotions of the weeks from one moment to another (days)."""
    register_index(con, catalogue)
    rows = con.execute(
        """
        select (week::bigint * $stores + store) * $items + item as key, max(display) as display, max(mailer) as mailer
        from exposures join item_index using (product_id) join store_index using (store_id)
        where week between $first and $last and (display or mailer) group by key order by key
        """,
        {
            "stores": len(catalogue.stores), "items": len(catalogue.product_id),
            "first": int(week_of(first)), "last": int(week_of(last)),
        },
    ).fetchnumpy()  # fmt: skip
    return Promotions(
        np.asarray(rows["key"], np.int64), np.asarray(rows["display"], np.bool_),
        np.asarray(rows["mailer"], np.bool_), len(catalogue.stores), len(catalogue.product_id),
    )  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureSource:
    """Where stored feature rows come from.

    Attributes:
        settings: The installation.
        service: Feast feature service.
        catalogue: Products and stores.
        customers: str[C], the customers that requests refer to.
        scratch: Folder for the entity rows.
    """

    settings: Settings
    service: str
    catalogue: Catalogue
    customers: npt.NDArray[np.str_]
    scratch: pathlib.Path


def write_entities(source: FeatureSource, requests: Requests, candidates: Candidates) -> pathlib.Path:
    """One row per candidate with the keys of every view and the moment to join at, as a Parquet file."""
    catalogue = source.catalogue
    stores = np.append(catalogue.stores, NOBODY)
    path = source.scratch / "entities.parquet"
    writer: pq.ParquetWriter | None = None
    for start in range(0, max(len(candidates), 1), ENTITY_ROWS):
        row = candidates.row[start : start + ENTITY_ROWS]
        item = candidates.item[start : start + ENTITY_ROWS]
        table = pa.table(
            {
                "customer_id": _taken(source.customers, requests.customer[row]),
                "product_id": _taken(catalogue.product_id, item),
                "type": _taken(catalogue.texts["type"], item),
                "category": _taken(catalogue.texts["category"], item),
                "store_id": _taken(stores, requests.store[row]),
                "event_timestamp": pa.array(requests.seen_us[row], TIMESTAMP),
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()
    return path


def feature_matrix(
    source: FeatureSource, requests: Requests, candidates: Candidates, promotions: Promotions
) -> Singles:
    """Features of candidates, float32[M, F] with columns RANKER_FEATURES."""
    matrix = np.empty((len(candidates), len(RANKER_FEATURES)), np.float32)
    if not len(candidates):
        return matrix
    entities = write_entities(source, requests, candidates)
    start = 0
    for piece in historical_batches(source.settings, source.service, entities, rows=ENTITY_ROWS):
        part = slice(start, start + piece.num_rows)
        columns = _features(piece, requests, candidates, part, promotions)
        for place, name in enumerate(RANKER_FEATURES):
            matrix[part, place] = columns[name]
        start = part.stop
    entities.unlink()
    return matrix


def _features(
    piece: pa.Table, requests: Requests, candidates: Candidates, part: slice, promotions: Promotions
) -> Mapping[str, npt.NDArray[np.float64]]:
    row, item = candidates.row[part], candidates.item[part]
    now = requests.at[row]
    week = np.asarray(week_of(now), np.int64)

    def rows(names: tuple[str, ...]) -> dict[str, npt.NDArray[np.float64]]:
        return {name: _finite(piece[name]) for name in names}

    found: dict[str, npt.NDArray[np.float64]] = ranker_features(
        c=rows(CUSTOMER_COLUMNS),
        cp=rows(CUSTOMER_PRODUCT_COLUMNS),
        ct=rows(CUSTOMER_TYPE_COLUMNS),
        cc=rows(CUSTOMER_CATEGORY_COLUMNS),
        p={name: _single(values) for name, values in rows(PRODUCT_COLUMNS).items()},
        s=rows(STORE_PRODUCT_COLUMNS),
        cs=rows(CUSTOMER_STORE_PRODUCT_COLUMNS),
        x=promotions.flags(week, requests.store[row], item),
        encoder_score=candidates.encoder_score[part],
        co_bought=candidates.co_bought[part],
        now=now,
        xp=np,
    )
    return found


def build_dataset(
    source: FeatureSource,
    requests: Requests,
    candidates: Candidates,
    promotions: Promotions,
    keep: npt.NDArray[np.int64] | None = None,
) -> Dataset:
    """Features and labels of candidates, or of those to keep, in the order in which they are named."""
    label = labels(candidates, requests.targets)
    if keep is not None:
        candidates, label = candidates.select(keep), label[keep]
    matrix = feature_matrix(source, requests, candidates, promotions)
    return Dataset(matrix, label, candidates, len(requests))


def _taken(values: npt.NDArray[np.str_], index: npt.NDArray[np.int64]) -> pa.Array:
    """Texts by index; -1 takes the last."""
    return pa.array(values.astype(object), pa.string()).take(pa.array(index % len(values)))


def _single(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rounded to float32, as the item table of a release holds them."""
    return values.astype(np.float32).astype(np.float64)


def _finite(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """A column as float64, 0 where there is no row or no value."""
    values = column.combine_chunks().fill_null(0.0).to_numpy(zero_copy_only=False).astype(np.float64)
    return np.nan_to_num(values, nan=0.0)
