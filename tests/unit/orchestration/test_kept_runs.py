"""Kept runs of benches hold every number that the project promised to report, and the page is rendered from them."""

from __future__ import annotations

import json

import pytest

from tests.benchmarks.report import ABOUT, KEPT

METHODS = ("first_touch", "last_touch", "linear", "markov_1", "markov_2", "markov_3", "shapley")
PROMISED = {
    "identity": {"precision", "recall"},
    "moments": {"f1", "need_auc", "need_auc_gain", "live_equals_lake"},
    "attribution": {"max_error_hand_worked", *(f"distance_{method}" for method in METHODS)},
    "value": {"cdnow_r", "cdnow_alpha", "cdnow_a", "cdnow_b"},
    "uplift": {"qini_mens", "qini_womens", "qini_ratio_to_causalml"},
    "intent": {"auc", "calibration_error"},
    "intake": {"events", "rows_per_second", "ratio_to_scan", "speedup_over_pandas", "linearity"},
    "atelier": {"events_per_second"},
}  # fmt: skip


@pytest.mark.parametrize("name", PROMISED)
def test_every_promised_number_was_measured(name: str) -> None:
    kept = json.loads((KEPT / f"{name}.json").read_text())
    assert PROMISED[name] <= set(kept["measured"])
    assert kept["setup"]["quick"] is False
    assert name in ABOUT


def test_intake_goes_the_whole_way() -> None:
    kept = json.loads((KEPT / "intake.json").read_text())
    assert kept["setup"]["stages"] == "read land identity moments features"
    assert kept["measured"]["events"] == 10_000_000
