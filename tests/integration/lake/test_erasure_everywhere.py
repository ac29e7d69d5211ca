"""Erasing a person: afterwards no byte of them is in any file, others are untouched, nothing brings them back."""

import datetime as dt
import json
import pathlib
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from contracts.decisions import Decision
from contracts.settings import ROOT, Settings, read_retailer
from feature_repo import online
from feature_repo.snapshots import attach, connect
from orchestration.cli.erase import command
from orchestration.draining import drain_inbox
from orchestration.lake import erasure, ingest, tables, writing
from orchestration.lake.consent import store_consents
from orchestration.lake.erasure_search import find_traces, needles
from orchestration.lake.erasure_shield import Shielded, store, tombstones_path
from orchestration.lake.identity import stitch_lake
from orchestration.outbound import files
from orchestration.outbound.auditing import audit
from orchestration.outbound.exporting import export
from orchestration.outbound.outbox import Outbox
from orchestration.sources import Window
from serving.decision_log import DecisionLog
from serving.inbox.intake import check_events
from serving.inbox.reader import InboxView, last_offset, read_after
from serving.inbox.writer import Inbox
from serving.profiles.snapshot import current_name, read_snapshot
from tests.integration.lake.erasure_home import (
    FIRST,
    GONE,
    KEPT,
    LAST,
    NOON,
    OWN,
    SECRETS,
    TABLET,
    Toy,
    decide,
    furnish,
    live_event,
    open_home,
    post,
    rows,
    send_out,
)
from tests.integration.outbound.outbound_home import SECRET, Receiver


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A home in which every store holds both people."""
    home = tmp_path_factory.mktemp("erasure") / "home"
    furnish(home)
    return home


@pytest.fixture
def shop(furnished: pathlib.Path, tmp_path: pathlib.Path) -> Settings:
    shutil.copytree(furnished, tmp_path / "home")
    shutil.copy(furnished.parent / "toy.yaml", tmp_path / "toy.yaml")
    return open_home(tmp_path / "home")


@pytest.fixture(scope="module")
def once(furnished: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A home from which the person has been erased."""
    home = tmp_path_factory.mktemp("erased") / "home"
    shutil.copytree(furnished, home)
    shutil.copy(furnished.parent / "toy.yaml", home.parent / "toy.yaml")
    erasure.erase(open_home(home), GONE, dry_run=False)
    return home


@pytest.fixture
def erased(once: pathlib.Path, tmp_path: pathlib.Path) -> Settings:
    shutil.copytree(once, tmp_path / "home")
    shutil.copy(once.parent / "toy.yaml", tmp_path / "toy.yaml")
    return open_home(tmp_path / "home")


def traces(settings: Settings) -> list[str]:
    texts = needles(SECRETS)
    return [
        f"{trace.path.relative_to(settings.home)}: {trace.where}"
        for trace in find_traces(settings.home, texts)
    ]


def events_of(settings: Settings) -> list[tuple[str, str]]:
    con = connect()
    attach(con, "events", settings.lake / "events")
    return con.sql("select source, event_id from events order by all").fetchall()


def files_of(home: pathlib.Path) -> dict[str, bytes]:
    return {str(p.relative_to(home)): p.read_bytes() for p in home.rglob("*") if p.is_file()}


def test_a_dry_run_lists_every_store_and_changes_nothing(shop: Settings) -> None:
    before = files_of(shop.home)
    done = erasure.erase(shop, GONE)
    assert files_of(shop.home) == before
    assert done.dry_run
    assert set(done.subject.identifiers) == set(SECRETS)
    assert done.subject.shared == (("device", TABLET),)
    found = {store.store for store in done.stores if store.rows or store.mentions}
    assert found == {
        "inbox/inbox.sqlite", "inbox/decisions.sqlite", "profiles", "evaluation/aaaa.parquet", "features/online.db",
        "features/customer", "features/customer_product", "features/customer_type", "features/customer_category",
        "features/customer_store_product", "features/customer_prediction", "lake/actions", "overview/actions.sqlite",
        "overview/outlook.npz", "bundles/visits/20250303-1/expectations.npz",
        "lake/events", "lake/customers", "lake/dead_letters", "lake/identity_events", "lake/identity_links",
        "lake/identity_anchors", "lake/identity_ledger", "lake/identity_consents", "lake/sessions", "overview/customers.npz",
        "bundles/customers/20250303-1/customers.npz",
    }  # fmt: skip


