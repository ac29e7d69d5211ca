"""The feature views of this platform: what each is about, its keys, its columns, how it is computed.

The builder, Feast's definitions, the offline join and the online store all read this one list.

Belongs here: `ViewSpec` and the list. Does not belong here: Feast objects (`feature_repo/views.py`),
arithmetic (`feature_repo/transforms`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import ibis.expr.types as ir
import pyarrow as pa

from contracts import features
from contracts.predictions import PREDICTION_COLUMNS
from feature_repo import transforms
from feature_repo.transforms.product import CHANGE_AFTER

TIMESTAMP = pa.timestamp("us", tz="UTC")


class UnknownViewError(LookupError):
    """A view that does not exist; the message lists those that do."""


@dataclasses.dataclass(frozen=True)
class ViewSpec:
    """One feature view.

    Attributes:
        name: Name in Feast and folder below ``Settings.features``.
        keys: Entity columns, all strings.
        columns: Feature columns, all float64.
        driver: Column of the events; events of one of its values alone decide about a row.
        reach: An event can change rows of its own day and of this many days later.
        at_midnight: Rows are at midnights and belong to the day that ends there.
        rows: The transform, from the lake tables events and products.
        description: For people.
    """

    name: str
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    driver: str
    rows: Callable[[ir.Table, ir.Table], ir.Table]
    description: str
    reach: tuple[int, ...] = (0,)
    at_midnight: bool = False

    @property
    def schema(self) -> pa.Schema:
        """Columns of the stored table: keys, event_timestamp, features, day (the partition)."""
        return pa.schema(
            [
                *(pa.field(key, pa.string()) for key in self.keys),
                pa.field("event_timestamp", TIMESTAMP),
                *(pa.field(column, pa.float64()) for column in self.columns),
                pa.field("day", pa.date32()),
            ]
        )


VIEWS: dict[str, ViewSpec] = {
    view.name: view
    for view in (
        ViewSpec(
            "customer",
            ("customer_id",),
            features.CUSTOMER_COLUMNS,
            "customer_id",
            transforms.customer_rows,
            "Recency, frequency, spend, basket size, cadence, price sensitivity, channel and coupon affinity "
            "of a customer; one row per moment with an event.",
        ),
        ViewSpec(
            "customer_product",
            ("customer_id", "product_id"),
            features.CUSTOMER_PRODUCT_COLUMNS,
            "customer_id",
            lambda events, _: transforms.customer_product_rows(events),
            "How often, how much and in what rhythm a customer buys a product; one row per purchase.",
        ),
        ViewSpec(
            "customer_type",
            ("customer_id", "type"),
            features.CUSTOMER_TYPE_COLUMNS,
            "customer_id",
            transforms.customer_type_rows,
            "The same for all products of one type, which replace one another; one row per purchase.",
        ),
        ViewSpec(
            "customer_category",
            ("customer_id", "category"),
            features.CUSTOMER_CATEGORY_COLUMNS,
            "customer_id",
            transforms.customer_category_rows,
            "The same for all products of one category; one row per purchase.",
        ),
        ViewSpec(
            "customer_store_product",
            ("customer_id", "store_id", "product_id"),
            features.CUSTOMER_STORE_PRODUCT_COLUMNS,
            "customer_id",
            lambda events, _: transforms.customer_store_product_rows(events),
            "How often a customer buys a product in one store; one row per purchase there.",
        ),
        ViewSpec(
            "product",
            ("product_id",),
            features.PRODUCT_COLUMNS,
            "product_id",
            lambda events, _: transforms.product_rows(events),
            "Popularity and trend over 1, 7 and 28 days, reach, repeat customers and their rhythm, price and "
            "discount of a product; one row per midnight at which a value changes.",
            reach=CHANGE_AFTER,
            at_midnight=True,
        ),
        ViewSpec(
            "store_product",
            ("store_id", "product_id"),
            features.STORE_PRODUCT_COLUMNS,
            "product_id",
            lambda events, _: transforms.store_product_rows(events),
            "How a product sells in one store, with three half-lives; one row per moment it was sold there.",
        ),
    )
}
"""All views by name."""


def _not_computed(events: ir.Table, products: ir.Table) -> ir.Table:
    raise UnknownViewError("predictions are stored by the models' own run, not computed from events")


PREDICTIONS = ViewSpec(
    "customer_prediction",
    ("customer_id",),
    PREDICTION_COLUMNS,
    "customer_id",
    _not_computed,
    "What the models said of a customer: churn, value, next visit, intent, effect of a contact, segments; one row per "
    "moment of predicting, so a join at an earlier moment sees the prediction that was known then.",
)
"""A view whose rows are written by `orchestration/lake/predictions.py`; it exists once the first are."""


def stored(name: str) -> ViewSpec:
    """The view of that name, computed from events or not.

    Raises:
        UnknownViewError: No such view.
    """
    return PREDICTIONS if name == PREDICTIONS.name else view(name)


def view(name: str) -> ViewSpec:
    """The view of that name.

    Raises:
        UnknownViewError: No such view.
    """
    if name not in VIEWS:
        raise UnknownViewError(f"feature view is '{name}'; expected one of: {', '.join(VIEWS)}")
    return VIEWS[name]
