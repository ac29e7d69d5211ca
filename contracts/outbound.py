"""What leaves the platform: audiences, and the files, tables and webhooks that they go to; a section of the yaml.

Belongs here: the types of ``destinations`` and ``audiences`` in a retailer's profile and the rules that types
cannot state. Does not belong here: choosing people, writing, sending (`orchestration/outbound`).
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

from contracts.conditions import ConditionError, parse
from contracts.events import Purpose

NAME = r"^[a-z0-9][a-z0-9_-]{0,47}$"
SQL_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?$"
VARIABLE = r"^\$\{[A-Za-z_][A-Za-z0-9_]*\}$"
KIND = r"^[a-z][a-z0-9_]{0,31}$"

Positive = Annotated[int, msgspec.Meta(ge=1)]


class OutboundError(ValueError):
    """Something about what leaves that cannot be used; the message names it and what was expected."""


class Files(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="files"
):
    """A folder that gets one file and one manifest per audience.

    Attributes:
        format: ``csv``, ``parquet`` or ``jsonl``.
        folder: Relative to the yaml; by default ``outbound/files/NAME`` under CONTINUUM_HOME.
    """

    format: Literal["csv", "parquet", "jsonl"] = "csv"
    folder: Annotated[str, msgspec.Meta(min_length=1)] | None = None


class Table(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="sql"
):
    """A table of a SQL database.

    Attributes:
        connection: Key under ``connections``.
        table: Name, perhaps ``schema.table``; made where it is missing.
        mode: ``replace`` writes all rows of an audience anew in one transaction; ``upsert`` touches, in one
            transaction, only rows that are new, have changed or have left.
    """

    connection: str
    table: Annotated[str, msgspec.Meta(pattern=SQL_NAME)] = "audiences"
    mode: Literal["replace", "upsert"] = "replace"


class Webhook(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="webhook"
):
    """An address that gets signed messages about who came, changed and left (https://www.standardwebhooks.com).

    Attributes:
        url: ``https`` and a public host, unless `private` is set; ``${VARIABLE}`` is read from the environment.
        secret: ``${VARIABLE}`` with the signing secret: base64 of 24 to 64 bytes, perhaps with ``whsec_`` before it.
            Several, separated by blanks, sign side by side while a secret is being exchanged.
        batch: Rows in one message.
        attempts: Of one message, before it counts as dead.
        backoff_seconds: Mean wait before the second attempt; it triples from attempt to attempt, to 6 hours at most.
        timeout_seconds: For the receiver to answer.
        private: Allow http, and addresses that are not public (a receiver inside the shop's own network).
        ca_file: Certificates to trust instead of the usual ones, relative to the yaml.
    """

    url: str
    secret: Annotated[str, msgspec.Meta(pattern=VARIABLE)]
    batch: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    attempts: Annotated[int, msgspec.Meta(ge=1, le=50)] = 10
    backoff_seconds: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 5.0
    timeout_seconds: Annotated[float, msgspec.Meta(gt=0, le=120)] = 15.0
    private: bool = False
    ca_file: str | None = None


Destination: TypeAlias = Files | Table | Webhook


class Audience(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """People, or next best actions for people, who leave the platform together.

    Attributes:
        title: For people.
        rows: ``people``: one row per person; ``actions``: one per next best action that is a contact and has not expired.
        condition: Who, in the language of `contracts.conditions`.
        purpose: What they are exported for. Who has not consented to it is never exported; actions need the consent of
            their own purpose too.
        identifiers: Kinds that the receiver knows people by; who has none of them is left out.
        fields: What else is told of them (`continuum audiences fields`).
        destinations: Keys under ``destinations``.
        limit: At most so many, those who come first by `order`.
        order: A number field; largest first.
    """

    title: str
    rows: Literal["people", "actions"] = "people"
    condition: str
    purpose: Purpose
    identifiers: Annotated[tuple[Annotated[str, msgspec.Meta(pattern=KIND)], ...], msgspec.Meta(min_length=1)]
    fields: tuple[str, ...] = ()
    destinations: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    limit: Positive | None = None
    order: str | None = None


def check_outbound(
    audiences: Mapping[str, Audience],
    destinations: Mapping[str, Destination],
    connections: Mapping[str, str],
    file: str,
) -> None:
    """Apply the rules that types cannot state.

    Raises:
        OutboundError: Naming the file, the key's path and what was expected there.
    """
    for name, destination in destinations.items():
        where = f"{file}: `$.destinations.{name}`"
        _named(name, where)
        if isinstance(destination, Table) and destination.connection not in connections:
            known = ", ".join(connections) or "none is defined"
            raise OutboundError(
                f"{where}.connection is {destination.connection!r}; expected one of `$.connections`: {known}"
            )
        if isinstance(destination, Webhook):
            check_url(destination, where)
    for name, audience in audiences.items():
        where = f"{file}: `$.audiences.{name}`"
        _named(name, where)
        for wanted in audience.destinations:
            if wanted not in destinations:
                known = ", ".join(destinations) or "none is defined"
                raise OutboundError(
                    f"{where}.destinations names '{wanted}'; expected some of `$.destinations`: {known}"
                )
        for key in ("identifiers", "fields", "destinations"):
            values = getattr(audience, key)
            if len(set(values)) != len(values):
                raise OutboundError(f"{where}.{key} names something twice; expected each once")
        if audience.limit is not None and audience.order is None:
            raise OutboundError(
                f"{where}.limit without order says nothing about whom; expected `order: FIELD`"
            )
        try:
            parse(audience.condition)
        except ConditionError as error:
            raise OutboundError(f"{where}.condition: {error}") from error


def anchor_destination(destination: Destination, folder: pathlib.Path) -> Destination:
    """The same destination with its paths made absolute."""
    if isinstance(destination, Files) and destination.folder is not None:
        place = str(folder / pathlib.Path(destination.folder).expanduser())
        return msgspec.structs.replace(destination, folder=place)
    if isinstance(destination, Webhook) and destination.ca_file is not None:
        return msgspec.structs.replace(
            destination, ca_file=str(folder / pathlib.Path(destination.ca_file).expanduser())
        )
    return destination


def _named(name: str, where: str) -> None:
    if not re.fullmatch(NAME, name):
        raise OutboundError(f"{where}: expected a name of at most 48 of a-z, 0-9, _ and -")


def check_url(destination: Webhook, where: str) -> None:
    """Hold a webhook's address against the rules.

    Raises:
        OutboundError: Naming the key and what was expected.
    """
    if re.fullmatch(VARIABLE, destination.url):
        return  # Known when it is used.
    try:
        parts = urlsplit(destination.url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise OutboundError(f"{where}.url cannot be read: {error}; expected https://HOST/PATH") from error
    schemes = ("https", "http") if destination.private else ("https",)
    if parts.scheme not in schemes or not host:
        raise OutboundError(
            f"{where}.url is '{parts.scheme}://{host or ''}'; expected https://HOST/PATH"
            + ("" if destination.private else " (http only with private: true)")
        )
    if parts.username or parts.password or parts.fragment:
        raise OutboundError(f"{where}.url holds a user, a password or a fragment; expected none of them")
