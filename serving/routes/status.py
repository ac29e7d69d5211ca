"""`GET /v1/release`, `/health/live`, `/health/ready`, `/metrics`.

Belongs here: what operators and orchestrators ask. Does not belong here: the human status page
(`serving/pages`).
"""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from serving.routes.problems import ProblemError
from serving.routes.types import Liveness
from serving.server import Server

_HEADERS = {"cache-control": "no-store"}


async def release(request: Request) -> Response:
    """What is served, what is kept for rollback, and how the registry is doing."""
    server: Server = request.app.state.server
    status = server.release_status()
    if status is None:
        latest = server.holder.refused[0].reason if server.holder.refused else server.holder.registry_error
        raise ProblemError("no-release", latest or "no release was approved yet", retry_after=5)
    return _json(status)


async def live(request: Request) -> Response:
    """The process answers."""
    return _json(Liveness())


async def ready(request: Request) -> Response:
    """200 once a release is loaded, 503 before; notes say what works in a reduced way."""
    server: Server = request.app.state.server
    readiness = server.readiness()
    return _json(readiness, 200 if readiness.ready else 503)


async def metrics(request: Request) -> Response:
    """Prometheus metrics."""
    server: Server = request.app.state.server
    return Response(server.metrics.render(), 200, _HEADERS, "text/plain; version=0.0.4; charset=utf-8")


def _json(body: msgspec.Struct, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, _HEADERS, "application/json")
