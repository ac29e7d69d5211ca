"""A tiny shop in a real lake, with real feature tables and an encoder that is one ONNX graph.

Customers have staples they buy again and again, so that there is something to learn.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import pathlib

import numpy as np
import onnx
import pyarrow as pa
from deltalake import write_deltalake
from onnx import TensorProto, helper, numpy_helper

from contracts.settings import Settings, read_settings
from feature_repo import online
from feature_repo.build import build_views
from feature_repo.catalog import VIEWS
from orchestration.lake.tables import TABLES
from training.config import Bundle, RankerConfig, write_bundle
from training.continuum.data import Vocabulary, encode_content, save_vocabulary

FIRST = dt.datetime(2017, 1, 2, tzinfo=dt.UTC)
DAYS = 70
RANKER_FROM = FIRST + dt.timedelta(days=28)
EVALUATE_FROM = FIRST + dt.timedelta(days=56)
EVALUATE_UNTIL = FIRST + dt.timedelta(days=DAYS)
PRODUCTS = 40
CUSTOMERS = 30
STORES = ("11", "12")


@dataclasses.dataclass(frozen=True)
class Line:
    """One purchase."""

    customer: str
    at: dt.datetime
    product: str
    store: str
    price: float
    discount: float


def product(number: int) -> str:
    return f"p{number:02d}"


def lines(seed: int = 0) -> list[Line]:
    """Baskets of staples and chance finds."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(CUSTOMERS):
        staples = rng.choice(PRODUCTS, 6, replace=False)
        at = rng.uniform(0, 5)
        while at < DAYS:
            basket = {*rng.choice(staples, 3, replace=False).tolist(), *rng.integers(0, PRODUCTS, 2).tolist()}
            moment = FIRST + dt.timedelta(seconds=round(at * 86_400))
            store = STORES[number % 2]
            found += [
                Line(f"c{number:02d}", moment, product(item), store, 1.0 + item / 10, 0.2 * (item % 3 == 0))
                for item in sorted(basket)
            ]
            at += rng.uniform(1, 6)
    return found


def write_shop(home: pathlib.Path, bought: list[Line]) -> Settings:
    """Lake, feature tables and registry of a shop with these purchases."""
    settings = read_settings({"CONTINUUM_HOME": str(home)})
    _write(settings, "events", _events(bought))
    _write(settings, "products", _products())
    _write(settings, "exposures", _exposures())
    last = max(line.at for line in bought).date()
    build_views(settings, list(VIEWS), FIRST.date(), last + dt.timedelta(days=30))
    online.apply(settings)
    return settings


def _write(settings: Settings, name: str, table: pa.Table) -> None:
    spec = TABLES[name]
    partitions = [spec.partition] if spec.partition else None
    write_deltalake(
        str(settings.lake / name), table.cast(spec.schema), partition_by=partitions, mode="overwrite"
    )


def _events(bought: list[Line]) -> pa.Table:
    schema = TABLES["events"].schema
    rows = [
        {
            "event_id": f"{line.customer}-{line.at.isoformat()}-{line.product}", "source": "toy",
            "occurred_at": line.at, "received_at": line.at, "identifiers": "[]",
            "session_id": f"{line.customer}-{line.at.isoformat()}", "channel": "store",
            "touchpoint": f"store:{line.store}", "action": "purchase", "product_id": line.product, "quantity": 1.0,
            "unit_price": line.price, "discount": line.discount, "customer_id": line.customer,
            "store_id": line.store, "day": line.at.date(),
        }
        for line in bought
    ]  # fmt: skip
    return pa.Table.from_pylist(
        [{name: row.get(name) for name in schema.names} for row in rows], schema=schema
    )


