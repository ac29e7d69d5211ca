"""Feature rows by brute force, one moment at a time, in plain Python: what the transforms must equal.

Also the strategies that draw small shops, and the table that holds them.
"""

import datetime as dt
import itertools
import math
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa

from contracts.features import (
    CUSTOMER_HALF_LIVES,
    GAP_FLOOR,
    MICROSECONDS_PER_DAY,
    PAIR_HALF_LIVES,
    STORE_HALF_LIVES,
)

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
START_US = (dt.datetime(2017, 3, 1, tzinfo=dt.UTC) - EPOCH) // dt.timedelta(microseconds=1)

PRODUCTS: list[dict[str, Any]] = [
    {"product_id": "a", "type": "milk", "category": "dairy", "brand": "private"},
    {"product_id": "b", "type": "milk", "category": "dairy", "brand": "national"},
    {"product_id": "c", "type": "cheese", "category": "dairy", "brand": "national"},
    {"product_id": "d", "type": "", "category": "", "brand": ""},
]
PRODUCT_SCHEMA = pa.schema([(name, pa.string()) for name in PRODUCTS[0]])

EVENT_SCHEMA = pa.schema(
    [
        ("event_id", pa.string()),
        ("occurred_at", pa.timestamp("us", "UTC")),
        ("customer_id", pa.string()),
        ("store_id", pa.string()),
        ("channel", pa.string()),
        ("action", pa.string()),
        ("product_id", pa.string()),
        ("quantity", pa.float64()),
        ("unit_price", pa.float64()),
        ("discount", pa.float64()),
        ("day", pa.date32()),
    ]
)

MOMENTS = st.one_of(
    st.integers(0, 12).map(lambda step: START_US + step * 12 * 3_600_000_000),
    st.integers(0, 70 * MICROSECONDS_PER_DAY).map(lambda offset: START_US + offset),
)


@st.composite
def events(draw: st.DrawFn, most: int = 30) -> list[dict[str, Any]]:
    """A few events of two customers and strangers; many share a moment."""
    size = draw(st.integers(0, most))
    return [draw(_event(number)) for number in range(size)]


@st.composite
def _event(draw: st.DrawFn, number: int) -> dict[str, Any]:
    action = draw(st.sampled_from(["purchase", "purchase", "purchase", "impression", "redeem", "view"]))
    buys = action == "purchase"
    at_us = draw(MOMENTS)
    moment = EPOCH + dt.timedelta(microseconds=at_us)
    number_or_none = st.none() | st.sampled_from([0.0, 0.25, 1.5, 3.0])
    return {
        "event_id": str(number),
        "occurred_at": moment,
        "customer_id": draw(st.sampled_from(["1", "1", "1", "2", None])),
        "store_id": draw(st.sampled_from(["10", "20", None])),
        "channel": draw(st.sampled_from(["store", "web", "app", "direct_mail", "support"])),
        "action": action,
        "product_id": draw(st.sampled_from("abcd")) if buys or draw(st.booleans()) else None,
        "quantity": draw(st.none() | st.sampled_from([0.0, 1.0, 2.0, 5.0])) if buys else None,
        "unit_price": draw(number_or_none) if buys else None,
        "discount": draw(number_or_none) if buys else None,
        "day": moment.date(),
    }


