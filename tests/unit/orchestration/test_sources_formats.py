"""Exports of other systems, row by row: what they say and what it means in our words."""

from __future__ import annotations

import base64
import csv
import datetime as dt
import hashlib
import json
import pathlib
from typing import Any

import pytest
from sources_shop import events, jsonl, one, read, shop

from contracts.retailer import Feed
from orchestration.sources.feeds.formats import segment
from orchestration.sources.feeds.formats.snowplow import FIELDS

AT = dt.datetime(2024, 3, 1, 10, 0, 0, 123000, tzinfo=dt.UTC)
EMAIL = hashlib.sha256(b"ada@example.org").hexdigest()


def call(**more: Any) -> dict[str, Any]:
    base = {
        "type": "track", "messageId": "m1", "anonymousId": "a1", "timestamp": "2024-03-01T10:00:00.123Z",
        "receivedAt": "2024-03-01T10:00:01Z", "context": {"page": {"path": "/shoes"}},
    }  # fmt: skip
    return base | more


def test_a_segment_order_of_two_products_is_two_events(tmp_path: pathlib.Path) -> None:
    order = call(
        event="Order Completed", userId="u1",
        context={"page": {"path": "/done"}, "traits": {"email": " Ada@example.org"},
                 "consent": {"categoryPreferences": {"Advertising": False, "Analytics": True}}},
        properties={"order_id": "o1", "currency": "usd", "discount": 5,
                    "products": [{"product_id": "p1", "price": 3.5, "quantity": 2, "position": 1},
                                 {"sku": "p2", "price": "1"}]},
    )  # fmt: skip
    rows, part = one(tmp_path, Feed(files=jsonl(tmp_path / "s.jsonl", [order])))
    assert part.format == "segment"
    first, second = rows
    assert (first["event_id"], second["event_id"]) == ("web:m1-1", "web:m1-2")
    assert first["occurred_at"] == AT
    assert first["received_at"] == dt.datetime(2024, 3, 1, 10, 0, 1, tzinfo=dt.UTC)
    assert (first["action"], first["channel"], first["touchpoint"]) == ("purchase", "web", "page:/done")
    assert (first["product_id"], first["quantity"], first["unit_price"], first["position"]) == (
        "p1",
        2,
        3.5,
        1,
    )
    assert (second["product_id"], second["quantity"], second["unit_price"]) == ("p2", 1, 1)
    assert first["currency"] == "USD"
    assert "discount" not in first  # It is the order's, not the unit's; it stays in detail.
    assert json.loads(first["detail"])["discount"] == 5
    assert json.loads(first["consent"]) == ["analytics"]
    assert json.loads(first["identifiers"]) == [
        {"kind": "customer", "value": "u1"},
        {"kind": "anonymous", "value": "a1"},
        {"kind": "email_sha256", "value": EMAIL},
    ]
    assert "ada" not in json.dumps([str(row) for row in rows]).lower()


def test_segment_pages_screens_mail_and_phones(tmp_path: pathlib.Path) -> None:
    rows, part = one(tmp_path, Feed(files=jsonl(tmp_path / "s.jsonl", [
        call(messageId="1", type="page"),
        call(messageId="2", event="Email Opened"),
        call(messageId="3", event="product viewed", properties={"product_id": 77}, context={"os": {"name": "iOS"}}),
        call(messageId="4", event="Products Searched", properties={"query": "red shoes"}),
        call(messageId="5", event="Application Backgrounded"),
        call(messageId="6", event="Cart Viewed", properties={"products": [{"product_id": 1}, {"product_id": 2}]}),
    ])))  # fmt: skip
    seen = [(row["action"], row["channel"], row.get("product_id"), row.get("query")) for row in rows]
    assert seen == [
        ("visit", "web", None, None), ("open", "email", None, None), ("view", "app", "77", None),
        ("search", "web", None, "red shoes"), ("visit", "web", None, None),
    ]  # fmt: skip
    assert (part.ignored, part.broken) == (1, 0)


def test_the_words_of_a_format_can_be_added_to(tmp_path: pathlib.Path) -> None:
    path = jsonl(
        tmp_path / "s.jsonl", [call(event="Quiz Finished"), call(messageId="2", event="Product Viewed")]
    )
    rows, _ = one(tmp_path, Feed(files=path, values={"action": {"Quiz Finished": "click@app"}}))
    assert [(row["action"], row["channel"]) for row in rows] == [("view", "web"), ("click", "app")]
    assert len(segment.ACTIONS) > 45


