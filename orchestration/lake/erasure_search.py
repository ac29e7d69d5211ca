"""Looking for a person's identifiers in every file of an installation, as bytes and as decoded content.

Bytes alone do not find what is compressed: Parquet columns, members of archives and gzip files are
decoded and searched too, and texts are looked for in UTF-8 and in the UTF-32 of numpy's arrays.
Identifiers that are not distinctive (a short number is found everywhere) are looked for in the forms in
which this platform writes them, such as ``"customer_id":"17"``.

Belongs here: finding. Does not belong here: removing (`erasure.py`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import io
import json
import mmap
import pathlib
import zipfile
from collections.abc import Iterable, Iterator
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

LEAST_CHARACTERS = 6
"""Shorter identifiers, and numbers of fewer than 10 digits, are not distinctive."""

CHUNK = 1 << 26


@dataclasses.dataclass(frozen=True)
class Trace:
    """A file in which an identifier was found.

    Attributes:
        path: The file.
        where: ``bytes``, or the part of the decoded content.
    """

    path: pathlib.Path
    where: str


def distinctive(value: str) -> bool:
    """Whether a text is found only where it is meant."""
    return len(value) >= (10 if value.isdigit() else LEAST_CHARACTERS)


def needles(identifiers: Iterable[tuple[str, str]], others: Iterable[str] = ()) -> tuple[str, ...]:
    """The texts to look for.

    Args:
        identifiers: Pairs of kind and value.
        others: Further distinctive names, such as person ids.
    """
    wanted: list[str] = []
    for kind, value in identifiers:
        if distinctive(value):
            wanted += [value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]]
        else:
            quoted = json.dumps(value)
            for gap in ("", " "):
                wanted.append(f'"kind":{gap}"{kind}",{gap}"value":{gap}{quoted}')
                wanted.append(f'"{kind}_id":{gap}{quoted}')
                wanted.append(f'"{kind}":{gap}{quoted}')
            wanted += [json.dumps(text)[1:-1] for text in wanted[-6:]]  # JSON inside a JSON text.
    wanted += [text for text in others if distinctive(text)]
    return tuple(dict.fromkeys(wanted))


def find_traces(home: pathlib.Path, wanted: Iterable[str], skip: Iterable[pathlib.Path] = ()) -> list[Trace]:
    """Every file below a folder that holds one of the texts.

    Args:
        home: The folder.
        wanted: Texts (`needles`).
        skip: Files to leave out.
    """
    texts = tuple(wanted)
    left_out = {path.resolve() for path in skip}
    found = []
    for path in sorted(home.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.resolve() not in left_out:
            where = trace(path, texts)
            if where is not None:
                found.append(Trace(path, where))
    return found


def trace(path: pathlib.Path, wanted: tuple[str, ...]) -> str | None:
    """Where in a file one of the texts is found, or None."""
    patterns = [
        pattern for text in wanted for pattern in dict.fromkeys((text.encode(), text.encode("utf-32-le")))
    ]
    if any(text in path.name for text in wanted):
        return "name"
    if _in_file(path, patterns):
        return "bytes"
    for part, content in _decoded(path):
        if any(pattern in content for pattern in patterns):
            return part
    return None


def _in_file(path: pathlib.Path, patterns: list[bytes]) -> bool:
    with path.open("rb") as file:
        if file.seek(0, io.SEEK_END) == 0:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return any(content.find(pattern) >= 0 for pattern in patterns)


def _decoded(path: pathlib.Path) -> Iterator[tuple[str, bytes]]:
    with path.open("rb") as file:
        head = file.read(4)
    if head == b"PAR1":
        yield from _parquet(path)
    elif head[:2] == b"\x1f\x8b":
        with gzip.open(path) as packed:
            yield from _chunks("gzip", packed)
    elif head == b"PK\x03\x04":
        with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as member:
                    yield from _chunks(f"member {name}", member)


def _chunks(name: str, file: IO[bytes] | gzip.GzipFile) -> Iterator[tuple[str, bytes]]:
    overlap = b""
    while block := file.read(CHUNK):
        yield name, overlap + block
        overlap = block[-4096:]


def _parquet(path: pathlib.Path) -> Iterator[tuple[str, bytes]]:
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid:
        return  # A file that a killed writer left: it has been searched as bytes, and vacuum removes it.
    for group in range(file.num_row_groups):
        for name, column in zip(file.schema_arrow.names, file.read_row_group(group).columns, strict=True):
            for chunk in column.chunks:
                yield f"column {name}", b"\0".join(_buffers(chunk))


def _buffers(array: pa.Array) -> Iterator[bytes]:
    """The text buffers of an array, nested ones included."""
    if pa.types.is_dictionary(array.type):
        yield from _buffers(array.dictionary)
        return
    for child in _children(array):
        yield from _buffers(child)
    if (
        pa.types.is_string(array.type)
        or pa.types.is_large_string(array.type)
        or pa.types.is_binary(array.type)
    ):
        buffer = array.buffers()[2]
        if buffer is not None:
            yield buffer.to_pybytes()


def _children(array: pa.Array) -> list[pa.Array]:
    if pa.types.is_struct(array.type):
        return [array.field(i) for i in range(array.type.num_fields)]
    if pa.types.is_map(array.type):
        return [array.keys, array.items]
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        return [array.values]
    return []
