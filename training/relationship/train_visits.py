"""Training of the next visit: when it comes, over which channel, and what it is about.

When: the survival curve of `survival.py` over visits (any visit, not only purchases). Where and what: boosted trees on
`behaviour.FEATURES`, one class per channel or kind, learned from the next visit after earlier moments, calibrated by
temperature on the latest moments before ``train_until`` and judged on the moment ``evaluate_from``. Beside each stand
honest baselines: the share of all next visits, the customer's last one, and the customer's own shares so far.

Belongs here: config, protocol, what is logged. Does not belong here: features (`behaviour.py`), curves (`survival.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import lightgbm as lgb
import mlflow
import msgspec
import numpy as np
import numpy.typing as npt
import torch
from scipy import optimize

from contracts.events import CHANNELS
from contracts.settings import read_settings
from training import tracking
from training.config import ConfigError, Positive, Rate, TrainingConfig, stage
from training.evaluation.statistics import Interval
from training.relationship import behaviour as people
from training.relationship import cuts, export, learn, measures, report, survival
from training.relationship.behaviour import FEATURES, KINDS, Behaviour, features, known
from training.relationship.bundle import EXPECTATIONS, Record, days_of, exact, finish, flat, log_results
from training.relationship.network import NetworkParams
from training.relationship.summaries import Visits, make_visits
from training.relationship.summaries import features as visit_features

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Progress = Callable[[str], None]

STEP = 14.0
"""Days between the moments that are learned from."""
WARM_UP = 42.0
FLOOR = 1e-6
PRIOR = 3.0
"""Visits of the shop at large that a customer's own shares start with (the baseline)."""
LEAST_SHARE = 0.002
"""Classes rarer than this among the next visits that are learned from are told as ``other``."""


