"""Outfits: several products in one picture, each with its box.

Belongs here: composition and annotations. Does not belong here: drawing a product (`pictures.py`).
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import pathlib
import zipfile
from collections.abc import Sequence

import numpy as np
from PIL import Image

from training.rehearsal.drawing.canvas import on_ground
from training.rehearsal.drawing.pictures import Row, cut_out, jpeg, write_whole

SIZE = 448
GROUNDS = ((247, 246, 243), (236, 232, 224), (226, 231, 234), (240, 230, 226), (229, 233, 224))

_ONE_PIECE = ("dress", "jumpsuit")
_TOPS = ("tee", "shirt", "blouse", "top", "sweater", "hoodie")
_OUTER = ("cardigan", "coat", "jacket", "blazer", "parka")
_BOTTOMS = ("skirt", "jeans", "trousers", "shorts", "leggings")


@dataclasses.dataclass(frozen=True)
class Placed:
    """One product in a look.

    Attributes:
        product_id: Which.
        type: Its type.
        box: Left, top, right, bottom in pixels: the smallest box that holds all that is visible of it.
    """

    product_id: str
    type: str
    box: tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class Look:
    """An outfit.

    Attributes:
        image: RGB picture.
        items: What is in it, from back to front.
    """

    image: Image.Image
    items: tuple[Placed, ...]


def look(products: Sequence[Row], seed: int, size: int = SIZE) -> Look:
    """Compose an outfit of four to six goods: a dress or top and bottom, perhaps a coat, shoes, bag, accessories.

    Args:
        products: Rows of the atelier's products table to choose from.
        seed: Which outfit.
        size: Pixels a side.
    """
    rng = np.random.default_rng(seed)
    chosen = _outfit(products, rng)
    sheets: list[Image.Image] = []
    for row, (x, y, scale) in chosen:
        side = round(size * scale * rng.uniform(0.94, 1.06))
        sheet = Image.new("RGBA", (size, size), (0, 0, 0, 0))
        drawn = cut_out(row, side)
        turned = drawn.rotate(float(rng.uniform(-5, 5)), Image.Resampling.BICUBIC)
        left = round(size * (x + rng.uniform(-0.015, 0.015)) - side / 2)
        top = round(size * (y + rng.uniform(-0.015, 0.015)) - side / 2)
        sheet.paste(turned, (left, top), turned)
        sheets.append(sheet)
    covered = np.zeros((size, size), bool)
    boxes: list[tuple[int, int, int, int] | None] = []
    for sheet in reversed(sheets):
        solid = np.asarray(sheet.getchannel("A")) > 127
        boxes.append(_box(solid & ~covered))
        covered |= solid
    ground = GROUNDS[int(rng.integers(len(GROUNDS)))]
    whole = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    for sheet in sheets:
        whole.alpha_composite(sheet)
    items = tuple(
        Placed(row["product_id"], row["type"], box)
        for (row, _), box in zip(chosen, reversed(boxes), strict=True)
        if box is not None
    )
    return Look(on_ground(whole, ground), items)


def write_looks(products: Sequence[Row], folder: pathlib.Path, count: int, seed: int = 0) -> int:
    """Draw looks: ``looks.zip`` with ``NNNN.jpg`` and ``boxes.csv`` (file, product_id, type and box).

    Returns:
        How many boxes were written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures, table = io.BytesIO(), io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("file", "product_id", "type", "left", "top", "right", "bottom"))
    boxes = 0
    with zipfile.ZipFile(pictures, "w", zipfile.ZIP_STORED) as archive:
        for number in range(count):
            name = f"{number:04d}.jpg"
            made = look(products, seed * 1_000_003 + number)
            archive.writestr(zipfile.ZipInfo(name), jpeg(made.image))
            for item in made.items:
                writer.writerow((name, item.product_id, item.type, *item.box))
                boxes += 1
    write_whole(folder / "looks.zip", pictures.getvalue())
    write_whole(folder / "boxes.csv", table.getvalue().encode())
    return boxes


def _outfit(
    products: Sequence[Row], rng: np.random.Generator
) -> list[tuple[Row, tuple[float, float, float]]]:
    """Products with centre and scale, from back to front."""
    season = "winter" if rng.random() < 0.5 else "summer"
    goods = [row for row in products if row["kind"] == "good" and _fits(row, season)]

    def pick(test: Sequence[str] | str) -> Row:
        fits = [row for row in goods if row["type"] in test or row["department"] == test]
        return fits[int(rng.integers(len(fits)))]

    placed: list[tuple[Row, tuple[float, float, float]]] = []
    if rng.random() < 0.3:
        placed.append((pick(_ONE_PIECE if season == "summer" else ("dress",)), (0.4, 0.42, 0.72)))
    else:
        placed.append((pick(_BOTTOMS), (0.36, 0.68, 0.56)))
        placed.append((pick(_TOPS), (0.36, 0.29, 0.52)))
    if rng.random() < (0.7 if season == "winter" else 0.2):
        placed.append((pick(_OUTER), (0.76, 0.3, 0.5)))
    placed.append((pick("shoes"), (0.73, 0.86, 0.27)))
    placed.append((pick("bags"), (0.8, 0.64, 0.3)))
    if rng.random() < 0.7:
        placed.append((pick("accessories"), (0.1, 0.14, 0.19)))
    return placed


def _fits(row: Row, season: str) -> bool:
    """Whether a product is worn in a season; dresses and knitwear that look neutral are worn in both."""
    when = json.loads(row["attributes"])["season"]
    return when in ("all", season) or row["type"] in (*_ONE_PIECE, "skirt", "shorts", "sweater", "cardigan")


def _box(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    if not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
