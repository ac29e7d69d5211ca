"""Training of the relationship models from a config to a bundle: churn with value, and intent.

Belongs here: configs, the order of the steps, what is logged. Does not belong here: the steps.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import pathlib
from collections.abc import Callable
from functools import partial

import mlflow
import msgspec
import numpy as np
import torch

from contracts.settings import read_settings
from training import tracking
from training.config import ConfigError, Count, Positive, Rate, TrainingConfig, stage
from training.evaluation.statistics import Interval
from training.relationship import cuts, export, intent, learn, measures, report, survival
from training.relationship.bundle import Record, finish, flat, log_results
from training.relationship.data import read_sessions, read_visits
from training.relationship.network import NetworkParams, outputs_of
from training.relationship.summaries import FEATURES, features

Progress = Callable[[str], None]
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
PARITY_ROWS = 500
EXPECTATIONS = "expectations.npz"
"""Churn and value of every customer at the end of the data, as `serving/profiles/predictions.py` reads them."""


class CustomersConfig(TrainingConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Config of ``python -m training.relationship customers``: churn and value from the lake's purchases.

    Attributes:
        churn_days: No purchase for so long counts as churn; at most the last edge of the survival curve.
        window_days: Horizon of value.
        resamples: Of the bootstrap.
        params: Of both networks.
    """

    churn_days: Rate = 28.0
    window_days: Rate = 91.0
    resamples: Positive = 500
    params: NetworkParams = NetworkParams()


