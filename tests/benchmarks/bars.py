"""The bars: what each bench's numbers have to reach, as the project promised them.

A bar is (operator, number). Metrics without a bar are reported all the same.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

BARS: dict[str, dict[str, tuple[str, float]]] = {
    "next-basket": {
        "ndcg_at_10": (">=", 0.241),
        "ratio_to_best_baseline": (">=", 1.15),
        "ratio_to_personal_frequency_45d": (">=", 1.15),
        "ratio_ci_low": (">", 1.0),
        "short_history_ratio": (">", 1.0),
    },
    "point-in-time": {
        "equal_to_feast": ("==", 1),
        "equal_to_brute_force": ("==", 1),
        "speedup_over_feast": (">=", 20),
        "ratio_to_asof": ("<=", 3),
    },
    "parity": {
        "pairs": (">=", 10_000),
        "mismatches_fold": ("==", 0),
        "mismatches_online": ("==", 0),
    },
    "serving": {
        "handler_over_run_p50": ("<=", 1.3),
        "event_to_recommendation_p99_ms": ("<=", 50),
        "swaps": (">=", 50),
        "swap_failures": ("==", 0),
        "acked_events": (">=", 20_000),
        "lost_events": ("==", 0),
        "duplicated_events": ("==", 0),
    },
    "camera": {
        "server_over_model_time": ("<=", 1.2),
        "p50_ms": ("<=", 250),
        "items": ("==", 5),
    },
    "identity": {
        "precision": (">=", 0.995),
        "recall": (">=", 0.95),
        "undo_exact": ("==", 1),
    },
    "intake": {
        "linearity": ("<=", 1.25),
    },
    "moments": {
        "f1": (">=", 0.95),
        "need_auc_gain": (">=", 0.05),
        "live_equals_lake": ("==", 1),
    },
    "attribution": {
        "max_error_hand_worked": ("<=", 1e-9),
        "max_error_of_sum": ("<=", 1e-6),
    },
    "pipeline": {
        "seconds_to_first_recommendation": ("<=", 900),
        "peak_memory_gb": ("<=", 6),
        "definitions_load_seconds": ("<=", 4),
    },
    "atelier": {"events_per_second": (">=", 1_000_000 / 60)},
    "value": {
        "cdnow_largest_relative_error": ("<=", 0.01),
        "churn_auc_gain_ci_low": (">", 0),
        "value_gini_gain_ci_low": (">", 0),
    },
    "uplift": {
        "qini_ratio_to_causalml": (">=", 1.0),
    },
    "index": {
        "recall_at_10": (">=", 0.98),
        "speedup_over_exact": (">=", 20),
    },
    "quantized": {
        "detector_speedup": (">=", 1.8),
        "embedder_speedup": (">=", 1.8),
        "detector_loss": ("<=", 0.005),
        "embedder_loss": ("<=", 0.005),
    },
    "intent": {
        "auc": (">=", 0.93),
        "calibration_error": ("<=", 0.02),
    },
    "visual": {
        "grocery_r_at_1": (">=", 0.80),
        "grocery_r_at_5": (">=", 0.95),
        "products_p10_type": (">=", 0.90),
        "products_p10_type_colour": (">=", 0.60),
        "name_to_picture_r_at_10": (">=", 0.49),
        "phone_knn_accuracy": (">=", 0.92),
        "street_ap50": (">=", 0.55),
        "street_ap": (">=", 0.30),
        "drawn_ap50": (">=", 0.95),
        "outfit_fitb": (">=", 0.50),
        "outfit_auc": (">=", 0.80),
        "self_first": ("==", 1.0),
    },
    "next-action": {
        "gain_over_none_ci_low": (">", 0),
        "gain_over_all_ci_low": (">", 0),
        "gain_over_random_ci_low": (">", 0),
        "contacts_without_consent": ("==", 0),
    },
    "training-speed": {"examples_per_second_over_sasrec": (">", 1.0)},
    "catalogue-latency": {
        "p50_ms_1m_exact": ("<=", 10),
        "mismatches_10k_exact": ("==", 0),
        "mismatches_100k_exact": ("==", 0),
        "mismatches_1m_exact": ("==", 0),
        "mismatches_10m_exact": ("==", 0),
        "mismatches_1m_subitem_pruned": ("==", 0),
    },
    "sequences": {},
    "sequences-amazon-beauty": {
        "ndcg_at_10": (">=", 0.0504),
        "hr_at_10": (">=", 0.0882),
        "ndcg_over_best_published": (">", 1.0),
        "hr_over_best_published": (">", 1.0),
        "cold_over_random": (">=", 5.0),
        "cold_over_popularity": (">", 0.0),
        "seconds_to_target": ("<=", 1800),
        "cpu_times_faster_than_rectools": (">=", 2.0),
    },
    "sequences-amazon-clothing": {
        "ndcg_over_best_baseline": (">=", 1.1),
        "hr_over_best_baseline": (">=", 1.1),
    },
    "sequences-diginetica": {
        "p_at_20": (">=", 0.50),
        "mrr_at_20": (">=", 0.175),
        "hr_over_best_published": (">", 1.0),
        "mrr_over_best_published": (">", 1.0),
    },
    "sequences-yoochoose": {
        "hr_over_vsknn": (">=", 1.05),
        "mrr_over_vsknn": (">=", 1.05),
    },
}

RECORDS = tuple(name for name in BARS if name.startswith("sequences-"))
"""Records of one bench for each data set it takes; no benches themselves."""

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt, "==": operator.eq,
}  # fmt: skip


def names() -> list[str]:
    """The benches that can be run."""
    return [name for name in BARS if name not in RECORDS]


def judge(bench: str, measured: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Hold measured numbers against the bench's bars.

    Returns:
        For each bar that was measured: ``{"op", "bar", "holds"}``.
    """
    return {
        metric: {"op": op, "bar": bar, "holds": bool(_OPERATORS[op](measured[metric], bar))}
        for metric, (op, bar) in BARS.get(bench, {}).items()
        if measured.get(metric) is not None
    }