def test_after_erasing_no_byte_is_found_and_others_keep_everything(shop: Settings) -> None:
    kept_before = {(s, e) for s, e in events_of(shop)}
    found = traces(shop)
    assert len(found) > 20
    assert any("online.db" in line for line in found)
    assert any("histories.npz" in line for line in found)
    done = erasure.erase(shop, GONE, dry_run=False)
    assert traces(shop) == []
    assert done.remaining == ()
    toy = [row["event_id"] for row in rows() if row["event_id"] != "e034" and _kept(row)]
    assert events_of(shop) == sorted([("toy", e) for e in toy] + [("web", "live2")])
    assert len(kept_before) > len(events_of(shop))
    snapshot = read_snapshot(shop.profiles, current_name(shop.profiles) or "")
    assert snapshot.customers.tolist() == [KEPT]
    assert [json.loads(raw)["event_id"] for _, _, raw in read_after(shop.inbox, 0, 10)] == ["live2", "live4"]
    con = connect()
    attach(con, "features", shop.features / "customer")
    assert con.sql("select distinct customer_id from features").fetchall() == [(KEPT,)]
    names = {"customer_id": [GONE, KEPT], "product_id": ["milk", "milk"]}
    features = ["customer:c_orders", "customer_product:cp_orders"]
    read = online.open_store(shop).get_online_features(
        features, [dict(zip(names, row, strict=True)) for row in zip(*names.values(), strict=True)]
    )
    values = read.to_dict()
    assert values["c_orders"][0] is None
    assert values["c_orders"][1] == 3
    latest = json.loads((shop.home / "evaluation" / "LATEST.json").read_text())
    assert pq.read_table(shop.home / "evaluation" / latest["path"])["customer_id"].to_pylist() == [KEPT]
    assert "INFO fine" in (shop.home / "logs" / "serving.log").read_text()
    assert KEPT in (shop.home / "audiences" / "mail.csv").read_text()
    shared = [e for e in events_of(shop) if e[1] in {"e008", "e009"}]
    assert len(shared) == 2


def _kept(row: dict[str, Any]) -> bool:
    return str(row["session_id"]).startswith("kept")


def test_no_replay_brings_the_person_back(erased: Settings) -> None:
    source = Shielded(Toy(), erased)
    ingest.ingest_events(erased.lake, "toy", source, Window(FIRST, LAST))
    ingest.ingest_customers(erased.lake, source)
    receipt = post(
        erased, live_event(1, customer=GONE), live_event(3, device=OWN["device"]), live_event(9, customer=KEPT),
        live_event(7, customer=GONE) | {"action": "no such action"},
    )  # fmt: skip
    assert (receipt.accepted, receipt.duplicates, receipt.erased) == (1, (0, 1), 2)
    drain_inbox(erased)
    decide(erased, GONE, KEPT, None)
    stitch_lake(erased.lake)
    mentions = [line for line in traces(erased) if not line.startswith("lake/events/")]
    assert mentions == []
    kept = {row["event_id"] for row in rows() if _kept(row) and row["event_id"] != "e034"}
    assert {e for s, e in events_of(erased) if s == "toy"} == kept


def test_a_new_owner_of_an_erased_device_is_welcome(erased: Settings) -> None:
    receipt = post(erased, live_event(20, customer=KEPT, device=OWN["device"]))
    assert (receipt.accepted, receipt.erased) == (1, 0)


