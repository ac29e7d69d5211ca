"""The ASOF store answers as stock Feast's DuckDB store does, through real FeatureStore objects.

One repository, two stores: both read the same registry and the same files; hypothesis rewrites the
files. Ties that stock Feast leaves open (equal keys, times and creation times) are not generated.
"""

from __future__ import annotations

import datetime as dt
import itertools
import pathlib
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from asof_repo import (
    START,
    TTL,
    Repo,
    delta_rows,
    make_repo,
    write_item_stats,
    write_user_item,
    write_user_stats,
)
from deltalake import write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo.stores.joins import session

DELTA_REFS = ["user_delta:spend", "user_delta:tier"]


@pytest.fixture(scope="session")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    return make_repo(tmp_path_factory.mktemp("repo"))


def frame(rows: list[tuple[int | None, str | None, int | None, int]]) -> pd.DataFrame:
    users, items, friends, times = zip(*rows, strict=True)
    return pd.DataFrame(
        {
            "item_id": list(items),
            "event_timestamp": [START + dt.timedelta(seconds=s) for s in times],
            "user_id": list(users),
            "friend_id": pd.array(friends, dtype="Int64"),
            "factor": [2] * len(rows),
            "row": range(len(rows)),
        }
    )


def answer(store: Any, entities: Any, features: Any, **options: Any) -> pa.Table:
    found = store.get_historical_features(entities, features, **options).to_arrow()
    return found.sort_by("row").replace_schema_metadata(None)


def assert_same(repo: Repo, entities: pd.DataFrame, features: Any, **options: Any) -> None:
    ours = repo.asof.get_historical_features(entities, features, **options).to_arrow()
    assert ours["row"].to_pylist() == list(range(len(entities))), "rows left their input order"
    stock = answer(repo.stock, entities, features, **options)
    assert ours.schema.names == stock.schema.names
    assert ours.to_pylist() == stock.to_pylist()


user = st.sampled_from([1, 2, 3])
item = st.sampled_from(["x", "y"])
second = st.integers(0, 12)
user_stats_rows = st.lists(
    st.tuples(st.one_of(st.none(), user), second, st.one_of(st.none(), st.integers(0, 9)), st.sampled_from(["a", None])),
    max_size=15, unique_by=lambda row: row[:2],
)  # fmt: skip
user_item_rows = st.lists(
    st.tuples(user, item, second, st.one_of(st.none(), st.integers(0, 15)), st.floats(0, 9)),
    max_size=15, unique_by=lambda row: row[:4],
)  # fmt: skip
item_stats_rows = st.lists(
    st.tuples(item, second, st.floats(0, 9)), max_size=10, unique_by=lambda row: row[:2]
)
entity_frames = st.lists(
    st.tuples(st.one_of(st.none(), user), st.one_of(st.none(), item), st.one_of(st.none(), user), st.integers(-1, 20)),
    min_size=1, max_size=12,
).map(frame)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stats=user_stats_rows, pairs=user_item_rows, scores=item_stats_rows, entities=entity_frames,
    full=st.booleans(), known_only=st.booleans(),
)  # fmt: skip
def test_equals_stock_feast(
    repo: Repo, stats: Any, pairs: Any, scores: Any, entities: pd.DataFrame, full: bool, known_only: bool
) -> None:
    write_user_stats(repo.folder, stats)
    write_user_item(repo.folder, pairs)
    write_item_stats(repo.folder, scores)
    features = repo.stock.get_feature_service("all" if full else "demand")
    assert_same(repo, entities, features, full_feature_names=full, filter_by_created_timestamp=known_only)
    if not full:
        assert_same(
            repo, entities, ["user_item:bought", "item_stats:score"], filter_by_created_timestamp=known_only
        )


