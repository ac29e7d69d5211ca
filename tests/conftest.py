"""Fixtures that several suites share.

`small_shop` is an installation in which the main job has really run, once per test session, on a
stable sample of the real shop. Tests must not change it, except the end-to-end test, which runs last.
"""

from __future__ import annotations

import logging
import os
import pathlib
import socket
import subprocess
import sys

import prometheus_client  # noqa: F401  Before Feast: see PROMETHEUS_MULTIPROC_DIR in serving/__main__.py.
import pytest

from contracts.settings import Settings, read_settings

ROOT = pathlib.Path(__file__).resolve().parents[1]
SMALL_SHOP = ROOT / "tests" / "small_shop.yaml"
PORTS = ("CONTINUUM_PORT", "CONTINUUM_DAGSTER_PORT", "CONTINUUM_MLFLOW_PORT", "CONTINUUM_FEAST_PORT")

os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


# What torch notes while it exports is for tracing tools; pytest's log handler would format all of it, for minutes.
logging.getLogger("torch.__trace").propagate = False


def free_port() -> int:
    """A TCP port that nobody holds right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def shop_environment(home: pathlib.Path) -> dict[str, str]:
    """Variables of an installation of the small shop in `home`, on free ports."""
    return {
        **{name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"},
        "CONTINUUM_HOME": str(home),
        "RETAILER": str(SMALL_SHOP),
        **{port: str(free_port()) for port in PORTS},
    }


@pytest.fixture(scope="session")
def small_shop(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of an installation whose main job has run to its end."""
    environment = shop_environment(tmp_path_factory.mktemp("small-shop"))
    done = subprocess.run(
        [sys.executable, "-m", "orchestration.cli", "run", "full_pipeline"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.fail(f"the main job failed on the small shop:\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}")
    return read_settings(environment)
