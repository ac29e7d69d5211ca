"""A small shop whose audiences can be counted by hand, and a receiver of webhooks that fails at times."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import http.server
import json
import pathlib
import threading
import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from contracts.settings import Settings, read_settings
from orchestration.lake import ingest, tables
from orchestration.lake.people import store_identities, store_moments
from orchestration.outbound.signing import SignatureError, verify
from orchestration.sources import WeeklyRows, Window

FIRST, LAST = dt.date(2025, 1, 1), dt.date(2025, 6, 30)
NOW = dt.datetime(2025, 6, 30, 12, tzinfo=dt.UTC)
SECRET = base64.b64encode(b"a secret of thirty-two bytes....").decode()
KEY = base64.b64decode(SECRET)

BUYERS = {
    "ann": (100, 90, 80),
    "bob": (100, 90, 80),
    "cat": (75, 70),
    "dan": (5,),
    "eve": (120, 90),
    "=fox": (100, 65),
}
"""Days ago on which each of them bought."""
_BOTH = ["marketing", "personalization"]
CONSENTS = {"ann": _BOTH, "bob": _BOTH, "dan": _BOTH, "eve": ["marketing"], "=fox": ["marketing"]}
EMAILS = {
    name: hashlib.sha256(f"{name}@example.org".encode()).hexdigest() for name in BUYERS if name != "eve"
}


class Toy:
    """A source of six shoppers."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        for name, days in BUYERS.items():
            for place, ago in enumerate(days):
                at = NOW - dt.timedelta(days=ago, hours=1)
                self.add(name, at, "visit", "web")
                self.add(name, at + dt.timedelta(minutes=5), "purchase", "web", product_id=f"p{place % 2}", quantity=2.0,
                         unit_price=10.0 + place)  # fmt: skip
            if name in CONSENTS:
                self.add(
                    name, NOW - dt.timedelta(days=60), "open", "email", consent=json.dumps(CONSENTS[name])
                )
        self.add("bob", NOW - dt.timedelta(days=10), "unsubscribe", "email")
        self.add("dan", NOW - dt.timedelta(days=3), "complaint", "support")
        self.add("dan", NOW - dt.timedelta(hours=1), "visit", "app")

    def add(self, name: str, at: dt.datetime, action: str, channel: str, **more: Any) -> None:
        ids = [{"kind": "customer", "value": name}]
        if name in EMAILS:
            ids.append({"kind": "email_sha256", "value": EMAILS[name]})
        self.rows.append(
            {"event_id": f"e{len(self.rows):03d}", "source": "toy", "occurred_at": at, "received_at": at,
             "identifiers": json.dumps(ids), "session_id": f"{name}-{at:%m%d}", "channel": channel, "action": action} | more
        )  # fmt: skip

    def events(self, window: Window) -> pa.RecordBatchReader:
        table = pa.Table.from_pylist(self.rows, schema=tables.CANONICAL)
        return pa.RecordBatchReader.from_batches(tables.CANONICAL, table.to_batches())

    def products(self) -> pa.Table:
        rows = [
            {"product_id": f"p{n}", "name": f"Thing {n}", "department": name, "category": name, "kind": "good",
             "sellable": True}
            for n, name in enumerate(("shoes", "bags"))
        ]  # fmt: skip
        return pa.Table.from_pylist(rows, schema=tables.PRODUCTS)

    def customers(self, households: int | None) -> pa.Table:
        return pa.Table.from_pylist([{"customer_id": "ann", "age": "35-44"}], schema=tables.CUSTOMERS)

    def offers(self) -> pa.Table:
        return tables.OFFERS.empty_table()

    def exposures(self, window: Window) -> WeeklyRows:
        return WeeklyRows(0, -1, tables.EXPOSURES.empty_table().to_reader())


def take_in(settings: Settings, toy: Toy) -> None:
    """Bring the lake to what the source says."""
    ingest.ingest_events(settings.lake, "toy", toy, Window(FIRST, LAST))
    ingest.ingest_products(settings.lake, toy)
    ingest.ingest_customers(settings.lake, toy)
    store_identities(settings.lake)
    store_moments(settings.lake)


def open_shop(folder: pathlib.Path, outbound: str) -> Settings:
    """A home below `folder` whose profile has these audiences and destinations."""
    profile = folder / "toy.yaml"
    profile.write_text(
        f"name: toy\ntitle: Toy\nsource: toy\nclock: stream\nfirst_day: {FIRST}\nlast_day: {LAST}\n{outbound}"
    )
    return read_settings({"CONTINUUM_HOME": str(folder / "home"), "RETAILER": str(profile)})


class Receiver:
    """A shop's CRM that takes webhooks, checks them as Standard Webhooks says, and can be told to fail.

    Attributes:
        url: Its address.
        state: By audience, what it believes: person or action -> row.
        seen: Ids of all messages that it took, in order; each is applied once.
        requests: (id, status) of every request.
        bodies: Of every request.
        answers: Statuses to give to the next requests; 200 when none is left. 0 hangs up, -1 applies and never answers.
        headers: Sent with every answer.
        problems: Signatures that did not hold.
    """

    def __init__(self) -> None:
        self.state: dict[str, dict[str, Any]] = {}
        self.seen: list[str] = []
        self.requests: list[tuple[str, int]] = []
        self.bodies: list[dict[str, Any]] = []
        self.answers: list[int] = []
        self.headers: dict[str, str] = {}
        self.problems: list[str] = []
        self.hanging = threading.Event()
        self.released = threading.Event()
        self.tls: Callable[[Any], Any] | None = None
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.take(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hooks"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def wrap(self, context: Any) -> None:
        """Speak TLS from now on."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def take(self, request: http.server.BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["content-length"]))
        headers = {name.lower(): value for name, value in request.headers.items()}
        status = self.answers.pop(0) if self.answers else 200
        self.requests.append((headers.get("webhook-id", ""), status))
        self.bodies.append(json.loads(body))
        try:
            message_id = verify(KEY, headers, body, time.time())
        except SignatureError as error:
            self.problems.append(str(error))
            status = 401
        else:
            if status in (200, -1) and message_id not in self.seen:
                self.seen.append(message_id)
                self._apply(json.loads(body))
        if status == 0:
            request.connection.close()
            return
        if status == -1:
            self.hanging.set()
            self.released.wait(30)
            return
        request.send_response(status)
        for name, value in self.headers.items():
            request.send_header(name, value)
        request.send_header("content-length", "0")
        request.end_headers()

    def _apply(self, message: dict[str, Any]) -> None:
        data = message["data"]
        if message["type"] == "person.erased":
            gone = {row["person_id"] for row in data["removed"]}
            for audience in self.state.values():
                for key in [k for k, row in audience.items() if row["person_id"] in gone]:
                    del audience[key]
            return
        audience = self.state.setdefault(data["audience"], {})
        for row in data["removed"]:
            audience.pop(row.get("action_id", row["person_id"]), None)
        for row in (*data["added"], *data["changed"]):
            audience[row.get("action_id", row["person_id"])] = row

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
