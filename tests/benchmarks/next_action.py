"""Next best actions on the atelier (simulated), judged by what each contact would truly cause.

The shop is played to a day, the lake is filled with what happened before it, all models of people are trained on that, and
everybody's next best action is chosen. What the simulator then knows of that morning gives the exact effect of any contact
on anybody's chance of a visit within seven days. A visit is worth the shop's margin of what this person truly spent per
visit in the 91 days that followed (the shop's mean where they did not come), which no policy could know.

All policies keep consent, reach, caps and quiet hours: whoever may not be contacted now over a channel is contacted
by none of them. Beside the chosen actions stand: nobody; everybody who may be, over the channel that the trials say
is worth most on average; as many at random; and the best that anybody could do who knew the truth.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from contracts.retailer import Retailer
from contracts.settings import Settings, read_retailer, read_settings

Floats = npt.NDArray[np.float64]
Progress = Callable[[str], None]

SEED = 31
FUTURE = 91
"""Days after the decision in which the worth of a visit is looked up."""
RANDOM_DRAWS = 200
RESAMPLES = 500


def run(quick: bool, progress: Progress) -> dict[str, Any]:
    """Play, train, choose, judge.

    Args:
        quick: A smaller and younger shop; its trials say little, so its numbers are not those of a shop.
        progress: Receives one line per stage.
    """
    shoppers, days = (900, 252) if quick else (4_000, 273)
    with tempfile.TemporaryDirectory(prefix="continuum-bench-") as folder:
        first = dt.date(2025, 1, 1)
        last = first + dt.timedelta(days=days - 1)
        home = pathlib.Path(folder)
        knobs = {"seed": SEED, "shoppers": shoppers, "days": days + FUTURE, "first_day": first.isoformat()}
        (home / "rehearsal").mkdir()
        (home / "mlflow").mkdir()
        (home / "rehearsal" / "atelier.json").write_text(json.dumps(knobs))
        environment = {
            "CONTINUUM_HOME": folder, "RETAILER": "atelier", "CONTINUUM_LAST_DAY": last.isoformat(),
            "MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow' / 'mlflow.db'}",
        }  # fmt: skip
        with mock.patch.dict(os.environ, environment):
            settings = read_settings()
            retailer = read_retailer(settings)
            used = _learn(settings, retailer, last, progress)
            measured = _judge(settings, retailer, knobs, days, progress)
    setup = {
        "data": "atelier (simulated)", "seed": SEED, "shoppers": shoppers, "days_of_history": days,
        "used_effects": ", ".join(f"{channel} {what}" for channel, what in sorted(used.items())),
    }  # fmt: skip
    return {"measured": measured, "setup": setup}


def _learn(settings: Settings, retailer: Retailer, last: dt.date, progress: Progress) -> dict[str, str]:
    """Fill the lake, train everything, predict; returns how far each channel's effects are used."""
    from orchestration.lake import ingest
    from orchestration.lake.people import store_identities, store_moments
    from orchestration.lake.predictions import store_predictions
    from orchestration.lake.trials import ingest_trials
    from orchestration.sources import Window, load
    from orchestration.training_jobs import finish_customers, finish_people, prepare_customers, prepare_people
    from training.config import read_config
    from training.relationship import train, train_contacts, train_segments, train_sessions, train_visits

    source = load(retailer.source, retailer, settings)
    window = Window(retailer.first_day, last, None, retailer.first_day)
    ingest.ingest_events(settings.lake, retailer.source, source, window)
    ingest.ingest_products(settings.lake, source)
    ingest.ingest_customers(settings.lake, source)
    store_identities(settings.lake)
    store_moments(settings.lake)
    ingest_trials(settings.lake, source, until=dt.datetime.combine(last, dt.time.max, dt.UTC))
    progress("the lake is filled")
    job = prepare_customers(settings, retailer)
    train.train_customers(read_config(job.config, train.CustomersConfig))
    finish_customers(settings, job)
    used: dict[str, str] = {}
    for family, module, kind in (
        ("segments", train_segments, train_segments.SegmentsConfig),
        ("contacts", train_contacts, train_contacts.ContactsConfig),
        ("sessions", train_sessions, train_sessions.SessionsConfig),
        ("visits", train_visits, train_visits.VisitsConfig),
    ):
        job = prepare_people(settings, retailer, family)
        module.train(read_config(job.config, kind))
        record = finish_people(settings, job)
        found = record.details.get("used")
        if isinstance(found, Mapping):
            used = {
                c: f"{u['average']:.4f} and {u['individual']:.2f} of differences" for c, u in found.items()
            }
        progress(f"{family} trained")
    store_predictions(settings, retailer)
    return used


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
    """What the simulator knows of the morning of the decision, arrays over customers and the policy's channels.

    Attributes:
        effect: float64[C, K], true change of the chance of a visit within seven days.
        visit_value: float64[C], margin of the money that a visit brought in the days that followed.
    """

    effect: Floats
    visit_value: Floats


