"""`GET /openapi.json`, `GET /docs`, `GET /`, and the pages' own files.

Belongs here: serving documents. Does not belong here: their content (`openapi.py`, `serving/pages`).
"""

from __future__ import annotations

import time
from importlib import metadata
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from contracts.decisions import Decision
from serving.answers import NoReleaseError, Question
from serving.batcher import BusyError
from serving.engine.items import Filters
from serving.pages.render import render_answer, render_docs, render_numbers, render_status
from serving.routes.problems import ProblemError
from serving.server import Server

PACKAGE = "continuum-retail"
PAGE = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
}
HTML = "text/html; charset=utf-8"
LONGEST_ID = 256


def code_version() -> str:
    """Version of the installed package, or of an uninstalled checkout."""
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return "0+unknown"


def _document(server: Server) -> dict[str, Any]:
    from serving.routes.openapi import document  # It reads the table that names this module's handlers.

    return document(server.options.title, code_version())


async def openapi(request: Request) -> Response:
    """This interface as OpenAPI 3.1."""
    content = msgspec.json.encode(_document(request.app.state.server))
    return Response(content, 200, {"cache-control": "no-cache"}, "application/json")


async def docs(request: Request) -> Response:
    """The interface for people: every address, type, example and error."""
    server: Server = request.app.state.server
    return Response(render_docs(server, _document(server)), 200, PAGE, HTML)


async def home(request: Request) -> Response:
    """The status page; with ``customer_id`` it also shows an answer, and works without JavaScript."""
    server: Server = request.app.state.server
    customer_id = request.query_params.get("customer_id", "").strip()
    answer, problem = (None, "") if not customer_id else await ask(server, customer_id)
    return Response(render_status(server, customer_id, answer, problem), 200, PAGE, HTML)


async def numbers(request: Request) -> Response:
    """The changing part of the status page, as a fragment."""
    return Response(render_numbers(request.app.state.server), 200, PAGE, HTML)


async def try_it(request: Request) -> Response:
    """An answer for the status page's form, as a fragment."""
    server: Server = request.app.state.server
    customer_id = request.query_params.get("customer_id", "").strip()
    answer, problem = await ask(server, customer_id)
    return Response(render_answer(server, customer_id, answer, problem), 200, PAGE, HTML)


async def ask(server: Server, customer_id: str) -> tuple[Decision | None, str]:
    """An answer for a page, or why there is none.

    Raises:
        ProblemError: The customer id is too long.
    """
    if len(customer_id) > LONGEST_ID:
        raise ProblemError("invalid-request", f"customer_id is longer than {LONGEST_ID} characters")
    question = Question(
        customer_id=customer_id or None,
        session_id=None,
        touchpoint="status-page",
        at_us=None,
        store_id=None,
        n=10,
        filters=Filters(),
        started_ns=time.perf_counter_ns(),
    )
    try:
        return await server.batcher.submit(question), ""
    except (BusyError, NoReleaseError) as error:
        return None, str(error)
