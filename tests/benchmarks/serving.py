"""The live server: overhead over the models, freshness, swaps under load, killed while events arrive.

Everything runs against a real process on an installation of its own in a temporary folder, so that the
open shop's inbox stays untouched. The release and the histories are those of CONTINUUM_HOME; where
there are none, the synthetic ones of the tests stand in, and the setup says so.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx
import msgspec
import numpy as np

from contracts.release import MANIFEST_FILE, SIGNATURE_FILE, manifest_bytes, read_manifest
from contracts.settings import ROOT, read_retailer, read_settings
from tests.benchmarks.loadgen import Client, Reply, open_loop

Progress = Callable[[str], None]

SYNTHETIC_YAML = """
name: synthetic
title: Synthetic shop
source: synthetic
clock: stream
first_day: 2017-01-01
last_day: 2017-12-31
simulated: true
"""


class Bench:
    """An installation in a temporary folder, with two releases that differ in name only."""

    def __init__(self, home: pathlib.Path) -> None:
        self.home = home
        self.registry = home / "registry"
        self.inbox = home / "inbox" / "inbox.sqlite"
        self.setup: dict[str, Any] = {}
        self.folders: tuple[str, str] = ("a", "b")
        self.names: list[str] = []
        self.customers: list[str] = []
        self.environment: dict[str, str] = {}

    def champion(self, name: str) -> None:
        staged = self.registry / ".champion"
        staged.write_text(name)
        staged.replace(self.registry / "champion")

    @contextlib.contextmanager
    def server(self) -> Iterator[tuple[subprocess.Popen[str], str]]:
        """A ready server; yields the process and its address."""
        command = [
            sys.executable, "-m", "serving", "--port", "0", "--registry", str(self.registry), "--poll", "0.1",
            "--verify-key", str(self.home / "keys" / "verify.pem"), "--log-level", "warning",
        ]  # fmt: skip
        child = subprocess.Popen(command, cwd=ROOT, env=self.environment, stderr=subprocess.PIPE, text=True)
        assert child.stderr is not None
        try:
            address = ""
            for line in child.stderr:
                if found := re.search(r"serving on (http://\S+)", line):
                    address = found.group(1)
                    break
            threading.Thread(target=child.stderr.read, daemon=True).start()
            _wait(lambda: bool(address) and _ready(address))
            yield child, address
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
                child.wait(timeout=60)


def run(quick: bool, progress: Progress) -> dict[str, Any]:
    """Measure; tests/benchmarks/bars.py says what has to hold."""
    with tempfile.TemporaryDirectory(prefix="continuum-bench-") as folder:
        bench = _install(pathlib.Path(folder))
        progress(f"release: {bench.setup['release']} ({bench.setup['data']})")
        measured: dict[str, Any] = {}
        with bench.server() as (_, address):
            measured |= _overhead(bench, address, 500 if quick else 3000, progress)
            measured |= _freshness(bench, address, 100 if quick else 500, progress)
            measured |= _swaps(bench, address, 50, 20 if quick else 40, progress)
        measured |= _killed(bench, 20_000, 3 if quick else 10, progress)
        return {"measured": measured, "setup": bench.setup}


def _overhead(bench: Bench, address: str, requests: int, progress: Progress) -> dict[str, float]:
    """Handler and client time over the sum of the ONNX runs, one request at a time."""
    progress(f"overhead: {requests} requests, one at a time")
    client = Client(address)
    chance = random.Random(1)
    sample = chance.sample(bench.customers, min(len(bench.customers), max(50, requests // 6)))
    for customer in sample[:20]:
        client.post("/v1/recommendations", _ask(customer))
    before = _graph_seconds(address)
    seen: set[str] = set(sample[:20])
    replies: list[Reply] = []
    first: list[float] = []
    for _ in range(requests):
        customer = chance.choice(sample)
        reply = client.post("/v1/recommendations", _ask(customer))
        replies.append(reply)
        if customer not in seen:
            first.append(reply.server_timing["handler"])
            seen.add(customer)
    client.close()
    graphs = {name: total - before.get(name, 0.0) for name, total in _graph_seconds(address).items()}
    bench.setup["run_mean_ms"] = {name: round(1e3 * total / requests, 4) for name, total in graphs.items()}
    model = np.array([reply.server_timing["model"] for reply in replies])
    handler = np.array([reply.server_timing["handler"] for reply in replies])
    sent = np.array([reply.seconds * 1e3 for reply in replies])
    paths = [json.loads(reply.body) for reply in replies]
    bench.setup["candidates_p50"] = float(np.median([answer["candidates"] for answer in paths]))
    bench.setup["customers_asked"] = len(sample)
    return {
        "handler_over_run_p50": float(np.median(handler) / np.median(model)),
        "client_over_run_p50": float(np.median(sent) / np.median(model)),
        "run_p50_ms": float(np.median(model)),
        "handler_p50_ms": float(np.median(handler)),
        "handler_p99_ms": float(np.quantile(handler, 0.99)),
        "handler_first_sight_p50_ms": float(np.median(first)) if first else 0.0,
        "client_p50_ms": float(np.median(sent)),
    }


def _freshness(bench: Bench, address: str, events: int, progress: Progress) -> dict[str, float]:
    """From an event's acknowledgement to an answer that counted it."""
    progress(f"freshness: {events} events, each looked for in the next answer")
    client = Client(address)
    chance = random.Random(2)
    waits, posts, unseen = [], [], 0
    for number in range(events):
        customer = chance.choice(bench.customers)
        before = json.loads(client.post("/v1/recommendations", _ask(customer)).body)
        moment = before["as_of"]
        posted = client.post("/v1/events", json.dumps([_event(f"fresh-{number}", customer, moment)]).encode())
        acknowledged = time.perf_counter()
        after = json.loads(client.post("/v1/recommendations", _ask(customer)).body)
        waits.append((time.perf_counter() - acknowledged) * 1e3)
        posts.append(posted.seconds * 1e3)
        unseen += posted.status != 202 or after["history"] != before["history"] + 1
    client.close()
    bench.setup["events_not_seen_in_the_next_answer"] = unseen
    return {
        "event_to_recommendation_p99_ms": float(np.quantile(waits, 0.99)) if unseen == 0 else float("inf"),
        "event_to_recommendation_p50_ms": float(np.median(waits)),
        "event_acknowledged_p99_ms": float(np.quantile(posts, 0.99)),
    }


