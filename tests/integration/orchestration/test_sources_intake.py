"""From a folder of exports into the lake and back out of trouble: incremental, late, repeated, broken, repaired."""

from __future__ import annotations

import datetime as dt
import json
import pathlib
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from contracts.retailer import Feed, Retailer
from orchestration.cli import main
from orchestration.lake import checks
from orchestration.lake.ingest import ingest_customers, ingest_events, ingest_offers, ingest_products
from orchestration.sources import Window, load
from orchestration.sources.feeds import taking
from orchestration.sources.files import Files, NothingToReadError

NOW = dt.datetime(2025, 6, 1, tzinfo=dt.UTC)
FIRST, LAST = dt.date(2024, 1, 1), dt.date(2024, 12, 31)
FEED = Feed(
    files="in/*.csv",
    fields={"event_id": "id", "occurred_at": "at", "action": "what", "product_id": "sku", "quantity": "n"},
    identifiers={"customer": "who"},
    constants={"channel": "store"},
)
HEADER = "id,at,what,sku,n,who\n"


def sale(
    number: int, at: str = "2024-03-01T10:00:00Z", what: str = "purchase", n: str = "1", who: str = "7"
) -> str:
    return f"{number},{at},{what},p{number},{n},{who}\n"


def shop(folder: pathlib.Path, feed: Feed = FEED, **changes: Any) -> Files:
    feed = msgspec.structs.replace(feed, files=str(folder / str(feed.files)))
    retailer = Retailer(
        name="corner", title="Corner", source="files", first_day=FIRST, last_day=LAST, mapping={"till": feed}
    )
    return Files(msgspec.structs.replace(retailer, **changes), folder / "sources")


def put(folder: pathlib.Path, name: str, *rows: str) -> pathlib.Path:
    path = folder / "in" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(HEADER + "".join(rows))
    return path


def lake(folder: pathlib.Path, query: str) -> list[tuple[Any, ...]]:
    return checks.open_lake(folder / "lake").sql(query).fetchall()


def ids(folder: pathlib.Path) -> list[str]:
    return [row[0] for row in lake(folder, "select event_id from events order by 1")]


def test_pulling_again_changes_nothing_and_new_or_late_files_touch_their_days_only(
    tmp_path: pathlib.Path,
) -> None:
    put(tmp_path, "a.csv", sale(1), sale(2, "2024-03-02T10:00:00Z"))
    first = taking.pull(tmp_path / "lake", shop(tmp_path), NOW)
    assert (first.events, len(first.read), first.days) == (2, 1, (dt.date(2024, 3, 1), dt.date(2024, 3, 2)))
    versions = (
        lake(tmp_path, "select count(*) from events"),
        sorted((tmp_path / "lake/events/_delta_log").iterdir()),
    )
    again = taking.pull(tmp_path / "lake", shop(tmp_path), NOW)
    assert (again.read, again.unchanged, again.days) == ((), 1, ())
    assert (
        lake(tmp_path, "select count(*) from events"),
        sorted((tmp_path / "lake/events/_delta_log").iterdir()),
    ) == versions
    put(
        tmp_path, "late.csv", sale(3, "2024-02-01T10:00:00Z"), sale(1)
    )  # A month late, and one that is known.
    late = taking.pull(tmp_path / "lake", shop(tmp_path), NOW)
    assert late.days == (dt.date(2024, 2, 1), dt.date(2024, 3, 1))
    assert ids(tmp_path) == ["till:1", "till:2", "till:3"]


def test_any_window_can_be_run_alone_and_again(tmp_path: pathlib.Path) -> None:
    put(tmp_path, "a.csv", sale(1), sale(2, "2024-03-02T10:00:00Z"), sale(3, "2024-03-03T23:59:59Z"))
    source = shop(tmp_path)
    for _ in range(2):
        for day in (2, 1, 3):
            window = Window(dt.date(2024, 3, day), dt.date(2024, 3, day), first=FIRST)
            assert ingest_events(tmp_path / "lake", "files", source, window, NOW).events.rows == 1
    assert ids(tmp_path) == ["till:1", "till:2", "till:3"]
    assert ingest_products(tmp_path / "lake", source).rows == 3
    assert ingest_customers(tmp_path / "lake", source).rows == 1
    assert ingest_offers(tmp_path / "lake", source).rows == 0


