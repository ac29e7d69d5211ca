"""One product as a picture, and all of them as a folder.

Belongs here: from a catalogue row to a drawing; files. Does not belong here: shapes.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import io
import json
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from training.rehearsal.config import RehearsalError
from training.rehearsal.drawing import fabric, garments, wares
from training.rehearsal.drawing.canvas import Canvas, on_ground
from training.rehearsal.photographs import PHOTOS

SIZE = 224
GROUND = (247, 246, 243)
QUALITY = 92

_WIDTH = {"slim": 0.92, "regular": 1.0, "relaxed": 1.06, "oversized": 1.14}
_DRAWN = {**garments.DRAWN, **wares.DRAWN}

STYLES = (
    "id", "gender", "masterCategory", "subCategory", "articleType", "baseColour", "season", "year", "usage",
    "productDisplayName",
)  # fmt: skip
"""Columns of ``styles.csv.gz`` in the fashion-products layout."""

ATTRIBUTES = (
    "product_id", "type", "colour", "pattern", "season", "name", "category", "department", "brand",
)  # fmt: skip
"""Columns of ``attributes.csv``: all that is known of a picture, pattern included."""

Row = Mapping[str, Any]


def cut_out(product: Row, size: int = SIZE) -> Image.Image:
    """A product on a transparent ground (RGBA).

    Args:
        product: A row of the atelier's products table (``product_id, type, attributes``).
        size: Pixels a side.

    Raises:
        RehearsalError: The product's type, colour or pattern cannot be drawn.
    """
    attributes = json.loads(product["attributes"])
    kind, colour, pattern = product["type"], attributes.get("colour"), attributes.get("pattern")
    for name, value, known in (
        ("type", kind, _DRAWN), ("colour", colour, fabric.PALETTE), ("pattern", pattern, fabric.PATTERNS),
    ):  # fmt: skip
        if value not in known:
            raise RehearsalError(
                f"{name} of {product['product_id']} is {value!r}; expected one of: {', '.join(known)}"
            )
    seed = int.from_bytes(hashlib.sha256(str(product["product_id"]).encode()).digest()[:6], "big")
    canvas = Canvas(size)
    cut = garments.Cut(_WIDTH.get(attributes.get("fit"), 1.0), seed % 9973 / 9973)
    _DRAWN[kind](canvas, fabric.choose(colour, pattern, seed), cut)
    return canvas.cut_out()


def picture(product: Row, size: int = SIZE) -> Image.Image:
    """A product on a plain ground (RGB); see `cut_out`."""
    return on_ground(cut_out(product, size), GROUND)


def write_catalogue(
    products: Sequence[Row], folder: pathlib.Path, size: int = SIZE, photos_of: pathlib.Path | None = None
) -> int:
    """Draw all goods in the fashion-products layout: ``photos.zip`` and ``styles.csv.gz``; and ``attributes.csv``.

    Args:
        products: Rows of the atelier's products table; content and services are left out.
        folder: Where to; each file appears whole or not at all.
        size: Pixels a side of what is drawn.
        photos_of: The folder whose photos some products are sold with (`AtelierConfig.photos`); these are copied.

    Returns:
        How many pictures there are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    goods = [product for product in products if product["kind"] == "good"]
    photos, table, every = io.BytesIO(), io.StringIO(), io.StringIO()
    writer = csv.DictWriter(table, STYLES, lineterminator="\n")
    known = csv.DictWriter(every, ATTRIBUTES, lineterminator="\n", extrasaction="ignore", restval="")
    writer.writeheader()
    known.writeheader()
    with contextlib.ExitStack() as stack:
        archive = stack.enter_context(zipfile.ZipFile(photos, "w", zipfile.ZIP_STORED))
        real = stack.enter_context(zipfile.ZipFile(photos_of / PHOTOS)) if photos_of is not None else None
        taken = set() if real is None else set(real.namelist())
        for product in goods:
            name = f"{product['product_id']}.jpg"
            content = real.read(name) if real is not None and name in taken else jpeg(picture(product, size))
            archive.writestr(zipfile.ZipInfo(name), content)
            attributes = json.loads(product["attributes"])
            writer.writerow({
                "id": product["product_id"], "gender": "Unisex", "masterCategory": product["department"],
                "subCategory": product["category"], "articleType": product["type"],
                "baseColour": attributes["colour"], "season": attributes["season"], "year": "",
                "usage": attributes.get("fit", ""), "productDisplayName": product["name"],
            })  # fmt: skip
            known.writerow({**attributes, **product})
    write_whole(folder / "photos.zip", photos.getvalue())
    write_whole(folder / "attributes.csv", every.getvalue().encode())
    write_whole(folder / "styles.csv.gz", gzip.compress(table.getvalue().encode(), mtime=0))
    return len(goods)


def jpeg(image: Image.Image) -> bytes:
    """A picture as JPEG."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def write_whole(path: pathlib.Path, content: bytes) -> None:
    """Write a file that appears whole or not at all."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.chmod(name, 0o644)
    os.replace(name, path)
