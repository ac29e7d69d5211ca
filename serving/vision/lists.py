"""The lists of an answer: what each holds, how wide its band is, and what is said of a result.

Belongs here: one function per kind of list. Does not belong here: ordering (`choose.py`).
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.vision.choose import Group, described, sentence
from serving.vision.complete import Part
from serving.vision.index import Found, Index, Wish
from serving.vision.looks import Hotspot
from serving.vision.models import SURE, Visual
from serving.vision.personal import BAND
from serving.vision.seek import Aim, Seen
from serving.vision.words import Understood

SPREAD_SHARE = 0.25
"""Band of scores that are no likeness of pictures, as a share of the distance from the best to the last candidate."""


def seen_list(visual: Visual, seen: Seen) -> Group:
    """What looks like an item of a photo."""
    index = visual.index
    trait = seen.traits.get("colour")
    colour = -1
    if trait is not None and trait.confidence >= SURE and trait.value in index.colours:
        colour = index.colours.index(trait.value)

    def words(place: int, row: int) -> tuple[str, str]:
        lead = "closest match" if place == 0 else "looks alike"
        return "looks_alike", sentence((lead, described(index, row, colour)))

    return Group(seen.rows, seen.similar, "visual", words, colour, _likeness_band(seen.similar))


def similar_list(index: Index, found: Found, row: int, name: str) -> Group:
    """What looks like a product."""
    rows, similar = found
    colour = int(index.colour[row])

    def words(place: int, other: int) -> tuple[str, str]:
        lead = f"closest to {name}" if place == 0 else f"looks like {name}"
        return "looks_alike", sentence((lead, described(index, other, colour)))

    return Group(rows, similar, "visual", words, colour, _likeness_band(similar))


def words_list(index: Index, found: Found, meant: Understood) -> Group:
    """What fits words."""
    rows, similar = found
    bounded = meant.price_min is not None or meant.price_max is not None
    told = "in your price range" if bounded else ""

    def words(place: int, row: int) -> tuple[str, str]:
        return "fits_words", sentence(("fits your words", described(index, row, -1), told))

    return Group(rows, similar, "text", words, band=_spread_band(similar))


def part_list(part: Part, name: str, level: float | None, worn: Callable[[int], str]) -> Group:
    """What fills a missing part of a look.

    Args:
        part: The part.
        name: What it goes with.
        level: The shopper's price level, or None.
        worn: The shopper's usual size that a row is there in, empty for none.
    """
    told = "" if level is None or part.relaxed else "in your price range"

    def words(place: int, row: int) -> tuple[str, str]:
        size = "" if part.any_size else worn(row)
        return "goes_with", sentence((f"goes with {name}", size and f"in your size {size}", told))

    return Group(part.rows, part.scores, "outfit", words, band=_spread_band(part.scores))


def hotspot_list(index: Index, spot: Hotspot, wish: Wish) -> Group:
    """What answers a hotspot, as it was worked out with the release, without what may not be shown now."""
    allowed = index.allowed(wish)
    pairs = [
        (index.row_of[product], similar)
        for product, similar in zip(spot.products, spot.similarities, strict=True)
        if product in index.row_of and allowed[index.row_of[product]]
    ]

    def words(place: int, row: int) -> tuple[str, str]:
        return "looks_alike", sentence(
            ("as in the picture" if place == 0 else "looks alike", described(index, row, -1))
        )

    rows = np.array([row for row, _ in pairs], np.int64)
    similar = np.array([similar for _, similar in pairs], np.float32)
    return Group(rows, similar, "visual", words, band=_likeness_band(similar))


def photo_facts(aim: Aim, items: list[Seen], remember: bool) -> dict[str, Any]:
    """What a decision keeps of a photo: boxes, never pixels.

    Args:
        aim: What of it was wanted.
        items: What was found.
        remember: Consent to keep each item's vector (float16, base64), from which feedback can teach.
    """
    facts: dict[str, Any] = {"surface": "image", "objects": [_object(seen, remember) for seen in items]}
    if aim.box is not None:
        facts["box"] = aim.box
    if aim.point is not None:
        facts["point"] = aim.point
    return facts


def _object(seen: Seen, remember: bool) -> dict[str, Any]:
    told: dict[str, Any] = {
        "box": seen.found.box,
        "class": seen.found.label,
        "confidence": round(seen.found.confidence, 4),
        "searched": seen.shard,
    }
    if remember:
        told["vector"] = base64.b64encode(seen.vector.astype(np.float16).tobytes()).decode()
    return told


def _likeness_band(similar: NDArray[np.float32]) -> float:
    return min(BAND, max(1e-6, 2 * _spread_band(similar)))


def _spread_band(scores: NDArray[np.float32]) -> float:
    return max(1e-6, SPREAD_SHARE * float(scores[0] - scores[-1])) if len(scores) else 1e-6
