"""Who leaves: fields against a hand count, consent as a limit, files that are whole or absent."""

from __future__ import annotations

import csv
import datetime as dt
import json
import pathlib
import shutil
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from contracts.identity import Tombstones
from contracts.outbound import OutboundError
from contracts.settings import Settings, read_retailer
from orchestration.cli.audiences import command
from orchestration.lake import erasure_shield as shield
from orchestration.outbound import exporting, files
from orchestration.outbound.audiences import select
from orchestration.outbound.auditing import audit, judge
from orchestration.outbound.fields import PEOPLE
from orchestration.outbound.people import load_people
from orchestration.outbound.records import OutboxBusyError, alone
from tests.integration.outbound.outbound_home import BUYERS, EMAILS, NOW, Toy, open_shop, take_in

YAML = """
destinations:
  csv: {type: files}
  lines: {type: files, format: jsonl, folder: elsewhere}
  parquet: {type: files, format: parquet}
audiences:
  win_back:
    title: Not for two months
    condition: orders >= 2 and days_since_purchase > 60
    purpose: marketing
    identifiers: [email_sha256, customer]
    fields: [segment, orders, spend, days_since_purchase, age]
    destinations: [csv, lines, parquet]
"""


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("outbound")
    take_in(open_shop(folder, YAML), Toy())
    return folder


@pytest.fixture
def shop(furnished: pathlib.Path, tmp_path: pathlib.Path) -> Settings:
    shutil.copytree(furnished / "home", tmp_path / "home")
    return open_shop(tmp_path, YAML)


def names(settings: Settings, condition: str, **changes: Any) -> tuple[set[str], dict[str, int]]:
    """Customers who would leave, and the counts."""
    import msgspec

    retailer = read_retailer(settings)
    audience = msgspec.structs.replace(
        retailer.audiences["win_back"], condition=condition, identifiers=("customer",), **changes
    )
    found = select(load_people(settings, retailer), settings, "win_back", audience)
    return set(found.rows["customer"].to_pylist()), found.counts


def test_every_field_has_the_value_that_one_counts_by_hand(shop: Settings) -> None:
    people = load_people(shop, read_retailer(shop))
    assert people.now == NOW - dt.timedelta(hours=1)
    rows = people.con.sql(
        "select a.customer_id, p.* from people p join accounts a using (person_id)"
    ).to_arrow_table()
    assert set(PEOPLE) <= set(rows.column_names)
    by_name = {row["customer_id"]: row for row in rows.to_pylist()}
    assert set(by_name) == set(BUYERS)
    for name, days in BUYERS.items():
        row = by_name[name]
        assert row["orders"] == len(days)
        assert row["spend"] == sum(2 * (10 + place) for place in range(len(days)))
        assert (
            row["days_since_purchase"] == min(days) - 1
        )  # Bought five minutes after the visit: not a whole day yet.
        assert row["days_since_first_seen"] == (59 if name == "dan" else max(days))  # His consent came first.
        recent = [place for place, ago in enumerate(days) if ago <= 90]
        assert row["revenue"] == (sum(2 * (10 + place) for place in recent) if recent else None)
        assert row["churn"] is None
    ann, dan = by_name["ann"], by_name["dan"]
    assert (ann["age"], dan["age"]) == ("35-44", None)
    assert (ann["favourite_department"], ann["last_channel"]) == ("shoes", "email")
    assert (dan["bad_moments"], dan["open_moments"], dan["last_bad_moment"]) == (1, 1, "complaint")
    assert (dan["days_since_bad_moment"], dan["moment_quality"]) == (2, 0.75)
    assert (ann["bad_moments"], ann["last_bad_moment"], ann["days_since_bad_moment"]) == (0, None, None)
    assert dan["channels"] == 4  # web, e-mail, support, app
    assert {row["segment"] for row in by_name.values()} <= {
        "champions",
        "loyal",
        "slipping",
        "promising",
        "asleep",
        "steady",
    }


