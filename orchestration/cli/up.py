"""`continuum up`: the main job if it has not run yet, then all services until Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from types import FrameType
from typing import Any

import click

from contracts.settings import ROOT, Settings, SettingsError, read_retailer, read_settings
from orchestration.champion import champion_manifest
from orchestration.cli.output import fail, table


@click.command(short_help="run the main job if needed, then open all services")
@click.option("--fresh", is_flag=True, help="Run the main job even if a release is there already.")
@click.option("--no-run", is_flag=True, help="Only open the services.")
@click.option("--once", is_flag=True, help="Stop after the first live recommendation.")
@click.option(
    "--report", type=click.Path(dir_okay=False, writable=True), help="Write times as JSON to this file."
)
def command(fresh: bool, no_run: bool, once: bool, report: str | None) -> None:
    """Take a shop from raw data to live recommendations, and keep its services open.

    The main job (Dagster job `full_pipeline`) runs first: events, features, both models, the signed
    release, its promotion. Then MLflow, the live server, Dagster and Feast's UI start.
    """
    from orchestration import services

    try:
        settings = read_settings()
        retailer = read_retailer(settings)
        services.claim_home(settings, retailer)
    except SettingsError as error:
        fail(str(error))
    click.echo(f"{retailer.title} · state in {settings.home}")
    started = time.monotonic()
    wanted = services.services(settings)
    if once:
        wanted = [service for service in wanted if service.name in {"mlflow", "serving"}]
    services.prepare_home(settings)
    try:
        services.require_free(settings, wanted)
        if not no_run and (fresh or not _has_release(settings)):
            _main_job(settings)
        _until_stopped(settings, wanted, started, once, report)
    except services.ServiceError as error:
        fail(str(error))


def _has_release(settings: Settings) -> bool:
    return champion_manifest(settings) is not None


def _main_job(settings: Settings) -> None:
    from orchestration.services import environment

    click.echo("running the main job: events -> features -> models -> release (about 10 minutes on 2 cores)")
    # A process of its own: what it held in memory is given back before the services start.
    done = subprocess.run(
        [sys.executable, "-m", "orchestration.cli", "run"], cwd=ROOT, env=environment(settings), check=False
    )
    if done.returncode != 0:
        fail("the main job failed", "its log is above; open the run in Dagster with `continuum up --no-run`")


def _until_stopped(
    settings: Settings, wanted: list[Any], started: float, once: bool, report: str | None
) -> None:
    from orchestration import services

    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    with services.running(settings, wanted) as processes:
        for service in wanted:
            click.echo(f"starting {service.name}")
            services.wait_ready(settings, service, processes[service.name])
            if service.name == "serving":
                answer = _first_answer(settings, service.url)
                seconds = time.monotonic() - started
                click.echo(f"first live recommendation after {seconds:.0f} s")
                if report:
                    with open(report, "w") as file:
                        json.dump({"seconds_to_first_recommendation": seconds, "answer": answer}, file)
        if once:
            return
        rows = [{"open": service.url, "what": service.title} for service in wanted]
        click.echo(f"\n{table(rows, ['open', 'what'])}\n\nCtrl-C stops everything.")
        while not stop.wait(1):
            for service in wanted:
                if (code := processes[service.name].poll()) is not None:
                    raise services.ServiceError(
                        f"{service.name} ended with exit code {code}; its log is {settings.home}/logs/{service.name}.log"
                    )
        click.echo("stopping")


def _first_answer(settings: Settings, url: str) -> dict[str, Any]:
    """Ask for one known customer and print the answer as `continuum recommend` does."""
    import numpy as np

    from orchestration.cli.server import call

    body: dict[str, Any] = {"n": 5, "touchpoint": "welcome"}
    current = settings.profiles / "CURRENT"
    if current.exists():
        with np.load(settings.profiles / current.read_text().strip() / "histories.npz") as histories:
            lengths = np.diff(histories["offsets"])
            body["customer_id"] = str(histories["customers"][int(np.argsort(lengths)[len(lengths) // 2])])
    answer: dict[str, Any] = call("POST", "/v1/recommendations", body, url)
    click.echo(f"\nfor customer {answer.get('customer_id', 'unknown')}, from release {answer['release']}:")
    rows = [
        {"#": item["position"] + 1, "product": item["name"], "why": item["reason"]["text"]}
        for item in answer["items"]
    ]
    click.echo(table(rows, ["#", "product", "why"]) + "\n")
    return answer
