"""The next best action of every customer: predictions, facts and the shop's rules put together.

A contact over a channel is worth its measured effect on the chance of a visit times what a visit is worth, less its
cost. A visit is worth the shop's share of what the customer spends on one: spend expected over the value model's horizon
by visits, shrunk to the shop's mean where a customer is little known. What a contact brings (an answer to an open bad
moment, a product, a guide, a service) is chosen by what fits, since no trial tells their effects apart; an answer to a
bad moment whose own effect was tried counts with that.

An effect that nobody measured is not guessed: without a trial, and without an effect that the shop's yaml assumes in so
many words, a contact is refused. A person with several logins is contacted once.

Belongs here: candidates and their worth, the table of actions. Does not belong here: facts (`action_facts.py`), the
choice under limits (`training/relationship/actions.py`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import math
import pathlib
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from contracts.actions import ACTIONS_FILE, NONE, Action, Refused, action_id
from contracts.policy import ActionPolicy
from contracts.recovery import Choice, Effect, Situation, choose
from contracts.retailer import Retailer
from contracts.settings import Settings
from orchestration.lake import action_facts, writing
from orchestration.lake.action_facts import Facts, Known, Trouble
from orchestration.lake.tables import TIMESTAMP, Table

if TYPE_CHECKING:
    from training.relationship.actions import Candidate, Policy

ACTIONS = Table(
    "actions",
    pa.schema(
        [
            pa.field("action_id", pa.string()),
            pa.field("customer_id", pa.string()),
            pa.field("person", pa.string()),
            pa.field("kind", pa.string()),
            pa.field("channel", pa.string()),
            pa.field("subject", pa.string()),
            pa.field("at", TIMESTAMP),
            pa.field("gain", pa.float64()),
            pa.field("reason", pa.string()),
            pa.field("purpose", pa.string()),
            pa.field("refused", pa.string()),
            pa.field("made_at", TIMESTAMP),
            pa.field("expires_at", TIMESTAMP),
            pa.field("simulated", pa.bool_()),
        ]
    ),
    None,
    "The next best action of every customer (contracts.actions.Action; refused as JSON); each run replaces the last.",
)

VISITS_PRIOR = 5.0
"""Visits of the shop's mean that a customer's spend per visit starts with."""


@dataclasses.dataclass(frozen=True)
class Outlook:
    """What the models say of one customer, as far as an action needs it.

    Attributes:
        uplift: Change of the chance of a visit by a contact, by channel.
        visit_value: The shop's share of what one more visit of theirs brings, money.
    """

    uplift: Mapping[str, float]
    visit_value: float


@dataclasses.dataclass(frozen=True)
class Made:
    """What one run decided.

    Attributes:
        commit: Of the table.
        contacts: Customers to contact.
        gain: Expected gain of all contacts.
        by: Contacts by channel and kind.
        reasons: Customers who are left alone, by reason.
    """

    commit: writing.Commit
    contacts: int
    gain: float
    by: dict[str, int]
    reasons: dict[str, int]


def store_actions(settings: Settings, retailer: Retailer, now: dt.datetime | None = None) -> Made:
    """Decide for every customer and put the decisions in place of the former ones.

    Args:
        settings: The installation; predictions must have been stored.
        retailer: The shop and its rules.
        now: The moment of decision; by default that of the newest predictions for a shop whose clock is its stream,
            else the wall's.

    Raises:
        SnapshotError: A table of the lake, or the predictions, are missing.
    """
    as_of, outlooks = read_outlooks(settings, retailer.actions)
    moment = now or (as_of if retailer.clock == "stream" else dt.datetime.now(dt.UTC))
    known = action_facts.read_facts(settings, retailer.actions, moment)
    advised = read_advised(settings, moment, retailer.actions)
    made = decide(known, outlooks, retailer.actions, moment, retailer.simulated, advised)
    commit = writing.replace_all(ACTIONS, settings.lake, to_table(made))
    publish(settings, made)
    by: dict[str, int] = {}
    reasons: dict[str, int] = {}
    for action in made:
        if action.is_contact:
            by[f"{action.channel} {action.kind}"] = by.get(f"{action.channel} {action.kind}", 0) + 1
        else:
            reasons[action.reason] = reasons.get(action.reason, 0) + 1
    contacts = [action for action in made if action.is_contact]
    return Made(commit, len(contacts), sum(action.gain for action in contacts), by, reasons)


def decide(
    known: Known,
    outlooks: Mapping[str, Outlook],
    policy: ActionPolicy,
    now: dt.datetime,
    simulated: bool,
    advised: Mapping[str, list[tuple[dt.datetime, str]]] | None = None,
) -> list[Action]:
    """Decide for every customer, in order of their id.

    Args:
        known: Facts.
        outlooks: By customer; who is missing is not predicted and left alone.
        policy: The shop's rules.
        now: The moment of decision.
        simulated: Whether the customers are.
        advised: Contacts advised before whose time has come, by person; they count as made.
    """
    from training.relationship.actions import Customer, next_best_action

    rules = rules_of(policy)
    taken: dict[str, str] = {}
    found = []
    for customer_id, person in sorted(known.customers.items()):
        facts = known.facts.get(person, Facts())
        outlook = outlooks.get(customer_id)
        build = _builder(customer_id, person, policy, now, simulated)
        if not policy.channels:
            found.append(build(None, None, 0.0, "the shop names no channel for contacts", ()))
            continue
        if outlook is None:
            found.append(build(None, None, 0.0, "no value of a visit is predicted of this customer", ()))
            continue
        if person in taken:
            reason = f"the same person has login {taken[person]}, which is contacted"
            found.append(build(None, None, 0.0, reason, ()))
            continue
        candidates, refused = candidates_of(facts, outlook, policy, known.recovery, now)
        consent = frozenset((name, policy.purpose) for name in facts.reachable if facts.consented)
        contacts = tuple(_distinct([*facts.contacts, *(advised or {}).get(person, [])]))
        limits = Customer(consent, contacts, policy.time_zone, facts.hours)
        answer = next_best_action(limits, [candidate for candidate, _ in candidates], rules, now)
        against = [
            Refused(channel=_channel(c.channel), kind=c.kind, subject=c.subject, reason=_why(c, why, facts))
            for c, why in answer.refused
        ]  # fmt: skip
        if answer.chosen is None or answer.at is None:
            found.append(
                build(
                    None,
                    None,
                    0.0,
                    _summary(facts, [*refused, *against], answer.reason),
                    [*refused, *against],
                )
            )
            continue
        fits = next(why for candidate, why in candidates if candidate is answer.chosen)
        reason = f"{fits}; a contact by {answer.chosen.channel.replace('_', ' ')} {answer.reason}"
        found.append(build(answer.chosen, answer.at, answer.gain, reason, [*refused, *against]))
        taken[person] = customer_id
    return found


def candidates_of(
    facts: Facts, outlook: Outlook, policy: ActionPolicy, effects: Iterable[Effect], now: dt.datetime
) -> tuple[list[tuple[Candidate, str]], list[Refused]]:
    """Everything that could be sent to a customer, the most fitting first, each with why it fits.

    Returns:
        Candidates with reasons, and what is refused because its effect is not known.
    """
    from training.relationship.actions import Candidate

    found: list[tuple[Candidate, str]] = []
    refused: list[Refused] = []
    tried = tuple(effects)
    for name, channel in policy.channels.items():
        uplift, source = outlook.uplift.get(name), "measured"
        if uplift is None or not math.isfinite(uplift):
            uplift, source = channel.assumed_uplift, "assumed by the shop, not measured"
        for kind, subject, why, answer in subjects_of(facts, policy, tried, now):
            known = uplift if answer is None else answer.effect
            if known is None:
                reason = "no trial has measured what a contact over this channel causes"
                refused.append(Refused(channel=_channel(name), kind=kind, subject=subject, reason=reason))
                continue
            told = source if answer is None else f"tried {answer.trials} times"
            candidate = Candidate(
                name, kind, subject, float(known), outlook.visit_value, channel.cost, policy.purpose
            )
            found.append((candidate, f"{why} (effect {told})"))
    return found, refused


def subjects_of(
    facts: Facts, policy: ActionPolicy, effects: tuple[Effect, ...], now: dt.datetime
) -> list[tuple[Any, str, str, Effect | None]]:
    """What a contact could bring: kind, subject, why it fits, and the effect of an answer that was tried."""
    found: list[tuple[Any, str, str, Effect | None]] = []
    if facts.trouble is not None:
        for answer in answers_to(facts.trouble, facts, policy, effects):
            days = (now - facts.trouble.at).total_seconds() / 86_400
            about = facts.trouble.product_id or facts.trouble.kind
            why = f"{facts.trouble.kind.replace('_', ' ')} {days:.1f} days ago was not made good; {answer.reason}"
            found.append(("recovery", f"{answer.action}:{about}", why, answer.effect))
    offers = [("product", facts.product), ("content", facts.content), ("service", facts.service)]
    if facts.want in ("want_to_do", "want_to_know"):
        offers = [offers[1], offers[0], offers[2]]
    found += [(kind, offer[0], offer[1], None) for kind, offer in offers if offer is not None]
    return found


def answers_to(
    trouble: Trouble, facts: Facts, policy: ActionPolicy, effects: tuple[Effect, ...]
) -> list[Choice]:
    """Answers to a bad moment by a message, by predicted effect where it is known, else in the order of trying."""
    situation = Situation(
        kind=_moment(trouble.kind), substitutes=trouble.substitutes, other_sizes=trouble.sizes,
        restock_expected=policy.restocks, may_contact=facts.consented, support_open=policy.support_open,
    )  # fmt: skip
    return choose(situation, effects)[:2]


def read_outlooks(settings: Settings, policy: ActionPolicy) -> tuple[dt.datetime, dict[str, Outlook]]:
    """The newest predictions, and when they were made for.

    Raises:
        SnapshotError: There are none.
    """
    from contracts.predictions import CONTACT_CHANNELS
    from feature_repo.catalog import PREDICTIONS
    from feature_repo.snapshots import attach, connect

    con = connect()
    attach(con, "said", settings.features / PREDICTIONS.name)
    columns = ", ".join(f"p_uplift_{channel}" for channel in CONTACT_CHANNELS)
    rows = con.execute(
        f"""select customer_id, event_timestamp, p_value, p_visit_soon, p_visit_soon_days, p_value_days, {columns}
        from said where event_timestamp = (select max(event_timestamp) from said) order by customer_id"""
    ).fetchall()
    con.close()
    as_of = max((row[1] for row in rows), default=dt.datetime.fromtimestamp(0, dt.UTC)).astimezone(dt.UTC)
    if not any(row[2] is not None for row in rows):
        return as_of, {}
    expected = [_expected_visits(row[3], row[4], row[5]) for row in rows]
    spend = sum(row[2] for row in rows if row[2] is not None)
    typical = spend / max(sum(v for v, row in zip(expected, rows, strict=True) if row[2] is not None), 1.0)
    found = {}
    for row, visits in zip(rows, expected, strict=True):
        per_visit = ((row[2] or 0.0) + VISITS_PRIOR * typical) / (visits + VISITS_PRIOR)
        uplift = {c: value for c, value in zip(CONTACT_CHANNELS, row[6:], strict=True) if value is not None}
        found[row[0]] = Outlook(uplift, policy.margin * per_visit)
    return as_of, found


def _expected_visits(soon: float | None, soon_days: float | None, days: float | None) -> float:
    """Visits expected within the horizon of value, from the chance of one soon, as if they came at a constant rate."""
    if soon is None or not soon_days or not days:
        return 0.0
    return -math.log1p(-min(soon, 0.999)) / soon_days * days


def read_advised(
    settings: Settings, now: dt.datetime, policy: ActionPolicy
) -> dict[str, list[tuple[dt.datetime, str]]]:
    """Contacts of the former table whose time has come by now, by person."""
    from feature_repo.snapshots import SnapshotError, attach, connect

    con = connect()
    try:
        attach(con, "before", ACTIONS.path(settings.lake))
    except SnapshotError:
        return {}
    longest = max((cap.days for cap in policy.caps), default=0.0)
    found: dict[str, list[tuple[dt.datetime, str]]] = {}
    query = 'select person, "at", channel from before where channel is not null and "at" < ? and "at" >= ?'
    for person, at, channel in con.execute(query, [now, now - dt.timedelta(days=longest)]).fetchall():
        found.setdefault(person, []).append((at.astimezone(dt.UTC), channel))
    con.close()
    return found


def to_table(made: Iterable[Action]) -> pa.Table:
    """Actions as rows of `ACTIONS`."""
    rows = []
    for action in made:
        row = {name: getattr(action, name) for name in ACTIONS.schema.names}
        row["refused"] = msgspec.json.encode(action.refused).decode()
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=ACTIONS.schema)


def from_row(row: Mapping[str, Any]) -> Action:
    """An action from a row of `ACTIONS`."""
    plain = {**row, "refused": msgspec.json.decode(row["refused"])}
    return msgspec.convert(plain, Action)


def read_actions(settings: Settings, customer_id: str | None = None) -> list[Action]:
    """The stored actions, of one customer or of all, in order of the customer.

    Raises:
        SnapshotError: There are none.
    """
    from feature_repo.snapshots import attach, connect, literal

    con = connect()
    attach(con, "actions", ACTIONS.path(settings.lake))
    where = "" if customer_id is None else f"where customer_id = {literal(customer_id)}"
    rows = con.sql(f"select * from actions {where} order by customer_id").to_arrow_table().to_pylist()
    con.close()
    return [from_row(row) for row in rows]


def publish(settings: Settings, made: Iterable[Action]) -> pathlib.Path:
    """Write the server's file (`contracts.actions.ACTIONS_FILE`), in one step."""
    settings.overview.mkdir(parents=True, exist_ok=True)
    target = settings.overview / ACTIONS_FILE
    staged = settings.overview / f".{uuid.uuid4().hex}"
    with contextlib.closing(sqlite3.connect(staged)) as con:
        con.execute("create table actions (customer_id text primary key, record blob not null) without rowid")
        con.executemany(
            "insert into actions values (?, ?)",
            ((action.customer_id, msgspec.json.encode(action)) for action in made),
        )
        con.commit()
    staged.replace(target)
    return target


