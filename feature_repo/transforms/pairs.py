"""What a customer did with one thing: a product, a type of product, a category.

Belongs here: views customer_product, customer_type and customer_category (`contracts.features`).
"""

from __future__ import annotations

from contracts.features import PAIR_COLUMNS, PAIR_HALF_LIVES
from feature_repo.transforms.common import Table, before, decayed, is_true, purchases, so_far


def customer_product_rows(events: Table) -> Table:
    """View `customer_product`: one row per customer, product and moment of purchase."""
    return pair_rows(purchases(events), "product_id", "cp")


def customer_type_rows(events: Table, products: Table) -> Table:
    """View `customer_type`: one row per customer, type and moment of purchase."""
    return _level_rows(events, products, "type", "ct")


def customer_category_rows(events: Table, products: Table) -> Table:
    """View `customer_category`: one row per customer, category and moment of purchase."""
    return _level_rows(events, products, "category", "cc")


def _level_rows(events: Table, products: Table, level: str, prefix: str) -> Table:
    lines = purchases(events)
    named = products.filter(products[level].notnull(), products[level] != "")
    named = named.select(known_id=named.product_id, **{level: named[level]})
    joined = lines.inner_join(named, lines.product_id == named.known_id)
    return pair_rows(joined, level, prefix)


def pair_rows(lines: Table, thing: str, prefix: str) -> Table:
    """Rows of one customer and one thing.

    A purchase occasion is a distinct moment at which the customer bought the thing.

    Args:
        lines: customer_id, the column `thing`, occurred_at, at (days), basket, quantity, discount.
        thing: Name of the key column beside customer_id.
        prefix: What the columns of `contracts.features.PAIR_COLUMNS` begin with.

    Returns:
        customer_id, the thing, event_timestamp and a float64 column per name of `PAIR_COLUMNS`.
    """
    keys = ["customer_id", thing]
    occasions = lines.group_by([*keys, "occurred_at", "at"]).agg(
        bought=lines.quantity.sum(),
        discounted=is_true(lines.discount > 0).max(),
        basket=lines.basket.max(),
    )
    past, earlier = so_far(keys, "at"), before(keys, "at")
    steps = occasions.mutate(
        one=is_true(occasions.at.notnull()),
        first_at=occasions.at.min().over(past),
        gap=(occasions.at - occasions.at.max().over(earlier)).fill_null(0.0),
    )
    columns = {
        "orders": steps.one.sum().over(past),
        "units": steps.bought.sum().over(past),
        "discount_orders": steps.discounted.sum().over(past),
        "gap_sq": (steps.gap * steps.gap).sum().over(past),
        "first_at": steps.first_at,
        "last_at": steps.at,
        "first_order": steps.basket.min().over(past),
        "last_order": steps.basket,
        **{
            f"decay_{half}": decayed(steps.one, steps.at, steps.first_at, half, past)
            for half in PAIR_HALF_LIVES
        },
    }
    return steps.select(
        *keys,
        event_timestamp=steps.occurred_at,
        **{f"{prefix}_{name}": columns[name].cast("float64") for name in PAIR_COLUMNS},
    )
