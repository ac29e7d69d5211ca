"""Training of purchase intent in the session that is under way, from the shop's own sessions.

One row is one act of a session before its first purchase; the label is whether a purchase follows in the same session.
Features are those that the live server computes too (`contracts.needs.need_features`), so the exported graph reads
there exactly what it learned from here. Sessions before ``train_until`` are learned from, those from ``evaluate_from``
on are judged. A shop whose every session is a purchase (a till) has no intent to learn and says so.

Belongs here: config, rows, protocol, what is logged. Does not belong here: trees and calibration (`intent.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import mlflow
import msgspec
import numpy as np
import numpy.typing as npt

from contracts.moments import MomentRules
from contracts.needs import FEATURES, need_features
from contracts.sessions import ACTION
from contracts.settings import read_settings
from feature_repo.snapshots import attach, connect
from feature_repo.streams import NEEDED, stream_of
from training import tracking
from training.config import Count, Positive, TrainingConfig, stage
from training.relationship import export, intent, measures, report
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

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Progress = Callable[[str], None]

DAY_US = 86_400_000_000
LEAST = 100
"""Fewest sessions with and without a purchase, in each part, that intent is learned from."""


class SessionsConfig(TrainingConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Config of ``python -m training.relationship sessions``.

    Attributes:
        acts: At most so many acts of one session are learned from and judged, drawn at random.
        sessions: At most so many sessions are learned from, the latest.
        resamples: Of the bootstrap over sessions.
        params: The trees.
    """

    acts: Positive = 3
    sessions: Count = 30_000
    resamples: Positive = 200
    params: intent.IntentParams = intent.IntentParams(trees=150, min_leaf=60)


@dataclasses.dataclass(frozen=True, eq=False)
class Acts:
    """Acts before the first purchase of their session.

    Attributes:
        X: float64[M, F], `contracts.needs.FEATURES`.
        session: int64[M], number of the session.
        person: int64[M], number of the person.
        at_us: int64[M], when the act was.
        start_us: int64[M], when its session began.
        buys: bool[M], whether a purchase follows in the session.
        action: int64[M], index in ACTIONS.
        latest: bool[M], the last act of the session that is not after a purchase.
    """

    X: Floats
    session: Ints
    person: Ints
    at_us: Ints
    start_us: Ints
    buys: Flags
    action: Ints
    latest: Flags

    def __len__(self) -> int:
        return len(self.session)

    def select(self, keep: Any) -> Acts:
        """Some of them."""
        return Acts(*(getattr(self, field.name)[keep] for field in dataclasses.fields(self)))


def acts_of(stream: Any, rules: MomentRules) -> Acts:
    """The acts of a `contracts.sessions.Stream`."""
    rows, X, cut = need_features(stream, rules, np)
    number = cut.of_event[rows]
    bought = stream.action[rows] == ACTION["purchase"]
    place = np.arange(len(rows))
    first = np.full(len(cut), len(rows), np.int64)
    np.minimum.at(first, number[bought], place[bought])
    keep = place < first[number]
    kept = number[keep]
    latest = np.append(kept[1:] != kept[:-1], True)[: len(kept)]
    return Acts(
        X[keep], kept, stream.person[rows][keep], stream.at_us[rows][keep], cut.start_us[kept],
        (first < len(rows))[kept], stream.action[rows][keep].astype(np.int64), latest,
    )  # fmt: skip


