"""The catalogue of pictures: every picture read once, what is wrong with it, what it repeats, and its thumbnail.

Belongs here: the table and the thumbnails. Does not belong here: decoding, hashing (`training/visual`).
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.retailer import Retailer
from contracts.settings import Settings
from contracts.visual import MEDIA_NAME, WHOLE, media_path
from orchestration.visual import belonging, facts, sets

if TYPE_CHECKING:
    from PIL import Image

    from training.visual.pictures import PictureSet

TABLE = pa.schema([
    ("key", pa.string()),  # what the index is keyed by: a product, or a class of products
    ("picture", pa.string()), ("class", pa.string()), ("type", pa.string()), ("colour", pa.string()),
    ("name", pa.string()), ("sha256", pa.string()), ("width", pa.int32()), ("height", pa.int32()),
    ("hash", pa.uint64()), ("sketch", pa.binary()), ("problem", pa.string()), ("repeats", pa.string()),
    ("answers", pa.list_(pa.string())),
])  # fmt: skip
TABLE_FILE = "pictures.parquet"
LOOKS_TABLE_FILE = "looks.json"
THUMBNAIL = 320
LOOK_SIDE = 960
QUALITY = 85

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Catalogue:
    """What became of the shop's pictures.

    Attributes:
        table: See `TABLE`; one row per product (or class) that has a picture, readable or not.
        problems: How many pictures have which problem.
        missing: Goods that can be sold and have no picture.
        drawn: Whether pictures are drawn.
        looks: Looks that are shown.
        decoded: Pictures that were decoded now (the others were known already).
    """

    table: pa.Table
    problems: dict[str, int]
    missing: list[str]
    drawn: bool
    looks: list[str]
    decoded: int

    @property
    def repeated(self) -> int:
        """Pictures that show what an earlier one shows."""
        return sum(1 for value in self.table["repeats"].to_pylist() if value)


def collect(settings: Settings, retailer: Retailer, progress: Progress = lambda line: None) -> Catalogue:
    """Read every picture of the shop, write thumbnails and the table.

    Raises:
        ValueError: The shop has no pictures here.
        PictureSetError: A folder is not in its layout.
    """
    pictures = sets.pictures_of(retailer.pictures)
    products = facts.products(settings)
    if pictures.layout == "drawn" and sets.draw(settings, pictures, facts.product_rows(settings)):
        progress("pictures: drawn")
    opened = sets.open_products(settings, pictures)
    rows, missing = _belonging(pictures.belongs, pictures.types, opened, products)
    known = {row["key"]: row for row in (read(settings).to_pylist() if _path(settings).is_file() else [])}
    settings.media.mkdir(parents=True, exist_ok=True)
    decoded = 0
    for number, row in enumerate(rows):
        decoded += _look_at(settings, opened, row, known.get(row["key"], {}))
        if (number + 1) % 2000 == 0:
            progress(f"pictures: {number + 1:,} of {len(rows):,} read")
    _find_repeats(rows)
    table = pa.Table.from_pylist(rows, TABLE)
    _replace(_path(settings), lambda path: pq.write_table(table, path))
    problems = dict(Counter(row["problem"] for row in rows if row["problem"]))
    looks = _collect_looks(settings, retailer)
    _forget(settings, {row["key"] for row in rows if not row["problem"]}, set(looks))
    return Catalogue(table, problems, missing, pictures.layout == "drawn", looks, decoded)


def read(settings: Settings) -> pa.Table:
    """The catalogue as last collected.

    Raises:
        FileNotFoundError: It was not collected yet.
    """
    if not _path(settings).is_file():
        raise FileNotFoundError(
            "the shop's pictures were not collected yet; expected the asset `visual/pictures` first"
        )
    return pq.read_table(_path(settings))


def usable(settings: Settings) -> list[dict[str, Any]]:
    """Rows whose picture can be read, without hashes."""
    table = read(settings).drop_columns(["hash", "sketch"])
    return [row for row in table.to_pylist() if not row["problem"]]


def looks(settings: Settings) -> dict[str, str]:
    """Media id -> key of each look that is shown."""
    path = settings.visual / LOOKS_TABLE_FILE
    found: dict[str, str] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def thumbnail(image: Image.Image, path: pathlib.Path, side: int) -> None:
    """Write a picture, made small enough, as JPEG; it appears whole or not at all."""
    small = image.copy()
    small.thumbnail((side, side))
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, lambda staged: small.save(staged, "JPEG", quality=QUALITY))


def _path(settings: Settings) -> pathlib.Path:
    return settings.visual / TABLE_FILE


def _replace(path: pathlib.Path, write: Callable[[pathlib.Path], Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{uuid.uuid4().hex}")
    write(staged)
    staged.replace(path)


def _belonging(
    way: str, types: str, opened: PictureSet, products: list[facts.Product]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of the table before any picture is read, and products without a picture."""
    from training.visual.kinds import class_of

    labels = {picture.key: picture.labels for picture in opened.rows}

    def row(key: str, picture: str, told: Mapping[str, str], name: str, answers: list[str]) -> dict[str, Any]:
        return {
            "key": key, "picture": picture, "class": class_of(told), "type": told.get("type", ""),
            "colour": told.get("colour", ""), "name": name, "answers": answers, "problem": "", "repeats": "",
        }  # fmt: skip

    if way == "type":
        by_class = {kind.class_id: kind for kind in belonging.read_types(pathlib.Path(types))}
        every = [product.row() for product in products]
        popular = {product.product_id: product.bought for product in products}
        rows = []
        for picture in opened.rows:
            kind = by_class.get(picture.labels["product_id"])
            if kind is None:
                continue
            found = belonging.products_of(kind, every)
            found.sort(key=lambda product: (-popular[product], product))
            told = {"type": kind.type, "class": WHOLE}  # A photo is one item there, whatever its words say.
            rows.append(row(kind.class_name, picture.key, told, picture.labels["name"], found))
        return rows, []
    every = [product.row() for product in products if product.good]
    found = belonging.by_id(opened.rows, every) if way == "id" else belonging.alike(opened.rows, every)
    by_id = {product.product_id: product for product in products}
    rows = []
    for product_id, picture in sorted(found.items()):
        product = by_id[product_id]
        own = {"type": product.type, "category": product.category, "colour": product.colour}
        merged = {**own, **({k: v for k, v in labels[picture].items() if k in ("colour", "class")})}
        rows.append(row(product_id, picture, merged, product.name, [product_id]))
    missing = [
        str(item["product_id"]) for item in every if item["sellable"] and item["product_id"] not in found
    ]
    return rows, missing


