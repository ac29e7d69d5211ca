"""The decision: one answer given to one shopper, as it is logged, explained and weighed later.

Belongs here: the record and the vocabulary of answer paths and item sources. Does not belong here:
how an answer is made (`serving/engine`).
"""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

import msgspec

Path = Literal["personal", "session", "popular", "visual"]
"""Which path made an answer: a known customer's models, an anonymous session's events, the fallback; ``visual``
is likeness alone, for somebody of whom nothing is known."""

Source = Literal[
    "repeat", "encoder", "co_bought", "similar", "popular", "promotion", "visual", "text", "outfit"
]
"""Where a candidate came from; an item may have several, the first listed is the strongest."""


class Reason(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why an item is shown, in words and as evidence.

    Attributes:
        code: Machine name: ``repeat_due``, ``bought_often``, ``history``, ``bought_together``,
            ``promotion``, ``popular``, ``explored``, ``looks_alike``, ``fits_words``, ``goes_with``.
        text: One short sentence for the shopper.
        evidence: The numbers and product ids the sentence was made from.
    """

    code: str
    text: str
    evidence: dict[str, Any] = {}


class DecisionItem(msgspec.Struct, frozen=True, kw_only=True):
    """One recommended item.

    Attributes:
        product_id: What is shown.
        position: 0 is the first.
        score: Ranker score (unit-free, comparable inside one decision only).
        propensity: Probability in (0, 1] that the logging policy shows this item at this position.
        sources: Candidate sources that proposed it.
        reason: Why.
        name: Product name, for people.
    """

    product_id: str
    position: int
    score: float
    propensity: float
    sources: tuple[Source, ...]
    reason: Reason
    name: str = ""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One answer and everything that made it.

    Attributes:
        decision_id: Joins feedback events to this answer.
        decided_at: Wall clock of the server.
        as_of: The moment the answer was made for (the shop's clock).
        customer_id: Known customer, or None.
        session_id: Anonymous session, or None.
        touchpoint: Where the answer is shown.
        path: Which path made the answer.
        notes: Stated fallbacks, for example ``unknown_customer``, ``empty_history``.
        release: Release name that answered.
        variant: Experiment variant.
        rules: Names of the rules that touched the answer.
        items: The items, by position.
        context: Request context as used (store, week, hour, weekday).
        candidates: How many candidates were ranked.
        history: Number of the customer's events that were read.
        model_ms: Sum of the ONNX session run times, milliseconds.
        handler_ms: Whole handler time, milliseconds.
    """

    decision_id: str
    decided_at: dt.datetime
    as_of: dt.datetime
    touchpoint: str
    path: Path
    release: str
    items: tuple[DecisionItem, ...]
    customer_id: str | None = None
    session_id: str | None = None
    notes: tuple[str, ...] = ()
    variant: str = "champion"
    rules: tuple[str, ...] = ()
    context: dict[str, Any] = {}
    candidates: int = 0
    history: int = 0
    model_ms: float = 0.0
    handler_ms: float = 0.0
