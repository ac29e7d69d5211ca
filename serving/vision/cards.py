"""Products as pages show them, and results as clients get them.

Belongs here: filling the wire types. Does not belong here: choosing what is shown (`choose.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from serving.releases.release import Release
from serving.routes.vision_types import AttributeValue, ProductCard, VisualItem
from serving.vision.choose import Entry
from serving.vision.media import Media
from serving.vision.models import Trait


class Cardmaker:
    """Describes products of one release.

    Args:
        release: The release.
        media: Pictures for pages.
    """

    def __init__(self, release: Release, media: Media) -> None:
        self._items = release.engine.items
        self._index = None if release.visual is None else release.visual.index
        self._media = media

    def card(self, item: int) -> ProductCard:
        """A product."""
        row = -1 if self._index is None else self._index.row_of_item.get(item, -1)
        return ProductCard(**self._facts(item, row))

    def lists(self, lists: Iterable[Sequence[Entry]]) -> list[tuple[VisualItem, ...]]:
        """Results list by list; positions count through all of them, as in the decision."""
        filled = []
        position = 0
        for entries in lists:
            filled.append(tuple(self._result(entry, position + place) for place, entry in enumerate(entries)))
            position += len(entries)
        return filled

    def attributes(self, traits: Mapping[str, Trait]) -> dict[str, AttributeValue]:
        """What the attribute heads say of an item."""
        return {
            name: AttributeValue(value=trait.value, confidence=trait.confidence)
            for name, trait in traits.items()
        }

    def _result(self, entry: Entry, position: int) -> VisualItem:
        return VisualItem(
            **self._facts(entry.item, entry.row),
            position=position,
            score=entry.score,
            similarity=round(entry.similarity, 4),
            propensity=entry.propensity,
            reason=entry.reason,
        )

    def _facts(self, item: int, row: int) -> dict[str, Any]:
        items, index = self._items, self._index
        product_id = items.product_ids[item]
        price = math.nan if index is None or row < 0 else float(index.price[row])
        level = items.levels(item)
        own = self._media.address(product_id)
        # Where rows are kinds of product, as a grocer's are, their pictures show the kind.
        kind = None if own or index is None or row < 0 else self._media.address(index.products[row])
        return {
            "product_id": product_id,
            "name": items.name[item] or product_id,
            "department": level["department"],
            "category": level["category"],
            "brand": level["brand"],
            "price": round(price, 2) if math.isfinite(price) else None,
            "in_stock": None if index is None or row < 0 else bool(index.in_stock[row]),
            "sizes": () if index is None or row < 0 else tuple(index.sizes.offered(row)),
            "image": own or kind,
            "image_shows": "product" if own else "kind" if kind else None,
            "searchable": row >= 0,
        }
