"""The pages of the continuum: the shop at a glance, and one customer's life with it.

Belongs here: choosing and formatting what these pages show. Does not belong here: markup
(`templates/`), facts (`contracts.overview`, `serving/profiles`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from contracts.actions import Action
from contracts.decisions import Decision
from contracts.events import ACTIONS, CHANNELS
from contracts.moments import BAD
from contracts.overview import Kpi, Overview
from serving.engine.items import ItemTable
from serving.pages.render import common, template
from serving.profiles.history import History, to_moment
from serving.profiles.intent import LiveIntent
from serving.profiles.moments import LiveMoment
from serving.profiles.outlook import Outlook
from serving.profiles.predictions import Expectation
from serving.server import Server

VISITS = 40
"""Latest visits shown of one customer."""
THINGS = 6
"""Products named in one visit."""


@dataclasses.dataclass(frozen=True)
class Visit:
    """Events of one session, or of one moment where the source knows no sessions.

    Attributes:
        at: When it began.
        channels: Where, in order of appearance.
        actions: How often what was done, most often first.
        things: Names of the products, the first few.
        more: How many further products.
        spent: What was paid.
    """

    at: Any
    channels: tuple[str, ...]
    actions: tuple[tuple[str, int], ...]
    things: tuple[str, ...]
    more: int
    spent: float


@dataclasses.dataclass(frozen=True)
class Coming:
    """What is known of a customer's future; None where nothing is.

    Attributes:
        expected: Churn and value.
        outlook: Segments, next visit, effects of contacts.
        action: The next best action.
        intent: Of the session that is under way.
    """

    expected: Expectation | None = None
    outlook: Outlook | None = None
    action: Action | None = None
    intent: LiveIntent | None = None


def render_overview(server: Server, overview: Overview | None, problem: str) -> str:
    """The shop at a glance."""
    charts = {} if overview is None else msgspec.to_builtins(overview)
    return template("continuum.html").render(
        **common(server),
        overview=overview,
        problem=problem,
        charts=charts,
        kpi_text=kpi_text,
        attribution=[] if overview is None else attribution_rows(overview),
        methods=[] if overview is None else methods(overview),
        distances=[] if overview is None else distances(overview),
        worst=None if overview is None else next((m for m in overview.moments if m.bad), None),
        span=span,
    )


def render_customer(
    server: Server,
    customer_id: str,
    history: History,
    moments: Sequence[LiveMoment],
    coming: Coming,
    answer: Decision | None,
    problem: str,
) -> str:
    """One customer's continuum.

    Args:
        server: The server.
        customer_id: Asked for, may be empty.
        history: What is known of them.
        moments: Those of their live events, in order of time.
        coming: What is known of their future.
        answer: What would be shown now, or None.
        problem: Why there is no answer.
    """
    release, snapshot = server.holder.current, server.profiles.snapshot
    rows = [] if release is None else visits(history, release.engine.items)
    visual = None if release is None else release.visual
    sizes = [] if visual is None else visual.index.sizes.usual(history)
    examples = [] if snapshot is None else snapshot.customers[:4].tolist()
    return template("customer.html").render(
        **common(server), customer_id=customer_id, visits=rows, events=len(history), sizes=sizes, examples=examples,
        answer=answer, problem=problem, asked=customer_id, moments=moments[::-1][:VISITS], bad=BAD, expected=coming.expected,
        outlook=coming.outlook, action=coming.action, intent=coming.intent,
    )  # fmt: skip


def visits(history: History, items: ItemTable) -> list[Visit]:
    """The latest visits of a history, the latest first."""
    if not len(history):
        return []
    alone = history.session < 0
    key = np.where(alone, history.at_us, history.session)
    changes = np.flatnonzero((np.diff(key) != 0) | (np.diff(alone.astype(np.int8)) != 0)) + 1
    starts = [0, *changes.tolist()]
    stops = [*changes.tolist(), len(history)]
    return [_visit(history.select(slice(a, b)), items) for a, b in zip(starts, stops, strict=True)][::-1][
        :VISITS
    ]


def _visit(part: History, items: ItemTable) -> Visit:
    names, counts = np.unique(part.action, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    products = list(dict.fromkeys(part.item[part.item >= 0].tolist()))
    return Visit(
        at=to_moment(int(part.at_us[0])),
        channels=tuple(dict.fromkeys(CHANNELS[c].replace("_", " ") for c in part.channel.tolist())),
        actions=tuple((ACTIONS[int(names[i])].replace("_", " "), int(counts[i])) for i in order),
        things=tuple(items.name[item] for item in products[:THINGS]),
        more=max(0, len(products) - THINGS),
        spent=float(np.sum(part.quantity * part.unit_price * (part.action == ACTIONS.index("purchase")))),
    )


def kpi_text(kpi: Kpi) -> str:
    """A number with its unit."""
    if kpi.unit == "share":
        return f"{100 * kpi.value:.1f} %"
    if kpi.unit == "count":
        return f"{kpi.value:,.0f}"
    if kpi.unit == "hours":
        return span(kpi.value)
    return f"{kpi.value:,.2f} {kpi.unit}"


def span(hours: float | None) -> str:
    """A time in the unit that people would say it in."""
    if hours is None:
        return "–"
    if hours < 1 / 60:
        return "at once"
    if hours < 1:
        return f"{60 * hours:.0f} minutes"
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"


def distances(overview: Overview) -> list[float | None]:
    """Of each method, the share of conversions that it gives to other channels than those that caused them.

    Half the sum of absolute differences to the causal effect (total variation); None for the causal effect itself, and
    an empty list where it is not known.
    """
    names = methods(overview)
    cause = next((name for name in names if name.startswith("causal")), None)
    if cause is None:
        return []
    shares: dict[str, dict[str, float]] = {name: {} for name in names}
    for credit in overview.credits:
        shares[credit.method][credit.channel] = credit.share
    channels = {credit.channel for credit in overview.credits}

    def apart(name: str) -> float:
        return sum(abs(shares[name].get(c, 0.0) - shares[cause].get(c, 0.0)) for c in channels) / 2

    return [None if name == cause else apart(name) for name in names]


def methods(overview: Overview) -> list[str]:
    """Attribution methods in their published order."""
    return list(dict.fromkeys(credit.method for credit in overview.credits))


def attribution_rows(overview: Overview) -> list[tuple[str, list[float | None]]]:
    """Channels with their share by method, the largest mean share first; None where a method says nothing."""
    table: dict[str, dict[str, float]] = {}
    for credit in overview.credits:
        table.setdefault(credit.channel, {})[credit.method] = credit.share
    names = methods(overview)
    rows = [(channel, [shares.get(name) for name in names]) for channel, shares in table.items()]
    return sorted(rows, key=lambda row: -sum(share or 0.0 for share in row[1]))
