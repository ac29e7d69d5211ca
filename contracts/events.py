"""The canonical event: the one record everything in Continuum starts from.

Belongs here: the vocabulary (channels, actions, moments, purposes), the `Event` type and its
validation. Does not belong here: mapping of a retailer's raw rows (`orchestration/sources`) and
storage (`orchestration/lake`, `serving/inbox`).
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal, get_args

import msgspec

Channel = Literal[
    "web", "app", "email", "sms", "push", "social", "search", "affiliate", "referral",
    "direct_mail", "store", "support", "chat", "marketplace",
]  # fmt: skip
Action = Literal[
    "impression", "open", "click", "visit", "view", "search", "visual_search", "voice_search",
    "add_to_cart", "remove_from_cart", "wishlist", "checkout", "purchase", "return", "redeem",
    "subscribe", "unsubscribe", "review", "share", "contact_support", "complaint", "delivery",
    "stockout", "error", "dismiss",
]  # fmt: skip
Moment = Literal[
    "want_to_know", "want_to_go", "want_to_do", "want_to_buy", "failed_search", "repeated_search",
    "out_of_stock", "price_shock", "delay", "error", "return", "complaint",
]  # fmt: skip
Purpose = Literal["analytics", "personalization", "marketing"]

CHANNELS: tuple[str, ...] = get_args(Channel)
ACTIONS: tuple[str, ...] = get_args(Action)
MOMENTS: tuple[str, ...] = get_args(Moment)

FUTURE_TOLERANCE = dt.timedelta(minutes=5)
"""How far a sender's clock may run ahead of ours before an event counts as from the future."""

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
NonNegative = Annotated[float, msgspec.Meta(ge=0)]
Instant = Annotated[dt.datetime, msgspec.Meta(tz=True)]


class Identifier(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One name a person is known by.

    Attributes:
        kind: Namespace of the value, for example ``customer``, ``loyalty_card``, ``device``.
        value: The identifier inside that namespace.
    """

    kind: Text
    value: Text


class Event(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One thing that happened between a person and the shop, over any channel.

    ``(source, event_id)`` is unique for ever; sending an event again changes nothing. Times carry a
    zone and are stored as ``timestamp[us, UTC]``. ``unit_price`` is what was paid for one unit after
    ``discount`` (per unit, never negative) was taken off, both in ``currency``. ``session_id`` is the
    visit: for a shop's till it is the basket. ``touchpoint`` is the place inside a channel; a
    physical store is written ``store:<id>``.
    """

    event_id: Text
    source: Text
    occurred_at: Instant
    channel: Channel
    action: Action
    received_at: Instant | None = None
    identifiers: Annotated[tuple[Identifier, ...], msgspec.Meta(max_length=16)] = ()
    session_id: Text | None = None
    touchpoint: Text | None = None
    product_id: Text | None = None
    quantity: NonNegative | None = None
    unit_price: NonNegative | None = None
    discount: NonNegative | None = None
    currency: Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")] | None = None
    query: Annotated[str, msgspec.Meta(max_length=512)] | None = None
    media_id: Text | None = None
    decision_id: Text | None = None
    position: Annotated[int, msgspec.Meta(ge=0)] | None = None
    moment: Moment | None = None
    detail: dict[str, Any] = {}
    consent: tuple[Purpose, ...] = ()

    @property
    def customer_id(self) -> str | None:
        """The value of the first identifier of kind ``customer``, or None for a stranger."""
        for identifier in self.identifiers:
            if identifier.kind == "customer":
                return identifier.value
        return None


_DECODER = msgspec.json.Decoder(Event)


class InvalidEvent(ValueError):
    """An event that breaks the contract; the message names the field and what was expected."""


def check_event(event: Event, now: dt.datetime) -> Event:
    """Apply the rules that a type cannot state.

    Args:
        event: A structurally valid event.
        now: The receiver's clock, with a zone.

    Returns:
        The same event.

    Raises:
        InvalidEvent: The event lies in the future, or a product action names no product.
    """
    if event.occurred_at > now + FUTURE_TOLERANCE:
        raise InvalidEvent(
            f"`$.occurred_at` is {event.occurred_at.isoformat()}, later than now ({now.isoformat()}); "
            "expected a time that has passed"
        )
    if event.action == "purchase" and event.product_id is None:
        raise InvalidEvent("`$.product_id` is missing; expected a product for action 'purchase'")
    return event


def decode_event(raw: bytes | msgspec.Raw, now: dt.datetime) -> Event:
    """Decode and check one event from JSON.

    Raises:
        InvalidEvent: With the JSON path of the offending field and what was expected there.
    """
    try:
        event = _DECODER.decode(raw)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidEvent(str(error)) from error
    return check_event(event, now)
