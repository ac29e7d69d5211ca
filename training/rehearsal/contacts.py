"""What the shop sends: campaigns with a random holdout over its own channels, and advertisements.

Belongs here: audiences, assignment, sending, the known effect. Does not belong here: the visits that
follow (`visits.py`).
"""

from __future__ import annotations

import numpy as np

from training.rehearsal import visits
from training.rehearsal.aftermath import HOUR
from training.rehearsal.catalogue import TYPES
from training.rehearsal.config import CONTACT_CHANNELS
from training.rehearsal.draws import Draws, Floats, Ints
from training.rehearsal.log import ACT, CAMPAIGN, CH, CUSTOMER, DEVICE, EMAIL, PHONE, TP
from training.rehearsal.people import Flags
from training.rehearsal.state import device
from training.rehearsal.world import World

RHYTHM = {"email": (7, 2), "push": (10, 4), "sms": (21, 9), "direct_mail": (28, 6)}
"""Own channels: a campaign every so many days, from that day on."""

COUPON_DAYS = {"email": 6, "direct_mail": 21}
"""Campaigns that bring a coupon for one product type, and how long it is good for."""

EFFECT_DAYS = 7
DECAY = 0.72
"""What is left of a contact's lift after a night (`state.wake`)."""

_OPENS = {"email": 0.34, "push": 0.12, "sms": 1.0, "direct_mail": 1.0}
_UNREAD = 0.15
"""Share of its lift that a contact has although it was not opened."""

_PLACE = {"email": "newsletter", "push": "notification", "sms": "message", "direct_mail": "letter"}
_IDS = {"email": EMAIL, "push": CUSTOMER | DEVICE, "sms": PHONE, "direct_mail": CUSTOMER}
_SOCIAL = CONTACT_CHANNELS.index("social")


def play(world: World, draws: Draws, day: int, midnight: int) -> None:
    """Send what is due on a day."""
    for channel, (every, offset) in RHYTHM.items():
        if day % every == offset % every and channel not in world.config.silenced:
            _campaign(world, draws, day, midnight, channel)
    if "social" not in world.config.silenced:
        _advertise(world, draws, day, midnight)


def effect_on_visit(world: World, who: Ints, day: int, channel: int, strength: float) -> Floats:
    """True effect of one contact on the probability of a visit in the coming seven days, as hazards stand.

    Args:
        world: The world at the moment of sending.
        who: int64[E], persons.
        day: Number of the day.
        channel: Index in CONTACT_CHANNELS.
        strength: Factor on the person's lift.
    """
    rate = visits.hazard(world, day)[who]
    boost = world.state.boost[who]
    bare, sent = np.zeros(len(who)), np.zeros(len(who))
    contact = boost.copy()
    contact[:, channel] += strength * world.people.lift[who, channel]
    for night in range(EFFECT_DAYS):
        bare += rate * visits.pull(boost * DECAY**night)
        sent += rate * visits.pull(contact * DECAY**night)
    return np.exp(-bare) - np.exp(-sent)


def _campaign(world: World, draws: Draws, day: int, midnight: int, channel: str) -> None:
    index = CONTACT_CHANNELS.index(channel)
    state, people = world.state, world.people
    number = np.arange(len(people))
    audience = state.active & state.opted[:, index] & (draws.uniform(f"audience {channel}", number) < 0.75)
    if channel in ("push", "direct_mail", "email"):
        audience &= state.account
    who = np.flatnonzero(audience)
    treated = draws.uniform(f"holdout {channel}", who) >= world.config.holdout
    opens = draws.uniform(f"opens {channel}", who) < _OPENS[channel]
    share = _OPENS[channel]
    effect = share * effect_on_visit(world, who, day, index, 1.0)
    if share < 1:
        effect += (1 - share) * effect_on_visit(world, who, day, index, _UNREAD)
    sent = midnight + (6 * HOUR + 2 * HOUR * draws.uniform(f"sent {channel}", who)).astype(np.int64)
    campaign = len(world.campaigns)
    theme = int(draws.below(f"theme {channel}", [day], len(TYPES))[0])
    world.campaigns.append(
        {
            "channel": channel,
            "day": day,
            "person": who,
            "treated": treated,
            "sent": sent,
            "effect": effect,
            "theme": theme,
        }
    )
    got = who[treated]
    if channel in COUPON_DAYS:
        state.coupon[got], state.coupon_until[got] = campaign, day + COUPON_DAYS[channel]
        state.coupon_kind[got] = theme
    state.boost[got, index] += np.where(opens[treated], 1.0, _UNREAD) * people.lift[got, index]
    _write(world, draws, channel, campaign, got, sent[treated], opens[treated])


def _write(
    world: World, draws: Draws, channel: str, campaign: int, who: Ints, sent: Ints, opens: Flags
) -> None:
    phone = device(2, who, 0)
    common = {
        "channel": CH[channel],
        "touchpoint": TP[_PLACE[channel]],
        "ids": _IDS[channel],
        "detail": CAMPAIGN,
    }
    carries = phone if channel == "push" else np.full(len(who), -1)
    world.log.add(time=sent, person=who, action=ACT["impression"], device=carries, a=campaign, **common)
    if channel in ("email", "push"):
        later = sent + (np.exp(8.0 + 1.2 * draws.normal(f"read {channel}", who)) * 1e6).astype(np.int64)
        rows = np.flatnonzero(opens)
        world.log.add(
            time=later[rows], person=who[rows], action=ACT["open"], device=carries[rows], a=campaign, **common
        )
    if channel == "push":
        rows = np.flatnonzero(~opens & (draws.uniform("dismiss", who) < 0.35))
        world.log.add(
            time=sent[rows] + HOUR, person=who[rows], action=ACT["dismiss"], device=carries[rows], a=campaign,
            **common,
        )  # fmt: skip
    if channel in ("email", "sms"):
        index = CONTACT_CHANNELS.index(channel)
        tired = np.exp(-world.state.mood[who] - world.people.lift[who, index])
        rows = np.flatnonzero(draws.uniform(f"tired {channel}", who) < 0.003 * tired)
        world.log.add(
            time=sent[rows] + 2 * HOUR, person=who[rows], action=ACT["unsubscribe"], a=campaign, **common
        )
        world.state.opted[who[rows], index] = False


def _advertise(world: World, draws: Draws, day: int, midnight: int) -> None:
    """Posts on social networks reach one in twenty-five people a day, at random."""
    state = world.state
    who = np.flatnonzero(state.active & (draws.uniform("post", np.arange(len(world.people))) < 0.04))
    at = midnight + ((8 + 14 * draws.uniform("scroll", who)) * HOUR).astype(np.int64)
    world.log.add(
        time=at, person=who, channel=CH["social"], action=ACT["impression"], touchpoint=TP["post"],
        ids=DEVICE, device=device(0, who, state.cookie[who, 0]),
    )  # fmt: skip
    state.boost[who, _SOCIAL] += 0.6 * world.people.lift[who, _SOCIAL]
