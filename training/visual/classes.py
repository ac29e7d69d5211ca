"""The classes of the detector, which are the shards of the index and the slots of outfits too.

Belongs here: what street-looks' labels and the atelier's types map to. Does not belong here: the
names (`contracts/visual.py`), boxes.
"""

from __future__ import annotations

from contracts.visual import CLASSES, WEARABLE, WHOLE

__all__ = ["ATELIER_TYPES", "CLASSES", "STREET_LABELS", "WEARABLE", "WHOLE"]

_STREET = {
    "bag": ("bag", "purse", "wallet"),
    "belt": ("belt",),
    "boots": ("boots",),
    "footwear": ("shoes", "clogs", "flats", "heels", "loafers", "pumps", "sandals", "sneakers", "wedges"),
    "outer": ("blazer", "cape", "cardigan", "coat", "jacket", "suit"),
    "dress": ("dress", "romper"),
    "sunglasses": ("sunglasses", "glasses"),
    "pants": ("pants", "jeans", "leggings"),
    "top": ("blouse", "bodysuit", "hoodie", "jumper", "shirt", "sweater", "sweatshirt", "t-shirt", "top", "vest"),
    "shorts": ("shorts",),
    "skirt": ("skirt",),
    "headwear": ("hat",),
    "scarf": ("scarf", "tie"),
}  # fmt: skip

STREET_LABELS: dict[str, str] = {label: name for name, labels in _STREET.items() for label in labels}
"""Class of a street-looks label; labels that are missing here (skin, hair, jewellery, hosiery, ...) are not boxed.

``suit`` is the jacket of one in those masks, ``vest`` is worn as a top as often as over one.
"""

_ATELIER = {
    "bag": ("tote", "satchel", "backpack", "clutch", "wallet"),
    "belt": ("belt",),
    "boots": ("boots",),
    "footwear": ("sneakers", "sandals", "heels", "loafers", "flats"),
    "outer": ("cardigan", "coat", "jacket", "blazer", "parka"),
    "dress": ("dress", "jumpsuit"),
    "sunglasses": ("sunglasses",),
    "pants": ("jeans", "trousers", "leggings"),
    "top": ("tee", "shirt", "blouse", "top", "sweater", "hoodie"),
    "shorts": ("shorts",),
    "skirt": ("skirt",),
    "headwear": ("beanie", "hat", "cap"),
    "scarf": ("scarf",),
}  # fmt: skip

ATELIER_TYPES: dict[str, str] = {kind: name for name, kinds in _ATELIER.items() for kind in kinds}
"""Class of an atelier type; gloves, watches, necklaces and socks are not boxed."""
