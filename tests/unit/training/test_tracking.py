"""Runs, models and aliases on a real MLflow over SQLite."""

from __future__ import annotations

import datetime as dt
import json
import pathlib
import urllib.parse

import mlflow
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from serving.releases.registry import open_registry
from training import tracking
from training.config import EncoderConfig, EncoderParams

UTC = dt.UTC
MODEL = "toy-encoder"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("home with space")


@pytest.fixture(scope="module")
def uri(home: pathlib.Path) -> str:
    return f"sqlite:///{home / 'mlflow' / 'mlflow.db'}"


@pytest.fixture(scope="module")
def graph(home: pathlib.Path) -> pathlib.Path:
    """Doubles x float32[N, 3]."""
    two = helper.make_tensor("two", TensorProto.FLOAT, [1], [2.0])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])
    made = helper.make_graph([helper.make_node("Mul", ["x", "two"], ["y"])], "double", [x], [y], [two])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = home / "double.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def config(home: pathlib.Path, uri: str) -> EncoderConfig:
    return EncoderConfig(
        retailer="toy", home=str(home), lake={"events": 7}, train_until=dt.datetime(2017, 10, 1, tzinfo=UTC),
        evaluate_from=dt.datetime(2017, 11, 1, tzinfo=UTC), evaluate_until=dt.datetime(2017, 12, 1, tzinfo=UTC),
        out=str(home / "out"), tracking_uri=uri, experiment=MODEL, feature_service="encoder_v1", simulated=True,
        tags={"note": "x" * 900}, params=EncoderParams(content=("brand",) * 200),
    )  # fmt: skip


@pytest.fixture(scope="module")
def logged(config: EncoderConfig, graph: pathlib.Path) -> tuple[str, str, str]:
    """One run with everything in it: (run id, model id, model URI)."""
    with tracking.start(config) as run:
        model_id, model_uri = tracking.log_onnx(
            graph, "encoder", input_example={"x": np.ones((2, 3), np.float32)}
        )
        tracking.log_metrics({"ndcg_at_10": (0.2, 0.1, 0.3), "loss": 1}, model_id=model_id)
        tracking.log_curve("training_loss", [2.0] * 1500 + [1.0])
        tracking.log_comparison("NDCG at 10", {"a": (0.1, 0.0, 0.2), "b": (0.2, 0.1, 0.4)}, highlight="b")
        tracking.log_model_card("# Card")
        tracking.log_dataset("events", source="lake/events", digest="d" * 64, context="train", version=7)
        tracking.log_dataset("frozen", source="evaluation/x.parquet", digest="e" * 64, context="evaluate")
    return run.info.run_id, model_id, model_uri


@pytest.fixture(scope="module")
def versions(uri: str, logged: tuple[str, str, str]) -> list[str]:
    return [tracking.register(uri, logged[2], MODEL, {"release": f"r{n}"}) for n in range(3)]


def test_run_says_what_it_was_made_from(
    uri: str, config: EncoderConfig, logged: tuple[str, str, str], home: pathlib.Path
) -> None:
    client = tracking.open_client(uri)
    run = client.get_run(logged[0])
    expected = {"family": "encoder", "retailer": "toy", "lake.events": "7", "simulated": "true"}
    assert expected.items() <= run.data.tags.items()
    assert run.data.tags["code_version"] == tracking.code_version()
    assert run.data.params["params.dim"] == "64"
    assert len(run.data.params["params.content"]) == tracking.LONGEST_PARAM
    artifacts = pathlib.Path(urllib.parse.unquote(urllib.parse.urlsplit(run.info.artifact_uri).path))
    assert artifacts.is_relative_to(home / "mlflow" / "artifacts" / MODEL)
    whole = json.loads((artifacts / "config.json").read_text())
    assert whole["params"]["content"] == ["brand"] * 200
    assert (artifacts / "plots" / "ndcg-at-10.png").read_bytes().startswith(b"\x89PNG")
    assert (artifacts / "model_card.md").read_text() == "# Card"


