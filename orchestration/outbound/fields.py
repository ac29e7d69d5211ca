"""The fields that a condition may ask for and an export may tell: names, types, meanings.

Belongs here: the list. Does not belong here: their values (`people.py`, `actions.py`).
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from contracts.predictions import CONTACT_CHANNELS
from orchestration.lake import kpis

Type = Literal["number", "text", "flag", "time"]

KPI_DAYS = 90
"""Numbers of one person are those of the last so many days, as the shop's are on its pages."""

MOMENT_DAYS = 30


@dataclasses.dataclass(frozen=True)
class Field:
    """One thing that can be known of a person or an action.

    Attributes:
        name: How conditions call it.
        type: ``number``, ``text``, ``flag`` or ``time``; conditions cannot ask for times.
        source: What it is known from: ``profile``, ``behaviour``, ``moments``, ``kpi``, ``segment``, ``prediction``,
            ``action``.
        meaning: In plain words.
    """

    name: str
    type: Type
    source: str
    meaning: str


def _kpi(name: str) -> Field:
    found = kpis.KPIS[name]
    return Field(
        name, "number", "kpi", f"{found.meaning} Of this person, last {KPI_DAYS} days ({found.unit})."
    )


PERSON_KPIS = ("conversion", "revenue", "order_value", "moment_quality", "recovery", "time_to_recovery")

_PEOPLE = (
    *(Field(name, "text", "profile", f"{name.replace('_', ' ').capitalize()}, where the shop knows it.")
      for name in ("age", "income", "home_ownership", "marital_status", "household_size", "household_composition", "kids")),
    Field("days_since_first_seen", "number", "behaviour", "Whole days since their first event."),
    Field("days_since_last_seen", "number", "behaviour", "Whole days since they last did anything."),
    Field("visits", "number", "behaviour", f"Visits in the last {KPI_DAYS} days."),
    Field("channels", "number", "behaviour", f"Different channels that they used in the last {KPI_DAYS} days."),
    Field("favourite_channel", "text", "behaviour", f"Channel that they used most in the last {KPI_DAYS} days."),
    Field("last_channel", "text", "behaviour", "Channel that they used last."),
    Field("orders", "number", "behaviour", "Orders so far."),
    Field("spend", "number", "behaviour", "What they have paid so far."),
    Field("days_since_purchase", "number", "behaviour", "Whole days since their last purchase."),
    Field("favourite_department", "text", "behaviour", "Department in which they have spent most."),
    Field("bad_moments", "number", "moments", f"Bad moments in the last {MOMENT_DAYS} days."),
    Field("open_moments", "number", "moments", f"Bad moments in the last {MOMENT_DAYS} days that nothing made good."),
    Field("last_bad_moment", "text", "moments", f"Kind of the latest bad moment of the last {MOMENT_DAYS} days."),
    Field("days_since_bad_moment", "number", "moments", "Whole days since their latest bad moment."),
    *map(_kpi, PERSON_KPIS),
    Field("segment", "text", "segment", "Group by recency, frequency and money, such as 'champions' or 'slipping'."),
    Field("behaviour_segment", "text", "prediction", "Group by behaviour, named by what sets it apart."),
    Field("taste_segment", "text", "prediction", "Group by taste, named by what sets it apart."),
    Field("churn", "number", "prediction", "Chance that they do not buy in the time the model looks ahead."),
    Field("value", "number", "prediction", "Expected spend in the time the model looks ahead."),
    Field("days_to_visit", "number", "prediction", "Days until a visit is as likely as not."),
    Field("visit_soon", "number", "prediction", "Chance of a visit in the time the model calls soon."),
    Field("intent", "number", "prediction", "Chance of a purchase as their latest session stood after its last act."),
    *(
        Field(f"uplift_{c}", "number", "prediction", f"Change of a visit's chance by a contact over {c.replace('_', ' ')}.")
        for c in CONTACT_CHANNELS
    ),
    Field("likely_channel", "text", "prediction", "Channel where their next visit is most likely."),
    Field("likely_action", "text", "prediction", "What their next visit is most likely about."),
)  # fmt: skip

_ACTIONS = (
    Field("kind", "text", "action", "What the contact brings: product, content, service or recovery."),
    Field("channel", "text", "action", "Channel of the contact."),
    Field("subject", "text", "action", "What exactly: a product, a service, an answer to a bad moment."),
    Field("gain", "number", "action", "Expected relationship value that the contact adds."),
    Field("at", "time", "action", "When to make the contact."),
    Field("hours_until", "number", "action", "Hours until the contact is to be made."),
    Field("expires_at", "time", "action", "From then on it must not be acted upon."),
    Field("reason", "text", "action", "Why, in plain words."),
)  # fmt: skip

PEOPLE: dict[str, Field] = {field.name: field for field in _PEOPLE}
"""Fields of a person."""

ACTIONS: dict[str, Field] = PEOPLE | {field.name: field for field in _ACTIONS}
"""Fields of an action: those of its person, and its own."""

TOLD_OF_ACTIONS = ("kind", "channel", "subject", "at", "expires_at", "gain", "reason")
"""What every exported action tells beside its id."""


def fields_of(rows: str) -> dict[str, Field]:
    """All fields of ``people`` or of ``actions``."""
    return ACTIONS if rows == "actions" else PEOPLE
