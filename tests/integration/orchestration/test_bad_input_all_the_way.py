"""Everything bad at once, from files to persons: each line is told of, nobody is merged wrongly, nothing is lost."""

from __future__ import annotations

import datetime as dt
import json
import pathlib
import shutil
from typing import Any

import pytest

from contracts.retailer import Feed, Retailer
from feature_repo.snapshots import attach, connect
from orchestration.lake import checks, merges
from orchestration.lake.identity_tables import BOTS, LINKS
from orchestration.lake.people import store_identities, store_moments
from orchestration.sources.feeds import taking
from orchestration.sources.files import Files

NOW = dt.datetime(2025, 6, 1, tzinfo=dt.UTC)
START = dt.datetime(2024, 3, 1, 10)
COLUMNS = ["id", "at", "what", "sku", "n", "price", "words", "who", "mail", "device", "cookie"]


class Exports:
    """Lines of a shop's exports, numbered so that each can be found again."""

    def __init__(self) -> None:
        self.count = 0

    def line(self, minutes: float, what: str = "view", /, **values: Any) -> dict[str, str]:
        self.count += 1
        at = (START + dt.timedelta(minutes=minutes)).isoformat(sep=" ")
        row = {"id": f"e{self.count:05d}", "at": at, "what": what, "sku": "p1"} | values
        return {name: str(row.get(name, "")) for name in COLUMNS}

    @staticmethod
    def csv(rows: list[dict[str, str]], delimiter: str = ",", columns: list[str] = COLUMNS) -> list[str]:
        return [delimiter.join(columns), *(delimiter.join(row[name] for name in columns) for row in rows)]


def furnish(folder: pathlib.Path) -> tuple[int, Exports]:
    """Files of every kind of badness; the number of rows in them."""
    raw = folder / "in"
    raw.mkdir()
    made = Exports()
    first = [made.line(n, who=f"plain{n}", words="Häkelmütze") for n in range(20)]
    text = made.csv(first)
    content = "\n".join(text[:15]).encode() + b"\n" + "\n".join(text[15:]).encode("cp1252") + b"\n"
    (raw / "01-two-encodings.csv").write_bytes(content)
    second = [made.line(30 + n, who=f"plain{n}", device=f"phone{n}") for n in range(20)]
    (raw / "02-other-delimiter.csv").write_bytes(("﻿" + "\r\n".join(made.csv(second, ";"))).encode("utf-16"))
    third = [made.line(60 + n, "search", who=f"plain{n}", words="bag") for n in range(20)]
    fewer = [name for name in COLUMNS if name not in ("cookie", "price")]
    lines = made.csv([{**row, "campaign": "spring"} for row in third], columns=[*fewer[::-1], "campaign"])
    (raw / "03-other-columns.csv").write_text("\n".join(lines))
    kiosk = [made.line(100 + n, who=f"kiosk{n}", device="kiosk-in-the-hall") for n in range(60)]
    family = [made.line(2000 * day + 7 * n, who=who, device="tablet-at-home")
              for day in range(1, 6) for n, who in enumerate(("mother", "father", "mother"))]  # fmt: skip
    ring = [
        made.line(5000 + n, who=a, mail=b)
        for n, (a, b) in enumerate([("r1", "m1"), ("r2", "m1"), ("r2", "m2"), ("r1", "m2")])
    ]
    (raw / "04-shared.csv").write_text("\n".join(made.csv(kiosk + family + ring)))
    bot = [made.line(9000 + n / 60_000, cookie="crawler", sku=f"p{n % 9}") for n in range(1500)]
    (raw / "05-bot.csv").write_text("\n".join(made.csv(bot)))
    broken = [
        made.line(0, who="b1", at="yesterday"), made.line(0, who="b2", at="1970-01-01 00:00:00"),
        made.line(0, who="b3", at="2124-03-01 10:00:00"), made.line(0, "teleport", who="b4"),
        made.line(0, "purchase", who="b5", sku=""), made.line(0, who="b6", n="-3"), made.line(0, who="b7", n="many"),
        made.line(0, who="b8" * 200), made.line(12000, who="good-after-bad"),
    ]  # fmt: skip
    text = made.csv(broken)
    (raw / "06-broken.csv").write_text(
        "\n".join([*text[:4], "e-torn,2024-03-01", *text[4:], 'e-open,2024-03-01 10:00:00,"view'])
    )
    clocks = [made.line(13000 - 400 * (n % 2), who="jumpy") for n in range(20)]
    clocks.append(
        made.line(0, who="jumpy", at="2024-03-31 02:30:00")
    )  # An hour that does not exist in Berlin.
    (raw / "07-clocks.csv").write_text("\n".join(made.csv(clocks)))
    return made.count + 2, made