@pytest.mark.parametrize("step", ["erase_inbox", "TableEraser._forget", "erase_online", "_clean_files"])
def test_a_killed_erasure_is_completed_by_the_next(
    shop: Settings, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def killed(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"orchestration.lake.erasure.{step}", killed)
        with pytest.raises(KeyboardInterrupt):
            erasure.erase(shop, GONE, dry_run=False)
    assert traces(shop) != []
    done = erasure.erase(shop, GONE, dry_run=False)
    assert done.resumed
    assert set(done.subject.identifiers) == set(
        SECRETS
    )  # The lake may know them no longer; the journal does.
    assert traces(shop) == []
    assert not list((shop.home / "erasures").glob("*.json"))


def test_a_server_that_is_running_goes_on_and_forgets(shop: Settings) -> None:
    inbox, log, view = Inbox(shop.inbox), DecisionLog(shop.decisions), InboxView(shop.inbox)
    assert len(view.of_customer(GONE, 0)) == 1
    done = erasure.erase(shop, GONE, dry_run=False)
    assert done.remaining == ()
    assert view.of_customer(GONE, 0) == []
    parts = [json.dumps(live_event(50, customer=KEPT)).encode()]
    good, _ = check_events(parts, NOON + dt.timedelta(days=10))
    assert inbox.submit(1, good).result(timeout=20).accepted == 1
    assert log.find(f"d0-{GONE}") is None
    assert log.find(f"d1-{KEPT}") is not None
    inbox.close()
    log.close()


def test_the_server_keeps_no_answer_of_an_erased_person_in_memory(shop: Settings) -> None:
    log = DecisionLog(shop.decisions)
    log.record(
        Decision(
            decision_id="late", decided_at=NOON, as_of=NOON, touchpoint="home", path="model", release="r",
            items=(), customer_id=GONE,
        )
    )  # fmt: skip
    assert log.find("late") is not None
    tombstones = erasure.shield.load_or_draw(shop)
    store(shop, tombstones, [tombstones.of_identifier("customer", GONE)])
    log.close()
    assert log.find("late") is None


def test_the_last_offset_survives_so_that_nothing_is_drained_twice(erased: Settings) -> None:
    before = 4
    post(erased, live_event(30, customer=KEPT))
    assert last_offset(erased.inbox) == before + 1
    assert drain_inbox(erased).events == 2


def test_an_unknown_customer_is_no_error_and_costs_nobody_anything(shop: Settings) -> None:
    before = events_of(shop)
    done = erasure.erase(shop, "nobody-we-know", dry_run=False)
    assert not any(store.rows or store.mentions for store in done.stores)
    assert events_of(shop) == before


def test_readmitting_opens_the_door_again(erased: Settings) -> None:
    assert erasure.readmit(erased, GONE)
    assert not erasure.readmit(erased, GONE)
    assert post(erased, live_event(40, customer=GONE)).accepted == 1


def test_the_command_is_dry_by_default_and_speaks_json(
    shop: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTINUUM_HOME", str(shop.home))
    monkeypatch.setenv("RETAILER", shop.retailer)
    runner = CliRunner()
    listed = runner.invoke(command, [GONE, "--json"])
    assert listed.exit_code == 0
    assert json.loads(listed.stdout)["dry_run"]
    assert not tombstones_path(shop).exists()
    done = runner.invoke(command, [GONE, "--yes", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["remaining"] == []
    assert "dry run" in runner.invoke(command, [KEPT]).stdout


def test_the_command_is_light_to_import() -> None:
    code = "import sys, orchestration.cli.erase as e; print(any(m in sys.modules for m in ('duckdb', 'pyarrow', 'feast')))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_tables_still_accept_batches_after_the_log_was_cut(erased: Settings) -> None:
    again = writing.append_once(tables.TABLES["events"], erased.lake, tables.EVENTS.empty_table(), "inbox", 1)
    assert not again.applied  # The transaction numbers outlive the log that recorded them.


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.close()


def told(receiver: Receiver) -> set[str]:
    return {row["customer"] for row in receiver.state.get("everybody", {}).values()}


def outside(settings: Settings) -> list[str]:
    """Places outside of the home in which the person is still found."""
    texts = needles(SECRETS)
    folder = settings.home.parent
    beside = [*find_traces(folder / "exchange", texts), *find_traces(folder, texts)]
    return [str(trace.path) for trace in beside if not trace.path.is_relative_to(settings.home)]


def test_what_has_left_forgets_too_and_receivers_are_told(
    shop: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = send_out(shop, monkeypatch, receiver.url, SECRET)
    assert told(receiver) == {GONE, KEPT}
    assert len(outside(shop)) >= 2
    crm = shop.home.parent / "crm.db"
    before = files_of(shop.home) | {
        str(path): path.read_bytes() for path in (crm, *crm.parent.glob("exchange/*"))
    }
    listed = {found.store: found.rows for found in erasure.erase(shop, GONE).stores}
    ours = {
        "outbound/outbox.sqlite": 1, str(crm.parent / "exchange" / "everybody.csv"): 1,
        "outbound/files/inside/everybody.parquet": 1, "outbound/files/lines/everybody.jsonl": 1, "sql:crm/people": 1,
    }  # fmt: skip
    assert {store: listed[store] for store in ours} == ours
    after = files_of(shop.home) | {
        str(path): path.read_bytes() for path in (crm, *crm.parent.glob("exchange/*"))
    }
    assert {name for name in before if before[name] != after.get(name)} <= {"outbound/outbox.sqlite"}
    assert told(receiver) == {GONE, KEPT}
    done = erasure.erase(shop, GONE, dry_run=False)
    assert (done.untold, done.remaining) == ({}, ())
    assert (traces(shop), outside(shop)) == ([], [])
    assert told(receiver) == {KEPT}
    assert receiver.bodies[-1]["type"] == "person.erased"
    assert receiver.problems == []
    with sqlite3.connect(crm) as con:
        assert con.execute("select customer from people").fetchall() == [(KEPT,)]
    assert KEPT in (crm.parent / "exchange" / "everybody.csv").read_text()
    assert all(files.intact(path) for path in (crm.parent / "exchange").glob("*.csv"))
    assert not list((shop.home / "erasures").glob("*.json"))
    retailer = read_retailer(shop)
    stitch_lake(shop.lake)
    store_consents(shop.lake)
    assert [(f.rows, f.unlawful, f.problem) for f in audit(shop, retailer)] == [(1, 0, "")] * 5
    exported = export(shop, retailer)
    assert exported.errors == ()
    assert (traces(shop), outside(shop), told(receiver)) == ([], [], {KEPT})


def test_a_receiver_that_is_away_is_told_by_the_next_run(
    shop: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.answers = [500] * 2
    shop = send_out(shop, monkeypatch, receiver.url, SECRET)
    with Outbox(shop.outbound) as outbox:
        assert len(outbox.waiting()) == 1
    assert any("outbox.sqlite" in line for line in traces(shop))
    monkeypatch.setenv("CONTINUUM_HOME", str(shop.home))
    monkeypatch.setenv("RETAILER", shop.retailer)
    runner = CliRunner()
    first = runner.invoke(command, [GONE, "--yes", "--json"])
    assert first.exit_code == 1
    assert [row["receiver"] for row in json.loads(first.stdout)["untold"]] == ["hook"]
    journal = list((shop.home / "erasures").glob("*.json"))
    assert len(journal) == 1  # Who is to be told of is remembered there, and nowhere else.
    named = {line.partition(":")[0] for line in traces(shop)}
    assert named <= {str(journal[0].relative_to(shop.home))}
    second = runner.invoke(command, [GONE, "--yes", "--json"])
    assert second.exit_code == 0, second.output
    assert json.loads(second.stdout)["resumed"]
    assert (traces(shop), outside(shop)) == ([], [])
    assert receiver.bodies[-1]["type"] == "person.erased"


def test_a_receiver_that_no_longer_exists_is_named_for_somebody_to_tell(
    shop: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = send_out(shop, monkeypatch, receiver.url, SECRET)
    profile = shop.home.parent / "toy.yaml"
    profile.write_text(profile.read_text().replace(", hook]", "]").replace("  hook: {", "  hook2: {"))
    done = erasure.erase(open_home(shop.home), GONE, dry_run=False)
    assert done.untold == {"hook": "it is no longer a webhook of the yaml; tell its owner yourself"}
    assert (done.remaining, traces(shop)) == ((), [])
    assert erasure.erase(open_home(shop.home), GONE, dry_run=False).untold == {}
