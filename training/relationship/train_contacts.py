"""Training of what a contact changes, per channel, from the shop's own trials in the lake.

Each channel with trials is learned on those whose outcome was known at ``train_until`` and judged on later ones; then it
is learned again on all of them and asked about every customer as of ``evaluate_until``. Published is the channel's
average and, around it, as much of the differences between customers as the judged part supports (`support.py`). A shop
without trials gets a record that says so.

Belongs here: config, protocol, what is logged. Does not belong here: rows (`trials.py`), learners (`uplift.py`).
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import mlflow
import msgspec
import numpy as np
import numpy.typing as npt

from contracts.settings import read_settings
from training import tracking
from training.config import Positive, Rate, TrainingConfig, stage
from training.evaluation.statistics import Interval
from training.relationship import behaviour as people
from training.relationship import odds, qini, report, support, uplift
from training.relationship.bundle import (
    EXPECTATIONS,
    Record,
    days_of,
    exact,
    finish,
    flat,
    log_results,
    nothing,
)
from training.relationship.measures import interval_of
from training.relationship.trials import Trials, read_trials

Floats = npt.NDArray[np.float64]
Progress = Callable[[str], None]
LEARNERS = ("odds", *uplift.SINGLE)
"""The simplest first: a more flexible one must be clearly better."""
FOLDS = 3
GROUPS = 5
"""Groups of predicted effect in which it is compared with the observed one."""


class ContactsConfig(TrainingConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Config of ``python -m training.relationship contacts``.

    Attributes:
        outcome_days: A visit within so many days after the contact counts.
        least: Fewest customers in the smaller arm of each part; channels with fewer are not learned.
        resamples: Of the bootstrap over customers.
        params: The trees.
    """

    outcome_days: Rate = 7.0
    least: Positive = 150
    resamples: Positive = 300
    params: uplift.UpliftParams = uplift.UpliftParams()


@dataclasses.dataclass(frozen=True, eq=False)
class Judged:
    """What the later trials say about one channel.

    Attributes:
        learner: The chosen one.
        slope: Of the observed on the predicted effect, and its standard error.
        numbers: By name, without the channel.
        curve: Qini curve.
        groups: Predicted effect, observed effect and customers of `GROUPS` groups, by rising prediction.
    """

    learner: str
    slope: tuple[float, float]
    numbers: dict[str, Interval]
    curve: qini.Curve
    groups: tuple[Floats, Floats, Floats]


def train(config: ContactsConfig, progress: Progress = lambda line: None) -> Record:
    """Learn every channel's effect and ask about every customer.

    Raises:
        SnapshotError: The lake lacks events, identities, sessions or moments.
    """
    staged = stage(config.out)
    settings = read_settings({"CONTINUUM_HOME": config.home, "RETAILER": config.retailer})
    known, until = days_of(config.train_until), days_of(config.evaluate_until)
    with tracking.start(config) as run:
        versions, everybody = people.read_behaviour(settings, config.threads)
        version, trials = read_trials(settings, everybody, until, config.outcome_days, config.threads)
        if not trials:
            reason = (
                "the shop has no contacts that were assigned at random: what a contact causes is not known"
            )
            return nothing(config, staged, run.info.run_id, "contacts", reason)
        versions["trials"] = version
        now = people.features(everybody, until)
        judged: dict[str, Judged] = {}
        left_out: dict[str, str] = {}
        raw: dict[str, Floats] = {}
        saved: dict[str, Any] = {}
        for channel, rows in trials.items():
            early, late = rows.select(rows.at + config.outcome_days <= known), rows.select(rows.at >= known)
            few = min(_smaller(early), _smaller(late))
            if few < config.least:
                left_out[channel] = f"{few} customers in the smaller arm; expected at least {config.least}"
                progress(f"{channel}: left out, {left_out[channel]}")
                continue
            judged[channel] = found = judge(early, late, channel, config)
            whole = fit(found.learner, rows, channel, _sized(config, rows), config.seed)
            raw[channel] = whole.predict(now) - float(whole.predict(rows.X).mean())
            saved[channel] = whole.to_dict()
            progress(
                f"{channel}: {found.learner}, Qini {found.numbers['qini'].value:.5f} from "
                f"{found.numbers['qini'].low:.5f}, slope {found.slope[0]:.2f} (error {found.slope[1]:.2f})"
            )
        if not judged:
            reason = "no channel has trials enough: " + "; ".join(f"{c}: {t}" for c, t in left_out.items())
            return nothing(config, staged, run.info.run_id, "contacts", reason)
        used = usable(judged)
        columns = {
            f"uplift_{channel}": (used[channel]["average"] + used[channel]["individual"] * differs)[
                everybody.person_of
            ].astype(np.float32)
            for channel, differs in raw.items()
        }
        numbers = {
            f"{channel}_{name}": value
            for channel, found in judged.items() for name, value in found.numbers.items()
        }  # fmt: skip
        np.savez_compressed(
            staged / EXPECTATIONS,
            customers=everybody.customers,
            as_of_us=int(until * 86_400_000_000),
            **columns,
        )
        (staged / "contacts.json").write_bytes(
            msgspec.json.encode({"features": people.FEATURES, "effects": saved})
        )
        mlflow.log_artifact(str(staged / "contacts.json"))
        for channel, found in judged.items():
            mlflow.log_figure(
                report.qini_figure(found.curve, f"A contact by {channel}"), f"plots/qini-{channel}.png"
            )
            mlflow.log_figure(
                report.effect_figure(*found.groups, title=f"Effect of {channel}"),
                f"plots/effect-{channel}.png",
            )
        told = "; ".join(
            f"{c}: learner {f.learner}, average {used[c]['average']:.4f}, {100 * used[c]['individual']:.0f} % of differences"
            for c, f in judged.items()
        )
        text = report.card(
            f"What a contact changes at {config.retailer}",
            f"For each customer and channel the change of the chance of a visit within {config.outcome_days:g} days.",
            {
                "Channels": told,
                "Left out": "; ".join(f"{c}: {t}" for c, t in left_out.items()) or "none",
                "Judged on": f"trials from {config.train_until:%Y-%m-%d} on, learned from those before",
                "Used": "averages shrunk towards one another, and differences between customers as far as later trials "
                "confirm them; learned again on all trials",
                "Shoppers": "simulated" if config.simulated else "real", "Code": tracking.code_version(),
            },
            numbers,
            [
                "It holds for the audiences of the trials; others are answered as if they were alike.",
                "It is about a visit, not about money; the value of a visit is put beside it where actions are chosen.",
            ],
        )  # fmt: skip
        log_results(staged, {}, numbers, text)
        record = Record(
            family="contacts", run_id=run.info.run_id, model_uri={}, metrics=flat(numbers),
            config=msgspec.to_builtins(config),
            files={"contacts": "contacts.json", "card": "model_card.md", "expectations": EXPECTATIONS},
            details={"features": list(people.FEATURES), "used": used, "left_out": left_out,
                     "learner": {c: f.learner for c, f in judged.items()}, "outcome_days": config.outcome_days},
            lake=versions,
        )  # fmt: skip
        return finish(config, staged, record)


