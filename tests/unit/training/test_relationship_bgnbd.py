"""BG/NBD and Gamma-Gamma against integrals, simulation and the formulas of the papers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, optimize, stats

from training.relationship import bgnbd, gammagamma
from training.relationship.bgnbd import BgNbd, FitError
from training.relationship.gammagamma import GammaGamma

CDNOW = BgNbd(0.2426, 4.4135, 0.7929, 2.4258)


def simulate(model: BgNbd, size: int, until: float, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Frequency, recency, age and whether alive, from the story of the paper."""
    rng = np.random.default_rng(seed)
    rate = rng.gamma(model.r, 1 / model.alpha, size)
    leave = rng.beta(model.a, model.b, size)
    frequency, recency, alive = np.zeros(size), np.zeros(size), np.ones(size, bool)
    now = np.zeros(size)
    active = np.ones(size, bool)
    while active.any():
        now = now + rng.exponential(1 / np.maximum(rate, 1e-12))
        active &= now < until
        frequency[active] += 1
        recency[active] = now[active]
        gone = active & (rng.random(size) < leave)
        alive[gone] = False
        active &= ~gone
    return frequency, recency, np.full(size, until), alive


def likelihood_by_integral(model: BgNbd, x: int, t_x: float, T: float) -> float:
    """The individual likelihood (equation 3 of the paper) integrated over both mixing densities."""

    def individual(p: float, rate: float) -> float:
        alive = (1 - p) ** x * rate**x * np.exp(-rate * T)
        left = p * (1 - p) ** max(x - 1, 0) * rate**x * np.exp(-rate * t_x) if x else 0.0
        return (
            (alive + left)
            * stats.gamma.pdf(rate, model.r, scale=1 / model.alpha)
            * stats.beta.pdf(p, model.a, model.b)
        )

    return integrate.dblquad(individual, 0, 20, 0, 1, epsabs=1e-9, epsrel=1e-6)[0]


@pytest.mark.parametrize(("x", "t_x", "T"), [(0, 0.0, 10.0), (1, 3.0, 10.0), (4, 8.5, 10.0)])
def test_likelihood_is_the_integral_over_customers(x: int, t_x: float, T: float) -> None:
    model = BgNbd(1.5, 4.0, 1.8, 2.5)
    found, _ = bgnbd.log_likelihood(
        np.array([1.5, 4.0, 1.8, 2.5]), np.array([float(x)]), np.array([t_x]), np.array([T])
    )
    assert found == pytest.approx(np.log(likelihood_by_integral(model, x, t_x, T)), abs=1e-4)


def test_gradient_is_that_of_finite_differences() -> None:
    x, t_x, T, _ = simulate(CDNOW, 300, 40.0)
    at = np.array([0.4, 5.0, 0.8, 2.0])
    _, found = bgnbd.log_likelihood(at, x, t_x, T)
    numeric = optimize.approx_fprime(at, lambda p: bgnbd.log_likelihood(p, x, t_x, T)[0], 1e-7)
    np.testing.assert_allclose(found, numeric, rtol=1e-4)


def test_fit_recovers_what_was_simulated() -> None:
    truth = BgNbd(0.8, 6.0, 0.9, 2.5)
    x, t_x, T, _ = simulate(truth, 20_000, 60.0)
    found = bgnbd.fit(x, t_x, T)
    assert found.r == pytest.approx(truth.r, rel=0.08)
    assert found.alpha == pytest.approx(truth.alpha, rel=0.08)
    assert found.a / (found.a + found.b) == pytest.approx(truth.a / (truth.a + truth.b), rel=0.08)
    assert found.log_likelihood >= bgnbd.log_likelihood(np.array([0.8, 6.0, 0.9, 2.5]), x, t_x, T)[0]


def test_fit_does_not_depend_on_the_unit_of_time() -> None:
    x, t_x, T, _ = simulate(CDNOW, 3000, 39.0)
    weeks, days = bgnbd.fit(x, t_x, T), bgnbd.fit(x, 7 * t_x, 7 * T)
    assert days.alpha == pytest.approx(7 * weeks.alpha, rel=1e-3)
    assert (days.r, days.a, days.b) == pytest.approx((weeks.r, weeks.a, weeks.b), rel=1e-3)


def test_p_alive_is_the_share_alive_in_simulation() -> None:
    truth = BgNbd(1.0, 3.0, 1.2, 3.0)
    x, t_x, T, alive = simulate(truth, 200_000, 20.0)
    expected = truth.p_alive(x, t_x, T)
    for low, high in ((0.0, 0.3), (0.3, 0.7), (0.7, 1.01)):
        inside = (expected >= low) & (expected < high)
        assert alive[inside].mean() == pytest.approx(expected[inside].mean(), abs=0.01)
    assert CDNOW.p_alive(np.zeros(1), np.zeros(1), np.array([50.0]))[0] == 1.0