def _products() -> pa.Table:
    schema = TABLES["products"].schema
    rows = [
        {
            "product_id": product(number), "name": f"Product {number}", "department": "food",
            "category": f"category {number % 4}", "type": f"type {number % 10}",
            "brand": "private" if number % 5 == 0 else "national", "manufacturer": "m", "size": "1",
            "kind": "good", "sellable": number != 7, "attributes": "{}",
        }
        for number in range(PRODUCTS)
    ]  # fmt: skip
    return pa.Table.from_pylist(
        [{name: row.get(name) for name in schema.names} for row in rows], schema=schema
    )


def _exposures() -> pa.Table:
    schema = TABLES["exposures"].schema
    rows = [
        {"week": week, "store_id": store, "product_id": product((week + shift) % PRODUCTS),
         "display": shift % 2 == 0, "mailer": shift % 3 == 0}
        for week in range(2452, 2464) for store in STORES for shift in range(8)
    ]  # fmt: skip
    return pa.Table.from_pylist(
        [{name: row.get(name) for name in schema.names} for row in rows], schema=schema
    )


def write_encoder(
    folder: pathlib.Path, train_until: dt.datetime = RANKER_FROM, seed: int = 0
) -> pathlib.Path:
    """An encoder bundle: the score of an item is its vector times the sum of the history's vectors."""
    folder.mkdir(parents=True)
    ids = np.array(["", *(product(number) for number in range(0, PRODUCTS, 2))])
    vectors = np.random.default_rng(seed).normal(size=(len(ids), 4)).astype(np.float32)
    vectors[0] = 0
    nodes = [
        helper.make_node("Gather", ["vectors", "item"], ["events"]),
        helper.make_node("ReduceSum", ["events", "axis"], ["state"], keepdims=0),
        helper.make_node("Transpose", ["vectors"], ["columns"], perm=[1, 0]),
        helper.make_node("MatMul", ["state", "columns"], ["raw"]),
        helper.make_node("Add", ["raw", "padding"], ["scores"]),
    ]
    padding = np.zeros(len(ids), np.float32)
    padding[0] = -np.inf
    size = len(ids)
    graph = helper.make_graph(
        nodes, "encoder",
        [
            *(helper.make_tensor_value_info(name, TensorProto.INT64, ["B", "L"]) for name in ("item", "action", "channel")),
            helper.make_tensor_value_info("age", TensorProto.FLOAT, ["B", "L"]),
            helper.make_tensor_value_info("deny", TensorProto.BOOL, ["B", size]),
            helper.make_tensor_value_info("k", TensorProto.INT64, [1]),
        ],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["B", size])],
        [
            numpy_helper.from_array(vectors, "vectors"), numpy_helper.from_array(padding, "padding"),
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
        ],
    )  # fmt: skip
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10),
        folder / "encoder.onnx",
    )
    save_vocabulary(
        folder / "vocabulary.npz",
        Vocabulary(ids, np.ones(size), encode_content({}, size - 1), np.zeros(size, bool)),
    )
    write_bundle(
        folder,
        Bundle(
            family="encoder", run_id="encoder-run", model_uri="models:/m-encoder", metrics={},
            config={"train_until": train_until.isoformat()},
            files={"onnx": "encoder.onnx", "vocabulary": "vocabulary.npz"}, details={"length": 64, "vocabulary": size - 1},
        ),
    )  # fmt: skip
    return folder


def config(settings: Settings, encoder: pathlib.Path, out: pathlib.Path, **changes: object) -> RankerConfig:
    """A ranker's config for this shop."""
    values: dict[str, object] = {
        "retailer": "complete_journey", "home": str(settings.home), "train_until": EVALUATE_FROM,
        "evaluate_from": EVALUATE_FROM, "evaluate_until": EVALUATE_UNTIL, "out": str(out),
        "tracking_uri": f"sqlite:///{settings.home / 'mlflow' / 'mlflow.db'}", "experiment": "toy-ranker",
        "feature_service": "ranker_v1", "ranker_from": RANKER_FROM, "encoder": str(encoder), "threads": 1,
        "params": {"min_leaf": 5, "rounds": 20, "patience": 10, "leaves": 7},
    }  # fmt: skip
    return RankerConfig(**{**values, **changes})
