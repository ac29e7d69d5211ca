"""Sessions on web, app and marketplace, from the click that led there to the paid basket.

Belongs here: what happens inside one digital session, for all sessions of a day part at once. Does not
belong here: who comes (`visits.py`), what follows in later days (`aftermath.py`).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from training.rehearsal.catalogue import ADJECTIVES, COLOURS, TYPES, UNSOLD
from training.rehearsal.config import CONTACT_CHANNELS
from training.rehearsal.draws import Draws, Floats, Ints
from training.rehearsal.log import (
    ACT, CH, DEVICE, EMAIL, EMAIL_TWO, ERROR, FORM, MOMENT, PHONE, QUERY_BACKWARD, QUERY_DO, QUERY_FORWARD,
    QUERY_GO, RESULTS, SIZE, TP, Draft,
)  # fmt: skip
from training.rehearsal.people import Flags
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

WEB, APP_CHANNEL, STORE_CHANNEL, MARKETPLACE = range(4)
_CHANNELS = np.array([CH["web"], CH["app"], CH["store"], CH["marketplace"]])
_ADD = np.array([0.035, 0.03, 0.03, 0.27])
_REVIEWS = np.array([0.3, 0.02, 0.04, 0.03])
_SEARCH = np.array([0.5, 0.12, 0.4, 0.42])
CHECKOUT_STEP = 1e6
_EMAIL, _SMS, _PUSH = (CONTACT_CHANNELS.index(name) for name in ("email", "sms", "push"))


@dataclasses.dataclass
class Sessions:
    """Sessions of one day part, arrays ``[S]``; each person occurs once.

    Attributes:
        person: Who.
        key: Key of the draws.
        start: First instant, microseconds.
        channel: Index in (web, app, store, marketplace).
        entry: Contact channel that was clicked, -1 for none.
        need: Index in NEEDS.
        wanted: Product type.
        cause: Bit mask of channels without whose contacts the session would not have happened.
        number: Session's number.
    """

    person: Ints
    key: Ints
    start: Ints
    channel: Ints
    entry: Ints
    need: Ints
    wanted: Ints
    cause: Ints
    number: Ints

    def take(self, rows: Flags) -> Sessions:
        """Some of them."""
        return Sessions(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))


def play(world: World, s: Sessions, draws: Draws, day: int) -> None:
    """Write the events of the sessions and change state and shelves."""
    if not len(s.person):
        return
    every = np.arange(len(s.person))
    state, people = world.state, world.people
    slot = np.where(s.channel == APP_CHANNEL, APP, (draws.uniform("laptop", s.key) < 0.4).astype(np.int64))
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
        s.start, s.key, person=s.person, session=s.number, channel=_CHANNELS[s.channel],
        device=np.where(market, -1, dev),
    )  # fmt: skip
    _enter(draft, s, every, market)
    grim = _search(world, draft, s, draws)
    error = _errors(world, draft, s, draws)
    at, added, product, price, mood = _views(world, draft, s, draws)
    state.mood[s.person] += mood - 0.1 * grim - 0.2 * error
    bought = _checkout(world, draft, s, draws, day, at, added, product, price, error, login, shared)
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


def _search(world: World, draft: Draft, s: Sessions, draws: Draws) -> Floats:
    """Searches before the views; returns how many of them found nothing, by session."""
    searches = (draws.uniform("search", s.key) < _SEARCH[s.need]) & (s.channel != MARKETPLACE)
    at = np.flatnonzero(searches)
    key = s.key[at]
    kind = s.wanted[at].copy()
    unsold = draws.uniform("unsold", key) < 0.05
    kind[unsold] = len(TYPES) + draws.below("unsold word", key[unsold], len(UNSOLD))
    likes = world.style.colours[world.people.archetype[s.person[at], 0]]
    pick = draws.uniform("adjective", key)
    colour = draws.choice("query colour", key, likes)
    pattern = len(COLOURS) + draws.below("query pattern", key, len(ADJECTIVES) - len(COLOURS))
    adjective = np.where(pick < 0.5, colour, np.where(pick < 0.66, pattern, -1))
    mode = np.full(len(at), QUERY_FORWARD)
    go, do = s.need[at] == GO, (s.need[at] == DO) & ~unsold
    mode[go], mode[do] = QUERY_GO, QUERY_DO
    adjective[go | do] = -1
    visual = (s.channel[at] == APP_CHANNEL) & ~go & ~do & ~unsold & (draws.uniform("photo", key) < 0.12)
    voice = (s.channel[at] == APP_CHANNEL) & ~visual & (draws.uniform("voice", key) < 0.1)
    found = np.where(go | do, 3, _found(world, kind, adjective))
    found[visual] = 24
    action = np.where(visual, ACT["visual_search"], np.where(voice, ACT["voice_search"], ACT["search"]))
    draft.add(
        at, 4, action=action, touchpoint=TP["results"], query_type=np.where(visual, -1, kind),
        query_adjective=np.where(visual, -1, adjective), query_mode=np.where(visual, -1, mode),
        media=np.where(visual, key, -1), detail=RESULTS, a=found,
    )  # fmt: skip
    again = ~visual & (draws.uniform("again", key) < np.where(found == 0, 0.6, 0.05))
    at2, kind2, adjective2, mode2, key2 = at[again], kind[again], adjective[again], mode[again], key[again]
    how = draws.uniform("how again", key2)
    adjective2 = np.where((how < 0.4) & (mode2 == QUERY_FORWARD), -1, adjective2)
    mode2 = np.where((how > 0.75) & (mode2 == QUERY_FORWARD) & (adjective2 >= 0), QUERY_BACKWARD, mode2)
    found2 = np.where(mode2 >= QUERY_GO, 3, _found(world, kind2, adjective2))
    draft.add(
        at2, 5, action=ACT["search"], touchpoint=TP["results"], query_type=kind2, query_adjective=adjective2,
        query_mode=mode2, detail=RESULTS, a=found2,
    )  # fmt: skip
    second = draws.uniform("another", key) < 0.08
    at3, key3 = at[second], key[second]
    kind3 = (s.wanted[at3] + 1 + draws.below("another type", key3, len(TYPES) - 1)) % len(TYPES)
    draft.add(
        at3, 35, action=ACT["search"], touchpoint=TP["results"], query_type=kind3, query_mode=QUERY_FORWARD,
        detail=RESULTS, a=_found(world, kind3, np.full(len(at3), -1)),
    )  # fmt: skip
    grim = np.zeros(len(s.person))
    np.add.at(grim, at, found == 0)
    np.add.at(grim, at2, found2 == 0)
    return grim


def _found(world: World, kind: Ints, adjective: Ints) -> Ints:
    shop = world.shop
    sold = kind < len(TYPES)
    safe = np.where(sold, kind, 0)
    whole = np.diff(shop.first_of)[safe]
    return np.where(sold, np.where(adjective < 0, whole, shop.found[safe, np.maximum(adjective, 0)]), 0)


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
    length = np.exp(1.25 + 0.9 * draws.normal("length", s.key)) * np.array([1.1, 0.4, 0.6, 1.1])[s.need]
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
    _evidence(draft, s, draws)
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
    adds = wants & ~gone
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


def _evidence(draft: Draft, s: Sessions, draws: Draws) -> None:
    """Page types that tell a want to go or to do."""
    shows = (draws.uniform("shows", s.key) < 0.9) & (s.channel != MARKETPLACE)
    at = np.flatnonzero(shows & (s.need == GO))
    draft.add(at, 7, action=ACT["view"], touchpoint=TP["store-finder"])
    at = np.flatnonzero(shows & (s.need == DO))
    draft.add(at, 7, 2.0, action=ACT["view"], touchpoint=TP["guide"], product=GUIDE + s.wanted[at])


GUIDE = 10_000_000
"""Product codes of guides begin here, so that they do not depend on the catalogue's size."""


