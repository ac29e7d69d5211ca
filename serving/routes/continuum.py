"""`GET /continuum` and `GET /continuum/customer`: the shop at a glance, and one customer's life with it.

Belongs here: addresses, headers, where the numbers are read. Does not belong here: drawing
(`serving/pages`), making the numbers (orchestration publishes them).
"""

from __future__ import annotations

import functools
import pathlib
from importlib import util

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from contracts.identity import person_id
from contracts.moments import MomentRules
from contracts.overview import OVERVIEW_FILE, Overview
from serving.inbox.schema import InboxError
from serving.pages.continuum import Coming, render_customer, render_overview
from serving.profiles.history import empty_history, to_moment
from serving.profiles.moments import LiveMoment, live_moments
from serving.profiles.predictions import PredictionsError
from serving.routes.documents import HTML, LONGEST_ID, PAGE, ask
from serving.routes.problems import ProblemError
from serving.server import Server

_CHARTS = {
    **PAGE,
    # The plotting library writes its own style sheet into the page.
    "content-security-policy": PAGE["content-security-policy"].replace(
        "style-src 'self'", "style-src 'self' 'unsafe-inline'"
    ),
}
_DECODER = msgspec.json.Decoder(Overview)
_RULES = MomentRules()


async def overview(request: Request) -> Response:
    """The shop at a glance: numbers, channel graph, moments, attribution, segments."""
    server: Server = request.app.state.server
    found, problem = _read(server)
    return Response(render_overview(server, found, problem), 200, _CHARTS, HTML)


async def customer(request: Request) -> Response:
    """One customer's continuum: what happened, where, and what comes next."""
    server: Server = request.app.state.server
    customer_id = request.query_params.get("customer_id", "").strip()
    if len(customer_id) > LONGEST_ID:
        raise ProblemError("invalid-request", f"customer_id is longer than {LONGEST_ID} characters")
    release, history, problem = server.holder.current, empty_history(), ""
    answer = None
    moments: list[LiveMoment] = []
    coming = Coming()
    if customer_id:
        answer, problem = await ask(server, customer_id)
        try:
            if release is not None:
                history = server.profiles.get(release.engine.items, customer_id, None).history
            person = person_id("customer", customer_id)
            sent = server.profiles.sent(customer_id)
            _, moments = live_moments(person, sent, _RULES)
            coming = Coming(
                server.predictions.of(customer_id),
                server.outlooks.of(customer_id),
                server.outlooks.action(customer_id),
                server.intent.of(person, sent, _RULES, to_moment(server.clock.now_us())),
            )
        except (InboxError, PredictionsError) as error:
            problem = str(error)
    page = render_customer(server, customer_id, history, moments, coming, answer, problem)
    return Response(page, 200, PAGE, HTML)


async def plotly(request: Request) -> Response:
    """The plotting library, out of the installed package."""
    headers = {"cache-control": "public, max-age=86400"}
    return Response(_plotly(), 200, headers, "text/javascript; charset=utf-8")


@functools.cache
def _plotly() -> bytes:
    spec = util.find_spec("plotly")
    if spec is None or spec.origin is None:
        raise ProblemError("not-found", "the package plotly is not installed: charts need it")
    return (pathlib.Path(spec.origin).parent / "package_data" / "plotly.min.js").read_bytes()


def _read(server: Server) -> tuple[Overview | None, str]:
    """What orchestration last published, or why there is nothing to show."""
    folder = server.options.overview
    if folder is None or not (folder / OVERVIEW_FILE).is_file():
        return None, "Nothing is published yet: run the job full_pipeline."
    try:
        return _DECODER.decode((folder / OVERVIEW_FILE).read_bytes()), ""
    except (OSError, msgspec.ValidationError, msgspec.DecodeError) as error:
        return None, f"The published overview cannot be read: {error}"
