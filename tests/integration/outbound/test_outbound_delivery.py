"""What leaves over the wire: signed, in order, again until taken, never twice to an attentive receiver; and SQL tables."""

from __future__ import annotations

import datetime as dt
import json
import os
import pathlib
import shutil
import signal
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner

from contracts.settings import ROOT, Settings, read_retailer
from orchestration.cli.audiences import command
from orchestration.lake import writing
from orchestration.lake.next_actions import ACTIONS
from orchestration.outbound import exporting
from orchestration.outbound.auditing import audit, judge
from orchestration.outbound.outbox import Outbox
from orchestration.outbound.people import load_people
from tests.integration.outbound.outbound_home import NOW, SECRET, Receiver, Toy, open_shop, take_in


def yaml(url: str, more: str = ", private: true") -> str:
    return f"""
connections: {{crm: "${{CRM_ADDRESS}}"}}
destinations:
  hook: {{type: webhook, url: "{url}", secret: "${{HOOK_SECRET}}", batch: 2, backoff_seconds: 0.02, attempts: 6{more}}}
  crm: {{type: sql, connection: crm, table: people, mode: upsert}}
audiences:
  everybody:
    title: All
    condition: everyone
    purpose: marketing
    identifiers: [customer]
    fields: [orders, spend, segment]
    destinations: [hook]
"""


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("outbound")
    take_in(open_shop(folder, ""), Toy())
    return folder


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setenv("HOOK_SECRET", f"whsec_{SECRET}")
    found = Receiver()
    yield found
    found.close()


@pytest.fixture
def shop(furnished: pathlib.Path, tmp_path: pathlib.Path, receiver: Receiver) -> Settings:
    shutil.copytree(furnished / "home", tmp_path / "home")
    return open_shop(tmp_path, yaml(receiver.url))


def customers(receiver: Receiver, audience: str = "everybody") -> set[str]:
    return {row["customer"] for row in receiver.state.get(audience, {}).values()}


def change(settings: Settings, name: str, action: str, **more: Any) -> Toy:
    toy = Toy()
    toy.add(name, NOW - dt.timedelta(minutes=1), action, "web", **more)
    take_in(settings, toy)
    return toy


def test_the_receiver_believes_exactly_who_is_in(shop: Settings, receiver: Receiver) -> None:
    retailer = read_retailer(shop)
    done = exporting.export(shop, retailer)
    assert done.errors == ()
    assert receiver.problems == []
    assert customers(receiver) == {"ann", "dan", "eve", "=fox"}
    assert [status for _, status in receiver.requests] == [200, 200]  # Batches of two.
    message = receiver.bodies[0]
    assert message["type"] == "audience.changed"
    assert message["data"] | {"added": 0} == {
        "retailer": "toy", "simulated": False, "audience": "everybody", "purpose": "marketing",
        "added": 0, "changed": [], "removed": [],
    }  # fmt: skip
    row = next(row for row in receiver.state["everybody"].values() if row["customer"] == "ann")
    assert row | {"person_id": "", "segment": ""} == {
        "person_id": "", "customer": "ann", "orders": 3, "spend": 66, "segment": "",
    }  # fmt: skip
    assert done.sent[0].accepted == 2
    again = exporting.export(shop, retailer)
    assert again.steps[0].changes == {"added": 0, "changed": 0, "removed": 0}
    assert len(receiver.requests) == 2  # Nothing has changed: nothing is said.


def test_changes_withdrawals_and_returns_are_told(shop: Settings, receiver: Receiver) -> None:
    retailer = read_retailer(shop)
    exporting.export(shop, retailer)
    change(shop, "ann", "unsubscribe")
    assert exporting.export(shop, retailer).steps[0].changes["removed"] == 1
    assert customers(receiver) == {"dan", "eve", "=fox"}
    change(
        shop, "dan", "purchase", product_id="p0", quantity=1.0, unit_price=5.0
    )  # Ann has consented again, too.
    changes = exporting.export(shop, retailer).steps[0].changes
    assert (changes["added"], changes["removed"]) == (1, 0)
    assert changes["changed"] >= 1
    assert customers(receiver) == {"ann", "dan", "eve", "=fox"}
    dan = next(row for row in receiver.state["everybody"].values() if row["customer"] == "dan")
    assert (dan["orders"], dan["spend"]) == (2, 25)
    assert len(receiver.seen) == len(set(receiver.seen))


