"""Configs and bundles are strict: what is wrong is named."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import msgspec
import pytest

from training.config import (
    Bundle,
    ConfigError,
    EncoderConfig,
    EncoderParams,
    RankerConfig,
    decode_params,
    read_bundle,
    read_config,
    write_bundle,
)

GOOD: dict[str, Any] = {
    "retailer": "shop", "home": "/nowhere", "train_until": "2017-10-06T00:00:00Z",
    "evaluate_from": "2017-12-01T00:00:00Z", "evaluate_until": "2018-01-02T00:00:00Z", "out": "/nowhere/out",
    "tracking_uri": "sqlite:////nowhere/mlflow.db", "experiment": "shop-encoder",
}  # fmt: skip
RANKER = {
    **GOOD,
    "train_until": GOOD["evaluate_from"],
    "ranker_from": GOOD["train_until"],
    "encoder": "/nowhere/e",
}


def written(folder: pathlib.Path, content: dict[str, Any] | str) -> pathlib.Path:
    path = folder / "config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_defaults_fill_what_is_left_out(tmp_path: pathlib.Path) -> None:
    config = read_config(written(tmp_path, {**GOOD, "params": {"dim": 32}}), EncoderConfig)
    assert config.params == EncoderParams(dim=32)
    ranker = read_config(written(tmp_path, {**RANKER, "params": {"trees": 9}}), RankerConfig)
    assert ranker.params == {"trees": 9}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"retialer": "x"}, "retialer"),
        ({"params": {"lenght": 9}}, r"lenght.*\$\.params"),
        ({"params": {"length": "long"}}, r"\$\.params\.length"),
        ({"params": {"dropout": 2}}, r"\$\.params\.dropout"),
        ({"params": {"dim": 65}}, r"\$\.params\.heads.*divisor of dim \(65\)"),
        ({"params": {"trend": 0.5}}, r"\$\.params\.trend.*0\.5.*'trend_fade'"),
        ({"params": {"both_ways": 1}}, r"\$\.params\.both_ways.*1.*less than members \(1\)"),
        (
            {"params": {"both_ways": 1, "members": 2}},
            r"\$\.params\.both_ways.*action_weight and label_weight of 0",
        ),
        ({"params": {"content": ["colour"]}}, r"\$\.params\.content.*colour.*category"),
        ({"params": {"target_actions": ["buy"]}}, r"\$\.params\.target_actions.*buy.*purchase"),
        ({"train_until": "2017-10-06T00:00:00"}, r"\$\.train_until"),
        ({"train_until": "2017-12-02T00:00:00Z"}, r"\$\.train_until.*no later than evaluate_from"),
        ({"evaluate_until": "2017-11-02T00:00:00Z"}, r"\$\.evaluate_until.*after evaluate_from"),
        ({"lake": {"events": "latest"}}, r"\$\.lake"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(
    tmp_path: pathlib.Path, change: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError, match=rf"config\.json: .*{expected}"):
        read_config(written(tmp_path, {**GOOD, **change}), EncoderConfig)


def test_a_missing_key_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="retailer"):
        read_config(written(tmp_path, {k: v for k, v in GOOD.items() if k != "retailer"}), EncoderConfig)


def test_the_ranker_learns_from_a_window(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match=r"ranker_from.*before train_until"):
        read_config(written(tmp_path, {**RANKER, "ranker_from": RANKER["train_until"]}), RankerConfig)


def test_no_file_and_no_json_are_said_so(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.json.*expected a JSON file"):
        read_config(tmp_path / "none.json", EncoderConfig)
    with pytest.raises(ConfigError, match=r"config\.json"):
        read_config(written(tmp_path, "{"), EncoderConfig)


def test_params_of_a_family_are_strict_too() -> None:
    class Params(msgspec.Struct, forbid_unknown_fields=True):
        trees: int = 1

    assert decode_params({"trees": 3}, Params).trees == 3
    with pytest.raises(ConfigError, match=r"params.*leafs"):
        decode_params({"leafs": 3}, Params)


def test_a_bundle_is_complete_once_its_record_is_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="finished training"):
        read_bundle(tmp_path)
    bundle = Bundle(
        family="encoder",
        run_id="r",
        model_uri="models:/m-1",
        metrics={"a": 1.0},
        config={},
        files={"onnx": "e.onnx"},
    )
    write_bundle(tmp_path, bundle)
    assert read_bundle(tmp_path) == bundle
    (tmp_path / "bundle.json").write_text('{"family": "oracle"}')
    with pytest.raises(ConfigError, match="family"):
        read_bundle(tmp_path)
