"""Which class of the detector, which is a shard of the index, a product belongs to by the words for its type.

Belongs here: words of shops and public sets. Does not belong here: labels of masks (`classes.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from contracts.visual import WHOLE

_WORDS: dict[str, str] = {
    "bag": "bag handbag tote satchel backpack rucksack clutch wallet purse messenger duffel pouch briefcase",
    "belt": "belt",
    "boots": "boot",
    "footwear": "shoe sneaker trainer sandal heel loafer flat slipper pump clog wedge moccasin flop espadrille",
    "outer": "coat jacket blazer parka cardigan cape anorak waistcoat gilet shrug outwear outerwear suit tracksuit",
    "dress": "dress jumpsuit gown romper saree sari kurta-set playsuit",
    "sunglasses": "sunglass glass eyewear",
    "pants": "trouser pant jean legging capri chino churidar jegging jogger",
    "top": "top tee tshirt t-shirt shirt blouse sweater hoodie sweatshirt jumper pullover tunic kurta kurti polo vest "
    "longsleeve bodysuit camisole",
    "shorts": "short",
    "skirt": "skirt",
    "headwear": "hat cap beanie headband headwear beret",
    "scarf": "scarf scarve muffler tie stole dupatta shawl",
}
_CLASS_OF = {word: name for name, words in _WORDS.items() for word in words.split()}
_OTHERWISE = (
    "accessory", "accessories", "innerwear", "gift", "travel", "laptop", "mobile", "boxers", "briefs", "bra", "trunk",
    "socks", "stockings", "cufflinks", "tights",
)  # fmt: skip
"""Words that say that a later word does not mean what it says: shoe accessories are no shoes."""


def class_of(labels: Mapping[str, str]) -> str:
    """The class of a product, `WHOLE` where its words name none.

    Args:
        labels: Of a picture: ``class`` as given, else the words of ``type``, else those of ``category``.
    """
    if given := labels.get("class"):
        return given
    for name in ("type", "category"):
        if found := _named(labels.get(name, "")):
            return found
    return WHOLE


def _named(text: str) -> str:
    """The last word counts most: a ``shirt dress`` is a dress."""
    words = [_singular(word) for word in re.findall(r"[a-z][a-z-]*", text.lower())]
    if set(_OTHERWISE) & set(re.findall(r"[a-z-]+", text.lower())):
        return "bag" if words and words[-1] in ("bag", "pouch") else ""
    if "-".join(words[-2:]) in _CLASS_OF:
        return _CLASS_OF["-".join(words[-2:])]
    return next((_CLASS_OF[word] for word in reversed(words) if word in _CLASS_OF), "")


def _singular(word: str) -> str:
    if word in ("ties", "tie"):
        return "tie"
    for end, instead in (("sses", "ss"), ("ches", "ch"), ("ies", "y"), ("s", "")):
        if word.endswith(end) and not word.endswith("ss"):
            return word[: -len(end)] + instead
    return word
