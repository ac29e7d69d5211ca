"""Sessions on web, app and marketplace, from the click that led there to the paid basket.

Belongs here: what happens inside one digital session, for all sessions of a day part at once. Does not
belong here: who comes (`visits.py`), what follows in later days (`aftermath.py`).
"""

from __future__ import annotations

import numpy as np

from training.rehearsal import basket, searching
from training.rehearsal.config import CONTACT_CHANNELS
from training.rehearsal.draws import Draws, Floats, Ints
from training.rehearsal.log import (
    ACT,
    CH,
    DEVICE,
    EMAIL,
    ERROR,
    MOMENT,
    PHONE,
    SIZE,
    TP,
    Draft,
)  # fmt: skip
from training.rehearsal.people import Flags
from training.rehearsal.sessions import APP as ON_APP
from training.rehearsal.sessions import CODES, GUIDE, MARKETPLACE, WEB, Sessions
from training.rehearsal.state import (
    APP,
    BUY,
    DO,
    GO,
    HOUSEHOLD,
    KNOW,
    LAPTOP_BROWSER,
    device,
    remember,
    settle,
)
from training.rehearsal.world import World

_ADD = np.array([0.06, 0.04, 0.04, 0.42])
_REVIEWS = np.array([0.3, 0.02, 0.04, 0.03])
_EMAIL, _SMS, _PUSH = (CONTACT_CHANNELS.index(name) for name in ("email", "sms", "push"))


def play(world: World, s: Sessions, draws: Draws, day: int) -> None:
    """Write the events of the sessions and change state and shelves."""
    if not len(s.person):
        return
    every = np.arange(len(s.person))
    state, people = world.state, world.people
    slot = np.where(s.channel == ON_APP, APP, (draws.uniform("laptop", s.key) < 0.4).astype(np.int64))
    shared = people.shared_device[s.person] & (s.channel == WEB) & (draws.uniform("tablet", s.key) < 0.22)
    own = device(slot, s.person, np.where(slot < APP, state.cookie[s.person, np.minimum(slot, 1)], 0))
    home = people.household[s.person]
    tablet = device(HOUSEHOLD, home, state.household_cookie[home])
    dev = np.where(shared, tablet, own)
    browser = (s.channel == WEB) & ~shared
    known = np.where(
        slot == APP,
        state.account[s.person],
        state.logged[s.person, np.minimum(slot, LAPTOP_BROWSER)] & browser,
    )
    login = np.where(known, -np.inf, np.inf)
    logs_in = ~known & state.account[s.person] & (s.channel == WEB) & (draws.uniform("login", s.key) < 0.3)
    login[logs_in] = 3.0
    market = s.channel == MARKETPLACE
    login[market] = np.inf
    draft = Draft(
        s.start, s.key, person=s.person, session=s.number, channel=CODES[s.channel],
        device=np.where(market, -1, dev),
    )  # fmt: skip
    _enter(draft, s, every, market)
    grim = searching.play(world, draft, s, draws)
    error = _errors(world, draft, s, draws)
    at, added, product, price, mood = _views(world, draft, s, draws)
    state.mood[s.person] += mood - 0.1 * grim - 0.2 * error
    bought = basket.play(world, draft, s, draws, day, at, added, product, price, error, login)
    remembers = browser & np.isfinite(login)
    state.logged[s.person[remembers], slot[remembers]] = True
    draft.finish(world.log, draws, login, np.where(market, 0, DEVICE))
    settle(state, people, draws, s.person, s.key, bought, day)


def _enter(draft: Draft, s: Sessions, every: Ints, market: Flags) -> None:
    clicked = every[s.entry >= 0]
    entry = s.entry[clicked]
    channels = np.array([CH[name] for name in CONTACT_CHANNELS])[entry]
    place = np.array([TP[name] for name in (
        "newsletter", "message", "notification", "letter", "post", "ad", "ad", "friend")])[entry]  # fmt: skip
    ids = np.where(entry == _EMAIL, EMAIL, np.where(entry == _SMS, PHONE, 0))
    draft.add(clicked, 0, channel=channels, action=ACT["click"], touchpoint=place, ids=ids)
    draft.add(every[~market], 1, 0.2, action=ACT["visit"], touchpoint=TP["home"])


def _errors(world: World, draft: Draft, s: Sessions, draws: Draws) -> Flags:
    error = (draws.uniform("error", s.key) < 0.02) & (s.channel != MARKETPLACE)
    silent = draws.uniform("silent error", s.key) < world.config.silent_share
    at = np.flatnonzero(error & ~silent)
    code = np.array([500, 502, 504, 404])[draws.below("code", s.key[at], 4)]
    draft.add(at, 25, 0.3, action=ACT["error"], touchpoint=TP["checkout"], detail=ERROR, a=code)
    world.hide(s.number[error & silent], MOMENT["error"])
    return error


