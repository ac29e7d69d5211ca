"""The training command on a small real shop: from the lake to a bundle, a run and scores."""

from __future__ import annotations

import datetime as dt
import json
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import mlflow
import numpy as np
import pytest

from orchestration.lake.ingest import ingest_events, ingest_products
from orchestration.sources import Window, load
from training.config import Bundle, ConfigError, EncoderConfig, read_bundle, read_config
from training.continuum.data import read_sequences
from training.continuum.infer import open_encoder
from training.continuum.train import train

ROOT = pathlib.Path(__file__).resolve().parents[3]
PARAMS = {"dim": 16, "length": 64, "epochs": 2, "batch": 8, "negatives": 64, "min_count": 3}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    home = tmp_path_factory.mktemp("home")
    source = load("complete_journey")
    window = Window(dt.date(2017, 1, 1), dt.date(2017, 9, 30), households=40)
    ingest_events(home / "lake", "complete_journey", source, window)
    ingest_products(home / "lake", source)
    return home


def config(home: pathlib.Path, **changes: Any) -> pathlib.Path:
    content = {
        "retailer": "complete_journey", "home": str(home), "lake": {"products": 1},
        "train_until": "2017-08-15T00:00:00Z", "evaluate_from": "2017-09-01T00:00:00Z",
        "evaluate_until": "2017-10-01T00:00:00Z", "out": str(home / "bundles" / "encoder" / "first"),
        "tracking_uri": f"sqlite:///{home / 'mlflow' / 'mlflow.db'}", "experiment": "complete_journey-encoder",
        "threads": 1, "params": PARAMS, **changes,
    }  # fmt: skip
    path = home / "encoder.config.json"
    path.write_text(json.dumps(content))
    return path


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "DAGSTER_PIPES_CONTEXT"}
    return subprocess.run(
        [sys.executable, "-m", "training", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(home: pathlib.Path) -> tuple[Bundle, str]:
    done = command("encoder", "--config", str(config(home)))
    assert done.returncode == 0, done.stderr[-3000:]
    return read_bundle(home / "bundles" / "encoder" / "first"), done.stderr


def test_two_processes_leave_one_bundle(home: pathlib.Path, trained: tuple[Bundle, str]) -> None:
    path = config(home, out=str(home / "bundles" / "encoder" / "together"))
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            "-m", "training", "encoder", "--config", str(path),
        ],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("epoch 1 of 2") == 1
    bundle = read_bundle(home / "bundles" / "encoder" / "together")
    alone = trained[0].details["curve"]["train_loss"]
    assert bundle.details["curve"]["train_loss"] == pytest.approx(alone, rel=0.05), "dropout differs, no more"
    shutil.rmtree(home / "bundles" / "encoder" / "together")


def test_the_command_reports_progress_and_leaves_one_complete_bundle(
    home: pathlib.Path, trained: tuple[Bundle, str]
) -> None:
    bundle, progress = trained
    assert "epoch 1 of 2" in progress
    assert "ONNX Runtime agrees" in progress
    folder = home / "bundles" / "encoder" / "first"
    assert [entry.name for entry in folder.parent.iterdir()] == ["first"]
    for path in bundle.files.values():
        assert (folder / path).stat().st_size > 0
    assert set(bundle.lake) == {"events", "products"}
    assert bundle.details["heads"] == {
        "next_item": True, "next_action": True, "next_channel": True, "buy": False, "avoid": False,
    }  # fmt: skip
    assert len(bundle.details["curve"]["validation_ndcg_at_10"]) == 3


def test_the_run_holds_the_evidence(home: pathlib.Path, trained: tuple[Bundle, str]) -> None:
    bundle, _ = trained
    client = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow' / 'mlflow.db'}")
    run = client.get_run(bundle.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["params.dim"] == "16"
    for name in ("ndcg_at_10", "recall_at_10", "mrr_at_10", "recall_at_100"):
        low, value, high = (run.data.metrics[f"{name}{part}"] for part in ("_ci_low", "", "_ci_high"))
        assert 0 <= low <= value <= high <= 1
    assert {"coverage_at_10", "novelty_at_10", "segment_frequent_ndcg_at_10"} <= set(run.data.metrics)
    assert 0 < run.data.metrics["baseline_personal_frequency_45d_ndcg_at_10"] < 1
    assert len(client.get_metric_history(bundle.run_id, "train_loss")) == 2
    assert {dataset.dataset.name for dataset in run.inputs.dataset_inputs} == {"events", "products"}
    artifacts = {entry.path for entry in client.list_artifacts(bundle.run_id)}
    assert {"model_card.md", "config.json", "plots"} <= artifacts
    model = client.get_logged_model(bundle.model_uri.removeprefix("models:/"))
    assert model.name == "encoder"
    signature = mlflow.models.Model.load(url2pathname(urlsplit(model.artifact_location).path)).signature
    assert signature.inputs.input_dict()["item"].shape == (-1, -1)


def test_the_card_states_what_a_reviewer_asks(home: pathlib.Path, trained: tuple[Bundle, str]) -> None:
    card = (home / "bundles" / "encoder" / "first" / "model_card.md").read_text()
    assert "Heads without labels in this data | buy, avoid" in card
    assert "personal_frequency_45d" in card
    assert "simulated" not in card


def test_the_bundle_scores_customers_and_strangers(home: pathlib.Path, trained: tuple[Bundle, str]) -> None:
    from feature_repo.snapshots import attach, connect

    encoder = open_encoder(home / "bundles" / "encoder" / "first")
    con = connect()
    attach(con, "events", home / "lake" / "events")
    sequences = read_sequences(con, encoder.product_ids)
    at = np.full(3, dt.datetime(2017, 9, 1, tzinfo=dt.UTC).timestamp() / 86_400)
    scores = encoder.score(sequences, np.array([0, 1, -1]), at)
    assert scores.shape == (3, len(encoder.product_ids))
    assert np.isfinite(scores[:, 1:]).all()
    assert not np.allclose(scores[0, 1:], scores[2, 1:])
    parts = [rows for rows, _ in encoder.batches(sequences, np.array([0, 1, -1]), at, batch=2)]
    assert parts == [slice(0, 2), slice(2, 3)]


def test_a_misspelt_key_ends_the_command_with_its_name(home: pathlib.Path) -> None:
    done = command("encoder", "--config", str(config(home, params={"lenght": 5})))
    assert done.returncode == 2
    assert "lenght" in done.stderr
    assert "encoder.config.json" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train_until": "2016-01-01T00:00:00Z"}, "train_until"),
        ({"params": {**PARAMS, "validation_days": 400}}, "validation_days"),
    ],
)
def test_nothing_to_learn_from_is_said_so(home: pathlib.Path, changes: dict[str, Any], expected: str) -> None:
    out = home / "none" / "encoder"
    with pytest.raises(ConfigError, match=expected):
        train(read_config(config(home, out=str(out), **changes), EncoderConfig))
    assert not out.exists()


def test_help_names_the_families() -> None:
    done = command("--help")
    assert done.returncode == 0
    assert "encoder" in done.stdout
    assert "ranker" in done.stdout
    assert command().returncode == 2
