"""Real photos as the atelier's goods: a folder in the layout of fashion-products takes the place of drawn products.

The shop stays the simulated one (how many of each type, prices, stock, who likes what); a product that gets a photo takes
the photo's id, name and colour. Of a type with too few photos the rest stay drawn.

Belongs here: reading the folder, its words in ours, which product gets which photo. Does not belong here: pictures
(`drawing/`), the catalogue (`catalogue.py`).
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import pathlib
import zipfile

STYLES, PHOTOS = "styles.csv.gz", "photos.zip"

TYPES: dict[str, str] = {
    "Tshirts": "tee", "Shirts": "shirt", "Kurtis": "blouse", "Tunics": "blouse", "Tops": "top",
    "Sweaters": "sweater", "Shrug": "cardigan", "Sweatshirts": "hoodie", "Dresses": "dress", "Jumpsuit": "jumpsuit",
    "Skirts": "skirt", "Jeans": "jeans", "Trousers": "trousers", "Track Pants": "trousers", "Shorts": "shorts",
    "Leggings": "leggings", "Tights": "leggings", "Jackets": "jacket", "Blazers": "blazer",
    "Casual Shoes": "sneakers", "Sports Shoes": "sneakers", "Sandals": "sandals", "Sports Sandals": "sandals",
    "Heels": "heels", "Formal Shoes": "loafers", "Flats": "flats", "Handbags": "tote", "Messenger Bag": "satchel",
    "Laptop Bag": "satchel", "Backpacks": "backpack", "Rucksacks": "backpack", "Clutches": "clutch",
    "Wallets": "wallet", "Scarves": "scarf", "Mufflers": "scarf", "Stoles": "scarf", "Gloves": "gloves",
    "Hat": "hat", "Caps": "cap", "Belts": "belt", "Sunglasses": "sunglasses", "Watches": "watch",
    "Necklace and Chains": "necklace", "Socks": "socks",
}  # fmt: skip
"""Their article types in the atelier's words; others are left out."""

COLOURS: dict[str, str] = {
    "Black": "black", "Charcoal": "black", "White": "white", "Off White": "white", "Cream": "white", "Grey": "grey",
    "Grey Melange": "grey", "Silver": "grey", "Steel": "grey", "Navy Blue": "navy", "Beige": "beige",
    "Khaki": "beige", "Tan": "beige", "Nude": "beige", "Skin": "beige", "Brown": "brown", "Coffee Brown": "brown",
    "Copper": "brown", "Bronze": "brown", "Taupe": "brown", "Blue": "blue", "Turquoise Blue": "blue",
    "Teal": "blue", "Green": "green", "Olive": "green", "Sea Green": "green", "Red": "red", "Maroon": "red",
    "Burgundy": "red", "Rust": "red", "Pink": "pink", "Peach": "pink", "Magenta": "pink", "Yellow": "yellow",
    "Mustard": "yellow", "Gold": "yellow", "Orange": "yellow", "Purple": "purple", "Lavender": "purple",
    "Mauve": "purple",
}  # fmt: skip
"""Their colours in the atelier's words; others are left out."""

PATTERN_WORDS: dict[str, str] = {
    "stripe": "striped", "striped": "striped", "floral": "floral", "flower": "floral", "check": "checked",
    "checks": "checked", "checked": "checked", "polka": "dotted", "dot": "dotted", "dots": "dotted",
    "printed": "graphic", "print": "graphic", "graphic": "graphic",
}  # fmt: skip
"""Words of a name that tell a pattern; without any it is plain."""


class PhotosError(ValueError):
    """A folder that cannot be used; the message names the file and what was expected."""


@dataclasses.dataclass(frozen=True)
class Photo:
    """One photographed product, in the atelier's words.

    Attributes:
        photo_id: Name of its picture without ``.jpg``.
        name: As it is sold.
        type: Of `catalogue.TYPES`.
        colour: Of `catalogue.COLOURS`.
        pattern: Of `catalogue.PATTERNS`.
    """

    photo_id: str
    name: str
    type: str
    colour: str
    pattern: str


def read_photos(folder: pathlib.Path) -> list[Photo]:
    """The folder's products that the atelier knows to sell, in order of their id.

    Raises:
        PhotosError: A file or a column is missing, or no photo fits.
    """
    styles, archive = folder / STYLES, folder / PHOTOS
    for path in (styles, archive):
        if not path.is_file():
            raise PhotosError(
                f"there is no {path}; expected {STYLES} and {PHOTOS} in the layout of fashion-products"
            )
    try:
        with gzip.open(styles, "rt", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        with zipfile.ZipFile(archive) as photos:
            pictured = {name.removesuffix(".jpg") for name in photos.namelist()}
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zipfile.BadZipFile) as error:
        raise PhotosError(f"{folder} cannot be read: {error}; expected {STYLES} and {PHOTOS}") from error
    missing = {"id", "articleType", "baseColour", "productDisplayName"} - set(rows[0] if rows else {})
    if missing:
        raise PhotosError(f"{styles} lacks the columns {', '.join(sorted(missing))}")
    found = [
        Photo(row["id"], row["productDisplayName"] or row["articleType"], TYPES[row["articleType"]],
              COLOURS[row["baseColour"]], pattern_of(row["productDisplayName"]))
        for row in rows
        if row["id"] in pictured and row["articleType"] in TYPES and row["baseColour"] in COLOURS
    ]  # fmt: skip
    if not found:
        raise PhotosError(f"{folder} holds no photo of anything that the atelier sells")
    return sorted(found, key=lambda photo: (len(photo.photo_id), photo.photo_id))


def pattern_of(name: str) -> str:
    """The pattern that a product's name tells."""
    words = name.lower().replace("-", " ").split()
    return next((PATTERN_WORDS[word] for word in words if word in PATTERN_WORDS), "plain")