def _checkout(
    world: World, draft: Draft, s: Sessions, draws: Draws, day: int, at: Ints, added: Flags, product: Ints,
    price: Floats, error: Flags, login: Floats, shared: Flags,
) -> Flags:  # fmt: skip
    """Baskets that are paid; changes `login` in place and returns which sessions bought."""
    people, state = world.people, world.state
    basket = np.bincount(at, added, len(s.person)) > 0
    lift = state.boost[s.person][:, [_EMAIL, _SMS]].sum(axis=1) * 0.3
    chance = 0.62 * np.exp(0.4 * state.mood[s.person]) * np.where(error, 0.4, 1.0)
    luck = draws.uniform("pay", s.key)
    goes = basket & (draws.uniform("to checkout", s.key) < 0.85)
    pays = goes & (luck < chance * (1 + np.clip(lift, -0.3, 1)))
    cause = s.cause.copy()
    for channel in (_EMAIL, _SMS):
        without = lift - 0.3 * state.boost[s.person, channel]
        cause |= np.where(pays & (luck >= chance * (1 + np.clip(without, -0.3, 1))), 1 << channel, 0)
    market = s.channel == MARKETPLACE
    has = state.account[s.person] & ~market
    late_login = goes & has & ~np.isfinite(login)
    login[late_login] = CHECKOUT_STEP - 0.5
    opens = pays & ~has & ~market & people.account[s.person] & (draws.uniform("open account", s.key) < 0.6)
    rows = np.flatnonzero(opens)
    draft.add(
        rows, CHECKOUT_STEP - 0.5, 1.5, action=ACT["subscribe"], touchpoint=TP["account"], detail=FORM,
        ids=EMAIL, a=s.key[rows], b=day,
    )  # fmt: skip
    login[opens] = CHECKOUT_STEP - 0.5
    state.account[s.person[opens]] = True
    guest = goes & ~np.isfinite(login) & ~market
    mail = np.where(people.second_email[s.person], EMAIL_TWO, EMAIL)
    ids = np.where(guest, mail, np.where(market, PHONE, 0))
    rows = np.flatnonzero(goes)
    draft.add(
        rows, CHECKOUT_STEP, action=ACT["checkout"], touchpoint=TP["checkout"], ids=ids[rows],
        detail=np.where(guest[rows], FORM, 0), a=s.key[rows], b=day,
    )  # fmt: skip
    lines = np.flatnonzero(added & pays[at])
    row = at[lines]
    order = np.concatenate([[True], row[1:] != row[:-1]]) if len(row) else np.empty(0, bool)
    two = draws.uniform("two", s.key[row] * 128 + lines % 128) < 0.04
    quantity = 1 + two
    paid = price[lines]
    draft.add(
        row, CHECKOUT_STEP + 1, np.where(order, 1.0, 0.0), action=ACT["purchase"], touchpoint=TP["checkout"],
        product=product[lines], price=paid, quantity=quantity, ids=ids[row], cause=cause[row],
        discount=np.maximum(world.shop.base_price[product[lines]] - paid, 0),
        detail=SIZE, a=world.size_of(s.person[row], product[lines]),
    )  # fmt: skip
    world.sell(s.person[row], product[lines], quantity, paid)
    state.mood[s.person[pays]] += 0.1
    world.orders.place(s, draws, day, row, product[lines], paid, guest)
    return pays
