"""Errors as RFC 9457 problem details: the field, what was expected, and nothing of the server's inside.

Belongs here: the kinds of problem and their wire form. Does not belong here: when they arise.
"""

from __future__ import annotations

import msgspec
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"


class FieldError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One field that breaks the contract.

    Attributes:
        field: JSON path of the field, empty where the body as a whole is wrong.
        message: What was found and what was expected.
        index: Position in a batch.
    """

    field: str
    message: str
    index: int | None = None


class ProblemBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a failed request gets (RFC 9457).

    Attributes:
        type: Address of the kind of problem, relative to the server.
        title: The kind in words.
        status: HTTP status.
        detail: What happened this time.
        errors: Fields at fault.
    """

    type: str
    title: str
    status: int
    detail: str
    errors: tuple[FieldError, ...] = ()


class Kind(msgspec.Struct, frozen=True):
    """A kind of problem: status and title; its name is the anchor on the documentation page."""

    status: int
    title: str


KINDS: dict[str, Kind] = {
    "malformed-json": Kind(400, "The body is not JSON of the expected form"),
    "invalid-request": Kind(422, "A field breaks the contract"),
    "invalid-event": Kind(422, "The event breaks the contract"),
    "too-large": Kind(413, "The body is too large"),
    "too-slow": Kind(408, "The body took too long to arrive"),
    "unsupported-media-type": Kind(415, "The body is of a kind that is not taken here"),
    "unreadable-picture": Kind(422, "The picture cannot be used"),
    "no-visual-models": Kind(409, "The release lacks the visual models that this needs"),
    "not-found": Kind(404, "There is nothing at this address"),
    "method-not-allowed": Kind(405, "This address does not take that method"),
    "no-release": Kind(503, "No release is loaded yet"),
    "busy": Kind(503, "Too many requests are waiting"),
    "store-unavailable": Kind(503, "Events cannot be stored now"),
    "internal": Kind(500, "The server failed"),
}


class ProblemError(Exception):
    """Ends a request with a problem.

    Args:
        kind: Key of `KINDS`.
        detail: What happened this time; never a path, a stack or another client's data.
        errors: Fields at fault.
        retry_after: Seconds after which trying again makes sense.
    """

    def __init__(
        self, kind: str, detail: str, errors: tuple[FieldError, ...] = (), retry_after: int | None = None
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.errors = errors
        self.retry_after = retry_after


def problem_response(error: ProblemError) -> Response:
    """The wire form of a problem."""
    kind = KINDS[error.kind]
    body = ProblemBody(
        type=f"/docs#problem-{error.kind}",
        title=kind.title,
        status=kind.status,
        detail=error.detail,
        errors=error.errors,
    )
    headers = {"cache-control": "no-store"}
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    if kind.status in {408, 413}:
        headers["connection"] = "close"
    return Response(msgspec.json.encode(body), kind.status, headers, MEDIA_TYPE)