@pytest.fixture
def example(repo: Repo) -> Repo:
    """The repository with a few known rows."""
    write_user_stats(repo.folder, [(1, 0, 10, "a"), (1, 5, 11, "b"), (2, 3, 12, None), (None, 1, 13, "c")])
    write_user_item(
        repo.folder, [(1, "x", 0, 3, 1.0), (1, "x", 0, 2, 2.0), (1, "x", 4, 9, 3.0), (2, "y", 1, None, 4.0)]
    )
    write_item_stats(repo.folder, [("x", 0, 0.5), ("y", 2, 1.5)])
    return repo


ASKED = [
    (1, "x", 2, 0),
    (1, "x", 1, 4),
    (1, "x", None, 5),
    (2, "y", 3, 30),
    (None, None, 1, 9),
    (1, "x", 2, 0),
]


@pytest.mark.parametrize("moments_as", ["aware", "naive", "text", "objects", "nanoseconds"])
def test_moments_may_be_written_in_any_way_that_feast_takes(example: Repo, moments_as: str) -> None:
    entities = frame(ASKED)
    at = entities["event_timestamp"]
    entities["event_timestamp"] = {
        "aware": at,
        "naive": at.dt.tz_localize(None),
        "text": at.dt.strftime("%Y-%m-%d %H:%M:%S"),
        "objects": at.astype(object),
        "nanoseconds": at.dt.as_unit("ns"),
    }[moments_as]
    assert_same(example, entities, example.stock.get_feature_service("all"), full_feature_names=True)


def test_the_moment_may_have_another_name(example: Repo) -> None:
    entities = frame(ASKED).rename(columns={"event_timestamp": "asked_at"})
    assert_same(example, entities, ["user_stats:visits"])


def test_the_callers_frame_is_not_changed(example: Repo) -> None:
    entities = frame(ASKED)
    before = entities.copy()
    example.asof.get_historical_features(entities, ["user_stats:visits"]).to_df()
    pd.testing.assert_frame_equal(entities, before)


def test_arrow_and_parquet_entities_give_the_same_rows(example: Repo, tmp_path: pathlib.Path) -> None:
    service = example.stock.get_feature_service("demand")
    entities = frame(ASKED)
    wanted = example.asof.get_historical_features(entities, service).to_arrow()
    table = pa.Table.from_pandas(entities, preserve_index=False)
    path = tmp_path / "asked.parquet"
    pq.write_table(table, path)
    for given_as in (table, str(path)):
        job = example.asof.get_historical_features(given_as, service)
        assert job.to_arrow().to_pylist() == wanted.to_pylist()
        pieces = list(job.to_batches(4))
        assert [piece.num_rows for piece in pieces] == [4, 2]
        assert pa.concat_tables(pieces).to_pylist() == wanted.to_pylist()
        assert job.to_parquet(tmp_path / "out.parquet", rows=4) == len(ASKED)
        assert pq.read_table(tmp_path / "out.parquet").to_pylist() == wanted.to_pylist()
        assert job.metadata.min_event_timestamp == START
        assert job.metadata.max_event_timestamp == START + dt.timedelta(seconds=30)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["asked.parquet", "out.parquet"]


def test_a_view_without_entity_holds_for_every_row(example: Repo) -> None:
    from feast import FeatureView, Field, FileSource
    from feast.types import Float64

    source = FileSource(
        name="shop", path=str(example.folder / "item_stats.parquet"), timestamp_field="event_timestamp"
    )
    view = FeatureView(
        name="shop",
        entities=[],
        ttl=dt.timedelta(0),
        schema=[Field(name="raw", dtype=Float64)],
        source=source,
    )
    example.asof.apply([view])
    found = example.asof.get_historical_features(frame(ASKED), ["shop:raw"]).to_df()
    assert found["raw"].tolist() == [0.5, 1.5, 1.5, 1.5, 1.5, 0.5]


def test_a_join_key_map_may_name_some_keys_only(example: Repo) -> None:
    from feast import FeatureService

    view = (
        example.stock.get_feature_view("user_item")
        .with_name("theirs")
        .with_join_key_map({"user_id": "friend_id"})
    )
    service = FeatureService(name="theirs", features=[view])
    example.asof.apply([service])
    entities = frame([(9, "x", 1, 4), (9, "y", 1, 4)])
    found = example.asof.get_historical_features(entities, service).to_df()
    assert found["bought"].iloc[0] == 3.0
    assert found["bought"].isna().tolist() == [False, True]


