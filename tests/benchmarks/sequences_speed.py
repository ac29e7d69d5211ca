"""Time to a published quality: the encoder, and RecTools' SASRec with sampled softmax in its own environment.

Both learn the same lists with as many threads, and are looked at after each epoch on the test requests; looking
is not counted. The encoder's seconds are means over its seeds. The peer is stopped when it has
had LIMIT times what the encoder had of the cores: its time then is a lower bound, and ``rectools_reached`` is false.
Seconds are wall time; ``cpu_seconds`` are what the process got of the cores, which is what to compare on a machine
that does other work too.

Belongs here: timing to a quality. Does not belong here: quality itself (`sequences.py`).
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from tests.benchmarks.sequences_cache import ROOT, Cache, Run, key_of
from training.evaluation.protocol import Task

TARGET = {"amazon-beauty": 0.0504}
"""95 % of the best published NDCG@10 (SASRec with sampled softmax, 0.0531)."""

PEER = "rectools==0.19.0"
NEEDS = ("rectools[torch]==0.19.0", "numpy<2", "torch==2.13.0")
PEER_MODEL: dict[str, Any] = {
    "n_blocks": 2, "n_heads": 2, "n_factors": 64, "dropout_rate": 0.2, "session_max_len": 50, "batch_size": 128,
    "loss": "sampled_softmax", "n_negatives": 256, "lr": 1e-3,
}  # fmt: skip
"""The published table's width for this set; the stored config's 256 costs about ten times as much per epoch."""

LIMIT = 2.1
SEED = 1
Progress = Callable[[str], None]


def measure(
    task: Task, ours: Sequence[Run], home: pathlib.Path, cache: Cache, progress: Progress, *, cached: bool
) -> dict[str, Any]:
    """Both sides' seconds to the target.

    Args:
        task: A set in TARGET.
        ours: Runs of the encoder that were looked at after each epoch.
        home: CONTINUUM_HOME, where the peer's environment lies.
        cache: Finished runs.
        progress: Receives one line per epoch.
        cached: Leave out what has not been run.

    Raises:
        RuntimeError: There is no published target, or the peer failed.
    """
    if task.name not in TARGET:
        raise RuntimeError(f"no target is known for {task.name}; expected one of {', '.join(TARGET)}")
    target = TARGET[task.name]
    firsts = [_first(run.facts["looks"], target) for run in ours if run.facts["looks"]]
    found = [row for row in firsts if row is not None]
    measured: dict[str, Any] = {
        "target_ndcg_at_10": target,
        "seeds_at_target": f"{len(found)} of {len(firsts)}",
    }
    if not found or len(found) < len(firsts):
        return measured
    seconds, used, epochs = (float(np.mean(column)) for column in zip(*found, strict=True))
    measured |= {
        "seconds_to_target": seconds, "cpu_seconds_to_target": used, "epochs_to_target": epochs,
        "slowest_seconds_to_target": max(row[0] for row in found), "threads_to_target": ours[0].facts["threads"],
    }  # fmt: skip
    setting = [task.split, target, SEED, PEER, PEER_MODEL]
    key = key_of(setting, ["tests/benchmarks/sequences_rectools.py"])

    def peer() -> Run:
        if cached:
            raise LookupError("rectools")
        return _peer(task, target, max(60.0, LIMIT * used), home, progress)

    try:
        theirs = cache.run("rectools", key, peer).facts
    except LookupError:
        return measured
    return measured | {
        "rectools_seconds_to_target": theirs["seconds"][-1], "rectools_cpu_seconds_to_target": theirs["cpu_seconds"][-1],
        "rectools_reached": theirs["curve"][-1] >= target, "rectools_ndcg_at_10_then": theirs["curve"][-1],
        "rectools_epochs": len(theirs["curve"]), "rectools_threads": theirs["threads"],
        "times_faster_than_rectools": theirs["seconds"][-1] / seconds,
        "cpu_times_faster_than_rectools": theirs["cpu_seconds"][-1] / used,
    }  # fmt: skip


def _first(looks: Sequence[Sequence[float]], target: float) -> tuple[float, float, int] | None:
    """Seconds, seconds of the cores and epochs when the target was first reached."""
    for epoch, (seconds, used, reached) in enumerate(looks, 1):
        if reached >= target:
            return seconds, used, epoch
    return None


def _peer(task: Task, target: float, limit: float, home: pathlib.Path, progress: Progress) -> Run:
    python = peer_python(home / "peers", progress)
    config = {
        "model": PEER_MODEL, "target": target, "limit": limit, "epochs": 200, "seed": SEED,
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="continuum-bench-") as scratch:
        folder = pathlib.Path(scratch)
        np.savez(
            folder / "task.npz", config=json.dumps(config), offsets=task.train.offsets, items=task.train.items,
            asked_offsets=task.test.histories.offsets, asked_items=task.test.histories.items, targets=task.test.targets,
        )  # fmt: skip
        script = ROOT / "tests" / "benchmarks" / "sequences_rectools.py"
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        with subprocess.Popen(
            [str(python), str(script), str(folder / "task.npz"), str(folder / "found.json")],
            env=clean, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            last = ""
            for line in process.stdout or ():
                last = (last + line)[-1500:]
                if line.startswith("epoch"):
                    progress(f"RecTools: {line.strip()}")
        if process.returncode:
            raise RuntimeError(f"RecTools failed:\n{last}")
        facts = json.loads((folder / "found.json").read_text()) | {"threads": config["threads"]}
        return Run(np.zeros((0, 0), np.int64), facts)


def peer_python(folder: pathlib.Path, progress: Progress) -> pathlib.Path:
    """Python of RecTools' own environment, made if it is not there yet.

    Raises:
        RuntimeError: It cannot be made; the message holds the installer's last words.
    """
    home = folder / PEER.replace("==", "-")
    python, ready = home / "bin" / "python", home / "READY"
    if not ready.exists():
        progress(f"making an environment for {PEER}")
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(home)],
            [str(python), "-m", "pip", "install", "-q", *NEEDS],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{PEER} cannot be installed:\n{done.stderr[-1500:]}")
        ready.write_text(PEER + "\n")
    return python
