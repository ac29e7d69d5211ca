"""Shopify's exports of orders, customers and products (CSV).

An order has a row per line; what belongs to the order stands in its first row only and is carried down.
A cancelled order gives its purchases and, at the time of cancelling, a return of each line. ``Lineitem
discount`` is for the whole line, so it is divided by the quantity; a refund names no line, so it stays in
``detail``. Orders name a customer by e-mail, which is kept as its SHA-256 (of the trimmed, lower-case
address).
"""

from __future__ import annotations

from collections.abc import Collection

from contracts.retailer import Feed
from feature_repo.snapshots import quoted
from orchestration.sources.feeds.formats import Format

_LINE = "Lineitem "


def _carried(relation: str, columns: Collection[str], key: str, own: tuple[str, ...]) -> str:
    """Rows with the key's columns carried down from its first row."""
    moved = [name for name in columns if name != key and not name.startswith(own)]
    down = ", ".join(f"arg_min({quoted(c)}, c_n) filter ({quoted(c)} <> '') over (partition by {quoted(key)}) "
                     f"as {quoted(c)}" for c in moved)  # fmt: skip
    return f"select * replace ({down}) from {relation}" if down else f"select * from {relation}"


def _orders(relation: str, columns: Collection[str]) -> str:
    cancelled = "nullif(\"Cancelled at\", '')" if "Cancelled at" in columns else "null::varchar"
    discount = (
        'try_cast("Lineitem discount" as double) / nullif(try_cast("Lineitem quantity" as double), 0)'
        if "Lineitem discount" in columns
        else "null::double"
    )
    created = '"Created at"' if "Created at" in columns else "null::varchar"
    carried = _carried(relation, columns, "Name", (_LINE, "Name"))
    sku = "nullif(\"Lineitem sku\", '')" if "Lineitem sku" in columns else "null::varchar"
    numbered = f"""
        select *, {sku} as sku, {discount} as unit_discount,
            "Name" || '-' || row_number() over (partition by "Name" order by c_n) as line_id
        from ({carried})"""
    return f"""
        select *, 'purchase' as happened, {created} as happened_at, line_id as happened_id from ({numbered})
        union all
        select *, 'return', {cancelled}, line_id || '-cancelled' from ({numbered}) where {cancelled} is not null"""


def _products(relation: str, columns: Collection[str]) -> str:
    key = "Handle" if "Handle" in columns else "URL handle"
    own = ("Variant ", "Option", "Image ", "SKU", "Price", "Barcode", key)
    names = [name for name in ("Option1 Value", "Option2 Value", "Option3 Value") if name in columns]
    options = [f"nullif(nullif({quoted(name)}, ''), 'Default Title')" for name in names] or ["null"]
    sku = next((quoted(name) for name in ("Variant SKU", "SKU") if name in columns), "''")
    price = next((quoted(name) for name in ("Variant Price", "Price") if name in columns), None)
    status = "lower(\"Status\") = 'active'" if "Status" in columns else "true"
    published = "lower(\"Published\") = 'true'" if "Published" in columns else "true"
    # A row without a price is a further picture, not a variant.
    only = f"where coalesce({price}, '') <> ''" if price else ""
    return f"""
        select *, concat_ws(', ', {", ".join(options)}) as size,
            coalesce(nullif({sku}, ''), nullif(concat_ws('/', {quoted(key)}, {", ".join(options)}), '')) as product_id,
            ({published} and {status})::varchar as sellable
        from ({_carried(relation, columns, key, own)}) {only}"""


ORDERS = Format(
    name="shopify_orders",
    preset=Feed(
        files=(),
        fields={
            "event_id": "happened_id",
            "occurred_at": "happened_at",
            "action": "happened",
            "session_id": "Name",
            "channel": "Source",
            "touchpoint": ("store:{Location}", "shopify:{Source}"),
            "product_id": ("sku", "Lineitem name"),
            "quantity": "Lineitem quantity",
            "unit_price": "Lineitem price",
            "discount": "unit_discount",
            "currency": "Currency",
        },
        identifiers={"customer": ("Customer ID", "Customer Id"), "email_sha256": "sha256(Email)"},
        values={
            "channel": {
                "web": "web", "pos": "store", "iphone": "app", "android": "app", "shopify_draft_order": "support",
                "facebook": "social", "instagram": "social", "tiktok": "social", "amazon": "marketplace",
                "ebay": "marketplace",
            }
        },
        constants={"channel": "web"},
        consent={"marketing": "Accepts Marketing"},
        detail=("Name", "Financial Status", "Fulfillment Status", "Discount Code", "Discount Amount", "Shipping Method",
                "Refunded Amount", "Total", "Lineitem name", "Lineitem sku", "Vendor", "Tags"),
    ),
    recognises=lambda keys: {"Name", "Lineitem name", "Lineitem quantity", "Lineitem price"} <= keys,
    prepare=_orders,
)  # fmt: skip

CUSTOMERS = Format(
    name="shopify_customers",
    preset=Feed(
        files=(), rows="customers", fields={"customer_id": ("Customer ID", "Id", "sha256(Email)")}, detail=()
    ),
    recognises=lambda keys: (
        {"Email", "Total Spent"} <= keys and bool({"Total Orders", "Orders Count"} & keys)
    ),
)

PRODUCTS = Format(
    name="shopify_products",
    preset=Feed(
        files=(),
        rows="products",
        fields={
            "product_id": "product_id",
            "name": "Title",
            "department": "Product Category",
            "category": ("Type", "Custom Product Type", "Product Category"),
            "type": ("Type", "Custom Product Type"),
            "brand": "Vendor",
            "manufacturer": "Vendor",
            "size": "size",
            "sellable": "sellable",
        },
        detail=("Handle", "URL handle", "Tags", "Variant Price", "Price", "Variant Barcode", "Image Src", "Variant Image",
                "Product image URL", "Option1 Value", "Option2 Value", "Option3 Value"),
    ),
    recognises=lambda keys: bool({"Handle", "URL handle"} & keys) and {"Title", "Vendor"} <= keys,
    prepare=_products,
)  # fmt: skip
