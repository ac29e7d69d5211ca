"""Commits to the lake: atomic, repeatable, exactly once, and readable while a writer dies."""

import datetime as dt
import pathlib
import subprocess
import sys
from typing import Any

import pyarrow as pa
import pytest

from feature_repo.snapshots import SnapshotError, attach, connect, delta_files
from orchestration.lake import tables, writing
from orchestration.lake.tables import TABLES

EVENTS = TABLES["events"]
FIRST, SECOND = dt.date(2017, 5, 1), dt.date(2017, 5, 2)


def event(event_id: str, day: dt.date, source: str = "shop", **more: Any) -> dict[str, Any]:
    moment = dt.datetime.combine(day, dt.time(12), dt.UTC)
    return {"event_id": event_id, "source": source, "occurred_at": moment, "day": day, **more}


def rows(*events: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(events), schema=tables.EVENTS)


def stored(lake: pathlib.Path, version: int | None = None) -> list[tuple[str, str]]:
    con = connect()
    attach(con, "events", EVENTS.path(lake), version)
    return con.sql("select source, event_id from events order by 1, 2").fetchall()


def test_replacing_a_window_twice_leaves_the_same_rows(tmp_path: pathlib.Path) -> None:
    week = rows(event("a", FIRST), event("b", SECOND))
    writing.replace_days(EVENTS, tmp_path, week, FIRST, SECOND, "shop")
    again = writing.replace_days(EVENTS, tmp_path, week, FIRST, SECOND, "shop")
    assert again.rows == 2
    assert stored(tmp_path) == [("shop", "a"), ("shop", "b")]


def test_a_window_replaces_only_its_days_and_its_source(tmp_path: pathlib.Path) -> None:
    writing.replace_days(EVENTS, tmp_path, rows(event("a", FIRST), event("b", SECOND)), FIRST, SECOND, "shop")
    writing.append_once(EVENTS, tmp_path, rows(event("w", FIRST, "web")), "inbox", 1)
    writing.replace_days(EVENTS, tmp_path, rows(event("c", FIRST)), FIRST, FIRST, "shop")
    assert stored(tmp_path) == [("shop", "b"), ("shop", "c"), ("web", "w")]


def test_a_row_outside_the_window_is_refused_and_changes_nothing(tmp_path: pathlib.Path) -> None:
    writing.replace_days(EVENTS, tmp_path, rows(event("a", FIRST)), FIRST, FIRST, "shop")
    with pytest.raises(Exception, match="failed validation"):
        writing.replace_days(EVENTS, tmp_path, rows(event("b", SECOND)), FIRST, FIRST, "shop")
    assert stored(tmp_path) == [("shop", "a")]


def test_a_batch_number_is_written_once(tmp_path: pathlib.Path) -> None:
    first = writing.append_once(EVENTS, tmp_path, rows(event("a", FIRST)), "inbox", 10)
    repeated = writing.append_once(EVENTS, tmp_path, rows(event("a", FIRST)), "inbox", 10)
    earlier = writing.append_once(EVENTS, tmp_path, rows(event("z", FIRST)), "inbox", 9)
    other = writing.append_once(EVENTS, tmp_path, rows(event("o", FIRST)), "other", 9)
    assert (first.applied, repeated.applied, earlier.applied, other.applied) == (True, False, False, True)
    assert stored(tmp_path) == [("shop", "a"), ("shop", "o")]
    assert writing.last_transaction(EVENTS, tmp_path, "inbox") == 10
    assert writing.last_transaction(EVENTS, tmp_path, "nobody") is None


def test_other_columns_are_refused_by_name(tmp_path: pathlib.Path) -> None:
    with pytest.raises(writing.SchemaMismatchError, match="mood"):
        writing.replace_all(EVENTS, tmp_path, rows().append_column("mood", pa.nulls(0, pa.string())))


def test_an_old_version_stays_readable_until_it_is_tidied_away(tmp_path: pathlib.Path) -> None:
    before = writing.replace_days(EVENTS, tmp_path, rows(event("a", FIRST)), FIRST, FIRST, "shop").version
    for number in range(3):
        writing.append_once(EVENTS, tmp_path, rows(event(f"n{number}", FIRST)), "inbox", number)
    assert stored(tmp_path, before) == [("shop", "a")]
    whole = stored(tmp_path)
    done = writing.tidy(EVENTS, tmp_path, keep_hours=0)
    assert done["files_merged"] == 4
    assert done["files_deleted"] >= 4
    assert stored(tmp_path) == whole
    assert len(delta_files(EVENTS.path(tmp_path))[1]) == 1


KILLED = """
import os, pathlib, signal, sys
import pyarrow as pa
from orchestration.lake import tables, writing
lake, day = pathlib.Path(sys.argv[1]), sys.argv[2]
import datetime as dt
first = dt.date.fromisoformat(day)

def batches():
    for number in range(1000):
        moment = dt.datetime.combine(first, dt.time(), dt.UTC)
        rows = [{"event_id": f"{number}-{i}", "source": "shop", "occurred_at": moment, "day": first} for i in range(500)]
        yield pa.RecordBatch.from_pylist(rows, schema=tables.EVENTS)
        written = list((lake / "events").rglob("*.parquet"))
        if number > 20 and len(written) > int(sys.argv[3]) or number == 600:
            os.kill(os.getpid(), signal.SIGKILL)

reader = pa.RecordBatchReader.from_batches(tables.EVENTS, batches())
writing.replace_days(tables.TABLES["events"], lake, reader, first, first, "shop")
"""


def test_a_killed_writer_leaves_readers_on_the_version_before(tmp_path: pathlib.Path) -> None:
    writing.replace_days(EVENTS, tmp_path, rows(event("a", FIRST)), FIRST, FIRST, "shop")
    version, files = delta_files(EVENTS.path(tmp_path))
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), FIRST.isoformat(), str(len(files))],
        cwd=pathlib.Path(__file__).parents[3],
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr.decode()
    assert delta_files(EVENTS.path(tmp_path)) == (version, files)
    assert stored(tmp_path) == [("shop", "a")]
    writing.replace_days(EVENTS, tmp_path, rows(event("b", FIRST)), FIRST, FIRST, "shop")
    assert stored(tmp_path) == [("shop", "b")]


def test_a_stray_file_in_the_table_folder_is_never_read(tmp_path: pathlib.Path) -> None:
    writing.replace_days(EVENTS, tmp_path, rows(event("a", FIRST)), FIRST, FIRST, "shop")
    (EVENTS.path(tmp_path) / f"day={FIRST}" / "part-9-half.parquet").write_bytes(b"PAR1 half a file")
    assert stored(tmp_path) == [("shop", "a")]


def test_a_missing_table_or_version_is_named(tmp_path: pathlib.Path) -> None:
    con = connect()
    with pytest.raises(SnapshotError, match=r"no Delta table at .*events"):
        attach(con, "events", EVENTS.path(tmp_path))
    writing.ensure(EVENTS, tmp_path)
    with pytest.raises(SnapshotError, match="no readable version '7'"):
        attach(con, "events", EVENTS.path(tmp_path), 7)
    attach(con, "events", EVENTS.path(tmp_path))
    empty = con.sql("select * from events").to_arrow_table()
    assert (empty.num_rows, empty.schema.names) == (0, tables.EVENTS.names)
    assert con.sql("select typeof(day), typeof(occurred_at) from (select any_value(columns(*)) from events)")
