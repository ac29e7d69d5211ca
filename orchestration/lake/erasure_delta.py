"""Removing a person from Delta tables so that no byte stays.

A Delta delete writes new files and leaves the old ones to readers of older versions; the log keeps the
least and greatest value of every column and the delete's own predicate. So after the delete the files
are vacuumed, a checkpoint takes the log's place, and older versions of the table end to exist
(Delta protocol, "Checkpoints" and "Metadata Cleanup").

Belongs here: any Delta table, known by its columns. Does not belong here: who the person is
(`erasure_subject.py`), other stores.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from typing import Any

import duckdb
import pyarrow as pa

from feature_repo.snapshots import attach, literal, quoted
from orchestration.lake.erasure_search import needles
from orchestration.lake.erasure_subject import Subject

ERASED = "[erased]"
WHOLE_ROWS = ("dead_letters",)
"""Tables in which a mention condemns the row: what cannot be read cannot be cleaned."""

KEEP_LOG, KEEP_FILES = "interval 30 days", "interval 1 week"
"""Delta's own defaults, set again after the log was cut."""

COMMITS = 20
ORPHAN_HOURS = 1


@dataclasses.dataclass(frozen=True)
class TableRows:
    """What one table holds of a person.

    Attributes:
        path: Folder of the table.
        rows: Rows that are the person's.
        mentions: Rows of others that name the person.
    """

    path: pathlib.Path
    rows: int
    mentions: int


def find_tables(home: pathlib.Path) -> list[pathlib.Path]:
    """Every Delta table below a folder."""
    return sorted(log.parent for log in home.rglob("_delta_log") if log.is_dir())


