"""The atelier's catalogue: what it sells, at which price, in which sizes.

Belongs here: products, their looks, prices that move, searches that find nothing. Does not belong here:
who likes what (`people.py`), pictures.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from training.rehearsal.config import AtelierConfig, RehearsalError
from training.rehearsal.draws import Draws, Floats, Ints
from training.rehearsal.photographs import Photo, PhotosError, read_photos

Kind = tuple[str, str, str, float, str, str, float]

_KINDS: tuple[Kind, ...] = (
    # type, department, category, typical price, size system, season, share of demand
    ("tee", "garments", "tops", 22, "letters", "summer", 7.0),
    ("shirt", "garments", "tops", 45, "letters", "all", 5.0),
    ("blouse", "garments", "tops", 42, "letters", "all", 3.5),
    ("top", "garments", "tops", 28, "letters", "summer", 3.0),
    ("sweater", "garments", "knitwear", 58, "letters", "winter", 4.5),
    ("cardigan", "garments", "knitwear", 55, "letters", "winter", 2.5),
    ("hoodie", "garments", "knitwear", 49, "letters", "all", 3.5),
    ("dress", "garments", "dresses", 69, "letters", "summer", 6.0),
    ("jumpsuit", "garments", "dresses", 75, "letters", "summer", 1.5),
    ("skirt", "garments", "bottoms", 44, "letters", "summer", 2.5),
    ("jeans", "garments", "bottoms", 72, "letters", "all", 6.0),
    ("trousers", "garments", "bottoms", 64, "letters", "all", 4.0),
    ("shorts", "garments", "bottoms", 34, "letters", "summer", 2.0),
    ("leggings", "garments", "bottoms", 25, "letters", "all", 2.0),
    ("coat", "garments", "outerwear", 149, "letters", "winter", 2.5),
    ("jacket", "garments", "outerwear", 99, "letters", "all", 3.5),
    ("blazer", "garments", "outerwear", 119, "letters", "all", 1.5),
    ("parka", "garments", "outerwear", 139, "letters", "winter", 1.0),
    ("sneakers", "shoes", "casual shoes", 79, "shoes", "all", 7.0),
    ("boots", "shoes", "boots", 119, "shoes", "winter", 3.5),
    ("sandals", "shoes", "summer shoes", 49, "shoes", "summer", 2.5),
    ("heels", "shoes", "dress shoes", 85, "shoes", "all", 1.8),
    ("loafers", "shoes", "dress shoes", 89, "shoes", "all", 1.5),
    ("flats", "shoes", "casual shoes", 55, "shoes", "all", 1.5),
    ("tote", "bags", "handbags", 79, "one", "all", 2.0),
    ("satchel", "bags", "handbags", 95, "one", "all", 1.2),
    ("backpack", "bags", "backpacks", 69, "one", "all", 2.0),
    ("clutch", "bags", "handbags", 45, "one", "all", 0.8),
    ("wallet", "bags", "small leather", 39, "one", "all", 1.2),
    ("scarf", "accessories", "winter accessories", 29, "one", "winter", 1.8),
    ("gloves", "accessories", "winter accessories", 27, "one", "winter", 1.0),
    ("beanie", "accessories", "winter accessories", 19, "one", "winter", 1.0),
    ("hat", "accessories", "headwear", 35, "one", "summer", 0.8),
    ("cap", "accessories", "headwear", 24, "one", "summer", 1.0),
    ("belt", "accessories", "belts", 32, "one", "all", 1.6),
    ("sunglasses", "accessories", "eyewear", 59, "one", "summer", 1.5),
    ("watch", "accessories", "jewellery", 129, "one", "all", 1.0),
    ("necklace", "accessories", "jewellery", 39, "one", "all", 1.2),
    ("socks", "accessories", "hosiery", 9, "letters", "all", 2.0),
)
TYPES: tuple[str, ...] = tuple(kind[0] for kind in _KINDS)
"""What is sold; one word each, as shoppers search for it."""

COLOURS: tuple[str, ...] = (
    "black", "white", "grey", "navy", "beige", "brown", "blue", "green", "red", "pink", "yellow", "purple",
)  # fmt: skip
PATTERNS: tuple[str, ...] = ("plain", "striped", "floral", "checked", "dotted", "graphic")
FITS: tuple[str, ...] = ("slim", "regular", "relaxed", "oversized")
BRANDS: tuple[str, ...] = (
    "Alder & Co", "Brisa", "Corvina", "Dunmore", "Elster", "Fjellhaus", "Garance", "Hollis", "Isola",
    "Juniper Row", "Kestrel", "Atelier Basics",
)  # fmt: skip
SIZES: dict[str, tuple[str, ...]] = {
    "letters": ("XS", "S", "M", "L", "XL", "XXL"),
    "shoes": ("36", "38", "40", "42", "44", "46"),
    "one": ("one size",),
}
UNSOLD: tuple[str, ...] = ("swimsuit", "umbrella", "pyjamas", "tuxedo", "wetsuit", "kimono", "slippers")
"""Words that shoppers search for and the shop does not sell."""

SEASONS: tuple[str, ...] = ("all", "winter", "summer")
GUIDES = len(TYPES)
"""One guide (a product of kind content) per type."""

_BRAND_LEVEL = np.array([1.1, 0.95, 1.25, 1.0, 1.3, 1.6, 1.8, 0.9, 1.05, 0.8, 1.4, 0.55])
_COLOUR_SHARE = np.array([20, 14, 10, 12, 9, 8, 10, 6, 5, 4, 2, 2.0])
_PATTERN_SHARE = np.array([62, 12, 9, 8, 4, 5.0])


@dataclasses.dataclass
class Catalogue:
    """All products as arrays ``[P]``, grouped by type, and the shop's shelves.

    Attributes:
        kind: Index in TYPES, ascending.
        colour: Index in COLOURS.
        pattern: Index in PATTERNS.
        fit: Index in FITS.
        season: Index in SEASONS.
        brand: Index in BRANDS.
        base_price: List price on the first day.
        appeal: Popularity weight, heavy-tailed (Zipf-like), sum 1 within a type.
        sizes: How many sizes there are.
        stock: int64[P, 6], pieces per size; columns beyond ``sizes`` are 0.
        target: Stock after a delivery to the shop.
        price: Price of today.
        first_of: int64[T + 1], where each type begins.
        found: int64[T, C + patterns], how many products a query of adjective and type finds.
        photos: By product number, the real photo that it is sold with; empty for a drawn catalogue.
    """

    kind: Ints
    colour: Ints
    pattern: Ints
    fit: Ints
    season: Ints
    brand: Ints
    base_price: Floats
    appeal: Floats
    sizes: Ints
    stock: Ints
    target: Ints
    price: Floats
    first_of: Ints
    found: Ints
    photos: dict[int, Photo] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.kind)

    def ids(self) -> pa.Array:
        """Product ids: goods, then one guide per type."""
        goods = [
            self.photos[number].photo_id if number in self.photos else f"at-{number:05d}"
            for number in range(len(self))
        ]
        return pa.array([*goods, *(f"guide-{name}" for name in TYPES)])


ADJECTIVES: tuple[str, ...] = (*COLOURS, *PATTERNS[1:])
"""Words before the type in a query."""


def build(config: AtelierConfig) -> Catalogue:
    """Draw the catalogue of a shop."""
    draws = Draws(config.seed, -2)
    number = np.arange(config.products)
    demand = np.array([kind[6] for kind in _KINDS])
    # At least four of each type; the rest by demand.
    fixed = np.repeat(np.arange(len(TYPES)), 4)
    rest = draws.choice("type", number[len(fixed) :], demand)
    kind = np.sort(np.concatenate([fixed, rest]))[: config.products]
    colour = draws.choice("colour", number, _COLOUR_SHARE)
    pattern = draws.choice("pattern", number, _PATTERN_SHARE)
    photos = _photographed(config, kind)
    for place, photo in photos.items():
        colour[place], pattern[place] = COLOURS.index(photo.colour), PATTERNS.index(photo.pattern)
    brand = draws.below("brand", number, len(BRANDS))
    typical = np.array([row[3] for row in _KINDS])[kind]
    price = typical * _BRAND_LEVEL[brand] * np.exp(0.22 * draws.normal("price", number))
    season = np.array([SEASONS.index(row[5]) for row in _KINDS])[kind]
    sizes = np.array([len(SIZES[row[4]]) for row in _KINDS])[kind]
    first_of = np.searchsorted(kind, np.arange(len(TYPES) + 1))
    appeal = draws.uniform("appeal", number) ** -0.8
    appeal /= np.add.reduceat(appeal, first_of[:-1])[kind]
    depth = 2 + draws.below("depth", number, 7)
    expected = np.ceil(config.shoppers * demand[kind] / demand.sum() * appeal * 0.15 + depth)
    curve = np.array([0.5, 1.0, 1.4, 1.2, 0.7, 0.3])
    target = np.where(sizes[:, None] == 1, 0, np.ceil(expected[:, None] * curve / 4)).astype(np.int64)
    target[sizes == 1, 0] = np.ceil(expected[sizes == 1])
    found = np.zeros((len(TYPES), len(ADJECTIVES)), np.int64)
    np.add.at(found, (kind, colour), 1)
    patterned = pattern > 0
    np.add.at(found, (kind[patterned], len(COLOURS) + pattern[patterned] - 1), 1)
    rounded = np.maximum(np.round(price) - 0.05, 2.95)
    return Catalogue(
        kind=kind, colour=colour, pattern=pattern, fit=draws.below("fit", number, len(FITS)),
        season=season, brand=brand, base_price=rounded, appeal=appeal, sizes=sizes, stock=target.copy(),
        target=target, price=rounded.copy(), first_of=first_of, found=found,
        photos=photos,
    )  # fmt: skip


def _photographed(config: AtelierConfig, kind: Ints) -> dict[int, Photo]:
    """Which product gets which photo: of each type the first products, the photos in order of their id."""
    if config.photos is None:
        return {}
    try:
        found = read_photos(pathlib.Path(config.photos))
    except PhotosError as error:
        raise RehearsalError(f"photos: {error}") from error
    given: dict[int, Photo] = {}
    for place, name in enumerate(TYPES):
        numbers = np.flatnonzero(kind == place).tolist()
        given.update(zip(numbers, (photo for photo in found if photo.type == name), strict=False))
    return given


def reprice(shop: Catalogue, draws: Draws, day: int) -> None:
    """Move prices in place: each day some products get another mark-down, mark-up or their list price."""
    number = np.arange(len(shop))
    changed = draws.uniform("reprice", number) < (0.04 if day % 7 == 0 else 0.008)
    levels = np.array([0.6, 0.75, 0.85, 1.0, 1.0, 1.0, 1.12, 1.25])
    level = levels[draws.below("price level", number, len(levels))]
    shop.price = np.where(changed, np.round(shop.base_price * level, 2), shop.price)


def restock(shop: Catalogue, draws: Draws, day: int) -> None:
    """Refill some shelves in place: half of the products twice a week, few on other days."""
    number = np.arange(len(shop))
    share = 0.5 if day % 7 in (0, 3) else 0.05
    refilled = draws.uniform("restock", number) < share
    shop.stock[refilled] = np.maximum(shop.stock[refilled], shop.target[refilled])


def season_weight(shop: Catalogue, day_of_year: int) -> Floats:
    """Demand factor of each product on that day: winter goods peak in January, summer goods in July."""
    wave = np.cos(2 * np.pi * (day_of_year - 15) / 365.25)
    return np.array([1.0, np.exp(0.9 * wave), np.exp(-0.9 * wave)])[shop.season]


def size_name(kind: int, index: int) -> str:
    """Printed size of a type's size index."""
    return SIZES[_KINDS[kind][4]][index]


