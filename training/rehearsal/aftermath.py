"""What follows from a purchase or a bad moment in later days: parcels, returns, complaints, word of mouth.

Belongs here: everything that is planned for a later day. Does not belong here: sessions.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any

import numpy as np

from training.rehearsal.config import CONTACT_CHANNELS, AtelierConfig
from training.rehearsal.draws import Draws, Floats, Ints
from training.rehearsal.log import (
    ACT,
    CARD,
    CH,
    CUSTOMER,
    DEVICE,
    EMAIL,
    EMAIL_TWO,
    LATE,
    MOMENT,
    PHONE,
    REASON,
    STORE,
    TP,
)  # fmt: skip
from training.rehearsal.people import FRIENDS, Flags
from training.rehearsal.state import device

if TYPE_CHECKING:
    from training.rehearsal.sessions import Sessions
    from training.rehearsal.world import World

DAY = 86_400_000_000
HOUR = 3_600_000_000
PROMISE = 3
"""Days after the order on which a parcel is promised."""

_REFERRAL = CONTACT_CHANNELS.index("referral")

Rows = dict[str, np.ndarray[Any, Any]]


class Orders:
    """Plans for later days: lists of rows by the day on which they fall due.

    Args:
        config: The shop.
    """

    def __init__(self, config: AtelierConfig) -> None:
        self._config = config
        self._due: dict[tuple[str, int], list[Rows]] = collections.defaultdict(list)

    def place(
        self, s: Sessions, draws: Draws, day: int, row: Ints, product: Ints, price: Floats, guest: Flags
    ) -> None:
        """Ship one parcel for each paid basket of digital sessions and plan returns of its lines."""
        basket = np.unique(row)
        key = s.key[basket]
        late = draws.uniform("late", key) < 0.07 + 0.1 * (draws.uniform("bad week", [day // 7])[0] < 0.08)
        delay = np.where(late, np.minimum(1 + np.floor(draws.uniform("delay", key) ** -0.7 - 1), 20), 0)
        arrives = np.where(late, PROMISE + delay, 1 + draws.below("lead", key, PROMISE)).astype(np.int64)
        parcels = {
            "person": s.person[basket], "session": s.number[basket], "ordered": np.full(len(basket), day),
            "late": delay.astype(np.int64), "guest": guest[basket],
            "market": np.asarray(s.channel[basket] == 3),
        }  # fmt: skip
        self._plan("parcel", day + arrives, parcels)
        lead = np.zeros(len(s.person), np.int64)
        lead[basket] = arrives
        back = draws.uniform("back", s.key[row] * 128 + product % 128) < 0.16
        when = day + lead[row] + 2 + draws.below("back when", s.key[row], 10)
        returned = {
            "person": s.person[row], "product": product, "price": price, "session": s.number[row],
            "store": np.full(len(row), -1), "known": ~guest[row], "card": np.zeros(len(row), bool),
        }  # fmt: skip
        self._plan("return", when[back], {name: values[back] for name, values in returned.items()})

    def carry_home(
        self,
        s: Sessions,
        draws: Draws,
        day: int,
        row: Ints,
        product: Ints,
        price: Floats,
        store: Ints,
        ids: Ints,
    ) -> None:
        """Plan the returns of what was bought in a store."""
        back = draws.uniform("store back", s.key[row] * 128 + product % 128) < 0.06
        when = day + 1 + draws.below("store back when", s.key[row], 12)
        returned = {
            "person": s.person[row], "product": product, "price": price, "session": s.number[row],
            "store": store[row], "known": np.zeros(len(row), bool), "card": (ids[row] & CARD) > 0,
        }  # fmt: skip
        self._plan("return", when[back], {name: values[back] for name, values in returned.items()})

    def play(self, world: World, draws: Draws, day: int, midnight: int) -> None:
        """Write what falls due on a day: parcels, returns, calls for help."""
        _parcels(world, draws, day, midnight, self._take("parcel", day))
        _returns(world, draws, day, midnight, self._take("return", day))
        _support(world, draws, day, midnight)

    def _plan(self, what: str, when: Ints, rows: Rows) -> None:
        for day in np.unique(when):
            chosen = when == day
            self._due[what, int(day)].append({name: values[chosen] for name, values in rows.items()})

    def _take(self, what: str, day: int) -> Rows:
        parts = self._due.pop((what, day), [])
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def _parcels(world: World, draws: Draws, day: int, midnight: int, due: Rows) -> None:
    if not due:
        return
    who, late, key = due["person"], due["late"], due["session"]
    silent = (late > 0) & (draws.uniform("no scan", key) < world.config.silent_share)
    at = midnight + ((8 + 11 * draws.uniform("van", key)) * HOUR).astype(np.int64)
    seen = ~silent
    mail = np.where(world.people.second_email[who], EMAIL_TWO, EMAIL)
    ids = np.where(due["market"], PHONE, np.where(due["guest"], PHONE | mail, CUSTOMER | PHONE))
    world.log.add(
        time=at[seen], person=who[seen], session=-2 - due["session"][seen], channel=CH["web"],
        action=ACT["delivery"], touchpoint=TP["carrier"], ids=ids[seen], detail=LATE, a=late[seen],
        b=due["ordered"][seen] + PROMISE,
    )  # fmt: skip
    world.hide(due["session"][silent], MOMENT["delay"])
    np.add.at(world.state.mood, who, np.where(late > 0, -0.35 - 0.03 * late, 0.05))
    _plan_support(world, draws, day, who[late > 0], 0.4)
    pleased = np.flatnonzero((late == 0) & (draws.uniform("pleased", key) < 0.25))
    _tell_friends(world, draws, midnight, who[pleased], key[pleased])
    writes = np.flatnonzero(draws.uniform("writes", key) < 0.05)
    known = world.state.account[who[writes]]
    world.log.add(
        time=at[writes] + 5 * HOUR, person=who[writes], channel=CH["email"], action=ACT["review"],
        touchpoint=TP["newsletter"], ids=np.where(known, CUSTOMER | EMAIL, EMAIL),
    )  # fmt: skip


def _tell_friends(world: World, draws: Draws, midnight: int, who: Ints, key: Ints) -> None:
    """Satisfied shoppers share; their friends come more often for a while and want the like."""
    if not len(who):
        return
    at = midnight + ((15 + 7 * draws.uniform("share at", key)) * HOUR).astype(np.int64)
    has = world.state.account[who]
    app = np.flatnonzero(world.people.app[who] & has)
    world.log.add(
        time=at[app], person=who[app], channel=CH["social"], action=ACT["share"], touchpoint=TP["post"],
        ids=CUSTOMER | DEVICE, device=device(2, who[app], 0),
    )  # fmt: skip
    if "referral" in world.config.silenced:
        return
    hears = draws.uniform("hears", key[:, None] * FRIENDS + np.arange(FRIENDS)) < 0.7
    friends = world.people.friends[who][hears]
    world.state.boost[friends, _REFERRAL] += world.people.lift[friends, _REFERRAL]
    world.state.told[friends] = world.day


def _returns(world: World, draws: Draws, day: int, midnight: int, due: Rows) -> None:
    if not due:
        return
    who, store = due["person"], due["store"]
    key = due["session"] * 7 + due["product"] % 7
    at = midnight + ((10 + 9 * draws.uniform("return at", key)) * HOUR).astype(np.int64)
    in_store = store >= 0
    guest = np.where(world.people.second_email[who], EMAIL_TWO, EMAIL)
    mail = np.where(due["known"], CUSTOMER, guest)
    world.log.add(
        time=at, person=who, session=-2 - due["session"], channel=np.where(in_store, CH["store"], CH["web"]),
        touchpoint=np.where(in_store, STORE + store, TP["account"]), action=ACT["return"],
        product=due["product"], price=due["price"], quantity=1, detail=REASON,
        a=draws.below("reason", key, 4), ids=np.where(in_store, np.where(due["card"], CARD, 0), mail),
    )  # fmt: skip
    np.add.at(world.state.mood, who, -0.08)
    _plan_support(world, draws, day, who, 0.05)


def _plan_support(world: World, draws: Draws, day: int, who: Ints, share: float) -> None:
    calls = draws.uniform("calls", who) < share * world.people.complains[who]
    chosen = who[calls]
    world.state.support_plan[chosen] = day + 1 + draws.below("calls when", chosen, 3)
    world.state.grief[chosen] = True


def _support(world: World, draws: Draws, day: int, midnight: int) -> None:
    """Calls and chats: those planned, and a few by people in a bad mood."""
    state, people = world.state, world.people
    number = np.arange(len(people))
    cross = state.active & (
        draws.uniform("cross", number) < people.complains * (0.0006 + 0.01 * np.clip(-state.mood, 0, 1.5))
    )
    who = np.flatnonzero((state.support_plan == day) | cross)
    if not len(who):
        return
    chat = draws.uniform("chat", who) < 0.4
    at = midnight + ((9 + 9 * draws.uniform("call at", who)) * HOUR).astype(np.int64)
    known = np.where(state.account[who], CUSTOMER, 0)
    ids = np.where(chat, known | EMAIL, known | PHONE)
    channel = np.where(chat, CH["chat"], CH["support"])
    session = world.session_number(who, 5)
    common = {"person": who, "session": session, "channel": channel, "touchpoint": TP["care"], "ids": ids}
    world.log.add(time=at, action=ACT["contact_support"], detail=REASON, a=4 + state.grief[who], **common)
    complains = draws.uniform("complains", who) < np.where(state.grief[who], 0.75, 0.3)
    chosen = np.flatnonzero(complains)
    world.log.add(
        time=at[chosen] + 240_000_000, action=ACT["complaint"],
        **{name: value if isinstance(value, int) else value[chosen] for name, value in common.items()},
    )  # fmt: skip
    # Help soothes some and leaves others colder.
    state.mood[who] += np.where(draws.uniform("soothed", who) < 0.6, 0.2, -0.1)
    state.support_plan[who] = -1
    state.grief[who] = False