def train(config: SessionsConfig, progress: Progress = lambda line: None) -> Record:
    """Learn intent, judge it on later sessions, export, say it of everybody's latest session.

    Raises:
        SnapshotError: The lake lacks events or identities.
        ParityError: The exported graph and the trees disagree.
    """
    staged = stage(config.out)
    settings = read_settings({"CONTINUUM_HOME": config.home, "RETAILER": config.retailer})
    known, test, until = (
        round(days_of(at) * DAY_US)
        for at in (config.train_until, config.evaluate_from, config.evaluate_until)
    )
    with tracking.start(config) as run:
        versions, stream, names, logins = read_stream(settings, config.threads)
        acts = acts_of(stream, MomentRules())
        early = _some(acts.select(acts.start_us < known), config, config.sessions)
        late = _some(acts.select((acts.start_us >= test) & (acts.start_us < until)), config, 0)
        few = min(_rarer(early), _rarer(late))
        if few < LEAST:
            reason = (
                f"{few} sessions end with, or without, a purchase in the smaller part; expected at least {LEAST}: "
                "a till's sessions are all purchases and hold no intent to learn"
            )
            return nothing(config, staged, run.info.run_id, "sessions", reason)
        params = msgspec.structs.replace(config.params, threads=config.threads)
        model = intent.fit(early.X, early.buys, early.session, params, config.seed)
        progress(f"learned from {len(early)} acts of {len(np.unique(early.session))} sessions")
        chance = model.predict(late.X)
        base = _by_last_action(early, late)
        numbers = judge(chance, base, late, config)
        export.export_intent(model, staged / "intent.onnx")
        numbers["onnx_largest_difference"] = exact(
            export.check_parity(staged / "intent.onnx", "probability", model.predict, late.X[:2000])
        )
        reliability = measures.reliability(chance, late.buys.astype(np.float64))
        progress(
            f"AUC {numbers['auc'].value:.4f} (last action alone {numbers['auc_last_action_baseline'].value:.4f})"
        )
        mlflow.log_figure(
            report.calibration_figure(reliability, "A purchase follows"), "plots/calibration.png"
        )
        _publish(staged / EXPECTATIONS, acts.select(acts.at_us < until), model, names, logins, until)
        text = report.card(
            f"Purchase intent in a session at {config.retailer}",
            "After each act of a session, the probability that a purchase follows in it.",
            {
                "Method": "gradient-boosted trees, cross-fitted by session, with Platt scaling of out-of-fold log-odds",
                "Learned from": f"{len(early)} acts of {len(np.unique(early.session))} sessions before "
                f"{config.train_until:%Y-%m-%d}",
                "Judged on": f"{len(late)} acts of {len(np.unique(late.session))} sessions from "
                f"{config.evaluate_from:%Y-%m-%d} on",
                "Baseline": "the share of purchases after the same last action",
                "Shoppers": "simulated" if config.simulated else "real", "Code": tracking.code_version(),
            },
            numbers,
            [
                "It is about the session under way; after a pause of half an hour there is none.",
                "In a store only what the till or a kiosk sees is known, so most of its sessions begin with the purchase.",
            ],
        )  # fmt: skip
        uri = log_results(staged, {"intent": "intent.onnx"}, numbers, text)
        record = Record(
            family="sessions", run_id=run.info.run_id, model_uri=uri, metrics=flat(numbers),
            config=msgspec.to_builtins(config),
            files={"intent": "intent.onnx", "card": "model_card.md", "expectations": EXPECTATIONS},
            details={"features": list(FEATURES), "slope": model.slope, "intercept": model.intercept}, lake=versions,
        )  # fmt: skip
        return finish(config, staged, record)


def judge(chance: Floats, base: Floats, late: Acts, config: SessionsConfig) -> dict[str, Any]:
    """AUC beside the baseline (bootstrap over sessions), at the first act, and calibration."""
    happened = late.buys.astype(np.float64)
    _, cluster = np.unique(late.session, return_inverse=True)
    size, rng = int(cluster.max()) + 1, np.random.default_rng(config.seed)
    by_session = np.argsort(cluster, kind="stable")
    starts = np.searchsorted(cluster[by_session], np.arange(size + 1))
    drawn: dict[str, list[float]] = {"model": [], "base": []}
    for draw in range(config.resamples + 1):
        rows = np.arange(len(late))
        if draw:
            picked = rng.integers(0, size, size)
            rows = np.concatenate([by_session[starts[p] : starts[p + 1]] for p in picked])
        drawn["model"].append(measures.auc(chance[rows], happened[rows]))
        drawn["base"].append(measures.auc(base[rows], happened[rows]))
    model, plain = np.array(drawn["model"]), np.array(drawn["base"])
    numbers = {
        "auc": measures.interval_of(model),
        "auc_last_action_baseline": measures.interval_of(plain),
        "auc_gain": measures.interval_of(model - plain),
        "calibration_error": exact(measures.reliability(chance, happened).error),
        "buying_share": exact(float(happened.mean())),
    }
    first = late.X[:, FEATURES.index("acts")] < 0.7  # log1p(1) = 0.693
    if 0 < happened[first].sum() < first.sum():
        numbers["auc_after_first_act"] = exact(measures.auc(chance[first], happened[first]))
    return numbers


