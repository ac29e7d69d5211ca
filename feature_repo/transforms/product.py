"""How a product sells: popularity, reach, price.

Values change at midnights (UTC) only: a sale of day s enters at the midnight after it and leaves the
window of n days at the midnight n days later. So a row is written at each midnight at which a value
changes, and each column is a running sum of what enters and leaves. That keeps a product's fall to zero
exact without a row for every product and day.

Belongs here: view product (`contracts.features.PRODUCT_COLUMNS`).
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from contracts.features import GAP_FLOOR, PRODUCT_COLUMNS
from feature_repo.transforms.common import Table, days, is_true, so_far

WINDOW = 28
CHANGE_AFTER = (0, 1, 7, WINDOW)
"""A sale changes a product's values at the end of its own day and this many days later."""

AMOUNTS = (
    "orders_1", "orders_7", "orders_28", "customers_28", "discount_orders_28", "units_28", "paid_28",
    "listed_28", "orders", "customers", "repeat_customers", "gaps", "log_gaps",
)  # fmt: skip


def product_rows(events: Table) -> Table:
    """View `product`: one row per product and midnight at which one of its values changes.

    A basket is a distinct (customer, moment). Prices are means per unit over the last 28 days, or the
    last known ones where nothing was sold in them; quantities of 0 have no price.

    Returns:
        product_id, event_timestamp (the midnight) and float64 columns named by `PRODUCT_COLUMNS`.
    """
    baskets = _baskets(events)
    changes = _changes(baskets)
    summed = changes.group_by(["product_id", "midnight"]).agg(
        **{name: changes[name].sum() for name in AMOUNTS}
    )
    past = so_far(["product_id"], "midnight")
    running = summed.mutate(**{name: summed[name].sum().over(past) for name in AMOUNTS})
    # Units are whole numbers in almost every shop, but sums of weights may leave a residue of rounding.
    sold = running.units_28 > 1e-6
    priced = running.mutate(
        price=ibis.cases((sold, running.paid_28 / running.units_28)),
        list_price=ibis.cases((sold, running.listed_28 / running.units_28)),
        era=is_true(sold).sum().over(past),
    )
    # An era begins with each known price; Ibis 12 drops IGNORE NULLS on DuckDB windows without a word.
    era = ibis.window(group_by=["product_id", "era"])
    priced = priced.mutate(price=priced.price.max().over(era), list_price=priced.list_price.max().over(era))
    first = baskets.group_by("product_id").agg(first_at=baskets.at.min())
    rows = priced.inner_join(first, "product_id")
    columns = {
        "p_orders_1": rows.orders_1,
        "p_orders_7": rows.orders_7,
        "p_orders_28": rows.orders_28,
        "p_customers_28": rows.customers_28,
        "p_orders": rows.orders,
        "p_customers": rows.customers,
        "p_repeat_customers": rows.repeat_customers,
        "p_price_28": rows.price,
        "p_list_price_28": rows.list_price,
        "p_discount_orders_28": rows.discount_orders_28,
        "p_first_at": rows.first_at,
        "p_gaps": rows.gaps,
        "p_log_gap": rows.log_gaps,
    }
    return rows.select(
        "product_id",
        event_timestamp=rows.midnight,
        **{name: columns[name].cast("float64") for name in PRODUCT_COLUMNS},
    )


def _baskets(events: Table) -> Table:
    """Purchases by product, customer and moment; strangers count as one customer per moment."""
    lines = events.filter(events.action == "purchase", events.product_id.notnull())
    units = lines.quantity.fill_null(0.0)
    paid = lines.unit_price.fill_null(0.0)
    off = lines.discount.fill_null(0.0)
    lines = lines.mutate(units=units, paid=units * paid, listed=units * (paid + off), below=is_true(off > 0))
    baskets = lines.group_by(["product_id", "customer_id", "occurred_at", "at_us"]).agg(
        units=lines.units.sum(), paid=lines.paid.sum(), listed=lines.listed.sum(), below=lines.below.max()
    )
    keys = ["product_id", "customer_id"]
    known = is_true(baskets.customer_id.notnull())
    at = days(baskets.at_us)
    gap = at - at.lag().over(ibis.window(group_by=keys, order_by="occurred_at"))
    repeats = baskets.customer_id.notnull() & gap.notnull()
    return baskets.mutate(
        at=at,
        midnight=baskets.occurred_at.truncate("D"),
        known=known,
        gaps=is_true(repeats),
        log_gap=ibis.ifelse(repeats, ibis.greatest(gap, GAP_FLOOR).ln(), 0.0),
        number=known.sum().over(so_far(keys, "occurred_at")),
        following=baskets.occurred_at.lead().over(ibis.window(group_by=keys, order_by="occurred_at")),
    )


def _changes(baskets: Table) -> Table:
    """What enters and leaves each window: product_id, midnight and one column per name of `AMOUNTS`."""
    daily = baskets.group_by(["product_id", "midnight"]).agg(
        orders=baskets.below.count().cast("float64"),
        below=baskets.below.sum(),
        units=baskets.units.sum(),
        paid=baskets.paid.sum(),
        listed=baskets.listed.sum(),
        known=baskets.known.sum(),
        first=is_true(baskets.number == 1).sum(),
        second=is_true(baskets.number == 2).sum(),
        gaps=baskets.gaps.sum(),
        log_gaps=baskets.log_gap.sum(),
    )
    window = {
        "orders_28": daily.orders, "discount_orders_28": daily.below, "units_28": daily.units,
        "paid_28": daily.paid, "listed_28": daily.listed,
    }  # fmt: skip
    enter = {
        **window, "orders_1": daily.orders, "orders_7": daily.orders, "customers_28": daily.known,
        "orders": daily.orders, "customers": daily.first, "repeat_customers": daily.second,
        "gaps": daily.gaps, "log_gaps": daily.log_gaps,
    }  # fmt: skip
    # A customer leaves the last 28 days when the window ends or when the next basket takes over.
    end = baskets.midnight + ibis.interval(days=WINDOW + 1)
    takes_over = baskets.following.truncate("D") + ibis.interval(days=1)
    leaving = baskets.mutate(leaves=ibis.least(end, takes_over.fill_null(end)))
    left = leaving.group_by(["product_id", "leaves"]).agg(known=leaving.known.sum())
    return ibis.union(
        _change(daily, daily.midnight + ibis.interval(days=1), enter),
        _change(daily, daily.midnight + ibis.interval(days=2), {"orders_1": -daily.orders}),
        _change(daily, daily.midnight + ibis.interval(days=8), {"orders_7": -daily.orders}),
        _change(
            daily,
            daily.midnight + ibis.interval(days=WINDOW + 1),
            {name: -value for name, value in window.items()},
        ),
        _change(left, left.leaves, {"customers_28": -left.known}),
    )


def _change(rows: Table, midnight: ir.Value, amounts: dict[str, ir.Value]) -> Table:
    nothing = ibis.literal(0.0, "float64")
    columns = {name: amounts.get(name, nothing) for name in AMOUNTS}
    return rows.select("product_id", midnight=midnight, **columns)