def test_sources_may_be_folders_and_paths_relative_to_the_repository(example: Repo) -> None:
    from feast import FileSource
    from feast.data_format import ParquetFormat

    from feature_repo.stores.sources import open_source

    folder = example.folder / "parts"
    for day in (1, 2):
        (folder / f"day={day}").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"user_id": [day]}), folder / f"day={day}" / "part.parquet")
    source = FileSource(name="parts", path="parts", file_format=ParquetFormat(), timestamp_field="day")
    with session("100MB", 1) as con:
        rows = con.sql(str(open_source(source, str(example.folder), ["user_id"]).rows)).fetchall()
    assert sorted(rows) == [(1, 1), (2, 2)]


def test_delta_sources_are_read_at_the_planned_or_the_pinned_version(example: Repo) -> None:
    path = str(example.folder / "user_delta")
    entities = frame([(1, None, None, 2), (1, None, None, TTL), (1, None, None, 30), (7, None, None, 2)])
    write_deltalake(path, delta_rows([(1, 0, 1.5, "gold"), (1, 2, 2.5, "silver")]), mode="overwrite")
    job = example.asof.get_historical_features(entities, DELTA_REFS)
    write_deltalake(path, delta_rows([(1, 1, 9.0, "lead"), (1, 3, 9.5, "lead")]), mode="append")
    assert job.to_df()["spend"].tolist()[:2] == [2.5, 2.5]
    version = job.versions["user_delta"]
    newer = example.asof.get_historical_features(entities, DELTA_REFS)
    assert newer.versions == {"user_delta": version + 1}
    assert newer.to_df()["spend"].fillna(-1).tolist() == [2.5, 9.5, -1, -1]
    config = example.asof.config.offline_store
    config.versions["user_delta"] = version
    try:
        pinned = example.asof.get_historical_features(entities, DELTA_REFS)
        assert pinned.versions == {"user_delta": version}
        assert pinned.to_df()["tier"].fillna("").tolist() == ["silver", "silver", "", ""]
    finally:
        config.versions.clear()


@pytest.mark.parametrize("pull_latest", [False, True])
def test_materialization_writes_what_stock_feast_writes(example: Repo, pull_latest: bool) -> None:
    # Feast cannot materialize a NULL key or creation time, whatever the store.
    write_user_stats(example.folder, [(1, 0, 10, "a"), (1, 5, 11, "b"), (2, 3, 12, None)])
    write_user_item(example.folder, [(1, "x", 0, 3, 1.0), (1, "x", 0, 2, 2.0), (2, "y", 1, 1, 4.0)])
    views = ["user_stats", "user_item", "item_stats"]
    refs = ["user_stats:visits", "user_stats:city", "user_item:bought", "item_stats:score"]
    rows = [{"user_id": u, "item_id": i} for u, i in itertools.product([1, 2, 3], ["x", "y"])]
    answers = []
    for store in (example.stock, example.asof):
        store.config.materialization_config.pull_latest_features = pull_latest
        store.materialize(START - dt.timedelta(days=1), START + dt.timedelta(seconds=4), views)
        answers.append(store.get_online_features(refs, rows).to_dict())
    assert answers[0] == answers[1]
    assert answers[0]["visits"][:3] == [10, 10, 12]


def test_delta_sources_are_materialized(example: Repo) -> None:
    rows = delta_rows([(1, 0, 1.5, "gold"), (1, 2, 2.5, "silver"), (2, 9, 7.0, "gold")])
    write_deltalake(str(example.folder / "user_delta"), rows, mode="overwrite")
    for pull_latest in (False, True):
        example.asof.config.materialization_config.pull_latest_features = pull_latest
        example.asof.materialize(START, START + dt.timedelta(seconds=2), ["user_delta"])
        found = example.asof.get_online_features(DELTA_REFS, [{"user_id": 1}, {"user_id": 2}]).to_dict()
        assert found["spend"] == [2.5, None]
        assert found["tier"] == ["silver", None]


