"""The ledger of merges: what was joined or kept apart beyond the events, by whom, why, and how to undo it.

An entry is never changed. `merge` joins two identifiers, `never` keeps two apart, `undo` takes either
back: the next stitching runs on the entries that are left, so the mapping of before comes back exactly.
Two persons whom the events themselves join (both logins wrote to one address, say) are recorded as a
merge with reason ``deterministic``; undoing that keeps their identifiers apart from then on.
Cycles of merges are harmless: joining what is joined changes nothing.

Belongs here: writing and reading the ledger. Does not belong here: stitching (`identity.py`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from orchestration.lake import writing
from orchestration.lake.identity_tables import LEDGER

Identifier = tuple[str, str]
"""Kind and value."""

REASONS = ("deterministic", "probabilistic", "manual")


class MergeError(ValueError):
    """A merge, rule or undo that cannot be done; the message names what was wrong."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of the ledger.

    Attributes:
        entry_id: Its name, derived from its content and number.
        seq: Number, from 1.
        at: When it was written.
        op: ``merge``, ``never`` or ``undo``.
        left: One identifier (None for undo).
        right: The other.
        reason: One of `REASONS`.
        evidence: What speaks for it.
        score: Probability or weight, or None.
        author: Who or what decided.
        target: The entry that an undo takes back.
    """

    entry_id: str
    seq: int
    at: dt.datetime
    op: str
    left: Identifier | None
    right: Identifier | None
    reason: str
    evidence: dict[str, Any]
    score: float | None
    author: str
    target: str | None


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A merge to be written.

    Attributes:
        left: One identifier.
        right: The other.
        evidence: What speaks for it.
        score: Probability, or None.
    """

    left: Identifier
    right: Identifier
    evidence: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    score: float | None = None


@dataclasses.dataclass(frozen=True)
class Active:
    """What counts now.

    Attributes:
        merges: Entries of pairs to join, oldest first.
        never: Pairs to keep apart: never-rules, and deterministic merges that were undone.
    """

    merges: tuple[Entry, ...] = ()
    never: tuple[tuple[Identifier, Identifier], ...] = ()


def read_ledger(lake: pathlib.Path) -> list[Entry]:
    """All entries in order; an installation without a ledger has none."""
    from deltalake import DeltaTable

    path = LEDGER.path(lake)
    if not DeltaTable.is_deltatable(str(path)):
        return []
    rows = DeltaTable(str(path)).to_pyarrow_table().sort_by("seq").to_pylist()
    return [_entry(row) for row in rows]


def active(entries: Sequence[Entry]) -> Active:
    """Which entries count, after what was undone."""
    undone = {entry.target for entry in entries if entry.op == "undo"}
    merges = [entry for entry in entries if entry.op == "merge" and entry.entry_id not in undone]
    kept_apart = [
        entry
        for entry in entries
        if (entry.op == "never" and entry.entry_id not in undone)
        or (entry.op == "merge" and entry.reason == "deterministic" and entry.entry_id in undone)
    ]
    joining = tuple(entry for entry in merges if entry.reason != "deterministic")
    return Active(joining, tuple((e.left, e.right) for e in kept_apart if e.left and e.right))


def merge(
    lake: pathlib.Path,
    proposals: Sequence[Proposal],
    reason: str = "manual",
    author: str = "operator",
    at: dt.datetime | None = None,
) -> list[Entry]:
    """Write merges that do not stand in the ledger yet; they count from the next stitching on.

    A pair that a person has taken back is not proposed again by a machine: only reason ``manual`` merges it.

    Raises:
        MergeError: A pair is one and the same identifier, or the reason is unknown.
    """
    if reason not in REASONS:
        raise MergeError(f"reason is '{reason}'; expected one of: {', '.join(REASONS)}")
    entries = read_ledger(lake)
    undone = {entry.target for entry in entries if entry.op == "undo"}
    known = set()
    for entry in entries:
        if entry.op == "merge" and entry.left and entry.right:
            taken_back = entry.entry_id in undone
            if not taken_back or (reason != "manual" and entry.reason == reason):
                known.add(_pair(entry.left, entry.right))
    rows = []
    for proposal in proposals:
        left, right = _pair(proposal.left, proposal.right)
        if left == right:
            raise MergeError(f"both sides are {left[0]} '{left[1]}'; expected two different identifiers")
        if (left, right) not in known:
            known.add((left, right))
            rows.append(("merge", left, right, reason, dict(proposal.evidence), proposal.score, author, None))
    return _append(lake, entries, rows, at)


