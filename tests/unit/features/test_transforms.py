"""The Ibis transforms equal a brute-force count, on DuckDB and on Spark."""

import datetime as dt
import math
import pathlib
import shutil
from collections.abc import Iterator
from random import Random
from typing import Any

import feature_oracle as oracle
import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings

from feature_repo.build import window_rows
from feature_repo.catalog import VIEWS, UnknownViewError, view
from feature_repo.snapshots import connect

Row = dict[str, Any]
NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
DAYS = (dt.date(2017, 1, 1), dt.date(2017, 12, 31))


def computed(name: str, events: list[Row], first: dt.date = DAYS[0], last: dt.date = DAYS[1]) -> list[Row]:
    con = connect()
    con.register("events", pa.Table.from_pylist(events, schema=oracle.EVENT_SCHEMA))
    con.register("products", pa.Table.from_pylist(oracle.PRODUCTS, schema=oracle.PRODUCT_SCHEMA))
    return window_rows(con, VIEWS[name], first, last).read_all().to_pylist()


def assert_equal_rows(found: Row, expected: dict[str, float], where: object) -> None:
    for name, value in expected.items():
        if math.isnan(value):
            assert found[name] is None, (where, name, found[name])
        else:
            assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-9), (where, name)


@pytest.mark.parametrize(
    ("name", "level", "prefix"),
    [
        ("customer_product", "product_id", "cp"),
        ("customer_type", "type", "ct"),
        ("customer_category", "category", "cc"),
    ],
)
@settings(max_examples=8, deadline=None, phases=NO_SHRINKING)
@given(events=oracle.events())
def test_pair_rows_equal_a_brute_force_count(name: str, level: str, prefix: str, events: list[Row]) -> None:
    rows = {(r["customer_id"], r[level], r["event_timestamp"]): r for r in computed(name, events)}
    expected = oracle.pair_rows(events, level, prefix)
    assert rows.keys() == expected.keys()
    for key, row in expected.items():
        assert_equal_rows(rows[key], row, key)


@settings(max_examples=8, deadline=None, phases=NO_SHRINKING)
@given(events=oracle.events())
def test_customer_rows_equal_a_brute_force_count(events: list[Row]) -> None:
    rows = {(r["customer_id"], r["event_timestamp"]): r for r in computed("customer", events)}
    expected = oracle.customer_rows(events)
    assert rows.keys() == expected.keys()
    for key, row in expected.items():
        assert_equal_rows(rows[key], row, key)


@settings(max_examples=8, deadline=None, phases=NO_SHRINKING)
@given(events=oracle.events())
def test_store_product_rows_equal_a_brute_force_count(events: list[Row]) -> None:
    found = computed("store_product", events)
    rows = {(r["store_id"], r["product_id"], r["event_timestamp"]): r for r in found}
    expected = oracle.store_product_rows(events)
    assert rows.keys() == expected.keys()
    for key, row in expected.items():
        assert_equal_rows(rows[key], row, key)


@settings(max_examples=8, deadline=None, phases=NO_SHRINKING)
@given(events=oracle.events())
def test_customer_store_product_rows_equal_a_brute_force_count(events: list[Row]) -> None:
    found = computed("customer_store_product", events)
    rows = {(r["customer_id"], r["store_id"], r["product_id"], r["event_timestamp"]): r for r in found}
    expected = oracle.customer_store_product_rows(events)
    assert rows.keys() == expected.keys()
    for key, row in expected.items():
        assert_equal_rows(rows[key], row, key)


@settings(max_examples=8, deadline=None, phases=NO_SHRINKING)
@given(events=oracle.events())
def test_product_rows_hold_at_every_midnight(events: list[Row]) -> None:
    """The latest row at or before a midnight is the product's state at it, zeros included."""
    rows = computed("product", events)
    for product in "abcd":
        own = sorted((r for r in rows if r["product_id"] == product), key=lambda r: r["event_timestamp"])
        sales = {e["occurred_at"].date() for e in events if e["product_id"] == product}
        near = {
            day + dt.timedelta(days=shift) for day in sales for shift in (0, 1, 2, 3, 7, 8, 9, 28, 29, 30)
        }
        for midnight in (dt.datetime.combine(day, dt.time(), dt.UTC) for day in near):
            expected = oracle.product_row(events, product, midnight)
            latest = next((r for r in reversed(own) if r["event_timestamp"] <= midnight), None)
            if expected is None:
                assert latest is None
            else:
                assert latest is not None
                assert_equal_rows(latest, expected, (product, midnight))


@pytest.mark.parametrize("name", list(VIEWS))
@settings(max_examples=8, deadline=None, phases=NO_SHRINKING)
@given(events=oracle.events())
def test_a_window_of_days_equals_that_part_of_the_whole(name: str, events: list[Row]) -> None:
    """Building a few days alone gives the rows that the whole build has on them."""
    first, last = dt.date(2017, 3, 4), dt.date(2017, 3, 30)
    keys = [*VIEWS[name].keys, "event_timestamp"]

    def by_key(rows: list[Row]) -> dict[tuple[Any, ...], Row]:
        return {tuple(row[key] for key in keys): row for row in rows if first <= row["day"] <= last}

    whole, part = by_key(computed(name, events)), by_key(computed(name, events, first, last))
    assert whole.keys() == part.keys()
    for key, row in whole.items():
        numbers = {n: math.nan if row[n] is None else row[n] for n in VIEWS[name].columns}
        assert_equal_rows(part[key], numbers, key)


