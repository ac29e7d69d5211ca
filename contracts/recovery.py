"""What to do about a bad moment: the answers that fit it and the one with the largest predicted effect.

The effect of an answer is how much it adds to the chance that the person is on their way again (puts something
into the basket or buys, `orchestration.lake.moments.RECOVERED_BY`) compared with no answer. It is learned
from the shop's own trials by `orchestration/lake/recovery.py`; until there are any, an answer is untested and
says so.

Belongs here: the answers, when each can be given, the choice. Does not belong here: estimating effects, sending.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, get_args

import msgspec

from contracts.events import Moment

Recovery = Literal["other_size", "other_store", "substitute", "restock_alert", "apology", "support"]
RECOVERIES: tuple[str, ...] = get_args(Recovery)

ANSWERS: dict[str, tuple[Recovery, ...]] = {
    "out_of_stock": ("other_store", "substitute", "other_size", "restock_alert"),
    "failed_search": ("substitute", "support"),
    "repeated_search": ("substitute", "support"),
    "price_shock": ("substitute", "support"),
    "delay": ("apology", "support"),
    "error": ("apology", "support"),
    "return": ("other_size", "substitute", "support"),
    "complaint": ("apology", "support"),
}
"""Answers to each bad moment, in the order in which untested ones are tried."""


class Situation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A bad moment and what the shop could offer now.

    Attributes:
        kind: Of the moment.
        substitutes: Similar products in stock.
        other_sizes: Sizes of the product in stock that may fit.
        stores: Stores within reach that have it.
        restock_expected: Whether the product will come again.
        may_contact: Whether consent, quiet hours and caps allow a message; answers shown on the spot need none.
        support_open: Whether somebody can take the case.
    """

    kind: Moment
    substitutes: Annotated[int, msgspec.Meta(ge=0)] = 0
    other_sizes: Annotated[int, msgspec.Meta(ge=0)] = 0
    stores: Annotated[int, msgspec.Meta(ge=0)] = 0
    restock_expected: bool = False
    may_contact: bool = False
    support_open: bool = True


class Effect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Predicted effect of an answer to a kind of moment.

    Attributes:
        kind: Of the moment.
        action: The answer.
        effect: Added probability of recovery.
        low: Lower end of its 90 % interval.
        high: Upper end.
        trials: Moments that were answered so.
    """

    kind: Moment
    action: Recovery
    effect: float
    low: float
    high: float
    trials: int


class Choice(msgspec.Struct, frozen=True):
    """An answer that can be given, and why it stands where it does.

    Attributes:
        action: The answer.
        effect: What is predicted, or None where it was never tried.
        reason: In plain words.
    """

    action: str
    effect: Effect | None
    reason: str


def possible(situation: Situation) -> tuple[Recovery, ...]:
    """Answers that fit the moment and that the shop can give now; none for a want."""
    can = {
        "other_size": situation.other_sizes > 0,
        "other_store": situation.stores > 0,
        "substitute": situation.substitutes > 0,
        "restock_alert": situation.restock_expected and situation.may_contact,
        "apology": situation.may_contact,
        "support": situation.support_open,
    }
    return tuple(action for action in ANSWERS.get(situation.kind, ()) if can[action])


def choose(situation: Situation, effects: Iterable[Effect]) -> list[Choice]:
    """Answers worth giving, best first; empty where none is possible or all tried ones do harm.

    Tested answers with a positive effect come first, by effect; then untested ones in the order of `ANSWERS`.

    Args:
        situation: The moment.
        effects: What is known, at most one per kind and answer.
    """
    known = {effect.action: effect for effect in effects if effect.kind == situation.kind}
    options = possible(situation)
    tested = sorted(
        (known[action] for action in options if action in known and known[action].effect > 0),
        key=lambda effect: (-effect.effect, effect.action),
    )
    return [
        *(
            Choice(
                effect.action, effect,
                f"adds {100 * effect.effect:.1f} points to the chance of recovery "
                f"({100 * effect.low:.1f} to {100 * effect.high:.1f}, {effect.trials} trials)",
            )
            for effect in tested
        ),
        *(
            Choice(action, None, "never tried on this kind of moment")
            for action in options
            if action not in known
        ),
    ]  # fmt: skip