def traits_of(channel: str) -> list[int]:
    """Columns of `behaviour.FEATURES` that may move the effect of a contact over a channel."""
    wanted = ["age", f"contacts_{channel}_28d", f"opened_{channel}"]
    return [people.FEATURES.index(name) for name in wanted if name in people.FEATURES]


def fit(
    learner: str, rows: Trials, channel: str, params: uplift.UpliftParams, seed: int
) -> uplift.Effect | odds.Odds:
    """Fit one of `LEARNERS`."""
    if learner == "odds":
        return odds.fit(rows.X, rows.treated, rows.outcome, traits_of(channel), rows.person, params, seed)
    name = next(name for name in uplift.SINGLE if name == learner)
    return uplift.fit(name, rows.X, rows.treated, rows.outcome, None, params, seed)


def choose(
    rows: Trials, channel: str, params: uplift.UpliftParams, seed: int
) -> tuple[str, dict[str, float]]:
    """The first of `LEARNERS` whose mean Qini on folds of customers lies within one standard error of the best.

    Returns:
        Its name, and the mean Qini by learner.
    """
    _, group = np.unique(rows.person, return_inverse=True)
    fold = (np.random.default_rng(seed).permutation(int(group.max()) + 1) % FOLDS)[group]
    values: dict[str, list[float]] = {name: [] for name in LEARNERS}
    for number in range(FOLDS):
        inside, outside = rows.select(fold == number), rows.select(fold != number)
        for name in LEARNERS:
            score = fit(name, outside, channel, params, seed).predict(inside.X)
            values[name].append(qini.qini(score, inside.treated, inside.outcome))
    means = {name: float(np.mean(each)) for name, each in values.items()}
    best = max(LEARNERS, key=lambda name: means[name])
    floor = means[best] - float(np.std(values[best], ddof=1)) / FOLDS**0.5
    return next(name for name in LEARNERS if means[name] >= floor), means


