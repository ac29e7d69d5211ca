"""Natural micro-batching: one engine thread answers whatever has queued up while it was busy.

Nothing ever waits for a batch to fill, so a lone request loses nothing, and under load the graphs run
on several requests at once.

Belongs here: the queue between the event loop and the engine. Does not belong here: answering.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)


class BusyError(RuntimeError):
    """Too many requests are waiting, or the server is stopping."""


class Batcher(Generic[Ask, Answer]):
    """Hands requests from the event loop to one worker thread.

    Args:
        work: Answers a batch; an exception in place of an answer goes to that request only.
        limit: Requests that may wait.
        size: Largest batch.
    """

    def __init__(
        self, work: Callable[[Sequence[Ask]], Sequence[Answer | Exception]], limit: int, size: int
    ) -> None:
        self._work = work
        self._limit = limit
        self._size = size
        self._queue: queue.SimpleQueue[
            tuple[Ask, asyncio.Future[Answer], asyncio.AbstractEventLoop] | None
        ] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    async def submit(self, ask: Ask) -> Answer:
        """Wait for the answer to one request.

        Raises:
            BusyError: Too many requests are waiting.
            Exception: What `work` gave for this request.
        """
        if self._closed:
            raise BusyError("the server is stopping")
        if self._queue.qsize() >= self._limit:
            raise BusyError(f"{self._limit} requests are waiting already")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._queue.put((ask, future, loop))
        return await future

    def close(self) -> None:
        """Answer what is queued, then stop."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            self._thread.join()

    def _run(self) -> None:
        running = True
        while running:
            batch = []
            entry = self._queue.get()
            while True:
                if entry is None:
                    running = False
                    break
                batch.append(entry)
                if len(batch) >= self._size:
                    break
                try:
                    entry = self._queue.get_nowait()
                except queue.Empty:
                    break
            if not batch:
                continue
            answers: Sequence[Answer | Exception]
            try:
                answers = self._work([ask for ask, _, _ in batch])
            except Exception as error:  # The thread must outlive any failure: clients wait on it.
                logger.exception("a batch of %d requests failed", len(batch))
                answers = [error] * len(batch)
            for (_, future, loop), answer in zip(batch, answers, strict=True):
                try:
                    loop.call_soon_threadsafe(_resolve, future, answer)
                except RuntimeError:  # The event loop has ended, and with it the connection.
                    logger.warning("an answer came after its event loop had ended")


def _resolve(future: asyncio.Future[Answer], answer: Answer | Exception) -> None:
    if future.done():  # The client went away.
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
