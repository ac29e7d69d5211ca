"""Removing a person from SQLite files so that no byte stays.

``secure_delete`` overwrites what is deleted from now on, ``VACUUM`` builds the file anew without what was
deleted before, and a truncating checkpoint empties the write-ahead log
(https://www.sqlite.org/pragma.html#pragma_secure_delete, https://www.sqlite.org/lang_vacuum.html).

Belongs here: the inbox, the decisions, Feast's online store, and any other SQLite file. Does not belong
here: who the person is (`erasure_subject.py`).
"""

from __future__ import annotations

import contextlib
import pathlib
import re
import sqlite3
import struct
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from orchestration.lake.erasure_search import needles
from orchestration.lake.erasure_subject import Subject

ERASED = "[erased]"
BUSY_SECONDS = 30.0
_FEAST_STRING = 2
"""`feast.protos.feast.types.Value_pb2.ValueType.STRING`."""


class StoreBusyError(RuntimeError):
    """A file that another process holds; the message names it. Nothing is lost: call again."""


class _Named(msgspec.Struct):
    session_id: str | None = None
    customer_id: str | None = None
    identifiers: list[dict[str, Any]] = []
    source: str | None = None
    event_id: str | None = None


_DECODER = msgspec.json.Decoder(_Named)


def erase_inbox(path: pathlib.Path, subject: Subject, dry_run: bool) -> int:
    """Remove the person's accepted and refused events.

    Returns:
        How many rows were (or would be) removed.

    Raises:
        StoreBusyError: The server holds the file for too long.
    """
    theirs = _judge(subject)
    keys = {(event.source, event.event_id) for event in subject.events}
    sessions = set(subject.sessions)

    def accepted(row: tuple[Any, ...]) -> bool:
        _, source, event_id, session_id, raw = row
        return (source, event_id) in keys or session_id in sessions or theirs(bytes(raw))

    queries: list[tuple[str, str, Callable[[tuple[Any, ...]], bool]]] = [
        ("events", "select seq, source, event_id, session_id, raw from events", accepted),
        ("refused", "select seq, raw from refused", lambda row: theirs(bytes(row[1]))),
    ]
    return _erase_rows(path, queries, "seq", dry_run)


def erase_decisions(path: pathlib.Path, subject: Subject, dry_run: bool) -> int:
    """Remove the answers given to the person; as `erase_inbox`."""
    theirs = _judge(subject)
    customers = set(subject.customers)
    queries: list[tuple[str, str, Callable[[tuple[Any, ...]], bool]]] = [
        (
            "decisions",
            "select decision_id, customer_id, raw from decisions",
            lambda row: row[1] in customers or theirs(bytes(row[2])),
        )
    ]
    return _erase_rows(path, queries, "decision_id", dry_run)


def erase_actions(path: pathlib.Path, subject: Subject, dry_run: bool) -> int:
    """Remove the person's published next best action; as `erase_inbox`."""
    customers = set(subject.customers)
    queries: list[tuple[str, str, Callable[[tuple[Any, ...]], bool]]] = [
        ("actions", "select customer_id from actions", lambda row: row[0] in customers)
    ]
    return _erase_rows(path, queries, "customer_id", dry_run)


def erase_online(path: pathlib.Path, subject: Subject, dry_run: bool) -> int:
    """Remove the person's rows from Feast's SQLite online store; as `erase_inbox`.

    Keys are read as Feast writes them (``entity_key_serialization_version`` 3: number of keys, then type,
    length and text of each name, then type, length and bytes of each value).
    """
    wanted = {"customer_id": set(subject.customers), "person_id": set(subject.persons)}
    with _opened(path) as con:
        if con is None:
            return 0
        removed = 0
        for (table,) in con.execute("select name from sqlite_master where type = 'table'").fetchall():
            columns = {row[1] for row in con.execute(f'pragma table_info("{table}")')}
            if "entity_key" not in columns:
                continue
            for name in sorted(set().union(*wanted.values())):
                part = struct.pack("<II", _FEAST_STRING, len(name.encode())) + name.encode()
                found = con.execute(
                    f'select distinct entity_key from "{table}" where instr(entity_key, ?) > 0', (part,)
                ).fetchall()
                keys = [key for (key,) in found if _names(bytes(key), wanted)]
                for key in keys:
                    sql = f'from "{table}" where entity_key = ?'
                    removed += con.execute(f"select count(*) {sql}", (key,)).fetchone()[0]
                    if not dry_run:
                        con.execute(f"delete {sql}", (key,))
        if not dry_run:
            con.execute("commit") if con.in_transaction else None
            _compact(con, path)
        return removed


