"""Names, columns and partitions of the lake's tables.

Belongs here: Arrow schemas and where a table lies. Does not belong here: writing and reading.
"""

from __future__ import annotations

import dataclasses
import pathlib

import pyarrow as pa

TIMESTAMP = pa.timestamp("us", tz="UTC")
"""Every time in the lake; nanoseconds break Feast's materialize on DuckDB 2 (duckdb/duckdb#25334)."""

CANONICAL = pa.schema(
    [
        pa.field("event_id", pa.string()),
        pa.field("source", pa.string()),
        pa.field("occurred_at", TIMESTAMP),
        pa.field("received_at", TIMESTAMP),
        pa.field("identifiers", pa.string()),
        pa.field("session_id", pa.string()),
        pa.field("channel", pa.string()),
        pa.field("touchpoint", pa.string()),
        pa.field("action", pa.string()),
        pa.field("product_id", pa.string()),
        pa.field("quantity", pa.float64()),
        pa.field("unit_price", pa.float64()),
        pa.field("discount", pa.float64()),
        pa.field("currency", pa.string()),
        pa.field("query", pa.string()),
        pa.field("media_id", pa.string()),
        pa.field("decision_id", pa.string()),
        pa.field("position", pa.int32()),
        pa.field("moment", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("consent", pa.string()),
    ]
)
"""What a source yields: the fields of `contracts.events.Event`; identifiers, detail and consent as JSON."""

EVENTS = pa.schema(
    [
        *CANONICAL,
        pa.field("customer_id", pa.string()),
        pa.field("store_id", pa.string()),
        pa.field("day", pa.date32()),
    ]
)
"""Checked events: the canonical columns and three that follow from them (see `validation.derive`)."""

PRODUCTS = pa.schema(
    [
        pa.field("product_id", pa.string()),
        pa.field("name", pa.string()),
        pa.field("department", pa.string()),
        pa.field("category", pa.string()),
        pa.field("type", pa.string()),
        pa.field("brand", pa.string()),
        pa.field("manufacturer", pa.string()),
        pa.field("size", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("sellable", pa.bool_()),
        pa.field("attributes", pa.string()),
    ]
)
"""The fields of `contracts.catalogue.Product`; attributes as JSON."""

CUSTOMERS = pa.schema(
    [
        pa.field("customer_id", pa.string()),
        pa.field("age", pa.string()),
        pa.field("income", pa.string()),
        pa.field("home_ownership", pa.string()),
        pa.field("marital_status", pa.string()),
        pa.field("household_size", pa.string()),
        pa.field("household_composition", pa.string()),
        pa.field("kids", pa.string()),
    ]
)
"""Every known customer; demographics are null where the shop does not know them."""

EXPOSURES = pa.schema(
    [
        pa.field("week", pa.int32()),
        pa.field("store_id", pa.string()),
        pa.field("product_id", pa.string()),
        pa.field("display", pa.bool_()),
        pa.field("mailer", pa.bool_()),
        pa.field("display_location", pa.string()),
        pa.field("mailer_location", pa.string()),
    ]
)
"""Products that a store displayed or advertised in a week; week is `contracts.features.week_of`."""

OFFERS = pa.schema(
    [
        pa.field("offer_id", pa.string()),
        pa.field("campaign_id", pa.string()),
        pa.field("campaign_type", pa.string()),
        pa.field("product_id", pa.string()),
        pa.field("starts_at", TIMESTAMP),
        pa.field("ends_at", TIMESTAMP),
    ]
)
"""Which coupon of which campaign is good for which product, and when."""

DEAD_LETTERS = pa.schema(
    [
        pa.field("received_at", TIMESTAMP),
        pa.field("source", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("field", pa.string()),
        pa.field("raw", pa.string()),
        pa.field("origin", pa.string()),
        pa.field("offset", pa.int64()),
        pa.field("day", pa.date32()),
    ]
)
"""What broke the contract, as it came; origin is ``source`` (bulk) or ``inbox``, day its UTC day."""


@dataclasses.dataclass(frozen=True)
class Table:
    """One table of the lake.

    Attributes:
        name: Folder below ``Settings.lake``.
        schema: Columns.
        partition: Partition column, or None.
        description: For people.
    """

    name: str
    schema: pa.Schema
    partition: str | None
    description: str

    def path(self, lake: pathlib.Path) -> pathlib.Path:
        """Folder of the table."""
        return lake / self.name


TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        Table("events", EVENTS, "day", "Everything that happened between a person and the shop."),
        Table("products", PRODUCTS, None, "The catalogue."),
        Table("customers", CUSTOMERS, None, "Known customers and what the shop knows about them."),
        Table("exposures", EXPOSURES, "week", "Displays and mailers by store and week."),
        Table("offers", OFFERS, None, "Coupons and the products they are good for."),
        Table("dead_letters", DEAD_LETTERS, None, "Events that broke the contract, with the reason."),
    )
}
"""All tables by name."""
