"""Picture sets of every known layout as one type: rows with labels and boxes, and bytes by key.

A folder holds its photos as one zip, read in place, or as a folder of files. Labels have the same names in all
layouts (`LABELS`). ``Picture.split`` is ``test`` for the part that a protocol names for reporting and ``train``
for all else: choose on a part that you cut from ``train``, report on ``test``.

Belongs here: layouts, labels, splits. Does not belong here: decoding (`decode.py`), classes (`classes.py`), what
a shop does with its pictures (`orchestration`).
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import os
import pathlib
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from training.config import ConfigError

LABELS = (
    "type", "colour", "pattern", "gender", "usage", "season", "name", "category", "department", "brand",
    "product_id", "description",
)  # fmt: skip
"""Names of labels; a layout gives those that it knows."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
"""What a file of a plain folder has to be called to be taken for a picture."""

Split = Literal["train", "test"]


class PictureSetError(ConfigError):
    """A folder that is not in its layout; the message names the file and what was expected."""


@dataclasses.dataclass(frozen=True, slots=True)
class Box:
    """One item in a picture.

    Attributes:
        label: What it is, in the layout's words.
        left: Fractions of the picture's width and height, as are
        top: all
        right: of
        bottom: these.
        product_id: Which product it is, where known.
    """

    label: str
    left: float
    top: float
    right: float
    bottom: float
    product_id: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """One picture.

    Attributes:
        key: Unique in its set; `PictureSet.read` takes it.
        labels: See `LABELS`; empty values are left out.
        split: ``test`` is for reporting only.
        boxes: Known items; none where a layout has no boxes.
    """

    key: str
    labels: Mapping[str, str]
    split: Split
    boxes: tuple[Box, ...] = ()