def at_days(event: dict[str, Any]) -> float:
    """Time of an event in days."""
    return ((event["occurred_at"] - EPOCH) // dt.timedelta(microseconds=1)) / MICROSECONDS_PER_DAY


def _pair_row(lines: list[dict[str, Any]], prefix: str, baskets: list[float]) -> dict[str, float]:
    moments = sorted({at_days(line) for line in lines})
    last = moments[-1]
    below = {at_days(line) for line in lines if (line["discount"] or 0) > 0}
    row = {
        "orders": float(len(moments)),
        "units": math.fsum(line["quantity"] or 0 for line in lines),
        "discount_orders": float(len(below)),
        "gap_sq": math.fsum((b - a) ** 2 for a, b in itertools.pairwise(moments)),
        "first_at": moments[0],
        "last_at": last,
        "first_order": float(baskets.index(moments[0]) + 1),
        "last_order": float(baskets.index(last) + 1),
        **{f"decay_{h}": math.fsum(2 ** ((m - last) / h) for m in moments) for h in PAIR_HALF_LIVES},
    }
    return {f"{prefix}_{name}": value for name, value in row.items()}


def pair_rows(
    events: list[dict[str, Any]], level: str, prefix: str
) -> dict[tuple[str, str, dt.datetime], dict[str, float]]:
    """Rows of customer_product (level product_id), customer_type or customer_category by key and moment."""
    catalogue = {product["product_id"]: product for product in PRODUCTS}
    lines = [
        (event["customer_id"], catalogue[event["product_id"]][level], event)
        for event in events
        if event["action"] == "purchase" and event["customer_id"] and catalogue[event["product_id"]][level]
    ]
    rows = {}
    for customer, thing, line in lines:
        moment = line["occurred_at"]
        past = [e for c, t, e in lines if (c, t) == (customer, thing) and e["occurred_at"] <= moment]
        baskets = sorted(
            {at_days(e) for e in events if e["action"] == "purchase" and e["customer_id"] == customer}
        )
        rows[customer, thing, moment] = _pair_row(past, prefix, baskets)
    return rows


def customer_rows(events: list[dict[str, Any]]) -> dict[tuple[str, dt.datetime], dict[str, float]]:
    """Rows of customer by key and moment."""
    rows = {}
    for event in events:
        customer, moment = event["customer_id"], event["occurred_at"]
        if customer is not None:
            past = [e for e in events if e["customer_id"] == customer and e["occurred_at"] <= moment]
            rows[customer, moment] = _customer_row(past, at_days(event))
    return rows


def _customer_row(past: list[dict[str, Any]], now: float) -> dict[str, float]:
    brands = {product["product_id"]: product["brand"] for product in PRODUCTS}
    bought = [event for event in past if event["action"] == "purchase"]
    baskets = sorted({at_days(event) for event in bought})
    pairs = {(at_days(event), event["product_id"]) for event in bought}
    below = {(at_days(e), e["product_id"]) for e in bought if (e["discount"] or 0) > 0}
    spend = [(at_days(e), (e["quantity"] or 0) * (e["unit_price"] or 0)) for e in bought]
    channels = [event["channel"] for event in past]
    row = {
        "c_orders": len(baskets),
        "c_lines": len(pairs),
        "c_products": len({product for _, product in pairs}),
        "c_spend": math.fsum(amount for _, amount in spend),
        "c_discount_lines": len(below),
        "c_private_lines": sum(brands[product] == "private" for _, product in pairs),
        "c_redemptions": sum(event["action"] == "redeem" for event in past),
        "c_mailings": sum(e["action"] == "impression" and e["channel"] == "direct_mail" for e in past),
        "c_store_events": channels.count("store"),
        "c_digital_events": sum(channel in {"web", "app"} for channel in channels),
        "c_mail_events": channels.count("direct_mail"),
        "c_decay_spend_90": math.fsum(amount * 2 ** ((at - now) / 90) for at, amount in spend),
        "c_gap_sq": math.fsum((b - a) ** 2 for a, b in itertools.pairwise(baskets)),
        "c_first_at": baskets[0] if baskets else math.nan,
        "c_last_at": baskets[-1] if baskets else math.nan,
        "c_row_at": now,
    }
    for half in CUSTOMER_HALF_LIVES:
        row[f"c_decay_orders_{half}"] = math.fsum(2 ** ((at - now) / half) for at in baskets)
        row[f"c_decay_lines_{half}"] = math.fsum(2 ** ((at - now) / half) for at, _ in pairs)
    return {name: float(value) for name, value in row.items()}


def store_product_rows(
    events: list[dict[str, Any]],
) -> dict[tuple[str, str, dt.datetime], dict[str, float]]:
    """Rows of store_product by key and moment."""
    sold = [e for e in events if e["action"] == "purchase" and e["store_id"]]
    rows = {}
    for line in sold:
        store, product, moment = line["store_id"], line["product_id"], line["occurred_at"]
        here = [e for e in sold if (e["store_id"], e["product_id"]) == (store, product)]
        past = {(e["customer_id"], at_days(e)) for e in here if e["occurred_at"] <= moment}
        now = at_days(line)
        rows[store, product, moment] = {
            "s_last_at": now,
            **{f"s_decay_{h}": math.fsum(2 ** ((at - now) / h) for _, at in past) for h in STORE_HALF_LIVES},
        }
    return rows


def customer_store_product_rows(
    events: list[dict[str, Any]],
) -> dict[tuple[str, str, str, dt.datetime], dict[str, float]]:
    """Rows of customer_store_product by key and moment."""
    sold = [e for e in events if e["action"] == "purchase" and e["store_id"] and e["customer_id"]]
    rows = {}
    for line in sold:
        key = (line["customer_id"], line["store_id"], line["product_id"])
        here = [e for e in sold if (e["customer_id"], e["store_id"], e["product_id"]) == key]
        past = sorted({at_days(e) for e in here if e["occurred_at"] <= line["occurred_at"]})
        rows[(*key, line["occurred_at"])] = {
            "cs_orders": float(len(past)),
            "cs_last_at": past[-1],
            "cs_decay_90": math.fsum(2 ** ((at - past[-1]) / 90) for at in past),
        }
    return rows


def product_row(events: list[dict[str, Any]], product: str, midnight: dt.datetime) -> dict[str, float] | None:
    """Values of a product at a midnight, or None before its first sale."""
    sold = [
        event
        for event in events
        if event["action"] == "purchase"
        and event["product_id"] == product
        and event["occurred_at"] < midnight
    ]
    if not sold:
        return None

    def within(days: int) -> list[dict[str, Any]]:
        return [e for e in sold if e["occurred_at"] >= midnight - dt.timedelta(days=days)]

    def baskets(lines: list[dict[str, Any]]) -> set[tuple[Any, Any]]:
        return {(line["customer_id"], line["occurred_at"]) for line in lines}

    month = within(28)
    moments: dict[str, set[float]] = {}
    for line in sold:
        if line["customer_id"] is not None:
            moments.setdefault(line["customer_id"], set()).add(at_days(line))
    gaps = [b - a for own in moments.values() for a, b in itertools.pairwise(sorted(own))]
    paid, listed = _prices(sold, midnight)
    row = {
        "p_orders_1": len(baskets(within(1))),
        "p_orders_7": len(baskets(within(7))),
        "p_orders_28": len(baskets(month)),
        "p_customers_28": len({line["customer_id"] for line in month} - {None}),
        "p_orders": len(baskets(sold)),
        "p_customers": len(moments),
        "p_repeat_customers": sum(len(own) > 1 for own in moments.values()),
        "p_price_28": paid,
        "p_list_price_28": listed,
        "p_discount_orders_28": len(baskets([line for line in month if (line["discount"] or 0) > 0])),
        "p_first_at": min(at_days(line) for line in sold),
        "p_gaps": len(gaps),
        "p_log_gap": math.fsum(math.log(max(gap, GAP_FLOOR)) for gap in gaps),
    }
    return {name: float(value) for name, value in row.items()}


def _prices(sold: list[dict[str, Any]], midnight: dt.datetime) -> tuple[float, float]:
    """Mean paid and list price of the latest midnight so far at which the last 28 days held a unit."""
    day = midnight
    while day > min(line["occurred_at"] for line in sold):
        month = [e for e in sold if day - dt.timedelta(days=28) <= e["occurred_at"] < day]
        units = math.fsum(line["quantity"] or 0 for line in month)
        if units > 0:
            paid = math.fsum((e["quantity"] or 0) * (e["unit_price"] or 0) for e in month)
            off = math.fsum((e["quantity"] or 0) * (e["discount"] or 0) for e in month)
            return paid / units, (paid + off) / units
        day -= dt.timedelta(days=1)
    return math.nan, math.nan
