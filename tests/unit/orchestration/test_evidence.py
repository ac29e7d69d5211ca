"""Population stability index: a hand-worked case and its properties."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.evidence import population_stability_index

COUNTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 10_000), min_size=1)


def test_hand_worked() -> None:
    # Shares with half a count added: reference (9.5, 1.5) / 11, current (4.5, 6.5) / 11.
    expected = (4.5 - 9.5) / 11 * math.log(4.5 / 9.5) + (6.5 - 1.5) / 11 * math.log(6.5 / 1.5)
    assert population_stability_index({"a": 9, "b": 1}, {"a": 4, "b": 6}) == pytest.approx(
        expected, abs=1e-12
    )


@given(COUNTS)
def test_equal_samples_do_not_drift(counts: dict[str, int]) -> None:
    assert population_stability_index(counts, counts) == pytest.approx(0, abs=1e-12)


@given(COUNTS, COUNTS)
def test_drift_is_symmetric_and_never_negative(left: dict[str, int], right: dict[str, int]) -> None:
    forth = population_stability_index(left, right)
    assert forth >= -1e-12
    assert forth == pytest.approx(population_stability_index(right, left), abs=1e-9)
