"""Reading request bodies: bounded in size, time and kind before anything is parsed.

Belongs here: the guard in front of every JSON body. Does not belong here: what the JSON means.
"""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from serving.routes.problems import ProblemError


async def read_json_body(request: Request, limit: int, seconds: float) -> bytes:
    """The body of a request, read in chunks and cut off at the limit.

    Args:
        request: The request.
        limit: Most bytes.
        seconds: Longest time.

    Raises:
        ProblemError: Not JSON by its headers, larger than the limit, too slow, empty or broken off.
    """
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ProblemError("unsupported-media-type", "expected content-type application/json")
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
        raise ProblemError("malformed-json", "the connection closed before the body was complete") from error
    if size == 0:
        raise ProblemError("malformed-json", "the body is empty; expected JSON")
    return b"".join(chunks)
