"""The inbox file: its tables, and how a connection to it is opened.

Belongs here: SQL of the tables, connection settings, the words for a storage failure. Does not belong
here: reading and writing rows.
"""

from __future__ import annotations

import pathlib
import sqlite3

VERSION = 1
PAGE_BYTES = 4096

TABLES = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    source TEXT NOT NULL,
    event_id TEXT NOT NULL,
    received_us INTEGER NOT NULL,
    occurred_us INTEGER NOT NULL,
    customer_id TEXT,
    session_id TEXT,
    raw BLOB NOT NULL,
    UNIQUE (source, event_id)
);
CREATE INDEX IF NOT EXISTS events_customer ON events (customer_id) WHERE customer_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS events_session ON events (session_id) WHERE session_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS events_occurred ON events (occurred_us);
CREATE TABLE IF NOT EXISTS refused (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    received_us INTEGER NOT NULL,
    position INTEGER NOT NULL,
    field TEXT NOT NULL,
    reason TEXT NOT NULL,
    raw BLOB NOT NULL
);
"""


class InboxError(RuntimeError):
    """The inbox cannot be read or written now; the message says why, without paths."""


def connect(
    path: pathlib.Path, busy_seconds: float = 2.0, max_bytes: int | None = None
) -> sqlite3.Connection:
    """Open the inbox for writing, creating it where there is none.

    Every commit reaches the disk before it returns (WAL with ``synchronous=FULL``,
    https://www.sqlite.org/pragma.html#pragma_synchronous).

    Args:
        path: The SQLite file.
        busy_seconds: How long to wait for another process that holds the write lock.
        max_bytes: Upper bound of the main file, or None.

    Raises:
        InboxError: The file was written by a newer version.
        sqlite3.Error: It cannot be opened.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        if max_bytes is not None:
            connection.execute(f"PRAGMA max_page_count = {max(1, max_bytes // PAGE_BYTES)}")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise InboxError(f"inbox schema is version {version}; expected at most {VERSION}")
        if version < VERSION:
            connection.executescript(f"BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(path: pathlib.Path, busy_seconds: float = 2.0) -> sqlite3.Connection | None:
    """Open the inbox for reading; None where there is no inbox yet.

    Raises:
        sqlite3.Error: It cannot be opened.
    """
    if not path.is_file():
        return None
    connection = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA query_only = ON")
    if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
        connection.close()
        return None
    return connection


def describe_failure(error: sqlite3.Error) -> str:
    """What a storage failure means, in words that tell nothing private."""
    text = str(error)
    if "full" in text:
        return "the event store is full"
    if "locked" in text or "busy" in text:
        return "the event store is locked by another process"
    if "readonly" in text or "read-only" in text or "unable to open" in text:
        return "the event store cannot be opened for writing"
    return "the event store reports an input/output error"