def test_numbers_intervals_and_curves(uri: str, logged: tuple[str, str, str]) -> None:
    client = tracking.open_client(uri)
    run_id, model_id, _ = logged
    metrics = client.get_run(run_id).data.metrics
    assert metrics["ndcg_at_10"] == 0.2
    assert (metrics["ndcg_at_10_ci_low"], metrics["ndcg_at_10_ci_high"]) == (0.1, 0.3)
    curve = client.get_metric_history(run_id, "training_loss")
    assert [point.step for point in curve] == list(range(1501))
    of_model = {metric.key: metric.value for metric in client.get_logged_model(model_id).metrics}
    assert of_model["ndcg_at_10"] == 0.2


def test_datasets_are_references(uri: str, logged: tuple[str, str, str]) -> None:
    inputs = tracking.open_client(uri).get_run(logged[0]).inputs.dataset_inputs
    found = {one.dataset.name: one for one in inputs}
    assert json.loads(found["events"].dataset.source)["delta_table_version"] == 7
    assert {tag.key: tag.value for tag in found["frozen"].tags}["mlflow.data.context"] == "evaluate"


def test_model_is_one_file_with_open_dimensions(logged: tuple[str, str, str], graph: pathlib.Path) -> None:
    info = mlflow.models.get_model_info(logged[2])
    assert info.signature.inputs.inputs[0].shape == (-1, 3)
    folder = pathlib.Path(mlflow.artifacts.download_artifacts(logged[2]))
    assert not list(folder.rglob("*.data"))
    assert np.array_equal(
        mlflow.pyfunc.load_model(logged[2]).predict({"x": np.ones((5, 3), np.float32)})["y"],
        np.full((5, 3), 2, np.float32),
    )


def test_graph_states_its_tensors(graph: pathlib.Path) -> None:
    assert tracking.graph_tensors(graph) == (
        [tracking.Tensor("x", "float32", (-1, 3))],
        [tracking.Tensor("y", "float32", (-1, 3))],
    )


def test_logging_outside_a_run_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"inside `with tracking\.start"):
        tracking.log_metrics({"a": 1.0})
    with pytest.raises(ValueError, match="'a' has 2 numbers"):
        tracking.log_metrics({"a": (1.0, 2.0)})  # type: ignore[dict-item]


def test_failed_training_is_a_failed_run(config: EncoderConfig, uri: str) -> None:
    def train() -> str:
        with tracking.start(config) as run:
            found.append(run.info.run_id)
            raise ZeroDivisionError

    found: list[str] = []
    with pytest.raises(ZeroDivisionError):
        train()
    assert tracking.open_client(uri).get_run(found[0]).info.status == "FAILED"


def test_promote_and_roll_back(uri: str, versions: list[str]) -> None:
    first, second, third = versions
    registry = open_registry(uri, MODEL)
    assert tracking.resolve_alias(uri, MODEL, "champion") is None
    with pytest.raises(tracking.UnknownVersion, match="no other previous champion"):
        tracking.rollback(uri, MODEL)
    tracking.set_alias(uri, MODEL, "challenger", first)
    assert tracking.promote(uri, MODEL, first) is None
    assert tracking.resolve_alias(uri, MODEL, "challenger") is None
    tracking.set_alias(uri, MODEL, "challenger", third)
    assert tracking.promote(uri, MODEL, second) == first
    assert tracking.resolve_alias(uri, MODEL, "challenger") == third
    assert tracking.promote(uri, MODEL, second) == first
    served = registry.resolve("champion")
    assert served is not None
    assert served.version == second
    assert tracking.rollback(uri, MODEL) == (first, second)
    assert tracking.resolve_alias(uri, MODEL, "champion") == first
    assert tracking.rollback(uri, MODEL) == (second, first)


def test_unknown_versions_are_named_with_what_exists(uri: str, versions: list[str]) -> None:
    with pytest.raises(tracking.UnknownVersion, match=rf"'99'; it has: {', '.join(versions)}"):
        tracking.promote(uri, MODEL, "99")
    with pytest.raises(tracking.UnknownVersion, match="no version yet"):
        tracking.set_alias(uri, "nobody", "champion", "1")
    assert tracking.resolve_alias(uri, "nobody", "champion") is None
    tracking.tag_version(uri, MODEL, versions[0], {"gate": "passed"})
    assert tracking.versions(tracking.open_client(uri), MODEL)[versions[0]] == {
        "release": "r0",
        "gate": "passed",
    }