def test_ga4_rows_with_params_and_items(tmp_path: pathlib.Path) -> None:
    base = {
        "event_date": "20240301", "event_timestamp": "1709287200123000", "user_pseudo_id": "g.1", "user_id": "u1",
        "platform": "WEB", "device": {"category": "mobile"}, "privacy_info": {"analytics_storage": "Yes"},
        "event_params": [
            {"key": "ga_session_id", "value": {"string_value": None, "int_value": "99"}},
            {"key": "currency", "value": {"string_value": "EUR"}},
            {"key": "search_term", "value": {"string_value": "linen"}},
            {"key": "page_location", "value": {"string_value": "https://shop.example/sale/?a=1"}},
        ],
    }  # fmt: skip
    items = [
        {"item_id": "p1", "price": 3.5, "quantity": "2", "index": 4, "discount": 0.5},
        {"item_id": "p2", "price": 9},
    ]
    path = jsonl(tmp_path / "g.jsonl", [
        base | {"event_name": "purchase", "items": items}, base | {"event_name": "search", "items": []},
        base | {"event_name": "user_engagement"},
        base | {"event_name": "add_to_cart", "platform": "ANDROID", "items": items[:1]},
    ])  # fmt: skip
    rows, part = one(tmp_path, Feed(files=path))
    assert part.format == "ga4"
    assert part.ignored == 1
    by = {(row["action"], row.get("product_id")): row for row in rows}
    assert set(by) == {("purchase", "p1"), ("purchase", "p2"), ("search", None), ("add_to_cart", "p1")}
    sold = by["purchase", "p1"]
    assert sold["occurred_at"] == AT
    assert (sold["quantity"], sold["unit_price"], sold["discount"], sold["position"]) == (2, 3.5, 0.5, 4)
    assert (sold["session_id"], sold["touchpoint"], sold["currency"]) == ("g.1.99", "page:/sale/", "EUR")
    assert json.loads(sold["consent"]) == ["analytics"]
    assert by["search", None]["query"] == "linen"
    assert by["add_to_cart", "p1"]["channel"] == "app"
    assert len({row["event_id"] for row in rows}) == len(rows)


def test_ga4_parquet_says_the_same_as_its_json(tmp_path: pathlib.Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = {
        "event_date": "20240301", "event_timestamp": 1709287200123000, "event_name": "view_item", "user_pseudo_id": "g.1",
        "event_params": [{"key": "ga_session_id", "value": {"string_value": None, "int_value": 99}}],
        "items": [{"item_id": "p1", "price": 3.5}], "platform": "WEB",
    }  # fmt: skip
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "g.parquet")
    rows, _ = one(tmp_path, Feed(files=str(tmp_path / "g.parquet")))
    assert [(r["action"], r["product_id"], r["unit_price"], r["session_id"]) for r in rows] == [
        ("view", "p1", 3.5, "g.1.99")
    ]
    assert rows[0]["occurred_at"] == AT


ECOMMERCE = "iglu:com.snowplowanalytics.snowplow.ecommerce"


def snowplow_line(**given: str) -> str:
    base = {
        "app_id": "shop", "platform": "web", "collector_tstamp": "2024-03-01 10:00:01.000", "event_id": "e1",
        "derived_tstamp": "2024-03-01 10:00:00.123", "v_tracker": "js", "user_id": "u1", "domain_userid": "d1",
        "domain_sessionid": "s1", "page_urlpath": "/shoes", "event": "page_view", "event_name": "page_view",
    }  # fmt: skip
    row = base | given
    return "\t".join(row.get(name, "") for name in FIELDS)


def enveloped(kind: str, data: Any) -> dict[str, Any]:
    return {"schema": f"{ECOMMERCE}/{kind}/jsonschema/1-0-0", "data": data}


def test_snowplow_tab_separated_events(tmp_path: pathlib.Path) -> None:
    action = {"schema": "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0",
              "data": enveloped("snowplow_ecommerce_action", {"type": "add_to_cart"})}  # fmt: skip
    products = {"schema": "iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-1", "data": [
        enveloped("product", {"id": "p1", "price": 3.5, "quantity": 2, "currency": "EUR"}),
        enveloped("page", {"type": "home"}), enveloped("product", {"id": "p2", "price": 1}),
    ]}  # fmt: skip
    path = tmp_path / "good.tsv"
    path.write_text("\n".join([
        snowplow_line(),
        snowplow_line(event="unstruct", event_id="e2", event_name="snowplow_ecommerce_action",
                      unstruct_event=json.dumps(action), contexts=json.dumps(products)),
        snowplow_line(event="transaction_item", event_id="e3", ti_sku="p9", ti_price="4",
                      ti_quantity="3", ti_currency="USD"),
        snowplow_line(event="page_ping", event_id="e4"),
        "only\tthree\tfields",
    ]) + "\n")  # fmt: skip
    rows, part = one(tmp_path, Feed(files=str(path)))
    assert (part.format, part.ignored, part.broken) == ("snowplow", 1, 1)
    assert part.reasons == {"line: too few fields": 1}
    seen = [
        (row["event_id"], row["action"], row.get("product_id"), row.get("quantity"), row.get("unit_price"))
        for row in rows
    ]
    assert seen == [
        ("web:e1", "visit", None, None, None), ("web:e2-1", "add_to_cart", "p1", 2, 3.5),
        ("web:e2-2", "add_to_cart", "p2", None, 1), ("web:e3", "purchase", "p9", 3, 4),
    ]  # fmt: skip
    assert rows[0]["occurred_at"] == AT
    assert (rows[0]["session_id"], rows[0]["touchpoint"], rows[3]["currency"]) == ("s1", "page:/shoes", "USD")


