"""What the stream holds beside the days: the customer file of the shop's past, and crawlers.

Belongs here: events that no session made. Does not belong here: sessions.
"""

from __future__ import annotations

import numpy as np

from training.rehearsal.aftermath import DAY, HOUR
from training.rehearsal.draws import Draws
from training.rehearsal.log import ACT, CARD, CH, CUSTOMER, DEVICE, EMAIL, FORM, PHONE, TP
from training.rehearsal.rendering import midnight
from training.rehearsal.state import PHONE_BROWSER, device
from training.rehearsal.world import World

CRAWL = 2_000_000
"""Microseconds within which a crawler sends all its events."""


def import_customers(world: World) -> None:
    """One form per login and per loyalty card that existed before the first day."""
    draws = Draws(world.config.seed, -9)
    number = np.arange(len(world.people))
    begins = midnight(world.config)
    logins = number[world.state.account]
    phone = np.where(draws.uniform("phone known", logins) < 0.6, PHONE, 0)
    holders = number[world.state.card]
    home = np.where(world.people.shared_card[holders], -1 - world.people.household[holders], holders)
    holders = holders[np.unique(home, return_index=True)[1]]
    mail = np.where(draws.uniform("mail known", holders) < 0.5, EMAIL, 0)
    for who, channel, ids, offset in (
        (logins, CH["web"], CUSTOMER | EMAIL | phone, 0),
        (holders, CH["store"], CARD | mail, 1),
    ):
        at = begins + (5 * HOUR * draws.uniform("file", who * 2 + offset)).astype(np.int64)
        world.log.add(
            time=at, person=who, channel=channel, action=ACT["subscribe"], touchpoint=TP["import"], ids=ids,
            detail=FORM, a=who * 2 + offset, b=-1,
        )  # fmt: skip


def send_crawlers(world: World) -> None:
    """Machines that read the catalogue faster than any person; nobody is behind them."""
    config = world.config
    draws = Draws(config.seed, -10)
    for bot in range(config.bots):
        number = np.arange(config.bot_events)
        key = bot * config.bot_events + number
        begins = midnight(config, int(draws.below("crawl day", [bot], config.days)[0])) + int(
            draws.uniform("crawl hour", [bot])[0] * (DAY - CRAWL)
        )
        product = draws.below("crawled", key, len(world.shop))
        world.log.add(
            time=begins + number * CRAWL // config.bot_events, person=np.full(len(number), -1),
            channel=CH["web"], action=ACT["view"], touchpoint=TP["product"], product=product,
            price=world.shop.price[product], ids=DEVICE, device=device(PHONE_BROWSER, len(world.people) + bot, 0),
        )  # fmt: skip
