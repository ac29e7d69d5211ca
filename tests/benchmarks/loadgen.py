"""A load generator for the server: lean clients, constant open-loop load, honest latencies.

Open loop means that every request has an intended start and its latency is counted from there, so a
server that stalls cannot hide behind a client that politely waits (coordinated omission, see
https://github.com/giltene/wrk2).

Belongs here: sending requests and taking times. Does not belong here: what is sent, and judging it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import time
import urllib.parse
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Reply:
    """One answer, or its absence.

    Attributes:
        status: HTTP status; 0 where the connection failed.
        body: Content, or the failure in words.
        server_timing: Milliseconds by name from the header of that name.
        seconds: From the intended start to the last byte.
    """

    status: int
    body: bytes
    server_timing: dict[str, float]
    seconds: float


def request_bytes(address: str, path: str, body: bytes) -> bytes:
    """A POST of JSON as it goes over the wire."""
    host = urllib.parse.urlsplit(address).netloc
    head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Client:
    """A blocking client on one kept-alive connection: no more work than writing and reading."""

    def __init__(self, address: str) -> None:
        self._address = address
        parts = urllib.parse.urlsplit(address)
        self._socket = socket.create_connection((parts.hostname, parts.port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def post(self, path: str, body: bytes) -> Reply:
        """Send and wait.

        Raises:
            OSError: The connection failed.
        """
        started = time.perf_counter()
        self._socket.sendall(request_bytes(self._address, path, body))
        received = bytearray()
        while (stop := received.find(b"\r\n\r\n")) < 0:
            received += self._more()
        status, length, timing = _head(bytes(received[:stop]))
        while len(received) < stop + 4 + length:
            received += self._more()
        return Reply(status, bytes(received[stop + 4 :]), timing, time.perf_counter() - started)

    def close(self) -> None:
        self._socket.close()

    def _more(self) -> bytes:
        chunk = self._socket.recv(65_536)
        if not chunk:
            raise ConnectionError("the server closed the connection")
        return chunk


async def open_loop(
    address: str,
    path: str,
    body: Callable[[int], bytes],
    rate: float,
    seconds: float,
    connections: int = 16,
    stop: Callable[[], bool] = lambda: False,
) -> list[Reply]:
    """Send at a constant rate whatever the server does.

    Args:
        address: Of the server.
        path: To post to.
        body: Content of the i-th request.
        rate: Requests per second.
        seconds: How long.
        connections: Kept-alive connections; a request waits for a free one, on the clock.
        stop: Ends the load early.
    """
    parts = urllib.parse.urlsplit(address)
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter] | None] = asyncio.Queue()
    for _ in range(connections):
        free.put_nowait(None)
    replies: list[Reply] = []

    async def one(number: int, due: float) -> None:
        stream = await free.get()
        try:
            if stream is None:
                stream = await asyncio.open_connection(parts.hostname, parts.port)
            reader, writer = stream
            writer.write(request_bytes(address, path, body(number)))
            head = await reader.readuntil(b"\r\n\r\n")
            status, length, timing = _head(head[:-4])
            content = await reader.readexactly(length)
            replies.append(Reply(status, content, timing, time.perf_counter() - due))
            free.put_nowait(stream)
        except (OSError, asyncio.IncompleteReadError) as error:
            replies.append(Reply(0, repr(error).encode(), {}, time.perf_counter() - due))
            if stream is not None:
                stream[1].close()
            free.put_nowait(None)

    started = time.perf_counter()
    tasks = []
    for number in range(int(rate * seconds)):
        due = started + number / rate
        delay = due - time.perf_counter()
        if delay > 0:
            await asyncio.sleep(delay)
        if stop():
            break
        tasks.append(asyncio.create_task(one(number, due)))
    await asyncio.gather(*tasks)
    while not free.empty():
        stream = free.get_nowait()
        if stream is not None:
            stream[1].close()
    return replies


def _head(head: bytes) -> tuple[int, int, dict[str, float]]:
    """Status, content length and server timing of a response head."""
    lines = head.split(b"\r\n")
    status = int(lines[0].split(b" ", 2)[1])
    length = 0
    timing: dict[str, float] = {}
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        name = name.lower()
        if name == b"content-length":
            length = int(value)
        elif name == b"server-timing":
            for part in value.decode().split(","):
                label, _, duration = part.strip().partition(";dur=")
                timing[label] = float(duration)
    return status, length, timing