def size_systems() -> tuple[str, ...]:
    """Size system of each type."""
    return tuple(row[4] for row in _KINDS)


def table(shop: Catalogue) -> pa.Table:
    """The catalogue with the columns of the lake's products table; attributes as JSON."""
    rows = [*_goods(shop), *_guides()]
    names = (
        "product_id", "name", "department", "category", "type", "brand", "manufacturer", "size", "kind",
        "sellable", "attributes",
    )  # fmt: skip
    return pa.table({name: [row[name] for row in rows] for name in names})


def _goods(shop: Catalogue) -> list[dict[str, Any]]:
    rows = []
    ids = shop.ids().to_pylist()
    for number in range(len(shop)):
        name, department, category, _, system, season, _ = _KINDS[shop.kind[number]]
        colour, pattern = COLOURS[shop.colour[number]], PATTERNS[shop.pattern[number]]
        fit, brand = FITS[shop.fit[number]], BRANDS[shop.brand[number]]
        look = colour if pattern == "plain" else f"{colour} {pattern}"
        sizes = SIZES[system]
        attributes = {
            "colour": colour, "pattern": pattern, "season": season, "sizes": list(sizes),
            "list_price": float(shop.base_price[number]),
            "stock": dict(zip(sizes, shop.target[number].tolist(), strict=False)),
            **({"fit": fit} if department == "garments" else {}),
        }  # fmt: skip
        rows.append(
            {
                "product_id": ids[number], "department": department,
                "name": shop.photos[number].name if number in shop.photos else f"{brand} {look} {name}",
                "category": category, "type": name, "brand": brand, "manufacturer": brand,
                "size": "", "kind": "good", "sellable": True, "attributes": json.dumps(attributes),
            }
        )  # fmt: skip
    return rows


def _guides() -> list[dict[str, Any]]:
    return [
        {
            "product_id": f"guide-{name}", "name": f"How to wear and care for {name}", "department": "guides",
            "category": department, "type": f"guide to {name}", "brand": "", "manufacturer": "", "size": "",
            "kind": "content", "sellable": False, "attributes": json.dumps({"about": name}),
        }
        for name, department, *_ in _KINDS
    ]  # fmt: skip


def shelf(shop: Catalogue) -> npt.NDArray[np.bool_]:
    """bool[P, 6]: sizes that exist and are out of stock."""
    exists = np.arange(6)[None, :] < shop.sizes[:, None]
    return exists & (shop.stock <= 0)
