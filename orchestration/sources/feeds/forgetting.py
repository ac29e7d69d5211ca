"""Removing a person from the parts: their rows, and every broken row that mentions them.

The retailer's own files are the retailer's; what is read of them later is for the intake's tombstones.

Belongs here: rewriting parts. Does not belong here: other stores of the installation.
"""

from __future__ import annotations

import pathlib
import uuid
from collections.abc import Collection, Iterable

import msgspec

from feature_repo.snapshots import connect, literal
from orchestration.sources.feeds.answers import REPEATED, scan
from orchestration.sources.feeds.parts import Part
from orchestration.sources.feeds.staging import broken_file, rows_file


def forget(root: pathlib.Path, stored: Iterable[Part], values: Collection[str]) -> int:
    """Write the parts anew without rows in which one of the values stands.

    Args:
        root: Folder of all parts.
        stored: The parts, those that count no more included.
        values: Identifiers of one person (customer number, card, hash of an e-mail address ...).

    Returns:
        How many rows were removed.
    """
    wanted = [value for value in values if value]
    if not wanted:
        return 0
    removed = 0
    for part in stored:
        gone = sum(
            _without(path, wanted) for path in (rows_file(root, part), broken_file(root, part)) if path
        )
        told = [one for one in part.examples if not any(value in one.raw for value in wanted)]
        if gone or len(told) < len(part.examples):
            record = part.folder(root) / "part.json"
            fresh = record.with_suffix(".new")
            fresh.write_bytes(msgspec.json.encode(msgspec.structs.replace(part, examples=tuple(told))))
            fresh.replace(record)
        removed += gone
    if removed:
        for path in root.glob(f"{REPEATED}-*"):
            path.unlink(missing_ok=True)
    return removed


def _without(path: pathlib.Path, values: list[str]) -> int:
    con = connect()
    listed = "[" + ", ".join(map(literal, values)) + "]"
    columns = [row[0] for row in con.execute(f"describe select * from {scan([str(path)])}").fetchall()]
    text = [
        name
        for name in ("identifiers", "detail", "raw", "session_id", "event_id", "customer_id")
        if name in columns
    ]
    whole = "concat_ws(chr(31), " + ", ".join(text) + ")" if text else "''"
    mentions = f"list_has_any(list_transform({listed}, lambda v: contains({whole}, v)), [true])"
    count = con.execute(f"select count(*) from {scan([str(path)])} where {mentions}").fetchall()[0][0]
    if count:
        fresh = path.with_name(f"{uuid.uuid4().hex}.new")
        con.execute(
            f"copy (select * from {scan([str(path)])} where not {mentions}) to {literal(str(fresh))} (format parquet)"
        )
        fresh.replace(path)
    con.close()
    return int(count)
