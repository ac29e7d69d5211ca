"""What a file means to a mapping, for people: understood, not understood, and how the events would look.

The file is read by the very way that intake takes, into a folder that is thrown away.

Belongs here: the report behind `continuum sources check`. Does not belong here: printing (`orchestration/cli`).
"""

from __future__ import annotations

import datetime as dt
import fnmatch
import pathlib
import tempfile
from typing import Any

import msgspec
import pyarrow.parquet as pq

from contracts.retailer import Feed
from feature_repo.snapshots import connect, literal
from orchestration.lake import validation
from orchestration.sources.feeds import guessing, parts
from orchestration.sources.feeds.detection import detect
from orchestration.sources.feeds.parts import Part
from orchestration.sources.feeds.staging import broken_file, rows_file, stage
from orchestration.sources.feeds.text import UnreadableFileError, content_hash

JUMP = dt.timedelta(days=1)
"""From one row to the next; a jump back by more is told."""


def feed_of(path: pathlib.Path, feeds: dict[str, Feed]) -> tuple[str, Feed] | None:
    """The feed whose pattern holds a file, if any."""
    for name, feed in feeds.items():
        for pattern in (feed.files,) if isinstance(feed.files, str) else feed.files or ():
            inside = pathlib.Path(pattern).is_dir() and path.is_relative_to(pathlib.Path(pattern).resolve())
            if inside or path == pathlib.Path(pattern).resolve() or fnmatch.fnmatch(str(path), pattern):
                return name, feed
    return None


def check(path: pathlib.Path, name: str, feed: Feed, currency: str, previews: int = 5) -> dict[str, Any]:
    """Read one file and tell what came of it.

    Args:
        path: The file.
        name: Of the feed.
        feed: Its mapping.
        currency: The shop's.
        previews: How many events to show.

    Returns:
        ``file``, ``format``, ``container``, ``encoding``, ``delimiter``, ``columns``, ``fields``, ``rows``, ``usable``,
        ``ignored``, ``broken``, ``reasons``, ``contract`` (reasons of the contract), ``names``, ``unknown_names``,
        ``unmapped_columns``, ``missing_columns``, ``first``, ``last``, ``examples``, ``notes``, ``error``,
        ``proposal`` (a mapping to start from, or None), ``preview``.
    """
    with tempfile.TemporaryDirectory(prefix="continuum-check-") as folder:
        root = pathlib.Path(folder)
        mark = parts.fingerprint(feed, currency)
        blank = Part(feed=name, origin=str(path), digest=content_hash(path), fingerprint=mark)
        part = stage(path, blank, feed, currency, root)
        contract, preview, jumps = _looked_at(root, part, previews)
        notes = [*part.notes, *jumps]
        if broken_file(root, part) is None and not part.rows:
            notes.append("the file holds no row")
        proposal = _proposal(path, feed, part, root)
    usable = part.good - sum(contract.values())
    return {
        "file": str(path),
        "feed": name,
        "format": part.format,
        "container": part.container,
        "encoding": part.encoding,
        "delimiter": part.delimiter,
        "what": part.rows_kind,
        "columns": list(part.columns),
        "fields": part.fields,
        "rows": part.rows,
        "usable": usable,
        "ignored": part.ignored,
        "broken": part.broken,
        "reasons": part.reasons,
        "contract": contract,
        "names": [
            msgspec.to_builtins(one)
            for one in part.names
            if one.action not in (None, "ignore") and one.channel
        ],
        "ignored_names": {str(one.name): one.rows for one in part.names if one.action == "ignore"},
        "unknown_names": {str(one.name): one.rows for one in part.names if one.action is None and one.name},
        "unmapped_columns": list(part.unused),
        "missing_columns": [{"key": key, "column": column} for key, column in part.missing],
        "first": part.first,
        "last": part.last,
        "examples": [msgspec.to_builtins(one) for one in part.examples],
        "notes": notes,
        "error": part.error,
        "proposal": proposal,
        "preview": preview,
    }


def _looked_at(
    root: pathlib.Path, part: Part, previews: int
) -> tuple[dict[str, int], list[dict[str, Any]], list[str]]:
    """Reasons of the contract among sound rows, the first events, and notes on clocks that jump."""
    path = rows_file(root, part)
    if path is None:
        return {}, [], []
    con = connect()
    rows = f"read_parquet({literal(str(path))})"
    if part.rows_kind != "events":
        found = con.sql(f"select * exclude (problem) from {rows} where problem is null limit {int(previews)}")
        return {}, [_present(row) for row in found.to_arrow_table().to_pylist()], []
    reasons: dict[str, int] = {}
    preview: list[dict[str, Any]] = []
    now = dt.datetime.now(dt.UTC)
    for batch in pq.ParquetFile(path).iter_batches(65_536):
        sound = batch.filter(batch["problem"].is_null())
        good, bad = validation.split(sound, now)
        for count in bad["reason"].value_counts().to_pylist():
            reasons[count["values"]] = reasons.get(count["values"], 0) + count["counts"]
        if len(preview) < previews:
            preview += [_present(row) for row in good.slice(0, previews - len(preview)).to_pylist()]
    # Rows of one device follow one another; files sorted by anything else have no order to break.
    back, most, rows_seen = con.execute(
        f"""select count(*) filter (step < -interval '{JUMP.days} days'), min(step), count(*) from (
            select occurred_at - lag(occurred_at) over () as step from {rows} where problem is null)"""
    ).fetchall()[0]
    notes = []
    if back and back <= 0.05 * rows_seen:
        notes.append(
            f"clocks jump: {back} times a row lies more than a day before the one above it (up to {-most})"
        )
    return reasons, preview, notes


def _present(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if value is not None}


def _proposal(path: pathlib.Path, feed: Feed, part: Part, root: pathlib.Path) -> dict[str, Any] | None:
    """A mapping to start from, where plain columns have none that works."""
    if part.format != "rows" or part.good or feed.rows != "events":
        return None
    with tempfile.TemporaryDirectory(dir=root) as work:
        try:
            shape = detect(path, feed, pathlib.Path(work))
        except UnreadableFileError:
            return None
        words: set[str] = set()
        first = guessing.propose(shape.columns, (), feed)
        fields = first.get("fields")
        column = fields.get("action") if isinstance(fields, dict) else None
        if column is not None:
            words = _words(shape, str(column))
        return guessing.propose(shape.columns, words, feed) or None


def _words(shape: Any, column: str) -> set[str]:
    from orchestration.sources.feeds import formats
    from orchestration.sources.feeds.paths import Paths
    from orchestration.sources.feeds.reading import relation

    con = connect()
    rows = relation(con, shape, formats.known()["rows"])
    if rows.columns is None:
        value = f"json_extract_string(doc, {literal(f'$.{chr(34)}{column}{chr(34)}')})"
    else:
        value = Paths("", rows.columns).text(column, "") or "null"
    found = con.execute(
        f"select distinct {value} from (select * from ({rows.sql}) limit 100000) limit 200"
    ).fetchall()
    return {str(row[0]) for row in found if row[0] is not None}
