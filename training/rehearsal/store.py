"""Visits to the physical stores: till, card, kiosk, empty shelves.

Belongs here: what happens in one store visit, for all visits of a day part at once. Does not belong here:
who goes (`visits.py`).
"""

from __future__ import annotations

import datetime as dt
import functools

import numpy as np

from contracts.features import week_of
from training.rehearsal.catalogue import TYPES
from training.rehearsal.config import AtelierConfig
from training.rehearsal.draws import Draws, Ints
from training.rehearsal.log import (
    ACT,
    CARD,
    CH,
    CUSTOMER,
    DEVICE,
    EMAIL,
    FORM,
    KIOSK,
    MOMENT,
    OFFER,
    QUERY_FORWARD,
    RESULTS,
    SIZE,
    STORE,
    Draft,
)  # fmt: skip
from training.rehearsal.sessions import Sessions
from training.rehearsal.state import BUY, KIOSK_DEVICE, device, settle
from training.rehearsal.world import World

DISPLAYED = 40
"""Products that each store displays in a week."""

_BUYS = np.array([0.28, 0.3, 0.2, 0.62])


def play(world: World, s: Sessions, draws: Draws, day: int) -> None:
    """Write the events of the store visits and change state and shelves."""
    if not len(s.person):
        return
    state, people, shop = world.state, world.people, world.shop
    away = draws.uniform("other store", s.key) < 0.15
    other = draws.below("which store", s.key, world.config.stores)
    store = np.where(away, other, people.home_store[s.person])
    draft = Draft(
        s.start, s.key, person=s.person, session=s.number, touchpoint=(STORE + store),
        channel=np.full(len(s.person), CH["store"]),
    )  # fmt: skip
    # The app tells when its user walks in; others are seen at the till.
    seen = people.app[s.person] & state.account[s.person] & (draws.uniform("check in", s.key) < 0.5)
    phone = device(2, s.person, 0)
    at = np.flatnonzero(seen)
    draft.add(at, 1, action=ACT["visit"], ids=CUSTOMER | DEVICE, device=phone[at])
    _kiosk(world, draft, s, draws, store)
    wish = draws.uniform("buys", s.key) < _BUYS[s.need] * np.exp(0.4 * state.mood[s.person]) * np.where(
        state.budget[s.person] > 0, 1.0, 0.5
    )
    many = np.where(wish, 1 + (draws.uniform("pieces", s.key) ** -0.7 - 1).astype(np.int64).clip(0, 9), 0)
    at = np.repeat(np.arange(len(s.person)), many)
    rank = np.arange(len(at)) - np.repeat(np.cumsum(many) - many, many)
    key = s.key[at] * 128 + rank
    who = s.person[at]
    kind = np.where((rank == 0) | (draws.uniform("same", key) < 0.3), s.wanted[at], -1)
    product = world.choose(draws, key, who, kind)
    shown = displays(world.config, _week(world.config, day))[store[at], draws.below("shown", key, DISPLAYED)]
    product = np.where((rank > 0) & (draws.uniform("noticed", key) < 0.15), shown, product)
    size = world.size_of(who, product)
    gone = shop.stock[product, size] <= 0
    asks = gone & (draws.uniform("asks", key) < 1 - 2 * world.config.silent_share)
    has_card = state.card[s.person] & (draws.uniform("shows card", s.key) < 0.88)
    joins = ~state.card[s.person] & people.card[s.person] & (draws.uniform("joins", s.key) < 0.3)
    joins &= np.bincount(at, ~gone, len(s.person)) > 0
    carded = np.where(has_card | joins, CARD, 0) | np.where(seen, CUSTOMER, 0)
    rows = np.flatnonzero(joins)
    draft.add(rows, 900, action=ACT["subscribe"], ids=CARD | EMAIL, detail=FORM, a=s.key[rows], b=day)
    state.card[s.person[joins]] = True
    draft.add(
        at[asks], 500 + rank[asks], 3.0, action=ACT["stockout"], product=product[asks],
        price=shop.price[product[asks]], detail=SIZE, a=size[asks], ids=carded[at[asks]],
    )  # fmt: skip
    world.hide(s.number[at[gone & ~asks]], MOMENT["out_of_stock"])
    np.add.at(state.mood, who, -0.2 * gone)
    lines = np.flatnonzero(~gone)
    row = at[lines]
    begins = np.concatenate([[True], row[1:] != row[:-1]]) if len(row) else np.empty(0, bool)
    price = shop.price[product[lines]]
    redeems = world.redeems(draws, s.key[row], who[lines], product[lines])
    price = np.where(redeems, np.round(0.9 * price, 2), price)
    used = np.unique(row[redeems])
    draft.add(used, 950, action=ACT["redeem"], detail=OFFER, a=state.coupon[s.person[used]], ids=carded[used])
    draft.add(
        row, 1000 + rank[lines], np.where(begins, 12.0, 0.0), action=ACT["purchase"], product=product[lines],
        price=price, quantity=1, discount=np.maximum(shop.base_price[product[lines]] - price, 0),
        cause=s.cause[row], ids=carded[row], detail=SIZE, a=size[lines],
    )  # fmt: skip
    world.sell(who[lines], product[lines], np.ones(len(lines), np.int64), price)
    state.coupon_until[s.person[used]] = -1
    bought = np.bincount(row, minlength=len(s.person)) > 0
    state.mood[s.person[bought]] += 0.1
    world.hide(s.number[(s.need == BUY) & ~bought], MOMENT["want_to_buy"])
    draft.finish(world.log, draws, np.full(len(s.person), np.inf), np.zeros(len(s.person), np.int64))
    world.orders.carry_home(s, draws, day, row, product[lines], price, store, carded)
    settle(state, people, draws, s.person, s.key, bought, day)
    state.store_plan[s.person] = np.where(bought, -1, state.store_plan[s.person])


@functools.lru_cache(4)
def displays(config: AtelierConfig, week: int) -> Ints:
    """int64[stores, DISPLAYED], products that stand out in each store in a week (`contracts.features.week_of`)."""
    keys = (week * config.stores + np.arange(config.stores)[:, None]) * DISPLAYED + np.arange(DISPLAYED)
    return Draws(config.seed, -8).below("display", keys, config.products)


def _week(config: AtelierConfig, day: int) -> int:
    """Week of a day's noon."""
    return int(week_of((config.first_day - dt.date(1970, 1, 1)).days + day + 0.5))


def _kiosk(world: World, draft: Draft, s: Sessions, draws: Draws, store: Ints) -> None:
    at = np.flatnonzero(draws.uniform("kiosk", s.key) < world.config.kiosk_share)
    key = s.key[at]
    who = s.person[at]
    dev = device(KIOSK_DEVICE, store[at], 0)
    logs_in = world.state.account[who] & (draws.uniform("kiosk login", key) < 0.15)
    ids = DEVICE | np.where(logs_in, CUSTOMER, 0)
    kind = s.wanted[at]
    found = np.diff(world.shop.first_of)[np.minimum(kind, len(TYPES) - 1)]
    place = KIOSK + store[at]
    draft.add(
        at, 100, action=ACT["search"], touchpoint=place, device=dev, ids=ids, query_type=kind,
        query_mode=QUERY_FORWARD, detail=RESULTS, a=found,
    )  # fmt: skip
    product = world.choose(draws, key * 128 + 127, who, kind)
    draft.add(
        at, 101, action=ACT["view"], touchpoint=place, device=dev, ids=ids, product=product,
        price=world.shop.price[product],
    )  # fmt: skip
