"""Shrinkage of effects: closed forms, and a trial whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from training.relationship.support import agreement, individual_share, pooled


def test_individual_share_by_hand() -> None:
    assert individual_share([(1.0, 0.5)]) == pytest.approx(1 - 0.25)
    assert individual_share([(2.0, 0.5)]) == pytest.approx(1 - 0.25 / 4)  # Never more than predicted.
    assert individual_share([(0.5, 0.5)]) == 0.0
    assert individual_share([(-1.0, 0.1)]) == 0.0
    assert individual_share([(0.0, float("inf"))]) == 0.0
    # Two of equal precision: slope 0.8, variance 0.02, so 0.8 (1 - 0.02 / 0.64).
    assert individual_share([(1.0, 0.2), (0.6, 0.2)]) == pytest.approx(0.8 * (1 - 0.02 / 0.64))


def test_averages_move_towards_one_another_as_far_as_they_may_be_chance() -> None:
    assert pooled([(0.1, 0.01), (0.9, 0.5)]) == [0.1, 0.9]
    assert pooled([(0.03, 0.02), (0.05, 0.02), (0.04, 0.02)]) == pytest.approx([0.04] * 3)
    # Equal errors s = 0.01 and values -0.03, 0, 0.03: Q = 18, tau^2 = (18 - 2) / (3e4 - 1e4) = 8e-4, kept 8 / 9.
    assert pooled([(-0.03, 0.01), (0.0, 0.01), (0.03, 0.01)]) == pytest.approx(
        [-0.03 * 8 / 9, 0, 0.03 * 8 / 9]
    )


def test_agreement_finds_the_slope_of_a_known_trial() -> None:
    rng = np.random.default_rng(0)
    size = 20_000
    active, score = rng.random(size), rng.normal(0.05, 0.03, size)
    treated = rng.random(size) < 0.5
    outcome = (rng.random(size) < 0.3 + 0.3 * active + treated * (0.02 + 0.6 * score)).astype(float)
    slope, error = agreement(score, treated, outcome, active[:, None], np.arange(size))
    assert abs(slope - 0.6) < 3 * error
    assert 0.2 < error < 0.6  # About 2 * sd(outcome) / (sd(score) * sqrt(size)) = 0.23.
    assert agreement(np.full(size, 0.1), treated, outcome, active[:, None], np.arange(size)) == (
        0.0,
        float("inf"),
    )
    twice = np.concatenate([np.arange(size // 2)] * 2)
    doubled = [np.concatenate([x[: size // 2]] * 2) for x in (score, treated, outcome)]
    _, clustered = agreement(*doubled, np.concatenate([active[: size // 2]] * 2)[:, None], twice)
    _, once = agreement(
        score[: size // 2],
        treated[: size // 2],
        outcome[: size // 2],
        active[: size // 2, None],
        np.arange(size // 2),
    )
    assert clustered == pytest.approx(once, rel=1e-6)  # The same customers twice say nothing new.
