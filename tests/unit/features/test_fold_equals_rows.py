"""What the server folds from a customer's events equals what a point-in-time join finds in the feature rows."""

import dataclasses
import datetime as dt
import math
from typing import Any

import feature_oracle as oracle
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings

from contracts import features
from contracts.events import ACTIONS, CHANNELS
from contracts.features import MICROSECONDS_PER_DAY
from feature_repo.build import window_rows
from feature_repo.catalog import VIEWS
from feature_repo.snapshots import connect
from serving.profiles.fold import State, fold
from serving.profiles.history import History, make_history, to_microseconds

Row = dict[str, Any]
CUSTOMER = "1"
ITEMS = [product["product_id"] for product in oracle.PRODUCTS]
TYPES = ["milk", "cheese"]
CATEGORIES = ["dairy"]
STORES = ["10", "20"]
LEVELS = {
    "customer_product": ("product_id", ITEMS, "items", "cp"),
    "customer_type": ("type", TYPES, "types", "ct"),
    "customer_category": ("category", CATEGORIES, "categories", "cc"),
}


@dataclasses.dataclass(frozen=True)
class Catalogue:
    type_id: np.ndarray
    category_id: np.ndarray
    private: np.ndarray


CATALOGUE = Catalogue(
    np.array([TYPES.index(p["type"]) if p["type"] else -1 for p in oracle.PRODUCTS], np.int32),
    np.array([CATEGORIES.index(p["category"]) if p["category"] else -1 for p in oracle.PRODUCTS], np.int32),
    np.array([p["brand"] == "private" for p in oracle.PRODUCTS]),
)


def history_of(events: list[Row]) -> History:
    own = [event for event in events if event["customer_id"] == CUSTOMER]
    return make_history(
        at_us=[to_microseconds(event["occurred_at"]) for event in own],
        item=[-1 if event["product_id"] is None else ITEMS.index(event["product_id"]) for event in own],
        action=[ACTIONS.index(event["action"]) for event in own],
        channel=[CHANNELS.index(event["channel"]) for event in own],
        quantity=[event["quantity"] or 0 for event in own],
        unit_price=[event["unit_price"] or 0 for event in own],
        discount=[event["discount"] or 0 for event in own],
        store=[STORES.index(event["store_id"]) if event["store_id"] else -1 for event in own],
    )


def rows_before(events: list[Row], view: str, moment: dt.datetime) -> dict[tuple[str, ...], Row]:
    """The customer's latest row of each thing strictly before a moment, by the keys beside the customer."""
    con = connect()
    con.register("events", pa.Table.from_pylist(events, schema=oracle.EVENT_SCHEMA))
    con.register("products", pa.Table.from_pylist(oracle.PRODUCTS, schema=oracle.PRODUCT_SCHEMA))
    table = window_rows(con, VIEWS[view], dt.date(2017, 1, 1), dt.date(2017, 12, 31)).read_all()
    latest: dict[tuple[str, ...], Row] = {}
    for row in sorted(table.to_pylist(), key=lambda row: row["event_timestamp"]):
        if row["customer_id"] == CUSTOMER and row["event_timestamp"] < moment:
            latest[tuple(row[key] for key in VIEWS[view].keys[1:])] = row
    return latest


def assert_same(found: float, expected: float | None, where: object) -> None:
    if expected is None or math.isnan(expected):
        assert math.isnan(found), where
    else:
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9), where


@settings(max_examples=15, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(events=oracle.events(), moment=oracle.MOMENTS)
def test_the_fold_equals_the_rows_before_any_moment(events: list[Row], moment: int) -> None:
    state: State = fold(history_of(events), CATALOGUE, moment / MICROSECONDS_PER_DAY)
    at = oracle.EPOCH + dt.timedelta(microseconds=moment)
    customer = rows_before(events, "customer", at).get(())
    assert bool(state.c) == (customer is not None)
    for name in features.CUSTOMER_COLUMNS if customer else ():
        assert_same(state.c[name], customer[name], name)
    for view, (_, names, ids, prefix) in LEVELS.items():
        rows = rows_before(events, view, at)
        things = [(names[index],) for index in getattr(state, ids)]
        assert set(things) == set(rows)
        for position, thing in enumerate(things):
            for name in VIEWS[view].columns:
                assert_same(getattr(state, prefix)[name][position], rows[thing][name], (view, thing, name))
    rows = rows_before(events, "customer_store_product", at)
    pairs = [
        (STORES[store], ITEMS[item]) for store, item in zip(state.stores, state.store_items, strict=True)
    ]
    assert len(pairs) == len(rows)
    for position, pair in enumerate(pairs):
        for name in features.CUSTOMER_STORE_PRODUCT_COLUMNS:
            assert_same(state.cs[name][position], rows[pair][name], (pair, name))
