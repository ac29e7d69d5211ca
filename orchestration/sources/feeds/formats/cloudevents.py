"""CloudEvents 1.0 in JSON: one a line, one a file, or a batch (an array).

``source`` and ``id`` together are unique (section "REQUIRED Attributes" of the CloudEvents specification).
``data_base64`` is opened. What ``data`` holds is the sender's affair: keys of our own names are taken, the
rest is for the mapping (``fields: {product_id: $.data.article}``). Of ``type`` the last words are read:
``com.shop.product.viewed`` is ``product.viewed``.
"""

from __future__ import annotations

from contracts.retailer import Feed
from orchestration.sources.feeds.formats import Format

ACTIONS = {
    "product.viewed": "view", "product.view": "view", "item.viewed": "view", "page.viewed": "visit",
    "page.view": "visit", "product.clicked": "click", "search.performed": "search", "products.searched": "search",
    "cart.item_added": "add_to_cart", "cart.added": "add_to_cart", "product.added": "add_to_cart",
    "cart.item_removed": "remove_from_cart", "product.removed": "remove_from_cart",
    "checkout.started": "checkout", "order.completed": "purchase", "order.placed": "purchase",
    "order.created": "purchase", "order.paid": "ignore", "order.updated": "ignore", "order.returned": "return",
    "order.refunded": "return", "order.delivered": "delivery", "parcel.delivered": "delivery",
    "ticket.created": "contact_support", "complaint.created": "complaint", "review.created": "review",
}  # fmt: skip

_TEXT = "try(decode(from_base64(doc->>'$.data_base64')))"

FORMAT = Format(
    name="cloudevents",
    preset=Feed(
        files=(),
        fields={
            "event_id": "{$.source}/{$.id}",
            "occurred_at": "$.time",
            "action": ("$.data.action", "$.words"),
            "session_id": "$.data.session_id",
            "channel": "$.data.channel",
            "touchpoint": ("$.data.touchpoint", "$.subject"),
            "product_id": ("@.product_id", "@.sku", "$.data.product_id", "$.data.sku"),
            "quantity": ("@.quantity", "$.data.quantity"),
            "unit_price": ("@.unit_price", "@.price", "$.data.unit_price", "$.data.price"),
            "discount": ("@.discount", "$.data.discount"),
            "currency": "$.data.currency",
            "query": "$.data.query",
            "position": ("@.position", "$.data.position"),
            "media_id": "$.data.media_id",
            "decision_id": "$.data.decision_id",
            "moment": "$.data.moment",
        },
        identifiers={
            "customer": ("$.data.customer_id", "$.data.user_id"),
            "anonymous": "$.data.anonymous_id",
            "device": "$.data.device_id",
            "loyalty_card": "$.data.loyalty_card",
            "email_sha256": ("$.data.email_sha256", "sha256($.data.email)"),
        },
        values={"action": ACTIONS},
        constants={"channel": "web"},
        items="$.data.items",
    ),
    recognises=lambda keys: {"specversion", "type", "source", "id"} <= keys,
    prepare=lambda relation, _: (
        f"""
        select * replace (json_merge_patch(doc, json_object(
            'words', lower(regexp_extract(doc->>'$.type', '([^.]+\\.[^.]+|[^.]+)$', 1)),
            'data', coalesce(doc->'$.data', try_cast({_TEXT} as json)), 'data_base64', null)) as doc)
        from {relation}"""
    ),
    detail="$.data",
    shed=("items", "email"),
)
