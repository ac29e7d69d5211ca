"""`GET /shop`: the page on which a shopper looks, searches and is recommended to.

Belongs here: the page's address. Does not belong here: markup (`serving/pages`), answers (its script
asks the public interface).
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from serving.pages.shop import render_shop
from serving.routes.documents import HTML, LONGEST_ID, PAGE
from serving.routes.problems import ProblemError
from serving.server import Server


async def shop(request: Request) -> Response:
    """The shop page."""
    server: Server = request.app.state.server
    customer_id = request.query_params.get("customer_id", "").strip()
    if len(customer_id) > LONGEST_ID:
        raise ProblemError("invalid-request", f"customer_id is longer than {LONGEST_ID} characters")
    return Response(render_shop(server, customer_id), 200, PAGE, HTML)
