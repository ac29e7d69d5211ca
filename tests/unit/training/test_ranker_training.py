"""The ranker's training on a tiny shop: nothing of the future leaks in, and a whole run leaves a bundle."""

from __future__ import annotations

import dataclasses
import datetime as dt
import pathlib

import msgspec
import numpy as np
import onnxruntime as ort
import pytest
import ranker_shop as shop

from contracts.features import RANKER_FEATURES
from contracts.settings import Settings
from training.config import Bundle, ConfigError, RankerConfig, read_bundle
from training.ranker import data, items, requests, train

MOMENT = shop.RANKER_FROM + dt.timedelta(days=14, hours=9)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return shop.write_shop(tmp_path_factory.mktemp("shop"), shop.lines())


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return shop.write_encoder(tmp_path_factory.mktemp("encoders") / "encoder")


@pytest.fixture(scope="module")
def config(settings: Settings, encoder: pathlib.Path) -> RankerConfig:
    return shop.config(settings, encoder, settings.home / "bundles" / "ranker" / "run")


@pytest.fixture(scope="module")
def bundle(config: RankerConfig) -> Bundle:
    return train.train(config)


def everything_at(config: RankerConfig, scratch: pathlib.Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Candidates and features of requests by all customers at one moment, and their usual stores."""
    opened = train.open_shop(config, scratch)
    everybody = np.arange(len(opened.lines.customers))
    at_us = np.full(len(everybody), items.micros(items.to_days(MOMENT)))
    nothing = requests.Targets(np.zeros(len(everybody) + 1, np.int64), np.zeros(0, np.int64))
    asked = requests.Requests(everybody, at_us, at_us, np.zeros(len(everybody), np.int64), nothing)
    asked = dataclasses.replace(asked, store=requests.usual_stores(opened.lines, asked))
    found = train.find_candidates(opened, asked, items.to_days(MOMENT))
    matrix = data.build_dataset(opened.source, asked, found, opened.promotions).features
    return [getattr(found, field.name) for field in dataclasses.fields(found)], matrix


def test_what_happens_later_changes_no_training_feature(
    config: RankerConfig, encoder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    past = [line for line in shop.lines() if line.at < MOMENT]
    future = [line for line in shop.lines() if line.at >= MOMENT]
    moved = [
        dataclasses.replace(
            line, at=line.at + dt.timedelta(hours=7), price=9.0, discount=3.0, store=shop.STORES[0]
        )
        for line in future
    ]
    other = shop.write_shop(tmp_path / "moved", [*past, *moved])
    candidates, features = everything_at(config, tmp_path)
    moved_candidates, moved_features = everything_at(shop.config(other, encoder, tmp_path / "out"), tmp_path)
    for left, right in zip(candidates, moved_candidates, strict=True):
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(features, moved_features)
    assert np.isfinite(features).all()
    assert features[:, RANKER_FEATURES.index("cp_orders")].max() > 1


def test_the_basket_itself_is_not_seen(config: RankerConfig, tmp_path: pathlib.Path) -> None:
    opened = train.open_shop(config, tmp_path)
    asked = requests.training_requests(opened.lines, [items.to_days(shop.RANKER_FROM)], 1e6)
    assert (asked.seen_us < asked.at_us).all()
    found = train.find_candidates(opened, asked, items.to_days(shop.RANKER_FROM))
    built = data.build_dataset(opened.source, asked, found, opened.promotions)
    since = built.features[:, RANKER_FEATURES.index("cp_since")]
    assert since.min() > 0
    orders = built.features[:, RANKER_FEATURES.index("c_orders")]
    for row in range(len(asked)):
        before = opened.lines.before(int(asked.customer[row]), int(asked.at_us[row]))
        expected = len(np.unique(opened.lines.at_us[before]))
        assert set(orders[found.row == row]) == {expected}


def test_item_tables_see_nothing_at_or_after_their_moment(
    settings: Settings, encoder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    past = [line for line in shop.lines() if line.at < MOMENT]
    future = [
        dataclasses.replace(line, at=line.at + dt.timedelta(hours=7), price=9.0)
        for line in shop.lines()
        if line.at >= MOMENT
    ]
    other = shop.write_shop(tmp_path / "moved", [*past, *future])
    tables = items.build_item_table(settings, encoder, at=MOMENT)
    moved = items.build_item_table(other, encoder, at=MOMENT)
    for part in ("items", "exposures", "store_products"):
        for name, array in getattr(tables, part).items():
            np.testing.assert_array_equal(array, getattr(moved, part)[name], err_msg=f"{part}.{name}")


def test_a_run_leaves_a_bundle_that_ranks(bundle: Bundle, config: RankerConfig) -> None:
    folder = pathlib.Path(config.out)
    assert read_bundle(folder) == bundle
    assert bundle.details["features"] == list(RANKER_FEATURES)
    assert bundle.details["parity"]["mismatches"] == 0
    assert bundle.details["comparison"]["ranker"] == bundle.metrics["ndcg_at_10"]
    assert bundle.model_uri.startswith("models:/")
    assert bundle.metrics["ndcg_at_10"] > bundle.metrics["baseline_recent_popularity_ndcg_at_10"]
    assert (
        bundle.metrics["ndcg_at_10_ci_low"]
        < bundle.metrics["ndcg_at_10"]
        < bundle.metrics["ndcg_at_10_ci_high"]
    )
    assert bundle.metrics["onnx_largest_difference"] < 1e-4
    session = ort.InferenceSession(str(folder / "ranker.onnx"))
    scores = session.run(["scores"], {"features": np.zeros((3, len(RANKER_FEATURES)), np.float32)})[0]
    assert scores.shape == (3,)
    assert "# Ranker of complete_journey" in (folder / "model_card.md").read_text()
    assert not list(folder.parent.glob(".tmp-*"))


def test_a_run_is_evidence_in_mlflow(bundle: Bundle, config: RankerConfig) -> None:
    import mlflow

    client = mlflow.MlflowClient(config.tracking_uri)
    run = client.get_run(bundle.run_id)
    assert {item.dataset.name for item in run.inputs.dataset_inputs} >= {"events", "customer_product"}
    assert run.data.metrics["ndcg_at_10"] == pytest.approx(bundle.metrics["ndcg_at_10"])
    assert client.get_metric_history(bundle.run_id, "validation_ndcg_at_10")
    names = {file.path for file in client.list_artifacts(bundle.run_id)}
    assert {"model_card.md", "plots", "config.json"} <= names
    assert run.data.tags["encoder_run"] == "encoder-run"


def test_every_variant_is_judged(config: RankerConfig, settings: Settings) -> None:
    every = {
        "variants": ["full", "store_unknown", "moment_unknown"],
        "min_leaf": 5,
        "rounds": 5,
        "refit": True,
    }
    found = train.train(
        msgspec.structs.replace(config, params=every, out=str(settings.home / "bundles" / "all"))
    )
    assert {name for name in found.metrics if name.startswith("variant_") and name.endswith("_at_10")} == {
        f"variant_{name}_ndcg_at_10" for name in every["variants"]
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"params": {"leafs": 3}}, "leafs"),
        ({"ranker_from": shop.EVALUATE_FROM - dt.timedelta(days=10)}, "at least two times cut_days"),
        ({"evaluate_until": shop.EVALUATE_FROM + dt.timedelta(seconds=1)}, "no customer buys"),
    ],
)
def test_a_config_that_cannot_be_used_says_why(
    config: RankerConfig, tmp_path: pathlib.Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train.train(msgspec.structs.replace(config, out=str(tmp_path / "out"), **changes))
    assert not (tmp_path / "out").exists()


def test_an_encoder_that_has_seen_the_requests_is_refused(
    config: RankerConfig, tmp_path: pathlib.Path
) -> None:
    late = shop.write_encoder(tmp_path / "late", train_until=shop.EVALUATE_FROM)
    with pytest.raises(ConfigError, match="expected no later than ranker_from"):
        train.open_shop(msgspec.structs.replace(config, encoder=str(late)), tmp_path)
