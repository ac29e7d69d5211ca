"""The ranker and the baselines on the frozen requests.

Belongs here: per-request results, segments, their summary with intervals. Does not belong here: metrics
themselves (`training/evaluation`), plots and texts (`report.py`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from training.evaluation import metrics
from training.evaluation.baselines import Purchases, baseline_answers
from training.evaluation.metrics import Targets
from training.evaluation.statistics import Interval, mean_interval, ratio_interval
from training.ranker.data import Dataset
from training.ranker.requests import Lines, Requests

K = 10
SHORT_HISTORY = 3
"""Customers with at most this many baskets count as new."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """One system on the frozen requests.

    Attributes:
        answers: int64[R, 10], item indices, best first, -1 where there are fewer.
        values: float64[R] by metric: ndcg_at_10, recall_at_10, mrr_at_10, hit_rate_at_10, novelty_at_10.
        coverage: Share of the catalogue that is shown to anybody.
    """

    answers: Ints
    values: dict[str, Floats]
    coverage: float

    @property
    def ndcg(self) -> Floats:
        """float64[R], NDCG@10."""
        return self.values["ndcg_at_10"]


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """All systems on the frozen requests.

    Attributes:
        ranker: The ranker by request variant.
        baselines: The baselines.
        segments: bool[R] by segment of customers.
        candidate_recall: Share of what was bought that was among the ranker's candidates.
    """

    ranker: dict[str, Result]
    baselines: dict[str, Result]
    segments: dict[str, npt.NDArray[np.bool_]]
    candidate_recall: float

    @property
    def headline(self) -> Result:
        """The ranker with all that a request brings, or the only variant that was evaluated."""
        return self.ranker.get("full") or next(iter(self.ranker.values()))

    @property
    def best_baseline(self) -> str:
        """Name of the baseline with the highest mean NDCG@10."""
        return max(self.baselines, key=lambda name: float(self.baselines[name].ndcg.mean()))


def judge(answers: Ints, targets: Targets, customers_of: Floats) -> Result:
    """All metrics of some answers.

    Args:
        answers: int64[R, 10].
        targets: What was bought.
        customers_of: float64[N], customers who bought each item so far, for novelty.
    """
    values = {
        "ndcg_at_10": metrics.ndcg(answers, targets, K),
        "recall_at_10": metrics.recall(answers, targets, K),
        "mrr_at_10": metrics.mrr(answers, targets, K),
        "hit_rate_at_10": metrics.hit_rate(answers, targets, K),
        "novelty_at_10": metrics.novelty(answers, customers_of, K),
    }
    return Result(answers, values, metrics.coverage(answers, len(customers_of), K))


def ranked(data: Dataset, scores: Floats) -> Ints:
    """The ranker's answers, int64[R, 10]."""
    return metrics.top_k(scores, data.candidates.row, data.candidates.item, data.requests, K)


def baselines(lines: Lines, requests: Requests, cut: float, items: int) -> dict[str, Result]:
    """Every baseline, from all purchases before the cut."""
    purchases = lines.until(cut, items)
    customers_of = reach(purchases)
    answers = baseline_answers(purchases, requests.customer, K)
    return {name: judge(answer, requests.targets, customers_of) for name, answer in answers.items()}


def reach(purchases: Purchases) -> Floats:
    """float64[N], customers who bought each product."""
    pairs = np.unique(purchases.customer * purchases.items + purchases.item)
    return np.bincount(pairs % purchases.items, minlength=purchases.items).astype(np.float64)


def segments(lines: Lines, requests: Requests) -> dict[str, npt.NDArray[np.bool_]]:
    """Customers by how often they have bought: terciles of the number of baskets, and new customers."""
    baskets = np.array(
        [
            len(np.unique(lines.at_us[lines.before(int(row), int(at))]))
            for row, at in zip(requests.customer, requests.at_us, strict=True)
        ]
    )
    low, high = np.quantile(baskets, [1 / 3, 2 / 3]) if len(baskets) else (0.0, 0.0)
    return {
        "rare": baskets <= low,
        "regular": (baskets > low) & (baskets <= high),
        "frequent": baskets > high,
        "new": baskets <= SHORT_HISTORY,
    }


def summary(evaluation: Evaluation, seed: int) -> dict[str, float | tuple[float, float, float]]:
    """Numbers by name; those with an interval as (value, low, high).

    Keys: the headline's metrics; ``<variant>_ndcg_at_10``; ``baseline_<name>_ndcg_at_10``;
    ``best_baseline_ndcg_at_10``; ``ratio_to_best_baseline``; ``segment_<name>_ndcg_at_10`` with
    ``_best_baseline`` beside it and the number of requests; segments without requests are left out.
    """
    head = evaluation.headline
    triple = functools.partial(_triple, seed=seed)
    best = evaluation.baselines[evaluation.best_baseline]
    numbers: dict[str, float | tuple[float, float, float]] = {
        name: triple(v) for name, v in head.values.items()
    }
    numbers |= {"coverage_at_10": head.coverage, "candidate_recall": evaluation.candidate_recall}
    for variant, result in evaluation.ranker.items():
        numbers[f"variant_{variant}_ndcg_at_10"] = triple(result.ndcg)
    for name, result in evaluation.baselines.items():
        numbers[f"baseline_{name}_ndcg_at_10"] = triple(result.ndcg)
        numbers[f"baseline_{name}_recall_at_10"] = float(result.values["recall_at_10"].mean())
    numbers["best_baseline_ndcg_at_10"] = float(best.ndcg.mean())
    numbers["ratio_to_best_baseline"] = _flat(ratio_interval(head.ndcg, best.ndcg, seed))
    for name, inside in evaluation.segments.items():
        if inside.any():
            numbers[f"segment_{name}_ndcg_at_10"] = triple(head.ndcg[inside])
            numbers[f"segment_{name}_best_baseline_ndcg_at_10"] = _best_mean(evaluation.baselines, inside)
            numbers[f"segment_{name}_requests"] = float(inside.sum())
    return numbers


def _best_mean(results: Mapping[str, Result], inside: npt.NDArray[np.bool_]) -> float:
    return max(float(result.ndcg[inside].mean()) for result in results.values())


def _triple(values: Floats, seed: int) -> tuple[float, float, float]:
    return _flat(mean_interval(values, seed))


def _flat(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high
