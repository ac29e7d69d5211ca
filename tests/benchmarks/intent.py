"""Purchase intent in a session on online-shoppers-intention: order and calibration over five folds.

Each session is predicted once, by a model fitted and calibrated on the other four folds; sessions that are equal in
every field share a fold. AUC is the mean over folds; the calibration error takes all predictions in 15 bins of equal
size. `PageValues` holds what a site knows of its pages' past worth, as the published data defines it.

Belongs here: data, folds, comparing. Does not belong here: the model (`training/relationship/intent.py`).
"""

from __future__ import annotations

import csv
import gzip
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from training.evaluation.statistics import mean_interval
from training.relationship import intent, measures

FOLDS = 5
QUICK_SESSIONS = 4000
SEED = 0


def run(quick: bool, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure; see `tests/benchmarks/report.py` for what becomes of the numbers."""
    X, bought = read_sessions(data_folder())
    if quick:
        some = np.random.default_rng(SEED).choice(len(X), QUICK_SESSIONS, replace=False)
        X, bought = X[some], bought[some]
    groups = intent.same_rows(X)
    fold = intent.folds_of(bought, groups, FOLDS, SEED)
    probability, per_fold = np.zeros(len(X)), []
    for number in range(FOLDS):
        inside = fold == number
        model = intent.fit(X[~inside], bought[~inside], groups[~inside], seed=SEED)
        probability[inside] = model.predict(X[inside])
        per_fold.append(measures.auc(probability[inside], bought[inside]))
        progress(f"fold {number + 1}: AUC {per_fold[-1]:.4f}")
    pooled = measures.interval_of(
        measures.paired_bootstrap(measures.auc, {"auc": probability}, bought, 200, SEED)["auc"]
    )
    brier = mean_interval((probability - bought) ** 2, SEED)
    measured = {
        "auc": float(np.mean(per_fold)),
        "auc_worst_fold": float(np.min(per_fold)),
        "auc_pooled": pooled.value,
        "auc_ci_low": pooled.low,
        "auc_ci_high": pooled.high,
        "calibration_error": measures.reliability(probability, bought).error,
        "calibration_error_equal_width": measures.equal_width_error(probability, bought),
        "brier": brier.value,
        "sessions": len(X),
    }
    setup = {
        "data": "online-shoppers-intention" + (f", {QUICK_SESSIONS} sessions" if quick else ""),
        "folds": FOLDS,
        "equal_sessions": int(len(X) - len(np.unique(groups))),
        "calibration_bins": f"{measures.BINS} of equal size, all folds together",
        "calibration": "Platt scaling of cross-fitted log-odds inside the training folds",
        "seed": SEED,
    }
    return {"measured": measured, "setup": setup}


def data_folder() -> pathlib.Path:
    """Where the public data sets are.

    Raises:
        RuntimeError: CONTINUUM_DATA is not set.
    """
    if not (folder := os.environ.get("CONTINUUM_DATA")):
        raise RuntimeError("CONTINUUM_DATA is not set; expected the folder that holds the public data sets")
    return pathlib.Path(folder)


def read_sessions(folder: pathlib.Path) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Features and outcome of every session."""
    path = folder / "online-shoppers-intention" / "online_shoppers_intention.csv.gz"
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    bought = np.array([value.upper() == "TRUE" for value in columns["Revenue"]], np.float64)
    return intent.encode(columns), bought