def test_a_file_that_changes_counts_as_it_is_now_and_one_that_goes_stays(tmp_path: pathlib.Path) -> None:
    path = put(tmp_path, "a.csv", sale(1), sale(2))
    other = put(tmp_path, "b.csv", sale(9, "2024-04-01T10:00:00Z"))
    taking.pull(tmp_path / "lake", shop(tmp_path), NOW)
    put(tmp_path, "a.csv", sale(1, n="5"), sale(3, "2024-03-05T10:00:00Z"))
    other.unlink()
    done = taking.pull(tmp_path / "lake", shop(tmp_path), NOW)
    assert done.days == (dt.date(2024, 3, 1), dt.date(2024, 3, 5))
    assert lake(tmp_path, "select event_id, quantity from events order by 1") == [
        ("till:1", 5),
        ("till:3", 1),
        ("till:9", 1),
    ]
    put(tmp_path, "a.csv", sale(1), sale(2))  # And back to what it was.
    taking.pull(tmp_path / "lake", shop(tmp_path), NOW)
    assert ids(tmp_path) == ["till:1", "till:2", "till:9"]
    path.unlink()
    taking.pull(tmp_path / "lake", shop(tmp_path), NOW)
    assert ids(tmp_path) == ["till:1", "till:2", "till:9"]


def test_a_file_that_is_no_longer_meant_leaves_the_lake(tmp_path: pathlib.Path) -> None:
    put(tmp_path, "a.csv", sale(1))
    put(tmp_path, "wrong.csv", sale(2, "2024-03-02T10:00:00Z"))
    taking.pull(tmp_path / "lake", shop(tmp_path), NOW)
    assert len(ids(tmp_path)) == 2
    done = taking.pull(
        tmp_path / "lake", shop(tmp_path, msgspec.structs.replace(FEED, files="in/a*.csv")), NOW
    )
    assert (done.read, done.days) == ((), (dt.date(2024, 3, 2),))
    assert ids(tmp_path) == ["till:1"]


def test_the_later_of_two_files_says_what_an_event_was(tmp_path: pathlib.Path) -> None:
    put(tmp_path, "a.csv", sale(1, n="1"), sale(1, n="2"))
    taking.pull(tmp_path / "lake", shop(tmp_path), NOW)
    assert lake(tmp_path, "select quantity from events") == [(1,)]
    put(tmp_path, "b.csv", sale(1, n="3"))
    taking.pull(tmp_path / "lake", shop(tmp_path), NOW)
    assert lake(tmp_path, "select quantity from events") == [(3,)]


def test_an_event_that_moves_to_another_day_leaves_the_one_before(tmp_path: pathlib.Path) -> None:
    put(tmp_path, "a.csv", sale(1), sale(2))
    taking.pull(tmp_path / "lake", shop(tmp_path), NOW)
    put(tmp_path, "b.csv", sale(1, "2024-04-01T10:00:00Z"))
    done = taking.pull(tmp_path / "lake", shop(tmp_path), NOW)
    assert done.days == (dt.date(2024, 3, 1), dt.date(2024, 4, 1))
    assert lake(tmp_path, "select event_id, day from events order by 1") == [
        ("till:1", dt.date(2024, 4, 1)), ("till:2", dt.date(2024, 3, 1)),
    ]  # fmt: skip


def test_a_person_can_be_forgotten(tmp_path: pathlib.Path) -> None:
    put(
        tmp_path,
        "a.csv",
        sale(1, who="ada-4711"),
        sale(2, n="two", who="ada-4711"),
        sale(3, who="bob"),
        "ada-4711\n",
    )
    source = shop(tmp_path)
    taking.pull(tmp_path / "lake", source, NOW)
    assert source.forget(["ada-4711"]) == 4  # A row that broke lies among the rows and among the broken.
    for path in (tmp_path / "sources").rglob("*"):
        assert not path.is_file() or b"ada-4711" not in path.read_bytes()
    again = taking.pull(tmp_path / "lake", source, NOW)
    assert (again.read, again.unchanged) == ((), 1)
    assert ingest_customers(tmp_path / "lake", source).rows == 1