def shop(folder: pathlib.Path, **changes: Any) -> Files:
    mapping: dict[str, Any] = {
        "files": str(folder / "in" / "*.csv"), "format": "rows", "time_zone": "Europe/Berlin",
        "fields": {"event_id": "id", "occurred_at": "at", "action": "what", "product_id": "sku", "quantity": "n",
                   "unit_price": "price", "query": "words"},
        "identifiers": {"customer": "who", "email_sha256": "mail", "device": "device", "cookie": "cookie"},
        "constants": {"channel": "web"},
    }  # fmt: skip
    retailer = Retailer(
        name="corner", title="Corner", source="files", currency="EUR", first_day=dt.date(2024, 1, 1),
        last_day=dt.date(2025, 5, 31), mapping={"web": Feed(**(mapping | changes))},
    )  # fmt: skip
    return Files(retailer, folder / "sources")


def everything(folder: pathlib.Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    con = checks.open_lake(folder / "lake")
    return (
        con.sql("select * from events").to_arrow_table().to_pylist(),
        con.sql("select * from dead_letters").to_arrow_table().to_pylist(),
    )


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, int, Exports]:
    folder = tmp_path_factory.mktemp("bad")
    count, made = furnish(folder)
    taking.pull(folder / "lake", shop(folder), NOW)
    store_identities(folder / "lake")
    store_moments(folder / "lake")
    return folder, count, made


def person_of(folder: pathlib.Path) -> dict[tuple[str, str], str | None]:
    con = connect()
    attach(con, "links", LINKS.path(folder / "lake"))
    return {(k, v): p for k, v, p in con.sql("select kind, value, person_id from links").fetchall()}


def test_every_line_is_an_event_or_a_dead_letter_with_its_reason(
    taken: tuple[pathlib.Path, int, Exports],
) -> None:
    folder, count, made = taken
    events, letters = everything(folder)
    assert len(events) + len(letters) == count
    whole = json.dumps([*events, *letters], default=str)
    assert [n for n in range(1, made.count + 1) if f"e{n:05d}" not in whole] == []
    assert "e-torn" in whole
    assert "e-open" in whole
    reasons = sorted(letter["reason"] for letter in letters)
    assert len(letters) == 10, reasons
    assert all(reasons)
    assert {row["query"] for row in events if row["query"]} == {"Häkelmütze", "bag"}
    spring = [row for row in events if "spring" in (row["detail"] or "")]
    assert len(spring) == 20
    assert any("good-after-bad" in row["identifiers"] for row in events)


def test_nobody_is_merged_who_is_not_one(taken: tuple[pathlib.Path, int, Exports]) -> None:
    folder, _, _ = taken
    person = person_of(folder)
    plain = [person["customer", f"plain{n}"] for n in range(20)]
    assert len(set(plain)) == 20
    assert [person["device", f"phone{n}"] for n in range(20)] == plain
    kiosk = [person["customer", f"kiosk{n}"] for n in range(60)]
    assert len(set(kiosk)) == 60
    assert None not in kiosk
    assert person["device", "kiosk-in-the-hall"] is None
    assert person["device", "tablet-at-home"] is None
    assert person["customer", "mother"] != person["customer", "father"]
    ring = {
        person[pair]
        for pair in (("customer", "r1"), ("customer", "r2"), ("email_sha256", "m1"), ("email_sha256", "m2"))
    }
    assert len(ring) == 1  # A cycle of strong identifiers is one person, and ends.


