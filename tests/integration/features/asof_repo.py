"""One Feast repository with two stores over it, stock DuckDB and ASOF, and the writers of its files."""

from __future__ import annotations

import dataclasses
import datetime as dt
import pathlib
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import write_deltalake

START = dt.datetime(2017, 12, 1, tzinfo=dt.UTC)
TTL = 4
UTC_US = pa.timestamp("us", "UTC")
ASOF = "feature_repo.stores.asof.AsofOfflineStore"


@dataclasses.dataclass(frozen=True)
class Repo:
    """The two feature stores over one repository."""

    folder: pathlib.Path
    stock: Any
    asof: Any


def moments(seconds: list[int | None]) -> pa.Array:
    return pa.array([None if s is None else START + dt.timedelta(seconds=s) for s in seconds], UTC_US)


def write_user_stats(
    folder: pathlib.Path, rows: list[tuple[int | None, int, int | None, str | None]]
) -> None:
    users, times, visits, cities = zip(*rows, strict=True) if rows else ((), (), (), ())
    table = {
        "user_id": pa.array(users, pa.int64()),
        "event_timestamp": moments(list(times)),
        "visits": pa.array(visits, pa.int64()),
        "city": pa.array(cities, pa.string()),
    }
    pq.write_table(pa.table(table), folder / "user_stats.parquet")


def write_user_item(folder: pathlib.Path, rows: list[tuple[int, str, int, int | None, float]]) -> None:
    users, items, times, created, bought = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    table = {
        "user_id": pa.array(users, pa.int64()),
        "item_id": pa.array(items, pa.string()),
        "at": moments(list(times)),
        "written_at": moments(list(created)),
        "bought": pa.array(bought, pa.float64()),
    }
    pq.write_table(pa.table(table), folder / "user_item.parquet")


def write_item_stats(folder: pathlib.Path, rows: list[tuple[str, int, float]]) -> None:
    items, times, raw = zip(*rows, strict=True) if rows else ((), (), ())
    naive = moments(list(times)).cast(pa.timestamp("us"))
    table = {
        "item": pa.array(items, pa.string()),
        "event_timestamp": naive,
        "raw": pa.array(raw, pa.float64()),
    }
    pq.write_table(pa.table(table), folder / "item_stats.parquet")


def make_repo(folder: pathlib.Path) -> Repo:
    """Apply the repository in an empty folder, each table with one row."""
    from feast import (
        Entity,
        FeatureService,
        FeatureStore,
        FeatureView,
        Field,
        FileSource,
        RepoConfig,
        ValueType,
    )
    from feast.data_format import DeltaFormat, ParquetFormat
    from feast.data_source import RequestSource
    from feast.on_demand_feature_view import on_demand_feature_view
    from feast.types import Float64, Int64, String

    write_user_stats(folder, [(1, 0, 1, "a")])
    write_user_item(folder, [(1, "x", 0, 0, 1.0)])
    write_item_stats(folder, [("x", 0, 1.0)])
    write_deltalake(str(folder / "user_delta"), delta_rows([(1, 0, 1.0, "gold")]))
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)

    def parquet(name: str, **more: Any) -> FileSource:
        path = str(folder / f"{name}.parquet")
        return FileSource(name=name, path=path, file_format=ParquetFormat(), **more)

    user_stats = FeatureView(
        name="user_stats", entities=[user], ttl=dt.timedelta(seconds=TTL),
        schema=[Field(name="visits", dtype=Int64), Field(name="city", dtype=String), Field(name="user_id", dtype=Int64)],
        source=parquet("user_stats", timestamp_field="event_timestamp"),
    )  # fmt: skip
    user_item = FeatureView(
        name="user_item", entities=[user, item], ttl=dt.timedelta(0),
        schema=[
            Field(name="bought", dtype=Float64),
            Field(name="user_id", dtype=Int64),
            Field(name="item_id", dtype=String),
        ],
        source=parquet("user_item", timestamp_field="at", created_timestamp_column="written_at"),
    )  # fmt: skip
    item_stats = FeatureView(
        name="item_stats", entities=[item], ttl=dt.timedelta(seconds=2 * TTL),
        schema=[Field(name="score", dtype=Float64), Field(name="item_id", dtype=String)],
        source=parquet(
            "item_stats", timestamp_field="event_timestamp", field_mapping={"raw": "score", "item": "item_id"}
        ),
    )  # fmt: skip
    user_delta = FeatureView(
        name="user_delta", entities=[user], ttl=dt.timedelta(seconds=TTL),
        schema=[Field(name="spend", dtype=Float64), Field(name="tier", dtype=String), Field(name="user_id", dtype=Int64)],
        source=FileSource(
            name="user_delta", path=str(folder / "user_delta"), file_format=DeltaFormat(),
            timestamp_field="event_timestamp",
        ),
    )  # fmt: skip
    request = RequestSource(name="asked", schema=[Field(name="factor", dtype=Int64)])

    @on_demand_feature_view(
        sources=[user_stats, request], schema=[Field(name="weighted", dtype=Int64)], mode="python"
    )
    def weighted(inputs: dict[str, list[Any]]) -> dict[str, list[Any]]:
        pairs = zip(inputs["visits"], inputs["factor"], strict=True)
        return {"weighted": [-1 if v is None else v * f for v, f in pairs]}

    me = user_stats.with_name("me")
    friend = user_stats.with_name("friend").with_join_key_map({"user_id": "friend_id"})
    service = FeatureService(name="all", features=[me, user_item, item_stats, friend])
    demand = FeatureService(name="demand", features=[user_stats, weighted])

    def store(offline: dict[str, Any]) -> FeatureStore:
        return FeatureStore(
            config=RepoConfig(
                project="equal", provider="local", registry=str(folder / "registry.db"),
                online_store={"type": "sqlite", "path": str(folder / f"{offline['type'][:4]}.db")},
                offline_store=offline, repo_path=folder, entity_key_serialization_version=3,
            )
        )  # fmt: skip

    stock = store({"type": "duckdb"})
    objects = [user, item, user_stats, user_item, item_stats, user_delta, weighted, service, demand]
    stock.apply(objects)
    asof = store({"type": ASOF, "memory_limit": "500MB"})
    asof.apply(objects)
    return Repo(folder, stock, asof)


def delta_rows(rows: list[tuple[int, int, float, str]]) -> pa.Table:
    users, times, spend, tiers = zip(*rows, strict=True)
    return pa.table(
        {
            "user_id": pa.array(users, pa.int64()),
            "event_timestamp": moments(list(times)),
            "spend": pa.array(spend, pa.float64()),
            "tier": pa.array(tiers, pa.string()),
        }
    )