def test_what_breaks_becomes_a_dead_letter_with_its_line_and_comes_back_when_the_mapping_is_fixed(
    tmp_path: pathlib.Path,
) -> None:
    put(tmp_path, "a.csv", sale(1), sale(2, n="two"), sale(3, "no time"), "torn,line\n", sale(4, what="barter"),
        sale(5, "2024-05-05T10:00:00Z", n="-1"))  # fmt: skip
    done = taking.pull(tmp_path / "lake", shop(tmp_path), NOW)
    assert (done.events, done.dead_letters) == (1, 5)
    letters = lake(tmp_path, "select field, raw, day from dead_letters where origin = 'source' order by raw")
    told = {}
    for field, raw, _ in letters:
        detail = json.loads(json.loads(raw)["detail"])
        told[detail.get("rejected", "the contract's")] = (field, detail.get("line"))
    assert told == {
        "quantity: not a number": ("quantity", 3), "occurred_at: not a time that can be read": ("occurred_at", 4),
        "line: too few fields": ("occurred_at", 5), "action: a name that the mapping does not know": ("action", 6),
        "the contract's": ("quantity", None),
    }  # fmt: skip
    assert any("torn,line" in raw for _, raw, _ in letters)
    wiser = msgspec.structs.replace(FEED, values={"action": {"barter": "purchase"}})
    done = taking.pull(tmp_path / "lake", shop(tmp_path, wiser), NOW)
    assert len(done.read) == 1
    assert ids(tmp_path) == ["till:1", "till:4"]
    assert len(lake(tmp_path, "select * from dead_letters")) == 4
    put(tmp_path, "a.csv", *(sale(n) for n in range(1, 6)))
    taking.pull(tmp_path / "lake", shop(tmp_path, wiser), NOW)
    assert len(ids(tmp_path)) == 5
    assert lake(tmp_path, "select * from dead_letters") == []