def test_consent_is_a_limit(shop: Settings) -> None:
    found, counts = names(shop, "everyone")
    assert found == {"ann", "dan", "eve", "=fox"}
    assert counts == {
        "matched": 6,
        "without_consent": 2,
        "erased": 0,
        "without_identifier": 0,
        "over_limit": 0,
        "leaving": 4,
    }
    assert names(shop, "everyone", purpose="personalization")[0] == {"ann", "bob", "dan"}
    assert names(shop, "everyone", purpose="analytics")[0] == set()
    found, counts = names(shop, "orders >= 2 and days_since_purchase > 60")
    assert found == {"ann", "eve", "=fox"}


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ("age is unknown", {"dan", "eve", "=fox"}),
        ("not age = '35-44'", set()),  # Of the others it is not known.
        ("open_moments > 0 and last_bad_moment in ('complaint', 'error')", {"dan"}),
        ("spend between 22 and 50", {"eve", "=fox"}),
        ("orders > 2 or last_channel = 'app'", {"ann", "dan"}),
        ("spend > revenue", {"ann", "eve", "=fox"}),  # Bought something more than 90 days ago.
    ],
)
def test_conditions_over_real_rows(shop: Settings, condition: str, wanted: set[str]) -> None:
    assert names(shop, condition)[0] == wanted


def test_a_limit_keeps_the_first_by_order(shop: Settings) -> None:
    found, counts = names(shop, "everyone", limit=2, order="spend")
    assert "ann" in found
    assert counts["over_limit"] == 2


def test_what_is_not_known_yet_is_an_error_and_not_nobody(shop: Settings) -> None:
    with pytest.raises(
        OutboundError, match="asks for 'churn', of which nothing is known yet: run the job relationship"
    ):
        names(shop, "churn > 0.5")
    with pytest.raises(OutboundError, match=r"fields names 'gain'.*of actions only"):
        names(shop, "everyone", fields=("gain",))
    with pytest.raises(OutboundError, match="order is 'age'; expected one of: days_since"):
        names(shop, "everyone", order="age", limit=1)


def test_three_files_say_the_same_and_are_what_their_manifests_name(shop: Settings) -> None:
    done = exporting.export(shop, read_retailer(shop))
    assert done.errors == ()
    assert done.counts["win_back"] == {
        "matched": 5, "without_consent": 2, "erased": 0, "without_identifier": 0, "over_limit": 0, "leaving": 3,
    }  # fmt: skip
    paths = {step.destination: pathlib.Path(step.place) for step in done.steps}
    assert paths["lines"] == shop.home.parent / "elsewhere" / "win_back.jsonl"
    for path in paths.values():
        assert files.intact(path)
        assert oct(path.stat().st_mode)[-3:] == "600"
        manifest = json.loads(files.manifest_of(path).read_text())
        assert (manifest["rows"], manifest["purpose"], manifest["counts"]["leaving"]) == (3, "marketing", 3)
    table = pq.read_table(paths["parquet"])
    lines = [json.loads(line) for line in paths["lines"].read_text().splitlines()]
    assert [{k: files.plain(v) for k, v in row.items()} for row in table.to_pylist()] == lines
    assert {row["customer"]: row["email_sha256"] for row in lines} == {
        n: EMAILS.get(n) for n in ("ann", "eve", "=fox")
    }
    with paths["csv"].open(newline="") as file:
        cells = list(csv.DictReader(file))
    assert {row["customer"] for row in cells} == {"ann", "eve", "'=fox"}  # A spreadsheet must not run it.
    assert json.loads(files.manifest_of(paths["csv"]).read_text())["guarded_cells"] == 1
    assert [(f.rows, f.unlawful, f.problem) for f in audit(shop, read_retailer(shop))] == [(3, 0, "")] * 3
    assert {name: passed for name, (passed, _, _) in judge(shop, read_retailer(shop)).items()} == {
        "complete": True, "consent": True, "counts": True, "deliveries": True,
    }  # fmt: skip


def test_who_withdraws_is_gone_from_every_file_at_the_next_export(shop: Settings) -> None:
    exporting.export(shop, read_retailer(shop))
    toy = Toy()
    toy.add("ann", NOW - dt.timedelta(minutes=1), "unsubscribe", "email")
    take_in(shop, toy)
    retailer = read_retailer(shop)
    assert [f.unlawful for f in audit(shop, retailer)] == [1, 1, 1]
    assert not judge(shop, retailer)["consent"][0]
    exporting.export(shop, retailer)
    assert [(f.rows, f.unlawful) for f in audit(shop, retailer)] == [(2, 0)] * 3


