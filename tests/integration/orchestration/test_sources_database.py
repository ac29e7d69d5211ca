"""Tables of SQL databases through Ibis: SQLite, and a PostgreSQL server that the test starts.

Where there is no PostgreSQL the test says so and is skipped (`tests/integration/conftest.py`).
"""

from __future__ import annotations

import datetime as dt
import importlib.util
import pathlib
import sqlite3
from typing import Any

import pytest

from contracts.retailer import Feed, Retailer
from orchestration.sources import Window
from orchestration.sources.feeds.database import DatabaseError
from orchestration.sources.files import Files

NOW = dt.datetime(2025, 6, 1, tzinfo=dt.UTC)
YEAR = Window(dt.date(2024, 1, 1), dt.date(2024, 12, 31), first=dt.date(2024, 1, 1))
FEED: dict[str, Any] = {
    "connection": "till", "table": "receipts", "format": "rows", "time_zone": "Europe/Berlin",
    "fields": {"event_id": "line", "occurred_at": "sold_at", "product_id": "article", "quantity": "n", "unit_price": "price",
               "touchpoint": "store:{store}"},
    "identifiers": {"loyalty_card": "card"}, "constants": {"channel": "store", "action": "purchase"},
}  # fmt: skip
CREATE = """create table receipts (line integer primary key, sold_at timestamp, article varchar(20), n integer,
    price numeric(10, 2), store integer, card varchar(20), updated_at timestamp)"""


def shop(folder: pathlib.Path, address: str, **changes: Any) -> Files:
    retailer = Retailer(
        name="corner", title="Corner", source="files", currency="EUR", first_day=YEAR.first_day, last_day=YEAR.last_day,
        connections={"till": address}, mapping={"receipts": Feed(**(FEED | changes))},
    )  # fmt: skip
    return Files(retailer, folder / "sources")


def rows(source: Files) -> list[tuple[Any, ...]]:
    found = source.events(YEAR).read_all().to_pylist()
    return sorted((row["event_id"], row["quantity"], row["unit_price"]) for row in found)


def insert(number: int, at: str, updated: str, n: int = 1) -> str:
    return (
        f"insert into receipts values ({number}, '{at}', 'p{number}', {n}, 2.50, 4, 'c{number}', '{updated}')"
    )


def exercise(folder: pathlib.Path, address: str, execute: Any) -> None:
    """The whole life of a feed with a high water, on any database."""
    execute(CREATE)
    execute(insert(1, "2024-03-01 11:00:00", "2024-03-01 12:00:00"))
    execute(insert(2, "2024-07-01 12:00:00", "2024-07-01 12:00:00", 2))
    source = shop(folder, address, high_water="updated_at")
    synced = source.sync(NOW)
    assert [(part.error, part.good, part.broken) for part in synced.read] == [(None, 2, 0)]
    assert source.due().days == (dt.date(2024, 3, 1), dt.date(2024, 7, 1))
    first = source.events(YEAR).read_all().to_pylist()
    assert sorted(row["occurred_at"].isoformat() for row in first) == [
        "2024-03-01T10:00:00+00:00",
        "2024-07-01T10:00:00+00:00",
    ]
    assert {(row["touchpoint"], row["channel"], row["currency"]) for row in first} == {
        ("store:4", "store", "EUR")
    }
    for _ in range(2):
        assert source.sync(NOW).read == ()
    execute(insert(3, "2024-01-05 12:00:00", "2024-07-01 12:00:00"))  # Late, and as old as the newest known.
    execute("update receipts set n = 9, updated_at = '2024-08-01 00:00:00' where line = 1")
    synced = source.sync(NOW)
    assert set(source.due().days) >= {dt.date(2024, 1, 5), dt.date(2024, 3, 1)}
    assert rows(source) == [("receipts:1", 9, 2.5), ("receipts:2", 2, 2.5), ("receipts:3", 1, 2.5)]
    assert source.sync(NOW).read == ()
    whole = shop(folder / "whole", address)
    assert rows(whole) == rows(source)
    assert whole.sync(NOW).read == ()
    asked = shop(folder / "asked", address, table=None, query="select * from receipts where n > 1")
    assert [row[0] for row in rows(asked)] == ["receipts:1", "receipts:2"]
    with pytest.raises(DatabaseError, match=r"mapping\.receipts: reciepts cannot be read.*receipts"):
        shop(folder / "wrong", address, table="reciepts").sync(NOW)
    with pytest.raises(DatabaseError, match=r"high_water is 'id'; expected one of the columns: line"):
        shop(folder / "water", address, high_water="id").sync(NOW)


def test_sqlite(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "till.sqlite"

    def execute(statement: str) -> None:
        with sqlite3.connect(path) as con:
            con.execute(statement)

    exercise(tmp_path, f"sqlite:///{path}", execute)


def test_postgresql(tmp_path: pathlib.Path, postgres: str) -> None:
    import psycopg

    def execute(statement: str) -> None:
        with psycopg.connect(postgres) as con:
            con.execute(statement.encode())

    exercise(tmp_path, postgres, execute)


def test_types_of_postgresql(tmp_path: pathlib.Path, postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg

    with psycopg.connect(postgres) as con:
        con.execute(
            "create table clicks (id uuid, at timestamptz, payload jsonb, total numeric(12, 3), tags text[])"
        )
        con.execute("""insert into clicks values ('00000000-0000-0000-0000-00000000000a', '2024-03-01 11:00+01',
            '{"kind": "view", "item": {"sku": "p1"}}', 1.125, array['a', 'b'])""")
    monkeypatch.setenv("SHOP_PORT", postgres.rpartition(":")[2].partition("/")[0])
    fields = {"event_id": "id", "occurred_at": "at", "action": "$.payload.kind", "product_id": "$.payload.item.sku",
              "unit_price": "total"}  # fmt: skip
    source = shop(
        tmp_path, "postgresql://shop@127.0.0.1:${SHOP_PORT}/postgres", table="clicks", fields=fields, identifiers={},
        constants={"channel": "web"}, time_zone=None, high_water="at",
    )  # fmt: skip
    part = source.sync(NOW).read[0]
    assert (part.error, part.reasons) == (None, {})
    row = source.events(YEAR).read_all().to_pylist()[0]
    assert row["event_id"] == "receipts:00000000-0000-0000-0000-00000000000a"
    assert (row["action"], row["product_id"], row["unit_price"]) == ("view", "p1", 1.125)
    assert row["occurred_at"] == dt.datetime(2024, 3, 1, 10, tzinfo=dt.UTC)
    assert source.sync(NOW).read == ()


def test_a_database_that_is_away_is_said_so_without_its_password(tmp_path: pathlib.Path) -> None:
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("PostgreSQL is not tested: the package psycopg is missing")
    with pytest.raises(DatabaseError, match=r"connections\.till cannot be reached") as error:
        shop(tmp_path, "postgresql://shop:secret@127.0.0.1:9/none").sync(NOW)
    assert "secret" not in str(error.value)


def test_a_missing_driver_is_named(tmp_path: pathlib.Path) -> None:
    if importlib.util.find_spec("MySQLdb") is not None:
        pytest.skip("the driver of MySQL is there")
    with pytest.raises(DatabaseError, match=r"connections\.till needs a driver .*ibis-framework\[mysql\]"):
        shop(tmp_path, "mysql://shop@127.0.0.1:9/none").sync(NOW)
