"""Audiences as files: one file and one manifest per audience, each replaced as a whole.

The manifest is written after the file and names its hash: who reads the file checks the hash, and waits a moment where it
differs. Files are readable by the owner only.

Belongs here: writing, reading back, taking persons out. Does not belong here: who is in it (`audiences.py`).
"""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import io
import json
import os
import pathlib
import uuid
from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contracts.outbound import Files, OutboundError

SUFFIXES = {"csv": ".csv", "parquet": ".parquet", "jsonl": ".jsonl"}
MANIFEST = ".manifest.json"

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet runs a cell that begins so; in CSV such texts get an apostrophe before them (OWASP, CSV injection)."""


def path_of(destination: Files, name: str, audience: str, outbound: pathlib.Path) -> pathlib.Path:
    """Where an audience's file lies."""
    folder = pathlib.Path(destination.folder) if destination.folder else outbound / "files" / name
    return folder / f"{audience}{SUFFIXES[destination.format]}"


def write(path: pathlib.Path, form: str, rows: pa.Table, about: Mapping[str, Any]) -> dict[str, Any]:
    """Replace a file and its manifest.

    Args:
        path: The file.
        form: ``csv``, ``parquet`` or ``jsonl``.
        rows: What leaves.
        about: For the manifest.

    Returns:
        The manifest.

    Raises:
        OutboundError: The folder cannot be written.
    """
    content, guarded = _encoded(rows, form)
    columns = {field.name: str(field.type) for field in rows.schema}
    more = {"guarded_cells": guarded} if form == "csv" else {}
    return _store(path, content, rows.num_rows, {**about, "format": form, "columns": columns, **more})


def manifest_of(path: pathlib.Path) -> pathlib.Path:
    """The manifest beside a file."""
    return path.with_name(path.name + MANIFEST)


def read(path: pathlib.Path, form: str) -> pa.Table:
    """The rows of a file; those of CSV as text."""
    if form == "parquet":
        return pq.read_table(path)
    text = path.read_text(encoding="utf-8")
    if form == "jsonl":
        return pa.Table.from_pylist([json.loads(line) for line in text.splitlines()])
    with io.StringIO(text, newline="") as file:
        reader = csv.DictReader(file)
        names = list(reader.fieldnames or ())
        found = list(reader)
    return pa.table({name: pa.array([row[name] for row in found], pa.string()) for name in names})


def intact(path: pathlib.Path) -> bool:
    """Whether a file is the one that its manifest speaks of."""
    try:
        manifest = json.loads(manifest_of(path).read_bytes())
        return bool(hashlib.sha256(path.read_bytes()).hexdigest() == manifest["sha256"])
    except (OSError, ValueError, KeyError):
        return False


def forget(path: pathlib.Path, form: str, persons: Collection[str], dry_run: bool) -> int:
    """Take persons out of a file; its manifest is made anew.

    Returns:
        How many rows were (or would be) removed.
    """
    if not path.is_file():
        return 0
    content, kept, found = _without(path, form, set(persons))
    if found and not dry_run:
        try:
            about = json.loads(manifest_of(path).read_bytes())
        except (OSError, ValueError):
            about = {"format": form}
        _store(
            path, content, kept, about | {"erased_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds")}
        )
    return found


def _without(path: pathlib.Path, form: str, persons: set[str]) -> tuple[bytes, int, int]:
    """The content without some persons, rows kept, rows left out; every kept row stays byte for byte."""
    if form == "parquet":
        rows = pq.read_table(path)
        theirs = pc.is_in(rows["person_id"], value_set=pa.array(sorted(persons), pa.string()))
        left = rows.filter(pc.invert(theirs))
        return _encoded(left, form)[0], left.num_rows, rows.num_rows - left.num_rows
    text = path.read_text(encoding="utf-8")
    if form == "jsonl":
        lines = text.splitlines(keepends=True)
        kept = [line for line in lines if json.loads(line)["person_id"] not in persons]
        return "".join(kept).encode(), len(kept), len(lines) - len(kept)
    table = list(csv.reader(io.StringIO(text, newline="")))
    place = table[0].index("person_id")
    left_rows = [row for row in table[1:] if row[place] not in persons]
    again = io.StringIO(newline="")
    csv.writer(again, lineterminator="\n").writerows([table[0], *left_rows])
    return again.getvalue().encode(), len(left_rows), len(table) - 1 - len(left_rows)


def _store(path: pathlib.Path, content: bytes, rows: int, about: Mapping[str, Any]) -> dict[str, Any]:
    manifest = {
        **about, "file": path.name, "rows": rows, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, content)
        _replace(manifest_of(path), json.dumps(manifest, indent=1, default=str).encode())
    except OSError as error:
        raise OutboundError(
            f"{path} cannot be written: {error.strerror}; expected a folder that can be"
        ) from error
    return manifest


def remove(path: pathlib.Path) -> None:
    """Remove a file and its manifest."""
    path.unlink(missing_ok=True)
    manifest_of(path).unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """A cell as JSON and SQL have it: whole numbers without a fraction, times as ISO 8601."""
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def json_row(row: Mapping[str, Any]) -> str:
    """A row as one line of JSON; equal rows give equal texts."""
    return json.dumps(
        {name: plain(value) for name, value in row.items()}, ensure_ascii=False, separators=(",", ":")
    )


def _encoded(rows: pa.Table, form: str) -> tuple[bytes, int]:
    if form == "parquet":
        buffer = io.BytesIO()
        pq.write_table(rows, buffer)
        return buffer.getvalue(), 0
    found = rows.to_pylist()
    if form == "jsonl":
        return "".join(json_row(row) + "\n" for row in found).encode(), 0
    guarded = 0
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows.column_names)
    for row in found:
        cells = []
        for value in row.values():
            cell = plain(value)
            if isinstance(cell, str) and cell.startswith(FORMULA):
                cell, guarded = f"'{cell}", guarded + 1
            cells.append(cell)
        writer.writerow(cells)
    return text.getvalue().encode(), guarded


def _replace(path: pathlib.Path, content: bytes) -> None:
    staged = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with open(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
