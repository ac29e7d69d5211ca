"""Seeing over HTTP: photos, words, similar products, looks, product cards, pictures.

Belongs here: from a request to the desk and from an answer to JSON. Does not belong here: how it is
answered (`serving/vision`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from contracts.events import Event
from serving.answers import NoReleaseError
from serving.batcher import BusyError
from serving.engine.sessions import GraphError
from serving.inbox.intake import check_events
from serving.inbox.schema import InboxError
from serving.profiles.history import to_microseconds
from serving.routes.bodies import decoded, first_part, media_type, read_body, read_json_body
from serving.routes.problems import FieldError, ProblemError
from serving.routes.queries import read_query
from serving.routes.vision_types import (
    Answered,
    Cards,
    CardsQuery,
    HotspotAnswer,
    ImageAnswer,
    ImageQuery,
    LookAnswer,
    LookPart,
    LookRequest,
    SeenItem,
    Shopper,
    SimilarAnswer,
    TextAnswer,
    TextQuery,
    UnderstoodQuery,
)
from serving.server import Server
from serving.vision.boxes import SMALLEST_SHARE
from serving.vision.cards import Cardmaker
from serving.vision.decode import PictureError
from serving.vision.desk import Answer, NoVisualError, UnknownError
from serving.vision.record import RUNS, search_event
from serving.vision.seek import Aim

logger = logging.getLogger(__name__)

JSON = "application/json"
_NO_STORE = {"cache-control": "no-store"}
_PICTURE = {"cache-control": "public, max-age=3600", "content-security-policy": "default-src 'none'; sandbox"}
_ENCODER = msgspec.json.Encoder()
_TEXT = msgspec.json.Decoder(TextQuery)
_LOOK = msgspec.json.Decoder(LookRequest)
_recording: set[asyncio.Task[None]] = set()

NEXT_PHOTO = (
    "Nothing in this photo looks like something we sell. Try again closer and in more light, with the item "
    "against a plain ground, or mark it with a box or a point."
)
NEXT_SHELF = "Nothing that looks like it passes the filters. Try again without the price or the department."
NEXT_WORDS = "Nothing fits. Try fewer words, another colour or a wider price."


async def search_image(request: Request) -> Response:
    """Find every item in a photo, and what looks like each; or one item, by a box or by a point on it.

    The body is the photo itself, or multipart/form-data with it. The photo is looked at in memory and forgotten:
    it is not stored, and neither is what the camera wrote beside the pixels. The search is recorded as an event
    ``visual_search``, so clients need not send one.
    """
    server: Server = request.app.state.server
    started = time.perf_counter_ns()
    asked = read_query(request, ImageQuery)
    aim = _aim(asked)
    with _problems(), server.desk.pool.place():
        body = await read_body(
            request, server.limits.photo_bytes, server.limits.body_seconds, "unreadable-picture"
        )
        if media_type(request) == "multipart/form-data":
            body = first_part(body, request.headers["content-type"])
        answer = await server.desk.photo(body, aim, asked, started)
    _record(server, search_event("visual_search", answer.record.decision, asked))
    view, cards = answer.subject, _cards(server, answer)
    lists = cards.lists(answer.lists)
    objects = tuple(
        SeenItem(
            box=seen.found.box,
            label=seen.found.label,
            confidence=round(seen.found.confidence, 4),
            attributes=cards.attributes(seen.traits),
            searched=seen.shard,
            items=items,
        )
        for seen, items in zip(view.seen, lists, strict=True)
    )
    nothing = NEXT_PHOTO if not objects else "" if any(lists) else NEXT_SHELF
    return _json(
        answer,
        ImageAnswer(**_said(server, answer, nothing), width=view.width, height=view.height, objects=objects),
    )


async def search_text(request: Request) -> Response:
    """Find products by words, in the space of the pictures.

    Prices ("under 50", "between 20 and 40"), colours, and "without ..." or "not ..." become filters; the rest is
    looked for. The search is recorded as an event ``search``, so clients need not send one.
    """
    server: Server = request.app.state.server
    started = time.perf_counter_ns()
    asked = await _body(request, server, _TEXT)
    with _problems():
        answer, meant = await server.desk.words(asked, started)
    _record(server, search_event("search", answer.record.decision, asked, asked.query))
    understood = UnderstoodQuery(
        words=meant.words, price_min=meant.price_min, price_max=meant.price_max, colours=meant.colours,
        not_colours=meant.not_colours, without=meant.without,
    )  # fmt: skip
    (items,) = _cards(server, answer).lists(answer.lists)
    said = _said(server, answer, "" if items else NEXT_WORDS)
    return _json(answer, TextAnswer(**said, understood=understood, items=items))


async def similar(request: Request) -> Response:
    """Products that look like a product."""
    server: Server = request.app.state.server
    started = time.perf_counter_ns()
    asked = read_query(request, Shopper)
    with _problems():
        answer = await server.desk.similar(request.path_params["product_id"], asked, started)
    (items,) = _cards(server, answer).lists(answer.lists)
    said = _said(server, answer, "" if items else NEXT_SHELF)
    return _json(answer, SimilarAnswer(**said, product_id=answer.subject, items=items))


async def complete_look(request: Request) -> Response:
    """What goes with some products: for each part of an outfit that is missing, the most compatible ones.

    Answers are in stock and, where enough is known of the customer, in their usual price range.
    """
    server: Server = request.app.state.server
    started = time.perf_counter_ns()
    asked = await _body(request, server, _LOOK)
    with _problems():
        answer, together = await server.desk.complete(asked, started)
    lists = _cards(server, answer).lists(answer.lists)
    parts = tuple(
        LookPart(part=part.slot, items=items)
        for part, items in zip(answer.subject, lists, strict=True)
        if items
    )
    said = _said(server, answer, "" if parts else "Nothing in stock completes this look.")
    return _json(
        answer,
        LookAnswer(**said, product_ids=asked.product_ids, compatibility=round(together, 4), parts=parts),
    )


async def look(request: Request) -> Response:
    """A picture of the retailer with its hotspots: what is in it, where, and the products that answer."""
    server: Server = request.app.state.server
    started = time.perf_counter_ns()
    asked = read_query(request, Shopper)
    media_id = request.path_params["media_id"]
    with _problems():
        answer = server.desk.look(media_id, asked, started)
    found, lists = answer.subject, _cards(server, answer).lists(answer.lists)
    objects = tuple(
        SeenItem(
            box=spot.found.box, label=spot.found.label, confidence=round(spot.found.confidence, 4), attributes={},
            searched="", items=items,
        )
        for spot, items in zip(found.hotspots, lists, strict=True)
    )  # fmt: skip
    return _json(
        answer,
        HotspotAnswer(
            **_said(server, answer, "" if any(lists) else "Nothing in this picture is in stock now."),
            media_id=media_id,
            title=found.title,
            image=server.desk.media.address(media_id, look=True),
            width=found.width,
            height=found.height,
            objects=objects,
        ),
    )


async def products(request: Request) -> Response:
    """Products as a page shows them: name, price, picture; works without visual models too."""
    server: Server = request.app.state.server
    asked = read_query(request, CardsQuery)
    release = server.holder.current
    if release is None:
        raise ProblemError("no-release", "no release is loaded yet", retry_after=5)
    cards = Cardmaker(release, server.desk.media)
    known = (release.engine.items.index.get(product_id, -1) for product_id in asked.id)
    content = _ENCODER.encode(Cards(products=tuple(cards.card(item) for item in known if item >= 0)))
    return Response(content, 200, _NO_STORE, JSON)


async def media(request: Request) -> Response:
    """A picture of a product or a look, as the assets made it."""
    server: Server = request.app.state.server
    name = request.path_params["name"]
    path = server.desk.media.path(name.removesuffix(".jpg"), look="/looks/" in request.url.path)
    if path is None or not name.endswith(".jpg"):
        raise ProblemError("not-found", "there is no picture at this address")
    return FileResponse(path, headers=_PICTURE, media_type="image/jpeg")


@contextlib.contextmanager
def _problems() -> Iterator[None]:
    """What can go wrong at the desk, in words for the client."""
    try:
        yield
    except BusyError as error:
        raise ProblemError("busy", str(error), retry_after=1) from error
    except NoReleaseError as error:
        raise ProblemError("no-release", str(error), retry_after=5) from error
    except NoVisualError as error:
        raise ProblemError("no-visual-models", str(error)) from error
    except UnknownError as error:
        raise ProblemError("not-found", str(error)) from error
    except PictureError as error:
        raise ProblemError(error.fault, str(error)) from error
    except GraphError as error:
        logger.error("seeing: %s", error)
        raise ProblemError("internal", "a visual model failed; the failure was logged") from error


def _aim(asked: ImageQuery) -> Aim:
    """The box or the point that was asked for, inside the photo."""
    if asked.box is not None and asked.point is not None:
        _refuse("box", "`$.box` and `$.point` are both given; expected one of them")
    if asked.point is not None:
        x, y = _shares("point", asked.point, 2)
        return Aim(point=(x, y))
    if asked.box is None:
        return Aim()
    left, top, right, bottom = _shares("box", asked.box, 4)
    if right - left < SMALLEST_SHARE or bottom - top < SMALLEST_SHARE:
        _refuse(
            "box",
            f"`$.box` is {asked.box[:80]}; expected left < right and top < bottom, apart by at least {SMALLEST_SHARE}",
        )
    return Aim(box=(left, top, right, bottom))


def _shares(name: str, text: str, count: int) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count or not all(np.isfinite(values)) or not all(0.0 <= v <= 1.0 for v in values):
        _refuse(name, f"`$.{name}` is '{text[:80]}'; expected {count} numbers from 0 to 1, inside the photo")
    return values


def _refuse(field: str, message: str) -> None:
    raise ProblemError("invalid-request", message, (FieldError(field=field, message=message),))


async def _body(request: Request, server: Server, decoder: msgspec.json.Decoder[Any]) -> Any:
    return decoded(
        decoder, await read_json_body(request, server.limits.body_bytes, server.limits.body_seconds)
    )


def _cards(server: Server, answer: Answer) -> Cardmaker:
    return Cardmaker(answer.record.release, server.desk.media)


def _said(server: Server, answer: Answer, next_step: str) -> dict[str, Any]:
    """Fields of `Answered`."""
    decision = answer.record.decision
    return {
        "decision_id": decision.decision_id,
        "as_of": decision.as_of.isoformat(),
        "path": decision.path,
        "release": decision.release,
        "simulated": server.options.simulated,
        "notes": decision.notes,
        "next_step": next_step,
    }


def _json(answer: Answer, body: Answered) -> Response:
    content = _ENCODER.encode(body)
    spent = answer.spent
    handler = (time.perf_counter_ns() - answer.record.started_ns) / 1e6
    times = {
        **{step: spent.milliseconds(step) for step in spent.ns},
        "model": spent.milliseconds("decode", *RUNS),
        "handler": handler,
    }
    timing = ", ".join(f"{name};dur={milliseconds:.4f}" for name, milliseconds in times.items())
    return Response(content, 200, {**_NO_STORE, "server-timing": timing}, JSON)


def _record(server: Server, event: Event) -> None:
    """Put a search into the shopper's stream; an answer does not wait for that."""
    task = asyncio.get_running_loop().create_task(_store(server, event))
    _recording.add(task)
    task.add_done_callback(_recording.discard)


async def _store(server: Server, event: Event) -> None:
    received = server.clock.wall()
    good, refused = check_events([_ENCODER.encode(event)], received, server.clock.latest_allowed())
    try:
        receipt = await asyncio.wrap_future(server.inbox.submit(to_microseconds(received), good, refused))
    except InboxError as error:
        server.metrics.intake_failures.inc()
        logger.error("a search was not recorded: %s", error)
        return
    server.note_intake(receipt, len(refused))
