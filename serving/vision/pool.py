"""A bounded pool of threads for photos: the event loop never decodes and never waits for one.

Belongs here: the places and the threads. Does not belong here: the work.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

from serving.batcher import BusyError

Result = TypeVar("Result")


class Pool:
    """Runs work for requests, a few at a time; used from one event loop.

    Args:
        workers: Threads.
        waiting: Requests that may wait for one or still send their body; further ones are refused at once.
    """

    def __init__(self, workers: int, waiting: int) -> None:
        self._threads = concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="photos")
        self._most = workers + waiting
        self._held = 0

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places, from before a body is read until its answer is made.

        Raises:
            BusyError: All are taken.
        """
        if self._held >= self._most:
            raise BusyError(f"{self._most} photos or searches are waiting already")
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    def start(self, work: Callable[[], Result]) -> asyncio.Future[Result]:
        """Begin work on a thread; the future raises what the work raises.

        Raises:
            BusyError: The server is stopping.
        """
        try:
            return asyncio.wrap_future(self._threads.submit(work))
        except RuntimeError as error:
            raise BusyError("the server is stopping") from error

    def close(self) -> None:
        """Finish what runs; drop what waits."""
        self._threads.shutdown(wait=True, cancel_futures=True)
