"""Sending what waits in the outbox: in order, signed, again until the receiver says yes or the attempts are used up.

A status from 200 to 299 is a yes; everything else, and no answer, is a no. After a no the destination waits
(exponential backoff with jitter, or what ``Retry-After`` asks for) and its later messages wait behind it. 410 (gone)
or the last attempt makes the message dead: the destination is reported until somebody revives it.

Belongs here: one attempt, the loop, the wait. Does not belong here: storage (`outbox.py`), choosing rows (`exporting.py`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from contracts.events import Purpose
from contracts.outbound import OutboundError, Webhook
from orchestration.outbound.addresses import AddressError, Resolver, address_of, resolve, target
from orchestration.outbound.outbox import Outbox
from orchestration.outbound.records import CHANGES, Item, Message
from orchestration.outbound.signing import read_secrets, sign

LONGEST_WAIT = 6 * 3600.0
GROWTH = 3.0
GONE = 410
"""The receiver wants no more of this (Standard Webhooks)."""
USER_AGENT = "continuum-outbound/1"


@dataclasses.dataclass(frozen=True)
class Line:
    """A webhook, ready to be used.

    Attributes:
        name: In the yaml.
        webhook: As the yaml states it.
        url: With its variables filled in.
        secrets: To sign with.
    """

    name: str
    webhook: Webhook
    url: str
    secrets: tuple[bytes, ...]


@dataclasses.dataclass
class Sent:
    """What became of one destination's messages.

    Attributes:
        destination: Name.
        accepted: Messages that the receiver took.
        rows: Rows in them.
        failed: Attempts that were not.
        waiting: Messages that still wait, dead ones included.
        dead: Messages that wait for somebody.
        error: Of the last failed attempt.
    """

    destination: str
    accepted: int = 0
    rows: int = 0
    failed: int = 0
    waiting: int = 0
    dead: int = 0
    error: str = ""


def open_line(name: str, webhook: Webhook, environment: Mapping[str, str] | None = None) -> Line:
    """Fill in a webhook's address and secrets.

    Raises:
        OutboundError: A variable is missing, or the address or secret cannot be used.
    """
    where = f"destinations.{name}"
    return Line(
        name,
        webhook,
        address_of(webhook, where, environment),
        read_secrets(webhook.secret, f"{where}.secret", environment),
    )


class Sender:
    """Sends what waits.

    Args:
        outbox: What waits.
        about: Said in every message: the shop, and whether it is simulated.
        allowed: Persons who allow a purpose now; rows of others are taken out before they are sent.
        resolver: Gives the addresses of a host.
        clock: Unix time.
        rest: Waits some seconds.
        draw: Uniform draws from 0 to 1, for the jitter.
    """

    def __init__(
        self, outbox: Outbox, about: Mapping[str, Any], allowed: Callable[[Purpose], set[str]], *,
        resolver: Resolver = resolve, clock: Callable[[], float] = time.time, rest: Callable[[float], None] = time.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:  # fmt: skip
        self._outbox, self._about, self._allowed = outbox, about, allowed
        self._resolver, self._clock, self._rest, self._draw = resolver, clock, rest, draw

    def run(self, line: Line, patience: float = 0.0) -> Sent:
        """Send one destination's messages.

        Args:
            line: Where to.
            patience: Seconds for which to wait for messages that are to be tried again; the rest stays for the next run.
        """
        done, until = Sent(line.name), self._clock() + patience
        with client_of(line) as client:
            while (message := self._outbox.head(line.name)) is not None and not message.dead:
                wait = message.next_at - self._clock()
                if wait > 0:
                    if self._clock() + wait > until:
                        break
                    self._rest(wait)
                self._attempt(client, line, message, done)
        left = self._outbox.waiting(line.name)
        done.waiting, done.dead = len(left), sum(message.dead for message in left)
        return done

    def _attempt(self, client: Any, line: Line, message: Message, done: Sent) -> None:
        items = self._lawful(message)
        if not items:
            self._outbox.dropped(message)
            return
        status, error, after = self.post(client, line, message.message_id, self.body(message, items))
        if 200 <= status < 300:
            self._outbox.accepted(message, len(items), _iso(self._clock()))
            done.accepted += 1
            done.rows += len(items)
            return
        done.failed += 1
        done.error = error
        dead = status == GONE or message.attempts + 1 >= line.webhook.attempts
        wait = max(after, backoff(line.webhook.backoff_seconds, message.attempts, self._draw()))
        self._outbox.failed(message, error, self._clock() + wait, dead)

    def _lawful(self, message: Message) -> list[Item]:
        """The rows that may be told now: consent may have been withdrawn since the message was written."""
        allowed = self._allowed(message.purpose)
        return [i for i in self._outbox.items(message) if i.change == "removed" or i.person_id in allowed]

    def body(self, message: Message, items: list[Item]) -> bytes:
        """What is sent: ``type``, ``timestamp`` and ``data``, as Standard Webhooks has it."""
        parts: dict[str, list[Any]] = {c: [_row(item) for item in items if item.change == c] for c in CHANGES}
        data = {**self._about, "audience": message.audience, "purpose": message.purpose, **parts}
        return msgspec.json.encode({"type": "audience.changed", "timestamp": message.made_at, "data": data})

    def post(self, client: Any, line: Line, message_id: str, body: bytes) -> tuple[int, str, float]:
        """One request.

        Returns:
            The status (0 for no answer), what was wrong in words, and the seconds that the receiver asks to wait.
        """
        import httpx

        try:
            place = target(line.url, line.webhook.private, self._resolver)
        except AddressError as error:
            return 0, str(error), 0.0
        headers = {
            "host": place.header, "content-type": "application/json", "user-agent": USER_AGENT,
            **sign(line.secrets, message_id, int(self._clock()), body),
        }  # fmt: skip
        # The connection goes to the judged address; the certificate must still be the host's.
        extensions = {"sni_hostname": place.host} if place.scheme == "https" else {}
        try:
            with client.stream(
                "POST", place.url, content=body, headers=headers, extensions=extensions
            ) as answer:
                status = int(answer.status_code)
                after = _seconds(answer.headers.get("retry-after", ""))
        except httpx.HTTPError as error:
            return 0, f"{type(error).__name__}: no answer from {place.host}", 0.0
        if 300 <= status < 400:
            return status, f"status {status}: redirects are not followed", after
        return status, f"status {status}", after


def backoff(mean: float, attempts: int, draw: float) -> float:
    """Seconds to wait after a failed attempt: growing, and drawn, so that many senders do not come back at once.

    Args:
        mean: Before the second attempt.
        attempts: Made before this one.
        draw: From 0 to 1.
    """
    return min(LONGEST_WAIT, mean * GROWTH ** min(attempts, 40)) * (0.5 + draw)


def client_of(line: Line) -> Any:
    """An HTTP client for a webhook; to be closed.

    Raises:
        OutboundError: Its certificates cannot be read.
    """
    import ssl

    import httpx

    try:
        verify: Any = (
            ssl.create_default_context(cafile=line.webhook.ca_file) if line.webhook.ca_file else True
        )
    except OSError as error:
        raise OutboundError(f"destinations.{line.name}.ca_file cannot be read: {error}") from error
    # No proxy of the environment, no redirects: the judged address is the one that is spoken to.
    return httpx.Client(
        timeout=line.webhook.timeout_seconds, verify=verify, trust_env=False, follow_redirects=False
    )


def _row(item: Item) -> Any:
    if item.change == "removed":
        names = ("person_id",) if item.row_id == item.person_id else ("action_id", "person_id")
        return dict(zip(names, (item.row_id, item.person_id), strict=False))
    return msgspec.Raw(item.raw.encode())


def _seconds(text: str) -> float:
    """``Retry-After`` in seconds, bounded; dates are left to the backoff."""
    return min(float(text), LONGEST_WAIT) if text.isdigit() else 0.0


def _iso(moment: float) -> str:
    return dt.datetime.fromtimestamp(moment, dt.UTC).isoformat(timespec="milliseconds")
