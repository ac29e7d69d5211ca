"""The ASGI application: routes, errors as problem details, a counter per answer.

Belongs here: assembling. Does not belong here: what a route does (`serving/routes`).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.pages.render import STATIC
from serving.routes import continuum, documents, shop, vision
from serving.routes.problems import KINDS, ProblemError, problem_response
from serving.routes.table import OPERATIONS
from serving.server import Server

logger = logging.getLogger(__name__)


def build_app(server: Server) -> Starlette:
    """The application of a server; starting and stopping it starts and stops the server."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        server.start()
        try:
            yield
        finally:
            server.close()

    routes: list[Route | Mount] = [Route(o.path, o.handler, methods=[o.method]) for o in OPERATIONS]
    routes += [
        Route("/", documents.home),
        Route("/continuum", continuum.overview),
        Route("/continuum/customer", continuum.customer),
        Route("/static/plotly.min.js", continuum.plotly),
        Route("/docs", documents.docs),
        Route("/page/numbers", documents.numbers),
        Route("/page/try", documents.try_it),
        Route("/shop", shop.shop),
        Route("/media/{name}", vision.media),
        Route("/media/looks/{name}", vision.media),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={ProblemError: _problem, HTTPException: _http_error, Exception: _failure},
    )
    app.state.server = server
    app.add_middleware(_Counted, server=server)
    return app


class _Counted:
    """Counts answers by route and status, and marks every answer as not to be sniffed."""

    def __init__(self, app: ASGIApp, server: Server) -> None:
        self._app = app
        self._requests = server.metrics.requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-content-type-options", b"nosniff"))
                endpoint = getattr(
                    scope.get("endpoint"), "__name__", "static" if "endpoint" in scope else "none"
                )
                self._requests.labels(endpoint, str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, counted)


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return problem_response(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = next((name for name, k in KINDS.items() if k.status == error.status_code), "internal")
    response = problem_response(ProblemError(kind, KINDS[kind].title.lower()))
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


async def _failure(request: Request, error: Exception) -> Response:
    logger.error("a request failed", exc_info=error)
    return problem_response(ProblemError("internal", "the failure was logged"))