def read_stream(
    settings: Any, threads: int
) -> tuple[dict[str, int], Any, npt.NDArray[np.str_], dict[str, list[str]]]:
    """Everybody's events as one stream, the names of its persons, and the logins of each."""
    con = connect("2GB", threads)
    tables = ("events", "identity_events", "identity_links")
    versions = {name: attach(con, name, settings.lake / name) for name in tables}
    columns = ", ".join(f"e.{name}" for name in NEEDED)
    events = con.sql(
        f"""select {columns}, p.person_id from events e join identity_events p using (source, event_id)
        where p.person_id is not null"""
    ).to_arrow_table()
    rows = con.sql(
        """select person_id, value from identity_links
        where kind = 'customer' and state = 'linked' and person_id is not null order by value"""
    ).fetchall()
    logins: dict[str, list[str]] = {}
    for person, customer in rows:
        logins.setdefault(person, []).append(customer)
    lake = stream_of(events, MomentRules(), "person_id")
    return versions, lake.stream, np.array(lake.people.to_pylist(), np.str_), logins


def _some(acts: Acts, config: SessionsConfig, sessions: int) -> Acts:
    """At most so many acts of each session, and at most so many sessions, the latest."""
    order = np.lexsort((np.random.default_rng(config.seed).random(len(acts)), acts.session))
    number = acts.session[order]
    rank = np.arange(len(order)) - np.searchsorted(number, number, side="left")
    kept = np.sort(order[rank < config.acts])
    found = acts.select(kept)
    if sessions and len(found):
        starts = np.unique(np.stack([found.start_us, found.session], 1), axis=0)[:, 0]
        found = found.select(found.start_us >= starts[max(0, len(starts) - sessions)])
    return found


def _rarer(acts: Acts) -> int:
    buying = len(np.unique(acts.session[acts.buys]))
    return min(buying, len(np.unique(acts.session)) - buying)


def _by_last_action(early: Acts, late: Acts) -> Floats:
    size = len(ACTION)
    number = np.bincount(early.action, minlength=size)
    bought = np.bincount(early.action, early.buys, minlength=size)
    overall = early.buys.mean()
    return ((bought + overall) / (number + 1))[late.action]


def _publish(
    path: Any,
    acts: Acts,
    model: intent.Intent,
    names: npt.NDArray[np.str_],
    logins: dict[str, list[str]],
    until: int,
) -> None:
    """What each customer's latest session looked like after its last act before a purchase."""
    last = acts.select(acts.latest)
    order = np.lexsort((last.at_us, last.person))
    ends = order[np.append(np.diff(last.person[order]) != 0, True)[: len(order)]]
    chance = model.predict(last.X[ends]) if len(ends) else np.zeros(0)
    rows = [
        (customer, chance[place], last.at_us[row])
        for place, row in enumerate(ends.tolist())
        for customer in logins.get(str(names[last.person[row]]), [])
    ]
    rows.sort()
    np.savez_compressed(
        path, customers=np.array([row[0] for row in rows], np.str_),
        intent=np.array([row[1] for row in rows], np.float32), seen_us=np.array([row[2] for row in rows], np.int64),
        as_of_us=until,
    )  # fmt: skip