def rules_of(policy: ActionPolicy) -> Policy:
    """The shop's rules as the choice takes them."""
    from training.relationship.actions import Cap, Policy

    return Policy(
        caps=tuple(Cap(cap.most, cap.days, cap.channel) for cap in policy.caps),
        quiet_from=policy.quiet_from, quiet_until=policy.quiet_until, least_gain=policy.least_gain,
        horizon_hours=policy.horizon_hours,
    )  # fmt: skip


Builder = Callable[["Candidate | None", dt.datetime | None, float, str, Iterable[Refused]], Action]


def _builder(
    customer_id: str, person: str, policy: ActionPolicy, now: dt.datetime, simulated: bool
) -> Builder:
    def build(
        chosen: Candidate | None, at: dt.datetime | None, gain: float, reason: str, refused: Iterable[Refused]
    ) -> Action:
        kind = NONE if chosen is None else chosen.kind
        channel = None if chosen is None else _channel(chosen.channel)
        subject = "" if chosen is None else chosen.subject
        return Action(
            action_id=action_id(customer_id, kind, channel, subject, at), customer_id=customer_id, person=person,
            kind=kind, channel=channel, subject=subject, at=at, gain=gain, reason=reason, purpose=policy.purpose,
            refused=tuple(refused), made_at=now, expires_at=now + dt.timedelta(hours=policy.horizon_hours),
            simulated=simulated,
        )  # fmt: skip

    return build


def _why(candidate: Candidate, why: str, facts: Facts) -> str:
    """A refusal for want of consent says what exactly is missing."""
    if not why.startswith("no consent"):
        return why
    if candidate.channel in facts.unsubscribed:
        return f"unsubscribed from {candidate.channel.replace('_', ' ')}"
    if facts.consented:
        return f"not reachable by {candidate.channel.replace('_', ' ')}"
    return why


def _summary(facts: Facts, refused: list[Refused], otherwise: str) -> str:
    """Why nothing is done, where one reason explains it all."""
    if refused and not facts.consented:
        return "no consent to be contacted"
    reasons = {_general(each.reason) for each in refused}
    return reasons.pop() if len(reasons) == 1 else otherwise


def _general(reason: str) -> str:
    """A reason without the channel or the amount that it names."""
    if reason.startswith("no consent"):
        return "no consent to be contacted"
    if reason.startswith("adds "):
        return "no contact is worth its cost"
    return "not reachable" if reason.startswith("not reachable") else reason


def _distinct(contacts: list[tuple[dt.datetime, str]]) -> list[tuple[dt.datetime, str]]:
    return sorted(set(contacts))


def _channel(name: str) -> Any:
    return name


def _moment(name: str) -> Any:
    return name
