"""Training of uplift from a trial: one contact against none, from a table of customers to a bundle.

Belongs here: the config, the order of the steps, what is logged. Does not belong here: learners (`uplift.py`).
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import hashlib
import pathlib
from collections.abc import Callable

import mlflow
import msgspec
import numpy as np
import numpy.typing as npt

from training import tracking
from training.config import ConfigError, Positive, Text, TrainingConfig, stage
from training.evaluation.statistics import Interval
from training.relationship import measures, qini, report, uplift
from training.relationship.bundle import Record, finish, flat, log_results

Floats = npt.NDArray[np.float64]
Progress = Callable[[str], None]


class UpliftConfig(TrainingConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Config of ``python -m training.relationship uplift``.

    Attributes:
        trial: CSV file (optionally gzip), one row per customer.
        arm: Column that says what a customer got.
        contact: Its value for the contact.
        control: Its value for no contact; rows of other arms are left out.
        outcome: Column with the outcome, a number.
        numbers: Columns read as numbers, known before the contact.
        categories: Columns read as texts, one feature per value.
        held_out: The first of so many folds is judged on and never learned or chosen from.
        resamples: Of the bootstrap.
        params: The trees.
    """

    trial: Text
    arm: Text
    contact: Text
    control: Text
    outcome: Text
    numbers: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    held_out: Positive = 4
    resamples: Positive = 500
    params: uplift.UpliftParams = uplift.UpliftParams()


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """A table of a trial.

    Attributes:
        X: float64[C, F].
        features: Names of its columns, ``column=value`` for categories.
        treated: bool[C].
        outcome: float64[C].
    """

    X: Floats
    features: tuple[str, ...]
    treated: npt.NDArray[np.bool_]
    outcome: Floats


def read_trial(config: UpliftConfig) -> Trial:
    """Read the two arms.

    Raises:
        ConfigError: The file or a column is missing, an arm is empty, or a value is no number; the message names
            the column.
    """
    path = pathlib.Path(config.trial)
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            known = reader.fieldnames or []
            for name in (config.arm, config.outcome, *config.numbers, *config.categories):
                if name not in known:
                    raise ConfigError(f"column '{name}' is missing in {path.name}; it has {', '.join(known)}")
            rows = [row for row in reader if row[config.arm] in (config.contact, config.control)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(
            f"`$.trial`: {path.name} cannot be read: {error}; expected a CSV file in UTF-8"
        ) from error
    if late := {config.arm, config.outcome} & {*config.numbers, *config.categories}:
        raise ConfigError(f"column '{min(late)}' is no feature: it is the arm or the outcome")
    if not config.numbers and not config.categories:
        raise ConfigError("`$.numbers` and `$.categories` are empty; expected some features")
    treated = np.array([row[config.arm] == config.contact for row in rows])
    for key, count in (("contact", int(treated.sum())), ("control", int((~treated).sum()))):
        if not count:
            raise ConfigError(f"`$.{key}`: no row of {path.name} has {config.arm} '{getattr(config, key)}'")
    columns, names = [], []
    for name in config.numbers:
        columns.append(_numbers(rows, name, gaps=True))
        names.append(name)
    for name in config.categories:
        for value in sorted({row[name] for row in rows}):
            columns.append(np.array([float(row[name] == value) for row in rows]))
            names.append(f"{name}={value}")
    return Trial(np.column_stack(columns), tuple(names), treated, _numbers(rows, config.outcome, gaps=False))


def _numbers(rows: list[dict[str, str]], name: str, gaps: bool) -> Floats:
    found = np.empty(len(rows))
    for place, row in enumerate(rows):
        text = row[name]
        try:
            found[place] = np.nan if gaps and text == "" else float(text)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"column '{name}' holds '{text}' in row {place + 1}; expected a number"
            ) from error
    return found


def train(config: UpliftConfig, progress: Progress = lambda line: None) -> Record:
    """Choose a learner on folds inside the learning part, fit it there, judge it on the part held out.

    Raises:
        ConfigError: The trial cannot be read or learned from.
    """
    if config.held_out < 2:
        raise ConfigError(
            f"`$.held_out` is {config.held_out}; expected at least 2 folds, of which one is judged"
        )
    trial = read_trial(config)
    params = msgspec.structs.replace(config.params, threads=config.threads)
    staged = stage(config.out)
    with tracking.start(config) as run:
        try:
            judged = uplift.split(trial.treated, trial.outcome, config.held_out, config.seed) == 0
            rest = ~judged
            learning = trial.X[rest], trial.treated[rest], trial.outcome[rest]
            chosen, inside = uplift.choose(*learning, params=params, seed=config.seed)
            progress(f"chosen: {chosen}, Qini inside {inside[chosen]:.5f}")
            model = uplift.fit(chosen, *learning, params=params, seed=config.seed)
            score = model.predict(trial.X[judged])
            arm, outcome = trial.treated[judged], trial.outcome[judged]
            drawn = qini.resampled_qini(
                {"qini": [score]}, [np.arange(len(score))], arm, outcome, config.resamples, config.seed
            )
        except ValueError as error:
            raise ConfigError(f"`$.trial`: {error}") from error
        path = pathlib.Path(config.trial)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        tracking.log_dataset("trial", source=path, digest=digest, context="train")
        curve = qini.qini_curve(score, arm, outcome)
        average = float(outcome[arm].mean() - outcome[~arm].mean())
        numbers = {
            "qini": measures.interval_of(drawn["qini"]),
            "average_effect": Interval(average, average, average),
            **{f"inner_qini_{name}": Interval(value, value, value) for name, value in inside.items()},
        }
        mlflow.log_figure(
            report.qini_figure(curve, f"{config.contact} against {config.control}"), "plots/qini.png"
        )
        text = report.card(
            f"Uplift of {config.contact} at {config.retailer}",
            f"For each customer the change of {config.outcome} that a contact makes.",
            {
                "Method": f"learner {chosen}, chosen by Qini on three folds of the learning part",
                "Learned from": f"{int(rest.sum())} customers of a trial with {len(trial.features)} features",
                "Judged on": f"{int(judged.sum())} customers held out",
                "Qini": "area between curve and straight line, in outcomes per treated customer",
                "Shoppers": "simulated" if config.simulated else "real", "Code": tracking.code_version(),
            },
            numbers,
            [
                "It holds where contacts were given at random, as in the trial; elsewhere it is confounded.",
                "An interval that reaches 0 means: nobody knows whom to contact, only whether to contact all.",
                "Effects of other contacts, or of the same one sent more often, are not in it.",
            ],
        )  # fmt: skip
        (staged / "uplift.json").write_bytes(
            msgspec.json.encode({"features": trial.features, "effect": model.to_dict()})
        )
        mlflow.log_artifact(str(staged / "uplift.json"))
        uri = log_results(staged, {}, numbers, text)
        progress(f"Qini {curve.coefficient:.5f} on {int(judged.sum())} customers held out")
        record = Record(
            family="uplift", run_id=run.info.run_id, model_uri=uri, metrics=flat(numbers),
            config=msgspec.to_builtins(config), files={"uplift": "uplift.json", "card": "model_card.md"},
            details={"features": list(trial.features), "learner": chosen}, lake={},
        )  # fmt: skip
        return finish(config, staged, record)