def test_snowplow_json_of_the_sdks_says_the_same(tmp_path: pathlib.Path) -> None:
    event = {
        "app_id": "shop", "platform": "mob", "collector_tstamp": "2024-03-01T10:00:01.000Z", "event_id": "e2",
        "derived_tstamp": "2024-03-01T10:00:00.123Z", "event_vendor": "com.snowplowanalytics.snowplow.ecommerce",
        "event": "unstruct", "event_name": "snowplow_ecommerce_action", "user_id": "u1",
        "unstruct_event_com_snowplowanalytics_snowplow_ecommerce_snowplow_ecommerce_action_1": {"type": "transaction"},
        "contexts_com_snowplowanalytics_snowplow_ecommerce_product_1": [{"id": "p1", "price": 3.5, "quantity": 2}],
        "contexts_com_snowplowanalytics_snowplow_ecommerce_transaction_1": [{"currency": "SEK", "revenue": 7}],
    }  # fmt: skip
    rows, part = one(tmp_path, Feed(files=jsonl(tmp_path / "s.jsonl", [event])))
    assert part.format == "snowplow"
    row = rows[0]
    assert (row["action"], row["channel"], row["product_id"], row["quantity"]) == ("purchase", "app", "p1", 2)
    assert (row["currency"], row["occurred_at"]) == ("SEK", AT)


def test_cloudevents_single_batch_and_base64(tmp_path: pathlib.Path) -> None:
    event = {
        "specversion": "1.0", "id": "1", "source": "/till/4", "type": "com.shop.order.completed",
        "time": "2024-03-01T11:00:00.123+01:00", "subject": "store:4",
        "data": {"customer_id": "u1", "channel": "store", "items": [{"sku": "p1", "price": 3.5}, {"sku": "p2", "price": 1}]},
    }  # fmt: skip
    packed = {"article": "p7"}
    other = {**event, "id": "2", "type": "com.shop.product.viewed"}
    del other["data"]
    other["data_base64"] = base64.b64encode(json.dumps(packed).encode()).decode()
    batch = tmp_path / "batch.json"
    batch.write_text(json.dumps([event, other], indent=1))
    feed = Feed(files=str(batch), fields={"product_id": ("@.sku", "$.data.article")})
    rows, part = one(tmp_path, feed)
    assert (part.format, part.container) == ("cloudevents", "documents")
    assert [(r["action"], r["channel"], r["product_id"], r["touchpoint"]) for r in rows] == [
        ("purchase", "store", "p1", "store:4"), ("purchase", "store", "p2", "store:4"), ("view", "web", "p7", "store:4"),
    ]  # fmt: skip
    assert rows[0]["occurred_at"] == AT
    single = tmp_path / "single.json"
    single.write_text(json.dumps(other, indent=2))
    source = shop(tmp_path / "b", web=Feed(files=str(single), fields=feed.fields))
    assert [row["product_id"] for row in events(source)] == ["p7"]


ORDER = {
    "Name": "#1001", "Email": "Ada@example.org ", "Financial Status": "paid", "Currency": "EUR", "Source": "pos",
    "Created at": "2024-03-01 05:00:00 -0500", "Lineitem quantity": "2", "Lineitem name": "Hat", "Lineitem price": "10.00",
    "Lineitem sku": "p1", "Lineitem discount": "3.00", "Cancelled at": "2024-03-02 05:00:00 -0500", "Location": "Oslo",
}  # fmt: skip


