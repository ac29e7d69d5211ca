"""A small home in which every store of the platform holds two people, one of whom will be erased."""

import datetime as dt
import hashlib
import json
import os
import pathlib
import shutil
import sqlite3
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.actions import NONE, Action, action_id
from contracts.decisions import Decision
from contracts.identity import person_id
from contracts.predictions import PREDICTION_COLUMNS
from contracts.settings import Settings, read_settings
from feature_repo import online
from feature_repo.build import build_views, store_rows
from feature_repo.catalog import PREDICTIONS
from orchestration.draining import drain_inbox
from orchestration.lake import ingest, merges, next_actions, predictions, tables, writing
from orchestration.lake.consent import store_consents
from orchestration.lake.histories import publish_histories
from orchestration.lake.identity import stitch_lake
from orchestration.lake.people import store_moments
from orchestration.sources import WeeklyRows, Window
from serving.decision_log import DecisionLog
from serving.inbox.intake import check_events
from serving.inbox.writer import Inbox
from serving.profiles.history import to_microseconds

FIRST = dt.date(2025, 3, 1)
LAST = dt.date(2025, 3, 4)
NOON = dt.datetime(2025, 3, 1, 12, tzinfo=dt.UTC)
GONE, KEPT = "cust-Änne-71834", "cust-bruno-55120"
OWN = {
    "customer": GONE,
    "email_sha256": hashlib.sha256(b"aenne@example.org").hexdigest(),
    "loyalty_card": "card-90017734",
    "device": "device-4fe2a9c1",
    "cookie": "cookie-77ab03f2",
}
TABLET = "tablet-of-the-family"
SECRETS = tuple(OWN.items())


def ids(**pairs: str) -> str:
    return json.dumps([{"kind": kind, "value": value} for kind, value in pairs.items()], ensure_ascii=False)


def rows() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def add(hours: float, names: str, action: str, session: str, **more: Any) -> None:
        moment = NOON + dt.timedelta(hours=hours)
        found.append(
            {
                "event_id": f"e{len(found):03d}", "source": "toy", "occurred_at": moment, "received_at": moment,
                "identifiers": names, "session_id": session, "channel": "web", "action": action,
            } | more
        )  # fmt: skip

    sale = {
        "product_id": "milk",
        "quantity": 1.0,
        "unit_price": 2.0,
        "discount": 0.0,
        "touchpoint": "store:1",
        "consent": '["marketing"]',
    }
    for day in range(3):
        at = 24.0 * day
        add(at, ids(cookie=OWN["cookie"]), "view", f"gone-visit-{day}", product_id="milk")
        add(at + 0.1, ids(customer=GONE, cookie=OWN["cookie"]), "visit", f"gone-visit-{day}")
        add(
            at + 0.2,
            ids(customer=GONE, email_sha256=OWN["email_sha256"]),
            "purchase",
            f"gone-visit-{day}",
            **sale,
        )
        add(
            at + 1,
            ids(loyalty_card=OWN["loyalty_card"], customer=GONE),
            "purchase",
            f"gone-till-{day}",
            **sale,
        )
        add(at + 2, ids(device=OWN["device"]), "view", f"gone-app-{day}", product_id="milk")
        add(at + 2.1, ids(device=OWN["device"], customer=GONE), "visit", f"gone-app-{day}")
        add(at + 3, ids(customer=GONE, device=TABLET), "visit", f"gone-tablet-{day}")
        add(at + 3.1, ids(device=TABLET), "view", f"gone-tablet-{day}", product_id="milk")
        add(at + 5, ids(customer=KEPT, device=TABLET), "visit", f"kept-tablet-{day}")
        add(at + 5.1, ids(device=TABLET), "view", f"kept-tablet-{day}", product_id="milk")
        add(at + 6, ids(customer=KEPT), "purchase", f"kept-till-{day}", **sale)
    add(
        80,
        ids(customer=KEPT),
        "share",
        "kept-share",
        detail=json.dumps({"referred": GONE}, ensure_ascii=False),
    )
    add(81, ids(customer=GONE), "purchase", "gone-broken")  # No product: a dead letter.
    return found