def _swaps(bench: Bench, address: str, swaps: int, rate: float, progress: Progress) -> dict[str, float]:
    """Swap back and forth under a constant load."""
    progress(f"swaps: {swaps} under {rate:g} requests a second")
    done = threading.Event()
    begun = _count(address)

    def swap() -> None:
        for number in range(swaps):
            bench.champion(bench.folders[(number + 1) % 2])
            _wait(lambda n=number: _count(address) >= begun + n + 1)  # type: ignore[misc]
        done.set()

    swapper = threading.Thread(target=swap)
    swapper.start()
    chance = random.Random(3)
    asked = [_ask(customer) for customer in chance.choices(bench.customers, k=500)]
    replies = asyncio.run(
        open_loop(address, "/v1/recommendations", lambda n: asked[n % 500], rate, 600, stop=done.is_set)
    )
    swapper.join()
    answers = [json.loads(reply.body) if reply.status == 200 else {} for reply in replies]
    bad = sum(answer.get("release") not in bench.names or not answer.get("items") for answer in answers)
    bench.setup["answers_during_swaps"] = len(replies)
    bench.setup["releases_seen_during_swaps"] = len({answer.get("release") for answer in answers})
    return {
        "swaps": float(_count(address) - begun),
        "swap_failures": float(bad),
        "answer_during_swaps_p99_ms": float(np.quantile([reply.seconds * 1e3 for reply in replies], 0.99)),
    }