def _views(world: World, draft: Draft, s: Sessions, draws: Draws) -> tuple[Ints, Flags, Ints, Floats, Floats]:
    """Product views and what comes with them.

    Returns:
        Of all views: session row, whether it went into the basket, product, price; and the change of mood
        by session.
    """
    people, state, shop = world.people, world.state, world.shop
    bounce = draws.uniform("bounce", s.key) < 0.28
    length = np.exp(1.0 + 0.9 * draws.normal("length", s.key)) * np.array([1.1, 0.4, 0.6, 1.1])[s.need]
    many = np.where(bounce, draws.below("one", s.key, 2), np.minimum(1 + length.astype(np.int64), 80))
    at = np.repeat(np.arange(len(s.person)), many)
    begin = np.cumsum(many) - many
    rank = np.arange(len(at)) - np.repeat(begin, many)
    key = s.key[at] * 128 + rank
    who = s.person[at]
    focus = np.where(state.need[s.person] >= 0, 0.78, 0.45)[at]
    product = world.choose(draws, key, who, np.where(draws.uniform("focus", key) < focus, s.wanted[at], -1))
    memory = state.seen[who, draws.below("which memory", key, state.seen.shape[1])]
    again = (memory >= 0) & (draws.uniform("revisit", key) < 0.16)
    product = np.where(again, memory, product)
    price = shop.price[product]
    step = 10.0 * (rank + 1)
    draft.add(at, step, action=ACT["view"], touchpoint=TP["product"], product=product, price=price)
    remembered = state.seen[who] == product[:, None]
    before = np.where(remembered, state.seen_price[who], 0).max(axis=1)
    shocked = (before > 0) & (price > 1.05 * before)
    need = s.need[at]
    reads = draws.uniform("reads", key) < _REVIEWS[need]
    size_guide = draws.uniform("size guide", key) < 0.3
    draft.add(
        at[reads], step[reads] + 1, 1.5, action=ACT["view"], product=product[reads],
        touchpoint=np.where(size_guide[reads], TP["size-guide"], TP["reviews"]),
    )  # fmt: skip
    _evidence(world, draft, s, draws)
    dear = np.maximum(np.log(price / world.typical[product]) - people.price_level[who] - 0.1, 0)
    appetite = _ADD[need] * np.exp(0.6 * state.mood[who] - people.thrift[who] * dear)
    appetite *= np.where(shocked, 0.35, 1.0) * np.where(again, 1.5, 1.0)
    appetite *= np.where(price > state.budget[who], 0.4, 1.0)
    wants = draws.uniform("wants", key) < appetite
    size = world.size_of(who, product)
    gone = wants & (shop.stock[product, size] <= 0)
    silent = gone & (draws.uniform("silent stock-out", key) < world.config.silent_share)
    told = gone & ~silent
    draft.add(
        at[told], step[told] + 2, 0.4, action=ACT["stockout"], touchpoint=TP["product"], product=product[told],
        price=price[told], detail=SIZE, a=size[told],
    )  # fmt: skip
    world.hide(s.number[at[silent]], MOMENT["out_of_stock"])
    _, first = np.unique(at * len(shop) + product, return_index=True)
    fresh = np.zeros(len(at), bool)
    fresh[first] = True
    adds = wants & ~gone & fresh
    draft.add(
        at[adds], step[adds] + 2, 0.5, action=ACT["add_to_cart"], touchpoint=TP["product"],
        product=product[adds], price=price[adds], quantity=1, detail=SIZE, a=size[adds],
    )  # fmt: skip
    dropped = adds & (draws.uniform("drop", key) < 0.07)
    draft.add(
        at[dropped],
        step[dropped] + 3,
        action=ACT["remove_from_cart"],
        touchpoint=TP["cart"],
        product=product[dropped],
    )
    likes = ~wants & (draws.uniform("wish", key) < 0.03) & (s.channel[at] != MARKETPLACE)
    draft.add(
        at[likes],
        step[likes] + 2,
        0.3,
        action=ACT["wishlist"],
        touchpoint=TP["product"],
        product=product[likes],
    )
    mood = np.zeros(len(s.person))
    np.add.at(mood, at, -0.25 * gone - 0.1 * shocked)
    last = begin[many > 0] + many[many > 0] - 1
    remember(state, who[last], product[last], price[last])
    wanted_in_vain = (s.need == BUY) & (np.bincount(at, wants, len(s.person)) == 0)
    world.hide(s.number[wanted_in_vain], MOMENT["want_to_buy"])
    unread = (s.need == KNOW) & (np.bincount(at, reads, len(s.person)) == 0)
    world.hide(s.number[unread], MOMENT["want_to_know"])
    return at, adds & ~dropped, product, price, mood


def _evidence(world: World, draft: Draft, s: Sessions, draws: Draws) -> None:
    """Page types that tell a want to go or to do."""
    shows = (draws.uniform("shows", s.key) < 0.9) & (s.channel != MARKETPLACE)
    for need, kind in ((GO, "want_to_go"), (DO, "want_to_do")):
        world.hide(s.number[~shows & (s.need == need)], MOMENT[kind])
    at = np.flatnonzero(shows & (s.need == GO))
    draft.add(at, 7, action=ACT["view"], touchpoint=TP["store-finder"])
    at = np.flatnonzero(shows & (s.need == DO))
    draft.add(at, 7, 2.0, action=ACT["view"], touchpoint=TP["guide"], product=GUIDE + s.wanted[at])
