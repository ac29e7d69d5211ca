"""What a shop offers: goods, content and services under one type.

Belongs here: the `Product` type. Does not belong here: a product's computed features.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

ProductKind = Literal["good", "content", "service"]


class Product(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that can be shown to a customer.

    Attributes:
        product_id: The shop's own identifier, unique in the catalogue.
        name: What a person reads.
        department: Coarsest level of the hierarchy.
        category: Middle level.
        type: Finest level: products of one type replace one another.
        brand: Brand or brand class (national, private).
        manufacturer: Who makes it.
        size: Package size as printed.
        kind: Goods, content or service.
        sellable: False for bookkeeping rows (coupons, fuel corrections) that must not be shown.
        attributes: Anything else the source knows.
    """

    product_id: str
    name: str
    department: str = ""
    category: str = ""
    type: str = ""
    brand: str = ""
    manufacturer: str = ""
    size: str = ""
    kind: ProductKind = "good"
    sellable: bool = True
    attributes: dict[str, Any] = {}