def test_who_withdraws_is_gone_even_where_the_audience_cannot_be_chosen(shop: Settings) -> None:
    exporting.export(shop, read_retailer(shop))
    toy = Toy()
    toy.add("ann", NOW - dt.timedelta(minutes=1), "unsubscribe", "email")
    take_in(shop, toy)
    broken = open_shop(shop.home.parent, YAML.replace("orders >= 2", "churn > 0.1"))
    done = exporting.export(broken, read_retailer(broken))
    assert "nothing is known yet" in done.errors[0]
    assert judge(broken, read_retailer(broken))["complete"] == (False, done.errors[0], [])
    assert [(f.rows, f.unlawful, f.problem) for f in audit(broken, read_retailer(broken))] == [(2, 0, "")] * 3


def test_an_erased_person_does_not_leave_although_the_lake_still_holds_them(shop: Settings) -> None:
    tombstones = Tombstones(b"s" * 32)
    shield.store(shop, tombstones, [tombstones.of_identifier("customer", "ann")])
    found, counts = names(shop, "everyone")
    assert found == {"dan", "eve", "=fox"}
    assert counts["erased"] == 1


def test_places_that_the_yaml_no_longer_names_are_emptied(shop: Settings) -> None:
    done = exporting.export(shop, read_retailer(shop))
    paths = {step.destination: pathlib.Path(step.place) for step in done.steps}
    fewer = open_shop(shop.home.parent, YAML.replace("[csv, lines, parquet]", "[parquet]").replace("csv: {type: files}",
                      "csv: {type: files, format: jsonl}"))  # fmt: skip
    again = exporting.export(fewer, read_retailer(fewer))
    assert set(again.retired) == {"win_back at csv", "win_back at lines"}
    assert not paths["csv"].exists()
    assert not files.manifest_of(paths["lines"]).exists()
    assert files.intact(paths["parquet"])


@pytest.mark.parametrize("step", ["write", "manifest"])
def test_a_killed_writer_leaves_the_former_file(
    shop: Settings, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    retailer = read_retailer(shop)
    done = exporting.export(shop, retailer)
    path = next(pathlib.Path(s.place) for s in done.steps if s.destination == "csv")
    before = path.read_bytes()
    real = files._replace

    def killed(target: pathlib.Path, content: bytes) -> None:
        if (step == "manifest") == target.name.endswith(files.MANIFEST):
            raise KeyboardInterrupt
        real(target, content)

    toy = Toy()
    toy.add(
        "ann", NOW - dt.timedelta(minutes=1), "purchase", "web", product_id="p0", quantity=1.0, unit_price=1.0
    )
    take_in(shop, toy)
    with monkeypatch.context() as patch:
        patch.setattr(files, "_replace", killed)
        with pytest.raises(KeyboardInterrupt):
            exporting.export(shop, retailer)
    assert (path.read_bytes() == before) == (step == "write")
    assert files.intact(path) == (step == "write")  # Who reads between the two sees that they differ.
    assert exporting.export(shop, retailer).errors == ()
    assert files.intact(path)
    assert not list(path.parent.glob(".*"))


def test_two_exports_do_not_run_at_once(shop: Settings) -> None:
    with alone(shop.outbound), pytest.raises(OutboxBusyError, match="another process exports"):
        exporting.export(shop, read_retailer(shop))


def test_a_lake_without_people_says_what_to_run(tmp_path: pathlib.Path) -> None:
    empty = open_shop(tmp_path, YAML)
    with pytest.raises(OutboundError, match="run the job people first"):
        exporting.export(empty, read_retailer(empty))


def test_the_command(shop: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTINUUM_HOME", str(shop.home))
    monkeypatch.setenv("RETAILER", shop.retailer)
    runner = CliRunner()

    def call(*words: str) -> Any:
        done = runner.invoke(command, [*words, "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    assert [row["audience"] for row in call("list")["audiences"]] == ["win_back"]
    assert {"name": "orders", "type": "number", "source": "behaviour", "meaning": "Orders so far."} in call(
        "fields"
    )["fields"]
    seen = call("preview", "win_back", "--rows", "1")
    assert seen["counts"]["leaving"] == 3
    assert len(seen["rows"]) == 1
    assert not shop.outbound.exists()  # A preview writes nothing.
    assert [step["rows"] for step in call("export")["steps"]] == [3, 3, 3]
    assert "win_back" in runner.invoke(command, ["list"]).stdout
    wrong = runner.invoke(command, ["preview", "winback"])
    assert wrong.exit_code == 1
    assert "there is no audience 'winback'; expected one of: win_back" in wrong.output
