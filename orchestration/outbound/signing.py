"""Signatures of webhooks by the conventions of Standard Webhooks (https://www.standardwebhooks.com, version 1).

A message is signed as ``ID.TIMESTAMP.BODY`` with HMAC-SHA-256. The id stays the same over all attempts, so that a
receiver can drop what it has seen; the timestamp is the attempt's, so that an old request cannot be replayed.

Belongs here: secrets, headers, verification as a receiver does it. Does not belong here: sending.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping

from contracts.outbound import OutboundError
from contracts.settings import SettingsError, expand_address

PREFIX = "whsec_"
SHORTEST, LONGEST = 24, 64
"""Bytes of a secret."""
TOLERANCE_SECONDS = 300


class SignatureError(ValueError):
    """A request that must not be believed; the message says why."""


def read_secrets(text: str, where: str, environment: Mapping[str, str] | None = None) -> tuple[bytes, ...]:
    """The signing secrets that a ``${VARIABLE}`` names.

    Args:
        text: As the yaml states it.
        where: Begins every message.
        environment: Variables to read instead of the process's own.

    Raises:
        OutboundError: The variable is not set or holds no secret; the message never holds its value.
    """
    name = re.sub(r"[${}]", "", text)
    try:
        found = expand_address(text, environment).split()
    except SettingsError as error:
        raise OutboundError(
            f"{where}: the environment variable {name} is not set; expected the signing secret"
        ) from error
    secrets = []
    for part in found:
        try:
            secret = base64.b64decode(part.removeprefix(PREFIX), validate=True)
        except (binascii.Error, ValueError):
            secret = b""
        if not SHORTEST <= len(secret) <= LONGEST:
            raise OutboundError(
                f"{where}: {name} is not a signing secret; expected base64 of {SHORTEST} to {LONGEST} random bytes, "
                f"perhaps with {PREFIX} before it"
            )
        secrets.append(secret)
    if not secrets:
        raise OutboundError(f"{where}: {name} is empty; expected the signing secret")
    return tuple(secrets)


def sign(secrets: tuple[bytes, ...], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Headers of a signed message, one signature per secret."""
    content = f"{message_id}.{timestamp}.".encode() + body
    signatures = (base64.b64encode(hmac.new(s, content, hashlib.sha256).digest()).decode() for s in secrets)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def verify(secret: bytes, headers: Mapping[str, str], body: bytes, now: float) -> str:
    """What a receiver does before it believes a request.

    Args:
        secret: Shared with the sender.
        headers: Of the request, lower-case names.
        body: As it came, byte for byte.
        now: Unix time.

    Returns:
        The message's id.

    Raises:
        SignatureError: A header is missing, the time is off, or no signature fits.
    """
    try:
        message_id, stamp, signatures = (
            headers[f"webhook-{name}"] for name in ("id", "timestamp", "signature")
        )
        timestamp = int(stamp)
    except (KeyError, ValueError) as error:
        raise SignatureError(f"header {error} is missing or unreadable") from error
    if abs(now - timestamp) > TOLERANCE_SECONDS:
        raise SignatureError(
            f"the timestamp is {now - timestamp:.0f} s off; expected at most {TOLERANCE_SECONDS}"
        )
    wanted = sign((secret,), message_id, timestamp, body)["webhook-signature"].partition(",")[2]
    for signature in signatures.split():
        version, _, given = signature.partition(",")
        if version == "v1" and hmac.compare_digest(given.encode(), wanted.encode()):
            return message_id
    raise SignatureError("no signature fits")
