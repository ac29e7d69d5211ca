"""The ASOF offline store: Feast's DuckDB store with a point-in-time join that stays small and fast.

Stock Feast joins by inequality and then keeps the first row of a window, which costs seconds and
gigabytes on event-level features; here DuckDB's ASOF JOIN finds the one row (`joins.py`). The answers
are those of stock Feast (proven in `tests/integration/features/test_asof_equals_feast.py`), and always
in the order of the entity rows. Beyond stock Feast the entity rows may be an Arrow table or the path of
a Parquet file, results may be streamed, and Delta sources are read at one committed version.

Select it in feature_store.yaml with ``offline_store: {type: feature_repo.stores.asof.AsofOfflineStore}``.

Belongs here: what Feast loads by class path. Does not belong here: the join itself and source reading.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import pathlib
import re
from collections.abc import Sequence
from typing import Any, TypeAlias

import pandas as pd
import pyarrow as pa
from feast.data_source import DataSource
from feast.errors import FeastEntityDFMissingColumnsError, RequestDataNotFoundInEntityDfException
from feast.feature_view import FeatureView
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import RepoConfig
from pydantic import Field, StrictInt, StrictStr, field_validator

from feature_repo.snapshots import quoted
from feature_repo.stores.jobs import AsofRetrievalJob, QueryJob
from feature_repo.stores.matching import micros
from feature_repo.stores.rows import FeatureRows, entity_schema
from feature_repo.stores.sources import open_source

Entities: TypeAlias = "pd.DataFrame | pa.Table | pathlib.Path | str"
"""Entity rows: a pandas frame, an Arrow table, or the path of one Parquet file."""


class AsofOfflineStoreConfig(DuckDBOfflineStoreConfig):  # type: ignore[misc]
    """Keys of ``offline_store`` in feature_store.yaml.

    Attributes:
        type: Class path of the store.
        memory_limit: What DuckDB may hold in memory, for example ``1500MB``; beyond it spills to disk.
        threads: DuckDB's worker threads.
        versions: Source name to the Delta version to read; the latest for sources not named.
    """

    type: StrictStr = "feature_repo.stores.asof.AsofOfflineStore"
    memory_limit: StrictStr = "1500MB"
    threads: StrictInt = 2
    versions: dict[StrictStr, StrictInt] = Field(default_factory=dict)

    @field_validator("memory_limit")
    @classmethod
    def _is_size(cls, value: str) -> str:
        if not re.fullmatch(r"\d+(\.\d+)? ?([KMGT]i?B)", value):
            raise ValueError(f"memory_limit is '{value}'; expected a size such as 1500MB")
        return value

    @field_validator("threads")
    @classmethod
    def _is_positive(cls, value: int) -> int:
        if value < 1:
            raise ValueError(f"threads is {value}; expected at least 1")
        return value


class AsofOfflineStore(DuckDBOfflineStore):  # type: ignore[misc]
    """Feast's DuckDB offline store, with ASOF joins, Arrow and Parquet entities and pinned Delta versions."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: Sequence[FeatureView],
        feature_refs: Sequence[str],
        entity_df: Entities | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        **unsupported: object,
    ) -> AsofRetrievalJob:
        """Plan a point-in-time join of entity rows with the newest valid row of each feature view.

        Args:
            config: Repository configuration with an `AsofOfflineStoreConfig`.
            feature_views: Views to read.
            feature_refs: ``view:feature`` references, on-demand ones included.
            entity_df: A pandas frame, an Arrow table, or the path of one Parquet file: join keys,
                ``event_timestamp`` (or the only timestamp column), and anything else.
            registry: Where on-demand views are found.
            project: Feast project.
            full_feature_names: Name features ``view__feature``.
            filter_by_created_timestamp: Use a row only once it was written; see Feast.
            unsupported: Feast passes a time range here when there are no entity rows.

        Raises:
            ValueError: No entity rows were given.
            feast.errors.FeastEntityDFMissingColumnsError: A join key is missing.
            feature_repo.stores.joins.JoinError: Columns that collide or cannot be compared.
            feature_repo.stores.sources.SourceError: A source that cannot be read.
        """
        if entity_df is None or unsupported:
            raise ValueError(
                "entity_df is None; expected a pandas frame, an Arrow table or the path of a Parquet file"
            )
        entities, timestamp = _entities(entity_df)
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        _check_entity_columns(entity_schema(entities).names, feature_views, on_demand)
        features, versions = [], {}
        for view in feature_views:
            rows, version = _plan(config, view, feature_refs, full_feature_names, filter_by_created_timestamp)
            features.append(rows)
            if version is not None:
                versions[view.name] = version
        return AsofRetrievalJob(
            entities, timestamp, features, feature_refs, on_demand, full_feature_names, versions, config
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: Sequence[str],
        feature_name_columns: Sequence[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: dt.datetime,
        end_date: dt.datetime,
    ) -> QueryJob:
        """Plan to read the newest row of each entity between two moments (both included)."""
        order = [f"{micros(timestamp_field)} desc"]
        if created_timestamp_column:
            order.append(f"{micros(created_timestamp_column)} desc nulls last")
        keys = ", ".join(quoted(name) for name in join_key_columns)
        window = f"{f'partition by {keys} ' if keys else ''}order by {', '.join(order)}"
        columns = [*join_key_columns, *feature_name_columns, timestamp_field, created_timestamp_column]
        return _pull(
            config,
            data_source,
            columns,
            timestamp_field,
            (start_date, end_date),
            f" qualify row_number() over ({window}) = 1",
        )

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: Sequence[str],
        feature_name_columns: Sequence[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: dt.datetime | None = None,
        end_date: dt.datetime | None = None,
    ) -> QueryJob:
        """Plan to read all rows between two moments (both included, None: no bound)."""
        columns = [*join_key_columns, *feature_name_columns, timestamp_field, created_timestamp_column]
        return _pull(config, data_source, columns, timestamp_field, (start_date, end_date), "")


def _entities(given: Entities) -> tuple[pa.Table | pathlib.Path, str]:
    """Entity rows as Arrow or a path, and the name of the column that holds their moments."""
    if isinstance(given, str | pathlib.Path):
        path = pathlib.Path(given)
        return path, _timestamp_column(entity_schema(path))
    if isinstance(given, pa.Table):
        return given, _timestamp_column(given.schema)
    if not isinstance(given, pd.DataFrame):
        raise TypeError(
            f"entity_df is {type(given).__name__}; expected a pandas frame, an Arrow table or a path"
        )
    name = infer_event_timestamp_from_entity_df(dict(given.dtypes))
    given = given.assign(**{name: _in_utc(given[name].infer_objects())})
    return pa.Table.from_pandas(given, preserve_index=False).replace_schema_metadata(None), name


def _in_utc(moments: pd.Series[Any]) -> pd.Series[Any]:
    """Moments as microseconds in UTC (without zone: UTC), never later than given."""
    # pandas' to_datetime walks through every value, so it is left to what is not a datetime column yet.
    if not pd.api.types.is_datetime64_any_dtype(moments):
        moments = pd.to_datetime(moments, utc=True)
    at = moments.dt.tz_localize("UTC") if moments.dt.tz is None else moments.dt.tz_convert("UTC")
    whole: pd.Series[Any] = at.dt.floor("us") if at.dt.unit == "ns" else at
    result: pd.Series[Any] = whole.dt.as_unit("us")
    return result


def _timestamp_column(schema: pa.Schema) -> str:
    return str(infer_event_timestamp_from_entity_df(dict(schema.empty_table().to_pandas().dtypes)))


def _check_entity_columns(
    columns: Sequence[str], views: Sequence[FeatureView], on_demand: Sequence[OnDemandFeatureView]
) -> None:
    wanted = {name for view in views for name in _join_keys(view).values()}
    if missing := wanted - set(columns):
        raise FeastEntityDFMissingColumnsError(wanted, missing)
    for view in on_demand:
        if view.mode == "substrait":
            raise ValueError(
                f"on-demand view {view.name} has mode 'substrait'; expected 'python' or 'pandas'"
            )
        for name in view.get_request_data_schema():
            if name not in columns:
                raise RequestDataNotFoundInEntityDfException(feature_name=name, feature_view_name=view.name)


def _join_keys(view: FeatureView) -> dict[str, str]:
    """The view's key columns and the entity columns they are joined with; none for a view without entity."""
    renamed = view.projection.join_key_map
    return {e.name: renamed.get(e.name, e.name) for e in view.entity_columns}


def _plan(
    config: RepoConfig, view: FeatureView, feature_refs: Sequence[str], full_names: bool, known_only: bool
) -> tuple[FeatureRows, int | None]:
    """What to read for one view, and the Delta version of its source."""
    source = view.batch_source
    if source is None:
        raise ValueError(f"Feature view '{view.name}' has no batch_source and cannot be queried.")
    stored = {new: old for old, new in source.field_mapping.items()}
    wanted = f"{view.projection.name_to_use()}:"
    names = list(dict.fromkeys(ref.split(":")[1] for ref in feature_refs if ref.startswith(wanted)))
    prefix = f"{view.projection.name_alias or view.name}__" if full_names else ""
    rows = FeatureRows(
        name=f"feature view '{view.name}'",
        rows="",
        keys={stored.get(theirs, theirs): ours for theirs, ours in _join_keys(view).items()},
        timestamp=stored.get(source.timestamp_field, source.timestamp_field),
        columns={f"{prefix}{name}": stored.get(name, name) for name in names},
        created=stored.get(source.created_timestamp_column, source.created_timestamp_column) or None,
        ttl=view.ttl or None,
        known_only=known_only,
    )
    opened = open_source(source, str(config.repo_path), rows.needed, config.offline_store.versions)
    return dataclasses.replace(rows, rows=opened.rows), opened.version


def _pull(
    config: RepoConfig,
    source: DataSource,
    columns: Sequence[str | None],
    timestamp: str,
    span: tuple[dt.datetime | None, dt.datetime | None],
    newest: str,
) -> QueryJob:
    # Feast names the partition column of its own logs among the features, yet wants it left out.
    names = [name for name in dict.fromkeys(columns) if name and name != "__log_date"]
    opened = open_source(source, str(config.repo_path), names, config.offline_store.versions)
    rows = "given_rows" if isinstance(opened.rows, pa.Table) else f"({opened.rows})"
    bounds = [
        f"cast({quoted(timestamp)} as timestamptz) {sign} make_timestamptz({_epoch_micros(moment)})"
        for sign, moment in zip((">=", "<="), span, strict=True)
        if moment is not None
    ]
    where = f" where {' and '.join(bounds)}" if bounds else ""
    query = f"select {', '.join(map(quoted, names))} from {rows}{where}{newest}"
    return QueryJob(query, opened.rows if isinstance(opened.rows, pa.Table) else None, config)


def _epoch_micros(moment: dt.datetime) -> int:
    """Microseconds since 1970-01-01 UTC; like Feast, a moment without zone is in the machine's zone."""
    return (moment.astimezone(dt.UTC) - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(
        microseconds=1
    )
