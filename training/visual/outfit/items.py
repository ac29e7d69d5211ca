"""Where looks come from: people in photos, composed looks, baskets.

Belongs here: from pictures and tables to items with vectors. Does not belong here: the vectors' model (`describe.py`).
"""

from __future__ import annotations

import csv
import dataclasses
import io
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from contracts.visual import WEARABLE
from training.config import ConfigError
from training.visual.boxes import label_boxes
from training.visual.classes import STREET_LABELS
from training.visual.decode import Box, decode
from training.visual.outfit.looks import Looks
from training.visual.pictures import open_pictures

BLANK = 255
"""What is not the item is made white, as in pack shots."""


@dataclasses.dataclass(frozen=True)
class Item:
    """One item in a photo.

    Attributes:
        look: Number of the photo.
        slot: From 1.
        image: The photo around it, from which `box` is to be cut.
        box: As shares of `image`.
        pixels: Its own pixels, uint8 ``[K, 3]``.
    """

    look: int
    slot: int
    image: Image.Image
    box: Box
    pixels: npt.NDArray[np.uint8]


def worn(root: pathlib.Path, reported: bool, blank: bool, limit: int = 0, around: float = 0.1) -> list[Item]:
    """Items that people in street-looks wear together.

    Args:
        root: Folder of the set.
        reported: The part for reporting, or the part to learn from.
        blank: Make all but the item white: without it a crop shows parts of what it was worn with.
        limit: At most this many photos, 0 for all.
        around: Kept around a box, as a share of its sides, for whoever crops with a margin.

    Raises:
        PictureSetError: The folder is not in its layout.
    """
    pictures = open_pictures("street-looks", root)
    with (root / "labels.csv").open(newline="") as file:
        names = {int(row["index"]): row["label"] for row in csv.DictReader(file)}
    slots = {
        index: 1 + WEARABLE.index(STREET_LABELS[name])
        for index, name in names.items()
        if name in STREET_LABELS
    }
    rows = pictures.part("test" if reported else "train")
    items = []
    for number, row in enumerate(rows[: limit or None]):
        mask = np.asarray(Image.open(io.BytesIO(pictures.read_mask(row.key))))
        photo = np.asarray(decode(pictures.read(row.key)))
        boxes, labels = label_boxes(mask, np.array(list(slots)))
        for (x1, y1, x2, y2), label in zip(boxes.astype(int), labels, strict=True):
            dx, dy = round(around * (x2 - x1)), round(around * (y2 - y1))
            left, top = max(0, x1 - dx), max(0, y1 - dy)
            window = np.s_[top : y2 + dy, left : x2 + dx]
            inside = mask[window] == label
            cut = photo[window]
            high, wide = inside.shape
            box = ((x1 - left) / wide, (y1 - top) / high, (x2 - left) / wide, (y2 - top) / high)
            shown = np.where(inside[..., None], cut, BLANK).astype(np.uint8) if blank else cut
            items.append(Item(number, slots[int(label)], Image.fromarray(shown), box, cut[inside]))
    return items


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """Products with vectors.

    Attributes:
        place: Row of each product.
        vectors: ``[N, d]``.
        slots: Slot of each, 0 for none.
    """

    place: dict[str, int]
    vectors: npt.NDArray[np.float32]
    slots: npt.NDArray[np.int64]


def read_catalogue(
    embedder: pathlib.Path, source: Mapping[str, object], slots: Mapping[str, str]
) -> Catalogue:
    """Products whose pictures an embedder learned from, with the vectors that its bundle keeps.

    Args:
        embedder: Its bundle.
        source: The embedder's source, as its config states it.
        slots: Class of a product's type; other types take no part.

    Raises:
        ConfigError: No product has a slot.
    """
    kept = np.load(embedder / "vectors.npz")
    mine = kept["source"] == source["name"]
    vectors = kept["embedding"][mine].astype(np.float32)
    options = {str(k): str(v) for k, v in dict(source.get("options") or {}).items()}  # type: ignore[call-overload]
    rows = open_pictures(str(source["layout"]), pathlib.Path(str(source["root"])), options).rows
    kind = {row.key: (row.labels.get("product_id", row.key), row.labels.get("type", "")) for row in rows}
    place, found = {}, np.zeros(len(vectors), np.int64)
    for number, key in enumerate(kept["key"][mine].tolist()):
        product, name = kind.get(key, (key, ""))
        place.setdefault(product, number)
        if name in slots:
            found[number] = 1 + WEARABLE.index(slots[name])
    if not found.any():
        raise ConfigError(
            f"`$.slots` names no type of source '{source['name']}'; expected types of its products"
        )
    return Catalogue(place, vectors, found)


def together(groups: Mapping[str, Sequence[str]], catalogue: Catalogue) -> Looks:
    """Groups of products as looks: one product per slot of each, as nobody wears two pairs of shoes."""
    chosen, numbers = [], []
    for number, products in enumerate(groups.values()):
        places = [catalogue.place[product] for product in products if product in catalogue.place]
        seen: dict[int, int] = {}
        for place in places:
            if catalogue.slots[place]:
                seen.setdefault(int(catalogue.slots[place]), place)
        if len(seen) > 1:
            chosen += list(seen.values())
            numbers += [number] * len(seen)
    rows = np.array(chosen, np.int64)
    return Looks(catalogue.vectors[rows], catalogue.slots[rows], np.array(numbers, np.int64))


def read_baskets(path: pathlib.Path) -> dict[str, list[str]]:
    """Products by basket from a CSV file ``basket,product_id``, in the file's order.

    Raises:
        ConfigError: The file cannot be read or lacks a column.
    """
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            missing = {"basket", "product_id"} - set(reader.fieldnames or ())
            if missing:
                raise ConfigError(
                    f"{path.name} has no column {', '.join(sorted(missing))}; expected basket,product_id"
                )
            groups: dict[str, list[str]] = {}
            for row in reader:
                groups.setdefault(row["basket"], []).append(row["product_id"])
            return groups
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: {error}; expected a CSV file with basket,product_id") from error


def composed(root: pathlib.Path) -> dict[str, list[str]]:
    """Products by composed look."""
    return {
        row.key: [box.product_id for box in row.boxes if box.product_id]
        for row in open_pictures("drawn-looks", root).rows
    }