def _look_at(settings: Settings, opened: PictureSet, row: dict[str, Any], before: Mapping[str, Any]) -> int:
    """Fill in what the picture says; returns 1 if it was decoded, 0 if it is as it was."""
    from training.visual.decode import PictureError, decode
    from training.visual.duplicates import fingerprint

    row |= {"sha256": "", "width": 0, "height": 0, "hash": 0, "sketch": b""}
    if not MEDIA_NAME.fullmatch(row["key"]):
        row["problem"] = "name"  # It could not be a file's or an address's name.
        return 0
    try:
        raw = opened.read(row["picture"])
    except KeyError:
        row["problem"] = "missing file"
        return 0
    row["sha256"] = hashlib.sha256(raw).hexdigest()
    path = media_path(settings.home, row["key"])
    if before.get("sha256") == row["sha256"] and not before["problem"] and path.is_file():
        row |= {name: before[name] for name in ("width", "height", "hash", "sketch")}
        return 0
    try:
        image = decode(raw)
    except PictureError as error:
        row["problem"] = error.reason
        return 1
    print_ = fingerprint(image)
    row |= {
        "width": image.width,
        "height": image.height,
        "hash": print_.hash,
        "sketch": print_.sketch.tobytes(),
    }
    thumbnail(image, path, THUMBNAIL)
    return 1


def _find_repeats(rows: list[dict[str, Any]]) -> None:
    from training.visual.duplicates import duplicates

    whole = [row for row in rows if not row["problem"]]
    if not whole:
        return
    hashes = np.array([row["hash"] for row in whole], np.uint64)
    sketches = np.stack([np.frombuffer(row["sketch"], np.uint8) for row in whole])
    for place, first in enumerate(duplicates(hashes, sketches).tolist()):
        if first != place:
            whole[place]["repeats"] = whole[first]["key"]


def _collect_looks(settings: Settings, retailer: Retailer) -> list[str]:
    """Thumbnails of the looks that are shown; those that cannot be read are left out.

    Where looks have known boxes, only those of the reporting part are shown: no model learned from them.
    """
    from training.visual.decode import PictureError, decode

    pictures = sets.pictures_of(retailer.pictures)
    opened = sets.open_looks(settings, pictures)
    shown: dict[str, str] = {}
    for picture in [] if opened is None else (opened.part("test") or opened.rows):
        media_id = pathlib.PurePosixPath(picture.key).with_suffix("").as_posix().replace("/", "-")
        if len(shown) >= pictures.looks_shown or not MEDIA_NAME.fullmatch(media_id):
            continue
        try:
            assert opened is not None
            image = decode(opened.read(picture.key))
        except (PictureError, KeyError):
            continue
        thumbnail(image, media_path(settings.home, media_id, look=True), LOOK_SIDE)
        shown[media_id] = picture.key
    _replace(settings.visual / LOOKS_TABLE_FILE, lambda path: path.write_text(json.dumps(shown)))
    return list(shown)


def _forget(settings: Settings, products: set[str], shown: set[str]) -> None:
    """Remove thumbnails of what is not in the catalogue any more."""
    for path in settings.media.glob("*.jpg"):
        if path.stem not in products:
            path.unlink()
    for path in (settings.media / "looks").glob("*.jpg"):
        if path.stem not in shown:
            path.unlink()
    shutil.rmtree(settings.media / ".tmp", ignore_errors=True)
