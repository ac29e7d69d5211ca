"""What completes a look: for each part that is missing, the products that go with what is there.

Belongs here: which parts are missing, the shopper's price level, the search per part. Does not belong
here: the compatibility model (`models.py`), HTTP.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from contracts.events import ACTIONS
from serving.engine.items import Mask
from serving.profiles.history import History
from serving.vision.index import Index, Wish, best_rows
from serving.vision.models import Spent, Visual

PLACES: dict[str, tuple[str, ...]] = {
    "dress": ("torso", "legs"), "top": ("torso",), "pants": ("legs",), "skirt": ("legs",), "shorts": ("legs",),
    "footwear": ("feet",), "boots": ("feet",),
}  # fmt: skip
"""What a part of an outfit covers; any other part covers a place of its own, so it never stands in for another."""

CHEAP, DEAR = 0.5, 2.0
"""Bounds of a shopper's price band around their usual level of a shelf."""

LEAST_PURCHASES = 3
"""Purchases needed before a price level is believed."""

_PURCHASE = ACTIONS.index("purchase")


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """One missing part and its answers.

    Attributes:
        slot: Its name.
        rows: int64[K], best first.
        scores: float32[K], compatibility.
        relaxed: Nothing lay in the price band, so all prices were let in.
        any_size: Nothing was there in the shopper's usual size, so all sizes were let in.
    """

    slot: str
    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    relaxed: bool
    any_size: bool = False


def complete(
    visual: Visual,
    rows: Sequence[int],
    wish: Wish,
    count: int,
    most: int,
    level: float | None,
    spent: Spent,
    usual_sizes: Sequence[str] = (),
) -> tuple[list[Part], float]:
    """Fill the missing parts of a look.

    Args:
        visual: The models; with an outfit model.
        rows: Rows of the index that are there; each with a slot.
        wish: What answers must be.
        count: Answers per part.
        most: Parts at most.
        level: The shopper's price level over the shelf's median, or None.
        spent: Where the time is counted.
        usual_sizes: What the shopper buys; a part of which nothing is there in them comes in any size.

    Returns:
        The parts, the most compatible first, and how well the set goes together.

    Raises:
        GraphError: The graph failed.
    """
    outfit, index = visual.outfit, visual.index
    assert outfit is not None
    names = outfit.settings.slots
    there = [int(index.slot[row]) for row in rows][: outfit.settings.items]
    covered = {place for slot in there for place in _covers(names[slot - 1])}
    wanted = [
        slot
        for slot, name in enumerate(names, 1)
        if not covered & set(_covers(name)) and len(_in_slot(index, slot))
    ]
    vectors = index.vectors[list(rows)[: len(there)]]
    points, together = outfit.queries(vectors, there, wanted or [1], spent)
    with spent.step("search"):
        allowed = index.allowed(wish)
        worn = allowed & index.sizes.fitting(usual_sizes)
        found = [
            _fill(index, slot, names[slot - 1], point, allowed, worn, count, level)
            for slot, point in zip(wanted, points, strict=False)
        ]
    chosen: list[Part] = []
    for part in sorted((part for part in found if len(part.rows)), key=lambda part: -float(part.scores[0])):
        if not covered & set(_covers(part.slot)) and len(chosen) < most:
            chosen.append(part)
            covered |= set(_covers(part.slot))
    return chosen, together


def price_level(index: Index, history: History, rows_of_items: dict[int, int]) -> float | None:
    """What a shopper pays over what such things usually cost, or None where too little is known.

    Args:
        index: Prices by row.
        history: The shopper's events.
        rows_of_items: Row of the index by item index.
    """
    bought = np.flatnonzero((history.action == _PURCHASE) & (history.unit_price > 0))
    ratios = []
    for place in bought.tolist():
        row = rows_of_items.get(int(history.item[place]), -1)
        usual = index.usual_price(int(index.shard[row])) if row >= 0 else 0.0
        if usual > 0:
            ratios.append(float(history.unit_price[place]) / usual)
    return float(np.median(ratios)) if len(ratios) >= LEAST_PURCHASES else None


def _fill(
    index: Index,
    slot: int,
    name: str,
    point: NDArray[np.float32],
    allowed: Mask,
    worn: Mask,
    count: int,
    level: float | None,
) -> Part:
    rows = _in_slot(index, slot)
    any_size = not worn[rows].any()
    rows = rows[(allowed if any_size else worn)[rows]]
    fitting, relaxed = rows, False
    if level is not None and len(rows):
        usual = index.usual_price(int(index.shard[rows[0]]))
        price = index.price[rows]
        outside = (price < CHEAP * level * usual) | (price > DEAR * level * usual)
        fitting = rows[~outside] if usual > 0 else rows
        relaxed = not len(fitting)
        fitting = rows if relaxed else fitting
    return Part(name, *best_rows(fitting, index.projected[fitting] @ point, count), relaxed, any_size)


def _in_slot(index: Index, slot: int) -> NDArray[np.int64]:
    return np.flatnonzero(index.slot == slot)


def _covers(name: str) -> tuple[str, ...]:
    return PLACES.get(name, (name,))
