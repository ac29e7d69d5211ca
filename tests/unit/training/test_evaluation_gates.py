"""Intervals and the gate."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.gates import gate
from training.evaluation.statistics import difference_interval, mean_interval, ratio_interval

RNG = np.random.default_rng(5)
BASE = RNG.random(400)


def test_the_interval_of_a_mean_is_that_of_normal_theory() -> None:
    found = mean_interval(BASE, seed=1)
    half = 1.96 * BASE.std() / np.sqrt(len(BASE))
    assert found.value == pytest.approx(BASE.mean())
    assert found.low == pytest.approx(BASE.mean() - half, abs=0.2 * half)
    assert found.high == pytest.approx(BASE.mean() + half, abs=0.2 * half)


def test_pairing_removes_what_is_hard_for_both() -> None:
    better = BASE + 0.02
    found = difference_interval(better, BASE)
    assert found.low == pytest.approx(0.02)
    assert found.high == pytest.approx(0.02)
    assert ratio_interval(better, BASE).low > 1


def test_the_same_seed_gives_the_same_interval() -> None:
    assert mean_interval(BASE, seed=3) == mean_interval(BASE, seed=3)


@pytest.mark.parametrize(("left", "right"), [(np.zeros(0), np.zeros(0)), (np.zeros(3), np.zeros(4))])
def test_vectors_that_do_not_pair_are_refused(left: np.ndarray, right: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected one length of at least 1"):
        difference_interval(left, right)


def test_a_challenger_that_beats_everybody_passes() -> None:
    found = gate(BASE + 0.05, BASE, {"popular": BASE - 0.1, "counts": BASE})
    assert found.passed
    assert set(found.intervals) == {"champion_difference", "popular_ratio", "counts_ratio"}
    assert "beats the best baseline (counts)" in found.reasons[1]
    assert found.numbers["champion_difference_low"] > 0


def test_a_challenger_that_loses_to_the_champion_is_refused() -> None:
    found = gate(BASE + 0.05, BASE + 0.1, {"counts": BASE - 0.2})
    assert not found.passed
    assert "loses to the champion" in found.reasons[0]


@pytest.mark.parametrize(("margin", "passes"), [(0.09, False), (0.11, True)])
def test_a_margin_allows_so_much_of_the_champions_mean(margin: float, passes: bool) -> None:
    found = gate(0.9 * BASE, BASE, {"counts": BASE - 0.2}, most_loss=margin)
    wide = found.intervals["champion_difference"]
    assert wide.high < 0
    assert found.passed == (wide.high >= -margin * BASE.mean()) == passes
    assert f"{margin * BASE.mean():.4f} worse is allowed" in found.reasons[0]


def test_a_tie_with_the_champion_within_the_interval_passes() -> None:
    noise = RNG.normal(0, 0.1, len(BASE))
    assert gate(BASE + noise - noise.mean() - 0.001, BASE, {"counts": BASE - 0.2}).passed


def test_a_first_champion_needs_to_beat_the_best_baseline() -> None:
    found = gate(BASE, None, {"popular": BASE - 0.3, "counts": BASE})
    assert not found.passed
    assert found.reasons[0].startswith("does not beat the best baseline (counts)")


def test_a_gate_without_baselines_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one baseline"):
        gate(BASE, None, {})
