"""The record of every answer: at once in memory, a moment later in SQLite.

An answer never waits for its record to be stored, and a storage failure never fails an answer; what
could not be stored is counted and stays readable from memory. Decisions for persons who are erased are
forgotten in memory and never stored. The writer looks by itself every quarter of
a second: waking it for each answer would make it compete with the answers for the interpreter.

Belongs here: keeping and finding decisions. Does not belong here: making them.
"""

from __future__ import annotations

import collections
import logging
import pathlib
import sqlite3
import threading

import msgspec

from contracts.decisions import Decision
from contracts.identity import LOGIN, TOMBSTONES_FILE, TombstoneError, Tombstones, TombstoneWatch
from serving.profiles.history import to_microseconds

KEPT_IN_MEMORY = 5_000
WAITING = 20_000
PAUSE_SECONDS = 0.25

logger = logging.getLogger(__name__)

TABLE = """
CREATE TABLE IF NOT EXISTS decisions (
    decision_id TEXT PRIMARY KEY,
    decided_us INTEGER NOT NULL,
    as_of_us INTEGER NOT NULL,
    customer_id TEXT,
    release TEXT NOT NULL,
    raw BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS decisions_decided ON decisions (decided_us);
"""
_INSERT = "INSERT OR IGNORE INTO decisions VALUES (?, ?, ?, ?, ?, ?)"


class DecisionLog:
    """Decisions of this server.

    Args:
        path: SQLite file; created with its folder by the writer thread.

    Attributes:
        stored: Decisions on disk since the start.
        lost: Decisions that could not be stored since the start.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._recent: collections.OrderedDict[str, Decision] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._waiting: collections.deque[Decision] = collections.deque()
        self._tombstones = TombstoneWatch(path.with_name(TOMBSTONES_FILE))
        self._known: Tombstones | None = None
        self._stop = threading.Event()
        self._encoder = msgspec.json.Encoder()
        self.stored = 0
        self.lost = 0
        self._thread = threading.Thread(target=self._work, name="decisions", daemon=True)
        self._thread.start()

    def record(self, decision: Decision) -> None:
        """Keep a decision; returns at once."""
        with self._lock:
            self._recent[decision.decision_id] = decision
            if len(self._recent) > KEPT_IN_MEMORY:
                self._recent.popitem(last=False)
        if len(self._waiting) < WAITING:
            self._waiting.append(decision)
        else:
            self.lost += 1

    def recent(self, count: int) -> list[Decision]:
        """The latest decisions, newest first."""
        with self._lock:
            keys = list(self._recent)[-count:]
            return [self._recent[key] for key in reversed(keys)]

    def find(self, decision_id: str) -> bytes | None:
        """JSON of a decision, or None for one that is not known.

        Raises:
            sqlite3.Error: It is not in memory and the file cannot be read.
        """
        with self._lock:
            decision = self._recent.get(decision_id)
        if decision is not None:
            return self._encoder.encode(decision)
        if not self._path.is_file():
            return None
        connection = sqlite3.connect(self._path, timeout=1.0)
        try:
            sql = "SELECT raw FROM decisions WHERE decision_id = ?"
            row = connection.execute(sql, (decision_id,)).fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):  # The writer is about to create it.
                return None
            raise
        finally:
            connection.close()
        return None if row is None else bytes(row[0])

    def close(self) -> None:
        """Store what is queued, then stop."""
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        connection: sqlite3.Connection | None = None
        running = True
        while running:
            running = not self._stop.wait(PAUSE_SECONDS)
            self._forget_erased()
            group = [self._waiting.popleft() for _ in range(len(self._waiting))]
            group = [decision for decision in group if not self._erased(decision)]
            if not group:
                continue
            try:
                connection = connection or self._open()
                self._store(connection, group)
                self.stored += len(group)
            except (sqlite3.Error, OSError) as error:
                self.lost += len(group)
                logger.error("%d decisions not stored: %s", len(group), error)
                if connection is not None:
                    connection.close()
                    connection = None
        if connection is not None:
            connection.close()

    def _forget_erased(self) -> None:
        """Drop decisions of erased persons from memory whenever somebody was erased."""
        try:
            found = self._tombstones.current()
        except TombstoneError as error:
            logger.error("decisions: %s", error)
            return
        if found is self._known:
            return
        self._known = found
        with self._lock:
            for key in [key for key, decision in self._recent.items() if self._erased(decision)]:
                del self._recent[key]

    def _erased(self, decision: Decision) -> bool:
        """Whether the decision answered somebody who was erased."""
        if self._known is None:
            return False
        digests = self._known.digests
        customer, session = decision.customer_id, decision.session_id
        if customer is not None and self._known.of_identifier(LOGIN, customer) in digests:
            return True
        return session is not None and self._known.of_session(session) in digests

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=5.0, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(TABLE)
        return connection

    def _store(self, connection: sqlite3.Connection, group: list[Decision]) -> None:
        rows = [self._row(decision) for decision in group]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(_INSERT, rows)
        connection.execute("COMMIT")

    def _row(self, d: Decision) -> tuple[str, int, int, str | None, str, bytes]:
        decided, as_of = to_microseconds(d.decided_at), to_microseconds(d.as_of)
        return d.decision_id, decided, as_of, d.customer_id, d.release, self._encoder.encode(d)
