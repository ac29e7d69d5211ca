"""Feature names, and the arithmetic that turns stored feature rows into ranker inputs at a moment.

Stored rows are written once per event in the feature repository (Ibis) and kept live in the server;
both hold the columns named here. What depends on the moment of the request (how long ago, how much
of a decayed count is left, is the next purchase due) is computed by `ranker_features`, written once
for both sides: it is plain array arithmetic over whatever array module the caller passes.

Belongs here: column names, half-lives, request-time arithmetic. Does not belong here: how rows are
computed from events (`feature_repo/transforms`, `serving/profiles/fold.py`).

Times are float64 days since 1970-01-01 UTC. A decayed count with half-life h, stored at the time t
of its row, is ``sum_i 2 ** (-(t - t_i) / h)`` over purchase occasions i up to and including t; at a
later moment T it is the stored value times ``2 ** (-(T - t) / h)``, exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Array = Any
"""A numpy array, or any array that the passed array module `xp` works on."""

MICROSECONDS_PER_DAY = 86_400_000_000

PAIR_HALF_LIVES = (14, 45, 120)
CUSTOMER_HALF_LIVES = (28, 90)
STORE_HALF_LIVES = (7, 28, 90)
OWN_STORE_HALF_LIFE = 90
GAP_FLOOR = 0.5
"""Days; shorter gaps between two baskets with a product count as this long."""

GAP_PRIOR = (5.0, 3.4)
"""How many gaps of which logarithm (30 days) a product is taken to have had before the first."""

CUSTOMER_COLUMNS = (
    "c_orders",  # baskets so far
    "c_lines",  # (basket, product) pairs so far
    "c_products",  # distinct products so far
    "c_spend",  # quantity * unit_price so far
    "c_discount_lines",  # pairs bought below list price so far
    "c_private_lines",  # pairs of a private-label product so far
    "c_redemptions",  # coupons redeemed so far
    "c_mailings",  # direct-mail impressions so far
    "c_store_events", "c_digital_events", "c_mail_events",  # events by channel group so far
    "c_decay_orders_28", "c_decay_orders_90",
    "c_decay_lines_28", "c_decay_lines_90",
    "c_decay_spend_90",
    "c_gap_sq",  # sum of squared days between successive baskets
    "c_first_at", "c_last_at",  # first and latest basket
    "c_row_at",  # time of the row: the reference of the decayed columns
)  # fmt: skip
"""View `customer`, key customer_id, one row per distinct event time of the customer."""

PAIR_COLUMNS = (
    "orders",  # baskets with the thing so far
    "units",  # quantity so far
    "discount_orders",  # of those baskets, below list price
    "gap_sq",  # sum of squared days between successive baskets with the thing
    "first_at", "last_at",  # first and latest basket with the thing; last_at is the row's time
    "first_order", "last_order",  # number (from 1) of the customer's basket at these two moments
    "decay_14", "decay_45", "decay_120",
)  # fmt: skip

CUSTOMER_PRODUCT_COLUMNS = tuple(f"cp_{name}" for name in PAIR_COLUMNS)
"""View `customer_product`, keys customer_id and product_id, one row per basket with the product."""

CUSTOMER_TYPE_COLUMNS = tuple(f"ct_{name}" for name in PAIR_COLUMNS)
"""View `customer_type`, keys customer_id and type, one row per basket with a product of the type."""

CUSTOMER_CATEGORY_COLUMNS = tuple(f"cc_{name}" for name in PAIR_COLUMNS)
"""View `customer_category`, keys customer_id and category, likewise."""

CUSTOMER_STORE_PRODUCT_COLUMNS = (
    "cs_orders",  # baskets of the customer with the product in that store so far
    "cs_last_at",  # the latest of them; the row's time
    "cs_decay_90",
)
"""View `customer_store_product`, keys customer_id, store_id and product_id, one row per basket with the
product in the store."""

PRODUCT_COLUMNS = (
    "p_orders_1", "p_orders_7", "p_orders_28",  # baskets with it in the last n whole days
    "p_customers_28",  # distinct customers in the last 28 days
    "p_orders",  # baskets so far
    "p_customers",  # distinct customers so far
    "p_repeat_customers",  # of those, with at least two baskets
    "p_price_28",  # mean paid per unit in the last 28 days (last known if none)
    "p_list_price_28",  # mean list price, likewise
    "p_discount_orders_28",  # baskets below list price in the last 28 days
    "p_first_at",  # first sale
    "p_gaps",  # gaps between successive baskets of one customer with it so far
    "p_log_gap",  # sum of the natural logarithms of their lengths in days, each at least GAP_FLOOR
)  # fmt: skip
"""View `product`, key product_id, a row per product and midnight (UTC) with a sale in the 28 days before."""

STORE_PRODUCT_COLUMNS = ("s_last_at", "s_decay_7", "s_decay_28", "s_decay_90")
"""View `store_product`, keys store_id and product_id, one row per moment the product was sold there."""

FAR = 9999.0
"""Days since something that has never happened."""

RANKER_FEATURES = (
    "cp_orders", "cp_share", "cp_d14", "cp_d45", "cp_d120", "cp_rate45", "cp_rate120", "cp_since", "cp_gap",
    "cp_due", "cp_gap_cv", "cp_units", "cp_discounted", "cp_orders_since", "cp_order_rate",
    "ct_orders", "ct_d45", "ct_d120", "ct_since", "ct_due", "ct_share45", "ct_share120",
    "cc_d45", "cc_since", "cc_due", "cc_share120",
    "c_orders", "c_since", "c_gap", "c_due", "c_size", "c_variety", "c_discounted", "c_private", "c_line_value",
    "p_orders_1", "p_orders_7", "p_orders_28", "p_trend", "p_recent", "p_per_customer", "p_repeat", "p_price",
    "p_depth", "p_discounted",
    "p_gap", "s_d7", "s_d28", "s_d90", "cs_d90",
    "x_display", "x_mailer", "hour", "weekday",
    "encoder_score", "co_bought",
)  # fmt: skip
"""Columns of the ranker's input, in order."""


