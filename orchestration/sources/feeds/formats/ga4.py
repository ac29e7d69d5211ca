"""Google Analytics 4: rows of the BigQuery export (``events_YYYYMMDD``), as JSON lines or Parquet.

``event_timestamp`` is microseconds in UTC. ``event_params`` is a list of keys and typed values, brought
within reach as ``$.params.KEY`` (``support.google.com/analytics/answer/7029846`` documents the schema). The
export gives an event no number of its own, so one is made from its content. ``price`` and ``discount``
of an item are for one unit; a session is the device's ``ga_session_id``.
"""

from __future__ import annotations

from collections.abc import Collection

from contracts.retailer import Feed
from orchestration.sources.feeds.formats import Format

ACTIONS = {
    "view_item": "view", "view_item_list": "impression", "select_item": "click", "view_promotion": "impression",
    "select_promotion": "click", "search": "search", "view_search_results": "search", "page_view": "visit",
    "screen_view": "visit", "session_start": "visit", "first_visit": "visit", "first_open": "visit",
    "login": "visit", "click": "click", "share": "share", "file_download": "click",
    "add_to_cart": "add_to_cart", "remove_from_cart": "remove_from_cart", "add_to_wishlist": "wishlist",
    "view_cart": "visit", "begin_checkout": "checkout", "add_shipping_info": "checkout",
    "add_payment_info": "checkout", "purchase": "purchase", "in_app_purchase": "purchase", "refund": "return",
    "app_exception": "error", "notification_receive": "impression@push", "notification_open": "open@push",
    "notification_dismiss": "dismiss@push", "user_engagement": "ignore", "scroll": "ignore",
    "video_start": "ignore", "video_progress": "ignore", "video_complete": "ignore", "form_start": "ignore",
    "form_submit": "ignore", "app_update": "ignore", "app_remove": "ignore", "app_clear_data": "ignore",
    "os_update": "ignore", "sign_up": "ignore",
}  # fmt: skip

_VALUE = '{"string_value":"VARCHAR","int_value":"VARCHAR","float_value":"VARCHAR","double_value":"VARCHAR"}'


def _prepare(relation: str, _: Collection[str]) -> str:
    pairs = f"""from_json(coalesce(doc->'$.event_params', '[]'::json), '[{{"key":"VARCHAR","value":{_VALUE}}}]')"""
    return f"""
        select * replace (json_merge_patch(doc, json_object('event_params', null, 'params', params)) as doc)
        from (
            select *, to_json(map_from_entries(list_transform(
                list_filter({pairs}, lambda pair: pair.key is not null),
                lambda pair: {{'k': pair.key, 'v': coalesce(pair.value.string_value, pair.value.int_value,
                    pair.value.double_value, pair.value.float_value)}}))) as params
            from {relation}
        )"""


FORMAT = Format(
    name="ga4",
    preset=Feed(
        files=(),
        time_format="epoch_us",
        fields={
            "occurred_at": "$.event_timestamp",
            "action": "$.event_name",
            "session_id": "{$.user_pseudo_id}.{$.params.ga_session_id}",
            "channel": "$.platform",
            "touchpoint": ("page:{$.path}", "screen:{$.params.firebase_screen}"),
            "product_id": ("@.item_id", "@.item_name", "$.params.product_id", "$.params.item_id"),
            "quantity": ("@.quantity", "$.params.quantity"),
            "unit_price": ("@.price", "$.params.price"),
            "discount": "@.discount",
            "currency": "$.params.currency",
            "query": "$.params.search_term",
            "position": ("@.index", "@.item_list_index"),
        },
        identifiers={"customer": "$.user_id", "ga_client": "$.user_pseudo_id", "device": "$.device.advertising_id"},
        values={"action": ACTIONS, "channel": {"web": "web", "android": "app", "ios": "app"}},
        consent={"analytics": "$.privacy_info.analytics_storage", "marketing": "$.privacy_info.ads_storage"},
        items="$.items",
    ),
    recognises=lambda keys: {"event_name", "event_params", "event_timestamp"} <= keys,
    prepare=lambda relation, columns: f"""
        select * replace (json_merge_patch(doc, json_object('path', nullif(regexp_extract(
            doc->>'$.params.page_location', '^[a-z]+://[^/]+(/[^?#]*)', 1), ''))) as doc)
        from ({_prepare(relation, columns)})""",
    documents=True,
    explode=frozenset({"purchase", "return", "impression", "click", "view", "add_to_cart", "remove_from_cart",
                       "wishlist"}),
    shed=("items", "path"),
)  # fmt: skip
