"""Which product each picture belongs to: by its id, by likeness of words, or to a type of product.

Belongs here: the three ways, and the words that the atelier and the fashion-products set use for one thing.
Does not belong here: reading pictures.
"""

from __future__ import annotations

import csv
import pathlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.visual.pictures import Picture

Row = Mapping[str, Any]

TYPES_ALIKE: dict[str, tuple[str, ...]] = {
    "tee": ("Tshirts",), "shirt": ("Shirts",), "blouse": ("Tunics", "Kurtis", "Tops"), "top": ("Tops",),
    "sweater": ("Sweaters",), "cardigan": ("Shrug", "Sweaters"), "hoodie": ("Sweatshirts",), "dress": ("Dresses",),
    "jumpsuit": ("Dresses",), "skirt": ("Skirts",), "jeans": ("Jeans",), "trousers": ("Trousers", "Track Pants"),
    "shorts": ("Shorts",), "leggings": ("Leggings", "Capris", "Churidar"), "coat": ("Jackets",),
    "jacket": ("Jackets",), "blazer": ("Waistcoat", "Blazers", "Jackets"), "parka": ("Jackets",),
    "sneakers": ("Casual Shoes", "Sports Shoes"), "boots": ("Boots",), "sandals": ("Sandals", "Flip Flops"),
    "heels": ("Heels",), "loafers": ("Formal Shoes",), "flats": ("Flats",), "tote": ("Handbags",),
    "satchel": ("Messenger Bag", "Handbags"), "backpack": ("Backpacks",), "clutch": ("Clutches",),
    "wallet": ("Wallets",), "scarf": ("Scarves", "Mufflers", "Stoles"), "gloves": ("Gloves",), "beanie": ("Caps",),
    "hat": ("Hat", "Caps"), "cap": ("Caps",), "belt": ("Belts",), "sunglasses": ("Sunglasses",),
    "watch": ("Watches",), "necklace": ("Necklace and Chains", "Pendant"), "socks": ("Socks",),
}  # fmt: skip
"""The atelier's types and what fashion-products calls them, the nearest first."""

COLOURS_ALIKE: dict[str, tuple[str, ...]] = {
    "black": ("Black",), "white": ("White", "Off White"), "grey": ("Grey", "Charcoal", "Grey Melange", "Silver"),
    "navy": ("Navy Blue",), "beige": ("Beige", "Cream", "Khaki", "Tan", "Nude"),
    "brown": ("Brown", "Coffee Brown", "Bronze", "Copper", "Tan"), "blue": ("Blue", "Turquoise Blue", "Teal"),
    "green": ("Green", "Olive", "Sea Green"), "red": ("Red", "Maroon", "Burgundy", "Rust"),
    "pink": ("Pink", "Peach", "Magenta", "Rose"), "yellow": ("Yellow", "Mustard", "Gold"),
    "purple": ("Purple", "Lavender", "Mauve"),
}  # fmt: skip
"""The atelier's colours and what fashion-products calls them, the nearest first."""


class BelongingError(ValueError):
    """A table of belonging that cannot be used; the message names the row and what was expected."""


@dataclass(frozen=True)
class TypeOfClass:
    """What a class of pictures stands for in the shop.

    Attributes:
        class_id: The pictures' number.
        class_name: Their name.
        department: Of the products.
        category: Of the products.
        type: Of the products.
    """

    class_id: str
    class_name: str
    department: str
    category: str
    type: str


def by_id(pictures: Iterable[Picture], products: Iterable[Row]) -> dict[str, str]:
    """Product id -> key of its first picture; pictures of unknown products belong to nothing."""
    known = {str(product["product_id"]) for product in products}
    found: dict[str, str] = {}
    for picture in pictures:
        product = picture.labels.get("product_id", picture.key)
        if product in known:
            found.setdefault(product, picture.key)
    return found


def alike(pictures: Iterable[Picture], products: Sequence[Row]) -> dict[str, str]:
    """Product id -> key of a picture of its type and, as far as there are any, its colour; each picture once.

    A simulated product takes the first photo that is left, in the order of ids; one whose type has no photo left
    goes without.
    """
    left: dict[tuple[str, str], list[str]] = defaultdict(list)
    for picture in sorted(pictures, key=lambda one: (len(one.key), one.key), reverse=True):
        left[picture.labels.get("type", ""), picture.labels.get("colour", "")].append(picture.key)
    found: dict[str, str] = {}
    waiting: list[Row] = []
    for product in sorted(products, key=lambda row: str(row["product_id"])):
        wanted = [
            (kind, colour)
            for kind in TYPES_ALIKE.get(product["type"], ())
            for colour in COLOURS_ALIKE.get(product["colour"], ())
        ]
        place = next((pair for pair in wanted if left.get(pair)), None)
        if place is None:
            waiting.append(product)
        else:
            found[str(product["product_id"])] = left[place].pop()
    for product in waiting:  # No photo of its colour is left: another colour of the same type.
        kinds = TYPES_ALIKE.get(product["type"], ())
        place = next(
            (pair for kind in kinds for pair in sorted(left) if pair[0] == kind and left[pair]), None
        )
        if place is not None:
            found[str(product["product_id"])] = left[place].pop()
    return found


def read_types(path: pathlib.Path) -> list[TypeOfClass]:
    """The reviewed table from classes of pictures to types of product.

    Raises:
        BelongingError: It cannot be read, a column is missing or a class stands there twice.
    """
    columns = ("class_id", "class_name", "department", "category", "type")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise BelongingError(f"{path}: {error.strerror}; expected the table of types") from error
    for row in rows:
        if missing := [name for name in columns if not row.get(name)]:
            raise BelongingError(
                f"{path.name}: class {row.get('class_id')} has no {missing[0]}; expected it filled"
            )
    found = [TypeOfClass(*(row[name] for name in columns)) for row in rows]
    if len({row.class_id for row in found}) < len(found):
        raise BelongingError(f"{path.name}: a class stands there twice; expected each once")
    return found


def products_of(kind: TypeOfClass, products: Iterable[Row]) -> list[str]:
    """Ids of the sellable products of a type."""
    wanted = (kind.department, kind.category, kind.type)
    return [
        str(product["product_id"])
        for product in products
        if product["sellable"] and (product["department"], product["category"], product["type"]) == wanted
    ]
