"""`make run` after installation: time to the first live recommendation, peak memory, load time of the definitions."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil

ROOT = pathlib.Path(__file__).resolve().parents[2]
LOAD = """
import time
start = time.perf_counter()
import orchestration.definitions
print(time.perf_counter() - start)
"""


def run(quick: bool, progress: Callable[[str], None]) -> dict[str, Any]:
    """Run the whole of `continuum up --once` in an empty home.

    Args:
        quick: Measure only the load time of the definitions.
        progress: Receives one line per stage.
    """
    measured: dict[str, Any] = {"definitions_load_seconds": _definitions_load_seconds(3)}
    if not quick:
        with tempfile.TemporaryDirectory(prefix="continuum-bench-") as folder:
            measured |= _up_once(pathlib.Path(folder), progress)
    return {"measured": measured, "setup": {"shop": os.environ.get("RETAILER", "complete_journey")}}


def _definitions_load_seconds(times: int) -> float:
    seconds = []
    for _ in range(times):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", LOAD], cwd=ROOT, capture_output=True, text=True, check=True
        )
        seconds.append(float(done.stdout.strip().splitlines()[-1]))
    return sorted(seconds)[len(seconds) // 2]


def _up_once(home: pathlib.Path, progress: Callable[[str], None]) -> dict[str, Any]:
    report = home / "report.json"
    environment = {**os.environ, "CONTINUUM_HOME": str(home / "state")}
    for variable in (
        "CONTINUUM_PORT",
        "CONTINUUM_MLFLOW_PORT",
        "CONTINUUM_DAGSTER_PORT",
        "CONTINUUM_FEAST_PORT",
    ):
        environment[variable] = str(_free_port())
    environment.pop("MLFLOW_TRACKING_URI", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestration.cli", "up", "--once", "--report", str(report)],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    peak = _Peak(process.pid)
    tail: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        progress(line.rstrip())
        tail = [*tail[-40:], line]
    process.wait()
    peak.stop()
    if process.returncode != 0:
        raise RuntimeError("`continuum up --once` failed:\n" + "".join(tail))
    outcome = json.loads(report.read_text())
    return {
        "seconds_to_first_recommendation": outcome["seconds_to_first_recommendation"],
        "peak_memory_gb": peak.bytes / 1e9,
    }


class _Peak:
    """Largest memory of a process and all its descendants, each shared page counted once (PSS)."""

    def __init__(self, pid: int, every: float = 1.0) -> None:
        self.bytes = 0
        self._pid = pid
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            total = 0
            try:
                root = psutil.Process(self._pid)
                for process in [root, *root.children(recursive=True)]:
                    try:
                        total += process.memory_full_info().pss
                    except psutil.Error:
                        continue
            except psutil.Error:
                return
            self.bytes = max(self.bytes, total)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    started = time.monotonic()
    print(
        json.dumps(
            run(False, lambda line: print(f"{time.monotonic() - started:6.0f} s  {line}", file=sys.stderr)),
            indent=1,
        )
    )