def test_failures_are_tried_again_in_order_with_the_same_id(shop: Settings, receiver: Receiver) -> None:
    receiver.answers = [500, 0, 429, 302, 200, 503, 200]
    done = exporting.export(shop, read_retailer(shop), patience=20)
    assert done.errors == ()
    ids = [message_id for message_id, _ in receiver.requests]
    assert len(set(ids)) == 2
    assert ids == sorted(ids, key=ids.index)
    assert [ids.count(each) for each in dict.fromkeys(ids)] == [5, 2]
    assert len({json.dumps(body) for body in receiver.bodies}) == 2  # The same words each time.
    assert customers(receiver) == {"ann", "dan", "eve", "=fox"}
    assert (done.sent[0].accepted, done.sent[0].failed, done.sent[0].waiting) == (2, 5, 0)
    assert receiver.problems == []


def test_a_receiver_that_asks_for_time_gets_it(shop: Settings, receiver: Receiver) -> None:
    receiver.answers, receiver.headers = [429], {"retry-after": "600"}
    done = exporting.export(shop, read_retailer(shop), patience=0.5)
    assert len(receiver.requests) == 1
    assert (done.sent[0].waiting, done.sent[0].dead, done.errors) == (2, 0, ())
    with Outbox(shop.outbound) as outbox:
        assert outbox.waiting()[0].next_at - time.time() > 500


