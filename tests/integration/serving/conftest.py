"""A server over the synthetic release, in process and as a real process."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from serving.app import build_app
from serving.releases.registry import FolderRegistry
from serving.server import Options, Server
from tests.integration.serving import seeing
from tests.integration.serving.synthetic import RETAILER, Keys, make_release, write_profiles

ROOT = pathlib.Path(__file__).resolve().parents[3]
YAML = """
name: synthetic
title: Synthetic shop
source: synthetic
clock: stream
first_day: 2017-01-01
last_day: 2017-12-31
simulated: true
"""


@dataclasses.dataclass
class Shop:
    """State on disk of one small installation: a folder registry, keys, published histories."""

    home: pathlib.Path
    keys: Keys

    @property
    def registry(self) -> pathlib.Path:
        return self.home / "registry"

    @property
    def inbox(self) -> pathlib.Path:
        return self.home / "inbox" / "inbox.sqlite"

    def champion(self, name: str) -> None:
        staged = self.registry / ".champion"
        staged.write_text(name)
        staged.replace(self.registry / "champion")

    def options(self, **changes: Any) -> Options:
        fields: dict[str, Any] = {
            "retailer": RETAILER, "title": "Synthetic shop", "simulated": True, "clock": "stream", "inbox": self.inbox,
            "decisions": self.home / "inbox" / "decisions.sqlite", "profiles": self.home / "profiles",
            "cache": self.home / "releases", "verify_key": self.keys.verify, "poll_seconds": 0.05, **changes,
        }  # fmt: skip
        return Options(**fields)

    def environment(self) -> dict[str, str]:
        return {
            **os.environ, "CONTINUUM_HOME": str(self.home), "RETAILER": str(self.home / "synthetic.yaml"),
            "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
        }  # fmt: skip


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, Keys]:
    """Two signed releases and their key, made once."""
    folder = tmp_path_factory.mktemp("releases")
    keys = Keys(folder / "keys")
    make_release(folder / "r1", keys, "r1", seed=1)
    make_release(folder / "r2", keys, "r2", seed=2)
    return folder, keys


@pytest.fixture
def shop(tmp_path: pathlib.Path, made: tuple[pathlib.Path, Keys]) -> Shop:
    """A fresh installation whose champion is r1."""
    folder, _ = made
    home = tmp_path / "home"
    (home / "registry").mkdir(parents=True)
    for name in ("r1", "r2"):
        shutil.copytree(folder / name, home / "registry" / name)
    shutil.copytree(folder / "keys", home / "keys")
    write_profiles(home / "profiles")
    (home / "synthetic.yaml").write_text(YAML)
    shop = Shop(home, made[1])
    shop.champion("r1")
    return shop


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Poll until something holds; fail after a generous while."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"did not come true within {seconds} s")
        time.sleep(0.02)


@contextlib.contextmanager
def serving(
    shop: Shop, loaded: bool = True, registry: Any = None, **changes: Any
) -> Iterator[tuple[TestClient, Server]]:
    """The application in this process, over the folder registry unless another is given."""
    server = Server(shop.options(**changes), registry or FolderRegistry(shop.registry))
    with TestClient(build_app(server), raise_server_exceptions=False) as client:
        if loaded:
            wait_for(lambda: server.holder.current is not None)
        yield client, server


@pytest.fixture
def client(shop: Shop) -> Iterator[TestClient]:
    with serving(shop) as (client, _):
        yield client


@contextlib.contextmanager
def process(shop: Shop, *arguments: str, ready: bool = True) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`python -m serving` on a free port; yields the process and its address."""
    command = [sys.executable, "-m", "serving", "--port", "0", "--registry", str(shop.registry), *arguments]
    with (shop.home / "server.log").open("a") as log:
        child = subprocess.Popen(
            command, cwd=ROOT, env=shop.environment(), stdout=log, stderr=subprocess.PIPE, text=True
        )
    assert child.stderr is not None
    address = ""
    for line in child.stderr:
        found = re.search(r"serving on (http://\S+)", line)
        if found:
            address = found.group(1)
            break
    assert address, f"the server ended with {child.wait()}"
    try:
        wait_for(lambda: _answers(address, "/health/ready" if ready else "/health/live"))
        yield child, address
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            child.wait(timeout=30)
        child.stderr.close()


def _answers(address: str, path: str) -> bool:
    try:
        return httpx.get(address + path, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def recommend(client: Any, **body: Any) -> Any:
    """POST /v1/recommendations and the decoded answer."""
    return client.post("/v1/recommendations", json=body)


def post_raw(client: Any, path: str, content: bytes, **headers: str) -> Any:
    return client.post(path, content=content, headers={"content-type": "application/json", **headers})


def problem_fields(response: Any) -> list[str]:
    assert response.headers["content-type"] == "application/problem+json"
    return [error["field"] for error in json.loads(response.content).get("errors", [])]


@pytest.fixture(scope="module")
def seer(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """An installation whose release sees; its state is shared by a module's tests."""
    home = tmp_path_factory.mktemp("home")
    keys = Keys(home / "keys")
    make_release(home / "registry" / "v1", keys, "v1", seed=1)
    seeing.add_visual(home / "registry" / "v1", keys)
    write_profiles(home / "profiles")
    shop = Shop(home, keys)
    shop.champion("v1")
    return shop