def _judge(
    settings: Settings, retailer: Retailer, knobs: Mapping[str, Any], days: int, progress: Progress
) -> dict[str, Any]:
    from orchestration.lake import action_facts, next_actions

    policy = retailer.actions
    channels = list(policy.channels)
    now = next_actions.read_outlooks(settings, policy)[0]
    made = next_actions.store_actions(settings, retailer)
    actions = next_actions.read_actions(settings)
    progress(f"{made.contacts} of {len(actions)} customers are to be contacted")
    customers = [action.customer_id for action in actions]
    truth = true_worth(knobs, days, customers, channels, policy.margin)
    progress("the truth of that morning is known")
    known = action_facts.read_facts(settings, policy, now)
    allowed = permitted(known, policy, customers, now)
    cost = np.array([policy.channels[name].cost for name in channels])  # type: ignore[index]
    worth = truth.effect * truth.visit_value[:, None] - cost
    chosen = np.array([-1 if a.channel is None else channels.index(a.channel) for a in actions])
    if not allowed[np.flatnonzero(chosen >= 0), chosen[chosen >= 0]].all():
        raise AssertionError("an action breaks a limit that the bench's own reading of the facts forbids")
    rng = np.random.default_rng(SEED)
    outlooks = next_actions.read_outlooks(settings, policy)[1]
    mean_uplift = np.array(
        [np.mean([o.uplift.get(name, 0.0) for o in outlooks.values()]) for name in channels]
    )
    mean_value = float(np.mean([o.visit_value for o in outlooks.values()]))
    order = np.argsort(-(mean_uplift * mean_value - cost), kind="stable")
    everybody = np.where(allowed.any(axis=1), order[allowed[:, order].argmax(axis=1)], -1)
    best = np.where(allowed, worth, -np.inf).argmax(axis=1)
    oracle = np.where((np.where(allowed, worth, -np.inf).max(axis=1) > 0), best, -1)
    per = {
        name: value_of(worth, picks)
        for name, picks in (("nba", chosen), ("all", everybody), ("oracle", oracle))
    }
    draws = np.mean(
        [value_of(worth, randomly(rng, allowed, int((chosen >= 0).sum()))) for _ in range(RANDOM_DRAWS)],
        axis=0,
    )
    per["random"] = draws
    size = len(customers)
    picked = [np.arange(size), *(rng.integers(0, size, size) for _ in range(RESAMPLES))]
    means = {name: np.array([1000 * each[rows].mean() for rows in picked]) for name, each in per.items()}
    expected = sum(action.gain for action in actions)
    measured: dict[str, Any] = {
        "value_nba": float(means["nba"][0]), "value_all": float(means["all"][0]), "value_none": 0.0,
        "value_random": float(means["random"][0]), "value_oracle": float(means["oracle"][0]),
        **_interval("gain_over_none", means["nba"]), **_interval("gain_over_all", means["nba"] - means["all"]),
        **_interval("gain_over_random", means["nba"] - means["random"]),
        "share_of_oracle": float(means["nba"][0] / means["oracle"][0]),
        "expected_over_true": float(expected / per["nba"].sum()),
        "contacts_nba": int((chosen >= 0).sum()), "contacts_all": int((everybody >= 0).sum()),
        "contacts_oracle": int((oracle >= 0).sum()), "customers": size,
        "contacts_without_consent": int(sum(
            a.is_contact and not known.facts[a.person].consented for a in actions)),
    }  # fmt: skip
    for place, name in enumerate(channels):
        blanket = np.where(allowed[:, place], place, -1)
        measured[f"value_all_by_{name}"] = float(1000 * value_of(worth, blanket).mean())
        told = np.array(
            [outlooks[c].uplift.get(name, np.nan) if c in outlooks else np.nan for c in customers]
        )
        rows = np.isfinite(told) & allowed[:, place]
        if rows.any():
            measured[f"uplift_{name}_told"] = float(told[rows].mean())
            measured[f"uplift_{name}_true"] = float(truth.effect[rows, place].mean())
    return measured