def test_a_bot_is_named_and_takes_no_part(taken: tuple[pathlib.Path, int, Exports]) -> None:
    folder, _, _ = taken
    con = connect()
    attach(con, "bots", BOTS.path(folder / "lake"))
    attach(con, "sessions", folder / "lake" / "sessions")
    attach(con, "persons", folder / "lake" / "identity_events")
    rows = con.sql("select kind, value, events, peak_per_second, quarantined from bots").fetchall()
    assert [(row[0], row[1], row[2], row[4]) for row in rows] == [("cookie", "crawler", 1500, True)]
    assert rows[0][3] >= 900
    assert person_of(folder)["cookie", "crawler"] is None
    assert sum("crawler" in row["identifiers"] for row in everything(folder)[0]) == 1500  # Kept all the same.
    events = everything(folder)[0]
    theirs = {row["event_id"] for row in events if "crawler" in row["identifiers"]}
    nobodys = {row[0] for row in con.sql("select event_id from persons where person_id is null").fetchall()}
    assert theirs <= nobodys
    acts = con.sql("select sum(acts) from sessions").fetchall()[0][0]
    assert acts == len(events) - len(nobodys)


def test_a_month_late_all_of_it_again_and_undone_merges(
    taken: tuple[pathlib.Path, int, Exports], tmp_path: pathlib.Path
) -> None:
    folder, count, made = taken
    shutil.copytree(folder, tmp_path / "again")
    home = tmp_path / "again"
    before, events_before = person_of(home), everything(home)[0]
    late = [made.line(15 + n, who=f"plain{n}", mail=f"plain{n}@") for n in range(5)]
    (home / "in" / "99-a-month-late.csv").write_text("\n".join(made.csv(late)))
    source = shop(home)
    taking.pull(home / "lake", source, NOW + dt.timedelta(days=31))
    store_identities(home / "lake")
    events, letters = everything(home)
    assert len(events) + len(letters) == count + 5
    after = person_of(home)
    assert {pair: after[pair] for pair in before} == before  # Known persons keep their ids.
    assert [after["email_sha256", f"plain{n}@"] for n in range(5)] == [
        before["customer", f"plain{n}"] for n in range(5)
    ]
    assert len(events_before) + 5 == len(events)
    again = taking.pull(home / "lake", source, NOW + dt.timedelta(days=32))
    assert again.days == ()
    joined = merges.merge(home / "lake", [merges.Proposal(("customer", "plain1"), ("customer", "plain2")),
                                          merges.Proposal(("customer", "plain2"), ("customer", "plain3")),
                                          merges.Proposal(("customer", "plain3"), ("customer", "plain1"))])  # fmt: skip
    store_identities(home / "lake")
    assert len({person_of(home)["customer", f"plain{n}"] for n in (1, 2, 3)}) == 1
    for entry in joined:
        merges.undo(home / "lake", entry.entry_id)
    store_identities(home / "lake")
    assert person_of(home) == after


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"time_zone": "Europe/Berln"}, "time_zone is 'Europe/Berln'"),
        ({"time_zone": None}, "a time without a zone"),
        ({"delimiter": "|"}, "id"),
        ({"encoding": "klingon"}, "klingon"),
    ],
)
def test_a_mapping_that_is_wrong_is_told_and_costs_nothing(
    taken: tuple[pathlib.Path, int, Exports], tmp_path: pathlib.Path, changes: dict[str, Any], said: str
) -> None:
    shutil.copytree(taken[0] / "in", tmp_path / "in")
    synced = shop(tmp_path, **changes).sync(NOW)
    told = json.dumps([[part.error, part.reasons] for part in synced.read])
    assert said in told
    taking.pull(tmp_path / "lake", shop(tmp_path), NOW)  # With the mapping repaired all is there.
    events, letters = everything(tmp_path)
    assert len(events) + len(letters) == taken[1]