def redact_any(path: pathlib.Path, subject: Subject) -> int:
    """Replace the person's identifiers in every text of any SQLite file (Dagster's and MLflow's records).

    Returns:
        How many cells were changed.
    """
    texts = sorted(needles(subject.identifiers, subject.persons), key=len, reverse=True)
    changed = 0
    with _opened(path) as con:
        if con is None:
            return 0
        for (table,) in con.execute("select name from sqlite_master where type = 'table'").fetchall():
            for row in con.execute(f'pragma table_info("{table}")').fetchall():
                column = row[1]
                for text in texts:
                    for value in (text, text.encode()):
                        where = f"""where typeof("{column}") = '{"text" if isinstance(value, str) else "blob"}'
                            and instr("{column}", ?) > 0"""
                        replaced = f'replace("{column}", ?, ?)'
                        if isinstance(value, bytes):
                            replaced = f'cast(replace(cast("{column}" as text), cast(? as text), ?) as blob)'
                        sql = f'update or replace "{table}" set "{column}" = {replaced} {where}'
                        changed += con.execute(sql, (value, ERASED, value)).rowcount
        con.execute("commit") if con.in_transaction else None
        _compact(con, path)
    return changed


def is_sqlite(path: pathlib.Path) -> bool:
    """Whether a file is a SQLite database."""
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def _judge(subject: Subject) -> Callable[[bytes], bool]:
    """Whether a stored JSON text is the person's, by what it says and by what it mentions."""
    texts = needles(subject.identifiers, subject.persons)
    pattern = re.compile(b"|".join(re.escape(text.encode()) for text in texts) or b"(?!)")
    customers, sessions, pairs = set(subject.customers), set(subject.sessions), set(subject.identifiers)
    keys = {(event.source, event.event_id) for event in subject.events}

    def theirs(raw: bytes) -> bool:
        if pattern.search(raw):
            return True
        try:
            found = _DECODER.decode(raw)
        except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError):
            return False
        named = {(str(i.get("kind")), str(i.get("value"))) for i in found.identifiers}
        return (
            found.customer_id in customers
            or found.session_id in sessions
            or bool(named & pairs)
            or (found.source, found.event_id) in keys
        )

    return theirs


def _erase_rows(
    path: pathlib.Path,
    queries: list[tuple[str, str, Callable[[tuple[Any, ...]], bool]]],
    key: str,
    dry_run: bool,
) -> int:
    removed = 0
    with _opened(path) as con:
        if con is None:
            return 0
        known = {row[0] for row in con.execute("select name from sqlite_master where type = 'table'")}
        for table, query, theirs in queries:
            if table not in known:
                continue
            if not dry_run:
                con.execute("begin immediate")
            found = [(row[0],) for row in con.execute(query) if theirs(row)]
            removed += len(found)
            if not dry_run:
                con.executemany(f'delete from "{table}" where "{key}" = ?', found)
                con.execute("commit")
        if not dry_run:
            _compact(con, path)
    return removed


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[sqlite3.Connection | None]:
    if not path.is_file() or path.stat().st_size == 0:
        yield None
        return
    con = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        con.execute("pragma secure_delete = on")
        yield con
    except sqlite3.OperationalError as error:
        if "locked" in str(error) or "busy" in str(error):
            raise StoreBusyError(
                f"{path.name} is held by another process; stop it or try again, nothing is lost"
            ) from error
        raise
    finally:
        con.close()


def _compact(con: sqlite3.Connection, path: pathlib.Path) -> None:
    con.execute("vacuum")
    mode = con.execute("pragma journal_mode").fetchone()[0]
    if mode == "wal":
        busy, _, _ = con.execute("pragma wal_checkpoint(truncate)").fetchone()
        if busy:
            raise StoreBusyError(
                f"{path.name} is being read by another process; stop it or try again, nothing is lost"
            )


def _names(key: bytes, wanted: dict[str, set[str]]) -> bool:
    """Whether a Feast entity key names the person."""
    count = struct.unpack_from("<I", key, 0)[0]
    place = 4
    names: list[str] = []
    values: list[str] = []
    for target in (names, values):
        for _ in range(count):
            _, size = struct.unpack_from("<II", key, place)
            target.append(key[place + 8 : place + 8 + size].decode(errors="replace"))
            place += 8 + size
    return any(value in wanted.get(name, set()) for name, value in zip(names, values, strict=True))
