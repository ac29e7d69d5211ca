"""Erasing a person from every store of an installation, and remembering only that it was done.

Order matters. Tombstones come first, so that nothing flows back in while the work goes on; then the
inbox (the way into the lake), every Delta table, features, decisions, published histories, and what has left the
platform; then a search over every file of the installation, which cleans logs and records and reports what it could not
clean. A journal keeps who is being erased until all is done, so that a killed run is completed by the
next; every step can be repeated.

Belongs here: the steps in their order, the journal. Does not belong here: how one store forgets
(`erasure_delta.py`, `erasure_sqlite.py`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import hmac
import json
import os
import pathlib
import shutil
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from contracts.actions import ACTIONS_FILE
from contracts.identity import Tombstones
from contracts.settings import Settings, read_retailer
from feature_repo.snapshots import connect
from orchestration.lake import erasure_shield as shield
from orchestration.lake.erasure_delta import TableEraser, find_tables
from orchestration.lake.erasure_search import Trace, find_traces, needles, trace
from orchestration.lake.erasure_sqlite import (
    erase_actions,
    erase_decisions,
    erase_inbox,
    erase_online,
    is_sqlite,
    redact_any,
)
from orchestration.lake.erasure_subject import Subject, find_subject
from orchestration.lake.predictions import FAMILIES

if TYPE_CHECKING:
    from orchestration.outbound.forgetting import Forgotten

SEALED = ("releases", "bundles", "staging", "judged", "mlflow/artifacts", "keys")
"""Folders whose files are signed or hashed: they hold no identifier, and a find there is reported, not changed."""

LINES = (".csv", ".jsonl", ".ndjson", ".tsv")
"""Files of one record a line: the record is removed."""


@dataclasses.dataclass(frozen=True)
class Found:
    """What one store holds, or held, of the person.

    Attributes:
        store: Path below the installation's home.
        rows: Rows that are the person's.
        mentions: Rows or files of others that name the person; these are cleaned.
    """

    store: str
    rows: int
    mentions: int = 0


@dataclasses.dataclass(frozen=True)
class Erasure:
    """What an erasure did, or would do.

    Attributes:
        subject: Who.
        dry_run: Nothing was changed.
        stores: What was found where.
        remaining: Files in which an identifier is still found; empty after a complete erasure.
        resumed: An interrupted erasure was completed.
        untold: Receivers of webhooks that hold the person and could not be told, with the reason.
    """

    subject: Subject
    dry_run: bool
    stores: tuple[Found, ...]
    remaining: tuple[Trace, ...]
    resumed: bool
    untold: dict[str, str] = dataclasses.field(default_factory=dict)


def erase(
    settings: Settings,
    value: str,
    kind: str = "customer",
    dry_run: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> Erasure:
    """Remove a person from every place that holds them.

    Args:
        settings: The installation.
        value: The identifier by which the person asked.
        kind: Its kind.
        dry_run: Only list what would be removed.
        say: Receives one line per step.

    Raises:
        StoreBusyError: Another process holds a file; call again.
        TombstoneError: The tombstones are damaged; nothing was changed.
    """
    tombstones = shield.load_or_draw(settings)
    journal = _journal_path(settings, tombstones, kind, value)
    before = _read_journal(journal)
    subject = find_subject(settings, kind, value).joined(before)
    say(
        f"{len(subject.identifiers)} identifiers, {len(subject.events)} events, {len(subject.sessions)} visits"
    )
    if dry_run:
        stores = [*_each_store(settings, subject, True, say), *_sent(settings, subject, True, say)[0]]
        return Erasure(subject, True, tuple(stores), (), before is not None)
    tombstones = shield.store(
        settings, tombstones, ()
    )  # The salt that names the journal must be on disk first.
    _write_journal(journal, subject)
    shield.store(settings, tombstones, digests_of(tombstones, subject))
    stores = _each_store(settings, subject, False, say)
    left, sent = _sent(settings, subject, False, say)
    stores += left
    stores += _clean_files(settings, subject, journal, say)
    texts = needles(subject.identifiers, subject.persons)
    remaining = (*find_traces(settings.home, texts, [journal]), *_outside(settings, texts))
    if (
        not remaining and not sent.pending
    ):  # Who could not be told is told by the next run, which needs the journal.
        _remove_file(journal)
        say("no identifier is found in any file")
    return Erasure(subject, False, tuple(stores), remaining, before is not None, sent.untold)


def digests_of(tombstones: Tombstones, subject: Subject) -> list[str]:
    """Tombstones of a person: identifiers, visits, and events that the identifiers alone do not recognise."""
    digests = [tombstones.of_identifier(*pair) for pair in subject.identifiers]
    digests += [tombstones.of_session(session) for session in subject.sessions]
    named = Tombstones(tombstones.salt, digests)
    for event in subject.events:
        pairs = [(str(i["kind"]), str(i["value"])) for i in json.loads(event.identifiers or "[]")]
        if not named.holds(pairs, event.source, event.event_id):
            digests.append(tombstones.of_event(event.source, event.event_id))
    return digests


def readmit(settings: Settings, value: str, kind: str = "customer") -> bool:
    """Let an erased identifier back in, for a person who became a customer again.

    Returns:
        Whether there was a tombstone.
    """
    tombstones = shield.load_or_draw(settings)
    digest = tombstones.of_identifier(kind, value)
    if digest not in tombstones.digests:
        return False
    shield.store(settings, Tombstones(tombstones.salt), tombstones.digests - {digest})
    return True


def _each_store(
    settings: Settings, subject: Subject, dry_run: bool, say: Callable[[str], None]
) -> list[Found]:
    stores: list[Found] = []

    def note(path: pathlib.Path, rows: int, mentions: int = 0) -> None:
        stores.append(Found(str(path.relative_to(settings.home)), rows, mentions))
        say(f"{stores[-1].store}: {rows} rows" + (f", {mentions} mentions" if mentions else ""))

    note(settings.inbox, erase_inbox(settings.inbox, subject, dry_run))
    for path in find_tables(settings.home):
        con = connect()
        eraser = TableEraser(con, path, subject)
        found = eraser.count() if dry_run else eraser.erase()
        con.close()
        note(path, found.rows, found.mentions)
    online = settings.features / "online.db"
    note(online, erase_online(online, subject, dry_run))
    actions = settings.overview / ACTIONS_FILE
    note(actions, erase_actions(actions, subject, dry_run))
    note(settings.decisions, erase_decisions(settings.decisions, subject, dry_run))
    note(settings.profiles, _histories(settings, subject, dry_run))
    for frozen in sorted((settings.home / "evaluation").glob("*.parquet")):
        note(frozen, _frozen(settings, frozen, subject, dry_run))
    expectations = [*settings.overview.glob("*.npz")]
    for family in FAMILIES:
        expectations += (settings.bundles / family).glob("*/*.npz")
    for path in sorted(expectations):
        note(path, _expected(path, subject, dry_run))
    return stores


def _sent(
    settings: Settings, subject: Subject, dry_run: bool, say: Callable[[str], None]
) -> tuple[list[Found], Forgotten]:
    """Take the person out of what has left the platform."""
    from orchestration.outbound.forgetting import forget

    texts = needles(subject.identifiers, subject.persons)
    done = forget(settings, subject.persons, texts, dry_run)
    for store, rows in done.rows.items():
        say(f"{store}: {rows} rows")
    for receiver, why in done.untold.items():
        say(f"{receiver} could not be told: {why}")
    return [Found(store, rows) for store, rows in done.rows.items()], done


def _outside(settings: Settings, texts: tuple[str, ...]) -> list[Trace]:
    """Exported files that do not lie below the home and still name the person."""
    from orchestration.outbound.forgetting import outside

    found = ((path, trace(path, texts)) for path in outside(settings))
    return [Trace(path, where) for path, where in found if where is not None]


def _expected(path: pathlib.Path, subject: Subject, dry_run: bool) -> int:
    """Take the person out of arrays by customer, such as published churn and value.

    Returns:
        How many of its rows were the person's.
    """
    import numpy as np

    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    names = next((arrays[key] for key in ("customers", "customer") if key in arrays), None)
    if names is None:
        return 0
    own = np.isin(names.astype(str), list(subject.customers))
    if own.any() and not dry_run:
        kept = {
            name: values[~own] if values.shape[:1] == own.shape else values for name, values in arrays.items()
        }
        staged = path.with_name(f".{uuid.uuid4().hex}.npz")
        np.savez_compressed(staged, **kept)
        staged.replace(path)
    return int(own.sum())


def _histories(settings: Settings, subject: Subject, dry_run: bool) -> int:
    """Publish histories without the person and forget all older ones.

    Returns:
        In how many snapshots the person was.
    """
    from orchestration.lake.histories import CURRENT, publish_histories
    from orchestration.lake.intake import drained_offset
    from serving.profiles.snapshot import SnapshotError, read_snapshot

    folders = [path for path in settings.profiles.glob("v*-*") if path.is_dir()]
    holding = 0
    for folder in folders:
        try:
            snapshot = read_snapshot(settings.profiles, folder.name)
        except SnapshotError:
            holding += 1  # Damaged: nobody can serve it or say what it holds.
            continue
        holding += any(snapshot.row(customer) >= 0 for customer in subject.customers)
    if dry_run or not (settings.profiles / CURRENT).is_file():
        return holding
    if holding:
        read_retailer(settings)
        current = publish_histories(settings, inbox_offset=drained_offset(settings.lake))
        for path in settings.profiles.iterdir():
            if path.is_dir() and path != current:
                shutil.rmtree(path)
    return holding


def _frozen(settings: Settings, path: pathlib.Path, subject: Subject, dry_run: bool) -> int:
    """Take the person out of a frozen evaluation set; the set that is in use is named anew by its hash."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    if "customer_id" not in table.column_names:
        return 0
    theirs = pc.is_in(table["customer_id"], value_set=pa.array(subject.customers, pa.string()))
    rows = int(pc.sum(theirs).as_py() or 0)
    if dry_run or rows == 0:
        return rows
    kept = table.filter(pc.invert(theirs))
    content = kept.to_pylist()
    lines = (
        f"{r['customer_id']},{r['request_at'].isoformat()},{r['store_id']},{' '.join(r['targets'])}"
        for r in content
    )
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    renamed = path.with_name(f"{digest[:16]}.parquet")
    staged = path.with_name(f"{digest[:16]}.tmp")
    pq.write_table(kept, staged)
    staged.replace(renamed)
    latest = path.with_name("LATEST.json")
    record = json.loads(latest.read_text()) if latest.is_file() else {}
    if record.get("path") == path.name:
        from feature_repo.snapshots import delta_files

        version, _ = delta_files(settings.lake / "events")
        targets = sum(len(r["targets"]) for r in content) / max(1, len(content))
        record |= {
            "path": renamed.name,
            "sha256": digest,
            "requests": len(content),
            "targets_per_request": targets,
            "events_version": version,
        }
        staged = latest.with_suffix(".tmp")
        staged.write_text(json.dumps(record))
        staged.replace(latest)
    path.unlink()
    return rows