@pytest.mark.parametrize("a", [0.02, 0.7929, 1.0, 2.4])
def test_expected_purchases_is_the_integral_of_the_posterior(a: float) -> None:
    model = BgNbd(0.9, 5.0, a, 2.5)
    x, t_x, T, t = 3.0, 12.0, 20.0, 26.0
    rate = model.alpha + T

    def purchases(p: float) -> float:
        return (1 - (rate / (rate + p * t)) ** (model.r + x)) / p * stats.beta.pdf(p, a, model.b + x)

    whole = sum(
        integrate.quad(purchases, low, high, limit=200)[0]
        for low, high in ((1e-12, 1e-9), (1e-9, 1e-6), (1e-6, 1e-4), (1e-4, 1e-2), (1e-2, 0.1), (0.1, 1))
    )
    tail = stats.beta.cdf(1e-12, a, model.b + x) * (model.r + x) * t / rate
    counts = (np.array([x]), np.array([t_x]), np.array([T]))
    expected = (whole + tail) * model.p_alive(*counts)[0]
    assert model.expected_purchases(t, *counts)[0] == pytest.approx(expected, rel=1e-4)


def test_expected_purchases_stays_finite_for_hundreds_of_purchases() -> None:
    x = np.array([0.0, 1.0, 50.0, 400.0, 2000.0])
    t_x, T = np.where(x > 0, 365.0, 0.0), np.full(5, 365.0)
    found = CDNOW.expected_purchases(91.0, x, t_x, T)
    assert np.isfinite(found).all()
    assert (np.diff(found) > 0).all()
    np.testing.assert_array_equal(CDNOW.expected_purchases(0.0, x, t_x, T), 0)


def test_counts_that_cannot_be_are_named() -> None:
    fine = np.array([1.0, 2.0])
    with pytest.raises(ValueError, match="frequency of customer 1 is -2"):
        bgnbd.fit(np.array([1.0, -2.0]), fine, fine + 3)
    with pytest.raises(ValueError, match=r"age of customer 0 is 0\.5; expected a finite time not before"):
        bgnbd.fit(fine, fine, np.array([0.5, 9.0]))
    with pytest.raises(
        ValueError, match=r"recency of customer 0 is 1\.0; expected 0 for a customer without repeat"
    ):
        bgnbd.fit(np.array([0.0, 1.0]), fine, fine + 3)
    with pytest.raises(ValueError, match="0 for every customer"):
        bgnbd.fit(np.zeros(3), np.zeros(3), np.ones(3))
    with pytest.raises(ValueError, match=r"horizon is -1\.0"):
        CDNOW.expected_purchases(-1.0, fine, fine, fine + 3)


def test_a_shop_that_nobody_leaves_is_said_to_be_so() -> None:
    rng = np.random.default_rng(0)
    x = rng.poisson(20, 400).astype(float) + 1
    with pytest.raises(FitError, match="edge of the search"):
        bgnbd.fit(x, np.full(400, 99.999), np.full(400, 100.0))


def test_gamma_gamma_recovers_what_was_simulated_and_shrinks() -> None:
    rng = np.random.default_rng(1)
    truth = GammaGamma(6.25, 3.74, 15.44)
    x = rng.integers(1, 8, 30_000).astype(float)
    scale = rng.gamma(truth.q, 1 / truth.v, len(x))
    average = rng.gamma(truth.p * x) / scale / x
    found = gammagamma.fit(x, average)
    assert (found.p, found.q, found.v) == pytest.approx((truth.p, truth.q, truth.v), rel=0.08)
    mean = truth.p * truth.v / (truth.q - 1)
    shrunk = truth.expected_spend(np.array([0.0, 1.0, 100.0]), np.array([0.0, 3 * mean, 3 * mean]))
    assert shrunk[0] == pytest.approx(mean)
    assert mean < shrunk[1] < shrunk[2] < 3 * mean


def test_lifetime_value_adds_up_and_discounts() -> None:
    counts = (np.array([2.0, 0.0]), np.array([30.0, 0.0]), np.array([38.0, 38.0]))
    spend = np.array([10.0, 20.0])
    plain = gammagamma.lifetime_value(counts, spend, CDNOW, 39.0, steps=5)
    np.testing.assert_allclose(plain, CDNOW.expected_purchases(39.0, *counts) * spend)
    one = gammagamma.lifetime_value(counts, spend, CDNOW, 39.0, discount=0.25, steps=1)
    np.testing.assert_allclose(one, plain / 1.25)
    with pytest.raises(ValueError, match=r"discount is -0\.1"):
        gammagamma.lifetime_value(counts, spend, CDNOW, 39.0, discount=-0.1)


def test_spend_that_cannot_be_is_named() -> None:
    with pytest.raises(ValueError, match=r"average of customer 1 is 0\.0"):
        gammagamma.fit(np.array([1.0, 1.0]), np.array([3.0, 0.0]))
    with pytest.raises(ValueError, match=r"q is 0\.900"):
        GammaGamma(1.0, 0.9, 1.0).expected_spend(np.zeros(1), np.zeros(1))
