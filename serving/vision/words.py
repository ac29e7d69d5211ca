"""From a shopper's words to filters and the words that are left.

A vector of words knows neither prices nor "not": these are taken out first, by rules that anyone can read.

Belongs here: the rules, and which products a word names. Does not belong here: vectors.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.engine.items import ItemTable

_MONEY = r"[€$£]?\s*(\d{1,6}(?:[.,]\d{1,2})?)\s*(?:€|\$|£|eur(?:os?)?\b|usd\b|dollars?\b|pounds?\b|bucks\b)?"
_BETWEEN = re.compile(rf"\b(?:between|from)\s+{_MONEY}\s*(?:and|to|-)\s*{_MONEY}", re.IGNORECASE)
_MOST = re.compile(
    rf"\b(?:under|below|less than|cheaper than|up to|at most|max(?:imum)?|no more than)\s+{_MONEY}",
    re.IGNORECASE,
)
_LEAST = re.compile(rf"\b(?:over|above|more than|at least|min(?:imum)?|from)\s+{_MONEY}", re.IGNORECASE)
_UNWANTED = r"(?!(?:without|not|no|except|excluding)\b)[^\W\d][\w-]*"
_NOT = re.compile(
    r"\b(?:without|not|no|except|excluding)\s+(?:any\s+|an?\s+|the\s+|in\s+)?"
    rf"({_UNWANTED}(?:\s*(?:,|\bor\b|\band\b|\bnor\b)\s*(?:any\s+|an?\s+)?{_UNWANTED})*)",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_][\w-]*")
_JOINING = {"and", "or", "nor", "any", "a", "an", "the"}
_SAME_COLOUR = {"gray": "grey", "violet": "purple", "tan": "beige", "cream": "white"}
SHORTEST_STEM = 3


class Understood(msgspec.Struct, frozen=True, kw_only=True):
    """What a query asks for.

    Attributes:
        words: What is left to be looked for.
        price_min: Least price, or None.
        price_max: Largest price, or None.
        colours: Colours asked for.
        not_colours: Colours that are not wanted.
        without: Other words that a result must not bear.
    """

    words: str
    price_min: float | None = None
    price_max: float | None = None
    colours: tuple[str, ...] = ()
    not_colours: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


def understand(text: str, colours: Sequence[str]) -> Understood:
    """Take prices, colours and what is not wanted out of a query.

    Args:
        text: As the shopper wrote it.
        colours: Names of colours that products have.
    """
    least: float | None = None
    most: float | None = None
    rest = text
    if found := _BETWEEN.search(rest):
        least, most = sorted((_amount(found.group(1)), _amount(found.group(2))))
        rest = _taken_out(rest, found)
    if found := _MOST.search(rest):
        most, rest = _amount(found.group(1)), _taken_out(rest, found)
    if found := _LEAST.search(rest):
        least, rest = _amount(found.group(1)), _taken_out(rest, found)
    unwanted: list[str] = []
    while found := _NOT.search(rest):
        unwanted += [word for word in _words(found.group(1)) if word not in _JOINING]
        rest = _taken_out(rest, found)
    known = {name.casefold(): name for name in colours}
    for other, name in _SAME_COLOUR.items():
        if name in known:
            known.setdefault(other, known[name])
    return Understood(
        words=" ".join(rest.split()) or text.strip(),
        price_min=least,
        price_max=most,
        colours=tuple(dict.fromkeys(known[word] for word in _words(rest) if word in known)),
        not_colours=tuple(dict.fromkeys(known[word] for word in unwanted if word in known)),
        without=tuple(dict.fromkeys(word for word in unwanted if word not in known)),
    )


class Lexicon:
    """Which items bear a word in their name, type or category.

    Args:
        items: Items of a release.
    """

    def __init__(self, items: ItemTable) -> None:
        self._size = items.size
        places: dict[str, list[int]] = {}
        for place in range(items.size):
            told = f"{items.name[place]} {items.type[place]} {items.category[place]}"
            for word in set(_words(told)):
                places.setdefault(word, []).append(place)
        self._places = {word: np.array(found, np.int32) for word, found in places.items()}

    def shares(self, text: str) -> NDArray[np.float32]:
        """float32[items], the share of a text's words that each bears; words that nothing bears do not count."""
        masks = [mask for word in set(_words(text)) - _JOINING if (mask := self.bearing(word)).any()]
        if not masks:
            return np.zeros(self._size, np.float32)
        shares: NDArray[np.float32] = np.mean(masks, axis=0, dtype=np.float32)
        return shares

    def bearing(self, word: str) -> NDArray[np.bool_]:
        """bool[items], those with a word that begins like this one without its ending ("stripes": "striped")."""
        stem = re.sub(r"(?:es|s|ed|y)$", "", word.casefold())
        if len(stem) < SHORTEST_STEM:
            stem = word.casefold()
        mask = np.zeros(self._size, np.bool_)
        for other, places in self._places.items():
            if other.startswith(stem):
                mask[places] = True
        return mask


def _words(text: str) -> list[str]:
    return [found.casefold() for found in _WORD.findall(text)]


def _amount(text: str) -> float:
    return float(text.replace(",", "."))


def _taken_out(text: str, found: re.Match[str]) -> str:
    return f"{text[: found.start()]} {text[found.end() :]}"
