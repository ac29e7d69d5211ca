"""How verbs talk to the live server: one HTTP client with errors a person can act on."""

from __future__ import annotations

import json
from typing import Any

from contracts.settings import read_settings
from orchestration.cli.output import fail


def call(method: str, path: str, body: Any = None, url: str | None = None, timeout: float = 30.0) -> Any:
    """Send a request to the server and return its JSON; explain and exit on any failure.

    Args:
        method: HTTP method.
        path: Path with a leading slash.
        body: Value to send as JSON, or bytes that are JSON already, or None.
        url: Address of the server; the settings' own by default.
        timeout: Seconds.
    """
    import httpx

    settings = read_settings()
    base = url or f"http://{settings.host}:{settings.serving_port}"
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    try:
        reply = httpx.request(
            method,
            base + path,
            content=content,
            headers={"content-type": "application/json"},
            timeout=timeout,
        )
    except httpx.HTTPError as error:
        fail(f"no answer from {base}: {error}", "start the services with `continuum up`")
    try:
        value = reply.json()
    except ValueError:
        value = {"detail": reply.text[:300]}
    if reply.status_code >= 400:
        detail = value.get("detail") or value.get("title") or value
        fail(f"{method} {path} was refused with {reply.status_code}: {detail}")
    return value
