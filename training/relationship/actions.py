"""Next best action: whether to contact a customer, over which channel, when and with what.

Pure functions over what the models say and what the customer allows. A candidate is worth what the contact itself
changes: ``uplift * value - cost`` (uplift: change of the chance of a response by this contact; value: relationship value
of a response). Nothing is better than something that changes nothing, so no contact is the answer unless a candidate
is worth more than the policy's least gain. Consent, quiet hours and frequency caps are limits, never weights.

Belongs here: the choice, its reasons. Does not belong here: the predictions (`uplift.py`, `ziln.py`), sending.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import zoneinfo
from collections.abc import Mapping, Sequence

from contracts.actions import KINDS, Kind
from contracts.events import CHANNELS

HOUR = dt.timedelta(hours=1)


class ActionError(ValueError):
    """An input that cannot be used; the message names the field and what was expected."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One contact that could be made.

    Attributes:
        channel: One of `contracts.events.CHANNELS`.
        kind: What is sent: a product, a piece of content, a service, or a recovery from a bad moment.
        subject: Id of it.
        uplift: Change of the chance of a response by this contact, in [-1, 1].
        value: Relationship value of a response, money.
        cost: Of the contact, money, at least 0.
        purpose: That the customer must have consented to on this channel.
    """

    channel: str
    kind: Kind
    subject: str
    uplift: float
    value: float
    cost: float
    purpose: str = "marketing"

    @property
    def gain(self) -> float:
        """Expected relationship value that the contact adds."""
        return self.uplift * self.value - self.cost


@dataclasses.dataclass(frozen=True)
class Customer:
    """What limits contacts of one customer.

    Attributes:
        consent: Allowed pairs of channel and purpose.
        contacts: Times and channels of contacts made or planned, any order, times with a time zone.
        zone: IANA time zone that the customer lives in.
        hours: 24 weights, how likely the customer is to look at each local hour; all equal if nothing is known.
    """

    consent: frozenset[tuple[str, str]]
    contacts: tuple[tuple[dt.datetime, str], ...] = ()
    zone: str = "UTC"
    hours: tuple[float, ...] = (1.0,) * 24


@dataclasses.dataclass(frozen=True)
class Cap:
    """At most so many contacts in a time that moves along.

    Attributes:
        most: Contacts, at least 0.
        days: Length of the time, above 0.
        channel: The channel that it is about, or None for all together.
    """

    most: int
    days: float
    channel: str | None = None


@dataclasses.dataclass(frozen=True)
class Policy:
    """A shop's rules.

    Attributes:
        caps: All of them hold.
        quiet_from: Local hour at which quiet begins, 0 to 23.
        quiet_until: Local hour at which it ends; before ``quiet_from`` it lies on the next day, equal means no quiet.
        least_gain: A contact must be worth more than this.
        horizon_hours: How far ahead a contact may be planned, at least 1.
    """

    caps: tuple[Cap, ...] = (Cap(1, 1.0), Cap(3, 7.0))
    quiet_from: int = 21
    quiet_until: int = 8
    least_gain: float = 0.0
    horizon_hours: int = 48


@dataclasses.dataclass(frozen=True)
class Action:
    """The answer for one customer.

    Attributes:
        chosen: The contact to make, or None for none.
        at: When, UTC; None for none.
        gain: Expected relationship value that it adds, 0 for none.
        reason: Of the answer, in plain words.
        refused: Every other candidate with the reason against it, in the given order.
    """

    chosen: Candidate | None
    at: dt.datetime | None
    gain: float
    reason: str
    refused: tuple[tuple[Candidate, str], ...]


def next_best_action(
    customer: Customer, candidates: Sequence[Candidate], policy: Policy, now: dt.datetime
) -> Action:
    """Choose the contact that adds most, at the best permitted hour, or none.

    Among equals the earlier candidate wins, and the earlier hour.

    Args:
        customer: What limits contacts.
        candidates: What could be done; may be empty.
        policy: The shop's rules.
        now: Time with a zone; nothing is planned before it.

    Raises:
        ActionError: A field of any input cannot be used.
    """
    check_policy(policy)
    check_customer(customer, now)
    for candidate in candidates:
        check_candidate(candidate)
    against: dict[int, str] = {}
    times: dict[int, dt.datetime] = {}
    for number, candidate in enumerate(candidates):
        if (candidate.channel, candidate.purpose) not in customer.consent:
            against[number] = f"no consent to {candidate.purpose} over {candidate.channel}"
        elif candidate.gain <= policy.least_gain:
            against[number] = f"adds {candidate.gain:.2f}, expected more than {policy.least_gain:.2f}"
        else:
            at = best_time(customer, candidate.channel, policy, now)
            if at is None:
                against[number] = (
                    f"no permitted hour over {candidate.channel} within {policy.horizon_hours} hours"
                )
            else:
                times[number] = at
    if not times:
        reason = "nothing to do" if not candidates else "no candidate is permitted and worth a contact"
        return Action(None, None, 0.0, reason, _refused(candidates, against))
    best = max(times, key=lambda number: (candidates[number].gain, -number))
    for number in times:
        if number != best:
            against[number] = f"adds {candidates[number].gain:.2f}, less than or equal to the chosen"
    chosen = candidates[best]
    reason = f"adds {chosen.gain:.2f}: {chosen.uplift:.4f} times {chosen.value:.2f}, less a cost of {chosen.cost:.2f}"
    return Action(chosen, times[best], chosen.gain, reason, _refused(candidates, against))


def best_time(customer: Customer, channel: str, policy: Policy, now: dt.datetime) -> dt.datetime | None:
    """The permitted moment with the highest weight of the local hour: now, or a full local hour within the horizon.

    Returns:
        A time in UTC, or None if none is permitted.
    """
    zone = zoneinfo.ZoneInfo(customer.zone)
    start = now.astimezone(dt.UTC)
    local = start.astimezone(zone)
    into = dt.timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
    moments = [start, *(start - into + step * HOUR for step in range(1, policy.horizon_hours + 1))]
    end = start + policy.horizon_hours * HOUR
    best: tuple[float, dt.datetime] | None = None
    for moment in moments:
        hour = moment.astimezone(zone).hour
        if moment > end or is_quiet(hour, policy) or not within_caps(customer, channel, policy, moment):
            continue
        if best is None or customer.hours[hour] > best[0]:
            best = (customer.hours[hour], moment)
    return None if best is None else best[1]


def is_quiet(hour: int, policy: Policy) -> bool:
    """Whether a local hour lies in the quiet ones, also over midnight."""
    start, stop = policy.quiet_from, policy.quiet_until
    if start <= stop:
        return start <= hour < stop
    return hour >= start or hour < stop


def within_caps(customer: Customer, channel: str, policy: Policy, moment: dt.datetime) -> bool:
    """Whether one more contact at a moment keeps every cap, with contacts planned shortly after it counted as well.

    A cap holds in every window of its length that contains the moment, also in those that end later.
    """
    for cap in policy.caps:
        if cap.channel is not None and cap.channel != channel:
            continue
        length = dt.timedelta(days=cap.days)
        near = sorted(
            at
            for at, over in customer.contacts
            if abs(at - moment) < length and (cap.channel is None or over == cap.channel)
        )
        ends = [moment, *(at for at in near if at > moment)]
        if any(1 + sum(end - length < at <= end for at in near) > cap.most for end in ends):
            return False
    return True


def _refused(
    candidates: Sequence[Candidate], against: Mapping[int, str]
) -> tuple[tuple[Candidate, str], ...]:
    return tuple((candidates[number], against[number]) for number in sorted(against))


def check_candidate(candidate: Candidate) -> None:
    """Refuse a candidate that cannot be weighed.

    Raises:
        ActionError: Naming the field.
    """
    if candidate.channel not in CHANNELS:
        raise ActionError(f"channel is '{candidate.channel}'; expected one of {', '.join(CHANNELS)}")
    if candidate.kind not in KINDS:
        raise ActionError(f"kind is '{candidate.kind}'; expected one of {', '.join(KINDS)}")
    if not -1 <= candidate.uplift <= 1:
        raise ActionError(
            f"uplift of '{candidate.subject}' is {candidate.uplift}; expected a number from -1 to 1"
        )
    if not math.isfinite(candidate.value):
        raise ActionError(f"value of '{candidate.subject}' is {candidate.value}; expected a finite amount")
    if not (math.isfinite(candidate.cost) and candidate.cost >= 0):
        raise ActionError(
            f"cost of '{candidate.subject}' is {candidate.cost}; expected a finite amount of at least 0"
        )


def check_customer(customer: Customer, now: dt.datetime) -> None:
    """Refuse limits that cannot be kept.

    Raises:
        ActionError: Naming the field.
    """
    if now.tzinfo is None:
        raise ActionError("now has no time zone; expected one")
    if any(at.tzinfo is None for at, _ in customer.contacts):
        raise ActionError("contacts hold a time without a time zone; expected one")
    if len(customer.hours) != 24 or not all(
        math.isfinite(weight) and weight >= 0 for weight in customer.hours
    ):
        raise ActionError(f"hours holds {len(customer.hours)} weights; expected 24 finite ones of at least 0")
    try:
        zoneinfo.ZoneInfo(customer.zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
        raise ActionError(
            f"zone is '{customer.zone}'; expected an IANA time zone such as Europe/Berlin"
        ) from error


def check_policy(policy: Policy) -> None:
    """Refuse rules that make no sense.

    Raises:
        ActionError: Naming the field.
    """
    for name in ("quiet_from", "quiet_until"):
        if not 0 <= getattr(policy, name) <= 23:
            raise ActionError(f"{name} is {getattr(policy, name)}; expected an hour from 0 to 23")
    if policy.horizon_hours < 1:
        raise ActionError(f"horizon_hours is {policy.horizon_hours}; expected at least 1")
    if not math.isfinite(policy.least_gain):
        raise ActionError(f"least_gain is {policy.least_gain}; expected a finite amount")
    for cap in policy.caps:
        if cap.most < 0 or not cap.days > 0:
            raise ActionError(
                f"cap of {cap.most} in {cap.days} days; expected at least 0 in more than 0 days"
            )
        if cap.channel is not None and cap.channel not in CHANNELS:
            raise ActionError(
                f"cap's channel is '{cap.channel}'; expected one of {', '.join(CHANNELS)} or none"
            )
