"""The next best action put together: hand-worked worth, consent as a limit, and honest silence."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math

import pytest

from contracts.actions import Action
from contracts.policy import ActionPolicy, ContactCap, ContactChannel
from contracts.recovery import Effect
from orchestration.lake.action_facts import Facts, Known, Trouble
from orchestration.lake.next_actions import (
    ACTIONS,
    Outlook,
    _expected_visits,
    decide,
    from_row,
    to_table,
)

NOW = dt.datetime(2026, 3, 10, 12, tzinfo=dt.UTC)
POLICY = ActionPolicy(
    channels={
        "email": ContactChannel(cost=0.1, reach=("email_sha256",)),
        "sms": ContactChannel(cost=0.5, reach=("phone_sha256",)),
    },
    caps=(ContactCap(most=1, days=7.0),),
)  # fmt: skip
OPEN = Facts(
    consented=True, reachable=frozenset({"email", "sms"}), product=("p1", "bought 3 times before"),
    content=("g1", "about shoes, which they look at most"),
)  # fmt: skip
GOOD = Outlook({"email": 0.05, "sms": 0.10}, 10.0)
LATE = Trouble("delay", NOW - dt.timedelta(days=2), "p7", 4, 2)


def one(
    facts: Facts = OPEN, outlook: Outlook | None = GOOD, policy: ActionPolicy = POLICY, **more: object
) -> Action:
    known = Known({"ann": "p_ann"}, {"p_ann": facts}, tuple(more.pop("effects", ())), {})  # type: ignore[arg-type]
    outlooks = {} if outlook is None else {"ann": outlook}
    (found,) = decide(known, outlooks, policy, NOW, True, **more)  # type: ignore[arg-type]
    return found


def test_the_channel_that_adds_most_wins_and_the_sum_is_shown() -> None:
    found = one()  # email adds 0.05 * 10 - 0.1 = 0.4, sms 0.10 * 10 - 0.5 = 0.5
    assert (found.channel, found.kind, found.subject, found.at) == ("sms", "product", "p1", NOW)
    assert found.gain == pytest.approx(0.5)
    assert found.reason == (
        "bought 3 times before (effect measured); a contact by sms adds 0.50: 0.1000 times 10.00, less a cost of 0.50"
    )
    assert {(r.channel, r.kind) for r in found.refused} == {
        ("email", "product"),
        ("email", "content"),
        ("sms", "content"),
    }
    assert (found.made_at, found.expires_at) == (NOW, NOW + dt.timedelta(hours=48))
    assert found.simulated


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (dataclasses.replace(OPEN, consented=False), "no consent to be contacted"),
        (dataclasses.replace(OPEN, reachable=frozenset()), "not reachable"),
        (dataclasses.replace(OPEN, product=None, content=None), "nothing to do"),
    ],
)
def test_nobody_is_contacted_against_their_will_or_for_nothing(facts: Facts, reason: str) -> None:
    found = one(facts)
    assert not found.is_contact
    assert (found.kind, found.channel, found.gain) == ("none", None, 0.0)
    assert found.reason == reason


def test_who_left_a_channel_is_not_reached_on_it_but_on_another() -> None:
    found = one(dataclasses.replace(OPEN, reachable=frozenset({"email"}), unsubscribed=frozenset({"sms"})))
    assert found.channel == "email"
    assert {r.reason for r in found.refused if r.channel == "sms"} == {"unsubscribed from sms"}


def test_an_unmeasured_effect_is_refused_unless_the_shop_states_an_assumption() -> None:
    found = one(outlook=Outlook({}, 10.0))
    assert not found.is_contact
    assert found.reason == "no trial has measured what a contact over this channel causes"
    assumed = {"email": ContactChannel(cost=0.1, reach=("email_sha256",), assumed_uplift=0.03)}
    found = one(outlook=Outlook({}, 10.0), policy=ActionPolicy(channels=assumed))
    assert found.gain == pytest.approx(0.2)
    assert "assumed by the shop, not measured" in found.reason
    measured_nothing = one(outlook=Outlook({"email": 0.0, "sms": math.nan}, 10.0))
    assert not measured_nothing.is_contact


def test_an_open_bad_moment_comes_before_an_offer_and_tried_answers_count_with_their_effect() -> None:
    found = one(dataclasses.replace(OPEN, trouble=LATE))
    assert (found.kind, found.subject) == ("recovery", "apology:p7")
    assert "delay 2.0 days ago was not made good; never tried" in found.reason
    tried = (
        Effect("delay", "apology", -0.02, -0.1, 0.06, 40),
        Effect("delay", "support", 0.3, 0.1, 0.5, 50),
    )
    found = one(dataclasses.replace(OPEN, trouble=LATE), effects=tried)
    assert (found.kind, found.subject, found.channel) == ("recovery", "support:p7", "email")
    assert found.gain == pytest.approx(0.3 * 10 - 0.1)
    assert "tried 50 times" in found.reason
    assert not any(r.subject.startswith("apology") for r in found.refused)  # It does harm.


def test_a_guide_comes_first_for_who_wants_to_do() -> None:
    assert one(dataclasses.replace(OPEN, want="want_to_do")).kind == "content"
    assert one(dataclasses.replace(OPEN, want="want_to_buy")).kind == "product"


def test_contacts_made_and_contacts_advised_fill_the_cap() -> None:
    lately = NOW - dt.timedelta(days=4)
    assert not one(dataclasses.replace(OPEN, contacts=((lately, "email"),))).is_contact
    assert not one(advised={"p_ann": [(lately, "sms")]}).is_contact
    soon_free = NOW - dt.timedelta(days=6, hours=2)
    planned = one(dataclasses.replace(OPEN, contacts=((soon_free, "email"),)))
    assert planned.at == NOW + dt.timedelta(hours=22)
    twice = [(NOW - dt.timedelta(days=8), "sms")]
    assert one(advised={"p_ann": twice}).is_contact


def test_quiet_hours_hold_in_the_shops_zone() -> None:
    night = ActionPolicy(
        channels=POLICY.channels, quiet_from=21, quiet_until=8, time_zone="America/New_York", caps=()
    )
    assert one(policy=night).at == NOW  # 08:00 there since two days: daylight saving time began on the 8th.
    dark = ActionPolicy(
        channels=POLICY.channels, quiet_from=21, quiet_until=9, time_zone="America/New_York", caps=()
    )
    assert one(policy=dark).at == NOW + dt.timedelta(hours=1)


def test_a_person_with_two_logins_is_contacted_once() -> None:
    known = Known(
        {"ann": "p_ann", "anna": "p_ann", "bob": "p_bob"}, {"p_ann": OPEN, "p_bob": Facts()}, (), {}
    )
    found = decide(known, {"ann": GOOD, "anna": GOOD}, POLICY, NOW, False)
    assert [action.customer_id for action in found] == ["ann", "anna", "bob"]
    assert [action.is_contact for action in found] == [True, False, False]
    assert found[1].reason == "the same person has login ann, which is contacted"
    assert found[2].reason == "no value of a visit is predicted of this customer"


def test_without_channels_nobody_is_contacted() -> None:
    assert one(policy=ActionPolicy()).reason == "the shop names no channel for contacts"


def test_rows_give_the_same_actions_back_and_a_second_run_the_same_ids() -> None:
    found = [one(), one(dataclasses.replace(OPEN, consented=False))]
    table = to_table(found)
    assert table.schema == ACTIONS.schema
    assert [from_row(row) for row in table.to_pylist()] == found
    assert one().action_id == found[0].action_id


def test_visits_expected_at_a_constant_rate() -> None:
    """Half come within 7 days: ln 2 / 7 visits a day, over 91 days 13 ln 2."""
    assert _expected_visits(0.5, 7.0, 91.0) == pytest.approx(13 * math.log(2))
    assert _expected_visits(None, 7.0, 91.0) == 0.0