class TableEraser:
    """Counts and removes a person's rows in one table.

    Args:
        con: DuckDB; gets a view and temporary tables.
        path: Folder of the table.
        subject: The person.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, path: pathlib.Path, subject: Subject) -> None:
        self._con = con
        self._path = path
        self._subject = subject
        self.version = attach(con, "erasing", path)
        found = con.sql("select column_name, column_type from (describe erasing)").fetchall()
        self._columns = dict(found)
        self._texts = [name for name, kind in found if kind == "VARCHAR"]

    def count(self) -> TableRows:
        """Rows of the person, and rows of others that mention them."""
        owner, mention = f"coalesce({self._owner()}, false)", self._mention()
        rows, mentions = self._con.sql(
            f"select count(*) filter (where {owner}), count(*) filter (where not {owner} and ({mention})) "
            "from erasing"
        ).fetchall()[0]
        return TableRows(self._path, int(rows), int(mentions))

    def erase(self) -> TableRows:
        """Remove the person's rows and clean mentions; afterwards only the newest version exists."""
        from deltalake import CommitProperties

        found = self.count()
        retries = CommitProperties(max_commit_retries=COMMITS)
        if found.rows:
            self._delete_keys(retries)
            plain = self._plain_owner()
            if plain != "false":
                self._open().delete(plain, commit_properties=retries)
            self._delete_undone(retries)
        for column, pattern in self._patterns() if found.mentions else ():
            cleaned = f"regexp_replace({quoted(column)}, {literal(pattern)}, '{ERASED}', 'g')"
            where = f"regexp_like({quoted(column)}, {literal(pattern)})"
            self._open().update(updates={quoted(column): cleaned}, predicate=where, commit_properties=retries)
        self._forget()
        return found

    def _forget(self) -> None:
        """Delete every file that the newest version does not name, and the log up to it.

        Files that no version ever named (a writer was killed) go once they are an hour old: a younger one may be
        about to be committed. Until then the search over all files reports it.
        """
        table = self._open()
        table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
        table = self._open()
        table.vacuum(retention_hours=ORPHAN_HOURS, dry_run=False, enforce_retention_duration=False, full=True)
        self._set("interval 0 seconds", "interval 0 seconds")
        table = self._open()
        table.create_checkpoint()
        table.cleanup_metadata()
        self._set(KEEP_LOG, KEEP_FILES)

    def _set(self, log: str, files: str) -> None:
        self._open().alter.set_table_properties(
            {"delta.logRetentionDuration": log, "delta.deletedFileRetentionDuration": files}
        )

    def _open(self) -> Any:
        from deltalake import DeltaTable

        return DeltaTable(str(self._path))

    def _owner(self) -> str:
        parts = [self._plain_owner()]
        if self._has("source", "event_id"):
            self._register_keys()
            parts.append("(source, event_id) in (select (source, event_id) from erased_keys)")
        return " or ".join(f"({part})" for part in parts)

    def _plain_owner(self) -> str:
        """Conditions that DuckDB and DataFusion read alike."""
        subject = self._subject
        parts = [
            f"{quoted(column)} in ({', '.join(map(literal, values))})"
            for column, values in (
                ("customer_id", subject.customers), ("person_id", subject.persons), ("session_id", subject.sessions),
            )
            if column in self._columns and values
        ]  # fmt: skip
        for kind, value in (("kind", "value"), ("left_kind", "left_value"), ("right_kind", "right_value")):
            if self._has(kind, value):
                parts += [
                    f"({quoted(kind)} = {literal(k)} and {quoted(value)} = {literal(v)})"
                    for k, v in subject.identifiers
                ]
        if self._path.name in WHOLE_ROWS:
            texts = needles(subject.identifiers, subject.persons)
            parts += [f"contains({quoted(c)}, {literal(text)})" for c in self._texts for text in texts]
        return " or ".join(parts) or "false"

    def _mention(self) -> str:
        if self._path.name in WHOLE_ROWS:
            return "false"
        parts = [f"coalesce(regexp_matches({quoted(c)}, {literal(p)}), false)" for c, p in self._patterns()]
        return " or ".join(parts) or "false"

    def _patterns(self) -> list[tuple[str, str]]:
        texts = needles(self._subject.identifiers, self._subject.persons)
        pattern = "|".join(_escaped(text) for text in sorted(texts, key=len, reverse=True))
        return [(column, pattern) for column in self._texts] if pattern else []

    def _has(self, *columns: str) -> bool:
        return all(column in self._columns for column in columns)

    def _register_keys(self) -> None:
        events = self._subject.events
        self._con.register(
            "erased_keys",
            pa.table(
                {
                    "source": pa.array([e.source for e in events], pa.string()),
                    "event_id": pa.array([e.event_id for e in events], pa.string()),
                }
            ),
        )

    def _delete_keys(self, retries: Any) -> None:
        events = self._subject.events
        if not self._has("source", "event_id") or not events:
            return
        keys: dict[str, Any] = {
            "source": pa.array([e.source for e in events], pa.string()),
            "event_id": pa.array([e.event_id for e in events], pa.string()),
        }
        match = "t.source = s.source and t.event_id = s.event_id"
        if self._columns.get("day") == "DATE":
            keys["day"] = pa.array([e.day for e in events], pa.date32())
            match += " and t.day = s.day"
        merging = self._open().merge(
            pa.table(keys), match, source_alias="s", target_alias="t", commit_properties=retries
        )
        merging.when_matched_delete().execute()

    def _delete_undone(self, retries: Any) -> None:
        """In a ledger, entries that take back an entry that is gone."""
        if not self._has("entry_id", "target", "op"):
            return
        attach(self._con, "ledger_now", self._path)
        orphans = self._con.sql(
            "select entry_id from ledger_now where op = 'undo' and target not in (select entry_id from ledger_now)"
        ).fetchall()
        if orphans:
            names = ", ".join(literal(row[0]) for row in orphans)
            self._open().delete(f"entry_id in ({names})", commit_properties=retries)


def _escaped(text: str) -> str:
    """A text as a pattern that RE2 and Rust's regex read alike."""
    return re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", text)
