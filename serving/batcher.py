"""Natural micro-batching: what arrives in one turn of the event loop is answered together.

Nothing ever waits for a batch to fill: a lone request is answered at once, and the requests that arrive
while the engine is busy are read together in the next turn and share the encoder's run. The engine
runs on the event loop's own thread, because handing a request to another thread and its answer back
took as long as a tenth of the answer; a server is one process per core, so there is no core to win.

Belongs here: the queue between requests and the engine. Does not belong here: answering.
"""

from __future__ import annotations

import asyncio
import collections
import logging
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)


class BusyError(RuntimeError):
    """Too many requests are waiting, or the server is stopping."""


class Batcher(Generic[Ask, Answer]):
    """Answers the requests of one event loop in batches.

    Args:
        work: Answers a batch; an exception in place of an answer goes to that request only.
        limit: Requests that may wait.
        size: Largest batch; others get their turn on the event loop between two batches.
    """

    def __init__(
        self, work: Callable[[Sequence[Ask]], Sequence[Answer | Exception]], limit: int, size: int
    ) -> None:
        self._work = work
        self._limit = limit
        self._size = size
        self._waiting: collections.deque[tuple[Ask, asyncio.Future[Answer]]] = collections.deque()
        self._closed = False

    async def submit(self, ask: Ask) -> Answer:
        """Wait for the answer to one request.

        Raises:
            BusyError: Too many requests are waiting.
            Exception: What `work` gave for this request.
        """
        if self._closed:
            raise BusyError("the server is stopping")
        if len(self._waiting) >= self._limit:
            raise BusyError(f"{self._limit} requests are waiting already")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((ask, future))
        if len(self._waiting) == 1:
            loop.call_soon(self._answer, loop)
        return await future

    def close(self) -> None:
        """Take no more requests; those that wait are still answered."""
        self._closed = True

    def _answer(self, loop: asyncio.AbstractEventLoop) -> None:
        batch = [self._waiting.popleft() for _ in range(min(self._size, len(self._waiting)))]
        if self._waiting:
            loop.call_soon(self._answer, loop)
        batch = [entry for entry in batch if not entry[1].done()]  # Others have gone away.
        if not batch:
            return
        answers: Sequence[Answer | Exception]
        try:
            answers = self._work([ask for ask, _ in batch])
        except Exception as error:  # The server must outlive any failure.
            logger.exception("a batch of %d requests failed", len(batch))
            answers = [error] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
