"""Dead letters: counted, mended, replayed once."""

from __future__ import annotations

import datetime as dt
import json
import pathlib
from typing import Any

import pytest

from feature_repo.snapshots import attach, connect
from orchestration.lake import dead_letters, writing
from orchestration.lake.intake import drain, drain_refused

ARRIVED = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def event(number: int, **changes: Any) -> bytes:
    value = {
        "event_id": f"e{number}", "source": "web", "occurred_at": "2026-02-28T10:00:00Z", "channel": "web",
        "action": "view", "product_id": "p1", **changes,
    }  # fmt: skip
    return json.dumps(value).encode()


@pytest.fixture
def lake(tmp_path: pathlib.Path) -> pathlib.Path:
    """Two letters of an unknown channel, one of a negative quantity, one that is no JSON; one good event."""
    drain(tmp_path, [(1, ARRIVED, event(1)), (2, ARRIVED, event(2, quantity=-1))])
    drain_refused(
        tmp_path,
        [
            (1, ARRIVED, 0, "channel", "no such channel", event(3, channel="fax")),
            (2, ARRIVED, 0, "channel", "no such channel", event(4, channel="fax")),
            (3, ARRIVED, 0, "", "malformed", b"{"),
        ],
    )
    return tmp_path


def stored(lake: pathlib.Path, table: str, columns: str) -> list[tuple[Any, ...]]:
    con = connect()
    attach(con, "rows", lake / table)
    return con.execute(f"select {columns} from rows order by all").fetchall()


def test_letters_are_counted_by_reason(lake: pathlib.Path) -> None:
    rows = dead_letters.counts(lake)
    assert sorted((row["field"], row["letters"]) for row in rows) == [
        ("", 1),
        ("channel", 2),
        ("quantity", 1),
    ]
    assert rows[0]["letters"] == 2
    assert dead_letters.counts(lake / "nowhere") == []


def test_a_patch_mends_letters_and_they_leave_the_table(lake: pathlib.Path) -> None:
    done = dead_letters.replay(lake, "no such channel", {"channel": "chat"})
    assert (done.events, done.duplicates, done.still_broken) == (2, 0, {})
    assert done.days == (dt.date(2026, 2, 28),)
    assert stored(lake, "events", "event_id, channel") == [("e1", "web"), ("e3", "chat"), ("e4", "chat")]
    assert [reason for (reason,) in stored(lake, "dead_letters", "field")] == ["", "quantity"]
    again = dead_letters.replay(lake, "no such channel", {"channel": "chat"})
    assert (again.events, again.duplicates) == (0, 0)


def test_what_is_still_broken_stays(lake: pathlib.Path) -> None:
    done = dead_letters.replay(lake)
    assert done.events == 0
    assert sum(done.still_broken.values()) == 4
    assert len(stored(lake, "dead_letters", "raw")) == 4
    removed = dead_letters.replay(lake, "quantity", {"quantity": None})
    assert (removed.events, removed.still_broken) == (1, {})


def test_a_replay_killed_before_the_letters_went_is_completed_by_the_next(
    lake: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*args: Any) -> writing.Commit:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(writing, "remove_letters", dies)
        with pytest.raises(KeyboardInterrupt):
            dead_letters.replay(lake, "channel", {"channel": "app"})
    done = dead_letters.replay(lake, "channel", {"channel": "app"})
    assert (done.events, done.duplicates) == (0, 2)
    assert len(stored(lake, "events", "event_id")) == 3
    assert len(stored(lake, "dead_letters", "raw")) == 2
