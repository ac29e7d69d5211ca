"""The record of a visual answer: the decision, and the search as an event of the shopper's stream.

Belongs here: decision and event. Does not belong here: storing them (`serving/decision_log.py`,
`serving/inbox`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from collections.abc import Sequence
from typing import Any

from contracts.decisions import Decision, DecisionItem
from contracts.events import Action, Event, Identifier
from contracts.identity import LOGIN
from serving.answers import Prepared, new_id, rules_of
from serving.profiles.history import to_moment
from serving.releases.release import Release
from serving.routes.vision_types import Shopper
from serving.vision.choose import Entry
from serving.vision.models import Spent

SOURCE = "continuum-server"
RUNS = ("detector", "embedder", "text", "outfit", "ranker")
"""Steps that are ONNX runs."""


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """A decision and what made it.

    Attributes:
        decision: As it is logged.
        release: What answered.
        started_ns: When the request began, `time.perf_counter_ns`.
    """

    decision: Decision
    release: Release
    started_ns: int


def decided(
    release: Release,
    prepared: Prepared,
    lists: Sequence[Sequence[Entry]],
    facts: dict[str, Any],
    spent: Spent,
    candidates: int,
    asked: Shopper,
) -> Record:
    """Write an answer down.

    Args:
        release: What answered.
        prepared: Who asked.
        lists: The results, list by list; positions count through all of them.
        facts: What was asked for; lists are told by the positions at which they begin.
        spent: Time by step.
        candidates: How many products were ordered.
        asked: The request.
    """
    items = release.engine.items
    now = dt.datetime.now(dt.UTC)
    flat = [entry for entries in lists for entry in entries]
    starts = [sum(len(entries) for entries in lists[:place]) for place in range(len(lists))]
    if not flat:
        prepared.notes.append("nothing_found")
    shown = tuple(
        DecisionItem(
            product_id=items.product_ids[entry.item],
            position=position,
            score=entry.score,
            propensity=entry.propensity,
            sources=(entry.source,),
            reason=entry.reason,
            name=items.name[entry.item],
        )
        for position, entry in enumerate(flat)
    )
    prices = {
        "price": asked.price_min is not None or asked.price_max is not None, "in_stock": asked.in_stock,
        "sizes": bool(asked.sizes),
    }  # fmt: skip
    rules = [*rules_of(prepared.question.filters), *(f"filter:{name}" for name, on in prices.items() if on)]
    if any(entry.propensity < 1.0 for entry in flat):
        rules.append("exploration")
    decision = Decision(
        decision_id=new_id(now),
        decided_at=now,
        as_of=to_moment(prepared.at_us),
        customer_id=asked.customer_id,
        session_id=asked.session_id,
        touchpoint=asked.touchpoint,
        path=prepared.path,
        notes=tuple(dict.fromkeys(prepared.notes)),
        release=release.name,
        rules=tuple(rules),
        items=shown,
        context={**prepared.context, **facts, "lists_begin": starts},
        candidates=candidates,
        history=len(prepared.query.history),
        model_ms=round(spent.milliseconds(*RUNS), 4),
        handler_ms=round((time.perf_counter_ns() - prepared.question.started_ns) / 1e6, 4),
    )
    return Record(decision, release, prepared.question.started_ns)


def search_event(action: Action, decision: Decision, asked: Shopper, query: str | None = None) -> Event:
    """The search as an event; one that found nothing shows the moment "failed search" by its results.

    Args:
        action: ``visual_search`` or ``search``.
        decision: What was answered.
        asked: The request.
        query: Words, or None.
    """
    identifiers = () if asked.customer_id is None else (Identifier(kind=LOGIN, value=asked.customer_id),)
    return Event(
        event_id=decision.decision_id,
        source=SOURCE,
        occurred_at=decision.as_of,
        channel=asked.channel,
        action=action,
        identifiers=identifiers,
        session_id=asked.session_id,
        touchpoint=asked.touchpoint,
        query=query,
        decision_id=decision.decision_id,
        detail={"results": len(decision.items), "objects": len(decision.context.get("objects", ()))},
    )
