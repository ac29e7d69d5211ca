"""Snowplow: enriched events as tab-separated values or as the JSON of the analytics SDKs.

The order of the tab-separated fields is the enriched event's (docs.snowplow.io, "Enriched stream TSV file
format"). Self-describing events and entities are brought within reach as ``$.action`` (the e-commerce
action), ``$.products`` and ``$.event_data``, whichever way they are written. Time is ``derived_tstamp``, which the
pipeline has corrected for the device's clock; times are UTC.
"""

from __future__ import annotations

from collections.abc import Collection

from contracts.retailer import Feed
from orchestration.sources.feeds.formats import Format

_ENRICHED = """
    app_id platform etl_tstamp collector_tstamp dvce_created_tstamp event event_id txn_id
    name_tracker v_tracker v_collector v_etl user_id user_ipaddress user_fingerprint domain_userid
    domain_sessionidx network_userid geo_country geo_region geo_city geo_zipcode geo_latitude
    geo_longitude geo_region_name ip_isp ip_organization ip_domain ip_netspeed page_url page_title
    page_referrer page_urlscheme page_urlhost page_urlport page_urlpath page_urlquery
    page_urlfragment refr_urlscheme refr_urlhost refr_urlport refr_urlpath refr_urlquery
    refr_urlfragment refr_medium refr_source refr_term mkt_medium mkt_source mkt_term mkt_content
    mkt_campaign contexts se_category se_action se_label se_property se_value unstruct_event
    tr_orderid tr_affiliation tr_total tr_tax tr_shipping tr_city tr_state tr_country ti_orderid
    ti_sku ti_name ti_category ti_price ti_quantity pp_xoffset_min pp_xoffset_max pp_yoffset_min
    pp_yoffset_max useragent br_name br_family br_version br_type br_renderengine br_lang
    br_features_pdf br_features_flash br_features_java br_features_director br_features_quicktime
    br_features_realplayer br_features_windowsmedia br_features_gears br_features_silverlight
    br_cookies br_colordepth br_viewwidth br_viewheight os_name os_family os_manufacturer
    os_timezone dvce_type dvce_ismobile dvce_screenwidth dvce_screenheight doc_charset doc_width
    doc_height tr_currency tr_total_base tr_tax_base tr_shipping_base ti_currency ti_price_base
    base_currency geo_timezone mkt_clickid mkt_network etl_tags dvce_sent_tstamp refr_domain_userid
    refr_device_tstamp derived_contexts domain_sessionid derived_tstamp event_vendor event_name
    event_format event_version event_fingerprint true_tstamp
"""
FIELDS = tuple(_ENRICHED.split())
"""The 131 fields of an enriched event, in order."""

ACTIONS = {
    "page_view": "visit", "screen_view": "visit", "page_ping": "ignore", "struct": "click", "link_click": "click",
    "site_search": "search", "search": "search", "product_view": "view", "list_view": "impression",
    "list_click": "click", "add_to_cart": "add_to_cart", "remove_from_cart": "remove_from_cart",
    "checkout_step": "checkout", "transaction": "purchase", "transaction_item": "purchase", "refund": "return",
    "trns_error": "error", "promo_view": "impression", "promo_click": "click", "transaction_legacy": "ignore",
    "application_error": "error", "button_click": "click", "submit_form": "ignore", "change_form": "ignore",
    "focus_form": "ignore", "consent_preferences": "ignore", "application_background": "ignore",
    "application_foreground": "visit", "application_install": "visit", "deep_link_received": "visit",
    "social_interaction": "share", "add_to_wishlist": "wishlist",
}  # fmt: skip

_ECOMMERCE = "com.snowplowanalytics.snowplow.ecommerce"
_FLAT = "com_snowplowanalytics_snowplow_ecommerce"


def _prepare(relation: str, _: Collection[str]) -> str:
    """Documents with action, products, order, the event's own data, and one name for what happened."""

    # SDK keys end in the schema's version, so they are found by their beginning.
    def key(beginning: str) -> str:
        return f"(doc->>list_filter(json_keys(doc), lambda k: starts_with(k, '{beginning}'))[1])::json"

    def entity(name: str) -> str:
        within = f"lambda c: contains(c->>'$.schema', '{_ECOMMERCE}/{name}/')"
        packed = f"list_transform(list_filter(contexts, {within}), lambda c: c->'$.data')"
        return f"coalesce(nullif(to_json({packed}), '[]'::json), {key(f'contexts_{_FLAT}_{name}_')})"

    event_data = f"coalesce(unstruct->'$.data.data', {key('unstruct_event_')})"
    action = (
        f"case when contains(unstruct->>'$.data.schema', '{_ECOMMERCE}/snowplow_ecommerce_action/') "
        f"then unstruct->'$.data.data' else {key(f'unstruct_event_{_FLAT}_snowplow_ecommerce_action_')} end"
    )
    return f"""
        select * exclude (contexts, unstruct, action, products, orders, event_data) replace (
            json_merge_patch(doc, json_object(
                'contexts', null, 'unstruct_event', null, 'derived_contexts', null,
                'action', action, 'products', products, 'event_data', event_data, 'order', orders->'$[0]',
                'happened', coalesce(action->>'$.type', case when doc->>'$.event' = 'transaction'
                    then 'transaction_legacy' when doc->>'$.event' = 'unstruct' then doc->>'$.event_name'
                    when doc->>'$.event' = 'struct' then coalesce(doc->>'$.se_action', 'struct')
                    else doc->>'$.event' end))) as doc)
        from (
            select *, {action} as action, {entity("product")} as products, {entity("transaction")} as orders,
                {event_data} as event_data
            from (
                select *, try_cast(doc->>'$.unstruct_event' as json) as unstruct,
                    from_json(coalesce(try_cast(doc->>'$.contexts' as json)->'$.data', '[]'::json), '["JSON"]')
                        as contexts
                from {relation}
            )
        )"""


FORMAT = Format(
    name="snowplow",
    preset=Feed(
        files=(),
        time_zone="UTC",
        columns=FIELDS,
        fields={
            "event_id": "$.event_id",
            "occurred_at": ("$.true_tstamp", "$.derived_tstamp", "$.collector_tstamp"),
            "received_at": "$.collector_tstamp",
            "action": "$.happened",
            "session_id": "$.domain_sessionid",
            "channel": "$.platform",
            "touchpoint": "page:{$.page_urlpath}",
            "product_id": ("@.id", "$.ti_sku"),
            "quantity": ("@.quantity", "$.ti_quantity"),
            "unit_price": ("@.price", "$.ti_price"),
            "currency": ("@.currency", "$.order.currency", "$.ti_currency", "$.tr_currency"),
            "query": ("$.event_data.terms[0]", "$.event_data.term"),
            "position": "@.position",
        },
        identifiers={"customer": "$.user_id", "snowplow_browser": "$.domain_userid",
                     "snowplow_network": "$.network_userid"},
        values={
            "action": ACTIONS,
            "channel": {"web": "web", "mob": "app", "app": "app", "pc": "app", "srv": "web", "tv": "app",
                        "cnsl": "app", "iot": "app"},
        },
        constants={"channel": "web"},
        items="$.products",
        detail="rest",
    ),
    recognises=lambda keys: {"collector_tstamp", "event_id"} <= keys and bool({"event_vendor", "v_tracker"} & keys),
    prepare=_prepare,
    documents=True,
    explode=frozenset({"purchase", "return", "impression", "view", "click", "add_to_cart", "remove_from_cart",
                       "wishlist"}),
    shed=("products", "useragent", "user_ipaddress", "page_urlquery", "happened"),
)  # fmt: skip
