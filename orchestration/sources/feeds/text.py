"""Bytes of text files, made into UTF-8 that DuckDB reads, losing nothing.

A file that is sound UTF-8 without a mark is read where it lies. Anything else (another encoding, a byte
order mark, gzip, a JSON array, a few lines in another encoding) is written once as plain UTF-8 into a
working folder. A line that is not UTF-8 in a file that otherwise is gets read as Windows-1252, which gives
every byte of Western text its letter.

Belongs here: compression, encodings, JSON arrays. Does not belong here: columns (`detection.py`).
"""

from __future__ import annotations

import codecs
import dataclasses
import gzip
import hashlib
import json
import pathlib
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

import msgspec

CHUNK = 1 << 22
LARGEST_ARRAY = 1 << 29
"""Bytes of the largest JSON array; it is held in memory, JSON lines are not."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


_CONTROLS = bytes(code for code in range(32) if chr(code) not in "\t\n\r\f")


class UnreadableFileError(ValueError):
    """A file that cannot be read at all; the message says why and what was expected."""


@dataclasses.dataclass(frozen=True)
class Text:
    """A text file as DuckDB can read it.

    Attributes:
        path: Where the UTF-8 text lies.
        encoding: What the file was written in.
        compression: ``gzip`` or None.
        repaired: Lines in the other one of UTF-8 and Windows-1252, or that hold bytes the encoding has no letter for.
        truncated: Why the file ends early, or None.
        array: Whether it was one JSON array.
    """

    path: pathlib.Path
    encoding: str
    compression: str | None
    repaired: int = 0
    truncated: str | None = None
    array: bool = False


def content_hash(path: pathlib.Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def prepare(path: pathlib.Path, work: pathlib.Path, encoding: str | None = None) -> Text:
    """Make a text file readable.

    Args:
        path: The file.
        work: Folder for the readable copy, where one is needed.
        encoding: What the mapping says; found out where None.

    Raises:
        UnreadableFileError: An unknown encoding, or bytes that are no text.
    """
    if encoding is not None:
        try:
            codecs.lookup(encoding)
        except LookupError as error:
            raise UnreadableFileError(f"encoding is '{encoding}'; expected one that Python knows") from error
    compression, truncated, plain = None, None, path
    with path.open("rb") as file:
        head = file.read(4)
    if head[:2] == b"\x1f\x8b":
        compression, plain = "gzip", work / "unpacked"
        truncated = _unpack(path, plain)
    elif head == b"\x28\xb5\x2f\xfd":
        raise UnreadableFileError(f"{path.name} is compressed with zstd; expected gzip or plain text")
    elif head == b"PK\x03\x04":
        raise UnreadableFileError(f"{path.name} is a zip archive or a workbook; expected the files inside it")
    mark, found = _found_encoding(plain, encoding)
    text = Text(plain, encoding or found, compression, truncated=truncated)
    if (
        mark
        or text.encoding.lower().replace("_", "-") not in {"utf-8", "utf8", "ascii"}
        or not _is_utf8(plain)
    ):
        copy = work / "decoded"
        text = dataclasses.replace(text, path=copy, repaired=_decode(plain, copy, text.encoding, mark))
    text = _without_array(text, work)
    if not text.array and _mixed_line_ends(text.path):
        copy = work / "lined"
        _one_line_end(text.path, copy)
        text = dataclasses.replace(text, path=copy)
    return text


def _mixed_line_ends(path: pathlib.Path) -> bool:
    """Whether lines end in more than one way; DuckDB loses rows of such files without a word."""
    feeds = returns = pairs = 0
    last = b""
    for block in _blocks(path):
        feeds, returns = feeds + block.count(b"\n"), returns + block.count(b"\r")
        pairs += block.count(b"\r\n") + (last == b"\r" and block[:1] == b"\n")
        last = block[-1:]
    return returns > 0 and feeds > 0 and not feeds == returns == pairs


def _one_line_end(path: pathlib.Path, target: pathlib.Path) -> None:
    """Write a file with line feeds alone; a return that stands by itself becomes a blank."""
    with target.open("wb") as out:
        held = b""
        for block in (*_blocks(path), None):
            whole = held + (block or b"")
            held = b"\r" if block is not None and whole.endswith(b"\r") else b""
            whole = whole[: len(whole) - len(held)]
            out.write(whole.replace(b"\r\n", b"\n").replace(b"\r", b" "))


def _unpack(path: pathlib.Path, target: pathlib.Path) -> str | None:
    try:
        with gzip.open(path) as packed, target.open("wb") as plain:
            while True:
                # read1 hands over what is there, so that nothing before a tear is lost.
                block = cast(BinaryIO, packed).read1(CHUNK)  # type: ignore[attr-defined]
                if not block:
                    return None
                plain.write(block)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        return f"gzip breaks off or is damaged ({error}); the rows before are read"


def _found_encoding(path: pathlib.Path, given: str | None) -> tuple[int, str]:
    """Length of the byte order mark, and the encoding."""
    with path.open("rb") as file:
        head = file.read(4096)
    for mark, name in _MARKS:
        if head.startswith(mark):
            return len(mark), name
    if given is not None:
        return 0, given
    pairs = len(head) // 2
    if pairs >= 8:
        if head[1::2].count(0) > 0.4 * pairs and head[0::2].count(0) < 0.1 * pairs:
            return 0, "utf-16-le"
        if head[0::2].count(0) > 0.4 * pairs and head[1::2].count(0) < 0.1 * pairs:
            return 0, "utf-16-be"
    if len(head.translate(None, _CONTROLS)) < 0.98 * len(head):
        raise UnreadableFileError(f"{path.name} holds binary data; expected text or Parquet")
    return 0, "utf-8" if _mostly_utf8(path) else "cp1252"


def _is_utf8(path: pathlib.Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for block in _blocks(path):
            decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _mostly_utf8(path: pathlib.Path) -> bool:
    """Whether lines beyond ASCII are UTF-8 rather than not; a file without any is."""
    good = bad = 0
    for block in _blocks(path):
        if block.isascii():
            continue
        for line in block.split(b"\n")[:-1] or [block]:
            if not line.isascii():
                good, bad = (good + 1, bad) if _decodes(line) else (good, bad + 1)
        if good + bad > 10_000:
            break
    return good >= bad


def _decodes(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _decode(path: pathlib.Path, target: pathlib.Path, encoding: str, mark: int) -> int:
    """Write a file as UTF-8; returns how many lines were not in its encoding."""
    name = encoding.lower().replace("_", "-")
    if name not in {"utf-8", "utf8", "ascii", "utf-8-sig", "cp1252", "windows-1252"}:
        return _recode(path, target, encoding, mark)
    western = utf8 = 0
    with target.open("wb") as out:
        rest = b""
        for block in (*_blocks(path, mark), None):
            whole, newline, rest = (rest + block).rpartition(b"\n") if block is not None else (rest, b"", b"")
            text, counts = _repair(whole + newline)
            western, utf8 = western + counts[0], utf8 + counts[1]
            out.write(text)
    return utf8 if "1252" in name else western


def _recode(path: pathlib.Path, target: pathlib.Path, encoding: str, mark: int) -> int:
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    lost = 0
    with target.open("wb") as out:
        for block in (*_blocks(path, mark), b""):
            text = decoder.decode(block, final=not block)
            lost += text.count("\ufffd")
            out.write(text.encode("utf-8", errors="replace"))
    return lost


def _repair(block: bytes) -> tuple[bytes, tuple[int, int]]:
    """The block as UTF-8, and how many lines beyond ASCII were Windows-1252 and UTF-8."""
    if block.isascii():
        return block, (0, 0)
    lines, western, utf8 = block.split(b"\n"), 0, 0
    for index, line in enumerate(lines):
        if line.isascii():
            continue
        if _decodes(line):
            utf8 += 1
        else:
            # The five bytes that Windows-1252 leaves open are control characters in Latin-1.
            lines[index], western = "".join(_WESTERN[byte] for byte in line).encode("utf-8"), western + 1
    return b"\n".join(lines), (western, utf8)


def _letter(byte: int) -> str:
    try:
        return bytes([byte]).decode("cp1252")
    except UnicodeDecodeError:
        return chr(byte)


_WESTERN = tuple(_letter(byte) for byte in range(256))


def _without_array(text: Text, work: pathlib.Path) -> Text:
    """Write a JSON array, or one object over many lines, as JSON lines, as far as it is whole."""
    with text.path.open("rb") as file:
        head = file.read(4096).lstrip()
    size = text.path.stat().st_size
    if not head.startswith((b"[", b"{")) or (head.startswith(b"{") and size > LARGEST_ARRAY):
        return text
    if size > LARGEST_ARRAY:
        raise UnreadableFileError(
            f"a JSON array of {size:,} bytes; expected at most {LARGEST_ARRAY:,}, or one JSON object a line"
        )
    truncated = text.truncated
    if head.startswith(b"{"):
        with text.path.open("rb") as file:
            if _is_json(file.readline()):
                first_only = not file.read(1024).strip()
                if not first_only:
                    return text
        content = text.path.read_bytes()
        if not _is_json(content):
            return text
        whole = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
        batch = whole.get("batch")
        elements = (
            [content] if batch is None or not bytes(batch).startswith(b"[") else _elements(bytes(batch))
        )
    else:
        content = text.path.read_bytes()
        try:
            elements = _elements(content)
        except msgspec.DecodeError as error:
            elements = list(_whole_elements(content.decode("utf-8")))
            truncated = truncated or f"the JSON array is damaged ({error}); the elements before are read"
    target = work / "elements"
    with target.open("wb") as out:
        for element in elements:
            line = msgspec.json.format(element, indent=-1) if _is_json(element) else element
            out.write(line.replace(b"\n", b" ") + b"\n")
    return dataclasses.replace(text, path=target, truncated=truncated, array=True)


def _elements(content: bytes) -> list[bytes]:
    return [bytes(raw) for raw in msgspec.json.decode(content, type=list[msgspec.Raw])]


def _is_json(content: bytes) -> bool:
    try:
        msgspec.json.decode(content)
    except msgspec.DecodeError:
        return False
    return True


def _whole_elements(content: str) -> Iterator[bytes]:
    """Elements of a damaged array up to the damage, and the rest as one broken element."""
    decoder = json.JSONDecoder()
    at = content.index("[") + 1
    while True:
        while at < len(content) and content[at] in " \t\r\n,":
            at += 1
        if at >= len(content) or content[at] == "]":
            return
        try:
            _, end = decoder.raw_decode(content, at)
        except json.JSONDecodeError:
            yield content[at:].encode()
            return
        yield content[at:end].encode()
        at = end


def _blocks(path: pathlib.Path, skip: int = 0) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(skip)
        while block := file.read(CHUNK):
            yield block
