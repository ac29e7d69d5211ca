"""Whole trainings of churn, value and intent: a real lake, a real MLflow, bundles that ONNX Runtime opens."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import json
import os
import pathlib

import mlflow
import msgspec
import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from contracts.settings import read_settings
from orchestration.lake.tables import TABLES
from training.config import ConfigError
from training.relationship import intent, train, train_uplift
from training.relationship.__main__ import main
from training.relationship.bundle import Record, read_record
from training.relationship.data import read_sessions, read_visits
from training.relationship.intent import IntentParams
from training.relationship.network import NetworkParams
from training.relationship.uplift import UpliftParams, effect_of

FIRST = dt.datetime(2017, 1, 2, tzinfo=dt.UTC)
JUDGED = FIRST + dt.timedelta(days=150)


def purchases(seed: int = 0) -> list[dict[str, object]]:
    """Customers with rates of their own, half of whom stop for good at some day."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(120):
        gap, last = rng.uniform(2, 20), rng.uniform(60, 400)
        at = rng.uniform(0, 30)
        while at < min(last, 200):
            moment = FIRST + dt.timedelta(seconds=round(at * 86_400))
            rows += [
                {
                    "event_id": f"{number}-{at}-{line}", "source": "toy", "occurred_at": moment, "received_at": moment,
                    "identifiers": "[]", "session_id": f"{number}-{at}", "channel": "store", "touchpoint": "store:1",
                    "action": "purchase", "product_id": f"p{line}", "quantity": 2.0, "unit_price": 1.5,
                    "discount": 0.5, "customer_id": f"c{number:03d}", "store_id": "1", "day": moment.date(),
                }
                for line in range(int(rng.integers(1, 4)))
            ]  # fmt: skip
            at += rng.exponential(gap)
    return rows


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("relationship")
    schema = TABLES["events"].schema
    rows = [{name: row.get(name) for name in schema.names} for row in purchases()]
    settings = read_settings({"CONTINUUM_HOME": str(folder)})
    write_deltalake(
        str(settings.lake / "events"), pa.Table.from_pylist(rows, schema=schema), partition_by=["day"]
    )
    return folder


def common(home: pathlib.Path, name: str) -> dict[str, object]:
    return {
        "retailer": "toy", "home": str(home), "train_until": JUDGED, "evaluate_from": JUDGED,
        "evaluate_until": JUDGED + dt.timedelta(days=40), "out": str(home / "bundles" / name), "threads": 1,
        "tracking_uri": f"sqlite:///{home / 'mlflow' / 'mlflow.db'}", "experiment": name, "simulated": True,
    }  # fmt: skip


@pytest.fixture(scope="module")
def customers(home: pathlib.Path) -> train.CustomersConfig:
    return train.CustomersConfig(
        **common(home, "customers"), churn_days=21, window_days=40, resamples=50,
        params=NetworkParams(width=16, epochs=40, batch=64),
    )  # fmt: skip


@pytest.fixture(scope="module")
def customer_record(customers: train.CustomersConfig) -> Record:
    return train.train_customers(customers)


def write_sessions(path: pathlib.Path, size: int = 700) -> None:
    rng = np.random.default_rng(0)
    with gzip.open(path, "wt", newline="") as file:
        out = csv.writer(file)
        out.writerow([*intent.NUMBERS, "Month", "VisitorType", "Weekend", "Revenue"])
        for _ in range(size):
            numbers = rng.gamma(1.0, 2.0, len(intent.NUMBERS)).round(2)
            bought = rng.random() < 1 / (1 + np.exp(2 - numbers[intent.NUMBERS.index("PageValues")]))
            out.writerow([*numbers, "Nov", "Other", "TRUE", str(bool(bought)).upper()])


def test_visits_are_baskets_of_the_lake(home: pathlib.Path) -> None:
    version, visits = read_visits(read_settings({"CONTINUUM_HOME": str(home)}))
    rows = purchases()
    baskets = {row["session_id"] for row in rows}
    assert version == 0
    assert len(visits.at) == len(baskets)
    assert visits.spend.sum() == pytest.approx(3.0 * len(rows))
    assert visits.discount.sum() == pytest.approx(1.0 * len(rows))


def test_customers_bundle_holds_what_it_says(
    customers: train.CustomersConfig, customer_record: Record
) -> None:
    out = pathlib.Path(customers.out)
    for file in customer_record.files.values():
        assert (out / file).stat().st_size > 0
    found = np.load(out / "predictions.npz")
    assert ((found["churn"] >= 0) & (found["churn"] <= 1)).all()
    assert (np.diff(found["survival"], axis=1) <= 1e-6).all()
    assert (found["value"] >= 0).all()
    assert customer_record.metrics["churn_auc"] > 0.6
    session = ort.InferenceSession(out / "churn.onnx", providers=["CPUExecutionProvider"])
    width = len(customer_record.details["features"])  # type: ignore[arg-type]
    assert session.run(None, {"features": np.zeros((5, width), np.float32)})[0].shape == (
        5,
        found["survival"].shape[1],
    )


