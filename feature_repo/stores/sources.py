"""Feast data sources as DuckDB queries.

Local Parquet files and folders and local Delta tables are read by DuckDB itself: Delta through the
file list of one committed version, so a job keeps reading the version it was planned on. Every other
source that Feast's DuckDB store knows (object stores, Iceberg, Lance, MLflow) is read through Feast's
own reader into an Arrow table.

Belongs here: how a source becomes a query. Does not belong here: joins (`feature_repo/stores/joins.py`).
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import pyarrow as pa
from feast.data_format import DeltaFormat, ParquetFormat
from feast.data_source import DataSource
from feast.infra.offline_stores.duckdb import _read_data_source
from feast.infra.offline_stores.file_source import FileSource

from feature_repo.snapshots import delta_files, literal, scan_sql


class SourceError(LookupError):
    """A source that cannot be read; the message names the source and what was expected."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A readable source.

    Attributes:
        rows: A DuckDB query, or an Arrow table.
        version: Committed version of a Delta table, None for anything else.
    """

    rows: str | pa.Table
    version: int | None = None


def open_source(
    source: DataSource, repo_path: str, columns: Sequence[str], versions: Mapping[str, int] | None = None
) -> Source:
    """Make a source readable.

    Args:
        source: What a feature view or a saved dataset names.
        repo_path: Folder that relative paths start from.
        columns: Columns that will be needed (read from sources that DuckDB does not read itself).
        versions: Source name to the Delta version to read; the latest where a source is not named.

    Raises:
        SourceError: No file, folder or table there, or the format is not known.
        feature_repo.snapshots.SnapshotError: No such Delta table or version.
    """
    path = _local_path(source, repo_path)
    if path is None:
        table = _read_data_source(source, repo_path)
        if table is None:
            raise SourceError(
                f"source '{source.name}' has no known format; expected ParquetFormat or DeltaFormat"
            )
        return Source(table.select(list(columns)).to_pyarrow())
    if isinstance(source.file_format, DeltaFormat):
        version, _ = delta_files(path, (versions or {}).get(source.name))
        return Source(scan_sql(path, version), version)
    if not path.exists():
        raise SourceError(f"source '{source.name}': nothing at {path}; expected a Parquet file or folder")
    files = path / "**" / "*.parquet" if path.is_dir() else path
    return Source(f"select * from read_parquet({literal(str(files))})")


def _local_path(source: DataSource, repo_path: str) -> pathlib.Path | None:
    """Where a source lies on this machine; None for what DuckDB does not read itself."""
    if not isinstance(source, FileSource) or "://" in source.path:
        return None
    kind = source.file_format
    if isinstance(kind, ParquetFormat | DeltaFormat) or (kind is None and source.path.endswith(".parquet")):
        return pathlib.Path(FileSource.get_uri_for_file_path(repo_path, source.path))
    return None
