"""Next best action: gain decides, limits are never crossed, and no contact is an answer."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.relationship.actions import (
    Action,
    ActionError,
    Candidate,
    Cap,
    Customer,
    Policy,
    is_quiet,
    next_best_action,
)

NOW = dt.datetime(2026, 3, 10, 12, 20, tzinfo=dt.UTC)
MAIL = Candidate("email", "product", "p1", 0.05, 100.0, 0.5)
PUSH = Candidate("push", "content", "c1", 0.02, 100.0, 0.01)
SORRY = Candidate("sms", "recovery", "late-parcel", 0.3, 100.0, 2.0, purpose="service")
EVERYTHING = frozenset(itertools.product(("email", "push", "sms"), ("marketing", "service")))
OPEN = Policy(caps=(), quiet_from=0, quiet_until=0)


def ask(
    customer: Customer, policy: Policy = OPEN, candidates: tuple[Candidate, ...] = (MAIL, PUSH, SORRY)
) -> Action:
    return next_best_action(customer, candidates, policy, NOW)


def test_the_largest_gain_wins_and_the_rest_say_why_not() -> None:
    found = ask(Customer(EVERYTHING))
    assert found.chosen == SORRY
    assert found.gain == pytest.approx(28)
    assert found.at == NOW
    assert [candidate for candidate, _ in found.refused] == [MAIL, PUSH]


def test_what_changes_nothing_is_not_sent() -> None:
    lost_cause = dataclasses.replace(MAIL, uplift=0.0, value=1e6)
    sleeping_dog = dataclasses.replace(MAIL, uplift=-0.1)
    found = ask(Customer(EVERYTHING), candidates=(lost_cause, sleeping_dog))
    assert found.chosen is None
    assert found.at is None
    assert [why for _, why in found.refused] == [
        "adds -0.50, expected more than 0.00",
        "adds -10.50, expected more than 0.00",
    ]
    assert ask(Customer(EVERYTHING), candidates=()).reason == "nothing to do"


def test_consent_is_by_channel_and_purpose() -> None:
    found = ask(Customer(frozenset({("email", "service"), ("push", "marketing"), ("sms", "marketing")})))
    assert found.chosen == PUSH
    assert dict(found.refused)[SORRY] == "no consent to service over sms"
    assert dict(found.refused)[MAIL] == "no consent to marketing over email"


def test_quiet_hours_are_the_customers_own_and_cross_midnight() -> None:
    policy = dataclasses.replace(OPEN, quiet_from=21, quiet_until=8)
    tokyo = ask(Customer(EVERYTHING, zone="Asia/Tokyo"), policy)  # 21:20 there
    assert tokyo.at == dt.datetime(2026, 3, 10, 23, 0, tzinfo=dt.UTC)  # 08:00 there
    assert ask(Customer(EVERYTHING, zone="Europe/Berlin"), policy).at == NOW
    assert [hour for hour in range(24) if is_quiet(hour, policy)] == [*range(8), 21, 22, 23]
    assert not any(is_quiet(hour, OPEN) for hour in range(24))


def test_full_local_hours_also_where_zones_are_half_an_hour_off() -> None:
    hours = tuple(float(hour == 19) for hour in range(24))
    found = ask(Customer(EVERYTHING, zone="Asia/Kolkata", hours=hours))
    assert found.at == dt.datetime(2026, 3, 10, 13, 30, tzinfo=dt.UTC)  # 19:00 there


def test_the_hour_is_the_one_the_customer_looks() -> None:
    hours = tuple(2.0 if hour == 18 else 1.0 for hour in range(24))
    assert ask(Customer(EVERYTHING, hours=hours)).at == dt.datetime(2026, 3, 10, 18, 0, tzinfo=dt.UTC)


def test_caps_of_a_channel_move_the_choice_and_caps_of_all_move_the_time() -> None:
    texted = Customer(EVERYTHING, contacts=((NOW - dt.timedelta(days=2), "sms"),))
    assert ask(texted, dataclasses.replace(OPEN, caps=(Cap(1, 7.0, "sms"),))).chosen == MAIL
    mailed = Customer(EVERYTHING, contacts=((NOW - dt.timedelta(hours=20), "email"),))
    found = ask(mailed, dataclasses.replace(OPEN, caps=(Cap(1, 1.0),)))
    assert found.chosen == SORRY
    assert found.at == dt.datetime(2026, 3, 10, 17, 0, tzinfo=dt.UTC)
    none = ask(Customer(EVERYTHING), dataclasses.replace(OPEN, caps=(Cap(0, 1.0),)))
    assert none.chosen is None
    assert "no permitted hour" in none.refused[0][1]


@given(
    past=st.lists(st.floats(-200, 60), max_size=8),
    quiet=st.tuples(st.integers(0, 23), st.integers(0, 23)),
    most=st.integers(0, 3),
    days=st.sampled_from([0.5, 1.0, 3.0, 7.0]),
    zone=st.sampled_from(["UTC", "Asia/Kolkata", "America/New_York", "Europe/Berlin"]),
    uplift=st.floats(-1, 1),
)
def test_no_plan_ever_crosses_a_limit(
    past: list[float], quiet: tuple[int, int], most: int, days: float, zone: str, uplift: float
) -> None:
    import zoneinfo

    contacts = tuple((NOW + dt.timedelta(hours=hours), "email") for hours in past)
    policy = Policy((Cap(most, days),), *quiet)
    customer = Customer(frozenset({("email", "marketing")}), contacts, zone)
    found = next_best_action(customer, [dataclasses.replace(MAIL, uplift=uplift), SORRY], policy, NOW)
    if found.chosen is None:
        assert found.at is None
        assert found.gain == 0
        return
    assert found.at is not None
    assert found.chosen.channel == "email"
    assert found.gain > 0
    assert NOW <= found.at <= NOW + dt.timedelta(hours=policy.horizon_hours)
    assert not is_quiet(found.at.astimezone(zoneinfo.ZoneInfo(zone)).hour, policy)
    times = sorted([*(at for at, _ in contacts), found.at])
    for end in times:
        inside = [at for at in times if end - dt.timedelta(days=days) < at <= end]
        if found.at in inside:
            assert len(inside) <= most


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channel": "fax"}, "channel is 'fax'"),
        ({"kind": "bribe"}, "kind is 'bribe'"),
        ({"uplift": float("nan")}, "uplift of 'p1' is nan"),
        ({"value": float("inf")}, "value of 'p1' is inf"),
        ({"cost": -1.0}, r"cost of 'p1' is -1\.0"),
    ],
)
def test_candidates_that_cannot_be_weighed_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ActionError, match=message):
        ask(Customer(EVERYTHING), candidates=(dataclasses.replace(MAIL, **change),))  # type: ignore[arg-type]


def test_limits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ActionError, match="zone is 'Mars/Olympus'"):
        ask(Customer(EVERYTHING, zone="Mars/Olympus"))
    with pytest.raises(ActionError, match="hours holds 3 weights"):
        ask(Customer(EVERYTHING, hours=(1.0,) * 3))
    with pytest.raises(ActionError, match="contacts hold a time without"):
        ask(Customer(EVERYTHING, contacts=((dt.datetime(2026, 1, 1), "email"),)))
    with pytest.raises(ActionError, match="quiet_from is 25"):
        ask(Customer(EVERYTHING), Policy(quiet_from=25))
    with pytest.raises(ActionError, match="cap of -1"):
        ask(Customer(EVERYTHING), Policy(caps=(Cap(-1, 1.0),)))
    with pytest.raises(ActionError, match="now has no time zone"):
        next_best_action(Customer(EVERYTHING), [MAIL], OPEN, dt.datetime(2026, 1, 1))