class Toy:
    """A source of a few shoppers."""

    def events(self, window: Window) -> pa.RecordBatchReader:
        table = pa.Table.from_pylist(rows(), schema=tables.CANONICAL)
        return pa.RecordBatchReader.from_batches(tables.CANONICAL, table.to_batches())

    def products(self) -> pa.Table:
        product = {
            "product_id": "milk",
            "category": "dairy",
            "type": "fresh",
            "kind": "good",
            "sellable": True,
        }
        return pa.Table.from_pylist([product], schema=tables.PRODUCTS)

    def customers(self, households: int | None) -> pa.Table:
        found = [{"customer_id": GONE, "age": "40"}, {"customer_id": KEPT, "age": "50"}]
        return pa.Table.from_pylist(found, schema=tables.CUSTOMERS)

    def offers(self) -> pa.Table:
        return tables.OFFERS.empty_table()

    def exposures(self, window: Window) -> WeeklyRows:
        return WeeklyRows(0, -1, tables.EXPOSURES.empty_table().to_reader())


def live_event(number: int, **names: str) -> dict[str, Any]:
    listed = [{"kind": kind, "value": value} for kind, value in names.items()]
    moment = (NOON + dt.timedelta(hours=82, minutes=number)).isoformat()
    return {
        "event_id": f"live{number}", "source": "web", "occurred_at": moment, "channel": "web", "action": "view",
        "product_id": "milk", "session_id": f"live-{listed[0]['value']}", "identifiers": listed,
    }  # fmt: skip


def post(settings: Settings, *events: dict[str, Any]) -> Any:
    inbox = Inbox(settings.inbox)
    parts = [json.dumps(event, ensure_ascii=False).encode() for event in events]
    received = NOON + dt.timedelta(days=10)
    good, refused = check_events(parts, received)
    receipt = inbox.submit(to_microseconds(received), good, refused).result(timeout=20)
    inbox.close()
    return receipt


def decide(settings: Settings, *customers: str | None) -> None:
    log = DecisionLog(settings.decisions)
    for number, customer in enumerate(customers):
        log.record(
            Decision(
                decision_id=f"d{number}-{customer}", decided_at=NOON, as_of=NOON, touchpoint="home", path="model",
                release="r1", items=(), customer_id=customer,
                session_id="gone-visit-0" if customer is None else f"s-{customer}",
            )
        )  # fmt: skip
    log.close()
    assert log.lost == 0


def frozen(settings: Settings) -> None:
    folder = settings.home / "evaluation"
    folder.mkdir()
    table = pa.table(
        {
            "customer_id": [KEPT, GONE],
            "request_at": [NOON, NOON],
            "store_id": ["1", "1"],
            "targets": [["milk"], ["milk"]],
        }
    )
    pq.write_table(table, folder / "aaaa.parquet")
    (folder / "LATEST.json").write_text(
        json.dumps({"path": "aaaa.parquet", "sha256": "a", "events_version": 1})
    )


def foresee(settings: Settings) -> None:
    """Predictions, the features they become, and next best actions of both customers, each stored twice."""
    people = np.array(sorted([GONE, KEPT]))
    columns = {name: np.full(2, np.nan) for name in PREDICTION_COLUMNS}
    columns["p_churn"] = np.array([0.25, 0.75])
    missing = dict.fromkeys(predictions.FAMILIES, "not trained")
    answers = predictions.Answers(
        people, columns, to_microseconds(NOON), {"behaviour": ("all",), "taste": ()}, missing, np.full(2, -1)
    )
    made = [
        Action(
            action_id=action_id(name, NONE, None, "", None), customer_id=name, person=person_id("customer", name),
            kind=NONE, channel=None, subject="", at=None, gain=0.0, reason=f"nothing moves {name}",
            purpose="marketing", refused=(), made_at=NOON, expires_at=NOON + dt.timedelta(days=2), simulated=True,
        )
        for name in people.tolist()
    ]  # fmt: skip
    for _ in range(2):
        rows = predictions.rows_of(answers, NOON).to_reader()
        store_rows(settings.features / PREDICTIONS.name, PREDICTIONS, rows, NOON.date(), NOON.date())
        predictions.publish(settings, answers)
        writing.replace_all(next_actions.ACTIONS, settings.lake, next_actions.to_table(made))
        next_actions.publish(settings, made)
    predictions.to_feast(settings, NOON)
    folder = settings.bundles / "visits" / "20250303-1"
    folder.mkdir(parents=True)
    np.savez_compressed(
        folder / predictions.EXPECTATIONS, customers=people, as_of_us=1, soon=np.ones(2, np.float32)
    )


def open_home(home: pathlib.Path) -> Settings:
    return read_settings({"CONTINUUM_HOME": str(home), "RETAILER": str(home.parent / "toy.yaml")})


