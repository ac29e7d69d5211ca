"""What changes about a shopper from day to day: mood, memory, open need, cookies, plans.

Belongs here: the mutable arrays and their daily drift. Does not belong here: what a session does to them.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from training.rehearsal.config import CONTACT_CHANNELS, AtelierConfig
from training.rehearsal.draws import Draws, Floats, Ints
from training.rehearsal.people import Flags, People

NEEDS: tuple[str, ...] = ("want_to_know", "want_to_go", "want_to_do", "want_to_buy")
KNOW, GO, DO, BUY = range(4)

MEMORY = 8
"""Products a person remembers having looked at, with the price seen."""

_NEXT_NEED = np.array(
    [[0.42, 0.14, 0.10, 0.34], [0.12, 0.28, 0.04, 0.56], [0.22, 0.10, 0.30, 0.38], [0.14, 0.10, 0.02, 0.74]]
)
"""What a person wants after a session that did not settle the need, by what they wanted in it."""

PHONE_BROWSER, LAPTOP_BROWSER, APP, HOUSEHOLD, KIOSK_DEVICE = range(5)


@dataclasses.dataclass
class State:
    """Arrays ``[N]`` unless said otherwise.

    Attributes:
        mood: Around 0; below: visits less, buys less, leaves sooner.
        active: Has joined and not left.
        churned: Day of leaving, -1 while active.
        need: Stage of the open need (index in NEEDS), -1 for none.
        wanted: Product type of the open need.
        since: Day on which it arose.
        boost: float64[N, contact channels], what is left of the lift of past contacts.
        seen: int64[N, MEMORY] products and ``seen_price``, newest first; -1 for none.
        cookie: int64[N, 2], generation of the two browsers' cookies; ``logged`` whether they know the login.
        household_cookie: Generation of the shared device, by household.
        account: Has a login by now; ``card`` a loyalty card.
        budget: Money left this month.
        store_plan: Day on which a store visit is planned, -1 for none.
        support_plan: Day on which support will be contacted, -1 for none; ``grief`` whether to complain.
        told: Day of the last word of mouth received, -99 for none.
        opted: bool[N, contact channels], as `People.opted` until someone unsubscribes.
        coupon: Campaign of the newest coupon, -1 for none; good up to ``coupon_until`` (a day) for products
            of type ``coupon_kind``.
    """

    mood: Floats
    active: Flags
    churned: Ints
    need: Ints
    wanted: Ints
    since: Ints
    boost: Floats
    seen: Ints
    seen_price: Floats
    cookie: Ints
    logged: Flags
    household_cookie: Ints
    account: Flags
    card: Flags
    budget: Floats
    store_plan: Ints
    support_plan: Ints
    grief: Flags
    told: Ints
    opted: Flags
    coupon: Ints
    coupon_until: Ints
    coupon_kind: Ints


def begin(people: People, draws: Draws) -> State:
    """The state before the first day; most accounts and cards exist already."""
    total = len(people)
    number = np.arange(total)
    has_account = people.account & (people.joined == 0) & (draws.uniform("has account", number) < 0.8)
    return State(
        mood=np.zeros(total), active=np.zeros(total, bool), churned=np.full(total, -1),
        need=np.full(total, -1), wanted=np.full(total, -1), since=np.full(total, -1),
        boost=np.zeros((total, len(CONTACT_CHANNELS))), seen=np.full((total, MEMORY), -1),
        seen_price=np.zeros((total, MEMORY)), cookie=np.zeros((total, 2), np.int64),
        logged=(draws.uniform("known", number[:, None] * 2 + np.arange(2)) < 0.5) & has_account[:, None],
        household_cookie=np.zeros(people.household.max() + 1, np.int64),
        account=has_account,
        card=people.card & (people.joined == 0) & (draws.uniform("has card", number) < 0.85),
        budget=people.budget.copy(), store_plan=np.full(total, -1), support_plan=np.full(total, -1),
        grief=np.zeros(total, bool), told=np.full(total, -99), opted=people.opted.copy(), coupon=np.full(total, -1),
        coupon_until=np.full(total, -1), coupon_kind=np.full(total, -1),
    )  # fmt: skip


def wake(
    state: State, people: People, draws: Draws, day: int, type_weights: Floats, config: AtelierConfig
) -> None:
    """A night passes: people join and leave, moods heal, needs arise, cookies are cleared.

    Args:
        state: Changed in place.
        people: The population.
        draws: Of the day.
        day: Its number.
        type_weights: float64[N, T] or [T], what a new need is about.
        config: Life of a cookie.
    """
    number = np.arange(len(people))
    state.active |= (people.joined == day) & (state.churned < 0)
    state.mood *= 0.93
    state.boost *= 0.72
    leaves = state.active & (draws.uniform("leave", number) < 0.0006 * np.exp(-2.2 * state.mood))
    state.active &= ~leaves
    state.churned[leaves] = day
    if day % 30 == 0:
        state.budget = np.minimum(state.budget + people.budget, 3 * people.budget)
    arises = state.active & (state.need < 0) & (draws.uniform("arise", number) < 0.6 * people.rate)
    who = np.flatnonzero(arises)
    state.need[who] = draws.choice("first need", who, [0.62, 0.08, 0.06, 0.24])
    state.wanted[who] = draws.choice("wanted", who, type_weights[who])
    state.since[who] = day
    fades = (state.need >= 0) & (draws.uniform("fade", number) < 0.02)
    state.need[fades] = -1
    cleared = draws.uniform("cookie", number[:, None] * 2 + np.arange(2)) < 1 / config.cookie_days
    state.cookie += cleared
    state.logged &= ~cleared
    homes = np.arange(len(state.household_cookie))
    state.household_cookie += draws.uniform("household cookie", homes) < 1 / config.cookie_days


def settle(state: State, people: People, draws: Draws, who: Ints, key: Ints, bought: Flags, day: int) -> None:
    """After their sessions of the day part: needs move on or are settled.

    Args:
        state: Changed in place.
        people: The population.
        draws: Of the day.
        who: int64[S], distinct persons.
        key: int64[S], keys of their sessions' draws.
        bought: bool[S], whether the session settled what they came for.
        day: Its number.
    """
    stage = state.need[who]
    open_ = stage >= 0
    chances = _NEXT_NEED[np.maximum(stage, 0)].copy()
    chances[:, BUY] *= people.decisive[who]
    moved = draws.choice("move on", key, chances)
    after = np.where(draws.uniform("after", key) < 0.25, DO, -1)
    state.need[who] = np.where(bought, np.where(open_, after, -1), np.where(open_, moved, -1))
    reborn = bought & (state.need[who] >= 0)
    state.since[who[reborn]] = day
    plans = (state.need[who] == GO) | ((stage == GO) & (draws.uniform("go", key) < 0.6))
    plans &= ~bought
    state.store_plan[who[plans]] = day + draws.below("when", key[plans], 3)


def remember(state: State, who: Ints, product: Ints, price: Floats) -> None:
    """The last product that each person looked at enters their memory with its price."""
    for column, value in ((state.seen, product), (state.seen_price, price)):
        column[who, 1:] = column[who, :-1]
        column[who, 0] = value


def device(kind: npt.ArrayLike, holder: npt.ArrayLike, generation: npt.ArrayLike) -> Ints:
    """Number of a cookie or app installation: kind, holder (person, household or store) and generation."""
    return (
        (np.asarray(kind, np.int64) << 56)
        | (np.asarray(holder, np.int64) << 16)
        | np.asarray(generation, np.int64)
    )