def judge(early: Trials, late: Trials, channel: str, config: ContactsConfig) -> Judged:
    """Choose a learner on earlier trials and see what it is worth on later ones."""
    params = _sized(config, early)
    learner, inner = choose(early, channel, params, config.seed)
    score = fit(learner, early, channel, params, config.seed).predict(late.X)
    active = late.X[:, people.FEATURES.index("visits_28d")]
    rng = np.random.default_rng(config.seed)
    drawn: dict[str, list[float]] = {
        name: [] for name in ("qini", "qini_most_active_baseline", "average_effect")
    }
    whole_average = []
    both = _joined(early, late)
    _, cluster = np.unique(late.person, return_inverse=True)
    _, of_both = np.unique(both.person, return_inverse=True)
    for draw in range(config.resamples + 1):
        weight = _weights(rng, cluster, draw)
        for name, by in (("qini", score), ("qini_most_active_baseline", active)):
            drawn[name].append(qini.qini(by, late.treated, late.outcome, weight))
        whole_average.append(_average(both, _weights(rng, of_both, draw)))
    numbers = {
        "qini": interval_of(np.array(drawn["qini"])),
        "qini_most_active_baseline": interval_of(np.array(drawn["qini_most_active_baseline"])),
        "qini_gain": interval_of(np.array(drawn["qini"]) - np.array(drawn["qini_most_active_baseline"])),
        "average_effect": interval_of(np.array(whole_average)),
    }
    numbers |= {f"inner_qini_{name}": exact(value) for name, value in inner.items()}
    groups = _groups(score, late)
    numbers["effect_calibration_error"] = exact(
        float(np.average(np.abs(groups[0] - groups[1]), weights=groups[2]))
    )
    slope = support.agreement(score, late.treated, late.outcome, _activity(late), late.person)
    if np.isfinite(slope[1]):
        reach = 1.96 * slope[1]
        numbers["slope"] = Interval(slope[0], slope[0] - reach, slope[0] + reach)
    return Judged(learner, slope, numbers, qini.qini_curve(score, late.treated, late.outcome), groups)


def usable(judged: dict[str, Judged]) -> dict[str, dict[str, float]]:
    """By channel the average to act upon, and the share of the differences between customers."""
    intervals = [found.numbers["average_effect"] for found in judged.values()]
    errors = [max((each.high - each.low) / (2 * 1.96), 1e-6) for each in intervals]
    averages = support.pooled([(each.value, error) for each, error in zip(intervals, errors, strict=True)])
    share = support.individual_share([found.slope for found in judged.values()])
    return {
        channel: {"average": average, "individual": share if np.isfinite(found.slope[1]) else 0.0}
        for (channel, found), average in zip(judged.items(), averages, strict=True)
    }


def _activity(rows: Trials) -> Floats:
    """What explains visits anyway, finite."""
    names = ("visits_28d", "visits_half", "visits_91d", "purchases_91d")
    counts = [np.log1p(rows.X[:, people.FEATURES.index(name)]) for name in names]
    since = np.nan_to_num(rows.X[:, people.FEATURES.index("days_since_visit")], nan=people.FAR)
    return np.column_stack([*counts, np.log1p(since)])


def _joined(early: Trials, late: Trials) -> Trials:
    pairs = ((getattr(early, f.name), getattr(late, f.name)) for f in dataclasses.fields(Trials))
    return Trials(*(np.concatenate(pair) for pair in pairs))


def _weights(rng: np.random.Generator, cluster: npt.NDArray[np.int64], draw: int) -> Floats:
    """How often each row counts when customers are drawn again; the first draw takes everybody once."""
    if draw == 0:
        return np.ones(len(cluster))
    size = int(cluster.max()) + 1
    return np.bincount(rng.integers(0, size, size), minlength=size)[cluster].astype(np.float64)


def _average(rows: Trials, weight: Floats) -> float:
    def mean(arm: npt.NDArray[np.bool_]) -> float:
        return float(np.average(rows.outcome[arm], weights=weight[arm] + 1e-12))

    return mean(rows.treated) - mean(~rows.treated)


def _groups(score: Floats, rows: Trials) -> tuple[Floats, Floats, Floats]:
    parts = np.array_split(np.argsort(score, kind="stable"), GROUPS)
    observed = []
    for part in parts:
        arm, y = rows.treated[part], rows.outcome[part]
        observed.append(y[arm].mean() - y[~arm].mean() if arm.any() and not arm.all() else np.nan)
    sizes = np.array([len(part) for part in parts], np.float64)
    predicted = np.array([score[part].mean() for part in parts])
    keep = np.isfinite(observed)
    return predicted[keep], np.array(observed)[keep], sizes[keep]


def _smaller(rows: Trials) -> int:
    return int(min(rows.treated.sum(), (~rows.treated).sum())) if len(rows) else 0


def _sized(config: ContactsConfig, rows: Trials) -> uplift.UpliftParams:
    """Leaves of small trials must be smaller, or no tree grows."""
    leaf = max(20, min(config.params.min_leaf, len(rows) // 50))
    return msgspec.structs.replace(config.params, threads=config.threads, min_leaf=leaf)


def read_effects(folder: pathlib.Path) -> dict[str, uplift.Effect | odds.Odds]:
    """The learned effects of a bundle by channel.

    Raises:
        OSError: The bundle holds none.
    """
    saved = msgspec.json.decode((folder / "contacts.json").read_bytes())
    return {
        channel: odds.odds_of(effect) if effect["learner"] == "odds" else uplift.effect_of(effect)
        for channel, effect in saved["effects"].items()
    }