class VisitsConfig(TrainingConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Config of ``python -m training.relationship visits``.

    Attributes:
        horizon_days: A next visit later than this after a moment is not looked for; at most the survival curve's end.
        within_days: Chance of a visit within so many days is judged and published.
        moments: At most so many moments are learned from, the latest.
        trees: Of each class.
        leaves: Of each tree.
        learning_rate: Shrinkage.
        min_leaf: Fewest customers in a leaf.
        resamples: Of the bootstrap over customers.
        params: Of the survival network.
    """

    horizon_days: Rate = 28.0
    within_days: Rate = 7.0
    moments: Positive = 12
    trees: Positive = 80
    leaves: Positive = 8
    learning_rate: Rate = 0.06
    min_leaf: Positive = 40
    resamples: Positive = 300
    params: NetworkParams = NetworkParams()


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Customers at moments, with the first visit that followed.

    Attributes:
        person: int64[M].
        X: float64[M, F].
        channel: int64[M], index in CHANNELS of the next visit.
        kind: int64[M], index in KINDS of it.
    """

    person: Ints
    X: Floats
    channel: Ints
    kind: Ints


@dataclasses.dataclass(frozen=True, eq=False)
class Classes:
    """A calibrated classifier.

    Attributes:
        names: Classes, the last may be ``other``.
        codes: Code of each class (of CHANNELS or KINDS), -1 for other.
        booster: The trees, or None where only one class occurs.
        temperature: Divides the trees' scores.
    """

    names: tuple[str, ...]
    codes: tuple[int, ...]
    booster: lgb.Booster | None
    temperature: float

    def predict(self, X: Floats) -> Floats:
        """float64[M, K], rows sum to 1."""
        if self.booster is None:
            return np.ones((len(X), 1))
        return _softmax(np.asarray(self.booster.predict(X, raw_score=True)) / self.temperature)

    def place(self, code: Ints) -> Ints:
        """Place of each code among the classes."""
        known_codes = np.array(self.codes)
        other = self.codes.index(-1) if -1 in self.codes else -1
        found = np.argmax(code[:, None] == known_codes, axis=1)
        return np.where((code[:, None] == known_codes).any(axis=1), found, other)


def moments_at(behaviour: Behaviour, moments: Floats, horizon: float) -> Moments:
    """Everybody known at each moment who came again within the horizon, and how.

    Args:
        behaviour: Everybody; visits after the last horizon are not read.
        moments: Days since 1970.
        horizon: Days.
    """
    parts: list[tuple[Any, ...]] = []
    visits = behaviour.visits
    for cut in moments:
        later = visits.select((visits.at >= cut) & (visits.at < cut + horizon))
        who, first = np.unique(later.person, return_index=True)
        keep = known(behaviour, float(cut))[who]
        who, first = who[keep], first[keep]
        X = features(behaviour, float(cut))[who]
        parts.append((who, X, later.channel[first], later.kind[first]))
    return Moments(*(np.concatenate([part[place] for part in parts]) for place in range(4)))


def visits_of(behaviour: Behaviour) -> Visits:
    """Visits in the form that `survival.py` learns from; every person counts under their place."""
    log = behaviour.visits
    return make_visits(behaviour.people[log.person], log.at, log.money, log.kind + 1.0)


def fit_classes(
    rows: Moments, labels: Ints, names: tuple[str, ...], held: npt.NDArray[np.bool_], config: VisitsConfig
) -> Classes:
    """Trees on some moments, temperature on the held ones."""
    counts = np.bincount(labels[~held], minlength=len(names)) / max(1, int((~held).sum()))
    codes = [code for code in range(len(names)) if counts[code] >= LEAST_SHARE]
    rare = bool((counts[[c for c in range(len(names)) if c not in codes]] > 0).any()) or bool(
        (~np.isin(labels, codes)).any()
    )
    titles = [names[code] for code in codes] + (["other"] if rare else [])
    codes += [-1] if rare else []
    classes = Classes(tuple(titles), tuple(codes), None, 1.0)
    y = classes.place(labels)
    if len(titles) < 2 or len(np.unique(y[~held])) < 2:
        return classes
    booster = lgb.train(
        {
            "objective": "multiclass", "num_class": len(titles), "num_leaves": config.leaves,
            "learning_rate": config.learning_rate, "min_data_in_leaf": config.min_leaf, "lambda_l2": 5.0,
            "feature_fraction": 0.6, "num_threads": config.threads, "seed": config.seed, "deterministic": True,
            "force_row_wise": True, "verbosity": -1,
        },
        lgb.Dataset(rows.X[~held], y[~held]), num_boost_round=config.trees,
    )  # fmt: skip
    score = np.asarray(booster.predict(rows.X[held], raw_score=True))
    best = optimize.minimize_scalar(
        lambda t: log_loss(_softmax(score / t), y[held]), bounds=(0.3, 5.0), method="bounded"
    )
    return dataclasses.replace(classes, booster=booster, temperature=float(best.x))


def train(config: VisitsConfig, progress: Progress = lambda line: None) -> Record:
    """Learn when, where and what; judge; say it of every customer.

    Raises:
        ConfigError: Times do not fit, or there is too little history.
        SnapshotError: The lake lacks events, identities, sessions or moments.
    """
    torch.set_num_threads(config.threads)
    if not config.within_days <= config.horizon_days <= survival.EDGES[-1]:
        raise ConfigError(
            f"`$.horizon_days` is {config.horizon_days:g}; expected within_days ({config.within_days:g}) to "
            f"{survival.EDGES[-1]:g}, the end of the survival curve"
        )
    known_at, test, until = (
        days_of(at) for at in (config.train_until, config.evaluate_from, config.evaluate_until)
    )
    if until - test < config.horizon_days:
        raise ConfigError(
            f"`$.evaluate_until` is {until - test:.0f} days after evaluate_from; expected at least "
            f"horizon_days ({config.horizon_days:g})"
        )
    staged = stage(config.out)
    settings = read_settings({"CONTINUUM_HOME": config.home, "RETAILER": config.retailer})
    with tracking.start(config) as run:
        versions, everybody = people.read_behaviour(settings, config.threads)
        visits = visits_of(everybody)
        try:
            moments = cuts.learning_cuts(float(visits.at.min()), known_at, config.horizon_days, STEP, WARM_UP)
            hazards = learn.learn_survival(visits, known_at, config.params, config.seed)
            judged_when = cuts.rows_at(visits, np.array([test]), config.horizon_days, until)
        except ValueError as error:
            raise ConfigError(f"{config.retailer}: {error}") from error
        progress(f"when: {len(hazards.curve)} epochs")
        chosen = moments[-config.moments :]
        rows = moments_at(everybody, chosen, config.horizon_days)
        held = np.isin(np.arange(len(rows.person)), _of_last(everybody, chosen, config.horizon_days))
        judged = moments_at(everybody, np.array([test]), config.horizon_days)
        channels = fit_classes(rows, rows.channel, CHANNELS, held, config)
        kinds = fit_classes(rows, rows.kind, KINDS, held, config)
        numbers = judge_when(hazards, judged_when, config)
        numbers |= judge_classes(
            "channel", channels, judged, judged.channel, "on_", "since_", rows.channel, config
        )
        numbers |= judge_classes("action", kinds, judged, judged.kind, "did_", "", rows.kind, config)
        progress(
            f"channel: log loss {numbers['channel_log_loss'].value:.4f} (own shares "
            f"{numbers['channel_log_loss_own_shares'].value:.4f}); action: {numbers['action_log_loss'].value:.4f} "
            f"({numbers['action_log_loss_own_shares'].value:.4f})"
        )
        size = len(visits.customers)
        export.export_head(hazards.head, len(learn.FEATURES), "survival", staged / "visit.onnx")
        gap = export.check_parity(
            staged / "visit.onnx", "survival", hazards.survival, judged_when.features[:500]
        )
        numbers["onnx_largest_difference"] = exact(gap)
        _publish(staged / EXPECTATIONS, everybody, visits, hazards, channels, kinds, until, config)
        for name, classes, code in (("channel", channels, judged.channel), ("action", kinds, judged.kind)):
            top = classes.predict(judged.X)
            mlflow.log_figure(
                _calibration(top, classes.place(code), f"Next {name}"), f"plots/{name}-calibration.png"
            )
        soon = 1 - hazards.churn(judged_when.features, config.within_days)
        came = (judged_when.days < config.within_days).astype(np.float64)
        mlflow.log_figure(
            report.calibration_figure(
                measures.reliability(soon, came), f"A visit within {config.within_days:g} days"
            ),
            "plots/visit-calibration.png",
        )
        text = report.card(
            f"Next visit to {config.retailer}",
            "For each customer when they will come again, over which channel, and what for.",
            {
                "When": "discrete-time hazard network over visits",
                "Where and what": f"boosted trees, temperature {channels.temperature:.2f} and {kinds.temperature:.2f} "
                "set on the latest moments before the judged one",
                "Learned from": f"{len(rows.person)} next visits after {len(chosen)} moments before "
                f"{config.train_until:%Y-%m-%d}",
                "Judged on": f"{len(judged.person)} customers who came within {config.horizon_days:g} days from "
                f"{config.evaluate_from:%Y-%m-%d}; when: {size} customers",
                "Shoppers": "simulated" if config.simulated else "real", "Code": tracking.code_version(),
            },
            numbers,
            [
                "Channel and action are those of the next visit if there is one; whether there is, the curve says.",
                "A channel that the shop opens tomorrow is not among the answers.",
            ],
        )  # fmt: skip
        uri = log_results(staged, {"visit": "visit.onnx"}, numbers, text)
        for name, classes in (("channel", channels), ("action", kinds)):
            if classes.booster is not None:
                (staged / f"{name}.txt").write_text(classes.booster.model_to_string())
        record = Record(
            family="visits", run_id=run.info.run_id, model_uri=uri, metrics=flat(numbers),
            config=msgspec.to_builtins(config),
            files={"visit": "visit.onnx", "card": "model_card.md", "expectations": EXPECTATIONS},
            details={"features": list(FEATURES), "channels": list(channels.names), "actions": list(kinds.names),
                     "within_days": config.within_days, "horizon_days": config.horizon_days},
            lake=versions,
        )  # fmt: skip
        return finish(config, staged, record)


def judge_when(hazards: survival.Survival, judged: cuts.Rows, config: VisitsConfig) -> dict[str, Interval]:
    """AUC of a visit within some days beside recency and own rate, calibration, error of the median day."""
    soon = 1 - hazards.churn(judged.features, config.within_days)
    came = (judged.days < config.within_days).astype(np.float64)
    recency = -judged.features[:, learn.FEATURES.index("days_since_last")]
    rate = judged.features[:, learn.FEATURES.index("visits_half_56d")]
    drawn = measures.paired_bootstrap(
        measures.auc, {"model": soon, "recency": recency, "rate": rate}, came, config.resamples, config.seed
    )
    return {
        "visit_auc": measures.interval_of(drawn["model"]),
        "visit_auc_recency_baseline": measures.interval_of(drawn["recency"]),
        "visit_auc_rate_baseline": measures.interval_of(drawn["rate"]),
        "visit_auc_gain_over_rate": measures.interval_of(drawn["model"] - drawn["rate"]),
        "visit_calibration_error": exact(measures.reliability(soon, came).error),
        "visit_share": exact(float(came.mean())),
    }


def judge_classes(
    name: str,
    classes: Classes,
    judged: Moments,
    labels: Ints,
    own: str,
    since: str,
    learned: Ints,
    config: VisitsConfig,
) -> dict[str, Interval]:
    """Log loss and accuracy beside three baselines, with the gain over the best, and calibration of the top answer."""
    y = classes.place(labels)
    size = len(classes.names)
    overall = np.bincount(classes.place(learned), minlength=size) / len(learned)
    answers = {"": classes.predict(judged.X), "_all": np.tile(overall, (len(y), 1))}
    columns = [FEATURES.index(f"{own}{title}") if title != "other" else -1 for title in classes.names]
    shares = np.column_stack([judged.X[:, c] if c >= 0 else np.zeros(len(y)) for c in columns])
    weight = judged.X[:, FEATURES.index("visits_half")][:, None]
    answers["_own_shares"] = (shares * weight + PRIOR * overall) / (
        weight * shares.sum(1, keepdims=True) + PRIOR
    )
    if since:
        ago = np.column_stack(
            [
                judged.X[:, FEATURES.index(f"{since}{t}")] if t != "other" else np.full(len(y), np.nan)
                for t in classes.names
            ]
        )
        last = np.where(np.isfinite(ago), ago, np.inf).argmin(axis=1)
    else:
        last = classes.place(np.nan_to_num(judged.X[:, FEATURES.index("last_kind")]).astype(np.int64))
    found = {f"{name}_last_accuracy": exact(float((last == y).mean()))}
    losses = {
        key: -np.log(np.maximum(chance[np.arange(len(y)), y], FLOOR)) for key, chance in answers.items()
    }
    rng = np.random.default_rng(config.seed)
    picks = [np.arange(len(y)), *(rng.integers(0, len(y), len(y)) for _ in range(config.resamples))]
    means = {key: np.array([loss[pick].mean() for pick in picks]) for key, loss in losses.items()}
    for key in answers:
        found[f"{name}_log_loss{key}"] = measures.interval_of(means[key])
        hit = (answers[key].argmax(axis=1) == y).astype(np.float64)
        found[f"{name}_accuracy{key}"] = measures.interval_of(np.array([hit[pick].mean() for pick in picks]))
    best = np.minimum(means["_all"], means["_own_shares"])
    found[f"{name}_log_loss_gain"] = measures.interval_of(best - means[""])
    top = answers[""].max(axis=1)
    right = (answers[""].argmax(axis=1) == y).astype(np.float64)
    found[f"{name}_calibration_error"] = exact(measures.equal_width_error(top, right))
    return found


def log_loss(chance: Floats, label: Ints) -> float:
    """Mean negative log of the chance given to what happened."""
    return float(-np.log(np.maximum(chance[np.arange(len(label)), label], FLOOR)).mean())


def _of_last(behaviour: Behaviour, moments: Floats, horizon: float) -> Ints:
    """Rows of the latest moment among `moments_at`; they set the temperature."""
    sizes = [len(moments_at(behaviour, np.array([cut]), horizon).person) for cut in moments]
    return np.arange(sum(sizes[:-1]), sum(sizes))


def _publish(
    path: Any, everybody: Behaviour, visits: Visits, hazards: survival.Survival, channels: Classes, kinds: Classes,
    until: float, config: VisitsConfig,
) -> None:  # fmt: skip
    """Write what is expected of every customer who has visited."""
    who, table = visit_features(visits, until)
    seen = np.searchsorted(everybody.people, visits.customers[who])
    row = np.full(len(everybody.people), -1)
    row[seen] = np.arange(len(seen))
    of = row[everybody.person_of]
    keep = of >= 0
    X = features(everybody, until)[seen]
    soon = 1 - hazards.churn(table, config.within_days)
    np.savez_compressed(
        path, customers=everybody.customers[keep], as_of_us=int(until * 86_400_000_000),
        visit_days=expected_days(hazards, table)[of[keep]].astype(np.float32),
        visit_soon=soon[of[keep]].astype(np.float32), within_days=config.within_days,
        channel=channels.predict(X)[of[keep]].astype(np.float32), channels=np.array(channels.names),
        action=kinds.predict(X)[of[keep]].astype(np.float32), actions=np.array(kinds.names),
    )  # fmt: skip


def expected_days(hazards: survival.Survival, X: npt.ArrayLike) -> Floats:
    """float64[M]: the day by which a visit is as likely as not, between edges geometrically; infinite beyond the last."""
    survived = np.maximum(hazards.survival(X), 1e-12)
    log = np.column_stack([np.zeros(len(survived)), np.log(survived)])
    grid = np.concatenate([[0.0], hazards.edges])
    wanted = np.log(0.5)
    place = np.argmax(log <= wanted, axis=1)
    beyond = ~(log <= wanted).any(axis=1)
    before = np.maximum(place - 1, 0)
    row = np.arange(len(log))
    step = log[row, place] - log[row, before]
    share = np.where(step < 0, (wanted - log[row, before]) / np.where(step < 0, step, -1.0), 0.0)
    return np.where(beyond, np.inf, grid[before] + share * (grid[place] - grid[before]))


def _calibration(chance: Floats, label: Ints, title: str) -> Any:
    top = chance.max(axis=1)
    right = (chance.argmax(axis=1) == label).astype(np.float64)
    bins = min(measures.BINS, len(top))
    return report.calibration_figure(measures.reliability(np.minimum(top, 1.0), right, bins), title)


def _softmax(score: Floats) -> Floats:
    odds = np.exp(score - score.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True), np.float64)
