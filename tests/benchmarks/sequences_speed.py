"""Time to a published quality: the encoder, and RecTools' SASRec with sampled softmax in its own environment.

Both learn the same lists with as many threads, and are looked at after each epoch on the test requests; looking
is not counted. The peer is stopped when it has spent LIMIT times what the encoder needed: its time then is a lower
bound, and ``rectools_reached`` is false. Seconds are wall time; ``cpu_seconds`` are what the process got of the
cores, which is what to compare on a machine that does other work too.

Belongs here: timing to a quality. Does not belong here: quality itself (`sequences.py`).
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import torch

from tests.benchmarks import sequences_models as library
from tests.benchmarks.sequences_cache import ROOT, Cache, Run, key_of
from training.continuum.model import Encoder
from training.continuum.public import EncoderScorer, learn
from training.evaluation.protocol import Task, answer, judge

TARGET = {"amazon-beauty": 0.0504}
"""95 % of the best published NDCG@10 (SASRec with sampled softmax, 0.0531)."""

PEER = "rectools==0.19.0"
NEEDS = ("rectools[torch]==0.19.0", "numpy<2", "torch==2.13.0")
PEER_MODEL: dict[str, Any] = {
    "n_blocks": 2, "n_heads": 2, "n_factors": 64, "dropout_rate": 0.2, "session_max_len": 50, "batch_size": 128,
    "loss": "sampled_softmax", "n_negatives": 256, "lr": 1e-3,
}  # fmt: skip
"""The published table's width for this set; the stored config's 256 costs about ten times as much per epoch."""

LIMIT = 3.0
SEED = 1
Progress = Callable[[str], None]


class _ReachedError(Exception):
    """Training may stop."""


def measure(task: Task, home: pathlib.Path, cache: Cache, progress: Progress, cached: bool) -> dict[str, Any]:
    """Both sides' seconds to the target.

    Args:
        task: A set in TARGET.
        home: CONTINUUM_HOME, where the peer's environment lies.
        cache: Finished runs.
        progress: Receives one line per epoch.
        cached: Leave out what has not been run.

    Raises:
        RuntimeError: There is no published target, or the peer failed.
    """
    if task.name not in TARGET:
        raise RuntimeError(f"no target is known for {task.name}; expected one of {', '.join(TARGET)}")
    params, target = library.encoder_params(task), TARGET[task.name]
    setting = [task.split, target, torch.get_num_threads(), SEED]
    key = key_of([*setting, msgspec.to_builtins(params)], library.ENCODER_SOURCES)

    def refuse() -> Run:
        raise LookupError("speed")

    try:
        ours = cache.run(
            "speed-encoder", key, refuse if cached else lambda: _encoder(task, target, progress)
        ).facts
        limit = max(60.0, LIMIT * ours["cpu_seconds"][-1])
        key = key_of(
            [*setting, PEER, PEER_MODEL, round(limit, -1)], ["tests/benchmarks/sequences_rectools.py"]
        )
        theirs = cache.run(
            "speed-rectools", key, refuse if cached else lambda: _peer(task, target, limit, home, progress)
        ).facts
    except LookupError:
        return {}
    reached, matched = max(ours["curve"]) >= target, max(theirs["curve"]) >= target
    return {
        "target_ndcg_at_10": target, "seconds_to_target": ours["seconds"][-1],
        "cpu_seconds_to_target": ours["cpu_seconds"][-1], "reached": reached,
        "epochs_to_target": len(ours["curve"]), "rectools_seconds_to_target": theirs["seconds"][-1],
        "rectools_cpu_seconds_to_target": theirs["cpu_seconds"][-1], "rectools_reached": matched,
        "rectools_ndcg_at_10_then": theirs["curve"][-1], "rectools_epochs": len(theirs["curve"]),
        "times_faster_than_rectools": theirs["seconds"][-1] / ours["seconds"][-1] if reached else 0.0,
        "cpu_times_faster_than_rectools": theirs["cpu_seconds"][-1] / ours["cpu_seconds"][-1] if reached else 0.0,
    }  # fmt: skip


def _encoder(task: Task, target: float, progress: Progress) -> Run:
    facts: dict[str, list[float]] = {"curve": [], "seconds": [], "cpu_seconds": []}
    started, looked = time.process_time(), 0.0

    def watch(encoder: Encoder, seconds: float) -> None:
        nonlocal looked
        used = time.process_time() - started - looked
        began = time.process_time()
        encoder.eval()
        found = answer(EncoderScorer(encoder), task.test, filter_seen=True)
        encoder.train()
        looked += time.process_time() - began
        facts["curve"].append(float(judge(found, task.test.targets, 10)["ndcg"].mean()))
        facts["seconds"].append(seconds)
        facts["cpu_seconds"].append(used)
        progress(f"encoder: NDCG@10 {facts['curve'][-1]:.4f} after {seconds:.0f} s")
        if facts["curve"][-1] >= target:
            raise _ReachedError

    alone = msgspec.structs.replace(library.encoder_params(task), validation_customers=1, patience=1000)
    with contextlib.suppress(_ReachedError):
        learn(task, alone, seed=SEED, progress=lambda line: None, watch=watch)
    return Run(np.zeros((0, 0), np.int64), facts)


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
        return Run(np.zeros((0, 0), np.int64), json.loads((folder / "found.json").read_text()))


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
