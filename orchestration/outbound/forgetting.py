"""Erasing a person from everything that left: outbox, files and tables that we wrote, and word to the receivers.

Files and tables are found by the outbox's record of places, so also those that the yaml no longer names. A webhook
that was ever told of the person is told to erase them (``person.erased``), without their name being written down again:
what cannot be told now is reported, and told by the next run of the erasure.

Belongs here: the stores that this part of the platform fills. Does not belong here: the erasure's order
(`orchestration/lake/erasure.py`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import pathlib
import re
import time
import uuid
from collections.abc import Sequence

import msgspec

from contracts.outbound import OutboundError, Webhook
from contracts.retailer import Retailer
from contracts.settings import Settings, SettingsError, read_retailer
from orchestration.outbound import files, sql
from orchestration.outbound.outbox import Outbox
from orchestration.outbound.records import Place, alone
from orchestration.outbound.sending import Sender, client_of, open_line

TRIES = 3


@dataclasses.dataclass(frozen=True)
class Forgotten:
    """What was found outside of the lake.

    Attributes:
        rows: By store, how many rows were (or would be) removed.
        untold: Receivers that hold the person and could not be told, with the reason.
        pending: Of these, receivers that the next run tells.
    """

    rows: dict[str, int]
    untold: dict[str, str]
    pending: tuple[str, ...] = ()


def forget(settings: Settings, persons: Sequence[str], texts: Sequence[str], dry_run: bool) -> Forgotten:
    """Remove a person from outbox, files and tables, and tell the webhooks that know them.

    Args:
        settings: The installation.
        persons: Ids that the person has or had.
        texts: Further texts that name them (`orchestration.lake.erasure_search.needles`).
        dry_run: Only count.

    Raises:
        OutboxBusyError: An export is running.
        OutboundError: A table that holds the person cannot be reached; call again.
    """
    if not (settings.outbound / "outbox.sqlite").is_file():
        return Forgotten({}, {})
    if dry_run:
        with Outbox(settings.outbound) as outbox:
            return Forgotten(_each(settings, outbox, persons, texts, True), {})
    with alone(settings.outbound), Outbox(settings.outbound) as outbox:
        rows = _each(settings, outbox, persons, texts, False)
        untold = _tell(settings, outbox, persons)
        pending = tuple(outbox.recipients(persons))
        outbox.compact()
        return Forgotten(rows, untold, pending)


def _each(
    settings: Settings, outbox: Outbox, persons: Sequence[str], texts: Sequence[str], dry_run: bool
) -> dict[str, int]:
    found = {store_of(settings, outbox.path): outbox.forget(persons, texts, dry_run)}
    for place in outbox.places():
        name = store_of(settings, pathlib.Path(place.place)) if place.kind == "files" else _table(place)
        if place.kind == "files":
            found[name] = files.forget(pathlib.Path(place.place), place.detail, persons, dry_run)
        elif name not in found:  # A table holds many audiences, and is cleaned of them all.
            found[name] = sql.forget(
                place.detail, place.place, persons, dry_run, f"destinations.{place.destination}"
            )
    return found


def _table(place: Place) -> str:
    return f"sql:{place.destination}/{place.place}"


def store_of(settings: Settings, path: pathlib.Path) -> str:
    """The path as erasures name it: below the home where it lies there."""
    return str(path.relative_to(settings.home)) if path.is_relative_to(settings.home) else str(path)


def outside(settings: Settings) -> list[pathlib.Path]:
    """Files that we wrote and that do not lie below the home, with their manifests."""
    if not (settings.outbound / "outbox.sqlite").is_file():
        return []
    with Outbox(settings.outbound) as outbox:
        paths = [pathlib.Path(place.place) for place in outbox.places() if place.kind == "files"]
    both = [path for found in paths for path in (found, files.manifest_of(found))]
    return [path for path in both if path.is_file() and not path.is_relative_to(settings.home)]


def _tell(settings: Settings, outbox: Outbox, persons: Sequence[str]) -> dict[str, str]:
    """Send ``person.erased`` to every webhook that was ever told of the person, and forget those that were."""
    names = outbox.recipients(persons)
    if not names:
        return {}
    try:
        retailer: Retailer | None = read_retailer(settings)
    except SettingsError:
        retailer = None
    untold = {}
    for name in names:
        destination = None if retailer is None else retailer.destinations.get(name)
        if not isinstance(destination, Webhook) or retailer is None:
            untold[name] = "it is no longer a webhook of the yaml; tell its owner yourself"
            outbox.told(name, persons)
            continue
        problem = _tell_one(outbox, retailer, name, destination, persons)
        if problem:
            untold[name] = (
                f"{problem}; run the erasure again, or remove the destination and tell its owner yourself"
            )
        else:
            outbox.told(name, persons)
    return untold


def _tell_one(outbox: Outbox, retailer: Retailer, name: str, webhook: Webhook, persons: Sequence[str]) -> str:
    at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    known = [{"person_id": person} for person in outbox.known_to(name, persons)]
    about = {"retailer": retailer.name, "simulated": retailer.simulated}
    body = msgspec.json.encode(
        {"type": "person.erased", "timestamp": at, "data": {**about, "removed": known}}
    )
    message_id, said = f"msg_{uuid.uuid4().hex}", ""
    try:
        line = open_line(name, webhook)
        sender = Sender(outbox, about, lambda purpose: set())
        with client_of(line) as client:
            for attempt in range(min(TRIES, webhook.attempts)):
                status, said, _ = sender.post(client, line, message_id, body)
                if 200 <= status < 300 or status == 410:
                    return ""
                if attempt + 1 < TRIES:
                    time.sleep(min(2.0, webhook.backoff_seconds * 3**attempt))
    except OutboundError as error:
        return re.sub(r"\s+", " ", str(error))
    return said
