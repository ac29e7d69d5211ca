"""Why an item is shown, in words that come from evidence.

Each shown item gets the first of these that its evidence supports: the customer buys it in a rhythm; the
customer bought it before; it is often bought together with something from the customer's history; it is
on display or in the mailer of the store this week; the customer buys its type; the encoder puts it
forward for this history; it is popular. A promotion is added to the first three when there is one,
because it is a fact about the item whatever else is true.

The words never claim more than the evidence: "bought together" names the item of the history with the
highest co-purchase score, and an item that only the encoder put forward says so and gives its place in
the encoder's list. Leaving items out of the history one by one would attribute the encoder's score
better and cost one encoder run per item; it is not done on the request path.

Belongs here: choosing and wording. Does not belong here: scoring.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.decisions import Reason
from serving.engine.items import DISPLAY, MAILER, NEIGHBOURS, ItemTable
from serving.engine.memory import Memory

EXPLORED = Reason(code="explored", text="Something new to try")
"""The reason for an item that exploration drew."""

DUE = 0.75
"""A repeat counts as due from this share of the mean gap on."""

RHYTHM_ORDERS = 3
"""Purchases needed before a mean gap is called a rhythm."""


_PROMOTIONS: dict[int, tuple[str, dict[str, Any]]] = {
    0: ("", {}),
    DISPLAY: ("on display in your store this week", {"display": True}),
    MAILER: ("in this week's mailer of your store", {"mailer": True}),
    DISPLAY | MAILER: (
        "on display and in the mailer of your store this week",
        {"display": True, "mailer": True},
    ),
}


def explain(
    item: int,
    memory: Memory,
    items: ItemTable,
    at_days: float,
    promoted: int,
    encoded: NDArray[np.int32],
) -> Reason:
    """The reason for one shown item.

    Args:
        item: Item index.
        memory: The customer.
        items: The release's items.
        at_days: Moment of the request.
        promoted: Its promotions (DISPLAY and MAILER bits) in the request's store and week.
        encoded: int32[k], the encoder's list, best first.
    """
    promotion, shown = _PROMOTIONS[promoted & (DISPLAY | MAILER)]
    found = _own(item, memory, at_days) or _together(item, memory, items)
    if found is not None:
        code, text, evidence = found
        if promotion:
            text, evidence = f"{text}; {promotion}", evidence | shown
        return Reason(code=code, text=text, evidence=evidence)
    if promotion:
        return Reason(code="promotion", text=promotion[0].upper() + promotion[1:], evidence=shown)
    typed = _of_type(item, memory, items, at_days)
    if typed is not None:
        return Reason(code="history", text=typed[0], evidence=typed[1])
    place = np.flatnonzero(encoded == item)
    if len(place):
        text = "Fits what you bought and looked at lately"
        return Reason(code="history", text=text, evidence={"encoder_place": int(place[0]) + 1})
    return popular_reason(item, items)


def popular_reason(item: int, items: ItemTable) -> Reason:
    """The reason for an item that is shown because many buy it."""
    recent = float(items.recent_orders[item])
    if recent > 0:
        text = f"Popular: in {recent:,.0f} baskets of the last 28 days"
        return Reason(code="popular", text=text, evidence={"baskets_28_days": recent})
    return Reason(code="popular", text="From the shop's range", evidence={})


def _own(item: int, memory: Memory, at_days: float) -> tuple[str, str, dict[str, Any]] | None:
    found = memory.bought.get(item)
    if found is None:
        return None
    orders, first, last = found
    since = at_days - last
    evidence: dict[str, Any] = {"times_bought": orders, "days_since": round(since, 1)}
    if orders >= RHYTHM_ORDERS and last - first >= orders - 1:
        gap = (last - first) / (orders - 1)
        evidence["days_between"] = round(gap, 1)
        text = f"You buy this about every {_days(gap)}; last time {ago(since)}"
        return "repeat_due" if since >= DUE * gap else "bought_often", text, evidence
    times = {1: "once", 2: "twice"}.get(orders, f"{orders} times")
    when = f", {ago(since)}" if orders == 1 else f", last time {ago(since)}"
    return "bought_often", f"You bought this {times}{when}", evidence


def _together(item: int, memory: Memory, items: ItemTable) -> tuple[str, str, dict[str, Any]] | None:
    """The item of the history that weighs most in this item's co-purchase score."""
    if item not in memory.nearest:
        memory.nearest[item] = _nearest(item, memory, items)
    found = memory.nearest[item]
    if found is None:
        return None
    anchor, score = found
    evidence = {"product_id": items.product_ids[anchor], "score": score}
    what = "you buy" if len(memory.state.items) else "you looked at"
    return "bought_together", f"Often bought together with {items.name[anchor]}, which {what}", evidence


def _nearest(item: int, memory: Memory, items: ItemTable) -> tuple[int, float] | None:
    if _place(memory.together, item) < 0:
        return None
    row, column = np.divmod(np.flatnonzero(items.neighbours.take(memory.anchors, axis=0) == item), NEIGHBOURS)
    scores = items.neighbour_scores[memory.anchors[row], column]
    best = int(np.argmax(scores * memory.weights[row]))
    return int(memory.anchors[row[best]]), round(float(scores[best]), 4)


def _of_type(
    item: int, memory: Memory, items: ItemTable, at_days: float
) -> tuple[str, dict[str, Any]] | None:
    kind = int(items.type_id[item])
    state = memory.state
    place = _place(state.types, kind)
    if kind < 0 or place < 0:
        return None
    orders, since = int(state.ct["ct_orders"][place]), at_days - float(state.ct["ct_last_at"][place])
    times = {1: "once", 2: "twice"}.get(orders, f"{orders} times")
    evidence = {"type": items.type[item], "times_bought": orders, "days_since": round(since, 1)}
    return f"You bought {items.type[item]} {times}, last {ago(since)}", evidence


def _place(keys: NDArray[np.int32], key: int) -> int:
    """Place of a key among ascending keys, -1 where it is not there."""
    place = int(keys.searchsorted(np.int32(key)))  # Another integer type would copy the keys.
    return place if place < len(keys) and int(keys[place]) == key else -1


def ago(days: float) -> str:
    """How long ago, in words."""
    whole = math.floor(days)
    if whole <= 0:
        return "today"
    return "yesterday" if whole == 1 else f"{whole} days ago"


def _days(gap: float) -> str:
    whole = round(gap)
    return "day" if whole <= 1 else f"{whole} days"