def _killed(bench: Bench, events: int, kills: int, progress: Progress) -> dict[str, float]:
    """Post events while the server is killed again and again, drain the inbox into a lake, and count."""
    progress(f"kill -9: {events} events, {kills} kills")
    chance = random.Random(4)
    moment = "2017-12-01T12:00:00Z"
    senders = 4
    waiting = [[f"kill-{s}-{n}" for n in range(events // senders)] for s in range(senders)]
    acknowledged: set[str] = set()
    lives = 0
    while any(waiting):
        with bench.server() as (child, address):
            lives += 1
            begun = len(acknowledged)
            threads = [
                threading.Thread(target=_send, args=(address, keys, moment, acknowledged)) for keys in waiting
            ]
            for thread in threads:
                thread.start()
            if lives <= kills:
                target = begun + chance.randint(200, max(400, 2 * events // (kills + 1) - 400))
                while len(acknowledged) < min(target, events) and any(
                    thread.is_alive() for thread in threads
                ):
                    time.sleep(chance.random() * 0.005)
                os.kill(child.pid, signal.SIGKILL)
                child.wait()
            for thread in threads:
                thread.join()
    stored, where = _stored(bench)
    bench.setup["kills"] = min(lives, kills)
    bench.setup["counted_in"] = where
    return {
        "acked_events": float(len(acknowledged)),
        "lost_events": float(sum(key not in stored for key in acknowledged)),
        "duplicated_events": float(sum(times > 1 for times in stored.values())),
    }


def _send(address: str, keys: list[str], moment: str, acknowledged: set[str]) -> None:
    """Post keys in batches until all are acknowledged or the server dies; what is unsure is sent again."""
    try:
        client = Client(address)
        while keys:
            part = keys[:50]
            body = json.dumps(
                [_event(key, f"bench-{sum(key.encode()) % 50}", moment) for key in part]
            ).encode()
            if client.post("/v1/events", body).status == 202:
                acknowledged.update(part)
                del keys[:50]
    except OSError:
        return


def _stored(bench: Bench) -> tuple[dict[str, int], str]:
    """How often each event of the kill bench is in the lake after draining the inbox twice."""
    from feature_repo.snapshots import attach, connect
    from orchestration.lake import intake, writing
    from orchestration.lake.tables import TABLES
    from serving.inbox import read_after

    lake = bench.home / "lake"
    writing.ensure(TABLES["events"], lake)
    for start in (None, 0):  # The second pass drains everything again: nothing may land twice.
        offset = intake.drained_offset(lake) if start is None else start
        while rows := read_after(bench.inbox, offset, 5_000):
            intake.drain(lake, rows)
            offset = rows[-1][0]
    con = connect()
    attach(con, "events", TABLES["events"].path(lake))
    sql = "select event_id, count(*) from events where event_id like 'kill-%' group by 1"
    return dict(con.execute(sql).fetchall()), "lake"


def _install(home: pathlib.Path) -> Bench:
    bench = Bench(home)
    source = _real_release() or _synthetic_release(home / "synthetic")
    release, profiles, retailer, bench.setup = source
    shutil.copytree(profiles, home / "profiles", symlinks=False)
    key = _key(home / "keys")
    for suffix in bench.folders:
        manifest = read_manifest((release / MANIFEST_FILE).read_bytes())
        manifest = msgspec.structs.replace(manifest, release=f"{manifest.release[:90]}-{suffix}")
        target = bench.registry / suffix
        shutil.copytree(release, target)
        raw = manifest_bytes(manifest)
        (target / MANIFEST_FILE).write_bytes(raw)
        (target / SIGNATURE_FILE).write_bytes(base64.b64encode(key.sign(raw)))
        bench.names.append(manifest.release)
    bench.champion("a")
    from serving.profiles.snapshot import current_name, read_snapshot

    snapshot = read_snapshot(home / "profiles", current_name(home / "profiles") or "")
    bench.customers = snapshot.customers.tolist()
    bench.setup |= {
        "release": bench.names[0][:-2],
        "customers": snapshot.meta.customers,
        "events": snapshot.meta.events,
    }
    bench.environment = {
        **os.environ, "CONTINUUM_HOME": str(home), "RETAILER": retailer, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    return bench


def _real_release() -> tuple[pathlib.Path, pathlib.Path, str, dict[str, Any]] | None:
    """The champion's folder, the histories, the profile and the setup; None where something is missing."""
    from serving.profiles.snapshot import current_name
    from serving.releases.pull import pull
    from serving.releases.registry import RegistryError, open_registry
    from serving.releases.verify import read_verify_key

    settings = read_settings()
    if not (settings.keys / "verify.pem").is_file() or current_name(settings.profiles) is None:
        return None
    retailer = read_retailer(settings)
    registry = open_registry(settings.tracking_uri, f"{retailer.name}-release")
    try:
        pointer = registry.resolve("champion")
        if pointer is None:
            return None
        key = read_verify_key(settings.keys / "verify.pem")
        folder = settings.releases / pull(registry, pointer, key, settings.releases).manifest.release
    except RegistryError:
        return None
    return (
        folder,
        settings.profiles,
        settings.retailer,
        {"data": f"{retailer.name}, its champion and histories"},
    )


def _synthetic_release(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path, str, dict[str, Any]]:
    from tests.integration.serving.synthetic import Keys, make_release, write_profiles

    make_release(folder / "release", Keys(folder / "keys"), "synthetic")
    write_profiles(folder / "profiles")
    (folder / "synthetic.yaml").write_text(SYNTHETIC_YAML)
    setup = {"data": "synthetic release of the tests (CONTINUUM_HOME has no champion)"}
    return folder / "release", folder / "profiles", str(folder / "synthetic.yaml"), setup


def _key(folder: pathlib.Path) -> Any:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    folder.mkdir(parents=True)
    key = Ed25519PrivateKey.generate()
    form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "verify.pem").write_bytes(key.public_key().public_bytes(*form))
    return key


def _ask(customer: str) -> bytes:
    return json.dumps({"customer_id": customer, "n": 10, "touchpoint": "bench"}).encode()


def _event(event_id: str, customer: str, moment: str) -> dict[str, Any]:
    return {
        "event_id": event_id, "source": "bench", "occurred_at": moment, "channel": "web", "action": "view",
        "identifiers": [{"kind": "customer", "value": customer}], "session_id": f"bench-{customer}",
    }  # fmt: skip


def _graph_seconds(address: str) -> dict[str, float]:
    """Time in ONNX Runtime so far, by graph."""
    text = httpx.get(f"{address}/metrics", timeout=60).text
    found = re.findall(r'continuum_graph_seconds_total\{graph="(\w+)"\} (\S+)', text)
    return {name: float(total) for name, total in found}


def _count(address: str) -> int:
    return int(httpx.get(f"{address}/v1/release", timeout=60).json()["swaps"])


def _ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health/ready", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def _wait(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the server did not get there in time")
        time.sleep(0.05)


def main(arguments: Sequence[str]) -> int:
    outcome = run("--quick" in arguments, lambda line: print(f"  {line}", file=sys.stderr))
    print(json.dumps(outcome, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