def purchase(customer: str, product: str, moment: str, quantity: float, price: float, discount: float) -> Row:
    at = dt.datetime.fromisoformat(moment)
    return {
        "event_id": moment + product, "occurred_at": at, "customer_id": customer, "store_id": "10", "channel": "store",
        "action": "purchase", "product_id": product, "quantity": quantity, "unit_price": price,
        "discount": discount, "day": at.date(),
    }  # fmt: skip


def test_a_life_worked_by_hand() -> None:
    events = [
        purchase("1", "a", "2017-03-01T12:00:00+00:00", 2, 1.5, 0),
        purchase("1", "b", "2017-03-01T12:00:00+00:00", 1, 4.0, 1.0),
        purchase("1", "a", "2017-03-15T12:00:00+00:00", 1, 1.0, 0.5),
        purchase("1", "a", "2017-03-29T12:00:00+00:00", 3, 1.5, 0),
    ]
    pair = max(computed("customer_product", events), key=lambda row: row["event_timestamp"])
    assert (pair["product_id"], pair["cp_orders"], pair["cp_units"], pair["cp_discount_orders"]) == (
        "a",
        3,
        6,
        1,
    )
    assert pair["cp_gap_sq"] == 14**2 + 14**2
    assert pair["cp_decay_14"] == pytest.approx(1 + 1 / 2 + 1 / 4)
    milk = max(computed("customer_type", events), key=lambda row: row["event_timestamp"])
    assert (milk["ct_orders"], milk["ct_units"]) == (3, 7)
    customer = max(computed("customer", events), key=lambda row: row["event_timestamp"])
    assert (customer["c_orders"], customer["c_lines"], customer["c_products"]) == (3, 4, 2)
    assert customer["c_spend"] == pytest.approx(3 + 4 + 1 + 4.5)
    assert customer["c_decay_orders_28"] == pytest.approx(1 + 2**-0.5 + 1 / 2)
    until = [
        r for r in computed("product", events) if r["product_id"] == "a" and r["day"] < dt.date(2017, 4, 1)
    ]
    at_april = max(until, key=lambda row: row["day"])
    assert (at_april["p_orders_1"], at_april["p_orders_7"], at_april["p_orders_28"]) == (0, 1, 2)
    assert at_april["p_price_28"] == pytest.approx((1.0 + 3 * 1.5) / 4)
    assert at_april["p_list_price_28"] == pytest.approx(1.5)


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    """Spark 4.0 by Ibis, where pyspark and Java are installed (Ibis's polars backend lacks window functions)."""
    sql = pytest.importorskip(
        "pyspark.sql", reason="no second Ibis backend with windows: pyspark is not installed"
    )
    if shutil.which("java") is None:
        pytest.skip("no second Ibis backend with windows: pyspark needs Java")
    builder = sql.SparkSession.builder.master("local[1]").config("spark.sql.session.timeZone", "UTC")
    session = (
        builder.config("spark.ui.enabled", "false").config("spark.sql.shuffle.partitions", "1").getOrCreate()
    )
    yield ibis.pyspark.connect(session)
    session.stop()


def test_spark_gives_the_same_rows(spark: Any, tmp_path: pathlib.Path) -> None:
    events = some_events(60)
    micros = [(event["occurred_at"] - oracle.EPOCH) // dt.timedelta(microseconds=1) for event in events]
    table = pa.Table.from_pylist(events, schema=oracle.EVENT_SCHEMA).append_column("at_us", pa.array(micros))
    pq.write_table(table, tmp_path / "events.parquet")
    pq.write_table(
        pa.Table.from_pylist(oracle.PRODUCTS, schema=oracle.PRODUCT_SCHEMA), tmp_path / "products.parquet"
    )
    lake = [spark.read_parquet(tmp_path / f"{name}.parquet") for name in ("events", "products")]
    for name, spec in VIEWS.items():
        keys = [*spec.keys, "event_timestamp"]
        found = {}
        for row in spec.rows(*lake).to_pyarrow().to_pylist():
            row["event_timestamp"] = row["event_timestamp"].replace(
                tzinfo=dt.UTC
            )  # Spark's session zone is UTC
            found[tuple(row[key] for key in keys)] = row
        rows = computed(name, events)
        assert len(rows) == len(found) > 0
        for row in rows:
            key = tuple(row[key] for key in keys)
            numbers = {n: math.nan if row[n] is None else row[n] for n in spec.columns}
            assert_equal_rows(found[key], numbers, (name, key))


def some_events(size: int) -> list[Row]:
    """Events of two customers and a stranger over two months, always the same."""
    random = Random(5)
    found = []
    for number in range(size):
        at = dt.datetime(2017, 3, 1, tzinfo=dt.UTC) + dt.timedelta(
            seconds=random.randrange(5_000_000), microseconds=7
        )
        found.append(
            {
                "event_id": str(number), "occurred_at": at, "day": at.date(), "channel": "store",
                "customer_id": random.choice(["1", "1", "2", None]), "store_id": random.choice(["10", "20"]),
                "action": "purchase", "product_id": random.choice("abcd"), "quantity": float(random.randrange(4)),
                "unit_price": 1.5, "discount": random.choice([0.0, 0.25]),
            }
        )  # fmt: skip
    return found


def test_an_unknown_view_is_named_with_those_that_exist() -> None:
    with pytest.raises(UnknownViewError, match="feature view is 'basket'; expected one of: customer, "):
        view("basket")