def _clean_files(
    settings: Settings, subject: Subject, journal: pathlib.Path, say: Callable[[str], None]
) -> list[Found]:
    """Clean what is left in files that no step above knows."""
    texts = needles(subject.identifiers, subject.persons)
    cleaned = []
    for found in find_traces(settings.home, texts, [journal]):
        relative = found.path.relative_to(settings.home)
        if any(str(relative).startswith(f"{folder}/") for folder in SEALED) or found.where == "name":
            continue
        if is_sqlite(found.path):
            cells = redact_any(found.path, subject)
        elif found.path.suffix in (*LINES, ".log", ".txt", ".json", ".out", ".err", ".md", ".yaml", ""):
            cells = _clean_text(found.path, texts)
        else:
            continue
        cleaned.append(Found(str(relative), 0, cells))
        say(f"{relative}: {cells} mentions")
    return cleaned


def _clean_text(path: pathlib.Path, texts: tuple[str, ...]) -> int:
    """Remove records, or overwrite mentions in place (a log may be open in another process)."""
    patterns = [text.encode() for text in sorted(texts, key=len, reverse=True)]
    content = path.read_bytes()
    count = sum(content.count(pattern) for pattern in patterns)
    if path.suffix in LINES:
        lines = content.splitlines(keepends=True)
        staged = path.with_name(f".tmp-{path.name}")
        staged.write_bytes(b"".join(line for line in lines if not any(p in line for p in patterns)))
        staged.replace(path)
        return count
    for pattern in patterns:
        content = content.replace(pattern, b"x" * len(pattern))
    with path.open("r+b") as file:
        file.write(content)
        os.fsync(file.fileno())
    return count


def _journal_path(settings: Settings, tombstones: Tombstones, kind: str, value: str) -> pathlib.Path:
    name = hmac.new(tombstones.salt, f"journal\0{kind}\0{value}".encode(), hashlib.sha256).hexdigest()[:24]
    return settings.home / "erasures" / f"{name}.json"


def _read_journal(path: pathlib.Path) -> Subject | None:
    return msgspec.json.decode(path.read_bytes(), type=Subject) if path.is_file() else None


def _write_journal(path: pathlib.Path, subject: Subject) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(".tmp")
    with staged.open("wb") as file:
        file.write(msgspec.json.encode(subject))
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)


def _remove_file(path: pathlib.Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\0" * path.stat().st_size)
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    done = path.with_name("done.log")
    with done.open("a") as log:
        log.write(f"{dt.datetime.now(dt.UTC).isoformat(timespec='seconds')} {path.stem}\n")
