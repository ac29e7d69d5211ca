"""The next best action: what the shop should do next for one customer, as it is stored, shown and sent.

Every customer has one, also where it is best to do nothing (kind ``none``), so that a reader can tell "leave alone"
from "never looked at". An action is advice with an end: who acts after ``expires_at`` asks again.

Belongs here: the record, its id, its vocabulary. Does not belong here: the choice
(`training/relationship/actions.py`), what it is made from (`orchestration/lake/next_actions.py`), sending.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Annotated, Literal, get_args

import msgspec

from contracts.events import Channel, Instant, Purpose

Kind = Literal["product", "content", "service", "recovery"]
"""What a contact brings."""
KINDS: tuple[Kind, ...] = get_args(Kind)

NONE = "none"
"""Kind of an action that is no contact."""

ACTIONS_FILE = "actions.sqlite"
"""Where the server finds the newest actions, beside the overview: table ``actions`` of ``customer_id`` and ``record``
(the action as JSON)."""

Identity = Annotated[str, msgspec.Meta(pattern="^a_[0-9a-f]{24}$")]


class Refused(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A contact that was weighed and not chosen.

    Attributes:
        channel: Over which it would have gone.
        kind: What it would have brought.
        subject: Id of it.
        reason: Against it, in plain words.
    """

    channel: Channel
    kind: Kind
    subject: str
    reason: str


class Action(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The next best action for one customer.

    Attributes:
        action_id: `action_id` of the fields it names; the same advice made again has the same id.
        customer_id: Whom it is about, as the shop calls them.
        person: The person behind (`contracts.identity.person_id`); caps and consent are the person's.
        kind: What the contact brings, or ``none`` for no contact.
        channel: Over which; None for no contact.
        subject: What exactly: a product id for ``product`` and ``content``, a service's name for ``service``, one of
            `contracts.recovery.RECOVERIES`, a colon and the moment's product or kind for ``recovery``; empty for none.
        at: When to make the contact, UTC; None for no contact.
        gain: Expected relationship value that it adds, in the shop's currency; 0 for none.
        reason: In plain words.
        purpose: What the customer has consented to on this channel, that the contact rests on.
        refused: What else was weighed, with the reasons against it.
        made_at: Moment of the data that the advice was made for (the shop's clock).
        expires_at: From then on it must not be acted upon.
        simulated: True where the customer is simulated.
    """

    action_id: Identity
    customer_id: str
    person: str
    kind: Kind | Literal["none"]
    channel: Channel | None
    subject: str
    at: Instant | None
    gain: float
    reason: str
    purpose: Purpose
    refused: tuple[Refused, ...] = ()
    made_at: Instant
    expires_at: Instant
    simulated: bool

    def __post_init__(self) -> None:
        contact = self.kind != NONE
        if contact != (self.channel is not None) or contact != (self.at is not None):
            raise ValueError(
                f"`$.kind` is '{self.kind}' with channel {self.channel} and at {self.at}; "
                "expected both for a contact and neither for none"
            )
        if self.expires_at <= self.made_at:
            raise ValueError(
                f"`$.expires_at` is {self.expires_at}; expected a time after made_at {self.made_at}"
            )

    @property
    def is_contact(self) -> bool:
        """Whether somebody is to be contacted."""
        return self.kind != NONE


def action_id(customer_id: str, kind: str, channel: str | None, subject: str, at: dt.datetime | None) -> str:
    """The name of a piece of advice: the same customer, contact and time have the same one in every run.

    Advice to leave a customer alone has one name for ever, as there is nothing to deliver twice.
    """
    moment = "" if at is None else at.astimezone(dt.UTC).isoformat(timespec="microseconds")
    text = "\0".join((customer_id, kind, channel or "", subject, moment))
    return "a_" + hashlib.sha256(text.encode()).hexdigest()[:24]
