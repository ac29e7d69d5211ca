"""What a person sees of a run in the terminal: a line per step, and what the trainers say.

Belongs here: turning Dagster's log records into short lines. Does not belong here: Dagster's own log,
which keeps everything and is shown in its UI.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import dagster as dg

NAME = "progress"


class _Lines(logging.Handler):
    """Prints steps as they start, end or fail, messages of trainers, and warnings."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._begun = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        line = self._line(record, getattr(record, "dagster_meta", {}) or {})
        if line:
            print(f"[{time.monotonic() - self._begun:5.0f} s] {line}", file=sys.stderr, flush=True)

    def _line(self, record: logging.LogRecord, meta: dict[str, Any]) -> str:
        event = meta.get("dagster_event")
        step = str(meta.get("step_key") or "").replace("__", "/")
        if event is None:
            message = str(meta.get("orig_message") or record.getMessage())
            return f"    {message}" if record.levelno >= logging.INFO else ""
        if event.is_step_start:
            return f"{step} ..."
        if event.is_step_success:
            return f"{step} done in {event.step_success_data.duration_ms / 1000:.1f} s"
        if event.is_step_failure:
            return f"{step} FAILED"
        return ""


@dg.logger(description="A line per step for people at a terminal.")
def progress_logger(init_context: dg.InitLoggerContext) -> logging.Logger:
    """Dagster logger of that name."""
    logger = logging.Logger(NAME, logging.DEBUG)
    logger.addHandler(_Lines())
    return logger
