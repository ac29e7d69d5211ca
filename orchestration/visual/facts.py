"""What the lake knows of products that pictures do not show: price, stock, how often bought, what with what.

Belongs here: queries over the lake. Does not belong here: pictures.
"""

from __future__ import annotations

import csv
import json
import math
import pathlib
from dataclasses import dataclass
from typing import Any

from contracts.settings import Settings
from feature_repo.snapshots import attach, connect

POPULAR_DAYS = 56
STOCKOUT_DAYS = 7
LARGEST_BASKET = 12
MOST_BASKETS = 20_000

PRODUCTS_SQL = f"""
with last as (select max(occurred_at) as at from events),
sold as (
  select product_id,
    arg_max(unit_price, occurred_at) filter (where action = 'purchase' and unit_price > 0) as price,
    count(*) filter (where action = 'purchase' and occurred_at > last.at - interval {POPULAR_DAYS} day) as bought,
    max(occurred_at) filter (where action = 'purchase') as bought_at,
    max(occurred_at) filter (where action = 'stockout' and occurred_at > last.at - interval {STOCKOUT_DAYS} day)
      as out_at
  from events, last where product_id is not null group by 1
)
select p.product_id, p.name, p.department, p.category, p.type, p.kind, p.sellable, p.attributes,
  s.price, coalesce(s.bought, 0) as bought,
  s.out_at is not null and (s.bought_at is null or s.out_at > s.bought_at) as out
from products p left join sold s using (product_id) order by p.product_id
"""

SIZES_SQL = f"""
with last as (select max(occurred_at) as at from events),
told as (
  select product_id, json_extract_string(detail, '$.size') as size, action, occurred_at from events, last
  where action in ('purchase', 'stockout') and product_id is not null and detail is not null
    and occurred_at > last.at - interval {STOCKOUT_DAYS} day
)
select product_id, size from told where size is not null
group by 1, 2 having arg_max(action, occurred_at) = 'stockout'
"""
"""Sizes that ran out and were not bought since."""

BASKETS_SQL = """
with baskets as (
  select customer_id, occurred_at, list(distinct e.product_id order by e.product_id) as items
  from events e join products p using (product_id)
  where e.action = 'purchase' and e.customer_id is not null and p.kind = 'good'
  group by 1, 2
)
select items from baskets where len(items) between 2 and $largest order by occurred_at desc, customer_id limit $most
"""


@dataclass(frozen=True)
class Product:
    """One product of the lake.

    Attributes:
        product_id: Its id.
        name: For people.
        department: Coarsest level.
        category: Middle level.
        type: Finest level.
        colour: Empty for unknown.
        good: Whether it is a thing (not content, not a service).
        sellable: Whether it may be shown.
        price: Last price paid, else the list price; NaN for unknown.
        in_stock: Not known to have run out.
        sizes: Sizes it is made in, and whether each is in stock; empty where the catalogue tells none.
        bought: Purchases in the last `POPULAR_DAYS`.
    """

    product_id: str
    name: str
    department: str
    category: str
    type: str
    colour: str
    good: bool
    sellable: bool
    price: float
    in_stock: bool
    sizes: dict[str, bool]
    bought: int

    def row(self) -> dict[str, Any]:
        """As `belonging` reads it."""
        names = ("product_id", "department", "category", "type", "colour", "sellable")
        return {name: getattr(self, name) for name in names}


def products(settings: Settings) -> list[Product]:
    """Every product, by id.

    Stock is what events tell: a stockout in the last `STOCKOUT_DAYS` that no purchase followed. Of a product whose
    attributes count pieces by size (``stock``), that holds for each size, and one size in stock is enough.
    """
    con = connect()
    attach(con, "events", settings.lake / "events")
    attach(con, "products", settings.lake / "products")
    gone: dict[str, set[str]] = {}
    for product_id, size in con.execute(SIZES_SQL).fetchall():
        gone.setdefault(product_id, set()).add(size)
    found = []
    for values in con.execute(PRODUCTS_SQL).fetchall():
        product_id, name, department, category, kind_of, kind, sellable, attributes, price, bought, out = (
            values
        )
        told = json.loads(attributes) if attributes else {}
        listed = told.get("list_price")
        sizes = _sizes(told.get("stock"), gone.get(product_id, set()))
        left = any(sizes.values()) if sizes else not out
        known = price if price is not None else listed if isinstance(listed, int | float) else math.nan
        found.append(
            Product(
                product_id, name or "", department or "", category or "", kind_of or "", str(told.get("colour", "")),
                kind == "good", bool(sellable), float(known), bool(sellable) and left, sizes,
                int(bought),
            )
        )  # fmt: skip
    return found


def _sizes(stock: Any, gone: set[str]) -> dict[str, bool]:
    """Sizes with whether they are in stock, of what the catalogue counts; one size alone is no choice."""
    if not isinstance(stock, dict) or len(stock) < 2:
        return {}
    return {
        size: size not in gone and isinstance(pieces, int | float) and pieces > 0
        for size, pieces in stock.items()
    }


def product_rows(settings: Settings) -> list[dict[str, Any]]:
    """Every product as the lake has it, by id."""
    con = connect()
    attach(con, "products", settings.lake / "products")
    found = con.execute("select * from products order by product_id")
    names = [column[0] for column in found.description or ()]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def write_baskets(settings: Settings, path: pathlib.Path, known: set[str]) -> int:
    """Write the newest baskets of at least two products with pictures, as CSV (basket, product_id).

    Returns:
        How many.
    """
    con = connect()
    attach(con, "events", settings.lake / "events")
    attach(con, "products", settings.lake / "products")
    found = con.execute(BASKETS_SQL, {"largest": LARGEST_BASKET, "most": MOST_BASKETS}).fetchall()
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("basket", "product_id"))
        for (items,) in found:
            seen = [item for item in items if item in known]
            if len(seen) > 1:
                writer.writerows((count, item) for item in seen)
                count += 1
    return count
