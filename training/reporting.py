"""What a training process tells: progress lines and, at the end, its run and numbers.

Belongs here: terminal and Dagster Pipes. Does not belong here: evidence (`training/tracking.py`).
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

PIPES = "DAGSTER_PIPES_CONTEXT"


class Finished(Protocol):
    """A bundle, as far as it is reported."""

    @property
    def run_id(self) -> str:
        """MLflow run."""
        ...

    @property
    def metrics(self) -> Mapping[str, object]:
        """Final numbers."""
        ...


Progress = Callable[[str], None]
Report = Callable[[Finished], None]


@contextlib.contextmanager
def reporting(quiet: bool) -> Iterator[tuple[Progress, Report]]:
    """Where progress and the finished bundle go: the terminal, and Dagster if it started this process.

    Args:
        quiet: Print nothing.
    """
    started = time.monotonic()

    def show(line: str) -> None:
        if not quiet:
            print(f"[{time.monotonic() - started:6.1f} s] {line}", file=sys.stderr, flush=True)

    if PIPES not in os.environ:
        yield show, lambda bundle: show(f"bundle of run {bundle.run_id} written")
        return
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:

        def both(line: str) -> None:
            show(line)
            pipes.log.info(line)

        yield (
            both,
            lambda bundle: pipes.report_custom_message({"metrics": bundle.metrics, "run_id": bundle.run_id}),
        )
