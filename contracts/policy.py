"""A shop's rules of contact: the section ``actions`` of its yaml.

Belongs here: types and the rules that types cannot state. Does not belong here: the choice under these rules
(`training/relationship/actions.py`).
"""

from __future__ import annotations

import zoneinfo
from typing import Annotated

import msgspec

from contracts.events import Channel, Purpose

Money = Annotated[float, msgspec.Meta(ge=0)]
Hour = Annotated[int, msgspec.Meta(ge=0, le=23)]
Days = Annotated[float, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class PolicyError(ValueError):
    """Rules that make no sense; the message names the key and what was expected."""


class ContactChannel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A channel over which the shop may contact people.

    Attributes:
        cost: Of one contact, in the shop's currency.
        reach: Kinds of identifiers of which a person must have one, such as ``email_sha256``.
        seen_on: Or channels of which a person must have used one, such as ``app`` for a push message.
        assumed_uplift: Change of the chance of a visit that the shop assumes where no trial has measured one; None:
            nothing is assumed, and a contact whose effect nobody knows is not made.
    """

    cost: Money
    reach: tuple[str, ...] = ()
    seen_on: tuple[Channel, ...] = ()
    assumed_uplift: Annotated[float, msgspec.Meta(ge=-1, le=1)] | None = None


class ContactCap(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """At most so many contacts of one person in a time that moves along.

    Attributes:
        most: Contacts.
        days: Length of the time.
        channel: The channel that it is about, or None for all together.
    """

    most: Annotated[int, msgspec.Meta(ge=0)]
    days: Days
    channel: Channel | None = None


class ActionPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When, how and whether at all the shop contacts people of its own accord.

    Attributes:
        channels: What may be used; none: nobody is ever contacted.
        caps: All of them hold, over contacts that the lake knows and those that were advised.
        quiet_from: Local hour at which quiet begins.
        quiet_until: Local hour at which it ends; before ``quiet_from`` on the next day, equal: no quiet.
        time_zone: IANA name of the zone that customers live in.
        purpose: What a person must have consented to.
        least_gain: A contact must be worth more than this, in the shop's currency.
        margin: Share of what is spent that is the shop's gain.
        horizon_hours: How far ahead a contact is planned; advice ends then.
        recovery_days: A bad moment that was not made good is answered for so many days.
        support_open: Whether support can take cases.
        restocks: Whether what is out of stock comes again.
    """

    channels: dict[Channel, ContactChannel] = {}
    caps: tuple[ContactCap, ...] = (ContactCap(most=1, days=1.0), ContactCap(most=3, days=7.0))
    quiet_from: Hour = 21
    quiet_until: Hour = 8
    time_zone: str = "UTC"
    purpose: Purpose = "marketing"
    least_gain: float = 0.0
    margin: Share = 0.4
    horizon_hours: Annotated[int, msgspec.Meta(ge=1, le=336)] = 48
    recovery_days: Days = 7.0
    support_open: bool = True
    restocks: bool = False


def check_policy(policy: ActionPolicy, file: str) -> None:
    """Apply the rules that types cannot state.

    Args:
        policy: The section.
        file: The yaml that it stands in.

    Raises:
        PolicyError: Naming the file, the key and what was expected there.
    """
    try:
        zoneinfo.ZoneInfo(policy.time_zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
        raise PolicyError(
            f"{file}: `$.actions.time_zone` is '{policy.time_zone}'; expected an IANA name such as Europe/Berlin"
        ) from error
    for name, channel in policy.channels.items():
        if not channel.reach and not channel.seen_on:
            raise PolicyError(
                f"{file}: `$.actions.channels.{name}` names neither reach nor seen_on; expected how a person is reached"
            )
