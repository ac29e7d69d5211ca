"""From the basket to the paid order: login, guest forms, coupons, payment.

Belongs here: checkout of digital sessions. Does not belong here: what got into the basket (`digital.py`),
the parcel (`aftermath.py`).
"""

from __future__ import annotations

import numpy as np

from training.rehearsal.config import CONTACT_CHANNELS
from training.rehearsal.draws import Draws, Floats, Ints
from training.rehearsal.log import ACT, EMAIL, EMAIL_TWO, FORM, OFFER, PHONE, SIZE, TP, Draft
from training.rehearsal.people import Flags
from training.rehearsal.sessions import MARKETPLACE, Sessions
from training.rehearsal.world import World

CHECKOUT_STEP = 1e6
"""Step of the checkout; later than any view."""

_EMAIL, _SMS = (CONTACT_CHANNELS.index(name) for name in ("email", "sms"))


def play(
    world: World, draft: Draft, s: Sessions, draws: Draws, day: int, at: Ints, added: Flags, product: Ints,
    price: Floats, error: Flags, login: Floats,
) -> Flags:  # fmt: skip
    """Baskets that are paid; changes `login` in place and returns which sessions bought."""
    people, state = world.people, world.state
    basket = np.bincount(at, added, len(s.person)) > 0
    lift = state.boost[s.person][:, [_EMAIL, _SMS]].sum(axis=1) * 0.3
    chance = 0.82 * np.exp(0.4 * state.mood[s.person]) * np.where(error, 0.4, 1.0)
    luck = draws.uniform("pay", s.key)
    goes = basket & (draws.uniform("to checkout", s.key) < 0.9)
    pays = goes & (luck < chance * (1 + np.clip(lift, -0.3, 1)))
    cause = s.cause.copy()
    for channel in (_EMAIL, _SMS):
        without = lift - 0.3 * state.boost[s.person, channel]
        would = luck < chance * (1 + np.clip(without, -0.3, 1))
        lost = (added & (goes & ~pays & would)[at]).nonzero()[0]
        world.prevented[channel, 1:] += len(lost), price[lost].sum()
        cause |= np.where(pays & ~would, 1 << channel, 0)
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
    ids = np.where(guest, mail, np.where(market, PHONE, EMAIL))
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
    product = product[lines]
    who = s.person[row]
    redeems = world.redeems(draws, s.key[row], who, product) & ~market[row]
    paid = np.where(redeems, np.round(0.9 * price[lines], 2), price[lines])
    used = np.unique(row[redeems])
    draft.add(
        used, CHECKOUT_STEP + 0.5, 0.5, action=ACT["redeem"], touchpoint=TP["checkout"], detail=OFFER,
        a=state.coupon[s.person[used]], ids=ids[used],
    )  # fmt: skip
    draft.add(
        row, CHECKOUT_STEP + 1, np.where(order, 1.0, 0.0), action=ACT["purchase"], touchpoint=TP["checkout"],
        product=product, price=paid, quantity=quantity, ids=ids[row], cause=cause[row],
        discount=np.maximum(world.shop.base_price[product] - paid, 0),
        detail=SIZE, a=world.size_of(who, product),
    )  # fmt: skip
    world.sell(who, product, quantity, paid)
    state.coupon_until[s.person[used]] = -1
    state.mood[s.person[pays]] += 0.1
    world.orders.place(s, draws, day, row, product, paid, guest)
    return pays
