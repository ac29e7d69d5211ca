"""The whole loop on real days: December events arrive over HTTP, and a newer release ends up serving.

Nothing is called by hand after the services are up: sensors drain the inbox, declarative automation
rebuilds the features, evidence makes a retraining due, the gate judges it, the alias moves, the server
swaps. All the while shoppers keep asking.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from contracts.settings import Settings, read_retailer
from feature_repo.snapshots import attach, connect
from orchestration import services
from tests.e2e.replay import batches, events_of

FIRST, LAST = dt.date(2017, 12, 1), dt.date(2017, 12, 8)
PATIENCE_SECONDS = 900


@dataclass
class Shoppers:
    """Keep asking for recommendations until stopped, and remember every answer's release and failure."""

    url: str
    customers: list[str]
    releases: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        with httpx.Client(base_url=self.url, timeout=30) as client:
            turn = 0
            while not self._stop.is_set():
                customer = self.customers[turn % len(self.customers)]
                turn += 1
                try:
                    reply = client.post(
                        "/v1/recommendations", json={"customer_id": customer, "n": 10, "touchpoint": "e2e"}
                    )
                    answer = reply.json()
                    if reply.status_code != 200 or not answer["items"]:
                        self.failures.append(f"{reply.status_code}: {reply.text[:200]}")
                    else:
                        self.releases.append(answer["release"])
                except (httpx.HTTPError, ValueError, KeyError) as error:
                    self.failures.append(repr(error))
                self._stop.wait(0.1)

    def stop(self) -> None:
        self._stop.set()


@pytest.fixture
def installation(small_shop: Settings) -> Iterator[str]:
    """MLflow, the live server and Dagster of the small shop; yields the server's address."""
    wanted = [service for service in services.services(small_shop) if service.name != "feast"]
    with services.running(small_shop, wanted) as processes:
        for service in wanted:
            services.wait_ready(small_shop, service, processes[service.name])
        yield f"http://{small_shop.host}:{small_shop.serving_port}"


def test_december_makes_a_newer_release_serve(small_shop: Settings, installation: str) -> None:
    retailer = read_retailer(small_shop)
    events = events_of(retailer, FIRST, LAST)
    assert len(events) > 1000
    customers = sorted({e["identifiers"][0]["value"] for e in events if e.get("identifiers")})
    before = release(installation)
    shoppers = Shoppers(installation, customers[:20])
    thread = threading.Thread(target=shoppers.ask)
    thread.start()
    try:
        for batch in batches(events, 200):
            reply = httpx.post(f"{installation}/v1/events", json=batch, timeout=60)
            assert reply.status_code in (200, 202), reply.text
            assert reply.json()["refused"] == 0, reply.text
        again = httpx.post(f"{installation}/v1/events", json=events[:50], timeout=60).json()
        assert (again["accepted"], again["duplicates"]) == (0, 50)
        after = wait_for_newer(small_shop, installation, before)
        time.sleep(2)
    finally:
        shoppers.stop()
        thread.join()
    assert shoppers.failures == []
    assert set(shoppers.releases) == {before["release"], after["release"]}
    assert after["as_of"] > before["as_of"]
    assert stored_once(small_shop, events) == len(events)


def release(url: str) -> dict[str, Any]:
    value: dict[str, Any] = httpx.get(f"{url}/v1/release", timeout=30).json()
    return value


def wait_for_newer(settings: Settings, url: str, before: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        now = release(url)
        if now["release"] != before["release"]:
            return now
        time.sleep(2)
    log = (settings.home / "logs" / "dagster.log").read_text()[-6000:]
    verdict = (settings.home / "evaluation" / "VERDICT.json").read_text()
    pytest.fail(f"no newer release after {PATIENCE_SECONDS} s\n{verdict}\nthe end of Dagster's log:\n{log}")


def stored_once(settings: Settings, events: list[dict[str, Any]]) -> int:
    """How many of the events the lake holds exactly once."""
    con = connect()
    attach(con, "events", settings.lake / "events")
    wanted = {(event["source"], event["event_id"]) for event in events}
    rows = con.sql(
        f"select source, event_id, count(*) from events where day between '{FIRST}' and '{LAST}' group by 1, 2"
    ).fetchall()
    return sum(1 for source, event_id, times in rows if (source, event_id) in wanted and times == 1)
