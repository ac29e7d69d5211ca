"""Reading the inbox: what orchestration drains, and what a live profile merges.

Belongs here: read-only queries; an inbox that does not exist yet is an empty one. Does not belong
here: writing, and what events mean.
"""

from __future__ import annotations

import datetime as dt
import pathlib
import sqlite3
import threading
from typing import Any

from serving.inbox.schema import InboxError, connect_reader, describe_failure
from serving.profiles.history import to_moment


def _query(path: pathlib.Path, sql: str, arguments: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    try:
        connection = connect_reader(path)
        if connection is None:
            return []
        try:
            return connection.execute(sql, arguments).fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise InboxError(describe_failure(error)) from error


def read_after(path: pathlib.Path, offset: int, limit: int) -> list[tuple[int, dt.datetime, bytes]]:
    """Accepted events after an offset, in the order in which they were committed.

    Args:
        path: The inbox file.
        offset: Last offset already read; 0 reads from the beginning.
        limit: At most this many.

    Returns:
        ``(offset, received_at in UTC, JSON of contracts.events.Event)``. Offsets grow but may have gaps.

    Raises:
        InboxError: The file cannot be read.
    """
    rows = _query(
        path, "SELECT seq, received_us, raw FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (offset, limit)
    )
    return [(seq, to_moment(received), bytes(raw)) for seq, received, raw in rows]


def read_refused(
    path: pathlib.Path, offset: int, limit: int
) -> list[tuple[int, dt.datetime, int, str, str, bytes]]:
    """Refused events after an offset: ``(offset, received_at, index in its batch, field, reason, raw)``.

    Only the most recent refusals are kept (`serving.inbox.writer.REFUSED_KEPT`); ``raw`` is cut to
    `serving.inbox.writer.REFUSED_BYTES`.

    Raises:
        InboxError: The file cannot be read.
    """
    sql = "SELECT seq, received_us, position, field, reason, raw FROM refused WHERE seq > ?"
    rows = _query(path, f"{sql} ORDER BY seq LIMIT ?", (offset, limit))
    return [(r[0], to_moment(r[1]), r[2], r[3], r[4], bytes(r[5])) for r in rows]


def pending(path: pathlib.Path, offset: int) -> int:
    """How many accepted events lie after an offset.

    Raises:
        InboxError: The file cannot be read.
    """
    rows = _query(path, "SELECT count(*) FROM events WHERE seq > ?", (offset,))
    return int(rows[0][0]) if rows else 0


def last_offset(path: pathlib.Path) -> int:
    """Offset of the latest accepted event, 0 for an empty inbox.

    Raises:
        InboxError: The file cannot be read.
    """
    rows = _query(path, "SELECT coalesce(max(seq), 0) FROM events", ())
    return int(rows[0][0]) if rows else 0


class InboxView:
    """Indexed reads for live profiles: one open connection per thread, a few microseconds a query."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._local = threading.local()

    def _rows(self, sql: str, arguments: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        try:
            connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
            if connection is None:
                connection = connect_reader(self._path)
                if connection is None:
                    return []
                self._local.connection = connection
            return connection.execute(sql, arguments).fetchall()
        except sqlite3.Error as error:
            self._local.connection = None
            raise InboxError(describe_failure(error)) from error

    def of_customer(self, customer_id: str, offset: int) -> list[tuple[int, bytes]]:
        """``(offset, JSON)`` of the customer's accepted events after an offset.

        Raises:
            InboxError: The file cannot be read.
        """
        sql = "SELECT seq, raw FROM events WHERE customer_id = ? AND seq > ? ORDER BY seq"
        return self._rows(sql, (customer_id, offset))

    def of_session(self, session_id: str, offset: int) -> list[tuple[int, bytes]]:
        """``(offset, JSON)`` of a session's events after an offset that name no customer.

        Raises:
            InboxError: The file cannot be read.
        """
        sql = "SELECT seq, raw FROM events WHERE session_id = ? AND customer_id IS NULL AND seq > ?"
        return self._rows(f"{sql} ORDER BY seq", (session_id, offset))

    def latest_us(self) -> int | None:
        """Time of the latest event, microseconds since 1970-01-01 UTC, or None for an empty inbox.

        Raises:
            InboxError: The file cannot be read.
        """
        rows = self._rows("SELECT max(occurred_us) FROM events", ())
        return None if not rows or rows[0][0] is None else int(rows[0][0])
