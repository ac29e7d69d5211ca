"""How time is cut, on a small real lake."""

from __future__ import annotations

import datetime as dt
import pathlib

import msgspec
import pyarrow as pa
import pytest

from contracts.retailer import Retailer
from orchestration.lake import tables, writing
from orchestration.windows import NotEnoughData, cut, data_end

SHOP = Retailer(
    name="corner", title="Corner", source="complete_journey", first_day=dt.date(2017, 1, 1),
    last_day=dt.date(2017, 4, 30), evaluation_days=14, ranker_days=28,
)  # fmt: skip


def lake_with(folder: pathlib.Path, days: list[dt.date], a_day: int = 20) -> pathlib.Path:
    rows = [
        {"event_id": f"{day}-{n}", "source": "till", "day": day, "action": "purchase", "channel": "store",
         "occurred_at": dt.datetime.combine(day, dt.time(12), dt.UTC), "product_id": "1", "customer_id": "7"}
        for day in days
        for n in range(a_day)
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=tables.EVENTS)
    writing.append_once(tables.TABLES["events"], folder, table, "test", writing_number(folder))
    return folder


def writing_number(folder: pathlib.Path) -> int:
    return (writing.last_transaction(tables.TABLES["events"], folder, "test") or 0) + 1


def days(first: dt.date, count: int) -> list[dt.date]:
    return [first + dt.timedelta(days=n) for n in range(count)]


def test_windows_end_after_the_last_ordinary_day(tmp_path: pathlib.Path) -> None:
    lake = lake_with(tmp_path, days(dt.date(2017, 1, 1), 90))
    windows = cut(SHOP, lake)
    assert windows.evaluate_until == dt.datetime(2017, 4, 1, tzinfo=dt.UTC)
    assert windows.evaluate_until - windows.evaluate_from == dt.timedelta(days=14)
    assert windows.evaluate_from - windows.ranker_from == dt.timedelta(days=28)


def test_a_stray_event_from_the_future_moves_nothing(tmp_path: pathlib.Path) -> None:
    lake = lake_with(tmp_path, days(dt.date(2017, 1, 1), 90))
    before = cut(SHOP, lake)
    lake_with(tmp_path, [dt.date(2026, 1, 1)], a_day=1)
    assert cut(SHOP, lake) == before
    assert data_end(lake) == dt.date(2026, 1, 1)


def test_an_archive_keeps_its_stub_of_a_last_day(tmp_path: pathlib.Path) -> None:
    shop = msgspec.structs.replace(SHOP, clock="stream", last_day=dt.date(2017, 4, 1))
    lake = lake_with(tmp_path, days(dt.date(2017, 1, 1), 90))
    lake_with(tmp_path, [dt.date(2017, 4, 1)], a_day=1)
    assert cut(shop, lake).evaluate_until == dt.datetime(2017, 4, 2, tzinfo=dt.UTC)


def test_too_little_data_says_how_much_is_needed(tmp_path: pathlib.Path) -> None:
    lake = lake_with(tmp_path, days(dt.date(2017, 1, 1), 30))
    with pytest.raises(NotEnoughData, match="70 days"):
        cut(SHOP, lake)
