"""Training sets: entity rows joined with what was known at their moments.

Belongs here: one call around Feast's historical retrieval with the ASOF store. Does not belong here:
the join (`feature_repo/stores`), what to do with the features (`training`).
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.settings import Settings
from feature_repo.store import open_store

KEPT_DOUBLE = ("_at",)
"""Times in days need float64: float32 resolves only three minutes."""


def historical(
    settings: Settings,
    service: str,
    entities: pa.Table | pathlib.Path,
    *,
    versions: Mapping[str, int] | None = None,
    single: bool = False,
) -> pa.Table:
    """Join entity rows with the feature rows that were valid at their moments.

    Args:
        settings: Where features and registry lie.
        service: Feast feature service, for example ``ranker_v1``.
        entities: The join keys of the service's views, ``event_timestamp`` and any further columns, as
            Arrow or as the path of one Parquet file. To see nothing of a moment itself, pass the
            moment minus one microsecond.
        versions: View name to version of its feature table; latest for views not named.
        single: Give features as float32 to halve the memory; times (``*_at``) stay float64.

    Returns:
        The entity columns and the service's features (null where no row was valid), in input order.

    Raises:
        feast.errors.FeastEntityDFMissingColumnsError: A join key is missing.
        feast.errors.FeatureServiceNotFoundException: No such service; apply the definitions first.
    """
    pieces = list(historical_batches(settings, service, entities, versions=versions, single=single))
    return pa.concat_tables(pieces)


def historical_batches(
    settings: Settings,
    service: str,
    entities: pa.Table | pathlib.Path,
    *,
    versions: Mapping[str, int] | None = None,
    single: bool = False,
    rows: int = 100_000,
) -> Iterator[pa.Table]:
    """`historical` in pieces of at most ``rows`` rows; for sets that should not be held whole."""
    store = open_store(settings, versions=versions)
    job = store.get_historical_features(
        entity_df=str(entities) if isinstance(entities, pathlib.Path) else entities,
        features=store.get_feature_service(service),
    )
    for piece in job.to_batches(rows):
        yield _narrow(piece) if single else piece


def historical_to_parquet(
    settings: Settings,
    service: str,
    entities: pa.Table | pathlib.Path,
    path: pathlib.Path,
    *,
    versions: Mapping[str, int] | None = None,
    single: bool = True,
) -> int:
    """`historical`, written to one Parquet file without holding it whole.

    Returns:
        Rows written.
    """
    written = 0
    writer: pq.ParquetWriter | None = None
    part = path.with_suffix(".part")
    try:
        for piece in historical_batches(settings, service, entities, versions=versions, single=single):
            writer = writer or pq.ParquetWriter(part, piece.schema)
            writer.write_table(piece)
            written += piece.num_rows
    finally:
        if writer is not None:
            writer.close()
    part.replace(path)
    return written


def _narrow(piece: pa.Table) -> pa.Table:
    fields = [
        pa.field(field.name, pa.float32())
        if pa.types.is_float64(field.type) and not field.name.endswith(KEPT_DOUBLE)
        else field
        for field in piece.schema
    ]
    return piece.cast(pa.schema(fields))
