"""A small shop window: the atelier's drawn products behind the hand-made models of the serving tests.

The models see colours over a coarse grid, which is enough for a page to be tried: nothing is trained.
"""

from __future__ import annotations

import functools
import json
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from contracts.visual import media_path
from tests.integration.serving import seeing
from tests.integration.serving.conftest import YAML, Shop
from tests.integration.serving.synthetic import Keys, make_release, remake, write_profiles
from training.rehearsal import catalogue
from training.rehearsal.config import checked
from training.rehearsal.drawing.looks import look
from training.rehearsal.drawing.pictures import picture

PRODUCTS, LOOKS = 200, 4
SHARD_OF = {
    **dict.fromkeys(("tee", "shirt", "blouse", "top", "sweater", "cardigan", "hoodie"), "top"),
    **dict.fromkeys(("dress", "jumpsuit"), "dress"),
    **dict.fromkeys(("sneakers", "boots", "sandals", "heels", "loafers", "flats"), "footwear"),
    **dict.fromkeys(("tote", "satchel", "backpack", "clutch"), "bag"),
    **dict.fromkeys(("jeans", "trousers", "leggings", "shorts", "skirt"), "pants"),
}


def make_window(home: pathlib.Path) -> Shop:
    """Write the shop: a signed release, its pictures, histories."""
    keys = Keys(home / "keys")
    folder = make_release(home / "registry" / "window", keys, "window", seed=1)
    write_profiles(home / "profiles")
    (home / "synthetic.yaml").write_text(YAML.replace("Synthetic shop", "Atelier"))
    told = goods()
    with np.load(folder / "items" / "items.npz") as arrays:
        items = dict(arrays)
    for column in ("name", "type", "category", "department", "brand"):
        values = items[column].astype("U80")
        values[:PRODUCTS] = [row[column] for row in told]
        items[column] = values
    items["sellable"] = np.arange(len(items["sellable"])) < PRODUCTS
    ids = items["product_id"].tolist()
    remake(folder, keys, items)
    seen = seeing.Range(
        PRODUCTS,
        drawn,
        lambda place: seeing.SHARDS.index(SHARD_OF.get(told[place]["type"], "whole product")),
        lambda place: catalogue.COLOURS.index(_attribute(place, "colour")),
        lambda place: float(_attribute(place, "list_price")),
        catalogue.COLOURS,
    )
    seeing.add_visual(folder, keys, seen=seen, looks=_looks(home, ids))
    for place in range(PRODUCTS):
        path = media_path(home, ids[place])
        path.parent.mkdir(exist_ok=True)
        drawn(place, 224).save(path, "JPEG", quality=88)
    shop = Shop(home, keys)
    shop.champion("window")
    return shop


@functools.cache
def goods() -> list[dict[str, Any]]:
    rows = catalogue.table(catalogue.build(checked({"products": PRODUCTS, "seed": 7}))).to_pylist()
    return [row for row in rows if row["kind"] == "good"][:PRODUCTS]


@functools.cache
def drawn(place: int, size: int) -> Image.Image:
    """The drawn picture of a product."""
    return picture(goods()[place]).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)


def photo(*types: str, size: int = 900) -> Image.Image:
    """A photo with one product of each type (empty for none) in its quarters, as the stand-in detector sees them."""
    whole = Image.new("RGB", (size, size), (250, 250, 250))
    half = size // 2
    for quarter, kind in enumerate(types):
        if kind:
            places = [place for place, row in enumerate(goods()) if row["type"] == kind]
            place = max(
                places, key=lambda place: _attribute(place, "colour") in ("red", "green", "blue", "purple")
            )
            whole.paste(drawn(place, half), ((quarter % 2) * half, (quarter // 2) * half))
    return whole


def _attribute(place: int, name: str) -> Any:
    return json.loads(goods()[place]["attributes"])[name]


def _looks(home: pathlib.Path, ids: list[str]) -> dict[str, Any]:
    place_of = {row["product_id"]: place for place, row in enumerate(goods())}
    spots: list[tuple[int, list[float], int, str]] = []
    for number in range(LOOKS):
        made = look(goods(), number)
        path = media_path(home, f"look-{number}", look=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        made.image.convert("RGB").save(path, "JPEG", quality=88)
        for item in made.items:
            kind = SHARD_OF.get(item.type)
            if kind in seeing.CLASSES:
                box = [edge / made.image.width for edge in item.box]
                spots.append((number, box, seeing.CLASSES.index(kind), ids[place_of[item.product_id]]))
    answers = []
    for _, _, kind, own in spots:
        same = (ids[p] for p, row in enumerate(goods()) if SHARD_OF.get(row["type"]) == seeing.CLASSES[kind])
        answers.append([own, *(other for other in same if other != own)][:5])
    return {
        "media_id": np.array([f"look-{number}" for number in range(LOOKS)]),
        "title": np.array([f"Look {number + 1}" for number in range(LOOKS)]),
        "width": np.full(LOOKS, 448, np.int32),
        "height": np.full(LOOKS, 448, np.int32),
        "spot_media": np.array([number for number, *_ in spots], np.int32),
        "box": np.array([box for _, box, *_ in spots], np.float32),
        "class": np.array([kind for *_, kind, _ in spots], np.int32),
        "classes": np.array(seeing.CLASSES),
        "score": np.full(len(spots), 0.9, np.float32),
        "answers": np.array([[*row, *[""] * (5 - len(row))] for row in answers]),
        "similarity": np.tile(np.array([0.95, 0.8, 0.7, 0.6, 0.5], np.float32), (len(spots), 1)),
    }
