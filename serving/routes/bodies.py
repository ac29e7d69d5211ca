"""Reading request bodies: bounded in size, time and kind before anything is parsed.

Belongs here: the guard in front of every body. Does not belong here: what it means.
"""

from __future__ import annotations

import asyncio
import re
from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from serving.inbox.intake import field_of
from serving.routes.problems import FieldError, ProblemError

T = TypeVar("T")

PARTS = 8
_BOUNDARY = re.compile(r"boundary=(?:\"([^\"\r\n]{1,200})\"|([^\s;\"]{1,200}))", re.IGNORECASE)


async def read_json_body(request: Request, limit: int, seconds: float) -> bytes:
    """The JSON body of a request, read in chunks and cut off at the limit.

    Args:
        request: The request.
        limit: Most bytes.
        seconds: Longest time.

    Raises:
        ProblemError: Not JSON by its headers, larger than the limit, too slow, empty or broken off.
    """
    kind = media_type(request) or "application/json"
    if kind != "application/json":
        raise ProblemError("unsupported-media-type", "expected content-type application/json")
    body = await read_body(request, limit, seconds)
    if not body:
        raise ProblemError("malformed-json", "the body is empty; expected JSON")
    return body


def media_type(request: Request) -> str:
    """Content type of the body without its parameters, empty where none is stated."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_body(request: Request, limit: int, seconds: float, broken: str = "malformed-json") -> bytes:
    """Any body of a request, read in chunks and cut off at the limit.

    Args:
        request: The request.
        limit: Most bytes.
        seconds: Longest time.
        broken: Kind of problem of a body that breaks off.

    Raises:
        ProblemError: Encoded, larger than the limit, too slow or broken off.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ProblemError("unsupported-media-type", "expected a body without content-encoding")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise ProblemError("too-large", f"the body has {declared} bytes; expected at most {limit}")
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise ProblemError(
                        "too-large", f"the body has more than {limit} bytes; expected at most {limit}"
                    )
                chunks.append(chunk)
    except TimeoutError as error:
        raise ProblemError("too-slow", f"the body did not arrive within {seconds:g} seconds") from error
    except ClientDisconnect as error:
        raise ProblemError(broken, "the connection closed before the body was complete") from error
    return b"".join(chunks)


def first_part(body: bytes, content_type: str) -> bytes:
    """The content of the first part of a multipart body that holds a file, or of its first part.

    Nothing is written to disk, and only the first few parts are looked at.

    Args:
        body: The whole body.
        content_type: Header of the request, with the boundary.

    Raises:
        ProblemError: No boundary, or no part.
    """
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise ProblemError(
            "unreadable-picture", "the content-type names no boundary; expected multipart/form-data"
        )
    mark = b"--" + (found.group(1) or found.group(2)).encode("latin-1")
    parts = [
        (head, content.removesuffix(b"\r\n"))
        for head, gap, content in (part.partition(b"\r\n\r\n") for part in body.split(mark, PARTS)[1:])
        if gap
    ]
    if not parts:
        raise ProblemError(
            "unreadable-picture", "the multipart body has no part; expected one with a picture"
        )
    return next((content for head, content in parts if b"filename=" in head.lower()), parts[0][1])


def decoded(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """A JSON body as what a route expects.

    Raises:
        ProblemError: It is no JSON, or a field does not fit; the field is named.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        field = FieldError(field=field_of(str(error)), message=str(error))
        raise ProblemError("invalid-request", str(error), (field,)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProblemError("malformed-json", str(error)) from error
    except RecursionError as error:
        raise ProblemError("malformed-json", "the JSON is nested too deeply") from error
