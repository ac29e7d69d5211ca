"""Knobs of the atelier.

Belongs here: what can be asked for, its limits and the arithmetic from events to shoppers. Does not belong
here: constants of human behaviour (beside the code that uses them).
"""

from __future__ import annotations

import datetime as dt
import math
from typing import Annotated

import msgspec

from contracts.events import Channel

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]

EVENTS_PER_SHOPPER_DAY = 0.58
"""Measured with the default knobs over 180 days; `for_events` sizes the shop by it."""

CONTACT_CHANNELS: tuple[str, ...] = (
    "email", "sms", "push", "direct_mail", "social", "search", "affiliate", "referral",
)  # fmt: skip
"""Channels whose contacts cause something, in the order of every causal bit mask."""


class RehearsalError(ValueError):
    """A shop that cannot be simulated; the message names the knob and what was expected."""


class AtelierConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One simulated shop; equal configs give equal shops.

    Attributes:
        seed: Of every random number.
        shoppers: People that ever shop; about seven in ten know the shop on the first day.
        days: Length of the simulation.
        first_day: First UTC day.
        products: Size of the catalogue; goods only, guides come on top.
        photos: A folder in the layout of fashion-products whose photos take the place of drawn products, as far as
            they go; None for a drawn catalogue.
        stores: Physical stores.
        household_share: Share of people who live with another shopper.
        shared_device_share: Share of those households with a device that all use.
        shared_card_share: Share of those households with one loyalty card for all.
        account_share: Share of people who have or open a login.
        card_share: Share of people with a loyalty card.
        app_share: Share of people who use the app.
        kiosk_share: Share of store visits that use the in-store kiosk.
        cookie_days: Mean life of a browser's cookie.
        typo_share: Share of forms with a typing error or a variant of the name.
        second_email_share: Share of people who use another address in guest checkouts.
        holdout: Share of a campaign's audience that is held out at random.
        silent_share: Share of bad moments that leave no trace in the stream.
        skew_share: Share of events from a device whose clock is wrong by up to 90 s.
        late_share: Share of events that arrive hours to `late_days` after they happened.
        late_days: Longest delay of a late arrival.
        bots: Crawlers, each of which sends `bot_events` events within two seconds on one day.
        bot_events: Events of one crawler.
        namespace: Letters and digits inside every id, so that several shops can be poured together.
        silenced: Channels whose contacts are neither sent nor felt (see the package's docstring).
    """

    seed: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)] = 7
    shoppers: Annotated[int, msgspec.Meta(ge=10, le=2_000_000)] = 3_000
    days: Annotated[int, msgspec.Meta(ge=7, le=1_500)] = 180
    first_day: dt.date = dt.date(2025, 1, 1)
    products: Annotated[int, msgspec.Meta(ge=200, le=50_000)] = 2_400
    photos: str | None = None
    stores: Annotated[int, msgspec.Meta(ge=1, le=500)] = 12
    household_share: Share = 0.25
    shared_device_share: Share = 0.6
    shared_card_share: Share = 0.12
    account_share: Share = 0.72
    card_share: Share = 0.55
    app_share: Share = 0.42
    kiosk_share: Share = 0.12
    cookie_days: Annotated[float, msgspec.Meta(ge=1)] = 60.0
    typo_share: Share = 0.25
    second_email_share: Share = 0.08
    holdout: Share = 0.2
    silent_share: Share = 0.1
    skew_share: Share = 0.02
    late_share: Share = 0.02
    late_days: Annotated[int, msgspec.Meta(ge=1, le=365)] = 35
    bots: Annotated[int, msgspec.Meta(ge=0, le=1_000)] = 0
    bot_events: Count = 2_000
    namespace: Annotated[str, msgspec.Meta(pattern="^[a-z0-9]{0,8}$")] = ""
    silenced: tuple[Channel, ...] = ()

    def __post_init__(self) -> None:
        strange = sorted(set(self.silenced) - set(CONTACT_CHANNELS))
        if strange:
            raise RehearsalError(
                f"silenced names {', '.join(strange)}; expected some of: {', '.join(CONTACT_CHANNELS)}"
            )

    @property
    def prefix(self) -> str:
        """What stands before the number in every id."""
        return f"{self.namespace}-" if self.namespace else ""

    @property
    def last_day(self) -> dt.date:
        """Last simulated day; a session begun before its midnight may end after it."""
        return self.first_day + dt.timedelta(days=self.days - 1)


def for_events(events: int, **knobs: object) -> AtelierConfig:
    """A config whose shop yields about that many events (within a few per cent beyond 20,000).

    Args:
        events: Wanted number of events.
        knobs: Other fields of `AtelierConfig`, except ``shoppers``.

    Raises:
        RehearsalError: A knob is unknown or out of its limits.
    """
    if "shoppers" in knobs:
        raise RehearsalError("shoppers follows from events; expected only one of the two")
    days = knobs.get("days", 180)
    if not isinstance(days, int) or days < 7:
        raise RehearsalError(f"days is {days!r}; expected a whole number of at least 7")
    shoppers = max(10, math.ceil(events / (EVENTS_PER_SHOPPER_DAY * days)))
    return checked({**knobs, "shoppers": shoppers})


def checked(knobs: dict[str, object]) -> AtelierConfig:
    """A config from plain values, as a file or a command line has them.

    Raises:
        RehearsalError: A knob is unknown, of the wrong type or out of its limits.
    """
    try:
        return msgspec.convert(knobs, AtelierConfig, strict=False)
    except msgspec.ValidationError as error:
        raise RehearsalError(f"atelier config: {error}") from error
