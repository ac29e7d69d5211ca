"""The bulk way into the lake, and the questions that are asked of it afterwards."""

import datetime as dt
import pathlib
from typing import Any

import pyarrow as pa
import pytest

from orchestration.lake import checks, ingest, tables, writing
from orchestration.lake.tables import TABLES
from orchestration.sources import WeeklyRows, Window

NOW = dt.datetime(2018, 6, 1, tzinfo=dt.UTC)
FIRST, LAST = dt.date(2017, 5, 1), dt.date(2017, 6, 11)


def sale(event_id: str, day: dt.date, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(tables.CANONICAL.names)
    row |= {
        "event_id": event_id, "source": "mine", "occurred_at": dt.datetime.combine(day, dt.time(12), dt.UTC),
        "channel": "store", "action": "purchase", "product_id": "p", "quantity": 1.0, "unit_price": 2.0,
        "identifiers": '[{"kind":"customer","value":"7"}]',
    }  # fmt: skip
    return row | changes


class Shop:
    """A source whose rows the test gives."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def events(self, window: Window) -> pa.RecordBatchReader:
        days = [row for row in self.rows if row["occurred_at"] is None or self._inside(row, window)]
        return pa.Table.from_pylist(days, schema=tables.CANONICAL).to_reader(max_chunksize=3)

    @staticmethod
    def _inside(row: dict[str, Any], window: Window) -> bool:
        return window.first_day <= row["occurred_at"].date() <= window.last_day

    def products(self) -> pa.Table:
        row = {"product_id": "p", "name": "P", "kind": "good", "sellable": True}
        return pa.Table.from_pylist([row], schema=tables.PRODUCTS)

    def customers(self, households: int | None) -> pa.Table:
        return tables.CUSTOMERS.empty_table()

    def offers(self) -> pa.Table:
        return tables.OFFERS.empty_table()

    def exposures(self, window: Window) -> WeeklyRows:
        rows = [{"week": 5, "store_id": "1", "product_id": "p", "display": True, "mailer": False}]
        return WeeklyRows(5, 5, pa.Table.from_pylist(rows, schema=tables.EXPOSURES).to_reader())


def daily(per_day: int = 10) -> list[dict[str, Any]]:
    days = [FIRST + dt.timedelta(days=n) for n in range((LAST - FIRST).days + 1)]
    return [sale(f"{day}-{n}", day) for day in days for n in range(per_day)]


def load_shop(lake: pathlib.Path, rows: list[dict[str, Any]], first: dt.date = FIRST) -> ingest.Ingested:
    shop = Shop(rows)
    ingest.ingest_products(lake, shop)
    return ingest.ingest_events(lake, "mine", shop, Window(first, LAST, first=FIRST), NOW)


def answers(lake: pathlib.Path, first: dt.date = FIRST) -> dict[str, checks.Answer]:
    return {answer.name: answer for answer in checks.check_events(lake, first, LAST)}


def test_a_sound_shop_passes_every_check(tmp_path: pathlib.Path) -> None:
    done = load_shop(tmp_path, daily())
    assert (done.read, done.events.rows, done.dead_letters.rows, done.reasons) == (420, 420, 0, {})
    assert all(answer.passed for answer in answers(tmp_path).values())


def test_broken_rows_go_to_the_dead_letters_and_come_back_when_fixed(tmp_path: pathlib.Path) -> None:
    broken = [sale("bad", FIRST, quantity=-1.0), sale("lost", FIRST, occurred_at=None)]
    done = load_shop(tmp_path, [*daily(1), *broken])
    assert (done.events.rows, done.dead_letters.rows) == (42, 2)
    con = checks.open_lake(tmp_path)
    letters = con.sql("select field, source, origin, day, raw from dead_letters order by 1").fetchall()
    assert [letter[0] for letter in letters] == ["occurred_at", "quantity"]
    assert {letter[1:4] for letter in letters} == {("mine", "source", FIRST)}
    assert '"quantity":-1.0' in letters[1][4]
    load_shop(tmp_path, [*daily(1), *broken])
    assert checks.open_lake(tmp_path).sql("select count(*) from dead_letters").fetchall() == [(2,)]
    load_shop(tmp_path, [*daily(1), sale("bad", FIRST)])
    con = checks.open_lake(tmp_path)
    assert con.sql("select count(*) from dead_letters").fetchall() == [(0,)]
    assert con.sql("select count(*) from events where event_id = 'bad'").fetchall() == [(1,)]


def test_a_source_that_writes_under_another_name_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(Exception, match="expected only its own name"):
        load_shop(tmp_path, [sale("1", FIRST, source="theirs")])


def test_an_event_stored_twice_fails_uniqueness(tmp_path: pathlib.Path) -> None:
    load_shop(tmp_path, daily(1))
    stored = checks.open_lake(tmp_path).sql(f"from events where day = date '{FIRST}'").to_arrow_table()
    writing.append_once(TABLES["events"], tmp_path, stored.cast(tables.EVENTS), "mistake", 1)
    answer = answers(tmp_path)["unique_events"]
    assert (answer.passed, answer.severity) == (False, "error")
    assert answer.evidence["examples"] == [f"mine/{FIRST}-0 x2"]


def test_unknown_products_fail_when_they_are_many(tmp_path: pathlib.Path) -> None:
    load_shop(tmp_path, [*daily(), *(sale(f"x{n}", FIRST, product_id="ghost") for n in range(3))])
    assert answers(tmp_path)["known_products"].passed
    load_shop(tmp_path, [*daily(), *(sale(f"x{n}", FIRST, product_id="ghost") for n in range(30))])
    answer = answers(tmp_path)["known_products"]
    assert (answer.passed, answer.evidence["examples"]) == (False, ["ghost"])


def test_old_data_fails_freshness(tmp_path: pathlib.Path) -> None:
    load_shop(tmp_path, [row for row in daily() if row["occurred_at"].date() < LAST - dt.timedelta(days=5)])
    assert not answers(tmp_path)["freshness"].passed


def test_an_unusual_day_is_a_warning_and_an_empty_window_an_error(tmp_path: pathlib.Path) -> None:
    quiet = LAST - dt.timedelta(days=3)
    rows = [row for row in daily() if row["occurred_at"].date() != quiet]
    load_shop(tmp_path, rows)
    answer = answers(tmp_path)["volume"]
    assert (answer.passed, answer.severity, answer.evidence["unusual"]) == (
        False,
        "warn",
        {quiet.isoformat(): 0.0},
    )
    later = LAST + dt.timedelta(days=1)
    empty = checks.volume(checks.open_lake(tmp_path), later, later)
    assert (empty.passed, empty.severity) == (False, "error")


def test_other_columns_fail_the_schema_check(tmp_path: pathlib.Path) -> None:
    load_shop(tmp_path, daily(1))
    answer = checks.schema(TABLES["products"], tmp_path)
    assert answer.passed
    renamed = tables.Table("products", tables.CUSTOMERS, None, "")
    wrong = checks.schema(renamed, tmp_path)
    assert not wrong.passed
    assert wrong.evidence["differing"]["age"] == "absent instead of string"


def test_exposures_replace_their_weeks_only(tmp_path: pathlib.Path) -> None:
    table = TABLES["exposures"]
    kept = pa.Table.from_pylist([{"week": week, "store_id": "9", "product_id": "q"} for week in (4, 5)])
    rows = kept.select([]).append_column("week", kept["week"].cast(pa.int32()))
    rows = pa.Table.from_pylist(
        [{"week": week, "store_id": "9", "product_id": "q"} for week in (4, 5)], schema=tables.EXPOSURES
    )
    writing.replace_all(table, tmp_path, rows)
    ingest.ingest_exposures(tmp_path, Shop([]), Window(FIRST, LAST))
    found = checks.open_lake(tmp_path).sql("select week, store_id from exposures order by 1").fetchall()
    assert found == [(4, "9"), (5, "1")]
