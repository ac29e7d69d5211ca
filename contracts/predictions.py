"""What the models say of each customer, as columns that features, pages and actions share.

Belongs here: names and their meaning. Does not belong here: predicting (`training/relationship`), storing
(`orchestration/lake/predictions.py`).
"""

from __future__ import annotations

from contracts.events import CHANNELS

VISIT_KINDS: tuple[str, ...] = ("view", "add_to_cart", "contact_support", "return", "purchase")
"""What a visit is about, in rising order: the last that occurs in it counts."""

CONTACT_CHANNELS: tuple[str, ...] = ("email", "sms", "push", "direct_mail", "social")
"""Channels over which a contact's effect may be known."""

RFM_SEGMENTS: tuple[str, ...] = ("champions", "loyal", "promising", "slipping", "asleep", "steady")

PREDICTION_COLUMNS: tuple[str, ...] = (
    "p_churn",  # probability of no purchase within p_churn_days
    "p_churn_days",
    "p_value",  # money expected within p_value_days
    "p_value_days",
    "p_visit_days",  # days until a visit is as likely as not; null beyond the model's horizon
    "p_visit_soon",  # probability of a visit within p_visit_soon_days
    "p_visit_soon_days",
    "p_intent",  # probability of a purchase as the latest session stood after its last act
    *(f"p_uplift_{channel}" for channel in CONTACT_CHANNELS),  # change of a visit's chance by a contact
    *(f"p_channel_{channel}" for channel in CHANNELS),  # probability that the next visit is there
    *(f"p_action_{kind}" for kind in VISIT_KINDS),  # probability that the next visit is about that
    "p_rfm",  # place in RFM_SEGMENTS
    "p_behaviour",  # number of the behaviour segment
    "p_taste",  # number of the taste segment
)  # fmt: skip
"""View `customer_prediction`, key customer_id, one row per customer and moment of predicting; null: not predicted."""