class IntentConfig(TrainingConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Config of ``python -m training.relationship intent``: purchase intent from a table of sessions.

    Attributes:
        sessions: CSV file, see `data.read_sessions`.
        outcome: Column that says whether a session bought.
        resamples: Of the bootstrap.
        held_out: The first of so many folds is judged on and never learned from.
        params: The trees.
    """

    sessions: str
    outcome: str = "Revenue"
    resamples: Positive = 500
    held_out: Count = 5
    params: intent.IntentParams = intent.IntentParams()


def train_customers(config: CustomersConfig, progress: Progress = lambda line: None) -> Record:
    """Train churn and value on what was known at ``train_until``, judge at ``evaluate_from``, export, log.

    Raises:
        ConfigError: Times and windows do not fit, or the lake holds too little to learn from.
        SnapshotError: The lake's events are missing.
        ParityError: The exported graph and the network disagree.
    """
    test, known, stop = (
        _days(at) for at in (config.evaluate_from, config.train_until, config.evaluate_until)
    )
    if stop - test < config.window_days:
        raise ConfigError(
            f"`$.evaluate_until` is {stop - test:.0f} days after evaluate_from; expected at least "
            f"window_days ({config.window_days:.0f})"
        )
    if config.churn_days > min(survival.EDGES[-1], config.window_days):
        raise ConfigError(
            f"`$.churn_days` is {config.churn_days:g}; expected at most "
            f"{min(survival.EDGES[-1], config.window_days):g}: neither curve nor window reaches further"
        )
    torch.set_num_threads(config.threads)
    staged = stage(config.out)
    settings = read_settings({"CONTINUUM_HOME": config.home, "RETAILER": config.retailer})
    with tracking.start(config) as run:
        version, visits = read_visits(settings, config.lake.get("events"), config.threads)
        path = settings.lake / "events"
        tracking.log_dataset(
            "events", source=path, digest=f"events-{version}", context="train", version=version
        )
        try:
            hazards = learn.learn_survival(visits, known, config.params, config.seed)
            progress(f"churn: {len(hazards.curve)} epochs")
            worth = learn.learn_value(visits, known, config.window_days, config.params, config.seed)
            progress(f"value: {len(worth.curve)} epochs")
            judged = cuts.rows_at(visits, np.array([test]), config.window_days, test + config.window_days)
            chance = hazards.churn(judged.features, config.churn_days)
            numbers = learn.judge_churn(chance, judged, config.churn_days, config.resamples, config.seed)
            numbers |= learn.judge_value(
                worth.expected(judged.features), judged, config.window_days, config.resamples, config.seed
            )
        except ValueError as error:
            raise ConfigError(f"{config.retailer}: {error}") from error
        progress(f"churn AUC {numbers['churn_auc'].value:.4f}, value Gini {numbers['value_gini'].value:.4f}")
        export.export_head(hazards.head, len(FEATURES), "survival", staged / "churn.onnx")
        export.export_head(worth.head, len(FEATURES), "value", staged / "value.onnx")
        some = judged.features[:PARITY_ROWS]
        gap = max(
            export.check_parity(staged / "churn.onnx", "survival", hazards.survival, some),
            export.check_parity(staged / "value.onnx", "value", partial(outputs_of, worth.head), some),
        )
        np.savez_compressed(
            staged / "predictions.npz", customer=visits.customers[judged.customer], churn=chance,
            survival=hazards.survival(judged.features), value=worth.expected(judged.features),
        )  # fmt: skip
        who, table = features(visits, stop)
        np.savez_compressed(
            staged / EXPECTATIONS, customers=visits.customers[who],
            churn=hazards.churn(table, config.churn_days).astype(np.float32),
            value=worth.expected(table).astype(np.float32),
            churn_days=config.churn_days, value_days=config.window_days,
            as_of_us=int(config.evaluate_until.timestamp() * 1_000_000),
        )  # fmt: skip
        numbers["onnx_largest_difference"] = Interval(gap, gap, gap)
        tracking.log_curve("churn_validation_loss", hazards.curve)
        tracking.log_curve("value_validation_loss", worth.curve)
        churned = (judged.days >= config.churn_days).astype(np.float64)
        figure = report.calibration_figure(
            measures.reliability(chance, churned), f"Churn within {config.churn_days:g} days"
        )
        mlflow.log_figure(figure, "plots/churn-calibration.png")
        text = report.card(
            f"Churn and value of {config.retailer}",
            f"For each customer the probability of no purchase until each of {len(survival.EDGES)} days, and the "
            f"spend expected within {config.window_days:g} days.",
            {
                "Churn": "discrete-time hazard network (Gensheimer and Narasimhan 2019)",
                "Value": "zero-inflated lognormal network (Wang, Liu and Miao 2019)",
                "Learned from": f"purchases before {config.train_until:%Y-%m-%d}, at cuts every two weeks",
                "Judged on": f"{len(judged)} customers from {config.evaluate_from:%Y-%m-%d} on, {config.window_days:g} days",
                "Shoppers": "simulated" if config.simulated else "real",
                "Lake": f"events {version}", "Code": tracking.code_version(),
            },
            numbers,
            [
                "A customer without a purchase before the moment has no features and gets no answer.",
                "It has seen one stretch of time: a season it has not seen is not expected.",
                "Expected spend is a mean; most customers spend less, a few much more.",
            ],
        )  # fmt: skip
        uri = log_results(staged, {"churn": "churn.onnx", "value": "value.onnx"}, numbers, text)
        record = Record(
            family="customers", run_id=run.info.run_id, model_uri=uri, metrics=flat(numbers),
            config=msgspec.to_builtins(config),
            files={"churn": "churn.onnx", "value": "value.onnx", "card": "model_card.md", "predictions": "predictions.npz",
                   "expectations": EXPECTATIONS},
            details={"features": list(FEATURES), "edges": list(hazards.edges)},
            lake={"events": version},
        )  # fmt: skip
        return finish(config, staged, record)


def train_intent(config: IntentConfig, progress: Progress = lambda line: None) -> Record:
    """Train intent, judge it on sessions held out, export, log.

    Raises:
        ConfigError: The sessions cannot be read or learned from.
        ParityError: The exported graph and the trees disagree.
    """
    if config.held_out < 2:
        raise ConfigError(
            f"`$.held_out` is {config.held_out}; expected at least 2 folds, of which one is judged"
        )
    staged = stage(config.out)
    path = pathlib.Path(config.sessions)
    with tracking.start(config) as run:
        try:
            X, bought = read_sessions(path, config.outcome)
            groups = intent.same_rows(X)
            held = intent.folds_of(bought, groups, config.held_out, config.seed) == 0
            params = msgspec.structs.replace(config.params, threads=config.threads)
            model = intent.fit(X[~held], bought[~held], groups[~held], params, config.seed)
            chance = model.predict(X[held])
            drawn = measures.paired_bootstrap(
                measures.auc, {"auc": chance}, bought[held], config.resamples, config.seed
            )
            reliability = measures.reliability(chance, bought[held])
        except ValueError as error:
            raise ConfigError(f"`$.sessions`: {error}") from error
        tracking.log_dataset("sessions", source=path, digest=_digest(path), context="train")
        export.export_intent(model, staged / "intent.onnx")
        gap = export.check_parity(staged / "intent.onnx", "probability", model.predict, X[held])
        numbers = {
            "auc": measures.interval_of(drawn["auc"]),
            "calibration_error": Interval(*(reliability.error,) * 3),
            "onnx_largest_difference": Interval(gap, gap, gap),
        }
        progress(f"intent: AUC {numbers['auc'].value:.4f}, calibration error {reliability.error:.4f}")
        mlflow.log_figure(
            report.calibration_figure(reliability, "Purchase in the session"), "plots/calibration.png"
        )
        text = report.card(
            f"Purchase intent of {config.retailer}",
            "The probability that a session ends in a purchase.",
            {
                "Method": "gradient-boosted trees, cross-fitted, with Platt scaling of out-of-fold log-odds",
                "Learned from": f"{int((~held).sum())} sessions of {path.name}",
                "Judged on": f"{int(held.sum())} sessions held out; equal sessions are on one side",
                "Shoppers": "simulated" if config.simulated else "real", "Code": tracking.code_version(),
            },
            numbers,
            [
                "It reads a whole session; asked early in one, its counts are still low and so are its answers.",
                "PageValues must be computed from the past only, or it tells the outcome.",
            ],
        )  # fmt: skip
        uri = log_results(staged, {"intent": "intent.onnx"}, numbers, text)
        record = Record(
            family="intent", run_id=run.info.run_id, model_uri=uri, metrics=flat(numbers),
            config=msgspec.to_builtins(config), files={"intent": "intent.onnx", "card": "model_card.md"},
            details={"features": list(intent.FEATURES), "slope": model.slope, "intercept": model.intercept}, lake={},
        )  # fmt: skip
        return finish(config, staged, record)


def _days(at: dt.datetime) -> float:
    return (at - EPOCH) / dt.timedelta(days=1)


def _digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
