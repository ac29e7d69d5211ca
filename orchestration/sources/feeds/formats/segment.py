"""Segment and RudderStack: e-commerce events in the track, page, screen and identify calls of their specs.

Names of events are those of the e-commerce, e-mail and mobile specs (segment.com/docs/connections/spec and
rudderstack.com/docs/event-spec, both alike). Time is ``timestamp``, which the collector has corrected for
the device's clock. An order of several products becomes one event per line. ``price`` is for one unit; a
discount on the whole order stays in ``detail``.
"""

from __future__ import annotations

from contracts.retailer import Feed
from orchestration.sources.feeds.formats import Format

ACTIONS = {
    # Browsing
    "Products Searched": "search", "Product List Viewed": "impression", "Product List Filtered": "impression",
    "Promotion Viewed": "impression", "Promotion Clicked": "click", "Product Clicked": "click",
    "Product Viewed": "view", "Product Shared": "share", "Cart Shared": "share", "Product Reviewed": "review",
    "page": "visit", "screen": "visit", "identify": "visit", "alias": "visit", "group": "visit",
    # Cart and wishlist
    "Product Added": "add_to_cart", "Product Removed": "remove_from_cart", "Cart Viewed": "visit",
    "Product Added to Wishlist": "wishlist", "Product Removed from Wishlist": "dismiss",
    "Wishlist Product Added to Cart": "add_to_cart",
    # Orders
    "Checkout Started": "checkout", "Checkout Step Viewed": "checkout", "Checkout Step Completed": "checkout",
    "Payment Info Entered": "checkout", "Order Completed": "purchase", "Order Updated": "ignore",
    "Order Refunded": "return", "Order Cancelled": "return", "Order Delivered": "delivery",
    # Coupons
    "Coupon Entered": "click", "Coupon Applied": "redeem", "Coupon Denied": "error", "Coupon Removed": "dismiss",
    # E-mail
    "Email Delivered": "impression@email", "Email Opened": "open@email", "Email Link Clicked": "click@email",
    "Email Bounced": "error@email", "Email Marked as Spam": "complaint@email", "Unsubscribed": "unsubscribe@email",
    # Mobile
    "Application Installed": "visit@app", "Application Opened": "visit@app", "Application Updated": "ignore",
    "Application Backgrounded": "ignore", "Application Uninstalled": "ignore", "Application Crashed": "error@app",
    "Install Attributed": "ignore", "Deep Link Opened": "visit@app", "Deep Link Clicked": "click@app",
    "Push Notification Received": "impression@push", "Push Notification Tapped": "click@push",
    "Push Notification Bounced": "error@push",
}  # fmt: skip
"""Their names -> ours; an ``@`` names the channel, where the name settles it."""

FORMAT = Format(
    name="segment",
    preset=Feed(
        files=(),
        fields={
            "event_id": ("$.messageId", "$.message_id"),
            "occurred_at": ("$.timestamp", "$.originalTimestamp", "$.sentAt", "$.receivedAt"),
            "received_at": "$.receivedAt",
            "action": ("$.event", "$.type"),
            "session_id": ("$.context.sessionId", "$.context.session.id", "$.properties.session_id"),
            "channel": ("$.context.os.name", "$.context.library.name"),
            "touchpoint": ("page:{$.context.page.path}", "page:{$.properties.path}", "screen:{$.name}"),
            "product_id": ("@.product_id", "@.sku", "$.properties.product_id", "$.properties.sku"),
            "quantity": ("@.quantity", "$.properties.quantity"),
            "unit_price": ("@.price", "$.properties.price"),
            "currency": "$.properties.currency",
            "query": "$.properties.query",
            "media_id": "$.properties.media_id",
            "decision_id": ("@.decision_id", "$.properties.decision_id"),
            "position": ("@.position", "$.properties.position"),
        },
        identifiers={
            "customer": "$.userId",
            "anonymous": "$.anonymousId",
            "device": "$.context.device.id",
            "email_sha256": "sha256($.email)",
        },
        values={
            "action": ACTIONS,
            "channel": {
                "ios": "app", "ipados": "app", "android": "app", "analytics-ios": "app", "analytics-android": "app",
                "analytics-kotlin": "app", "analytics-swift": "app", "rudder-android-library": "app",
                "rudder-ios-library": "app",
            },
        },
        constants={"channel": "web"},
        consent={
            "analytics": ("$.context.consent.categoryPreferences.Analytics",
                          "$.context.consent.categoryPreferences.analytics"),
            "personalization": ("$.context.consent.categoryPreferences.Functional",
                                "$.context.consent.categoryPreferences.functional"),
            "marketing": ("$.context.consent.categoryPreferences.Advertising",
                          "$.context.consent.categoryPreferences.advertising"),
        },
        items="$.properties.products",
    ),
    recognises=lambda keys: {"messageId", "type"} <= keys and bool({"anonymousId", "userId"} & keys),
    # An address lies in the traits of identify calls, or in the context or properties of others.
    prepare=lambda relation, _: f"""select * replace (json_merge_patch(doc, json_object('email', coalesce(
        doc->>'$.traits.email', doc->>'$.context.traits.email', doc->>'$.properties.email'))) as doc)
        from {relation}""",
    explode=frozenset({"purchase", "return", "impression", "add_to_cart", "remove_from_cart", "wishlist"}),
    detail="$.properties",
    shed=("products", "email"),
)  # fmt: skip
