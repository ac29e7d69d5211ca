"""A tiny release in which everything is known: hand-made graphs, a random catalogue, a test key.

The encoder scores items by a decayed sum of the vectors of what was bought; the ranker is linear in
squashed features. Both obey the interface that real releases obey.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import pathlib
from typing import Any

import msgspec
import numpy as np
import onnx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import TensorProto, helper, numpy_helper

from contracts.events import ACTIONS, CHANNELS
from contracts.features import PRODUCT_COLUMNS, RANKER_FEATURES, STORE_PRODUCT_COLUMNS, week_of
from contracts.release import Component, Manifest, describe_file, manifest_bytes, read_manifest
from serving.profiles.history import make_history, to_days, to_microseconds
from serving.releases.golden import GoldenRequest, record_golden
from serving.releases.release import load_release

NOW = dt.datetime(2017, 12, 1, 12, tzinfo=dt.UTC)
ITEMS, VOCABULARY, STORES, CUSTOMERS = 400, 300, 3, 60
DEPARTMENTS = ("GROCERY", "PRODUCE", "DRUG GM", "MEAT")
LENGTH = 64
FEATURES = RANKER_FEATURES
METRICS = {
    "ndcg_at_10": 0.25, "ndcg_at_10_ci_low": 0.24, "ndcg_at_10_ci_high": 0.26, "best_baseline_ndcg_at_10": 0.2,
    "baseline_personal_frequency_45d_ndcg_at_10": 0.2, "baseline_recent_popularity_ndcg_at_10": 0.09,
}  # fmt: skip
RETAILER = "synthetic"
PURCHASE, STORE = ACTIONS.index("purchase"), CHANNELS.index("store")


class Keys:
    """A signing key and its public half on disk."""

    def __init__(self, folder: pathlib.Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.private = Ed25519PrivateKey.generate()
        self.verify = folder / "verify.pem"
        self.verify.write_bytes(
            self.private.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )


def product_ids() -> list[str]:
    return [f"p{place:04d}" for place in range(ITEMS)]


def make_release(folder: pathlib.Path, keys: Keys, name: str = "synthetic-1", seed: int = 0) -> pathlib.Path:
    """Write a complete, signed release; another seed gives other models on the same catalogue."""
    for part in ("encoder", "ranker", "items", "golden"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    onnx.save(encoder_graph(rng), folder / "encoder" / "encoder.onnx")
    onnx.save(ranker_graph(rng, len(FEATURES)), folder / "ranker" / "ranker.onnx")
    np.savez(folder / "items" / "items.npz", **item_arrays())
    np.savez(folder / "items" / "exposures.npz", **exposure_arrays())
    np.savez(folder / "items" / "store_products.npz", **store_arrays())
    draft = manifest_of(folder, name, golden=False)
    (folder / "manifest.json").write_bytes(manifest_bytes(draft))
    engine = load_release(folder, draft).engine
    moment = to_microseconds(NOW)
    requests = [
        GoldenRequest("long", history_of(1), moment, 0),
        GoldenRequest("short", history_of(2, lines=4), moment, 1),
        GoldenRequest("empty", make_history([], [], [], []), moment),
    ]
    (folder / "golden" / "golden.json").write_bytes(record_golden(engine, requests, n=10))
    sign(folder, keys, manifest_of(folder, name))
    return folder


def remake(folder: pathlib.Path, keys: Keys, items: dict[str, Any]) -> Manifest:
    """Give a release another item table, record its golden answers again, and sign it."""
    np.savez(folder / "items" / "items.npz", **items)
    manifest = read_manifest((folder / "manifest.json").read_bytes())
    for path in ("manifest.sig", "golden/golden.json"):
        (folder / path).unlink()

    def described(without: str = "") -> Manifest:
        kept = (c for c in manifest.components if c.name != without)
        parts = tuple(
            msgspec.structs.replace(c, files=tuple(describe_file(folder, f.path) for f in c.files))
            for c in kept
        )
        return msgspec.structs.replace(manifest, components=parts)

    engine = load_release(folder, described(without="golden")).engine
    recorded = record_golden(engine, [GoldenRequest("one", history_of(1), to_microseconds(NOW), 0)], n=10)
    (folder / "golden" / "golden.json").write_bytes(recorded)
    whole = described()
    sign(folder, keys, whole)
    return whole


def manifest_of(folder: pathlib.Path, name: str, golden: bool = True, **changes: Any) -> Manifest:
    def component(part: str, kind: str, *paths: str, **settings: Any) -> Component:
        files = tuple(describe_file(folder, path) for path in paths)
        return Component(name=part, kind=kind, files=files, model=f"models:/{part}/1", settings=settings)

    parts = [
        component("encoder", "onnx", "encoder/encoder.onnx", length=LENGTH, vocabulary=VOCABULARY),
        component("ranker", "onnx", "ranker/ranker.onnx"),
        component("items", "arrays", "items/items.npz", "items/exposures.npz", "items/store_products.npz"),
    ]
    if golden:
        parts.append(component("golden", "arrays", "golden/golden.json"))
    fields: dict[str, Any] = {
        "release": name, "retailer": RETAILER, "created_at": NOW, "as_of": NOW, "components": tuple(parts),
        "features": FEATURES, "feature_services": {}, "lake": {"events": 1},
        "metrics": METRICS, "evaluation": {}, "code_version": "0",
        "simulated": True, **changes,
    }  # fmt: skip
    return Manifest(**fields)


def sign(folder: pathlib.Path, keys: Keys, manifest: Manifest) -> None:
    raw = manifest_bytes(manifest)
    (folder / "manifest.json").write_bytes(raw)
    (folder / "manifest.sig").write_bytes(base64.b64encode(keys.private.sign(raw)))


def encoder_graph(rng: np.random.Generator, dim: int = 16) -> onnx.ModelProto:
    """Scores = sum_i 2 ** (-age_i / 45) E[item_i] . E; padding and unknown items weigh nothing."""
    table = rng.normal(size=(VOCABULARY + 1, dim)).astype(np.float32)
    never = np.zeros((1, VOCABULARY + 1), np.bool_)
    never[0, 0] = True
    weights = {
        "table": table, "table_t": table.T.copy(), "zero": np.array(0, np.int64), "never": never,
        "rate": np.array(-np.log(2) / 45, np.float32), "low": np.array(-np.inf, np.float32),
        "one": np.array([1], np.int64), "two": np.array([2], np.int64),
        "next_a": np.full((1, len(ACTIONS)), 1 / len(ACTIONS), np.float32),
        "next_c": np.full((1, len(CHANNELS)), 1 / len(CHANNELS), np.float32),
        "f0": np.array(0, np.float32),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Greater", ["item", "zero"], ["real"]),
        node("Mul", ["age", "rate"], ["decayed"]),
        node("Exp", ["decayed"], ["fresh"]),
        node("Cast", ["real"], ["realf"], to=TensorProto.FLOAT),
        node("Mul", ["fresh", "realf"], ["weight"]),
        node("Unsqueeze", ["weight", "two"], ["weight3"]),
        node("Gather", ["table", "item"], ["vectors"]),
        node("Mul", ["vectors", "weight3"], ["weighted"]),
        node("ReduceSum", ["weighted", "one"], ["person"], keepdims=0),
        node("MatMul", ["person", "table_t"], ["scores"]),
        node("Or", ["deny", "never"], ["hidden"]),
        node("Where", ["hidden", "low", "scores"], ["masked"]),
        node("TopK", ["masked", "k"], ["top_scores", "top_items"], axis=1),
        node("ReduceSum", ["age", "one"], ["ages"], keepdims=1),
        node("Mul", ["ages", "f0"], ["nothing"]),
        node("Add", ["nothing", "next_a"], ["next_action"]),
        node("Add", ["nothing", "next_c"], ["next_channel"]),
    ]
    integer, real, boolean = TensorProto.INT64, TensorProto.FLOAT, TensorProto.BOOL
    value = helper.make_tensor_value_info
    inputs = [value(key, integer, ["B", "L"]) for key in ("item", "action", "channel")]
    inputs += [
        value("age", real, ["B", "L"]),
        value("deny", boolean, ["B", VOCABULARY + 1]),
        value("k", integer, [1]),
    ]
    outputs = [
        value("scores", real, ["B", VOCABULARY + 1]), value("top_scores", real, ["B", "K"]),
        value("top_items", integer, ["B", "K"]), value("next_action", real, ["B", len(ACTIONS)]),
        value("next_channel", real, ["B", len(CHANNELS)]),
    ]  # fmt: skip
    return _model(nodes, "encoder", inputs, outputs, weights)


def ranker_graph(rng: np.random.Generator, width: int, last: float | None = None) -> onnx.ModelProto:
    """Scores = w . x / (1 + |x|), where a missing x counts as 0."""
    weight = np.abs(rng.normal(size=(width, 1))).astype(np.float32)
    if last is not None:
        weight[-1] = last
    weights = {
        "weight": weight,
        "f0": np.array(0, np.float32),
        "f1": np.array(1, np.float32),
        "axis": np.array([1], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("IsNaN", ["features"], ["missing"]),
        node("Where", ["missing", "f0", "features"], ["known"]),
        node("Abs", ["known"], ["size"]),
        node("Add", ["size", "f1"], ["scale"]),
        node("Div", ["known", "scale"], ["squashed"]),
        node("MatMul", ["squashed", "weight"], ["column"]),
        node("Squeeze", ["column", "axis"], ["scores"]),
    ]
    value = helper.make_tensor_value_info
    inputs = [value("features", TensorProto.FLOAT, ["M", width])]
    return _model(nodes, "ranker", inputs, [value("scores", TensorProto.FLOAT, ["M"])], weights)


def _model(nodes: Any, name: str, inputs: Any, outputs: Any, weights: dict[str, Any]) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(content), key) for key, content in weights.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def item_arrays() -> dict[str, Any]:
    rng = np.random.default_rng(7)
    category = rng.integers(0, 20, ITEMS)
    features = rng.random((ITEMS, len(PRODUCT_COLUMNS))).astype(np.float32) * 50
    features[:, PRODUCT_COLUMNS.index("p_orders_28")] = np.round(
        features[:, PRODUCT_COLUMNS.index("p_orders_28")]
    )
    features[::17] = np.nan
    sellable = np.ones(ITEMS, np.bool_)
    sellable[::50] = False
    orders = np.nan_to_num(features[:, PRODUCT_COLUMNS.index("p_orders_28")], nan=-1)
    neighbours = rng.integers(0, ITEMS, (ITEMS, 20)).astype(np.int32)
    neighbours[:, 15:] = -1
    encoder_id = np.zeros(ITEMS, np.int32)
    encoder_id[rng.permutation(ITEMS)[:VOCABULARY]] = np.arange(1, VOCABULARY + 1)
    return {
        "product_id": np.array(product_ids()),
        "name": np.array([f"Product {place}" for place in range(ITEMS)]),
        "department": np.array([DEPARTMENTS[c % len(DEPARTMENTS)] for c in category]),
        "category": np.array([f"CATEGORY {c}" for c in category]),
        "type": np.array([f"TYPE {place % 90}" for place in range(ITEMS)]),
        "brand": np.array(["Private" if place % 3 == 0 else "National" for place in range(ITEMS)]),
        "category_id": category.astype(np.int32),
        "type_id": (np.arange(ITEMS) % 90).astype(np.int32),
        "private": np.arange(ITEMS) % 3 == 0,
        "sellable": sellable,
        "encoder_id": encoder_id,
        "features": features,
        "neighbours": neighbours,
        "neighbour_scores": np.sort(rng.random((ITEMS, 20)).astype(np.float32))[:, ::-1].copy(),
        "popular": np.argsort(-orders, kind="stable")[:200].astype(np.int32),
        "stores": np.array([f"{330 + store}" for store in range(STORES)]),
    }


def exposure_arrays() -> dict[str, Any]:
    rng = np.random.default_rng(8)
    weeks = [int(week_of(to_days(NOW))) - back for back in range(2)]
    pairs = [(week, store) for week in weeks for store in range(STORES - 1)]
    size = 30
    return {
        "week": np.array([week for week, _ in pairs], np.int32),
        "store": np.array([store for _, store in pairs], np.int32),
        "start": np.arange(len(pairs), dtype=np.int64) * size,
        "stop": (np.arange(len(pairs), dtype=np.int64) + 1) * size,
        "item": np.concatenate([np.sort(rng.choice(ITEMS, size, replace=False)) for _ in pairs]).astype(
            np.int32
        ),
        "flags": rng.integers(1, 4, size * len(pairs)).astype(np.uint8),
    }


def store_arrays() -> dict[str, Any]:
    rng = np.random.default_rng(9)
    sold = [np.sort(rng.choice(ITEMS, 150, replace=False)) for _ in range(STORES)]
    rows = rng.random((150 * STORES, len(STORE_PRODUCT_COLUMNS))) * 20
    rows[:, 0] = to_days(NOW) - rng.random(len(rows)) * 30
    return {
        "store_start": np.arange(STORES + 1, dtype=np.int64) * 150,
        "item": np.concatenate(sold).astype(np.int32),
        "rows": rows,
    }


def history_of(customer: int, lines: int = 120) -> Any:
    """A customer's purchases over the year before `NOW`; a few favourites come back again and again."""
    rng = np.random.default_rng(1000 + customer)
    favourites = rng.choice(ITEMS, 15, replace=False)
    baskets = np.sort(rng.integers(1, 360 * 24, max(1, lines // 6)))[::-1]
    at, item, session = [], [], []
    for number, hours in enumerate(baskets.tolist()):
        for _ in range(min(6, lines)):
            at.append(to_microseconds(NOW - dt.timedelta(hours=hours)))
            item.append(int(rng.choice(favourites)) if rng.random() < 0.7 else int(rng.integers(ITEMS)))
            session.append(customer * 10_000 + number)
    size = len(at)
    return make_history(
        at, item, np.full(size, PURCHASE), np.full(size, STORE), session, np.ones(size), rng.random(size) * 5,
        (rng.random(size) < 0.3) * 0.5, np.full(size, customer % STORES),
    )  # fmt: skip


def write_profiles(
    folder: pathlib.Path, inbox_offset: int = 0, retailer: str = RETAILER, version: int = 1
) -> str:
    """Publish the histories of `CUSTOMERS` customers, ids "1001" and on."""
    name = f"v{version:08d}-{inbox_offset:012d}"
    histories = [history_of(customer) for customer in range(CUSTOMERS)]
    columns = {
        key: np.concatenate([getattr(history, key) for history in histories])
        for key in ("at_us", "action", "channel", "session", "quantity", "unit_price", "discount", "store")
    }
    target = folder / name
    target.mkdir(parents=True)
    np.savez(
        target / "histories.npz",
        customers=np.array([f"{1001 + customer}" for customer in range(CUSTOMERS)]),
        offsets=np.concatenate([[0], np.cumsum([len(history) for history in histories])]).astype(np.int64),
        product=np.concatenate([history.item for history in histories]),
        products=np.array(product_ids()),
        stores=np.array([f"{330 + store}" for store in range(STORES)]),
        **columns,
    )
    meta = {
        "format": 1, "retailer": retailer, "events_version": version, "inbox_offset": inbox_offset,
        "customers": CUSTOMERS, "events": len(columns["at_us"]), "newest_us": int(columns["at_us"].max()),
        "created_at": NOW.isoformat(), "sha256": hashlib.sha256((target / "histories.npz").read_bytes()).hexdigest(),
        "years": 5, "limit": 5000,
    }  # fmt: skip
    (target / "meta.json").write_text(json.dumps(meta))
    (folder / "CURRENT").write_text(name)
    return name


def event(event_id: str, customer: str | None = "1001", **changes: Any) -> dict[str, Any]:
    value = {
        "event_id": event_id, "source": "test", "occurred_at": NOW.isoformat(), "channel": "web", "action": "view",
        "product_id": "p0003", **changes,
    }  # fmt: skip
    if customer is not None:
        value["identifiers"] = [{"kind": "customer", "value": customer}]
    return value
