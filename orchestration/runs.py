"""Running a job in this process on the installation's own Dagster instance.

Belongs here: what `continuum run` and `continuum up` share. The run, its logs and materializations
are the same that the Dagster UI shows.
"""

from __future__ import annotations

import datetime as dt
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import dagster as dg

from contracts.settings import Settings
from orchestration.progress import NAME
from orchestration.services import environment, prepare_home

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended.

    Attributes:
        run_id: Dagster's id.
        success: All steps succeeded.
        failures: Step key and error message of each failed step.
        failed_checks: Names of asset checks that did not pass.
    """

    run_id: str
    success: bool
    failures: dict[str, str]
    failed_checks: list[str]


def enter_environment(settings: Settings) -> None:
    """Give this process the variables that every process of the installation has."""
    prepare_home(settings)
    os.environ.update(environment(settings))
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    warnings.filterwarnings("ignore", category=dg.PreviewWarning)


def run_job(
    name: str,
    settings: Settings,
    days: tuple[dt.date, dt.date] | None = None,
    progress: Callable[[str], None] = lambda line: None,
    overrides: dict[str, object] | None = None,
) -> RunOutcome:
    """Run a job of the code location to its end.

    Args:
        name: Job name.
        settings: The installation.
        days: First and last partition (inclusive) for partitioned assets.
        progress: Called with one line per step that starts, succeeds or fails.
        overrides: Passed on to `build_definitions`.

    Raises:
        KeyError: No such job; the message lists the jobs.
    """
    enter_environment(settings)
    from contracts.settings import read_retailer
    from orchestration.definitions import build_definitions, job_names

    known = job_names(read_retailer(settings))
    if name not in known:
        raise KeyError(f"there is no job '{name}'; expected one of: {', '.join(known)}")
    tags = {RANGE_START: days[0].isoformat(), RANGE_END: days[1].isoformat()} if days else {}
    definitions = build_definitions(overrides)
    with dg.DagsterInstance.get() as instance:
        watcher = _Progress(progress)
        result = definitions.resolve_job_def(name).execute_in_process(
            instance=instance,
            tags=tags,
            raise_on_error=False,
            run_config={"loggers": {NAME: {}}},
        )
        watcher.summarize(result)
        return RunOutcome(result.run_id, result.success, watcher.failures, watcher.failed_checks)


class _Progress:
    """Collects what went wrong in a finished run, and reports it."""

    def __init__(self, progress: Callable[[str], None]) -> None:
        self._progress = progress
        self.failures: dict[str, str] = {}
        self.failed_checks: list[str] = []

    def summarize(self, result: dg.ExecuteInProcessResult) -> None:
        for event in result.all_events:
            if event.is_step_failure and event.step_key:
                error = event.step_failure_data.error
                self.failures[event.step_key] = error.message.strip() if error else "unknown error"
                self._progress(f"failed: {event.step_key}: {self.failures[event.step_key].splitlines()[0]}")
        for check in result.get_asset_check_evaluations():
            if not check.passed:
                self.failed_checks.append(f"{check.asset_key.to_user_string()}:{check.check_name}")
                word = "warning" if check.severity == dg.AssetCheckSeverity.WARN else "check did not pass"
                self._progress(f"{word}: {self.failed_checks[-1]}: {check.description or 'no description'}")
