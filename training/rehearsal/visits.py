"""Who comes when, over which channel, and because of what.

Belongs here: the decision to visit, its counterfactuals, the choice of channel and entry. Does not belong
here: what happens in the session.
"""

from __future__ import annotations

import numpy as np

from training.rehearsal import digital, store
from training.rehearsal.aftermath import HOUR
from training.rehearsal.config import CONTACT_CHANNELS
from training.rehearsal.draws import Draws, Floats, Ints
from training.rehearsal.people import Flags
from training.rehearsal.sessions import APP, MARKETPLACE, STORE, WEB, Sessions
from training.rehearsal.state import BUY, DO, GO, KNOW
from training.rehearsal.world import World

PARTS = ((7.0, 4.5, 0.25), (12.5, 4.5, 0.33), (17.5, 5.0, 0.42))
"""Parts of a day: first hour (UTC), length in hours, share of visits."""

INCREMENTAL = {"search": 0.12, "affiliate": 0.3}
"""Share of the visits through a paid link that would not have happened without it; the rest would have come
directly, which is what last-touch attribution overlooks."""

_EMAIL, _SMS, _PUSH, _MAIL, _SOCIAL, _SEARCH, _AFFILIATE, _REFERRAL = range(8)
_WEEK = np.array([1.0, 0.95, 0.95, 1.0, 1.1, 1.25, 1.05])


def pull(boost: Floats) -> Floats:
    """Factor on the visit rate by what past contacts left, ``[..., channels]`` to ``[...]``."""
    return np.clip(np.prod(np.clip(1 + boost, 0.3, None), axis=-1), 0.2, 5.0)


def hazard(world: World, day: int) -> Floats:
    """float64[N], expected visits on a day without any contact."""
    state, people = world.state, world.people
    weekday = (world.config.first_day.toordinal() + day - 1) % 7
    wave = 1 + 0.12 * np.cos(2 * np.pi * (world.config.first_day.timetuple().tm_yday + day - 335) / 365.25)
    eager = np.where(state.need >= 0, np.where(state.need == BUY, 2.6, 1.9), 0.8)
    return state.active * people.rate * np.exp(np.clip(state.mood, -2, 0.6)) * eager * _WEEK[weekday] * wave


def play(world: World, draws: Draws, day: int, midnight: int) -> None:
    """All visits of a day, part by part."""
    number = np.arange(len(world.people))
    for part, (begin, hours, share) in enumerate(PARTS):
        key = number * 4 + part
        rate = hazard(world, day) * share
        boost = world.state.boost
        luck = draws.uniform("visit", key)
        comes = luck < -np.expm1(-rate * pull(boost))
        _note_prevented(world, rate, boost, luck, comes)
        planned = world.state.active & (world.state.store_plan == day) & (part == 1)
        who = np.flatnonzero(comes | planned)
        cause = _causes(rate[who], boost[who], luck[who], planned[who])
        start = midnight + ((begin + hours * draws.uniform("hour", key[who])) * HOUR).astype(np.int64)
        sessions = _sessions(world, draws, day, part, who, key[who], start, cause, planned[who])
        online = sessions.channel != STORE
        digital.play(world, sessions.take(online), draws, day)
        store.play(world, sessions.take(~online), draws, day)


def _note_prevented(world: World, rate: Floats, boost: Floats, luck: Floats, comes: Flags) -> None:
    """Count the visits that did not happen because a contact put someone off."""
    for channel in range(len(CONTACT_CHANNELS)):
        put_off = np.flatnonzero((boost[:, channel] < 0) & ~comes)
        without = boost[put_off].copy()
        without[:, channel] = 0
        lost = luck[put_off] < -np.expm1(-rate[put_off] * pull(without))
        world.prevented[channel, 0] += lost.sum()


def _causes(rate: Floats, boost: Floats, luck: Floats, planned: Flags) -> Ints:
    cause = np.zeros(len(rate), np.int64)
    for channel in range(len(CONTACT_CHANNELS)):
        touched = boost[:, channel] > 0
        if touched.any():
            without = boost.copy()
            without[:, channel] = 0
            needs = touched & ~planned & (luck >= -np.expm1(-rate * pull(without)))
            cause |= np.where(needs, 1 << channel, 0)
    return cause


def _sessions(
    world: World,
    draws: Draws,
    day: int,
    part: int,
    who: Ints,
    key: Ints,
    start: Ints,
    cause: Ints,
    planned: Flags,
) -> Sessions:
    state, people = world.state, world.people
    stage = state.need[who]
    idle = stage < 0
    whim = draws.choice("whim", key, [0.74, 0.05, 0.06, 0.15])
    strays = draws.uniform("strays", key) < 0.08
    need = np.where(idle | strays, whim, stage)
    style = people.archetype[who, 0]
    casual = draws.choice("casual", key, world.style.types[style])
    wanted = np.where(idle, casual, np.maximum(state.wanted[who], 0))
    lured = idle & (state.coupon_until[who] >= day) & (draws.uniform("lured", key) < 0.35)
    wanted = np.where(lured, state.coupon_kind[who], wanted)
    weight = people.channel[who].copy()
    weight[:, STORE] *= np.select([need == BUY, (need == GO) | (need == DO)], [1.2, 0.1], 0.45)
    weight[:, MARKETPLACE] *= np.where(need == BUY, 1.5, 0.5)
    weight[:, APP] *= np.where(state.account[who], 1.4, 0.3)
    channel = np.where(planned, STORE, draws.choice("channel", key, weight))
    need = np.where((channel == STORE) & (need != BUY), np.where(planned, BUY, KNOW), need)
    entry = _entries(world, draws, who, key, channel, need)
    depends = draws.uniform("depends", key)
    dropped = np.zeros(len(who), bool)
    for name, share in INCREMENTAL.items():
        index = CONTACT_CHANNELS.index(name)
        through = entry == index
        cause |= np.where(through & (depends < share), 1 << index, 0)
        if name in world.config.silenced:
            dropped |= through & (depends < share)
            entry = np.where(through, -1, entry)
    since = np.where(idle | (need != stage), -1, state.since[who])[~dropped]
    number = world.session_number(who, part)
    sessions = Sessions(who, key, start, channel, entry, need, wanted, cause, number).take(~dropped)
    world.needs.append(
        {
            "session": sessions.number, "person": sessions.person, "started": sessions.start,
            "channel": sessions.channel, "need": sessions.need, "wanted": sessions.wanted, "since": since,
            "cause": sessions.cause,
        }
    )  # fmt: skip
    return sessions


def _entries(world: World, draws: Draws, who: Ints, key: Ints, channel: Ints, need: Ints) -> Ints:
    """Contact channel through which a digital session begins, -1 for directly."""
    boost = np.clip(world.state.boost[who], 0, 2)
    web, app = channel == WEB, channel == APP
    asks = np.isin(need, (KNOW, BUY))
    weight = np.zeros((len(who), len(CONTACT_CHANNELS) + 1))
    for index in (_EMAIL, _SMS, _SOCIAL, _REFERRAL):
        weight[:, index] = np.where(web, 1.6 * boost[:, index], 0)
    weight[:, _PUSH] = np.where(app, 1.6 * boost[:, _PUSH], 0)
    weight[:, _SEARCH] = np.where(web, np.where(asks, 0.4, 0.15), 0)
    weight[:, _AFFILIATE] = np.where(web, 0.05, 0)
    weight[:, -1] = 1
    entry = draws.choice("entry", key, weight)
    return np.where(entry == len(CONTACT_CHANNELS), -1, entry)
