"""`continuum doctor`: check this machine and this installation, and say what to do about each finding."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from typing import Any

import click

from contracts.settings import SettingsError, read_retailer, read_settings
from orchestration.cli.output import emit, fail, json_option, table

PACKAGES = ("dagster", "feast", "mlflow", "torch", "lightgbm", "onnxruntime", "duckdb", "ibis", "deltalake")
PORTS = {
    "CONTINUUM_PORT": "serving_port",
    "CONTINUUM_DAGSTER_PORT": "dagster_port",
    "CONTINUUM_MLFLOW_PORT": "mlflow_port",
    "CONTINUUM_FEAST_PORT": "feast_port",
}


@click.command(short_help="check this machine and this installation")
@click.option(
    "--install-browser", is_flag=True, help="Install Chromium for the page tests, if it can be had."
)
@json_option
def command(install_browser: bool, as_json: bool) -> None:
    """Check Python, packages, settings, disk, memory, ports and the browser. Leaves with 1 on a fault."""
    if install_browser and browser() is None:
        _install_browser()
    rows = findings()
    emit(rows, as_json, table(rows, ["check", "state", "detail"]))
    if any(row["state"] == "fault" for row in rows):
        fail("a fault above keeps Continuum from running")


def browser() -> str | None:
    """Path of Chromium, or None."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    return None


def findings() -> list[dict[str, Any]]:
    """One row per check: check, state (ok, note, fault) and detail."""
    rows = [_row("python", sys.version_info[:2] == (3, 11), sys.version.split()[0], "expected 3.11")]
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    rows.append(
        _row(
            "packages",
            not missing,
            f"{len(PACKAGES)} found",
            f"missing: {', '.join(missing)}; run `make setup`",
        )
    )
    try:
        settings = read_settings()
        retailer = read_retailer(settings)
    except SettingsError as error:
        return [*rows, _row("settings", False, "", str(error))]
    rows.append(_row("shop", True, f"{retailer.name}: {retailer.title}", ""))
    settings.home.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(settings.home).free / 1e9
    rows.append(
        _row("disk", free > 3, f"{free:.0f} GB free at {settings.home}", f"{free:.1f} GB free; expected 3")
    )
    import psutil

    memory = psutil.virtual_memory().total / 1e9
    rows.append(
        _row("memory", memory > 6, f"{memory:.0f} GB, {os.cpu_count()} cores", f"{memory:.1f} GB; expected 6")
    )
    for variable, field in PORTS.items():
        port = getattr(settings, field)
        taken = _taken(settings.host, port)
        rows.append(
            {"check": f"port {port}", "state": "note" if taken else "ok",
             "detail": f"in use (another one: set {variable})" if taken else f"free ({variable})"}
        )  # fmt: skip
    found = browser()
    rows.append(
        {"check": "browser", "state": "ok" if found else "note", "detail": found or "none: page tests skip"}
    )
    data = settings.data
    rows.append(
        {"check": "data sets", "state": "ok" if data and data.is_dir() else "note",
         "detail": str(data) if data else "CONTINUUM_DATA is unset: benches on other data sets skip"}
    )  # fmt: skip
    return rows


def _row(check: str, good: bool, detail: str, otherwise: str) -> dict[str, Any]:
    return {"check": check, "state": "ok" if good else "fault", "detail": detail if good else otherwise}


def _taken(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((host, port)) == 0


def _install_browser() -> None:
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        click.echo("no Chromium, and no right to install one here: page tests will skip", err=True)
        return
    click.echo("installing Chromium for the page tests", err=True)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([apt, "update", "-q"], check=False, **quiet)  # type: ignore[call-overload]
    done = subprocess.run(
        [apt, "install", "-y", "-q", "--no-install-recommends", "chromium"], check=False, **quiet
    )  # type: ignore[call-overload]
    if done.returncode != 0:
        click.echo("Chromium could not be installed: page tests will skip", err=True)