class Files:
    """Files of a zip or a folder by name; safe in threads and in forked workers."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self._local = threading.local()
        self._names: frozenset[str] | None = None

    def names(self) -> frozenset[str]:
        """All names, relative, with forward slashes."""
        if self._names is None:
            if self.path.is_dir():
                found = (p for p in self.path.rglob("*") if p.is_file())
                self._names = frozenset(p.relative_to(self.path).as_posix() for p in found)
            else:
                self._names = frozenset(self._zip().namelist())
        return self._names

    def read(self, name: str) -> bytes:
        """Content of one file.

        Raises:
            KeyError: There is no such file.
        """
        if self.path.is_dir():
            target = (self.path / name).resolve()
            if not target.is_relative_to(self.path.resolve()) or not target.is_file():
                raise KeyError(f"{self.path.name} has no file '{name}'")
            return target.read_bytes()
        return self._zip().read(name)

    def _zip(self) -> zipfile.ZipFile:
        held = getattr(self._local, "held", None)
        if held is None or held[0] != os.getpid():
            try:
                held = (os.getpid(), zipfile.ZipFile(self.path))
            except (OSError, zipfile.BadZipFile) as error:
                raise PictureSetError(f"{self.path}: {error}; expected a zip of pictures") from error
            self._local.held = held
        return held[1]

    def __getstate__(self) -> pathlib.Path:
        return self.path

    def __setstate__(self, path: pathlib.Path) -> None:
        Files.__init__(self, path)


class PictureSet:
    """Pictures of one layout.

    Attributes:
        layout: Its name.
        rows: What is known of each, in the layout's order.
    """

    def __init__(
        self,
        layout: str,
        rows: list[Picture],
        reader: Callable[[str], bytes],
        masks: Callable[[str], bytes] | None = None,
    ) -> None:
        self.layout = layout
        self.rows = rows
        self._reader = reader
        self._masks = masks

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, key: str) -> bytes:
        """Bytes of a picture.

        Raises:
            KeyError: The table names it but there is no such file.
        """
        return self._reader(key)

    def read_mask(self, key: str) -> bytes:
        """Bytes of the picture's mask (PNG, value = index of a label) where the layout has masks.

        Raises:
            KeyError: There is none.
        """
        if self._masks is None:
            raise KeyError(f"layout '{self.layout}' has no masks")
        return self._masks(key)

    def part(self, split: Split) -> list[Picture]:
        """Rows of one split."""
        return [row for row in self.rows if row.split == split]


def open_pictures(layout: str, root: pathlib.Path, options: Mapping[str, str] | None = None) -> PictureSet:
    """Open a folder of pictures.

    Args:
        layout: One of `LAYOUTS`.
        root: The folder; for ``hub`` the name of a data set, or a folder with its Parquet files.
        options: Of the layouts ``table`` and ``hub``; see `training/visual/own_pictures.py`.

    Raises:
        PictureSetError: The layout is unknown, or the folder is not in it.
    """
    if layout not in LAYOUTS:
        raise PictureSetError(f"layout is '{layout}'; expected one of: {', '.join(LAYOUTS)}")
    return LAYOUTS[layout](root, dict(options or {}))


def find_files(root: pathlib.Path, *names: str) -> Files:
    """The first of some zips or folders that exists below a root.

    Raises:
        PictureSetError: None does.
    """
    for name in names:
        if (root / name).exists():
            return Files(root / name)
    raise PictureSetError(f"{root}: no {' or '.join(names)}; expected the pictures there")


def read_table(root: pathlib.Path, *names: str, columns: tuple[str, ...] = ()) -> Iterator[dict[str, str]]:
    """Rows of the first of some CSV files (``.gz`` too) that exists below a root.

    Raises:
        PictureSetError: None does, it cannot be read, or a column is missing.
    """
    path = next((root / name for name in names if (root / name).is_file()), None)
    if path is None:
        raise PictureSetError(f"{root}: no {' or '.join(names)}; expected the table of labels there")
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        reader = csv.DictReader(io.StringIO(raw.decode("utf-8-sig"), newline=""))
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise PictureSetError(
                f"{path.name} has no column {', '.join(missing)}; expected it in the header"
            )
        # Rows that run on (unquoted commas) keep what fits the header.
        yield from ({k: v or "" for k, v in row.items() if k is not None} for row in reader)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise PictureSetError(f"{path}: {error}; expected a CSV file in UTF-8") from error


def known(labels: Mapping[str, str | None]) -> dict[str, str]:
    """Labels without the empty ones."""
    return {
        name: value.strip() for name, value in labels.items() if value and value.strip() not in ("NA", "nan")
    }


def _fashion_products(root: pathlib.Path, options: dict[str, str]) -> PictureSet:
    """``photos.zip`` (or ``images/``) with ``<id>.jpg``, ``styles.csv.gz``; reported on ``id % 10 == 1``."""
    files = find_files(root, "photos.zip", "photos", "images")
    rows = []
    for row in read_table(root, "styles.csv.gz", "styles.csv", columns=("id", "articleType", "baseColour")):
        labels = known({
            "type": row["articleType"], "colour": row["baseColour"], "gender": row.get("gender"),
            "usage": row.get("usage"), "season": row.get("season"), "name": row.get("productDisplayName"),
            "category": row.get("subCategory"), "department": row.get("masterCategory"), "product_id": row["id"],
        })  # fmt: skip
        reported = row["id"].isdigit() and int(row["id"]) % 10 == 1
        rows.append(Picture(row["id"], labels, "test" if reported else "train"))
    return PictureSet("fashion-products", rows, lambda key: files.read(f"{key}.jpg"))


def _drawn(root: pathlib.Path, options: dict[str, str]) -> PictureSet:
    """The drawn catalogue: ``photos.zip`` with ``<product_id>.jpg``, ``attributes.csv`` with a column per label.

    Every tenth product, by its number, is for reporting.
    """
    files = find_files(root, "photos.zip")
    rows = []
    for place, row in enumerate(read_table(root, "attributes.csv", columns=("product_id", "type", "colour"))):
        rows.append(Picture(row["product_id"], known(row), "test" if place % 10 == 1 else "train"))
    return PictureSet("drawn", rows, lambda key: files.read(f"{key}.jpg"))


def _drawn_looks(root: pathlib.Path, options: dict[str, str]) -> PictureSet:
    """Composed looks: ``looks.zip`` and ``boxes.csv`` in pixels of ``side`` (448); every fifth is for reporting."""
    files = find_files(root, "looks.zip")
    side = float(options.get("side", "448"))
    columns = ("file", "product_id", "type", "left", "top", "right", "bottom")
    found: dict[str, list[Box]] = {}
    for row in read_table(root, "boxes.csv", columns=columns):
        edges = [float(row[name]) / side for name in columns[3:]]
        found.setdefault(row["file"], []).append(Box(row["type"], *edges, row["product_id"]))
    rows = [
        Picture(name, {}, "test" if place % 5 == 4 else "train", tuple(boxes))
        for place, (name, boxes) in enumerate(sorted(found.items()))
    ]
    return PictureSet("drawn-looks", rows, files.read)


def _street_looks(root: pathlib.Path, options: dict[str, str]) -> PictureSet:
    """``photos.zip`` and ``masks.zip`` with ``NNNN``; reported on 0701 to 0800. Boxes come from the masks."""
    photos, masks = find_files(root, "photos.zip", "photos"), find_files(root, "masks.zip", "masks")
    keys = sorted(name.removesuffix(".jpg") for name in photos.names() if name.endswith(".jpg"))
    rows = [Picture(key, {}, "test" if key >= "0701" else "train") for key in keys]
    return PictureSet(
        "street-looks",
        rows,
        lambda key: photos.read(f"{key}.jpg"),
        lambda key: masks.read(f"{key}.png"),
    )


def _phone_photos(root: pathlib.Path, options: dict[str, str]) -> PictureSet:
    """``photos.zip``, ``labels.csv`` (file, split, label); reported on the split ``validation``."""
    files = find_files(root, "photos.zip", "photos")
    table = read_table(root, "labels.csv", columns=("file", "split", "label"))
    rows = [
        Picture(row["file"], {"type": row["label"]}, "test" if row["split"] == "validation" else "train")
        for row in table
    ]
    return PictureSet("phone-photos", rows, files.read)


def grocery_classes(root: pathlib.Path) -> dict[str, dict[str, str]]:
    """Labels of each grocery class by its number; ``product_id`` is that number."""
    columns = ("class_id", "class_name", "coarse_name", "iconic_file", "description")
    return {
        row["class_id"]: {
            "type": row["class_name"], "category": row["coarse_name"], "product_id": row["class_id"],
            "name": row["class_name"].replace("-", " "), "description": row["description"],
        }
        for row in read_table(root, "classes.csv", columns=columns)
    }  # fmt: skip


def _grocery_photos(root: pathlib.Path, options: dict[str, str]) -> PictureSet:
    """Photos taken in shops: ``photos.zip``, ``labels.csv``; reported on the split ``val``."""
    files, classes = find_files(root, "photos.zip", "photos"), grocery_classes(root)
    rows = []
    for row in read_table(root, "labels.csv", columns=("file", "split", "class_id")):
        if row["class_id"] not in classes:
            raise PictureSetError(f"labels.csv names class {row['class_id']}; expected one of classes.csv")
        rows.append(
            Picture(row["file"], classes[row["class_id"]], "test" if row["split"] == "val" else "train")
        )
    return PictureSet("grocery-photos", rows, files.read)


def _grocery_catalogue(root: pathlib.Path, options: dict[str, str]) -> PictureSet:
    """The grocer's catalogue: ``iconic.zip``, one picture per class, keys are class numbers."""
    files = find_files(root, "iconic.zip", "iconic")
    rows = [Picture(number, labels, "train") for number, labels in grocery_classes(root).items()]
    return PictureSet("grocery-catalogue", rows, lambda key: files.read(f"{key}.jpg"))


def _folder(root: pathlib.Path, options: dict[str, str]) -> PictureSet:
    """A folder or zip of pictures of which nothing is known."""
    if not root.exists():
        raise PictureSetError(f"{root} does not exist; expected a folder or zip of pictures")
    files = Files(root)
    names = sorted(name for name in files.names() if name.lower().endswith(SUFFIXES))
    return PictureSet("folder", [Picture(name, {}, "train") for name in names], files.read)


def _table(root: pathlib.Path, options: dict[str, str]) -> PictureSet:
    from training.visual.own_pictures import open_table

    return open_table(root, options)


def _hub(root: pathlib.Path, options: dict[str, str]) -> PictureSet:
    from training.visual.own_pictures import open_hub

    return open_hub(str(root), options)


LAYOUTS: dict[str, Callable[[pathlib.Path, dict[str, str]], PictureSet]] = {
    "fashion-products": _fashion_products,
    "grocery-photos": _grocery_photos,
    "grocery-catalogue": _grocery_catalogue,
    "phone-photos": _phone_photos,
    "street-looks": _street_looks,
    "drawn": _drawn,
    "drawn-looks": _drawn_looks,
    "folder": _folder,
    "table": _table,
    "hub": _hub,
}
"""Layout -> what opens it."""
