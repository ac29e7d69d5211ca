"""Retrieval jobs of the ASOF store: results as Arrow, as a stream, or as a Parquet file.

Belongs here: what Feast calls on a planned retrieval. Does not belong here: planning
(`feature_repo/stores/asof.py`) and the join itself (`feature_repo/stores/joins.py`).
"""

from __future__ import annotations

import functools
import pathlib
import uuid
from collections.abc import Iterator, Mapping, Sequence

import ibis
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast.infra.offline_stores.duckdb import _write_data_source
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import RepoConfig
from feast.saved_dataset import SavedDatasetStorage

from feature_repo.stores.joins import asof_join, session
from feature_repo.stores.rows import BATCH_ROWS, FeatureRows, Joined, entity_schema


class AsofRetrievalJob(RetrievalJob):  # type: ignore[misc]
    """Historical features of one set of entity rows; nothing is joined before a result is asked for.

    Attributes:
        versions: Feature view to the Delta version it reads, where its source is a Delta table.
    """

    def __init__(
        self,
        entities: pa.Table | pathlib.Path,
        timestamp: str,
        features: Sequence[FeatureRows],
        feature_refs: Sequence[str],
        on_demand: Sequence[OnDemandFeatureView],
        full_feature_names: bool,
        versions: Mapping[str, int],
        config: RepoConfig,
    ) -> None:
        super().__init__()
        self._entities = entities
        self._timestamp = timestamp
        self._features = features
        self._feature_refs = list(feature_refs)
        self._on_demand = list(on_demand)
        self._full_feature_names = full_feature_names
        self._config = config
        self.versions = dict(versions)

    def to_batches(self, rows: int = BATCH_ROWS) -> Iterator[pa.Table]:
        """The result in pieces of at most ``rows`` rows, on-demand features included, in input order.

        All joins are done before the first piece; after that each piece costs only its own memory.
        """
        for piece in self._join().batches(rows):
            yield _Piece(piece, self).to_arrow() if self._on_demand else piece

    def to_parquet(self, path: pathlib.Path, rows: int = BATCH_ROWS) -> int:
        """Write the result to one Parquet file without ever holding it whole.

        Args:
            path: File to write; replaced at the end, so that a reader never sees half of it.
            rows: Rows per row group.

        Returns:
            Number of rows written.
        """
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        written = 0
        try:
            writer = None
            for piece in self.to_batches(rows):
                writer = writer or pq.ParquetWriter(part, piece.schema)
                writer.write_table(piece, row_group_size=rows)
                written += piece.num_rows
            if writer is not None:
                writer.close()
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return written

    def persist(
        self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None
    ) -> None:
        """Write the result, on-demand features included, where a saved dataset lives.

        Raises:
            feast.errors.SavedDatasetLocationAlreadyExists: Something is there and may not be replaced.
        """
        table = ibis.memtable(self.to_arrow())
        _write_data_source(
            table, storage.to_data_source(), str(self._config.repo_path), "overwrite", allow_overwrite
        )

    @property
    def full_feature_names(self) -> bool:
        """Whether feature columns carry the name of their view."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """On-demand views to compute after the join."""
        return self._on_demand

    @functools.cached_property
    def metadata(self) -> RetrievalMetadata:
        """Feature references, entity columns and the span of moments."""
        if isinstance(self._entities, pathlib.Path):
            moments = pq.read_table(self._entities, columns=[self._timestamp]).column(0)
        else:
            moments = self._entities.column(self._timestamp)
        span = pc.min_max(moments.cast(pa.timestamp("us"), safe=False).cast(pa.timestamp("us", "UTC")))
        return RetrievalMetadata(
            features=self._feature_refs,
            keys=[name for name in entity_schema(self._entities).names if name != self._timestamp],
            min_event_timestamp=span["min"].as_py(),
            max_event_timestamp=span["max"].as_py(),
        )

    def _join(self) -> Joined:
        store = self._config.offline_store
        return asof_join(
            self._entities,
            self._features,
            timestamp=self._timestamp,
            memory_limit=store.memory_limit,
            threads=store.threads,
        )

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._join().table()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._to_arrow_internal(timeout).to_pandas()
        return frame


class _Piece(RetrievalJob):  # type: ignore[misc]
    """A part of a job's rows, so that Feast computes on-demand features for it as for the whole."""

    def __init__(self, table: pa.Table, job: AsofRetrievalJob) -> None:
        super().__init__()
        self._table = table
        self._job = job

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._table

    @property
    def full_feature_names(self) -> bool:
        return self._job.full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return self._job.on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata:
        return self._job.metadata


class QueryJob(RetrievalJob):  # type: ignore[misc]
    """Rows of one source, as materialization pulls them."""

    def __init__(self, query: str, rows: pa.Table | None, config: RepoConfig) -> None:
        super().__init__()
        self._query = query
        self._rows = rows
        self._config = config

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        store = self._config.offline_store
        with session(store.memory_limit, store.threads) as con:
            if self._rows is not None:
                con.register("given_rows", self._rows)
            return con.sql(self._query).to_arrow_table()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._to_arrow_internal(timeout).to_pandas()
        return frame

    @property
    def full_feature_names(self) -> bool:
        """Columns carry their own names."""
        return False

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """None."""
        return []

    @property
    def metadata(self) -> None:
        """None."""
        return None
