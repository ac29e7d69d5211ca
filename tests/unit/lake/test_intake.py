"""From inbox rows to the lake: each accepted event once, whatever is repeated, broken or killed."""

import datetime as dt
import json
import pathlib
from typing import Any

import pytest

from orchestration.lake import tables, writing
from orchestration.lake.checks import open_lake
from orchestration.lake.intake import drain, drain_refused, drained_offset, field_of, refused_offset
from orchestration.lake.tables import TABLES

RECEIVED = dt.datetime(2017, 12, 1, 12, tzinfo=dt.UTC)


def row(offset: int, **event: Any) -> tuple[int, dt.datetime, bytes]:
    whole = {
        "event_id": f"e{offset}", "source": "web", "occurred_at": "2017-12-01T10:00:00+02:00", "channel": "web",
        "action": "view", "product_id": "1", "identifiers": [{"kind": "customer", "value": "7"}],
    }  # fmt: skip
    return offset, RECEIVED, json.dumps(whole | event).encode()


def lake_rows(lake: pathlib.Path, query: str) -> list[tuple[Any, ...]]:
    return open_lake(lake).sql(query).fetchall()


def test_events_land_with_their_arrival_and_what_follows_from_them(tmp_path: pathlib.Path) -> None:
    done = drain(tmp_path, [row(3, touchpoint="store:9", quantity=2), row(5)])
    assert (done.offset, done.events, done.duplicates, done.rejected) == (5, 2, 0, 0)
    assert done.first_day == done.last_day == dt.date(2017, 12, 1)
    assert drained_offset(tmp_path) == 5
    found = lake_rows(
        tmp_path,
        "select event_id, customer_id, store_id, quantity, received_at, occurred_at, day from events order by 1",
    )
    occurred = dt.datetime(2017, 12, 1, 8, tzinfo=dt.UTC)
    assert found[0] == ("e3", "7", "9", 2.0, RECEIVED, occurred, dt.date(2017, 12, 1))
    assert found[1][:4] == ("e5", "7", None, None)


def test_draining_again_changes_nothing(tmp_path: pathlib.Path) -> None:
    first = drain(tmp_path, [row(1), row(2)])
    again = drain(tmp_path, [row(1), row(2)])
    assert (again.events, again.version, again.offset) == (0, first.version, 2)
    more = drain(tmp_path, [row(1), row(2), row(3)])
    assert (more.events, more.offset) == (1, 3)
    assert lake_rows(tmp_path, "select count(*), count(distinct event_id) from events") == [(3, 3)]


def test_an_event_that_the_lake_or_the_batch_holds_already_is_not_stored_again(
    tmp_path: pathlib.Path,
) -> None:
    drain(tmp_path, [row(1, event_id="same")])
    done = drain(tmp_path, [row(2, event_id="same"), row(3, event_id="new"), row(4, event_id="new")])
    assert (done.events, done.duplicates, done.offset) == (1, 2, 4)
    other_source = drain(tmp_path, [row(5, event_id="same", source="app")])
    assert other_source.events == 1


def test_a_broken_row_becomes_a_dead_letter_and_the_others_are_kept(tmp_path: pathlib.Path) -> None:
    done = drain(
        tmp_path, [row(1), row(2, channel="telepathy"), (3, RECEIVED, b"{half"), row(4, position=2**40)]
    )
    assert (done.events, done.rejected, done.offset) == (1, 3, 4)
    letters = lake_rows(tmp_path, 'select "offset", field, origin, source from dead_letters order by 1')
    assert letters == [
        (2, "channel", "inbox", "web"),
        (3, "", "inbox", None),
        (4, "position", "inbox", "web"),
    ]
    drain(tmp_path, [row(2, channel="telepathy")])
    assert lake_rows(tmp_path, "select count(*) from dead_letters") == [(3,)]


def test_a_drain_killed_between_its_two_commits_is_completed_by_the_next(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = [row(1, channel="telepathy"), row(2)]
    real = writing.append_once

    def dies_at_events(table: tables.Table, *args: Any) -> writing.Commit:
        if table.name == "events":
            raise KeyboardInterrupt
        return real(table, *args)

    with monkeypatch.context() as patch:
        patch.setattr(writing, "append_once", dies_at_events)
        with pytest.raises(KeyboardInterrupt):
            drain(tmp_path, batch)
    assert drained_offset(tmp_path) == 0
    done = drain(tmp_path, [*batch, row(3, channel="smoke")])
    assert (done.events, done.offset) == (1, 3)
    assert lake_rows(tmp_path, "select count(*) from dead_letters") == [(2,)]
    assert lake_rows(tmp_path, "select event_id from events") == [("e2",)]


def test_refused_events_are_kept_as_dead_letters_once(tmp_path: pathlib.Path) -> None:
    refused = [(4, RECEIVED, 0, "action", "expected one of ...", b'{"source":"web"}')]
    assert drain_refused(tmp_path, refused) == 1
    assert drain_refused(tmp_path, refused) == 0
    assert refused_offset(tmp_path) == 4
    found = lake_rows(tmp_path, "select source, field, reason from dead_letters")
    assert found == [("web", "action", "event 0 of its batch: expected one of ...")]


def test_an_empty_inbox_is_nothing_to_do(tmp_path: pathlib.Path) -> None:
    done = drain(tmp_path, [])
    assert (done.offset, done.events, done.version) == (0, 0, 0)
    assert TABLES["events"].path(tmp_path).is_dir()


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ("Invalid enum value 'x' - at `$.channel`", "channel"),
        ("Expected `str` - at `$.identifiers[0].value`", "identifiers[0].value"),
        ("Object missing required field `event_id`", "event_id"),
        ("JSON is malformed: invalid character (byte 1)", ""),
    ],
)
def test_the_field_is_read_from_the_contracts_message(message: str, field: str) -> None:
    assert field_of(message) == field
