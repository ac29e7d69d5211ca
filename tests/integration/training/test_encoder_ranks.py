"""Two processes that `torchrun` starts learn what one learns."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from contracts.settings import ROOT

SCRIPT = textwrap.dedent(
    """
    import json, os, pathlib, sys
    import msgspec, numpy as np
    from tests.unit.training.toys import SMALL, sequences, vocabulary
    from training.continuum import fit as loop
    from training.continuum.ranks import leave
    from training.evaluation.metrics import targets_of

    out, kind = pathlib.Path(sys.argv[1]), sys.argv[2]
    changes = {"lean": {"pointer": False, "action_weight": 0.0, "customer_balance": 0.0}, "whole": {}}[kind]
    params = msgspec.structs.replace(SMALL, epochs=3, patience=3, dropout=0.0, item_dropout=0.1, batch=5, **changes)
    size = 1 if kind == "lean" else 2
    found = sequences([
        [(7.0 * week + c % 7, 1 + (c + k) % 30) for week in range(4 + c % 9) for k in range(size)] for c in range(13)
    ])
    asked = loop.Validation(
        np.arange(13), np.full(13, 90.0), targets_of([[1 + c % 30, 1 + (c + 1) % 30] for c in range(13)])
    )
    said = []
    fitted = loop.fit(
        found, vocabulary(), params, asked, seen=found, seed=3, progress=said.append
    )
    rank = int(os.environ.get("RANK", "0"))
    weights = {name: value.tolist() for name, value in fitted.encoder.state_dict().items()}
    (out / f"{rank}.json").write_text(json.dumps(
        {"curves": fitted.curves, "weights": weights, "best": fitted.best, "said": said}
    ))
    leave()
    """
)


def learn(folder: pathlib.Path, kind: str, processes: int) -> list[dict[str, Any]]:
    folder.mkdir()
    script = folder / "learn.py"
    script.write_text(SCRIPT)
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*start, str(script), str(folder), kind],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(processes)]


@pytest.mark.parametrize("kind", ["lean", "whole"])
def test_two_processes_learn_what_one_learns(tmp_path: pathlib.Path, kind: str) -> None:
    (alone,) = learn(tmp_path / "one", kind, 1)
    first, second = learn(tmp_path / "two", kind, 2)
    assert first["weights"] == second["weights"], "every process holds the same weights"
    assert first["best"] == second["best"] == alone["best"]
    assert first["curves"]["train_loss"] == pytest.approx(alone["curves"]["train_loss"], rel=1e-3)
    assert first["curves"]["validation_ndcg_at_10"] == pytest.approx(
        alone["curves"]["validation_ndcg_at_10"], abs=0.02
    )
    assert first["said"], "the first process tells how far it is"
    assert not second["said"]
