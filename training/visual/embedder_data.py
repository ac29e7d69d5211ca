"""From picture sets to what the embedder learns from: squares of pixels, labels as numbers, splits.

Decoded squares are kept in ``<home>/cache/pictures`` under a hash of the source, so that a second training
starts at once.

Belongs here: reading, labels, splits, the cache. Does not belong here: layouts (`pictures.py`), random views
(`augment.py`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from training.config import ConfigError
from training.visual.config import EmbedderParams, Source
from training.visual.decode import Box as Area
from training.visual.decode import PictureError, crop, decode
from training.visual.pictures import PictureSet, open_pictures

LEARN, VALIDATE, TEST = 0, 1, 2
MOST_BROKEN = 0.05
"""Share of unreadable pictures above which a source is refused."""

Progress = Callable[[str], None]
Pixels = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


class Row(NamedTuple):
    """One square: a picture or one box of it."""

    key: str
    box: Area | None
    labels: dict[str, str]
    product_id: str
    test: bool


@dataclasses.dataclass(frozen=True)
class Samples:
    """All pictures of all sources.

    Attributes:
        sources: Their names.
        squares: uint8[n, S, S, 3] of each source.
        keys: Of each row.
        source: int64[N], which source a row is of; rows of a source are consecutive.
        split: int64[N]: LEARN, VALIDATE or TEST.
        labels: int64[N] by label, -1 where unknown.
        values: Text of each number by label; those to learn from come first.
        learned: How many of the values occur in rows to learn from.
        repeat: int64[N].
        jitter: float32[N].
        digest: Hash over everything that was read.
    """

    sources: tuple[str, ...]
    squares: tuple[Pixels, ...]
    keys: tuple[str, ...]
    source: Ints
    split: Ints
    labels: dict[str, Ints]
    values: dict[str, tuple[str, ...]]
    learned: dict[str, int]
    repeat: Ints
    jitter: npt.NDArray[np.float32]
    digest: str

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: Ints) -> Pixels:
        """uint8[R, S, S, 3] of some rows."""
        side = self.squares[0].shape[1]
        out = np.empty((len(rows), side, side, 3), np.uint8)
        source = self.source[rows]
        for number, squares in enumerate(self.squares):
            here = np.flatnonzero(source == number)
            if len(here):
                out[here] = squares[rows[here] - np.searchsorted(self.source, number)]
        return out

    def of(self, source: str) -> Ints:
        """Rows of a source."""
        return np.flatnonzero(self.source == self.sources.index(source))

    def joint(self, names: Sequence[str]) -> tuple[Ints, tuple[str, ...]]:
        """Combination of some labels as one: int64[N] (-1 where one is unknown) and the texts."""
        columns = np.stack([self.labels[name] for name in names], 1)
        codes = np.full(len(self), -1, np.int64)
        whole = np.flatnonzero((columns >= 0).all(1))
        distinct, at = np.unique(columns[whole], axis=0, return_inverse=True)
        codes[whole] = at.ravel()
        texts = (
            " ".join(self.values[name][value] for name, value in zip(names, row, strict=True))
            for row in distinct.tolist()
        )
        return codes, tuple(texts)


def read_samples(
    sources: Sequence[Source],
    params: EmbedderParams,
    home: pathlib.Path,
    seed: int,
    progress: Progress = lambda line: None,
) -> Samples:
    """Read all sources.

    A picture whose product is in the test part of one source is in it everywhere, and so with validation.

    Raises:
        ConfigError: A source is not in its layout, too many of its pictures are broken, or nothing is left
            to learn from.
    """
    rows: list[list[Row]] = []
    squares: list[Pixels] = []
    digests = []
    for source in sources:
        pictures = open_pictures(source.layout, pathlib.Path(source.root), source.options)
        found, digest, pixels = _load(source, pictures, params, home, progress)
        rows.append(found)
        squares.append(pixels)
        digests.append(digest)
    flat = [row for some in rows for row in some]
    number = np.repeat(np.arange(len(rows)), [len(some) for some in rows])
    known: dict[str, dict[str, str]] = {}
    tested: set[str] = set()
    for row in flat:
        if row.product_id:
            known.setdefault(row.product_id, {}).update(row.labels)
            if row.test and row.box is None:
                tested.add(row.product_id)
    labels = [{**known.get(row.product_id, {}), **row.labels} for row in flat]
    split = np.array([TEST if row.test or row.product_id in tested else LEARN for row in flat], np.int64)
    learns = np.array([source.learn for source in sources])[number]
    for at, source in enumerate(sources):
        here = np.flatnonzero((number == at) & (split == LEARN))
        if source.validate and source.aside == "hashed":
            kept_aside = [
                _share(flat[row].product_id or flat[row].key, seed) < params.validation for row in here
            ]
            split[here[np.array(kept_aside, bool)]] = VALIDATE
        elif source.validate:
            split[_last(here, [labels[row].get(next(iter(source.labels)), "") for row in here], params)] = (
                VALIDATE
            )
    if not (learns & (split == LEARN)).any():
        raise ConfigError("`$.sources` leave no picture to learn from; expected rows of the split train")
    names = sorted({label for source in sources for label in source.labels})
    codes, values, learned = _encode(labels, names, (split == LEARN) & learns)
    return Samples(
        sources=tuple(source.name for source in sources), squares=tuple(squares),
        keys=tuple(row.key for row in flat), source=number, split=split, labels=codes, values=values,
        learned=learned, repeat=np.array([source.repeat for source in sources])[number] * learns,
        jitter=np.array([source.jitter for source in sources], np.float32)[number],
        digest=hashlib.sha256("".join(digests).encode()).hexdigest(),
    )  # fmt: skip


def _last(rows: Ints, classes: Sequence[str], params: EmbedderParams) -> Ints:
    """The last rows of each class."""
    named, out = np.array(classes), [np.zeros(0, np.int64)]
    for name in sorted(set(classes)):
        own = rows[named == name]
        out.append(own[len(own) - round(params.validation * len(own)) :])
    return np.concatenate(out)


def _share(text: str, seed: int) -> float:
    """A number in 0..1 that depends on nothing but text and seed."""
    return int.from_bytes(hashlib.sha256(f"{seed} {text}".encode()).digest()[:6], "big") / 2**48


def _encode(
    labels: list[dict[str, str]], names: Sequence[str], learn: npt.NDArray[np.bool_]
) -> tuple[dict[str, Ints], dict[str, tuple[str, ...]], dict[str, int]]:
    codes, values, learned = {}, {}, {}
    for name in names:
        texts = [row.get(name, "") for row in labels]
        first = sorted({text for text, use in zip(texts, learn, strict=True) if use and text})
        rest = sorted({text for text in texts if text} - set(first))
        values[name], learned[name] = (*first, *rest), len(first)
        number = {text: at for at, text in enumerate(values[name])}
        codes[name] = np.array([number.get(text, -1) for text in texts], np.int64)
    return codes, values, learned


def _rows(source: Source, pictures: PictureSet) -> list[Row]:
    rows = []
    for picture in pictures.rows:
        items: list[tuple[Area | None, dict[str, str]]] = [(None, dict(picture.labels))]
        if source.boxes:
            items = [
                ((box.left, box.top, box.right, box.bottom),
                 {**picture.labels, "type": box.label, "product_id": box.product_id})
                for box in picture.boxes
            ]  # fmt: skip
        for box, given in items:
            labels = {}
            for label, column in source.labels.items():
                value = given.get(column, "")
                if label in source.rename:
                    value = source.rename[label].get(value, "")
                if value:
                    labels[label] = value
            rows.append(Row(picture.key, box, labels, labels.get("product_id", ""), picture.split == "test"))
    return rows


def _load(
    source: Source, pictures: PictureSet, params: EmbedderParams, home: pathlib.Path, progress: Progress
) -> tuple[list[Row], str, Pixels]:
    """Rows, a hash of what they are, and their squares: from the cache or decoded."""
    rows = _rows(source, pictures)
    root = pathlib.Path(source.root)
    files = sorted(root.iterdir()) if root.is_dir() else []
    stamp = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    told = [source.layout, source.root, source.options, stamp, params.size, params.letterbox,
            [(row.key, row.box, params.box_margin if row.box else 0) for row in rows]]  # fmt: skip
    digest = hashlib.sha256(msgspec.json.encode(told)).hexdigest()
    folder = home / "cache" / "pictures"
    path, broken_path = folder / f"{digest[:24]}.npy", folder / f"{digest[:24]}.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        broken = _decode(rows, pictures, params, path, progress, source.name)
        broken_path.write_bytes(msgspec.json.encode(broken))
    broken = set(msgspec.json.decode(broken_path.read_bytes(), type=list[int]))
    if len(broken) > MOST_BROKEN * len(rows):
        raise ConfigError(
            f"source '{source.name}': {len(broken)} of {len(rows)} pictures cannot be read; "
            f"expected at most {MOST_BROKEN:.0%}"
        )
    squares = np.load(path, mmap_mode="r")
    if not broken:
        return rows, digest, squares
    keep = np.array([at for at in range(len(rows)) if at not in broken])
    progress(f"{source.name}: {len(broken)} broken pictures left out")
    return [rows[at] for at in keep], digest, squares[keep]


def _decode(
    rows: Sequence[Row],
    pictures: PictureSet,
    params: EmbedderParams,
    path: pathlib.Path,
    progress: Progress,
    name: str,
) -> list[int]:
    """Write the squares of all rows; returns the numbers of those that cannot be read."""
    size = params.size
    staged = path.with_suffix(".tmp.npy")
    out = np.lib.format.open_memmap(staged, "w+", np.uint8, (len(rows), size, size, 3))
    broken: list[int] = []
    last, image = "", None
    for at, row in enumerate(rows):
        try:
            if row.key != last or image is None:
                last, image = row.key, decode(pictures.read(row.key), 0 if row.box else size)
            out[at] = crop(image, row.box, size, params.box_margin, params.letterbox)
        except (PictureError, KeyError):
            broken.append(at)
            image = None
        if (at + 1) % 2000 == 0:
            progress(f"{name}: {at + 1} of {len(rows)} pictures decoded")
    out.flush()
    del out
    staged.rename(path)
    return broken
