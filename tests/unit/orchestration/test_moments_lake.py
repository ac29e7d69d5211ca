"""The lake's tables of sessions and moments: what a row holds, whose it is, in parts as in one."""

import datetime as dt

import pyarrow as pa
import pytest

from contracts.moments import MomentRules
from feature_repo.snapshots import connect
from orchestration.lake import tables
from orchestration.lake.moments import detect, detect_in_parts
from orchestration.lake.sessions import EventsError

START = dt.datetime(2025, 1, 1, 12, tzinfo=dt.UTC)


def table(*rows: dict) -> pa.Table:
    full = [
        {"event_id": f"e{number}", "source": "shop", "channel": "web", "detail": "{}", **row,
         "occurred_at": START + dt.timedelta(minutes=row["occurred_at"])}
        for number, row in enumerate(rows)
    ]  # fmt: skip
    return pa.Table.from_pylist(full, schema=tables.EVENTS)


EVENTS = table(
    {"occurred_at": 0, "action": "visit", "customer_id": "ann"},
    {
        "occurred_at": 1,
        "action": "search",
        "customer_id": "ann",
        "query": "red shoe",
        "detail": '{"results": 4}',
    },
    {"occurred_at": 2, "action": "search", "customer_id": "ann", "query": "shoe", "channel": "app"},
    {"occurred_at": 9, "action": "purchase", "customer_id": "ann", "product_id": "p", "channel": "store"},
    {"occurred_at": 0, "action": "error", "session_id": "v1"},
    {"occurred_at": 1, "action": "view", "session_id": "v1", "touchpoint": "store-finder"},
    {"occurred_at": 1, "action": "return"},
    {"occurred_at": 2, "action": "impression", "customer_id": "bob"},
)


def test_a_session_row_and_moment_rows_with_evidence():
    sessions, moments = detect(EVENTS)
    ann = next(row for row in sessions.to_pylist() if row["person_id"] == "ann")
    assert {name: ann[name] for name in ("acts", "channels", "first_channel", "purchases")} == {
        "acts": 4, "channels": 3, "first_channel": "web", "purchases": 1,
    }  # fmt: skip
    assert ann["ended_at"] - ann["started_at"] == dt.timedelta(minutes=9)
    mine = [row for row in moments.to_pylist() if row["person_id"] == "ann"]
    assert [(row["kind"], row["evidence"], row["session_id"]) for row in mine] == [
        ("repeated_search", ["e1", "e2"], ann["session_id"]), ("want_to_buy", ["e3"], ann["session_id"]),
    ]  # fmt: skip
    assert mine[0]["recovered_at"] == START + dt.timedelta(minutes=9)
    assert mine[1]["recovered_at"] is None


def test_strangers_have_moments_too():
    sessions, moments = detect(EVENTS)
    assert {row["person_id"] for row in sessions.to_pylist()} == {"ann", "session:v1", "event:shop:e6"}
    assert {(row["person_id"], row["kind"]) for row in moments.to_pylist()} == {
        ("ann", "repeated_search"), ("ann", "want_to_buy"), ("session:v1", "error"),
        ("session:v1", "want_to_go"), ("event:shop:e6", "return"),
    }  # fmt: skip


def test_in_parts_as_in_one():
    whole = detect(EVENTS)
    con = connect()
    con.register("e", EVENTS)
    parts = list(detect_in_parts(con, "select * from e", 3))
    for place, keys in (
        (0, [("session_id", "ascending")]),
        (1, [("person_id", "ascending"), ("kind", "ascending")]),
    ):
        merged = pa.concat_tables([part[place] for part in parts])
        assert merged.sort_by(keys).equals(whole[place].sort_by(keys))
    with pytest.raises(ValueError, match="parts is 0"):
        next(detect_in_parts(con, "select * from e", 0))


def test_no_events_give_empty_tables():
    sessions, moments = detect(EVENTS.slice(0, 0))
    assert (sessions.num_rows, moments.num_rows) == (0, 0)


def test_pages_of_a_shop_are_its_own():
    rules = MomentRules(go_pages=("filialen",))
    events = table({"occurred_at": 0, "action": "view", "customer_id": "ann", "touchpoint": "filialen"})
    assert detect(events, rules)[1]["kind"].to_pylist() == ["want_to_go"]


def test_a_missing_column_is_named():
    with pytest.raises(EventsError, match="no column 'query'"):
        detect(EVENTS.drop_columns(["query"]))
    with pytest.raises(EventsError, match="no column 'person_id'"):
        detect(EVENTS, person="person_id")
