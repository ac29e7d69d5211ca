"""How a product sells in one store, to everybody and to one customer.

Belongs here: views store_product and customer_store_product (`contracts.features`).
"""

from __future__ import annotations

from contracts.features import (
    CUSTOMER_STORE_PRODUCT_COLUMNS,
    OWN_STORE_HALF_LIFE,
    STORE_HALF_LIVES,
    STORE_PRODUCT_COLUMNS,
)
from feature_repo.transforms.common import Table, days, decayed, is_true, so_far


def store_product_rows(events: Table) -> Table:
    """View `store_product`: one row per store, product and moment at which it was sold there.

    One (customer, moment) counts once, however many lines and units it has.

    Returns:
        store_id, product_id, event_timestamp and float64 columns named by `STORE_PRODUCT_COLUMNS`.
    """
    keys = ["store_id", "product_id"]
    sold = events.filter(events.action == "purchase", events.store_id.notnull(), events.product_id.notnull())
    baskets = sold.select(*keys, "customer_id", "occurred_at", "at_us").distinct()
    moments = baskets.group_by([*keys, "occurred_at", "at_us"]).agg(baskets=baskets.count().cast("float64"))
    moments = moments.mutate(at=days(moments.at_us))
    past = so_far(keys, "at")
    steps = moments.mutate(first_at=moments.at.min().over(past))
    columns = {
        "s_last_at": steps.at,
        **{
            f"s_decay_{h}": decayed(steps.baskets, steps.at, steps.first_at, h, past)
            for h in STORE_HALF_LIVES
        },
    }
    return steps.select(
        *keys,
        event_timestamp=steps.occurred_at,
        **{name: columns[name].cast("float64") for name in STORE_PRODUCT_COLUMNS},
    )


def customer_store_product_rows(events: Table) -> Table:
    """View `customer_store_product`: one row per customer, store, product and moment of purchase.

    Returns:
        customer_id, store_id, product_id, event_timestamp and float64 columns named by
        `CUSTOMER_STORE_PRODUCT_COLUMNS`.
    """
    keys = ["customer_id", "store_id", "product_id"]
    sold = events.filter(
        events.action == "purchase",
        events.customer_id.notnull(),
        events.store_id.notnull(),
        events.product_id.notnull(),
    )
    moments = sold.select(*keys, "occurred_at", "at_us").distinct()
    moments = moments.mutate(at=days(moments.at_us), one=is_true(moments.at_us.notnull()))
    past = so_far(keys, "at")
    steps = moments.mutate(first_at=moments.at.min().over(past))
    columns = {
        "cs_orders": steps.one.sum().over(past),
        "cs_last_at": steps.at,
        "cs_decay_90": decayed(steps.one, steps.at, steps.first_at, OWN_STORE_HALF_LIFE, past),
    }
    return steps.select(
        *keys,
        event_timestamp=steps.occurred_at,
        **{name: columns[name].cast("float64") for name in CUSTOMER_STORE_PRODUCT_COLUMNS},
    )