def test_the_run_is_in_mlflow_with_card_plot_and_data(
    customers: train.CustomersConfig, customer_record: Record
) -> None:
    client = mlflow.MlflowClient(customers.tracking_uri)
    run = client.get_run(customer_record.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["churn_auc_gain_ci_low"] == pytest.approx(
        customer_record.metrics["churn_auc_gain_ci_low"]
    )
    assert [each.dataset.name for each in run.inputs.dataset_inputs] == ["events"]
    files = {each.path for each in client.list_artifacts(run.info.run_id)}
    assert {"model_card.md", "config.json", "plots"} <= files
    card = (pathlib.Path(customers.out) / "model_card.md").read_text()
    assert "simulated" in card
    assert "churn_auc_recency_baseline" in card


def test_what_happens_after_the_judged_moment_changes_no_model(
    home: pathlib.Path,
    customers: train.CustomersConfig,
    customer_record: Record,
    tmp_path: pathlib.Path,
) -> None:
    schema = TABLES["events"].schema
    rows = [{name: row.get(name) for name in schema.names} for row in purchases()]
    for row in rows:
        if row["occurred_at"] >= JUDGED:  # type: ignore[operator]
            row["unit_price"] = 99.0
    settings = read_settings({"CONTINUUM_HOME": str(tmp_path)})
    write_deltalake(
        str(settings.lake / "events"), pa.Table.from_pylist(rows, schema=schema), partition_by=["day"]
    )
    other = msgspec.structs.replace(customers, home=str(tmp_path), out=str(tmp_path / "out"))
    train.train_customers(other)
    ours, theirs = (
        np.load(pathlib.Path(customers.out) / "predictions.npz"),
        np.load(tmp_path / "out" / "predictions.npz"),
    )
    for name in ours.files:
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_intent_by_the_command_line(home: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = home / "sessions.csv.gz"
    write_sessions(path)
    config = train.IntentConfig(
        **common(home, "intent"), sessions=str(path), resamples=50, params=IntentParams(trees=30, folds=3)
    )
    file = home / "intent.json"
    file.write_bytes(msgspec.json.encode(config))
    assert main(["intent", "--config", str(file), "--quiet"]) == 0
    record = read_record(pathlib.Path(config.out))
    assert record.metrics["auc"] > 0.6
    assert record.metrics["onnx_largest_difference"] < 1e-4
    file.write_text(json.dumps({**json.loads(file.read_text()), "outcome": "Bought"}))
    assert main(["intent", "--config", str(file), "--quiet"]) == 2
    assert "field 'Bought' is missing in sessions.csv.gz" in capsys.readouterr().err


def write_trial(path: pathlib.Path, size: int = 4000) -> None:
    """An e-mail that moves customers of one city only."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["age", "city", "arm", "visit"])
        for _ in range(size):
            city, arm = rng.choice(["Bern", "Ulm"]), rng.choice(["mail", "none", "call"])
            chance = 0.2 + 0.3 * (city == "Ulm" and arm == "mail")
            out.writerow(
                ["" if rng.random() < 0.1 else rng.integers(18, 80), city, arm, int(rng.random() < chance)]
            )


def test_uplift_by_the_command_line(home: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = home / "trial.csv"
    write_trial(path)
    config = train_uplift.UpliftConfig(
        **common(home, "uplift"), trial=str(path), arm="arm", contact="mail", control="none", outcome="visit",
        numbers=("age",), categories=("city",), resamples=50, params=UpliftParams(trees=30, min_leaf=50),
    )  # fmt: skip
    file = home / "uplift.json"
    file.write_bytes(msgspec.json.encode(config))
    assert main(["uplift", "--config", str(file), "--quiet"]) == 0
    record = read_record(pathlib.Path(config.out))
    assert record.metrics["qini_ci_low"] > 0
    assert record.details["features"] == ["age", "city=Bern", "city=Ulm"]
    saved = json.loads((pathlib.Path(config.out) / "uplift.json").read_text())
    bern, ulm = effect_of(saved["effect"]).predict(np.array([[40.0, 1, 0], [40.0, 0, 1]]))
    assert abs(bern) < 0.12 < ulm
    for change, message in (
        ({"outcome": "sales"}, "column 'sales' is missing in trial.csv; it has age, city, arm, visit"),
        ({"contact": "fax"}, "no row of trial.csv has arm 'fax'"),
        ({"numbers": ["city"]}, "column 'city' holds"),
        ({"numbers": ["visit"]}, "column 'visit' is no feature"),
    ):
        file.write_text(json.dumps({**json.loads(msgspec.json.encode(config)), **change}))
        assert main(["uplift", "--config", str(file), "--quiet"]) == 2
        assert message in capsys.readouterr().err


def test_configs_that_cannot_be_used_are_refused(customers: train.CustomersConfig) -> None:
    for change, message in (
        (
            {"window_days": 60.0},
            "evaluate_until` is 40 days after evaluate_from; expected at least window_days",
        ),
        ({"churn_days": 50.0}, "churn_days` is 50; expected at most 40"),
        ({"train_until": FIRST + dt.timedelta(days=60)}, "expected at least 3"),
    ):
        with pytest.raises(ConfigError, match=message):
            train.train_customers(msgspec.structs.replace(customers, **change))


@pytest.mark.skipif(
    "CONTINUUM_DATA" not in os.environ, reason="CONTINUUM_DATA is not set: no public data sets here"
)
def test_real_sessions_are_read() -> None:
    folder = pathlib.Path(os.environ["CONTINUUM_DATA"]) / "online-shoppers-intention"
    X, bought = read_sessions(folder / "online_shoppers_intention.csv.gz")
    assert X.shape == (12_330, len(intent.FEATURES))
    assert bought.sum() == 1908
    assert np.isfinite(X).all()
