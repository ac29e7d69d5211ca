"""`POST /v1/events`: acknowledged means on disk.

Belongs here: from a body to the inbox and back to a status code. Does not belong here: validation of
one event (`serving/inbox/intake.py`), storage (`serving/inbox/writer.py`).
"""

from __future__ import annotations

import asyncio
import time

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from serving.inbox.intake import MalformedBodyError, TooManyEventsError, check_events, split_body
from serving.inbox.schema import InboxError
from serving.inbox.writer import Receipt, Refused
from serving.profiles.history import to_microseconds
from serving.routes.bodies import read_json_body
from serving.routes.problems import FieldError, ProblemError
from serving.routes.types import IntakeAnswer
from serving.server import Server

_ENCODER = msgspec.json.Encoder()


async def events(request: Request) -> Response:
    """Store one event or a list of events.

    202 when all are kept; 207 when some of a list are refused, each named by index and field; 422 when
    the one event is refused. An event that was stored before is a duplicate, which is no error.
    """
    server: Server = request.app.state.server
    started = time.perf_counter()
    body = await read_json_body(request, server.limits.events_bytes, server.limits.body_seconds)
    try:
        parts = split_body(body, server.limits.batch_events)
    except MalformedBodyError as error:
        raise ProblemError("malformed-json", str(error)) from error
    except TooManyEventsError as error:
        raise ProblemError("too-large", str(error)) from error
    received_at = server.clock.wall()
    good, refused = check_events(parts, received_at, server.clock.latest_allowed())
    try:
        receipt = await asyncio.wrap_future(server.inbox.submit(to_microseconds(received_at), good, refused))
    except InboxError as error:
        server.metrics.intake_failures.inc()
        raise ProblemError(
            "store-unavailable", f"{error}; no event of this request was stored", retry_after=2
        ) from error
    server.note_intake(receipt, len(refused))
    server.metrics.intake_seconds.observe(time.perf_counter() - started)
    return _answer(receipt, refused, single=body.lstrip()[:1] == b"{")


def _answer(receipt: Receipt, refused: list[Refused], single: bool) -> Response:
    errors = tuple(FieldError(field=r.field, message=r.message, index=r.index) for r in refused)
    if refused and single:
        raise ProblemError("invalid-event", errors[0].message, errors)
    answer = IntakeAnswer(
        accepted=receipt.accepted,
        duplicates=len(receipt.duplicates),
        refused=len(refused),
        errors=errors,
        duplicate_indices=receipt.duplicates,
        offset=receipt.offset,
    )
    headers = {"cache-control": "no-store"}
    return Response(_ENCODER.encode(answer), 207 if refused else 202, headers, "application/json")