def write_csv(path: pathlib.Path, rows: list[dict[str, str]]) -> str:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def test_shopify_orders_carry_the_order_down_and_take_back_what_was_cancelled(tmp_path: pathlib.Path) -> None:
    second = dict.fromkeys(ORDER, "") | {"Name": "#1001", "Lineitem quantity": "1", "Lineitem name": "Glove",
                                         "Lineitem price": "4.00"}  # fmt: skip
    other = ORDER | {"Name": "#1002", "Cancelled at": "", "Source": "web", "Location": ""}
    rows, part = one(tmp_path, Feed(files=write_csv(tmp_path / "orders.csv", [ORDER, second, other])))
    assert part.format == "shopify_orders"
    assert len({row["event_id"] for row in rows}) == 5
    sold = [row for row in rows if row["action"] == "purchase"]
    assert [(row["product_id"], row["quantity"], row["unit_price"], row["session_id"]) for row in sold] == [
        ("p1", 2, 10, "#1001"), ("Glove", 1, 4, "#1001"), ("p1", 2, 10, "#1002"),
    ]  # fmt: skip
    assert {(row["channel"], row["touchpoint"]) for row in sold} == {
        ("store", "store:Oslo"),
        ("web", "shopify:web"),
    }
    assert sold[0]["discount"] == 1.5
    assert {row["occurred_at"] for row in sold} == {dt.datetime(2024, 3, 1, 10, tzinfo=dt.UTC)}
    assert json.loads(sold[1]["identifiers"]) == [{"kind": "email_sha256", "value": EMAIL}]
    back = [row for row in rows if row["action"] == "return"]
    assert {row["occurred_at"] for row in back} == {dt.datetime(2024, 3, 2, 10, tzinfo=dt.UTC)}
    assert sorted(row["product_id"] for row in back) == ["Glove", "p1"]


def test_shopify_products_and_customers_become_tables(tmp_path: pathlib.Path) -> None:
    product = {
        "Handle": "hat", "Title": "Hat", "Vendor": "Knit", "Type": "Hats", "Tags": "wool", "Published": "true",
        "Option1 Value": "S", "Variant SKU": "hat-s", "Variant Price": "10.00", "Image Src": "hat.jpg", "Status": "active",
    }  # fmt: skip
    variant = dict.fromkeys(product, "") | {"Handle": "hat", "Option1 Value": "M", "Variant Price": "11.00"}
    picture = dict.fromkeys(product, "") | {"Handle": "hat", "Image Src": "2.jpg"}
    people = {"Customer ID": "7", "Email": "ada@example.org", "Total Spent": "20", "Total Orders": "1"}
    source = shop(
        tmp_path,
        goods=Feed(files=write_csv(tmp_path / "products.csv", [product, variant, picture])),
        people=Feed(files=write_csv(tmp_path / "customers.csv", [people])),
        sold=Feed(
            files=write_csv(
                tmp_path / "orders.csv", [ORDER | {"Lineitem sku": "hat-xl", "Lineitem name": "Hat XL"}]
            )
        ),
    )
    assert {(part.format, part.error) for part in read(source)} == {
        ("shopify_products", None), ("shopify_customers", None), ("shopify_orders", None),
    }  # fmt: skip
    goods = {row["product_id"]: row for row in source.products().to_pylist()}
    assert set(goods) == {"hat-s", "hat/M", "hat-xl"}
    assert (goods["hat/M"]["name"], goods["hat/M"]["brand"], goods["hat/M"]["size"]) == ("Hat", "Knit", "M")
    assert goods["hat-s"]["sellable"]
    assert json.loads(goods["hat-xl"]["attributes"]) == {"catalogue": "missing"}
    assert source.customers().column("customer_id").to_pylist() == ["7"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_rows_in_our_own_words_need_no_mapping(tmp_path: pathlib.Path, suffix: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = {
        "event_id": "e1", "occurred_at": "2024-03-01T10:00:00.123Z", "channel": "store", "action": "purchase",
        "product_id": "p1", "quantity": 2, "identifiers": '[{"kind":"customer","value":"7"}]', "detail": '{"a":1}',
        "consent": '["marketing"]', "touchpoint": "store:4",
    }  # fmt: skip
    path = tmp_path / f"own.{suffix}"
    if suffix == "csv":
        write_csv(path, [{key: str(value) for key, value in row.items()}])
    elif suffix == "jsonl":
        nested = {key: json.loads(str(row[key])) for key in ("identifiers", "detail", "consent")}
        jsonl(path, [row | nested])
    else:
        pq.write_table(pa.Table.from_pylist([row | {"occurred_at": AT}]), path)
    rows, part = one(tmp_path, Feed(files=str(path)))
    assert part.format == "canonical"
    mine = rows[0]
    assert mine["event_id"] == "web:e1"
    assert (mine["occurred_at"], mine["quantity"], mine["touchpoint"]) == (AT, 2, "store:4")
    assert json.loads(mine["identifiers"]) == [{"kind": "customer", "value": "7"}]
    assert json.loads(mine["detail"]) == {"a": 1}
    assert json.loads(mine["consent"]) == ["marketing"]
