"""Which customers an e-mail moves: our learners and causalml's on Hillstrom's trial, same folds, same Qini.

Outcome: a visit in the two weeks after. Each e-mail is judged against no e-mail. Both sides fit S, T, X and DR
learners on the same LightGBM parameters and are asked about the same held-out folds; ours also blends its four.
A side's best learner is chosen anew for every held-out fold, by Qini on folds inside the rest, so the reported
folds choose nothing; the best in hindsight is reported beside it. The Qini (defined in `training/relationship/qini.py`)
is in visits per treated customer and is averaged over folds; intervals resample customers, the same for both sides.
The trees' parameters are one set for both sides; they were picked after a look at other folds of the same customers,
and our DR learner was rewritten after a first full run, so the Qini themselves may flatter a little.

Belongs here: data, folds, comparing. Does not belong here: causalml's calls (`uplift_causalml.py`), learners.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.settings import ROOT, read_settings
from training.relationship import measures
from training.relationship.qini import qini, resampled_qini
from training.relationship.uplift import LEARNERS, SINGLE, UpliftParams, effects, split

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Progress = Callable[[str], None]
Task = tuple[Ints, Ints]

PEER = "causalml==0.18.0"
ARMS = {"mens": "Mens E-Mail", "womens": "Womens E-Mail"}
NONE = "No E-Mail"
FOLDS, INNER, REPEATS = 5, 3, 1
SEED = 0
QUICK_CUSTOMERS = 12_000


def run(quick: bool, progress: Progress) -> dict[str, Any]:
    """Measure; see `tests/benchmarks/report.py` for what becomes of the numbers."""
    rows = read_trial(data_folder())
    if quick:
        some = np.random.default_rng(SEED).choice(len(rows), QUICK_CUSTOMERS, replace=False)
        rows = [rows[place] for place in some]
    python = peer_python(read_settings().home / "cache" / "benchmarks", progress)
    resamples = 100 if quick else 500
    measured: dict[str, Any] = {}
    drawn: dict[str, dict[str, Floats]] = {}
    for arm, segment in ARMS.items():
        X, treated, visit = encode([row for row in rows if row["segment"] in (segment, NONE)], segment)
        drawn[arm], chosen = measure_arm(
            X, treated, visit, python, 1 if quick else REPEATS, resamples, progress
        )
        measured |= numbers_of(arm, drawn[arm])
        measured |= {f"qini_{arm}_{side}chosen": json.dumps(names) for side, names in chosen.items()}
        measured[f"effect_{arm}"] = float(visit[treated].mean() - visit[~treated].mean())
        progress(f"{arm}: Qini {drawn[arm]['ours'][0]:.5f}, causalml {drawn[arm]['causalml'][0]:.5f}")
    total = {name: drawn["mens"][name] + drawn["womens"][name] for name in ("ours", "causalml")}
    ratio = measures.interval_of(total["ours"] / total["causalml"])
    gain = measures.interval_of(total["ours"] - total["causalml"])
    best = {side: sum(_hindsight(drawn[arm], side) for arm in ARMS) for side in ("", "causalml_")}
    measured |= {
        "qini_ratio_to_causalml": ratio.value, "qini_ratio_ci_low": ratio.low, "qini_ratio_ci_high": ratio.high,
        "qini_gain_over_causalml": gain.value, "qini_gain_ci_low": gain.low, "qini_gain_ci_high": gain.high,
        "qini_ratio_best_in_hindsight": best[""] / best["causalml_"],
        "qini_ratio_to_causalml_in_hindsight": float(total["ours"][0] / best["causalml_"]),
    }  # fmt: skip
    setup = {
        "data": "hillstrom-email" + (f", {QUICK_CUSTOMERS} customers" if quick else ""),
        "outcome": "visit", "folds": FOLDS, "inner_folds": INNER, "repeats": 1 if quick else REPEATS, "seed": SEED,
        "resamples": resamples, "peer": PEER, "ratio": "sum of both e-mails' Qini, ours over causalml's",
        "trees": json.dumps(msgspec.to_builtins(UpliftParams())),
    }  # fmt: skip
    return {"measured": measured, "setup": setup}


def measure_arm(
    X: Floats,
    treated: npt.NDArray[np.bool_],
    visit: Floats,
    python: pathlib.Path,
    repeats: int,
    resamples: int,
    progress: Progress,
) -> tuple[dict[str, Floats], dict[str, dict[str, int]]]:
    """Qini of both sides under the bootstrap, and how often each learner was chosen."""
    parts: list[Ints] = []
    outer: list[Task] = []
    inner: list[list[Task]] = []
    for repeat in range(repeats):
        fold = split(treated, visit, FOLDS, SEED + repeat)
        for number in range(FOLDS):
            rest, inside = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            parts.append(inside)
            outer.append((rest, inside))
            within = split(treated[rest], visit[rest], INNER, SEED + repeat)
            inner.append([(rest[within != part], rest[within == part]) for part in range(INNER)])
    tasks = outer + [task for each in inner for task in each]
    progress(f"{len(tasks)} fits of each learner")
    sides = {
        "": [effects(X[a], treated[a], visit[a], X[b], seed=SEED) for a, b in tasks],
        "causalml_": ask_peer(python, X, treated, visit, tasks),
    }
    scores: dict[str, list[Floats]] = {}
    chosen: dict[str, dict[str, int]] = {}
    for side, found in sides.items():
        names = list(found[0])
        scores |= {f"{side}{name}": [task[name] for task in found[: len(outer)]] for name in names}
        picked = []
        for place in range(len(outer)):
            first = len(outer) + place * INNER
            means = {
                name: np.mean([
                    qini(found[first + part][name], treated[rows], visit[rows])
                    for part, (_, rows) in enumerate(inner[place])
                ])
                for name in names
            }  # fmt: skip
            picked.append(max(names, key=lambda name: means[name]))
        scores["causalml" if side else "ours"] = [found[place][name] for place, name in enumerate(picked)]
        chosen[side] = {name: picked.count(name) for name in names if name in picked}
    return resampled_qini(scores, parts, treated, visit, resamples, SEED), chosen


def numbers_of(arm: str, drawn: dict[str, Floats]) -> dict[str, float]:
    """Estimates of every learner, and the intervals of what was chosen."""
    found = {f"qini_{arm}_{name}": float(values[0]) for name, values in drawn.items() if name != "ours"}
    ours, ratio = measures.interval_of(drawn["ours"]), drawn["ours"][0] / drawn["causalml"][0]
    gain = measures.interval_of(drawn["ours"] - drawn["causalml"])
    return {
        f"qini_{arm}": ours.value, f"qini_{arm}_ci_low": ours.low, f"qini_{arm}_ci_high": ours.high,
        f"qini_{arm}_ratio_to_causalml": float(ratio), f"qini_{arm}_gain": gain.value,
        f"qini_{arm}_gain_ci_low": gain.low, f"qini_{arm}_gain_ci_high": gain.high,
    } | found  # fmt: skip


def _hindsight(drawn: dict[str, Floats], side: str) -> float:
    return max(float(drawn[f"{side}{name}"][0]) for name in (SINGLE if side else LEARNERS))


def peer_python(folder: pathlib.Path, progress: Progress) -> pathlib.Path:
    """Python of causalml's own environment, made if it is not there yet.

    Raises:
        RuntimeError: It cannot be made; the message holds the installer's last words.
    """
    home = folder / PEER.replace("==", "-")
    python, ready = home / "bin" / "python", home / "READY"
    if not ready.exists():
        progress(f"making an environment for {PEER}")
        lightgbm = f"lightgbm=={metadata.version('lightgbm')}"
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(home)],
            [str(python), "-m", "pip", "install", "-q", PEER, lightgbm],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{PEER} cannot be installed:\n{done.stderr[-1500:]}")
        ready.write_text(PEER + "\n")
    return python


def ask_peer(
    python: pathlib.Path, X: Floats, treated: npt.NDArray[np.bool_], visit: Floats, tasks: list[Task]
) -> list[dict[str, Floats]]:
    """Effects by causalml's learners for each task.

    Raises:
        RuntimeError: causalml failed; the message holds its last words.
    """
    params = UpliftParams()
    trees = {
        "n_estimators": params.trees, "num_leaves": params.leaves, "learning_rate": params.learning_rate,
        "min_child_samples": params.min_leaf, "reg_lambda": params.ridge, "colsample_bytree": params.feature_share,
        "n_jobs": params.threads, "random_state": SEED, "verbose": -1, "deterministic": True, "force_row_wise": True,
    }  # fmt: skip
    given: dict[str, Any] = {"params": json.dumps(trees), "tasks": len(tasks)}
    for number, (known, asked) in enumerate(tasks):
        given |= {
            f"X_{number}": X[known], f"treated_{number}": treated[known], f"outcome_{number}": visit[known],
            f"ask_{number}": X[asked],
        }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="continuum-bench-") as scratch:
        folder = pathlib.Path(scratch)
        np.savez(folder / "tasks.npz", **given)
        script = ROOT / "tests" / "benchmarks" / "uplift_causalml.py"
        command = [str(python), str(script), str(folder / "tasks.npz"), str(folder / "effects.npz")]
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean)
        if done.returncode:
            raise RuntimeError(f"causalml failed:\n{done.stderr[-1500:]}")
        found = np.load(folder / "effects.npz")
        return [dict(zip(SINGLE, found[f"effect_{number}"], strict=True)) for number in range(len(tasks))]


def data_folder() -> pathlib.Path:
    """Where the public data sets are.

    Raises:
        RuntimeError: CONTINUUM_DATA is not set.
    """
    if not (folder := os.environ.get("CONTINUUM_DATA")):
        raise RuntimeError("CONTINUUM_DATA is not set; expected the folder that holds the public data sets")
    return pathlib.Path(folder)


def read_trial(folder: pathlib.Path) -> list[dict[str, str]]:
    """Hillstrom's customers, one row each."""
    with gzip.open(folder / "hillstrom-email" / "hillstrom.csv.gz", "rt", newline="") as file:
        return list(csv.DictReader(file))


def encode(rows: list[dict[str, str]], segment: str) -> tuple[Floats, npt.NDArray[np.bool_], Floats]:
    """What was known before the e-mail, who got it, who visited."""
    places = ("Rural", "Surburban", "Urban")
    channels = ("Phone", "Web", "Multichannel")
    X = np.array([
        [
            *(float(row[name]) for name in ("recency", "history", "mens", "womens", "newbie")),
            *(float(row["zip_code"] == place) for place in places),
            *(float(row["channel"] == channel) for channel in channels),
        ]
        for row in rows
    ])  # fmt: skip
    treated = np.array([row["segment"] == segment for row in rows])
    return X, treated, np.array([float(row["visit"]) for row in rows])