def test_a_pull_that_dies_is_completed_by_the_next(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a.csv", sale(1), sale(2, "2024-06-02T10:00:00Z"))

    def dies(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(taking.ingest, "ingest_events", dies)
        with pytest.raises(KeyboardInterrupt):
            taking.pull(tmp_path / "lake", shop(tmp_path), NOW)
    done = taking.pull(tmp_path / "lake", shop(tmp_path), NOW)
    assert (done.read, done.events) == ((), 2)
    assert ids(tmp_path) == ["till:1", "till:2"]


def test_a_file_with_other_columns_is_told(tmp_path: pathlib.Path) -> None:
    put(tmp_path, "a.csv", sale(1))
    taking.pull(tmp_path / "lake", shop(tmp_path), NOW)
    (tmp_path / "in" / "b.csv").write_text(
        "id,at,what,sku,who,till\n2,2024-03-01T10:00:00Z,purchase,p2,7,4\n"
    )
    done = taking.pull(tmp_path / "lake", shop(tmp_path), NOW)
    assert done.changes == ("till: b.csv has new columns till; no more n",)
    assert (done.events, done.dead_letters) == (2, 0)


def test_days_outside_the_profile_wait(tmp_path: pathlib.Path) -> None:
    put(tmp_path, "a.csv", sale(1), sale(2, "2023-06-02T10:00:00Z"))
    done = taking.pull(tmp_path / "lake", shop(tmp_path), NOW)
    assert (done.events, done.outside) == (1, 1)
    done = taking.pull(tmp_path / "lake", shop(tmp_path, first_day=dt.date(2023, 1, 1)), NOW)
    assert (done.events, done.outside) == (1, 0)
    assert len(ids(tmp_path)) == 2


def test_a_feed_of_which_nothing_can_be_used_stops_the_intake_with_the_reason(tmp_path: pathlib.Path) -> None:
    put(tmp_path, "a.csv", sale(1, "2024-03-01 10:00"))
    naive = shop(tmp_path, msgspec.structs.replace(FEED, fields={**FEED.fields, "occurred_at": "when"}))
    with pytest.raises(NothingToReadError, match="occurred_at is 'when', which is not there"):
        taking.pull(tmp_path / "lake", naive, NOW)


def test_a_sample_of_customers_is_always_the_same(tmp_path: pathlib.Path) -> None:
    put(tmp_path, "a.csv", *(sale(n, who=str(n % 10)) for n in range(40)))
    window = Window(FIRST, LAST, households=3, first=FIRST)
    source = shop(tmp_path)
    found = source.events(window).read_all()["identifiers"].unique().to_pylist()
    assert len(found) == 3
    assert sorted(found) == sorted(source.events(window).read_all()["identifiers"].unique().to_pylist())
    assert len(source.customers(3)) == 3


YAML = """
name: corner
title: Corner
source: files
first_day: 2024-01-01
last_day: 2024-12-31
mapping:
  till:
    files: in/*.csv
    fields: {event_id: id, occurred_at: at, action: what, product_id: sku, quantity: n}
    identifiers: {customer: who}
    constants: {channel: store}
"""


def test_the_yaml_the_environment_and_the_command_work_together(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a.csv", sale(1), sale(2, n="two"))
    (tmp_path / "corner.yaml").write_text(YAML)
    monkeypatch.setenv("RETAILER", str(tmp_path / "corner.yaml"))
    monkeypatch.setenv("CONTINUUM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CONTINUUM_LAST_DAY", raising=False)
    window = Window(FIRST, LAST, first=FIRST)
    assert load("files").events(window).read_all().num_rows == 2
    result = CliRunner().invoke(main, ["sources", "pull", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    # `load` has read the file, but nothing had landed yet.
    assert (told["events"], told["dead_letters"], told["unchanged"]) == (1, 1, 1)
    put(tmp_path, "b.csv", sale(3))
    told = json.loads(CliRunner().invoke(main, ["sources", "pull", "--json"]).stdout)
    assert (told["events"], told["read"][0]["read"]) == (2, "b.csv")


def test_check_tells_what_was_understood_and_what_not(tmp_path: pathlib.Path) -> None:
    path = put(
        tmp_path, "a.csv", sale(1), sale(2, n="two"), sale(3, what="barter"), "torn\n", sale(4, n="-1")
    )
    (tmp_path / "corner.yaml").write_text(YAML)
    arguments = ["sources", "check", str(path), "--mapping", str(tmp_path / "corner.yaml")]
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["format"], told["feed"], told["delimiter"], told["encoding"]) == (
        "rows",
        "till",
        ",",
        "utf-8",
    )
    assert (told["rows"], told["usable"], told["broken"]) == (4, 1, 3)
    assert told["contract"] == {"`$.quantity`: expected a number of at least 0": 1}
    assert told["unknown_names"] == {"barter": 1}
    assert told["fields"]["identifiers.customer"] == "who"
    assert [(row["action"], row["channel"], row["rows"]) for row in told["names"]] == [
        ("purchase", "store", 2)
    ]
    assert [example["line"] for example in told["examples"]] == [3, 4, 5]
    assert told["preview"][0]["event_id"] == "till:1"
    text = CliRunner().invoke(main, arguments).output
    for part in ("understood", "rows that break", "barter", "quantity: not a number", "line 3"):
        assert part in text


def test_check_leaves_with_1_and_a_proposal_where_nothing_is_usable(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("timestamp,visitorid,event,itemid\n1433221332117,257597,addtocart,355908\n")
    result = CliRunner().invoke(main, ["sources", "check", str(path), "--json"])
    assert result.exit_code == 1
    proposal = json.loads(result.stdout)["proposal"]
    assert proposal["fields"] == {"occurred_at": "timestamp", "action": "event", "product_id": "itemid"}
    lines = msgspec.yaml.encode({"mapping": {"log": {"files": "log.csv", **proposal}}})
    (tmp_path / "shop.yaml").write_bytes(lines)
    again = CliRunner().invoke(
        main, ["sources", "check", str(path), "--mapping", str(tmp_path / "shop.yaml"), "--json"]
    )
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["usable"] == 1


def test_check_names_clocks_that_jump_and_misspelt_keys(tmp_path: pathlib.Path) -> None:
    rows = [sale(n, f"2024-03-01T10:00:{n % 60:02d}Z") for n in range(60)]
    rows[30] = sale(30, "2024-01-01T00:00:00Z")
    path = put(tmp_path, "a.csv", *rows)
    (tmp_path / "corner.yaml").write_text(YAML)
    result = CliRunner().invoke(
        main, ["sources", "check", str(path), "--mapping", str(tmp_path / "corner.yaml")]
    )
    assert "clocks jump: 1 times" in result.output
    (tmp_path / "bad.yaml").write_text(YAML.replace("identifiers", "identifires"))
    result = CliRunner().invoke(
        main, ["sources", "check", str(path), "--mapping", str(tmp_path / "bad.yaml")]
    )
    assert result.exit_code == 1
    assert "identifires" in result.output
