"""Intent in the session under way: the graph reads what the lake's features say, and answers only when asked in time."""

from __future__ import annotations

import datetime as dt
import pathlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from contracts.events import Event
from contracts.moments import MomentRules
from contracts.needs import FEATURES, need_features
from serving.profiles.intent import FILE, IntentModel
from serving.profiles.moments import live_stream
from serving.profiles.predictions import PredictionsError

START = dt.datetime(2025, 5, 1, 12, tzinfo=dt.UTC)
RULES = MomentRules()


def write(path: pathlib.Path, width: int = len(FEATURES)) -> np.ndarray:
    """A logistic regression on random weights."""
    weight = np.random.default_rng(0).normal(size=(width, 1)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["features", "weight"], ["score"]),
            helper.make_node("Sigmoid", ["score"], ["column"]),
            helper.make_node("Reshape", ["column", "flat"], ["probability"]),
        ],
        "toy",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["M", width])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["M"])],
        [
            helper.make_tensor("weight", TensorProto.FLOAT, [width, 1], weight.ravel()),
            helper.make_tensor("flat", TensorProto.INT64, [1], [-1]),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return weight[:, 0].astype(np.float64)


def act(minutes: float, action: str, product: str | None = None) -> Event:
    at = START + dt.timedelta(minutes=minutes)
    return Event(
        event_id=f"e{minutes}", source="toy", occurred_at=at, channel="web", action=action, product_id=product
    )  # type: ignore[arg-type]


VISIT = [act(0, "visit"), act(1, "view", "p"), act(3, "add_to_cart", "p"), act(10, "view", "q")]


def test_the_graph_is_asked_about_the_last_act_before_now(tmp_path: pathlib.Path) -> None:
    weight = write(tmp_path / FILE)
    model = IntentModel(tmp_path)
    now = START + dt.timedelta(minutes=5)
    found = model.of("p_1", VISIT[::-1], RULES, now)
    assert found is not None
    stream = live_stream("p_1", VISIT[:3], RULES).stream
    _, features, _ = need_features(stream, RULES, np)
    assert found.chance == pytest.approx(1 / (1 + np.exp(-features[-1] @ weight)), abs=1e-5)
    assert (found.as_of, found.acts) == (START + dt.timedelta(minutes=3), 3)


def test_there_is_no_answer_without_a_session_or_after_a_purchase(tmp_path: pathlib.Path) -> None:
    assert IntentModel(None).of("p_1", VISIT, RULES, START) is None
    assert IntentModel(tmp_path).of("p_1", VISIT, RULES, START) is None
    write(tmp_path / FILE)
    model = IntentModel(tmp_path)
    assert model.of("p_1", [], RULES, START) is None
    assert model.of("p_1", VISIT, RULES, START + dt.timedelta(minutes=10 + 31)) is None
    bought = [*VISIT, act(11, "purchase", "q"), act(12, "view", "p")]
    assert model.of("p_1", bought, RULES, START + dt.timedelta(minutes=13)) is None


def test_a_graph_of_other_features_is_refused(tmp_path: pathlib.Path) -> None:
    write(tmp_path / FILE, 3)
    with pytest.raises(PredictionsError, match=f"expected features of width {len(FEATURES)}"):
        IntentModel(tmp_path).of("p_1", VISIT, RULES, START)
    (tmp_path / FILE).write_bytes(b"nonsense")
    with pytest.raises(PredictionsError, match="cannot be used"):
        IntentModel(tmp_path).of("p_1", VISIT, RULES, START)
