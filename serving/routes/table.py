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
from serving.routes import documents, events, recommendations, status, vision
from serving.routes.types import IntakeAnswer, Liveness, Readiness, RecommendationRequest, ReleaseStatus
from serving.routes.vision_types import (
    Cards,
    CardsQuery,
    HotspotAnswer,
    ImageAnswer,
    ImageQuery,
    LookAnswer,
    LookRequest,
    Shopper,
    SimilarAnswer,
    TextAnswer,
    TextQuery,
)


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one address.

    Attributes:
        method: HTTP method.
        path: Address, with ``{name}`` for path parameters.
        handler: What answers.
        summary: One line.
        tag: Group on the documentation page.
        body: Type of the JSON body, or None.
        query: Type whose fields are the query parameters, or None.
        media: Content types of a body that is no JSON.
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
    query: Any = None
    media: tuple[str, ...] = ()
    answers: dict[int, Any] = {}
    problems: tuple[str, ...] = ()
    example: Any = None


_BODY = ("malformed-json", "too-slow", "too-large", "unsupported-media-type")
_SEEING = ("invalid-request", "no-release", "no-visual-models", "busy")
_PHOTOS = ("image/jpeg", "image/png", "image/webp", "image/gif", "multipart/form-data")
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
        method="POST", path="/v1/search/image", handler=vision.search_image, tag="Seeing",
        summary="Search by photo: every item in it, and what looks like each",
        query=ImageQuery, media=_PHOTOS, answers={200: ImageAnswer},
        problems=("too-slow", "too-large", "unsupported-media-type", "unreadable-picture", *_SEEING),
    ),
    Operation(
        method="POST", path="/v1/search/text", handler=vision.search_text, tag="Seeing",
        summary="Search by words in the space of the pictures",
        body=TextQuery, answers={200: TextAnswer}, problems=(*_BODY, *_SEEING),
        example={"query": "red dress without stripes under 80", "n": 8},
    ),
    Operation(
        method="GET", path="/v1/products/{product_id}/similar", handler=vision.similar, tag="Seeing",
        summary="Products that look like a product", query=Shopper, answers={200: SimilarAnswer},
        problems=("not-found", *_SEEING),
    ),
    Operation(
        method="POST", path="/v1/looks/complete", handler=vision.complete_look, tag="Seeing",
        summary="What completes a look", body=LookRequest, answers={200: LookAnswer},
        problems=(*_BODY, "not-found", *_SEEING), example={"product_ids": ["1029743"], "n": 4},
    ),
    Operation(
        method="GET", path="/v1/looks/{media_id}", handler=vision.look, tag="Seeing",
        summary="A picture of the shop with its hotspots", query=Shopper, answers={200: HotspotAnswer},
        problems=("not-found", *_SEEING),
    ),
    Operation(
        method="GET", path="/v1/products", handler=vision.products, tag="Seeing",
        summary="Products as a page shows them", query=CardsQuery, answers={200: Cards},
        problems=("invalid-request", "no-release"),
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