def furnish(home: pathlib.Path) -> None:
    """Fill a home; its profile is written beside it."""
    profile = home.parent / "toy.yaml"
    profile.write_text("name: toy\ntitle: Toy\nsource: toy\nfirst_day: 2025-03-01\nlast_day: 2025-03-04\n")
    settings = open_home(home)
    window = Window(FIRST, LAST)
    for _ in range(2):  # Twice: the first version's files stay for readers of old versions.
        ingest.ingest_events(settings.lake, "toy", Toy(), window)
    ingest.ingest_customers(settings.lake, Toy())
    ingest.ingest_products(settings.lake, Toy())
    broken = live_event(7, customer=GONE) | {"action": "no such action"}
    post(settings, live_event(1, customer=GONE), live_event(2, customer=KEPT), broken)
    drain_inbox(settings)
    post(settings, live_event(3, device=OWN["device"]), live_event(4, customer=KEPT))
    publish_histories(settings)
    stitch_lake(settings.lake)
    merges.merge(settings.lake, [merges.Proposal(("customer", GONE), ("cookie", OWN["cookie"]))])
    entry = merges.never(settings.lake, ("customer", GONE), ("customer", KEPT), f"{GONE} asked for it")
    merges.undo(settings.lake, entry.entry_id)
    stitch_lake(settings.lake)
    store_consents(settings.lake)
    build_views(
        settings,
        [
            "customer",
            "customer_product",
            "product",
            "customer_type",
            "customer_category",
            "customer_store_product",
        ],
        FIRST,
        LAST,
    )
    build_views(settings, ["store_product"], FIRST, LAST)
    online.apply(settings)
    online.materialize(
        settings, NOON - dt.timedelta(days=1), NOON + dt.timedelta(days=5), ["customer", "customer_product"]
    )
    decide(settings, GONE, KEPT, None)
    publish_histories(settings, inbox_offset=1)
    frozen(settings)
    store_moments(settings.lake)
    for folder in (settings.overview, settings.bundles / "customers" / "20250303-1"):
        folder.mkdir(parents=True, exist_ok=True)
        people = np.array(sorted([GONE, KEPT]))
        np.savez_compressed(
            folder / "customers.npz", customers=people, churn=np.ones(2, np.float32), as_of_us=1
        )
    foresee(settings)
    (home / "logs").mkdir()
    (home / "logs" / "serving.log").write_text(f"ERROR no answer for {GONE}\nINFO fine\n")
    (home / "audiences").mkdir()
    (home / "audiences" / "mail.csv").write_text(f"customer_id,name\n{GONE},Änne\n{KEPT},Bruno\n")
    (home / "dagster").mkdir()
    con = sqlite3.connect(home / "dagster" / "runs.db")
    con.execute("create table event_logs (id integer primary key, event text, raw blob)")
    con.execute("insert into event_logs values (1, ?, ?)", (f'{{"top": "{GONE}"}}', f"saw {GONE}".encode()))
    con.commit()
    con.close()
    data = next((settings.lake / "events" / "day=2025-03-01").glob("*.parquet"))
    orphan = data.with_name("part-00000-of-a-killed-writer.parquet")
    shutil.copy(data, orphan)
    os.utime(orphan, (time.time() - 7200,) * 2)


AUDIENCES = """
connections: {crm: "sqlite:///@FOLDER@/crm.db"}
destinations:
  outside: {type: files, format: csv, folder: exchange}
  inside: {type: files, format: parquet}
  lines: {type: files, format: jsonl}
  crm: {type: sql, connection: crm, table: people}
  hook: {type: webhook, url: "${HOOK_URL}", secret: "${HOOK_SECRET}", private: true, backoff_seconds: 0.01, attempts: 1}
audiences:
  everybody:
    title: All
    condition: everyone
    purpose: marketing
    identifiers: [customer, email_sha256]
    fields: [orders]
    destinations: [outside, inside, lines, crm, hook]
"""
"""What leaves the platform, in a profile's own words."""


def send_out(settings: Settings, monkeypatch: Any, url: str, secret: str) -> Settings:
    """Export both people to every kind of destination; the webhook's receiver is at `url`, or away."""
    from contracts.settings import read_retailer
    from orchestration.outbound.exporting import export

    monkeypatch.setenv("HOOK_URL", url)
    monkeypatch.setenv("HOOK_SECRET", secret)
    profile = settings.home.parent / "toy.yaml"
    plain = profile.read_text().partition("\nconnections:")[0].rstrip() + "\nclock: stream\n"
    profile.write_text(plain + AUDIENCES.replace("@FOLDER@", str(settings.home.parent)))
    opened = open_home(settings.home)
    export(opened, read_retailer(opened))
    return opened