def week_of(days: Array) -> Array:
    """Number of the promotional week that holds a moment.

    Weeks begin on Monday at 05:00 UTC (Monday midnight in New York's winter), which is where prices and
    mailers change in the data; week 0 began on 1969-12-29.
    """
    return (days + 3 - 5 / 24) // 7


def ranker_features(
    *,
    c: Mapping[str, Array],
    cp: Mapping[str, Array],
    ct: Mapping[str, Array],
    cc: Mapping[str, Array],
    p: Mapping[str, Array],
    s: Mapping[str, Array],
    cs: Mapping[str, Array],
    x: Mapping[str, Array],
    encoder_score: Array,
    co_bought: Array,
    now: Array,
    xp: Any,
) -> dict[str, Array]:
    """Compute the ranker's input columns for M candidates.

    A row that does not exist is given as zeros in all its columns. Every result is finite, so that
    LightGBM and ONNX Runtime, which treat missing values differently, agree.

    Args:
        c: CUSTOMER_COLUMNS, scalars (one customer) or arrays of M.
        cp: CUSTOMER_PRODUCT_COLUMNS, arrays of M.
        ct: CUSTOMER_TYPE_COLUMNS, arrays of M.
        cc: CUSTOMER_CATEGORY_COLUMNS, arrays of M.
        p: PRODUCT_COLUMNS, arrays of M.
        s: STORE_PRODUCT_COLUMNS for the request's store, arrays of M.
        cs: CUSTOMER_STORE_PRODUCT_COLUMNS for the request's store, arrays of M.
        x: ``x_display`` and ``x_mailer``, 0 or 1, arrays of M.
        encoder_score: The encoder's score of each candidate, array of M.
        co_bought: Sum over the customer's products of decayed count times co-purchase score, divided by
            the norm of the decayed counts, array of M.
        now: Moment of the request in days, scalar or array of M.
        xp: Array module (numpy).

    Returns:
        RANKER_FEATURES by name; scalars where the inputs were scalars.
    """
    orders = c["c_orders"]
    c_since = xp.where(orders > 0, now - c["c_last_at"], FAR)
    c_gap = xp.where(orders > 1, (c["c_last_at"] - c["c_first_at"]) / xp.maximum(orders - 1, 1), FAR)
    rate = xp.maximum(c["c_decay_orders_90"] * xp.exp2(-(now - c["c_row_at"]) / 90), 1e-3)
    lines = xp.maximum(c["c_lines"], 1)
    product = _pair(cp, "cp", now, xp)
    kind = _pair(ct, "ct", now, xp)
    category = _pair(cc, "cc", now, xp)
    cp_orders = cp["cp_orders"]
    customers = xp.maximum(p["p_customers"], 1)
    in_28 = xp.maximum(p["p_orders_28"], 1)
    s_age = now - s["s_last_at"]
    out = {
        "cp_orders": cp_orders,
        "cp_share": cp_orders / xp.maximum(orders, 1),
        "cp_d14": product["d14"], "cp_d45": product["d45"], "cp_d120": product["d120"],
        "cp_rate45": product["d45"] / rate, "cp_rate120": product["d120"] / rate,
        "cp_since": product["since"], "cp_gap": product["gap"], "cp_due": product["due"],
        "cp_gap_cv": product["cv"],
        "cp_units": cp["cp_units"] / xp.maximum(cp_orders, 1),
        "cp_discounted": cp["cp_discount_orders"] / xp.maximum(cp_orders, 1),
        "cp_orders_since": xp.where(cp_orders > 0, orders - cp["cp_last_order"], FAR),
        "cp_order_rate": cp_orders / xp.maximum(orders - cp["cp_first_order"] + 1, 1),
        "ct_orders": ct["ct_orders"], "ct_d45": kind["d45"], "ct_d120": kind["d120"],
        "ct_since": kind["since"], "ct_due": kind["due"],
        "ct_share45": product["d45"] / xp.maximum(kind["d45"], 1e-3),
        "ct_share120": product["d120"] / xp.maximum(kind["d120"], 1e-3),
        "cc_d45": category["d45"], "cc_since": category["since"], "cc_due": category["due"],
        "cc_share120": product["d120"] / xp.maximum(category["d120"], 1e-3),
        "c_orders": orders, "c_since": c_since, "c_gap": c_gap,
        "c_due": xp.where(orders > 1, c_since / xp.maximum(c_gap, 0.2), -1.0),
        "c_size": c["c_decay_lines_28"] / xp.maximum(c["c_decay_orders_28"], 1e-3),
        "c_variety": c["c_products"] / lines, "c_discounted": c["c_discount_lines"] / lines,
        "c_private": c["c_private_lines"] / lines, "c_line_value": c["c_spend"] / lines,
        "p_orders_1": p["p_orders_1"], "p_orders_7": p["p_orders_7"], "p_orders_28": p["p_orders_28"],
        "p_trend": 4 * p["p_orders_7"] / in_28,
        "p_recent": p["p_orders_28"] / xp.maximum(p["p_orders"], 1),
        "p_per_customer": p["p_orders"] / customers, "p_repeat": p["p_repeat_customers"] / customers,
        "p_price": p["p_price_28"],
        "p_depth": 1 - p["p_price_28"] / xp.maximum(p["p_list_price_28"], 0.01),
        "p_discounted": p["p_discount_orders_28"] / in_28,
        "p_gap": (p["p_log_gap"] + GAP_PRIOR[0] * GAP_PRIOR[1]) / (p["p_gaps"] + GAP_PRIOR[0]),
        "s_d7": s["s_decay_7"] * xp.exp2(-s_age / 7),
        "s_d28": s["s_decay_28"] * xp.exp2(-s_age / 28),
        "s_d90": s["s_decay_90"] * xp.exp2(-s_age / 90),
        "cs_d90": cs["cs_decay_90"] * xp.exp2(-(now - cs["cs_last_at"]) / OWN_STORE_HALF_LIFE),
        "x_display": x["x_display"], "x_mailer": x["x_mailer"],
        "hour": (now % 1) * 24, "weekday": (now // 1 + 4) % 7,
        "encoder_score": encoder_score, "co_bought": co_bought,
    }  # fmt: skip
    return {name: out[name] for name in RANKER_FEATURES}


def _pair(row: Mapping[str, Array], prefix: str, now: Array, xp: Any) -> dict[str, Array]:
    """What has become of a customer's rows with a thing by now."""
    orders, last_at = row[f"{prefix}_orders"], row[f"{prefix}_last_at"]
    since = now - last_at
    gaps = xp.maximum(orders - 1, 1)
    gap = (last_at - row[f"{prefix}_first_at"]) / gaps
    repeated = orders > 1
    spread = xp.sqrt(xp.maximum(row[f"{prefix}_gap_sq"] / gaps - gap * gap, 0))
    floor = xp.maximum(gap, 0.5)
    return {
        "since": xp.where(orders > 0, since, FAR),
        "gap": xp.where(repeated, gap, FAR),
        "due": xp.where(repeated, since / floor, -1.0),
        "cv": xp.where(repeated, spread / floor, -1.0),
        **{f"d{half}": row[f"{prefix}_decay_{half}"] * xp.exp2(-since / half) for half in PAIR_HALF_LIVES},
    }
