"""Public sequence files as arrays: histories of users, or sessions with their test prefixes.

Four text layouts are told apart by their lines, gzipped or not; ids are whole numbers:
``users``     ``user item item ...``, one user a line, items in time order (Amazon, S3-Rec's form);
``sessions``  ``item item ...``, one session a line, oldest first (Diginetica, GCE-GNN's form);
``prefixes``  ``item item ... TAB next item``, one test request a line;
``events``    a header naming SessionId, ItemId and Time between tabs, one event a line (session-rec's form).

Belongs here: reading and checking files. Does not belong here: what is learned and asked (`protocol.py`).
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
import pathlib
from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Layout = Literal["users", "sessions", "prefixes", "events"]

HEADER = ("sessionid", "itemid", "time")
KNOWN = {
    "amazon-beauty": ("amazon-beauty.txt.gz", None, "amazon-beauty-item2attributes.json.gz"),
    "amazon-clothing": ("amazon-clothing.txt.gz", None, None),
    "diginetica": ("diginetica-train-sessions.txt.gz", "diginetica-test.txt.gz", None),
    "yoochoose": ("yoochoose-100k-train.tsv.gz", "yoochoose-100k-test.tsv.gz", None),
}
"""Name to training file, test file and item attributes in the folder of public sequences."""


class PublicSetError(ValueError):
    """A file that cannot be read; the message names file, line and what was expected."""


@dataclasses.dataclass(frozen=True, eq=False)
class Lists:
    """Lists of different lengths behind one another.

    Attributes:
        offsets: int64[N + 1] into ``items``.
        items: int64.
    """

    offsets: Ints
    items: Ints

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Ints:
        return self.items[self.offsets[row] : self.offsets[row + 1]]

    @property
    def sizes(self) -> Ints:
        """int64[N]."""
        return np.diff(self.offsets)

    def select(self, rows: npt.NDArray[np.integer]) -> Lists:
        """Some of the lists, in that order."""
        sizes = self.sizes[rows]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        places = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - self.offsets[rows], sizes)
        return Lists(offsets, self.items[places])


def lists_of(rows: list[list[int]]) -> Lists:
    """Lists from Python lists."""
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return Lists(offsets, np.array([item for row in rows for item in row], np.int64))


@dataclasses.dataclass(frozen=True, eq=False)
class PublicSet:
    """A public set with dense item ids 1 to V.

    Attributes:
        name: Of the set or the file.
        layout: ``users``, ``sessions`` or ``events``: what a list of ``lists`` is.
        raw: int64[V + 1], the file's own id of each item; row 0 is -1.
        lists: Histories of users, or training sessions oldest first.
        prefixes: Test requests' histories (sessions only); items that training lacks are 0.
        targets: int64, what followed each prefix, 0 where training lacks it; None for users.
        tags: int64[V + 1, M] attribute codes of each item from 1 on, padded with 0, or None.
        day: int64 of each list, days since 1970, or None where the file has no times.
    """

    name: str
    layout: Layout
    raw: Ints
    lists: Lists
    prefixes: Lists | None = None
    targets: Ints | None = None
    tags: Ints | None = None
    day: Ints | None = None

    @property
    def size(self) -> int:
        """V, the number of items."""
        return len(self.raw) - 1


def open_set(
    data: str,
    folder: pathlib.Path | None,
    test: pathlib.Path | None = None,
    attributes: pathlib.Path | None = None,
    layout: Layout | None = None,
) -> PublicSet:
    """A known set by name, or any file in one of the layouts.

    Args:
        data: Name in KNOWN, or a path.
        folder: Where the known sets lie.
        test: Test file of sessions; by default the file whose name has ``test`` for ``train``.
        attributes: JSON ``{item: [attribute, ...]}``.
        layout: Of the training file where its lines leave it open.

    Raises:
        PublicSetError: A file is missing or a line does not fit.
    """
    if data in KNOWN and folder is None:
        raise PublicSetError(
            f"'{data}' lies in the folder of public sequences; expected CONTINUUM_DATA to be set"
        )
    if data in KNOWN and folder is not None:
        names = KNOWN[data]
        path = folder / names[0]
        test = test or (folder / names[1] if names[1] else None)
        attributes = attributes or (folder / names[2] if names[2] else None)
    else:
        path = pathlib.Path(data)
        if not path.is_file():
            raise PublicSetError(f"'{data}' is no file; expected a file or one of {', '.join(KNOWN)}")
        test = test or _partner(path)
    name = data if data in KNOWN else path.name.split(".")[0]
    return read_set(name, path, test, attributes, layout)


def read_set(
    name: str,
    path: pathlib.Path,
    test: pathlib.Path | None = None,
    attributes: pathlib.Path | None = None,
    layout: Layout | None = None,
) -> PublicSet:
    """Read one set; see `open_set`.

    Raises:
        PublicSetError: A line does not fit, or sessions come as ``prefixes`` alone.
    """
    found = layout or detect(path)
    if found == "prefixes":
        raise PublicSetError(
            f"{path}: holds 'prefix TAB next' lines; expected the training file, with these as test"
        )
    if found == "users" and test is not None:
        raise PublicSetError(f"{path}: histories of users are split by leave-one-out; expected no test file")
    lists, day = read_users(path) if found == "users" else read_sessions(path, found)
    known = np.unique(lists.items)
    raw = np.concatenate([[-1], known])
    coded = Lists(lists.offsets, np.searchsorted(known, lists.items) + 1)
    prefixes, targets = (None, None) if test is None else _read_test(test, known)
    tags = None if attributes is None else read_attributes(attributes, raw)
    return PublicSet(name, found, raw, coded, prefixes, targets, tags, day)


def detect(path: pathlib.Path) -> Layout:
    """Tell the layout from the lines.

    Lines of one user each all begin with another number; sessions begin with items, which repeat.

    Raises:
        PublicSetError: The file is empty or unreadable.
    """
    firsts: set[str] = set()
    for number, line in _lines(path):
        if not firsts:
            names = tuple(part.strip().lower() for part in line.split("\t"))
            if all(name in names for name in HEADER):
                return "events"
            if any(name in names for name in HEADER):
                raise PublicSetError(
                    f"{path}:{number}: header {line!r}; expected SessionId, ItemId and Time between tabs"
                )
            if "\t" in line.strip():
                return "prefixes"
        first = line.split(maxsplit=1)[0]
        if first in firsts:
            return "sessions"
        firsts.add(first)
    return "users"


def read_users(path: pathlib.Path) -> tuple[Lists, None]:
    """Histories of ``user item item ...`` lines, in the file's order.

    Raises:
        PublicSetError: A line has no item, a number does not fit, or a user has two lines.
    """
    users: dict[int, int] = {}
    rows = []
    for number, line in _lines(path):
        user, *items = _numbers(path, number, line)
        if not items:
            raise PublicSetError(f"{path}:{number}: user {user} has no item; expected 'user item item ...'")
        if user in users:
            raise PublicSetError(
                f"{path}:{number}: user {user} has a line already, {users[user]}; expected one line a user"
            )
        users[user] = number
        rows.append(items)
    return lists_of(rows), None


def read_sessions(path: pathlib.Path, layout: Layout) -> tuple[Lists, Ints | None]:
    """Sessions of ``sessions`` or ``events`` lines, oldest first, with the day of each where there are times.

    Raises:
        PublicSetError: A line does not fit.
    """
    if layout == "events":
        return _read_events(path)
    return lists_of([_numbers(path, number, line) for number, line in _lines(path)]), None


def _read_events(path: pathlib.Path) -> tuple[Lists, Ints]:
    lines = _lines(path)
    _, header = next(lines)
    names = [part.strip().lower() for part in header.split("\t")]
    if not all(name in names for name in HEADER):
        raise PublicSetError(f"{path}:1: header {header!r}; expected SessionId, ItemId and Time between tabs")
    where = [names.index(name) for name in HEADER]
    session, item, time = [], [], []
    for number, line in lines:
        parts = line.split("\t")
        if len(parts) != len(names):
            raise PublicSetError(f"{path}:{number}: {len(parts)} fields; expected {len(names)} between tabs")
        session.append(_whole(path, number, parts[where[0]]))
        item.append(_whole(path, number, parts[where[1]]))
        time.append(_moment(path, number, parts[where[2]]))
    if not session:
        raise PublicSetError(f"{path}: only a header; expected events below it")
    at, sessions = np.array(time), np.array(session, np.int64)
    order = np.lexsort((np.arange(len(at)), at, sessions))
    ids, first = np.unique(sessions[order], return_index=True)
    offsets = np.append(first, len(order)).astype(np.int64)
    lists = Lists(offsets, np.array(item, np.int64)[order])
    begun = at[order][first]
    by_time = np.lexsort((ids, begun))
    return lists.select(by_time), (begun[by_time] // 86_400).astype(np.int64)


def _read_test(path: pathlib.Path, known: Ints) -> tuple[Lists, Ints]:
    """Prefixes and what followed; whole sessions give one request for each item after the first."""
    layout = detect(path)
    rows, targets = [], []
    if layout == "prefixes":
        for number, line in _lines(path):
            parts = line.split("\t")
            if len(parts) != 2:
                raise PublicSetError(
                    f"{path}:{number}: {len(parts) - 1} tabs; expected 'item item ... TAB next item'"
                )
            history, after = (_numbers(path, number, part) for part in parts)
            if len(after) != 1:
                raise PublicSetError(f"{path}:{number}: {len(after)} items after the tab; expected one")
            rows.append(history)
            targets.append(after[0])
        prefixes, following = lists_of(rows), np.array(targets, np.int64)
    else:
        sessions, _ = read_sessions(path, "events" if layout == "events" else "sessions")
        prefixes, following = prefixes_of(sessions)
    if not len(following):
        raise PublicSetError(f"{path}: no session has two items; expected some to ask about")
    return Lists(prefixes.offsets, _code(prefixes.items, known)), _code(following, known)


def prefixes_of(sessions: Lists) -> tuple[Lists, Ints]:
    """Every beginning of every session, and the item that followed it."""
    rows = np.repeat(np.arange(len(sessions)), np.maximum(sessions.sizes - 1, 0))
    nth = np.arange(len(rows)) - np.searchsorted(rows, rows)
    sizes = nth + 1
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    begun = sessions.offsets[rows]
    places = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - begun, sizes)
    return Lists(offsets, sessions.items[places]), sessions.items[begun + sizes]


def read_attributes(path: pathlib.Path, raw: Ints) -> Ints:
    """Attribute codes int64[V + 1, M] from JSON ``{item: [attribute, ...]}``; items without stay empty.

    Raises:
        PublicSetError: The file is no such object, or names no item of the set.
    """
    try:
        found = json.loads(_read(path))
        pairs = [(int(item), int(value)) for item, values in found.items() for value in values]
    except (ValueError, AttributeError, TypeError) as error:
        raise PublicSetError(
            f"{path}: {error}; expected JSON {{item: [attribute, ...]}} of whole numbers"
        ) from error
    ids = np.array([item for item, _ in pairs], np.int64)
    values = np.array([value for _, value in pairs], np.int64)
    code = _code(ids, raw[1:])
    keep = code > 0
    if not keep.any():
        raise PublicSetError(f"{path}: names no item of the set; expected its items as keys")
    order = np.argsort(code[keep], kind="stable")
    rows, column = code[keep][order], np.unique(values, return_inverse=True)[1][keep][order] + 1
    nth = np.arange(len(rows)) - np.searchsorted(rows, rows)
    tags = np.zeros((len(raw), int(nth.max()) + 1), np.int64)
    tags[rows, nth] = column
    return tags


def _code(items: Ints, known: Ints) -> Ints:
    """Dense ids from 1 on, 0 for what is not known."""
    place = np.minimum(np.searchsorted(known, items), len(known) - 1)
    return np.where(known[place] == items, place + 1, 0).astype(np.int64)


def _partner(path: pathlib.Path) -> pathlib.Path | None:
    for old, new in (("train-sessions", "test"), ("train", "test")):
        other = path.with_name(path.name.replace(old, new))
        if old in path.name and other.is_file():
            return other
    return None


def _read(path: pathlib.Path) -> str:
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode()
    except OSError as error:
        raise PublicSetError(
            f"{path}: {error.strerror or error}; expected a text file, gzipped or not"
        ) from error
    except (EOFError, UnicodeDecodeError) as error:
        raise PublicSetError(f"{path}: {error}; expected UTF-8 text, gzipped or not") from error


def _lines(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Number and text of each line that is not blank."""
    empty = True
    for number, line in enumerate(_read(path).splitlines(), 1):
        if line.strip():
            empty = False
            yield number, line
    if empty:
        raise PublicSetError(f"{path}: is empty; expected lines of whole numbers")


def _numbers(path: pathlib.Path, number: int, line: str) -> list[int]:
    parts = line.split()
    if not parts:
        raise PublicSetError(f"{path}:{number}: nothing before or after the tab; expected whole numbers")
    return [_whole(path, number, part) for part in parts]


def _whole(path: pathlib.Path, number: int, text: str) -> int:
    if not text.strip().isascii() or not text.strip().isdigit() or len(text.strip()) > 18:
        raise PublicSetError(f"{path}:{number}: {text!r}; expected a whole number of 0 or more")
    return int(text)


def _moment(path: pathlib.Path, number: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise PublicSetError(f"{path}:{number}: time {text!r}; expected seconds since 1970")
    return value
