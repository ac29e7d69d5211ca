"""Parts: what has been read, each file and each pull from a table once, kept as canonical Parquet.

A part is a folder ``<home>/sources/<retailer>/<feed>/<part>`` with ``rows.parquet`` (canonical rows with
``name`` and ``problem``), ``broken.parquet`` where rows or lines broke, and ``part.json``. It appears by one
rename, so a killed reader leaves nothing that counts. Its name holds the file's path, content and the
mapping, so nothing is read twice and a changed mapping reads everything again.

Belongs here: the record of a part and which parts count. Does not belong here: making them (`staging.py`).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import pathlib
import shutil
from collections.abc import Iterable
from typing import Literal

import msgspec

from contracts.retailer import Feed

VERSION = 1
"""Of the way rows are mapped; a higher number reads everything again."""


LANDED = "landed.json"


class Name(msgspec.Struct, frozen=True):
    """How often their name became an action on a channel; action is None where the name is unknown."""

    name: str | None
    action: str | None
    channel: str | None
    rows: int


class Example(msgspec.Struct, frozen=True):
    """One row that broke, with its line and how it came."""

    line: int | None
    reason: str
    raw: str


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What reading a file, or pulling from a table, gave.

    Attributes:
        feed: Name of the feed.
        origin: Absolute path of the file, or name of the table.
        digest: SHA-256 of the file, or a hash of the pulled rows.
        fingerprint: Of the mapping.
        size: Bytes of the file.
        changed_ns: The file's time of change.
        created_ns: When the part was made; of two parts with the same event the later counts.
        rows_kind: events, products or customers.
        format: Recognised format.
        container: Parquet, delimited or documents.
        encoding: Of text.
        delimiter: Of delimited text.
        rows: Rows that gave a canonical row (an order of two lines counts two).
        good: Rows without a problem.
        ignored: Rows that the mapping leaves out.
        broken: Rows and lines that broke.
        reasons: Why, with counts.
        examples: A few of them.
        names: Their names, ours, and counts.
        fields: Field -> path.
        columns: Columns or top-level keys.
        unused: Columns that nothing reads.
        missing: Keys of the mapping whose column is not there, with the column.
        days: UTC days with events, or with rows that broke but have a time.
        first: Earliest time of a good event.
        last: Latest.
        notes: What else there is to say: repairs, truncation.
        error: Why nothing could be read, or None.
        high_water: Largest value of the growing column, as text.
    """

    feed: str
    origin: str
    digest: str
    fingerprint: str
    size: int = 0
    changed_ns: int = 0
    created_ns: int = 0
    rows_kind: Literal["events", "products", "customers"] = "events"
    format: str = ""
    container: str = ""
    encoding: str | None = None
    delimiter: str | None = None
    rows: int = 0
    good: int = 0
    ignored: int = 0
    broken: int = 0
    reasons: dict[str, int] = {}
    examples: tuple[Example, ...] = ()
    names: tuple[Name, ...] = ()
    fields: dict[str, str] = {}
    columns: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    missing: tuple[tuple[str, str], ...] = ()
    days: tuple[dt.date, ...] = ()
    first: dt.datetime | None = None
    last: dt.datetime | None = None
    notes: tuple[str, ...] = ()
    error: str | None = None
    high_water: str | None = None

    @property
    def key(self) -> str:
        """Name of the part's folder."""
        place = hashlib.sha256(self.origin.encode()).hexdigest()[:10]
        return f"{place}-{self.digest[:16]}-{self.fingerprint}"

    def folder(self, root: pathlib.Path) -> pathlib.Path:
        """Where the part lies."""
        return root / self.feed / self.key


def fingerprint(feed: Feed, currency: str) -> str:
    """Identifies everything that decides how rows are mapped."""
    plain = msgspec.structs.replace(feed, files=None, connection=None)
    encoded = msgspec.json.encode((VERSION, currency, plain), order="deterministic")
    return hashlib.sha256(encoded).hexdigest()[:12]


def stored(root: pathlib.Path, feed: str) -> list[Part]:
    """All parts of a feed, oldest first."""
    folder = root / feed
    found = [msgspec.json.decode(path.read_bytes(), type=Part) for path in folder.glob("*/part.json")]
    return sorted(found, key=lambda part: (part.created_ns, part.key))


def live(parts: Iterable[Part], mark: str, table: bool, growing: bool) -> list[Part]:
    """The parts that count.

    Of a file: its latest part; a file that is gone keeps its last one. Of a table: all parts of this mapping where
    a column tells new rows, otherwise the latest.

    Args:
        parts: All parts of a feed.
        mark: Fingerprint of its mapping as it is now.
        table: Whether the feed reads a table.
        growing: Whether it has a ``high_water``.
    """
    ordered = sorted(parts, key=lambda part: (part.created_ns, part.key))
    if table and growing:
        return [part for part in ordered if part.fingerprint == mark]
    latest: dict[str, Part] = {}
    for part in ordered:
        latest[part.origin] = part
    return sorted(latest.values(), key=lambda part: (part.created_ns, part.key))


def keep(part: Part, work: pathlib.Path, root: pathlib.Path) -> Part:
    """Put a finished working folder in its place, by one rename."""
    (work / "part.json").write_bytes(msgspec.json.encode(part))
    folder = part.folder(root)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        # The same content came back after another: the record alone is new, and it has to land again.
        (folder / LANDED).unlink(missing_ok=True)
        (work / "part.json").replace(folder / "part.json")
        shutil.rmtree(work, ignore_errors=True)
        return part
    work.rename(folder)
    return part


def landed(root: pathlib.Path, part: Part) -> tuple[dt.date, dt.date] | None:
    """First and last day between which the part's rows are in the lake, or None."""
    path = part.folder(root) / LANDED
    return msgspec.json.decode(path.read_bytes(), type=tuple[dt.date, dt.date]) if path.is_file() else None


def land(root: pathlib.Path, part: Part, first: dt.date, last: dt.date) -> None:
    """Note that the part's rows of these days are in the lake."""
    fresh = part.folder(root) / f"{LANDED}.new"
    fresh.write_bytes(msgspec.json.encode((first, last)))
    fresh.replace(part.folder(root) / LANDED)
