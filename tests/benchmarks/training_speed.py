"""Examples per second: the encoder, plain SASRec code, and the encoder in two processes.

An example is one target with everything before it. All learn the same histories of amazon-beauty with the code and
configs of `sequences_models.py`: one epoch from random weights; the best of RUNS counts. Each run is a process of its
own, with two threads, or two processes with one thread each. Seconds are wall time; ``cpu_`` is per second of
processor time, which is what to compare on a machine that does other work too.

Belongs here: timing one epoch. Does not belong here: quality (`sequences.py`), time to a quality (`sequences_speed.py`).
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from contracts.settings import ROOT
from training.evaluation.protocol import Task

USERS, QUICK_USERS = 6000, 1500
RUNS = 2
KINDS = {
    "encoder": (1, 2), "encoder_two_processes": (2, 1), "encoder_bfloat16": (1, 2), "sasrec": (1, 2),
    "sasrec_same_width": (1, 2),
}  # fmt: skip
"""Processes and threads of each."""


def run(quick: bool, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure; see `tests/benchmarks/report.py` for what becomes of the numbers.

    Raises:
        RuntimeError: CONTINUUM_DATA is not set, or a run failed.
    """
    if not os.environ.get("CONTINUUM_DATA"):
        raise RuntimeError("CONTINUUM_DATA is not set; expected the folder of public sequences below it")
    users = QUICK_USERS if quick else USERS
    measured: dict[str, Any] = {}
    for kind in KINDS:
        found = []
        for turn in range(1 if quick else RUNS):
            found.append(_start(kind, users))
            progress(
                f"{kind}, run {turn + 1}: {found[-1]['examples'] / found[-1]['seconds']:.0f} examples a second"
            )
        measured[f"examples_per_second_{kind}"] = max(one["examples"] / one["seconds"] for one in found)
        measured[f"cpu_examples_per_second_{kind}"] = max(
            one["examples"] / one["cpu_seconds"] for one in found
        )
        measured[f"train_loss_{kind}"] = found[0].get("loss")
    for peer in ("sasrec", "sasrec_same_width"):
        for prefix in ("", "cpu_"):
            name = f"{prefix}examples_per_second"
            measured[f"{name}_over_{peer}"] = measured[f"{name}_encoder"] / measured[f"{name}_{peer}"]
    return {"measured": measured, "setup": {"data": f"amazon-beauty, {users} users, one epoch", "runs": RUNS}}


def _start(kind: str, users: int) -> dict[str, Any]:
    processes, threads = KINDS[kind]
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += ["-m", "tests.benchmarks.training_speed", kind, str(users)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{kind} failed with exit code {done.returncode}: {done.stderr[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def learn_once(kind: str, users: int) -> dict[str, Any]:
    """One epoch in this process."""
    import msgspec

    from tests.benchmarks.sequences_models import HISTORIES, peers
    from tests.benchmarks.sequences_peers import train_peer
    from training.continuum.public import learn
    from training.continuum.ranks import leave
    from training.evaluation.protocol import make_task
    from training.evaluation.public_sets import open_set

    folder = pathlib.Path(os.environ["CONTINUUM_DATA"]) / "sequences"
    task = _part(make_task(open_set("amazon-beauty", folder)), users)
    examples = int(np.maximum(task.train.sizes - 1, 0).sum())
    busy = time.process_time()
    if kind.startswith("encoder"):
        precision = "bfloat16" if kind.endswith("bfloat16") else "float32"
        params = msgspec.structs.replace(HISTORIES, epochs=1, start="random", precision=precision)
        fitted = learn(task, params, seed=1, progress=lambda line: None, content=False, refit=True)
        spent, loss = fitted.seconds, fitted.curves["train_loss"][-1]
    else:
        plain = peers(task)["sasrec_bce"]
        if kind.endswith("same_width"):
            plain = msgspec.structs.replace(
                plain, dim=HISTORIES.dim, blocks=HISTORIES.blocks, batch=HISTORIES.batch
            )
        plain = msgspec.structs.replace(plain, epochs=1)
        _, facts = train_peer(task, plain, 1, lambda line: None, refit=True)
        spent, loss = facts["seconds"], None
    cpu = time.process_time() - busy
    leave()
    return {"examples": examples, "seconds": spent, "cpu_seconds": cpu, "loss": loss}


def _part(task: Task, users: int) -> Task:
    """The histories of some users."""
    rows = np.random.default_rng(0).choice(len(task.train), min(users, len(task.train)), replace=False)
    some = task.train.select(np.sort(rows))
    return dataclasses.replace(task, train=some, full=some)


def main(arguments: list[str]) -> None:
    """Learn once and print the numbers as JSON, from the first process."""
    kind, users = arguments
    found = learn_once(kind, int(users))
    found["cpu_seconds"] *= KINDS[kind][0]
    if int(os.environ.get("RANK", "0")) == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
