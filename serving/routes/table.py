"""Every address of the server, in one table: the router and OpenAPI are both made from it.

Belongs here: what exists. Does not belong here: how it works.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from contracts.decisions import Decision
from contracts.events import Event
from serving.routes import documents, events, recommendations, status
from serving.routes.types import IntakeAnswer, Liveness, Readiness, RecommendationRequest, ReleaseStatus


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one address.

    Attributes:
        method: HTTP method.
        path: Address, with ``{name}`` for path parameters.
        handler: What answers.
        summary: One line.
        tag: Group on the documentation page.
        body: Type of the JSON body, or None.
        answers: Type of the JSON body by status; None where it is not JSON.
        problems: Kinds of problem it can end with (`serving.routes.problems.KINDS`).
        example: An example body.
    """

    method: str
    path: str
    handler: Callable[[Request], Awaitable[Response]]
    summary: str
    tag: str
    body: Any = None
    answers: dict[int, Any] = {}
    problems: tuple[str, ...] = ()
    example: Any = None


_BODY = ("malformed-json", "too-slow", "too-large", "unsupported-media-type")
_EXAMPLE_EVENT = {
    "event_id": "view-1",
    "source": "web-shop",
    "occurred_at": "2017-12-01T18:03:00Z",
    "channel": "web",
    "action": "view",
    "identifiers": [{"kind": "customer", "value": "1"}],
    "session_id": "s-42",
    "product_id": "1029743",
}

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="POST", path="/v1/recommendations", handler=recommendations.recommend, tag="Answers",
        summary="Recommend products to a customer or a session, with a reason for each",
        body=RecommendationRequest, answers={200: Decision},
        problems=(*_BODY, "invalid-request", "no-release", "busy"),
        example={"customer_id": "1", "touchpoint": "home", "n": 5, "filters": {"department": ["GROCERY"]}},
    ),
    Operation(
        method="GET", path="/v1/decisions/{decision_id}", handler=recommendations.decision, tag="Answers",
        summary="Open the record of an answer", answers={200: Decision},
        problems=("not-found", "store-unavailable"),
    ),
    Operation(
        method="POST", path="/v1/events", handler=events.events, tag="Events",
        summary="Take in one event or a list of events; acknowledged means on disk",
        body=Event | list[Event], answers={202: IntakeAnswer, 207: IntakeAnswer},
        problems=(*_BODY, "invalid-event", "store-unavailable"), example=[_EXAMPLE_EVENT],
    ),
    Operation(
        method="GET", path="/v1/release", handler=status.release, tag="Operation",
        summary="Which release answers, which one is kept, how the registry is doing",
        answers={200: ReleaseStatus}, problems=("no-release",),
    ),
    Operation(
        method="GET", path="/health/live", handler=status.live, tag="Operation",
        summary="The process answers", answers={200: Liveness},
    ),
    Operation(
        method="GET", path="/health/ready", handler=status.ready, tag="Operation",
        summary="A release is loaded (503 before)", answers={200: Readiness, 503: Readiness},
    ),
    Operation(
        method="GET", path="/metrics", handler=status.metrics, tag="Operation",
        summary="Prometheus metrics", answers={200: None},
    ),
    Operation(
        method="GET", path="/openapi.json", handler=documents.openapi, tag="Operation",
        summary="This interface as OpenAPI 3.1", answers={200: None},
    ),
)  # fmt: skip
