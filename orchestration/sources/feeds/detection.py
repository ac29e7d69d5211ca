"""What a file is: its container, its columns or keys, and the format they speak of.

Belongs here: looking at a file's beginning. Does not belong here: bytes (`text.py`), all rows (`reading.py`).
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import pathlib
import re
from typing import Literal

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.retailer import Feed
from orchestration.sources.feeds import formats
from orchestration.sources.feeds.formats.snowplow import FIELDS
from orchestration.sources.feeds.text import Text, UnreadableFileError, prepare

SAMPLE = 1 << 18
DELIMITERS = (",", ";", "\t", "|")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d")


@dataclasses.dataclass(frozen=True)
class Shape:
    """How a file is to be read.

    Attributes:
        path: Readable file (the file itself, or its decoded copy).
        container: Parquet, delimited text, or one JSON document a line.
        columns: Columns, or top-level keys of the first documents.
        format: Name of the recognised or given format.
        delimiter: Of delimited text.
        header: Whether the first line names the columns.
        quoting: Whether ``"`` quotes fields.
        skip: Lines before the header.
        text: How text was read; None for Parquet.
    """

    path: pathlib.Path
    container: Literal["parquet", "delimited", "documents"]
    columns: tuple[str, ...]
    format: str
    delimiter: str | None = None
    header: bool = True
    quoting: bool = True
    skip: int = 0
    text: Text | None = None


def detect(path: pathlib.Path, feed: Feed, work: pathlib.Path) -> Shape:
    """Look at a file.

    Args:
        path: The file.
        feed: What the mapping says; it wins over what is found.
        work: Folder for a decoded copy, where one is needed.

    Raises:
        UnreadableFileError: No file that can be read; the message says what was expected.
    """
    with path.open("rb") as file:
        head = file.read(4)
    if not head:
        raise UnreadableFileError(f"{path.name} is empty")
    if head == b"PAR1":
        return _parquet(path, feed)
    text = prepare(path, work, feed.encoding)
    with text.path.open(encoding="utf-8", errors="replace", newline="") as lines:
        sample = lines.read(SAMPLE)
    if not sample.strip():
        raise UnreadableFileError(f"{path.name} holds no row")
    if text.array or sample.lstrip().startswith("{"):
        keys = _keys(sample)
        return Shape(text.path, "documents", keys, _format(feed, keys), text=text)
    return _delimited(text, sample, feed)


def _parquet(path: pathlib.Path, feed: Feed) -> Shape:
    try:
        names = tuple(pq.read_schema(path).names)
    except (pa.ArrowInvalid, OSError) as error:
        raise UnreadableFileError(
            f"{path.name} is no whole Parquet file ({error}); expected one that was written to its end"
        ) from error
    return Shape(path, "parquet", names, _format(feed, names))


def _delimited(text: Text, sample: str, feed: Feed) -> Shape:
    # Spreadsheets write the delimiter into a first line of its own.
    told = re.match(r'"?sep=(.)"?\r?\n', sample)
    sample = sample[told.end() :] if told else sample
    first = sample.splitlines()[0]
    fields = first.split("\t")
    if feed.format == "snowplow" or (feed.format == "auto" and _is_snowplow(fields)):
        named = "event_id" in fields
        columns = tuple(fields) if named else FIELDS
        return Shape(text.path, "delimited", columns, "snowplow", "\t", named, quoting=False, text=text)
    delimiter = feed.delimiter or (told.group(1) if told else guess_delimiter(sample))
    names = list(feed.columns) or [name.strip() for name in next(csv.reader([first], delimiter=delimiter))]
    columns = tuple(_unique(names))
    found = _format(feed, columns)
    return Shape(
        text.path,
        "delimited",
        columns,
        found,
        delimiter,
        not feed.columns,
        skip=int(told is not None),
        text=text,
    )


def guess_delimiter(sample: str) -> str:
    """The delimiter that cuts the first lines into the same number of fields, more than one."""
    lines = sample.splitlines()[:200]
    if len(lines) > 1 and len(sample) >= SAMPLE:
        lines = lines[:-1]
    best, most = ",", (0.0, 0)
    for delimiter in DELIMITERS:
        widths = [len(row) for row in csv.reader(lines, delimiter=delimiter) if row]
        if not widths or widths[0] < 2:
            continue
        score = (sum(width == widths[0] for width in widths) / len(widths), widths[0])
        if score > most:
            best, most = delimiter, score
    return best


def _is_snowplow(fields: list[str]) -> bool:
    if "event_id" in fields and "collector_tstamp" in fields:
        return True
    return 125 <= len(fields) <= 140 and bool(_TIME.match(fields[3]))


def _keys(sample: str) -> tuple[str, ...]:
    keys: dict[str, None] = {}
    for line in itertools.islice(sample.splitlines(), 200):
        try:
            document = msgspec.json.decode(line)
        except msgspec.DecodeError:
            continue
        if isinstance(document, dict):
            keys.update(dict.fromkeys(document))
    return tuple(keys)


def _format(feed: Feed, columns: tuple[str, ...]) -> str:
    if feed.format != "auto":
        return feed.format
    if feed.fields and "occurred_at" in feed.fields:
        # The mapping names everything itself: only a format with a structure of its own is looked for.
        found = formats.recognised(columns).name
        return "rows" if found == "canonical" else found
    return formats.recognised(columns).name


def _unique(names: list[str]) -> list[str]:
    out: list[str] = []
    for position, name in enumerate(names, 1):
        plain = name.lstrip("\ufeff") or f"column_{position}"
        while plain.lower() in {other.lower() for other in out}:
            plain = f"{plain}_{position}"
        out.append(plain)
    return out