def never(
    lake: pathlib.Path, left: Identifier, right: Identifier, note: str, author: str = "operator",
    at: dt.datetime | None = None,
) -> Entry:  # fmt: skip
    """Keep two identifiers in different persons from the next stitching on, whatever the evidence.

    Raises:
        MergeError: Both are one and the same identifier.
    """
    if left == right:
        raise MergeError(f"both sides are {left[0]} '{left[1]}'; expected two different identifiers")
    pair = _pair(left, right)
    entries = read_ledger(lake)
    for entry in entries:
        undone = any(other.target == entry.entry_id for other in entries)
        if entry.op == "never" and not undone and (entry.left, entry.right) == pair:
            return entry
    return _append(lake, entries, [("never", *pair, "manual", {"note": note}, None, author, None)], at)[0]


def undo(
    lake: pathlib.Path, entry_id: str, note: str = "", author: str = "operator", at: dt.datetime | None = None
) -> Entry:
    """Take a merge or a never-rule back.

    Raises:
        MergeError: No such entry, an undo itself, or taken back already.
    """
    return undo_all(lake, [entry_id], note, author, at)[0]


def undo_all(
    lake: pathlib.Path,
    entry_ids: Sequence[str],
    note: str = "",
    author: str = "operator",
    at: dt.datetime | None = None,
) -> list[Entry]:
    """Take several merges or never-rules back in one commit; all or none.

    Raises:
        MergeError: As `undo`, for the first that cannot be taken back.
    """
    entries = read_ledger(lake)
    known = {entry.entry_id: entry for entry in entries if entry.op != "undo"}
    undone = {entry.target for entry in entries if entry.op == "undo"}
    rows = []
    for entry_id in entry_ids:
        if entry_id not in known:
            raise MergeError(
                f"merge is '{entry_id}'; expected the entry_id of a merge or never-rule in the ledger"
            )
        if entry_id in undone:
            raise MergeError(f"'{entry_id}' was taken back before; expected an entry that still counts")
        undone.add(entry_id)
        rows.append(("undo", None, None, known[entry_id].reason, {"note": note}, None, author, entry_id))
    return _append(lake, entries, rows, at)


def _pair(left: Identifier, right: Identifier) -> tuple[Identifier, Identifier]:
    first, second = sorted(((str(left[0]), str(left[1])), (str(right[0]), str(right[1]))))
    return first, second


def _append(
    lake: pathlib.Path, entries: Sequence[Entry], rows: Sequence[tuple[Any, ...]], at: dt.datetime | None
) -> list[Entry]:
    if not rows:
        return []
    moment = at or dt.datetime.now(dt.UTC)
    last = max((entry.seq for entry in entries), default=0)
    records: list[dict[str, Any]] = []
    for number, (op, left, right, reason, evidence, score, author, target) in enumerate(rows, last + 1):
        text = json.dumps([number, op, left, right, reason, target])
        records.append(
            {
                "entry_id": "m_" + hashlib.sha256(text.encode()).hexdigest()[:16],
                "seq": number,
                "at": moment,
                "op": op,
                "left_kind": left and left[0],
                "left_value": left and left[1],
                "right_kind": right and right[0],
                "right_value": right and right[1],
                "reason": reason,
                "evidence": json.dumps(evidence, sort_keys=True, default=str),
                "score": score,
                "author": author,
                "target": target,
            }
        )
    table = pa.Table.from_pylist(records, schema=LEDGER.schema)
    commit = writing.append_once(LEDGER, lake, table, "ledger", records[-1]["seq"])
    if not commit.applied:
        raise MergeError(
            "somebody else wrote to the ledger at the same moment; expected to be alone, try again"
        )
    return [_entry(row) for row in table.to_pylist()]


def _entry(row: Mapping[str, Any]) -> Entry:
    left = None if row["left_kind"] is None else (row["left_kind"], row["left_value"])
    right = None if row["right_kind"] is None else (row["right_kind"], row["right_value"])
    return Entry(
        row["entry_id"], row["seq"], row["at"], row["op"], left, right, row["reason"],
        json.loads(row["evidence"]), row["score"], row["author"], row["target"],
    )  # fmt: skip