@pytest.mark.parametrize("answers", [[410], [500] * 6])
def test_a_dead_destination_is_reported_and_can_be_revived(
    shop: Settings, receiver: Receiver, answers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTINUUM_HOME", str(shop.home))
    monkeypatch.setenv("RETAILER", shop.retailer)
    receiver.answers = list(answers)
    runner = CliRunner()
    done = runner.invoke(command, ["export", "--json"])
    assert done.exit_code == 1
    assert (
        f"destination hook is dead: 1 messages used up their attempts (status {answers[0]})"
        in json.loads(done.stdout)["errors"]
    )
    assert len(receiver.requests) == len(answers)
    listed = json.loads(runner.invoke(command, ["list", "--json"]).stdout)["destinations"][0]
    assert (listed["state"], listed["waiting"], listed["error"]) == ("dead", 2, f"status {answers[0]}")
    assert not judge(shop, read_retailer(shop))["deliveries"][0]
    assert runner.invoke(command, ["send"]).exit_code == 1
    assert len(receiver.requests) == len(
        answers
    )  # What is dead is not tried by itself, nor what waits behind it.
    revived = runner.invoke(command, ["send", "--revive", "--json"])
    assert revived.exit_code == 0, revived.output
    assert customers(receiver) == {"ann", "dan", "eve", "=fox"}
    assert judge(shop, read_retailer(shop))["deliveries"][0]


def test_a_killed_process_loses_nothing_and_sends_again_under_the_same_id(
    shop: Settings, receiver: Receiver
) -> None:
    receiver.answers = [200, -1]  # The second message is taken, but the answer never comes.
    environment = {
        **os.environ,
        "CONTINUUM_HOME": str(shop.home),
        "RETAILER": shop.retailer,
        "PYTHONPATH": str(ROOT),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "orchestration.cli", "audiences", "export"], env=environment, cwd=ROOT,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert receiver.hanging.wait(60)
        process.send_signal(signal.SIGKILL)
        process.wait()
    receiver.released.set()
    with Outbox(shop.outbound) as outbox:
        assert len(outbox.waiting()) == 1
        assert len(outbox.sent()) == 1
    sent, errors = exporting.send(shop, read_retailer(shop))
    assert errors == ()
    assert sent[0].accepted == 1
    ids = [message_id for message_id, _ in receiver.requests]
    assert ids[1] == ids[2]
    assert len(receiver.seen) == 2  # An attentive receiver applies it once.
    assert customers(receiver) == {"ann", "dan", "eve", "=fox"}


@pytest.mark.parametrize("step", ["_write", "accepted"])
def test_a_crash_between_any_two_steps_keeps_outbox_and_receiver_together(
    shop: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    real = getattr(Outbox, step)

    def killed(*arguments: Any) -> Any:
        real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Outbox, step, staticmethod(killed) if step == "_write" else killed)
        with pytest.raises(KeyboardInterrupt):
            exporting.export(shop, read_retailer(shop))
    if step == "_write":
        with Outbox(shop.outbound) as outbox:
            assert (outbox.waiting(), outbox.members()) == ([], {})  # Rolled back as a whole.
    exporting.export(shop, read_retailer(shop))
    assert customers(receiver) == {"ann", "dan", "eve", "=fox"}
    assert len(receiver.seen) == len({message_id for message_id, _ in receiver.requests}) == 2


def test_who_withdraws_while_a_message_waits_is_taken_out_of_it(shop: Settings, receiver: Receiver) -> None:
    receiver.answers = [500] * 20
    exporting.export(shop, read_retailer(shop))
    assert customers(receiver) == set()
    change(shop, "ann", "unsubscribe")
    receiver.answers = []
    with Outbox(shop.outbound) as outbox:
        outbox._con.execute("update messages set next_at = 0")
    before = len(receiver.bodies)
    exporting.send(shop, read_retailer(shop))
    assert customers(receiver) == {"dan", "eve", "=fox"}
    assert "ann" not in json.dumps(receiver.bodies[before:])


def test_inner_addresses_are_refused_unless_the_yaml_allows_them(shop: Settings, receiver: Receiver) -> None:
    port = receiver.url.rpartition(":")[2].partition("/")[0]
    strict = open_shop(shop.home.parent, yaml(f"https://localhost:{port}/hooks", ""))
    done = exporting.export(strict, read_retailer(strict))
    assert receiver.requests == []
    assert "which is not a public address" in done.sent[0].error
    assert done.sent[0].waiting == 2


def test_tls_goes_to_the_judged_address_and_demands_the_hosts_certificate(
    shop: Settings, receiver: Receiver, tmp_path: pathlib.Path
) -> None:
    certificate(tmp_path / "localhost.pem", "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "localhost.pem")
    receiver.wrap(context)
    port = receiver.url.rpartition(":")[2].partition("/")[0]
    trusting = open_shop(
        tmp_path, yaml(f"https://localhost:{port}/hooks", ", private: true, ca_file: localhost.pem")
    )
    assert exporting.export(trusting, read_retailer(trusting)).errors == ()
    assert customers(receiver) == {"ann", "dan", "eve", "=fox"}
    change(trusting, "ann", "unsubscribe")
    certificate(tmp_path / "other.pem", "elsewhere.example")
    context.load_cert_chain(tmp_path / "other.pem")
    both = (tmp_path / "localhost.pem").read_bytes() + (tmp_path / "other.pem").read_bytes()
    (tmp_path / "both.pem").write_bytes(both)
    wrong = open_shop(tmp_path, yaml(f"https://localhost:{port}/hooks", ", private: true, ca_file: both.pem"))
    done = exporting.export(wrong, read_retailer(wrong))
    assert "ConnectError" in done.sent[0].error
    assert done.sent[0].accepted == 0


def test_a_missing_secret_is_told_before_anything_is_written(
    shop: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOOK_SECRET")
    done = exporting.export(shop, read_retailer(shop))
    assert len(done.errors) == 1
    assert "destinations.hook.secret: the environment variable HOOK_SECRET is not set" in done.errors[0]
    with Outbox(shop.outbound) as outbox:
        assert outbox.waiting() == []


def test_an_audience_that_is_no_longer_sent_is_told_to_be_empty(shop: Settings, receiver: Receiver) -> None:
    exporting.export(shop, read_retailer(shop))
    without = open_shop(shop.home.parent, yaml(receiver.url).partition("audiences:")[0])
    done = exporting.export(without, read_retailer(without))
    assert done.retired == ("everybody at hook",)
    assert customers(receiver) == set()
    gone = open_shop(shop.home.parent, "")
    assert exporting.export(gone, read_retailer(gone)).errors == ()


def test_next_best_actions_leave_within_both_consents_and_before_they_expire(
    shop: Settings, receiver: Receiver
) -> None:
    people = load_people(shop, read_retailer(shop))
    persons = dict(people.con.execute("select customer_id, person_id from accounts").fetchall())

    def advice(
        name: str, kind: str = "product", purpose: str = "marketing", hours: float = 48
    ) -> dict[str, Any]:
        contact = kind != "none"
        return {
            "action_id": f"a_{name}_{kind}", "customer_id": name, "person": persons[name], "kind": kind,
            "channel": "email" if contact else None, "subject": "p1" if contact else "", "at": NOW if contact else None,
            "gain": 1.25, "reason": "because", "purpose": purpose, "refused": "[]", "made_at": NOW,
            "expires_at": NOW + dt.timedelta(hours=hours), "simulated": False,
        }  # fmt: skip

    rows = [advice("ann"), advice("bob"), advice("cat"), advice("dan", "none"), advice("eve", purpose="personalization"),
            advice("=fox", hours=-2), advice("dan", "recovery")]  # fmt: skip
    writing.replace_all(ACTIONS, shop.lake, pa.Table.from_pylist(rows, schema=ACTIONS.schema))
    text = yaml(receiver.url).replace(
        "condition: everyone", "rows: actions\n    condition: gain > 1 and hours_until < 24"
    )
    acting = open_shop(shop.home.parent, text)
    done = exporting.export(acting, read_retailer(acting))
    assert done.errors == ()
    assert (
        done.counts["everybody"]["without_consent"] == 3
    )  # Bob and Cat; Eve has no consent of the advice's purpose.
    assert set(receiver.state["everybody"]) == {"a_ann_product", "a_dan_recovery"}
    told = receiver.state["everybody"]["a_dan_recovery"]
    assert (told["kind"], told["channel"], told["subject"], told["gain"]) == ("recovery", "email", "p1", 1.25)
    assert (told["at"], told["orders"]) == ("2025-06-30T12:00:00Z", 1)
    assert [(f.rows, f.unlawful) for f in audit(acting, read_retailer(acting))] == [(2, 0)]


def sqlite_reader(path: pathlib.Path) -> Any:
    def query(statement: str) -> list[tuple[Any, ...]]:
        with sqlite3.connect(path) as con:
            return con.execute(statement).fetchall()

    return query


def exercise(settings: Settings, receiver: Receiver, query: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole life of a table, on any database."""
    text = (
        yaml(receiver.url)
        .replace("destinations: [hook]", "destinations: [crm]")
        .replace("segment", "last_channel")
    )
    for mode in ("upsert", "replace"):
        table = f"people_{mode}"
        own = text.replace("mode: upsert", f"mode: {mode}").replace("table: people", f"table: {table}")
        shop = open_shop(settings.home.parent, own)
        retailer = read_retailer(shop)
        take_in(shop, Toy())
        done = exporting.export(shop, retailer)
        assert done.errors == ()
        assert done.steps[0].changes == {"added": 4, "changed": 0, "removed": 0}
        rows = query(
            f"select customer, orders, spend from {table} where audience = 'everybody' order by customer"
        )
        assert rows == [("=fox", 2, 42), ("ann", 3, 66), ("dan", 1, 20), ("eve", 2, 42)]
        stamps = dict(query(f"select customer, exported_at from {table}"))
        toy = Toy()
        toy.add("ann", NOW - dt.timedelta(minutes=2), "unsubscribe", "email")
        toy.add(
            "dan",
            NOW - dt.timedelta(minutes=1),
            "purchase",
            "web",
            product_id="p0",
            quantity=1.0,
            unit_price=5.0,
        )
        take_in(shop, toy)
        with (
            monkeypatch.context() as patch
        ):  # A process that dies in the middle, after deleting, changes nothing.

            def dies(*_: Any) -> Any:
                raise KeyboardInterrupt

            patch.setattr("sqlalchemy.Table.insert", dies)
            with pytest.raises(KeyboardInterrupt):
                exporting.export(shop, retailer)
        assert len(query(f"select 1 from {table}")) == 4
        done = exporting.export(shop, retailer)
        assert done.steps[0].changes == {"added": 0, "changed": 1, "removed": 1}
        rows = query(f"select customer, orders, spend from {table} order by customer")
        assert rows == [("=fox", 2, 42), ("dan", 2, 25), ("eve", 2, 42)]
        after = dict(query(f"select customer, exported_at from {table}"))
        assert after["dan"] != stamps["dan"]
        assert (after["eve"] == stamps["eve"]) == (mode == "upsert")  # Who has not changed is not touched.
        assert [(f.rows, f.unlawful) for f in audit(shop, retailer) if f.destination == "crm"] == [(3, 0)]
        other = open_shop(settings.home.parent, own.replace("spend, last_channel", "spend"))
        said = exporting.export(other, read_retailer(other)).errors[0]
        assert "has other columns (missing [], not expected ['last_channel'])" in said


def test_sqlite(
    shop: Settings, receiver: Receiver, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRM_ADDRESS", f"sqlite:///{tmp_path / 'crm.db'}")
    exercise(shop, receiver, sqlite_reader(tmp_path / "crm.db"), monkeypatch)


def test_postgresql(
    shop: Settings, receiver: Receiver, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    def query(statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(postgres) as con:
            return con.execute(statement.encode()).fetchall()

    monkeypatch.setenv("CRM_ADDRESS", postgres)
    exercise(shop, receiver, query, monkeypatch)


def test_a_database_that_is_away_stops_no_other_destination(
    shop: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = open_shop(shop.home.parent, yaml(receiver.url).replace("[hook]", "[crm, hook]"))
    for address, said in (
        ("postgresql://shop:secret@127.0.0.1:9/none", "destinations.crm: connection"),
        ("oracle://shop:secret@127.0.0.1:9/none", "destinations.crm cannot be opened"),
    ):
        monkeypatch.setenv("CRM_ADDRESS", address)
        done = exporting.export(both, read_retailer(both))
        assert said in done.errors[0]
        assert "secret" not in done.errors[0]
    assert customers(receiver) == {"ann", "dan", "eve", "=fox"}
    monkeypatch.delenv("CRM_ADDRESS")
    assert "CRM_ADDRESS is not set" in exporting.export(both, read_retailer(both)).errors[0]


def test_a_thousand_rows_arrive_although_every_third_request_fails(
    shop: Settings, receiver: Receiver, tmp_path: pathlib.Path
) -> None:
    from contracts.outbound import Webhook
    from orchestration.outbound.sending import Sender, open_line

    webhook = Webhook(
        url=receiver.url, secret="${HOOK_SECRET}", private=True, batch=50, backoff_seconds=0.001, attempts=50
    )
    receiver.answers = [500 if n % 3 == 1 else 200 for n in range(200)]
    rows = [(f"p{n}", f"p{n}", json.dumps({"person_id": f"p{n}", "customer": f"c{n}"})) for n in range(1000)]
    with Outbox(tmp_path / "outbox") as outbox:
        outbox.enqueue("hook", "many", "marketing", rows, webhook.batch, "2025-06-30T12:00:00Z")
        outbox.enqueue("hook", "many", "marketing", rows[500:], webhook.batch, "2025-06-30T13:00:00Z")
        sender = Sender(outbox, {"retailer": "toy"}, lambda purpose: {row[0] for row in rows})
        done = sender.run(open_line("hook", webhook), patience=30)
        assert (done.accepted, done.rows, done.waiting) == (30, 1500, 0)
        assert len(outbox.sent()) == 30
    assert customers(receiver, "many") == {f"c{n}" for n in range(500, 1000)}


def certificate(path: pathlib.Path, host: str) -> None:
    """A certificate for a host that signs itself, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
