"""What a customer did over all channels.

Belongs here: view customer (`contracts.features.CUSTOMER_COLUMNS`).
"""

from __future__ import annotations

import ibis

from contracts.features import CUSTOMER_COLUMNS, CUSTOMER_HALF_LIVES
from feature_repo.transforms.common import Table, before, days, decayed, is_true, purchases, so_far

PHYSICAL_CHANNELS = ("store", "direct_mail", "support")
"""Every other channel counts as digital."""

PRIVATE_BRAND = "private"


def customer_rows(events: Table, products: Table) -> Table:
    """View `customer`: one row per customer and distinct moment of any of their events.

    A basket is a distinct moment with a purchase; a line is a distinct (moment, product).

    Returns:
        customer_id, event_timestamp and float64 columns named by `CUSTOMER_COLUMNS`.
    """
    moments = _moments(events).left_join(_baskets(events, products), ["customer_id", "occurred_at"])
    amounts = ("order", "lines", "new_products", "spend", "discount_lines", "private_lines")
    moments = moments.select(
        "customer_id", "occurred_at", "at", "redemptions", "mailings", "in_store", "digital", "mail",
        **{name: moments[name].fill_null(0.0) for name in amounts},
    )  # fmt: skip
    past, earlier = so_far(["customer_id"], "at"), before(["customer_id"], "at")
    order_at = ibis.cases((moments.order > 0, moments.at))
    steps = moments.mutate(
        anchor=moments.at.min().over(past),
        first_order=order_at.min().over(past),
        last_order=order_at.max().over(past),
        gap=ibis.cases((moments.order > 0, moments.at - order_at.max().over(earlier)), else_=0.0).fill_null(
            0.0
        ),
    )
    columns = {
        "c_orders": steps.order.sum().over(past),
        "c_lines": steps.lines.sum().over(past),
        "c_products": steps.new_products.sum().over(past),
        "c_spend": steps.spend.sum().over(past),
        "c_discount_lines": steps.discount_lines.sum().over(past),
        "c_private_lines": steps.private_lines.sum().over(past),
        "c_redemptions": steps.redemptions.sum().over(past),
        "c_mailings": steps.mailings.sum().over(past),
        "c_store_events": steps.in_store.sum().over(past),
        "c_digital_events": steps.digital.sum().over(past),
        "c_mail_events": steps.mail.sum().over(past),
        **{
            f"c_decay_orders_{h}": decayed(steps.order, steps.at, steps.anchor, h, past)
            for h in CUSTOMER_HALF_LIVES
        },
        **{
            f"c_decay_lines_{h}": decayed(steps.lines, steps.at, steps.anchor, h, past)
            for h in CUSTOMER_HALF_LIVES
        },
        "c_decay_spend_90": decayed(steps.spend, steps.at, steps.anchor, 90, past),
        "c_gap_sq": (steps.gap * steps.gap).sum().over(past),
        "c_first_at": steps.first_order,
        "c_last_at": steps.last_order,
        "c_row_at": steps.at,
    }
    return steps.select(
        "customer_id",
        event_timestamp=steps.occurred_at,
        **{name: columns[name].cast("float64") for name in CUSTOMER_COLUMNS},
    )


def _moments(events: Table) -> Table:
    """Events of known customers counted by moment."""
    known = events.filter(events.customer_id.notnull())
    mail = known.channel == "direct_mail"
    counted = known.group_by(["customer_id", "occurred_at", "at_us"]).agg(
        redemptions=is_true(known.action == "redeem").sum(),
        mailings=is_true(mail & (known.action == "impression")).sum(),
        in_store=is_true(known.channel == "store").sum(),
        digital=is_true(known.channel.notin(PHYSICAL_CHANNELS)).sum(),
        mail=is_true(mail).sum(),
    )
    return counted.mutate(at=days(counted.at_us))


def _baskets(events: Table, products: Table) -> Table:
    """Purchases by moment: what each added."""
    lines = purchases(events)
    lines = lines.mutate(amount=lines.quantity * lines.unit_price)
    pairs = lines.group_by(["customer_id", "product_id", "occurred_at"]).agg(
        amount=lines.amount.sum(), discounted=is_true(lines.discount > 0).max()
    )
    brands = products.select(known_id=products.product_id, brand=products.brand)
    pairs = pairs.left_join(brands, pairs.product_id == brands.known_id)
    rank = ibis.row_number().over(group_by=[pairs.customer_id, pairs.product_id], order_by=pairs.occurred_at)
    pairs = pairs.mutate(new=is_true(rank == 0), private=is_true(pairs.brand == PRIVATE_BRAND))
    baskets = pairs.group_by(["customer_id", "occurred_at"]).agg(
        lines=is_true(pairs.product_id.notnull()).sum(),
        new_products=pairs.new.sum(),
        spend=pairs.amount.sum(),
        discount_lines=pairs.discounted.sum(),
        private_lines=pairs.private.sum(),
    )
    return baskets.mutate(order=is_true(baskets.lines > 0))
