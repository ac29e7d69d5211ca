"""Churn and value from purchases: which cuts are learned from, which choose the epoch, how both are judged.

Belongs here: the protocol, shared by training and by the bench. Does not belong here: models, logging (`train.py`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from training.evaluation.statistics import Interval
from training.relationship import cuts, measures, survival, ziln
from training.relationship.network import NetworkParams
from training.relationship.summaries import FEATURES, Visits

Floats = npt.NDArray[np.float64]

RECENT = 21.0


def learn_survival(
    visits: Visits, known_until: float, params: NetworkParams | None = None, seed: int = 0
) -> survival.Survival:
    """Learn from cuts up to three weeks before the end; outcomes not yet known by then are censored.

    Args:
        visits: Any visits; only those before ``known_until`` are read.
        known_until: Days since 1970.
        params: Of the network.
        seed: Of weights and batches.

    Raises:
        ValueError: There is too little history for three cuts.
    """
    moments = cuts.learning_cuts(first_visit(visits), known_until, RECENT)
    rows = cuts.rows_at(visits, moments, survival.EDGES[-1], known_until, censored=True)
    later = rows.cut > moments[-3]
    learning, held = rows.select(~later), rows.select(later)
    return survival.fit(
        learning.features,
        learning.hazard_targets(),
        (held.features, held.hazard_targets()),
        params,
        seed=seed,
    )


def learn_value(
    visits: Visits, known_until: float, window: float, params: NetworkParams | None = None, seed: int = 0
) -> ziln.Ziln:
    """Learn from cuts whose whole window ends by the end; the last of them chooses the epoch.

    Args:
        visits: Any visits; only those before ``known_until`` are read.
        known_until: Days since 1970.
        window: Days of spend after a cut.
        params: Of the network.
        seed: Of weights and batches.

    Raises:
        ValueError: There is too little history for three cuts.
    """
    moments = cuts.learning_cuts(first_visit(visits), known_until, window)
    rows = cuts.rows_at(visits, moments, window, known_until)
    later = rows.cut == moments[-1]
    learning, held = rows.select(~later), rows.select(later)
    return ziln.fit(learning.features, learning.spend, (held.features, held.spend), params, seed=seed)


def first_visit(visits: Visits) -> float:
    """Time of the shop's first purchase.

    Raises:
        ValueError: There is none.
    """
    if not len(visits.at):
        raise ValueError("there are no visits; expected purchases to learn from")
    return float(visits.at.min())


def judge_churn(
    chance: Floats, judged: cuts.Rows, days: float, resamples: int, seed: int
) -> dict[str, Interval]:
    """AUC of churn beside recency alone, their paired gain, and calibration.

    Args:
        chance: float64[M], predicted probability of no purchase within ``days``.
        judged: Customers at the judged cut, watched for at least ``days``.
        days: What counts as churn.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
    """
    churned = (judged.days >= days).astype(np.float64)
    scores = {"model": chance, "recency": judged.features[:, FEATURES.index("days_since_last")]}
    drawn = measures.paired_bootstrap(measures.auc, scores, churned, resamples, seed)
    return {
        "churn_auc": measures.interval_of(drawn["model"]),
        "churn_auc_recency_baseline": measures.interval_of(drawn["recency"]),
        "churn_auc_gain": measures.interval_of(drawn["model"] - drawn["recency"]),
        "churn_calibration_error": _exact(measures.reliability(chance, churned).error),
        "churn_share": _exact(float(churned.mean())),
    }


def judge_value(
    expected: Floats, judged: cuts.Rows, window: float, resamples: int, seed: int
) -> dict[str, Interval]:
    """Gini, Spearman and absolute error beside the average-spend baseline, with paired gains (positive is better).

    Args:
        expected: float64[M], predicted spend within ``window``.
        judged: Customers at the judged cut, watched for ``window``.
        window: Days.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
    """
    predictions = {"model": expected, "average": cuts.average_spend_baseline(judged, window)}
    found: dict[str, Interval] = {}
    for name, measure, sign in (
        ("value_gini", measures.normalized_gini, 1.0),
        ("value_spearman", measures.spearman, 1.0),
        ("value_mae", measures.mean_absolute_error, -1.0),
    ):
        drawn = measures.paired_bootstrap(measure, predictions, judged.spend, resamples, seed)
        found[name] = measures.interval_of(drawn["model"])
        found[f"{name}_average_baseline"] = measures.interval_of(drawn["average"])
        found[f"{name}_gain"] = measures.interval_of(sign * (drawn["model"] - drawn["average"]))
    found["value_total_over_actual"] = _exact(float(expected.sum() / judged.spend.sum()))
    return found


def _exact(value: float) -> Interval:
    return Interval(value, value, value)
