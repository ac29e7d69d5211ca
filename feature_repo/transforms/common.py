"""Parts that several transforms share: time as a number, purchase lines, decayed sums.

Belongs here: small expressions over columns and windows. Does not belong here: whole feature views.
"""

from __future__ import annotations

from typing import TypeAlias

import ibis
import ibis.expr.types as ir

from contracts.features import MICROSECONDS_PER_DAY

Table: TypeAlias = ir.Table
Value: TypeAlias = ir.Value


def days(micros: Value) -> Value:
    """Microseconds since 1970-01-01 UTC as float64 days, exact to the microsecond."""
    return micros.cast("float64") / float(MICROSECONDS_PER_DAY)


def power_of_two(exponent: Value) -> Value:
    """2 to the power of a float64 expression."""
    return ibis.literal(2.0, "float64") ** exponent


def purchases(events: Table) -> Table:
    """Purchase lines of known customers, with missing numbers as 0.

    Returns:
        customer_id, product_id, occurred_at, at (days), basket (number of the customer's distinct moment of
        purchase, from 1), quantity, unit_price, discount.
    """
    lines = events.filter(events.action == "purchase", events.customer_id.notnull())
    by_time = ibis.window(group_by="customer_id", order_by="occurred_at")
    return lines.select(
        "customer_id",
        "product_id",
        "occurred_at",
        at=days(lines.at_us),
        basket=ibis.dense_rank().over(by_time).cast("float64") + 1,
        quantity=lines.quantity.fill_null(0.0),
        unit_price=lines.unit_price.fill_null(0.0),
        discount=lines.discount.fill_null(0.0),
    )


def is_true(condition: Value) -> Value:
    """1.0 where a condition holds, else 0.0 (null counts as not).

    The cast matters: a bare 1.0 is a decimal on DuckDB, whose sums are far slower.
    """
    return ibis.cases((condition, 1), else_=0).cast("float64")


def so_far(keys: list[str], order: str) -> ibis.expr.builders.WindowBuilder:
    """Window of a key's rows up to and including the current one."""
    return ibis.window(group_by=keys, order_by=order, rows=(None, 0))


def before(keys: list[str], order: str) -> ibis.expr.builders.WindowBuilder:
    """Window of a key's rows strictly before the current one."""
    return ibis.window(group_by=keys, order_by=order, rows=(None, -1))


def decayed(amount: Value, at: Value, anchor: Value, half_life: float, window: object) -> Value:
    """Sum of earlier amounts, each halved for every ``half_life`` days since it came.

    ``sum_i a_i * 2 ** (-(t - t_i) / h)`` is written as ``2 ** (-(t - t_0) / h)`` times the running sum
    of ``a_i * 2 ** ((t_i - t_0) / h)`` with t_0 the key's first moment: only positive terms are added, so
    nothing cancels, and the power stays finite for 1,000 half-lives.
    """
    growth = power_of_two((at - anchor) / half_life)
    return (amount * growth).sum().over(window) / growth
