"""A mapping proposed for plain columns, from their names and words.

A proposal is shown by `continuum sources check` to be looked at and put into the yaml; intake never guesses.

Belongs here: names that columns and actions usually have. Does not belong here: applying a mapping.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from contracts.retailer import Feed

COLUMNS: dict[str, tuple[str, ...]] = {
    "event_id": ("event_id", "eventid", "id", "uuid", "message_id", "transaction_line_id", "line_id"),
    "occurred_at": (
        "occurred_at", "timestamp", "event_time", "event_timestamp", "time", "datetime", "date_time", "created_at",
        "ts", "when", "invoicedate", "invoice_date", "order_date", "orderdate", "purchased_at", "date",
    ),
    "received_at": ("received_at", "ingested_at", "loaded_at"),
    "action": ("action", "event", "event_type", "event_name", "eventtype", "type", "activity", "what"),
    "channel": ("channel", "sales_channel", "medium"),
    "session_id": ("session_id", "session", "visit_id", "user_session", "basket_id", "invoice", "invoiceno",
                   "order_id", "receipt", "receipt_no"),
    "product_id": ("product_id", "item_id", "itemid", "sku", "stockcode", "stock_code", "article_id", "article",
                   "product", "asin", "ean", "gtin"),
    "quantity": ("quantity", "qty", "units", "amount_of_items", "count"),
    "unit_price": ("unit_price", "unitprice", "price", "price_each"),
    "line_total": ("line_total", "total", "amount", "sales_value", "revenue"),
    "discount": ("discount", "unit_discount"),
    "currency": ("currency", "currency_code"),
    "query": ("query", "search_term", "search_query", "keyword", "search"),
    "position": ("position", "rank", "slot"),
    "touchpoint": ("touchpoint", "page", "page_url", "url", "path", "screen", "store_id", "store", "shop"),
}  # fmt: skip
IDENTIFIERS: dict[str, tuple[str, ...]] = {
    "customer": (
        "customer_id",
        "customerid",
        "user_id",
        "userid",
        "customer",
        "user",
        "client_id",
        "household_id",
        "who",
    ),
    "anonymous": ("anonymous_id", "visitor_id", "visitorid", "cookie_id", "cookie", "fullvisitorid"),
    "device": ("device_id", "device"),
    "loyalty_card": ("loyalty_card", "card_id", "loyalty_id", "card_number"),
    "email_sha256": ("email", "e_mail", "email_address", "mail"),
}
ACTIONS: dict[str, tuple[str, ...]] = {
    "view": ("product_view", "product_viewed", "view_item", "detail", "pageview", "pdp", "viewed"),
    "visit": ("page_view", "session_start", "page"),
    "click": ("clicked", "click_item"),
    "add_to_cart": ("addtocart", "cart", "add_cart", "cart_add", "add", "added_to_cart", "basket"),
    "remove_from_cart": ("remove", "cart_remove", "removefromcart"),
    "purchase": ("buy", "order", "sale", "transaction", "bought", "purchased", "paid", "order_completed"),
    "return": ("refund", "returned", "refunded"),
    "search": ("searched", "query"),
    "wishlist": ("favorite", "favourite", "like", "save", "add_to_wishlist"),
    "checkout": ("begin_checkout", "checkout_started"),
    "contact_support": ("support", "ticket", "call", "contact"),
}


def propose(
    columns: Collection[str], words: Collection[str] = (), feed: Feed | None = None
) -> dict[str, object]:
    """A mapping for plain columns, as the yaml would say it.

    Args:
        columns: Names of the columns.
        words: Values of the column that tells the action, where known.
        feed: What is mapped already; only the rest is proposed.

    Returns:
        ``fields``, ``identifiers``, ``values``, ``constants``, as far as there is something to propose.
    """
    own = feed or Feed()
    plain = {_plain(name): name for name in reversed(list(columns))}
    taken = {path for path in own.fields.values() if isinstance(path, str)}
    fields: dict[str, str] = {}
    for field, candidates in COLUMNS.items():
        if (
            field in own.fields
            or field in own.constants
            or (field == "line_total" and "unit_price" in fields)
        ):
            continue
        found = next((plain[name] for name in candidates if name in plain and plain[name] not in taken), None)
        if found is not None:
            fields[field] = f"store:{{{found}}}" if _plain(found) in {"store", "store_id", "shop"} else found
            taken.add(found)
    identifiers = {}
    for kind, candidates in IDENTIFIERS.items():
        found = next((plain[name] for name in candidates if name in plain and plain[name] not in taken), None)
        if found is not None and kind not in own.identifiers:
            identifiers[kind] = f"sha256({found})" if kind == "email_sha256" else found
    constants: dict[str, str] = {}
    if "action" not in fields and "action" not in own.fields and "action" not in own.constants:
        constants["action"] = "purchase" if {"quantity", "line_total"} & set(fields) else "visit"
    if "channel" not in fields and "channel" not in own.fields and "channel" not in own.constants:
        constants["channel"] = "store" if str(fields.get("touchpoint", "")).startswith("store:") else "web"
    known = {alias: ours for ours, aliases in ACTIONS.items() for alias in (*aliases, ours)}
    actions = {
        word: known[_plain(word)]
        for word in sorted(words)
        if known.get(_plain(word), word.lower()) != word.lower()
    }
    proposal: dict[str, object] = {}
    for key, value in (("fields", fields), ("identifiers", identifiers), ("constants", constants)):
        if value:
            proposal[key] = value
    if actions:
        proposal["values"] = {"action": actions}
    return proposal


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_")
