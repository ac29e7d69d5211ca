"""`POST /v1/recommendations` and `GET /v1/decisions/{id}`.

Belongs here: from JSON to a question, from a decision to JSON. Does not belong here: answering.
"""

from __future__ import annotations

import re
import sqlite3
import time

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from contracts.events import FUTURE_TOLERANCE
from serving.answers import NoReleaseError, Question
from serving.batcher import BusyError
from serving.engine.items import Filters
from serving.profiles.history import to_microseconds
from serving.routes.bodies import decoded, read_json_body
from serving.routes.problems import FieldError, ProblemError
from serving.routes.types import RecommendationRequest
from serving.server import Server

JSON = "application/json"
_DECODER = msgspec.json.Decoder(RecommendationRequest)
_ENCODER = msgspec.json.Encoder()
_DECISION_ID = re.compile(r"[0-9a-f]{32}")
_NO_STORE = {"cache-control": "no-store"}


async def recommend(request: Request) -> Response:
    """Answer with a decision: items by position, each with its reason, and how they were chosen."""
    server: Server = request.app.state.server
    started = time.perf_counter_ns()
    body = await read_json_body(request, server.limits.body_bytes, server.limits.body_seconds)
    question = _question(body, server, started)
    try:
        decision = await server.batcher.submit(question)
    except BusyError as error:
        raise ProblemError("busy", str(error), retry_after=1) from error
    except NoReleaseError as error:
        raise ProblemError("no-release", str(error), retry_after=5) from error
    content = _ENCODER.encode(decision)
    handler_ms = (time.perf_counter_ns() - started) / 1e6
    server.metrics.handler_seconds.observe(handler_ms / 1e3)
    timing = f"model;dur={decision.model_ms:.4f}, handler;dur={handler_ms:.4f}"
    return Response(content, 200, {**_NO_STORE, "server-timing": timing}, JSON)


def _question(body: bytes, server: Server, started_ns: int) -> Question:
    asked = decoded(_DECODER, body)
    at = asked.context.at
    try:
        at_us = None if at is None else to_microseconds(at)
        early = at is not None and at > server.clock.wall() + FUTURE_TOLERANCE
    except OverflowError:
        early, at_us = True, None
    if early or (at_us is not None and at_us < 0):
        message = "`$.context.at` lies in the future or before 1970; expected a moment that has come"
        raise ProblemError("invalid-request", message, (FieldError(field="context.at", message=message),))
    wanted = asked.filters
    return Question(
        customer_id=asked.customer_id,
        session_id=asked.session_id,
        touchpoint=asked.touchpoint,
        at_us=at_us,
        store_id=asked.context.store_id,
        n=asked.n,
        filters=Filters(
            department=wanted.department,
            category=wanted.category,
            brand=wanted.brand,
            exclude=wanted.exclude,
            in_promotion=wanted.in_promotion,
        ),
        started_ns=started_ns,
    )


async def decision(request: Request) -> Response:
    """The record of an answer that was given."""
    server: Server = request.app.state.server
    decision_id = request.path_params["decision_id"]
    if _DECISION_ID.fullmatch(decision_id) is None:
        raise ProblemError("not-found", "a decision id is 32 hexadecimal digits")
    try:
        content = server.decisions.find(decision_id)
    except sqlite3.Error as error:
        raise ProblemError(
            "store-unavailable", "the decision records cannot be read now", retry_after=1
        ) from error
    if content is None:
        raise ProblemError("not-found", "no decision of that id is known")
    return Response(content, 200, _NO_STORE, JSON)
