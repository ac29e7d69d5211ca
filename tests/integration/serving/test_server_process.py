"""The server as a process: swaps under load, `kill -9` under fire, bad starts, a disk that fills."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from typing import Any

import httpx
import numpy as np

from serving.inbox import pending, read_after
from serving.profiles.history import to_days
from serving.releases import open_release
from tests.benchmarks.loadgen import Client, open_loop
from tests.integration.serving.conftest import (
    ROOT,
    Shop,
    post_raw,
    problem_fields,
    process,
    serving,
    wait_for,
)
from tests.integration.serving.synthetic import NOW, event, history_of


def start(shop: Shop, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "serving", *arguments], cwd=ROOT, env={**shop.environment(), **environment},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_help_says_how_to_use_it(shop: Shop) -> None:
    done = start(shop, "--help")
    assert done.returncode == 0
    for word in ("--registry", "--release", "--port", "exit codes"):
        assert word in done.stdout


def test_a_port_in_use_is_said_plainly(shop: Shop) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        done = start(shop, "--port", str(port))
    assert done.returncode == 3
    assert done.stderr.startswith(f"error: 127.0.0.1:{port} cannot be used: Address already in use")
    assert "Traceback" not in done.stderr


def test_bad_settings_are_said_plainly(shop: Shop) -> None:
    for arguments, environment, code, words in (
        (["--port", "99999"], {}, 2, "expected a number from 0 to 65535"),
        (["--poll", "never"], {}, 2, "expected 0.05 to 3600"),
        ([], {"RETAILER": "nobody"}, 2, "no profile"),
        ([], {"CONTINUUM_PORT": "http"}, 2, "CONTINUUM_PORT"),
        (["--port", "0", "--verify-key", "/nowhere.pem"], {}, 4, "no release key"),
        (["--port", "0", "--registry", "ftp://x"], {}, 4, "scheme"),
    ):
        done = start(shop, *arguments, **environment)
        assert (done.returncode, words in done.stderr) == (code, True), done.stderr
        assert "Traceback" not in done.stderr
    (shop.home / "synthetic.yaml").write_text("name: x\ncolour: red\n")
    done = start(shop, "--port", "0")
    assert (done.returncode, "colour" in done.stderr) == (2, True)


def test_it_stops_gracefully_and_loses_nothing(shop: Shop) -> None:
    with process(shop) as (child, address):
        assert httpx.post(f"{address}/v1/events", json=[event("g1")]).status_code == 202
        answer = httpx.post(f"{address}/v1/recommendations", json={"customer_id": "1001"}).json()
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=30) in (0, -signal.SIGTERM)
    assert pending(shop.inbox, 0) == 1
    with process(shop) as (_, address):
        assert httpx.get(f"{address}/v1/decisions/{answer['decision_id']}").json() == answer


def test_swaps_under_load_fail_nobody_and_every_answer_names_its_release(shop: Shop) -> None:
    opened = {name: open_release(shop.registry / name, shop.keys.verify) for name in ("r1", "r2")}
    expected = {
        name: {
            customer: [
                release.engine.items.product_ids[item]
                for item in release.engine.rank(history_of(customer), to_days(NOW), 0, 10).items.tolist()
            ]
            for customer in range(8)
        }
        for name, release in opened.items()
    }
    with process(shop, "--poll", "0.05") as (_, address):
        done = threading.Event()

        def body(number: int) -> bytes:
            asked = {
                "customer_id": f"{1001 + number % 8}",
                "context": {"at": NOW.isoformat(), "store_id": "330"},
            }
            return json.dumps(asked).encode()

        def swap() -> None:
            for number in range(12):
                shop.champion("r2" if number % 2 == 0 else "r1")
                wait_for(lambda n=number: swaps(address) == n + 2)  # type: ignore[misc]
            done.set()

        swapper = threading.Thread(target=swap)
        swapper.start()
        replies = asyncio.run(open_loop(address, "/v1/recommendations", body, 60, 40, stop=done.is_set))
        swapper.join()
        assert done.is_set()
        assert {reply.status for reply in replies} == {200}
        answers = [json.loads(reply.body) for reply in replies]
        assert {answer["release"] for answer in answers} == {"r1", "r2"}
        for answer in answers:
            customer = int(answer["customer_id"]) - 1001
            assert [i["product_id"] for i in answer["items"]] == expected[answer["release"]][customer]


def swaps(address: str) -> int:
    return int(httpx.get(f"{address}/v1/release", timeout=30).json()["swaps"])


def test_batched_answers_are_single_answers(shop: Shop) -> None:
    """Many at once, of different lengths, stores, sizes and filters: each gets what it gets alone."""
    with serving(shop) as (_, server):
        assert server.holder.current is not None
        engine = server.holder.current.engine
        rng = np.random.default_rng(3)
        from serving.engine.engine import Query
        from serving.engine.items import Filters

        queries = [
            Query(
                history=history_of(int(c), lines=int(rng.integers(0, 300))),
                at_days=to_days(NOW) - float(rng.integers(0, 50)),
                store=int(rng.integers(-1, 3)),
                n=int(rng.integers(1, 60)),
                filters=Filters(department=("MEAT",)) if rng.random() < 0.3 else Filters(),
                deny=[5, 6] if rng.random() < 0.3 else (),
            )
            for c in rng.integers(0, 500, 40)
        ]
        alone = [engine.rank_many([query])[0] for query in queries]
        for size in (2, 7, 40):
            for first in range(0, len(queries), size):
                together = engine.rank_many(queries[first : first + size])
                for one, other in zip(alone[first : first + size], together, strict=True):
                    assert np.allclose(one.scores, other.scores, atol=1e-4)
                    assert one.items.tolist() == other.items.tolist() or np.any(
                        np.abs(np.diff(one.scores)) < 1e-4
                    )
                    assert one.candidates == other.candidates


def test_answers_never_cross_between_people(shop: Shop) -> None:
    with process(shop) as (_, address):

        def body(number: int) -> bytes:
            return json.dumps({"customer_id": f"{1001 + number % 50}", "n": 1 + number % 50}).encode()

        replies = asyncio.run(open_loop(address, "/v1/recommendations", body, 200, 3, connections=32))
        assert len(replies) == 600
        for reply in replies:
            answer = json.loads(reply.body)
            assert reply.status == 200
            assert len(answer["items"]) == 1 + (int(answer["customer_id"]) - 1001) % 50


def test_every_acknowledged_event_survives_kill_9_exactly_once(shop: Shop) -> None:
    """Three lives of the server, each ended by SIGKILL while four senders post; unsure ones are sent again."""
    chance = random.Random(5)
    acknowledged: set[str] = set()
    waiting = [[f"{sender}-{number}" for number in range(600)] for sender in range(4)]
    for life in range(4):
        with process(shop) as (child, address):
            stop = threading.Event()

            def send(batches: list[str], address: str = address, stop: threading.Event = stop) -> None:
                try:
                    client = Client(address)
                    while batches and not stop.is_set():
                        part = batches[:20]
                        body = json.dumps([event(key, f"c{hash(key) % 7}") for key in part]).encode()
                        if client.post("/v1/events", body).status == 202:
                            acknowledged.update(part)
                            del batches[:20]
                except OSError:
                    return

            senders = [threading.Thread(target=send, args=(batches,)) for batches in waiting]
            for sender in senders:
                sender.start()
            if life < 3:
                target = len(acknowledged) + chance.randint(100, 500)
                wait_for(lambda target=target: len(acknowledged) >= target)  # type: ignore[misc]
                os.kill(child.pid, signal.SIGKILL)
                child.wait()
            for sender in senders:
                sender.join()
    rows = [json.loads(raw)["event_id"] for _, _, raw in read_after(shop.inbox, 0, 100_000)]
    assert len(rows) == len(set(rows))
    assert acknowledged == set(rows)
    assert len(acknowledged) == 2400


def test_a_full_disk_refuses_events_and_keeps_answering(shop: Shop) -> None:
    with process(shop, "--inbox-max-mb", "1") as (_, address):
        client = httpx.Client(base_url=address, timeout=30)
        accepted = 0
        for number in range(200):
            batch = [event(f"f{number}-{i}", query="x" * 500) for i in range(100)]
            response = client.post("/v1/events", json=batch)
            if response.status_code != 202:
                break
            accepted += response.json()["accepted"]
        assert response.status_code == 503
        assert response.json()["type"].endswith("store-unavailable")
        assert "full" in response.json()["detail"]
        assert response.headers["retry-after"]
        assert pending(shop.inbox, 0) == accepted > 0
        assert client.post("/v1/recommendations", json={"customer_id": "1001"}).json()["path"] == "personal"
        assert "continuum_intake_failures_total 1.0" in client.get("/metrics").text


def test_events_over_http_good_bad_and_repeated(shop: Shop) -> None:
    with serving(shop) as (client, _):
        good, bad = event("h1"), event("h2", channel="pigeon")
        answer = client.post("/v1/events", json=[good, bad, event("h3"), good])
        assert answer.status_code == 207
        body: dict[str, Any] = answer.json()
        assert (body["accepted"], body["duplicates"], body["refused"]) == (2, 1, 1)
        assert body["duplicate_indices"] == [3]
        assert (body["errors"][0]["index"], body["errors"][0]["field"]) == (1, "channel")
        assert client.post("/v1/events", json=good).json()["duplicates"] == 1
        single = client.post("/v1/events", json=bad)
        assert (single.status_code, problem_fields(single)) == (422, ["channel"])
        assert client.post("/v1/events", json=[]).json()["accepted"] == 0
        for content, status in (
            (b"", 400), (b"[", 400), (b"null", 400), (b'{"a":', 400), (b"[" * 100_000, 400),
            (b"[" + b",".join([b"{}"] * 1001) + b"]", 413), (b" " * (2 << 20) + b"[]", 413),
        ):  # fmt: skip
            assert post_raw(client, "/v1/events", content).status_code == status
        from serving.inbox import read_refused

        assert [row[3] for row in read_refused(shop.inbox, 0, 10)] == ["channel", "channel"]