def test_pulls_equal_stock_feasts(example: Repo) -> None:
    from feast.infra.offline_stores.duckdb import DuckDBOfflineStore

    from feature_repo.stores.asof import AsofOfflineStore

    source = example.stock.get_data_source("user_item")
    columns: dict[str, Any] = {
        "data_source": source, "join_key_columns": ["user_id", "item_id"], "feature_name_columns": ["bought"],
        "timestamp_field": "at", "created_timestamp_column": "written_at",
    }  # fmt: skip
    span = {"start_date": START, "end_date": START + dt.timedelta(seconds=3)}
    for method, bounds in (
        ("pull_latest_from_table_or_query", span),
        ("pull_all_from_table_or_query", span),
        ("pull_all_from_table_or_query", {}),
    ):
        ours, stock = (
            getattr(kind, method)(config=store.config, **columns, **bounds).to_arrow()
            for kind, store in ((AsofOfflineStore, example.asof), (DuckDBOfflineStore, example.stock))
        )
        assert ours.schema.equals(stock.schema)
        assert sorted(map(str, ours.to_pylist())) == sorted(map(str, stock.to_pylist()))


def test_a_saved_dataset_comes_back(example: Repo) -> None:
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

    entities = frame(ASKED)
    job = example.asof.get_historical_features(entities, example.stock.get_feature_service("demand"))
    storage = SavedDatasetFileStorage(path=str(example.folder / "saved.parquet"))
    example.asof.create_saved_dataset(job, "saved", storage, allow_overwrite=True)
    found = example.asof.get_saved_dataset("saved").to_df()
    assert sorted(found["weighted"]) == sorted(job.to_df()["weighted"])


def test_what_is_missing_is_named(example: Repo) -> None:
    from feast.errors import FeastEntityDFMissingColumnsError, RequestDataNotFoundInEntityDfException

    from feature_repo.snapshots import SnapshotError
    from feature_repo.stores.sources import SourceError

    get = example.asof.get_historical_features
    with pytest.raises(FeastEntityDFMissingColumnsError, match="user_id"):
        get(frame(ASKED).drop(columns="user_id"), ["user_stats:visits"])
    with pytest.raises(ValueError, match="entity_df is None; expected a pandas frame"):
        get(features=["user_stats:visits"], start_date=START, end_date=START)
    with pytest.raises(ValueError, match=r"select 1: expected the path of one Parquet file"):
        get("select 1", ["user_stats:visits"])
    with pytest.raises(TypeError, match="entity_df is list; expected"):
        get([1], ["user_stats:visits"])
    table = pa.Table.from_pandas(frame(ASKED)).drop_columns(["factor"])
    with pytest.raises(RequestDataNotFoundInEntityDfException, match="factor"):
        get(table, ["weighted:weighted"])
    (example.folder / "item_stats.parquet").unlink()
    with pytest.raises(SourceError, match=r"source 'item_stats': nothing at .*item_stats\.parquet"):
        get(frame(ASKED), ["item_stats:score"])
    example.asof.config.offline_store.versions["user_delta"] = 999
    try:
        with pytest.raises(SnapshotError, match="no readable version '999'"):
            get(frame(ASKED), DELTA_REFS)
    finally:
        example.asof.config.offline_store.versions.clear()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("memory_limit", "lots", "memory_limit is 'lots'; expected a size"),
        ("threads", 0, "threads is 0; expected at least 1"),
        ("thread", 2, "thread"),
    ],
)
def test_a_wrong_setting_is_named(key: str, value: Any, message: str) -> None:
    from feature_repo.stores.asof import AsofOfflineStoreConfig

    with pytest.raises(ValueError, match=message):
        AsofOfflineStoreConfig(**{key: value})
