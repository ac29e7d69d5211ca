"""The processes of one installation: how each is started, waited for and stopped.

Belongs here: command lines, environments, health addresses. Does not belong here: what they do.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from contracts.retailer import Retailer
from contracts.settings import ROOT, Settings, SettingsError

DAGSTER_YAML = pathlib.Path(__file__).with_name("dagster.yaml")


class ServiceError(RuntimeError):
    """A service that cannot start; the message names it, why, and where its log is."""


@dataclass(frozen=True)
class Service:
    """One process to run.

    Attributes:
        name: Short name; the log is ``logs/<name>.log`` under CONTINUUM_HOME.
        title: For people.
        command: Argument vector.
        url: Where people find it.
        health: Address that answers 200 once it is ready.
        port: The port that must be free.
        environment: Variables on top of the process's own.
    """

    name: str
    title: str
    command: Sequence[str]
    url: str
    health: str
    port: int
    environment: Mapping[str, str] = field(default_factory=dict)


SHOP_FILE = "SHOP"
"""Names the shop that a home belongs to."""


def environment(settings: Settings) -> dict[str, str]:
    """Variables every process of this installation runs with: state, shop, silence of telemetry."""
    variables = {
        **os.environ,
        "CONTINUUM_HOME": str(settings.home),
        "RETAILER": settings.retailer,
        "DAGSTER_HOME": str(settings.home / "dagster"),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
        "GIT_PYTHON_REFRESH": "quiet",
        "PYTHONUNBUFFERED": "1",
    }
    if settings.last_day:
        variables["CONTINUUM_LAST_DAY"] = settings.last_day.isoformat()
    return variables


def claim_home(settings: Settings, retailer: Retailer) -> None:
    """Make sure that an installation holds one shop only, so that two shops' events never mix.

    Raises:
        SettingsError: The home belongs to another shop.
    """
    marker = settings.home / SHOP_FILE
    if not marker.exists():
        settings.home.mkdir(parents=True, exist_ok=True)
        marker.write_text(retailer.name + "\n")
    owner = marker.read_text().strip()
    if owner != retailer.name:
        raise SettingsError(
            f"CONTINUUM_HOME {settings.home} holds the shop '{owner}', and RETAILER is '{retailer.name}'; "
            "expected a home of its own for each shop"
        )


def prepare_home(settings: Settings) -> None:
    """Create the state folders and Dagster's instance file."""
    for folder in ("dagster", "mlflow", "logs"):
        (settings.home / folder).mkdir(parents=True, exist_ok=True)
    (settings.home / "dagster" / "dagster.yaml").write_text(DAGSTER_YAML.read_text())


def mlflow_url(settings: Settings) -> str:
    """Address of the MLflow server."""
    return f"http://{settings.host}:{settings.mlflow_port}"


def services(settings: Settings) -> list[Service]:
    """All services of one installation, in the order in which they start."""
    python = sys.executable
    host = settings.host
    mlflow = mlflow_url(settings)
    dagster = f"http://{host}:{settings.dagster_port}"
    feast = f"http://{host}:{settings.feast_port}"
    server = f"http://{host}:{settings.serving_port}"
    links = {
        "CONTINUUM_LINK_DAGSTER": dagster,
        "CONTINUUM_LINK_MLFLOW": mlflow,
        "CONTINUUM_LINK_FEAST": feast,
    }
    return [
        Service(
            "mlflow", "MLflow: experiments, models, approvals",
            [python, "-m", "mlflow", "server", "--backend-store-uri", settings.tracking_uri,
             "--artifacts-destination", str(settings.home / "mlflow" / "artifacts"),
             "--host", host, "--port", str(settings.mlflow_port), "--workers", "1"],
            mlflow, f"{mlflow}/health", settings.mlflow_port,
        ),
        Service(
            "serving", "Live server: recommendations, events, status page",
            [python, "-m", "serving", "--host", host, "--port", str(settings.serving_port), "--registry", mlflow],
            server, f"{server}/health/ready", settings.serving_port, links,
        ),
        Service(
            "dagster", "Dagster: assets, runs, schedules, sensors",
            [python, "-m", "dagster", "dev", "-w", str(ROOT / "workspace.yaml"), "-h", host,
             "-p", str(settings.dagster_port)],
            dagster, f"{dagster}/server_info", settings.dagster_port,
        ),
        Service(
            "feast", "Feast: feature views and services",
            [python, "-m", "feast.cli.cli", "-c", str(ROOT / "feature_repo"), "ui", "--host", host,
             "--port", str(settings.feast_port)],
            feast, feast, settings.feast_port,
        ),
    ]  # fmt: skip


@contextlib.contextmanager
def running(settings: Settings, wanted: Sequence[Service]) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Start services and stop them again, last started first, however the block is left.

    Yields:
        The processes by service name.

    Raises:
        ServiceError: A port is taken.
    """
    prepare_home(settings)
    require_free(settings, wanted)
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for service in wanted:
            with (settings.home / "logs" / f"{service.name}.log").open("ab") as log:
                processes[service.name] = subprocess.Popen(
                    service.command,
                    cwd=ROOT,
                    env={**environment(settings), **service.environment},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        yield processes
    finally:
        for process in reversed(processes.values()):
            _stop(process)


def wait_ready(
    settings: Settings, service: Service, process: subprocess.Popen[bytes], seconds: float = 120
) -> None:
    """Wait until a service answers.

    Raises:
        ServiceError: It ended, or did not answer in time.
    """
    log = settings.home / "logs" / f"{service.name}.log"
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServiceError(f"{service.name} ended with exit code {process.returncode}; its log is {log}")
        if _answers(service.health):
            return
        time.sleep(0.3)
    raise ServiceError(
        f"{service.name} did not answer at {service.health} within {seconds:.0f} s; its log is {log}"
    )


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def require_free(settings: Settings, wanted: Sequence[Service]) -> None:
    """Check that every service's port can be bound.

    Raises:
        ServiceError: Names the service and the port that is taken.
    """
    for service in wanted:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host, service.port))
            except OSError as error:
                raise ServiceError(
                    f"{service.name} needs port {service.port} on {settings.host}, which is in use; free it or "
                    f"choose another with the port variables that `continuum doctor` lists"
                ) from error


def _stop(process: subprocess.Popen[bytes], patience: float = 15) -> None:
    if process.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
