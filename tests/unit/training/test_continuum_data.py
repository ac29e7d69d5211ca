"""From tables to sequences: what the encoder reads, and in which order."""

from __future__ import annotations

import datetime as dt
import pathlib

import duckdb
import numpy as np
import pytest

from contracts.events import ACTIONS, CHANNELS
from training.continuum import data
from training.continuum.infer import pack

DAY = dt.datetime(2017, 5, 1, tzinfo=dt.UTC)
START = DAY.timestamp() / 86_400


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.execute("set TimeZone = 'UTC'")
    con.execute(
        """create table events (customer_id varchar, session_id varchar, product_id varchar, action varchar,
        channel varchar, occurred_at timestamptz, received_at timestamptz, event_id varchar, unit_price double)"""
    )
    con.execute(
        """create table products (product_id varchar, department varchar, category varchar, type varchar,
        brand varchar, manufacturer varchar)"""
    )
    con.execute(
        "insert into products values ('milk','D','dairy','t','private','m'), ('tea','D','drinks','t',null,'m')"
    )
    return con


def put(con: duckdb.DuckDBPyConnection, *rows: tuple) -> None:
    """(customer, session, product, action, channel, hours, event_id, price)."""
    for customer, session, product, action, channel, hours, event_id, price in rows:
        at = DAY + dt.timedelta(hours=hours)
        con.execute("insert into events values (?,?,?,?,?,?,?,?,?)",
                    [customer, session, product, action, channel, at, at, event_id, price])  # fmt: skip


def vocabulary(con: duckdb.DuckDBPyConnection, until: float = START + 9, **kwargs: int) -> data.Vocabulary:
    return data.read_vocabulary(
        con, until, fields=("category", "brand", "price_band"), price_bands=2, **{"min_count": 2, **kwargs}
    )


def test_vocabulary_holds_what_was_bought_often_enough_before_the_moment(
    con: duckdb.DuckDBPyConnection,
) -> None:
    put(con, *[("a", "1", "milk", "purchase", "store", h, f"m{h}", 1.0) for h in (0, 1)])
    put(con, *[("a", "1", "tea", "purchase", "store", h, f"t{h}", 3.0) for h in (2, 24 * 8)])
    put(con, ("a", None, "tea", "view", "web", 3, "v", None))
    found = vocabulary(con, START + 7)
    assert found.product_id.tolist() == ["", "milk"]
    assert found.count.tolist() == [0, 2]
    assert not found.cold.any()
    with pytest.raises(data.DataError, match="expected some"):
        vocabulary(con, START - 1)


def test_rare_items_may_join_with_content_alone(con: duckdb.DuckDBPyConnection) -> None:
    put(con, *[("a", "1", "milk", "purchase", "store", h, f"m{h}", 1.0) for h in (0, 1)])
    put(con, ("b", "2", "tea", "purchase", "store", 0, "t", 3.0))
    found = vocabulary(con, cold_count=1)
    assert found.product_id.tolist() == ["", "milk", "tea"]
    assert found.cold.tolist() == [False, False, True]
    assert found.content.fields == ("category", "brand", "price_band")
    assert found.content.codes.tolist() == [[0, 0, 0], [1, 1, 1], [2, 0, 2]]


def test_a_basket_has_one_time_and_others_keep_theirs(con: duckdb.DuckDBPyConnection) -> None:
    put(
        con,
        ("a", "s", "tea", "purchase", "store", 2.5, "2", 1.0),
        ("a", "s", "milk", "purchase", "store", 2.0, "1", 1.0),
    )
    put(
        con,
        ("a", "s", "milk", "view", "web", 2.2, "0", None),
        ("a", None, None, "impression", "email", 1.0, "9", None),
    )
    put(con, (None, "x", "milk", "purchase", "store", 1.0, "8", 1.0))
    found = data.read_sequences(con, np.array(["", "milk"]))
    assert found.customers.tolist() == ["a"]
    hours = np.round((found.at - START) * 24, 6).tolist()
    assert hours == [1.0, 2.0, 2.0, 2.2]
    assert found.item.tolist() == [0, 1, 0, 1]
    assert [ACTIONS[i] for i in found.action] == ["impression", "purchase", "purchase", "view"]
    assert CHANNELS[found.channel[0]] == "email"
    assert found.session.tolist()[0] == -1
    assert len(set(found.session.tolist()[1:])) == 1


def test_until_is_strict_and_keeps_every_customer() -> None:
    whole = data.plain_sequences([[1, 2, 3], [4], []], [[1.0, 2.0, 3.0], [5.0], []])
    past = whole.until(3.0)
    assert past.offsets.tolist() == [0, 2, 2, 2]
    assert past.item.tolist() == [1, 2]
    assert len(past.customers) == 3


def test_pack_reads_the_latest_events_strictly_before_the_request() -> None:
    whole = data.plain_sequences([[1, 2, 3], [4], []], [[1.0, 2.0, 3.0], [5.0], []])
    found = pack(whole, np.array([0, 1, 2, -1]), np.array([3.0, 6.0, 6.0, 6.0]), length=2)
    assert found["item"].tolist() == [[1, 2], [0, 4], [0, 0], [0, 0]]
    assert found["age"].tolist() == [[2.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    assert (found["action"] > 0).tolist() == [[True, True], [False, True], [False, False], [False, False]]
    nobody = data.plain_sequences([], [])
    assert pack(nobody, np.array([-1]), np.array([1.0]), 4)["item"].tolist() == [[0]]


def test_plain_sequences_need_no_times() -> None:
    found = data.plain_sequences([[5, 6], [7]])
    assert found.at.tolist() == [0.0, 1.0, 0.0]
    assert found.item.tolist() == [5, 6, 7]


def test_price_bands_are_quantiles_and_unknown_prices_have_none() -> None:
    bands = data.price_band(np.array([1.0, 2.0, 3.0, 4.0, np.nan]), 2)
    assert bands.tolist() == ["00", "00", "01", "01", ""]


def test_a_vocabulary_comes_back_as_it_was_saved(tmp_path: pathlib.Path) -> None:
    vectors = np.ones((2, 3), np.float32)
    content = data.encode_content({"category": np.array(["a", ""])}, 2, vectors)
    whole = data.Vocabulary(
        np.array(["", "x", "y"]), np.array([0.0, 3, 1]), content, np.array([False, False, True])
    )
    data.save_vocabulary(tmp_path / "v.npz", whole)
    back = data.load_vocabulary(tmp_path / "v.npz")
    assert back.product_id.tolist() == ["", "x", "y"]
    assert back.cold.tolist() == [False, False, True]
    assert back.content.codes.tolist() == [[0], [1], [0]]
    assert back.content.vectors is not None
    assert back.content.vectors.tolist() == [[0.0] * 3, [1.0] * 3, [1.0] * 3]


def test_items_without_content_fields_are_fine() -> None:
    assert data.encode_content({}, 4).codes.shape == (5, 0)
