"""The group-commit writer: many requests share one disk sync, and none is acknowledged before it.

Belongs here: the writer thread and its queue. Does not belong here: validation (`intake.py`), reads.
"""

from __future__ import annotations

import concurrent.futures
import logging
import pathlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence

import msgspec

from contracts.identity import TOMBSTONES_FILE, TombstoneError, TombstoneWatch
from serving.inbox.schema import InboxError, connect, describe_failure

REFUSED_KEPT = 10_000
REFUSED_BYTES = 16_384
GROUP = 128

logger = logging.getLogger(__name__)

_INSERT = """
INSERT INTO events (source, event_id, received_us, occurred_us, customer_id, session_id, raw)
VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (source, event_id) DO NOTHING
"""
_REFUSE = "INSERT INTO refused (received_us, position, field, reason, raw) VALUES (?, ?, ?, ?, ?)"
_TRIM = "DELETE FROM refused WHERE seq <= (SELECT max(seq) FROM refused) - ?"


class Incoming(msgspec.Struct, frozen=True, gc=False):
    """A checked event, ready to be stored.

    Attributes:
        index: Position in its batch.
        source: Sender.
        event_id: Unique within the source.
        occurred_us: Microseconds since 1970-01-01 UTC.
        customer_id: Or None.
        session_id: Or None.
        raw: Canonical JSON.
        identifiers: Pairs of kind and value.
    """

    index: int
    source: str
    event_id: str
    occurred_us: int
    customer_id: str | None
    session_id: str | None
    raw: bytes
    identifiers: tuple[tuple[str, str], ...] = ()


class Refused(msgspec.Struct, frozen=True, gc=False):
    """An event that breaks the contract.

    Attributes:
        index: Position in its batch.
        field: JSON path of the offending field, empty where the event as a whole is wrong.
        message: What was expected.
        raw: As received.
    """

    index: int
    field: str
    message: str
    raw: bytes


class Receipt(msgspec.Struct, frozen=True):
    """What became of a submitted batch.

    Attributes:
        accepted: Newly stored events.
        duplicates: Indices of events that were stored before, those of erased persons included: their sender
            is told the same, so that it stops sending and learns nothing.
        offset: Offset of the last event stored by this batch, 0 for none.
        erased: How many of the duplicates belong to erased persons; they were not stored.
    """

    accepted: int
    duplicates: tuple[int, ...]
    offset: int
    erased: int = 0


class _Job(msgspec.Struct, frozen=True):
    received_us: int
    events: Sequence[Incoming]
    refused: Sequence[Refused]
    future: concurrent.futures.Future[Receipt]


class Inbox:
    """Durable intake of events.

    Args:
        path: The SQLite file; created with its folder.
        on_commit: Called in the writer thread after each commit with the latest event time in it.
        queue_limit: Batches that may wait; beyond it a submission is refused at once.
        busy_seconds: How long to wait for another process that holds the write lock.
        max_bytes: Upper bound of the file, or None.

    Raises:
        InboxError: The file cannot be opened.
    """

    def __init__(
        self,
        path: pathlib.Path,
        on_commit: Callable[[int], None] | None = None,
        queue_limit: int = 512,
        busy_seconds: float = 2.0,
        max_bytes: int | None = None,
    ) -> None:
        self._path = path
        self._on_commit = on_commit
        self._busy_seconds = busy_seconds
        self._max_bytes = max_bytes
        self._tombstones = TombstoneWatch(path.with_name(TOMBSTONES_FILE))
        self._queue: queue.Queue[_Job | None] = queue.Queue(maxsize=queue_limit)
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        try:
            self._connection = self._open()
        except (sqlite3.Error, OSError) as error:
            raise InboxError(_words(error)) from error
        self._thread = threading.Thread(target=self._work, name="inbox", daemon=True)
        self._thread.start()

    def submit(
        self, received_us: int, events: Sequence[Incoming], refused: Sequence[Refused] = ()
    ) -> concurrent.futures.Future[Receipt]:
        """Store a batch; the future resolves after the commit is on disk.

        Returns:
            A future of the receipt; it raises `InboxError` when nothing of the batch was stored.

        Raises:
            InboxError: The queue is full or the inbox is closed; nothing was stored.
        """
        future: concurrent.futures.Future[Receipt] = concurrent.futures.Future()
        if self._closed:
            raise InboxError("the event store is closing")
        try:
            self._queue.put_nowait(_Job(received_us, events, refused, future))
        except queue.Full:
            raise InboxError("too many events are waiting to be stored") from None
        return future

    def close(self) -> None:
        """Store what is queued, then close the file."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        self._thread.join()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        return connect(self._path, self._busy_seconds, self._max_bytes)

    def _work(self) -> None:
        running = True
        while running:
            jobs: list[_Job] = []
            job = self._queue.get()
            while True:
                if job is None:
                    running = False
                    break
                jobs.append(job)
                if len(jobs) >= GROUP:
                    break
                try:
                    job = self._queue.get_nowait()
                except queue.Empty:
                    break
            if jobs:
                self._commit(jobs)

    def _commit(self, jobs: list[_Job]) -> None:
        try:
            if self._connection is None:
                self._connection = self._open()
            receipts = self._store(self._connection, jobs)
        except Exception as error:  # The thread must outlive any failure: senders wait on it.
            words = _words(error)
            logger.error("events not stored: %s (%r)", words, error)
            self._abandon()
            for job in jobs:
                job.future.set_exception(InboxError(words))
            return
        if self._on_commit is not None:
            latest = max((event.occurred_us for job in jobs for event in job.events), default=None)
            if latest is not None:
                self._on_commit(latest)
        for job, receipt in zip(jobs, receipts, strict=True):
            job.future.set_result(receipt)

    def _store(self, connection: sqlite3.Connection, jobs: list[_Job]) -> list[Receipt]:
        receipts = []
        any_refused = False
        connection.execute("BEGIN IMMEDIATE")
        tombstones = self._tombstones.current()  # Inside the lock: an erasure writes them, then takes it.
        for job in jobs:
            accepted, offset, duplicates, erased = 0, 0, [], 0
            for e in job.events:
                if tombstones is not None and tombstones.holds(e.identifiers, e.source, e.event_id):
                    duplicates.append(e.index)
                    erased += 1
                    continue
                row = (
                    e.source, e.event_id, job.received_us, e.occurred_us, e.customer_id, e.session_id, e.raw,
                )  # fmt: skip
                cursor = connection.execute(_INSERT, row)
                if cursor.rowcount == 1:
                    accepted += 1
                    offset = cursor.lastrowid or 0
                else:
                    duplicates.append(e.index)
            for r in job.refused:
                if tombstones is not None and tombstones.mentioned(r.raw):
                    continue
                any_refused = True
                row_refused = (job.received_us, r.index, r.field, r.message, r.raw[:REFUSED_BYTES])
                connection.execute(_REFUSE, row_refused)
            receipts.append(Receipt(accepted, tuple(duplicates), offset, erased))
        if any_refused:
            connection.execute(_TRIM, (REFUSED_KEPT,))
        connection.execute("COMMIT")
        return receipts

    def _abandon(self) -> None:
        """Drop the connection, and with it the open transaction; the next batch opens a new one."""
        if self._connection is not None:
            try:
                self._connection.close()
            except sqlite3.Error as error:
                logger.warning("closing the event store failed: %s", error)
            self._connection = None


def _words(error: Exception) -> str:
    if isinstance(error, sqlite3.Error):
        return describe_failure(error)
    return (
        str(error)
        if isinstance(error, (InboxError, TombstoneError))
        else "the event store cannot be opened for writing"
    )
