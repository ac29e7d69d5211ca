"""`continuum run`: run a Dagster job in this terminal, on the installation's own instance."""

from __future__ import annotations

import datetime as dt
import time

import click

from contracts.settings import SettingsError, read_retailer, read_settings
from orchestration.cli.output import emit, fail, json_option

DAY = click.DateTime(formats=["%Y-%m-%d"])


@click.command(short_help="run a Dagster job: full_pipeline, daily_features, retrain, release, ...")
@click.argument("job", default="full_pipeline")
@click.option(
    "--from", "first", type=DAY, help="First day of partitioned assets.  [default: the shop's first day]"
)
@click.option("--to", "last", type=DAY, help="Last day, inclusive.  [default: the shop's last day]")
@json_option
def command(job: str, first: dt.datetime | None, last: dt.datetime | None, as_json: bool) -> None:
    """Run JOB to its end, with a line per step; leaves with 1 if a step or a blocking check failed."""
    from orchestration.runs import run_job
    from orchestration.services import claim_home

    try:
        settings = read_settings()
        retailer = read_retailer(settings)
        claim_home(settings, retailer)
    except SettingsError as error:
        fail(str(error))
    days = (first.date() if first else retailer.first_day, last.date() if last else retailer.last_day)
    if days[1] < days[0]:
        fail(f"--to {days[1]} is before --from {days[0]}; expected a later day")
    started = time.monotonic()
    try:
        outcome = run_job(job, settings, days, lambda line: click.echo(f"  {line}", err=True))
    except KeyError as error:
        fail(str(error.args[0]))
    seconds = time.monotonic() - started
    state = "succeeded" if outcome.success else "FAILED"
    emit(
        {"job": job, "run_id": outcome.run_id, "success": outcome.success, "seconds": seconds,
         "failures": outcome.failures, "failed_checks": outcome.failed_checks},
        as_json,
        f"{job} {state} after {seconds:.0f} s (run {outcome.run_id})",
    )  # fmt: skip
    if not outcome.success:
        raise SystemExit(1)