def true_worth(
    knobs: Mapping[str, Any], days: int, customers: list[str], channels: list[str], margin: float
) -> Truth:
    """Play the shop again to the morning of the decision, and on, and ask it."""
    import copy

    from training.rehearsal import forms, rendering, world
    from training.rehearsal.config import CONTACT_CHANNELS, checked
    from training.rehearsal.contacts import _OPENS, _UNREAD, effect_on_visit
    from training.rehearsal.draws import Draws
    from training.rehearsal.log import ACT
    from training.rehearsal.opening import import_customers
    from training.rehearsal.simulate import _live
    from training.rehearsal.state import wake

    config = checked(dict(knobs))
    now = world.create(config)
    import_customers(now)
    for day in range(days):
        _live(now, day)
    morning = dataclasses.replace(now, state=copy.deepcopy(now.state), day=days)
    wake(morning.state, now.people, Draws(config.seed, days), days, now.wish, config)
    names = forms.identities(config, now.people).customer
    place = {name: number for number, name in enumerate(names)}
    who = np.array([place[name] for name in customers])
    effect = np.empty((len(who), len(channels)))
    for column, channel in enumerate(channels):
        index, opens = CONTACT_CHANNELS.index(channel), _OPENS[channel]
        effect[:, column] = opens * effect_on_visit(morning, who, days, index, 1.0)
        if opens < 1:
            effect[:, column] += (1 - opens) * effect_on_visit(morning, who, days, index, _UNREAD)
    seen = len(now.needs)
    for day in range(days, days + FUTURE):
        _live(now, day)
    later = np.concatenate([part["person"] for part in now.needs[seen:]])
    visits = np.bincount(later, minlength=len(now.people))
    events = now.log.read()
    starts = rendering.midnight(config, days)
    bought = (events["action"] == ACT["purchase"]) & (events["time"] >= starts) & (events["person"] >= 0)
    paid = np.nan_to_num(events["price"][bought] * events["quantity"][bought])
    spent = np.bincount(events["person"][bought], paid, minlength=len(now.people))
    each = np.where(visits > 0, spent / np.maximum(visits, 1), spent.sum() / max(visits.sum(), 1))
    return Truth(effect, margin * each[who])


def permitted(known: Any, policy: Any, customers: list[str], now: dt.datetime) -> npt.NDArray[np.bool_]:
    """bool[C, K]: over which channels each customer may be contacted within the horizon; one login per person."""
    from orchestration.lake.next_actions import rules_of
    from training.relationship.actions import Customer, best_time

    rules, channels = rules_of(policy), list(policy.channels)
    found = np.zeros((len(customers), len(channels)), bool)
    taken: set[str] = set()
    for row, customer in enumerate(customers):
        person = known.customers[customer]
        facts = known.facts[person]
        if (
            not facts.consented
            or person in taken
            or (facts.product is None and facts.content is None and facts.trouble is None)
        ):
            continue
        taken.add(person)
        consent = frozenset((name, policy.purpose) for name in facts.reachable)
        limits = Customer(consent, facts.contacts, policy.time_zone, facts.hours)
        for column, name in enumerate(channels):
            found[row, column] = name in facts.reachable and best_time(limits, name, rules, now) is not None
    return found


def value_of(worth: Floats, picks: npt.NDArray[np.int64]) -> Floats:
    """float64[C]: true worth of each customer's contact, 0 for none (-1)."""
    return np.where(picks >= 0, worth[np.arange(len(worth)), np.maximum(picks, 0)], 0.0)


def randomly(
    rng: np.random.Generator, allowed: npt.NDArray[np.bool_], contacts: int
) -> npt.NDArray[np.int64]:
    """So many customers who may be contacted, each over any channel that is permitted."""
    noise = np.where(allowed, rng.random(allowed.shape), -1.0)
    picks = np.where(allowed.any(axis=1), noise.argmax(axis=1), -1)
    open_ = rng.permutation(np.flatnonzero(picks >= 0))
    picks[open_[contacts:]] = -1
    return picks


def _interval(name: str, drawn: Floats) -> dict[str, float]:
    low, high = np.quantile(drawn[1:], [0.025, 0.975])
    return {name: float(drawn[0]), f"{name}_ci_low": float(low), f"{name}_ci_high": float(high)}
