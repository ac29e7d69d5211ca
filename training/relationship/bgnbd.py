"""BG/NBD: how often a customer will buy, and whether they still do (Fader, Hardie and Lee 2005).

While alive, a customer buys at a Poisson rate that is gamma(r, alpha) over customers; after every repeat
purchase they leave for good with a probability that is beta(a, b) over customers. Everything here is
vectorised over customers; the units of time are the caller's (weeks on CDNOW, days on a lake).

Belongs here: the likelihood, its fit, expectations. Does not belong here: spend (`gammagamma.py`), where the
counts come from (`summaries.py`).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

Floats = npt.NDArray[np.float64]

STARTS = ((1.0, 1.0, 1.0, 1.0), (0.3, 5.0, 0.5, 3.0), (1.0, 10.0, 0.1, 5.0))
BOUND = 14.0
EDGE = 0.5
"""How near to the bound counts as at it: the likelihood is flat there, and where a search stops differs by machine."""

NEAR_ONE = 1e-6


class FitError(RuntimeError):
    """A likelihood found no maximum; the message says where the search ended."""


@dataclasses.dataclass(frozen=True)
class BgNbd:
    """A fitted BG/NBD model.

    Attributes:
        r: Shape of the gamma over purchase rates.
        alpha: Its rate, in units of time.
        a: First parameter of the beta over the probability to leave.
        b: Its second.
        log_likelihood: Total, at the maximum.
        customers: How many it was fitted on.
    """

    r: float
    alpha: float
    a: float
    b: float
    log_likelihood: float = float("nan")
    customers: int = 0

    def p_alive(self, frequency: Floats, recency: Floats, age: Floats) -> Floats:
        """Probability that customers still buy at the end of their observation.

        Args:
            frequency: float64[C], repeat purchases.
            recency: float64[C], time of the last purchase since the first, 0 without repeats.
            age: float64[C], time observed since the first purchase.

        Returns:
            float64[C] in [0, 1]; 1 for customers without a repeat, whom the model cannot have lost.
        """
        x, t_x, T = check_counts(frequency, recency, age)
        log_odds = (
            np.log(self.a)
            - np.log(self.b + np.maximum(x, 1) - 1)
            + (self.r + x) * (np.log(self.alpha + T) - np.log(self.alpha + t_x))
        )
        return np.where(x > 0, special.expit(-log_odds), 1.0)

    def expected_purchases(
        self, horizon: Floats | float, frequency: Floats, recency: Floats, age: Floats
    ) -> Floats:
        """Purchases expected in the time after the observation (equation 10 of the paper).

        The hypergeometric function is taken after Euler's transformation, in which the number of purchases
        appears in one denominator only: the form of the paper overflows for customers with hundreds of them.

        Args:
            horizon: Length of that time, at least 0; one number or float64[C].
            frequency: As in `p_alive`.
            recency: As in `p_alive`.
            age: As in `p_alive`.

        Returns:
            float64[C].

        Raises:
            ValueError: A horizon is negative, or counts do not fit together.
        """
        x, t_x, T = check_counts(frequency, recency, age)
        t = np.asarray(horizon, np.float64)
        if np.any(~(t >= 0)):
            raise ValueError(f"horizon is {float(np.min(t))}; expected at least 0")
        a = (
            self.a if abs(self.a - 1) > NEAR_ONE else 1 + NEAR_ONE
        )  # the limit at 1 exists, the formula does not
        whole = a + self.b + x - 1
        z = t / (self.alpha + T + t)
        shrunk = (1 - z) ** (a - 1) * special.hyp2f1(a + self.b - 1 - self.r, a - 1, whole, z)
        return whole / (a - 1) * (1 - shrunk) * self.p_alive(x, t_x, T)


def check_counts(frequency: Floats, recency: Floats, age: Floats) -> tuple[Floats, Floats, Floats]:
    """The three counts as float64, if they can be true.

    Raises:
        ValueError: Shapes differ, a value is not finite or negative, or a recency is beyond its age; the
            message names the first customer's place.
    """
    x, t_x, T = (np.asarray(value, np.float64) for value in (frequency, recency, age))
    if x.ndim != 1 or x.shape != t_x.shape or x.shape != T.shape:
        raise ValueError(
            f"frequency, recency and age have shapes {x.shape}, {t_x.shape}, {T.shape}; expected one float64[C]"
        )
    rules = (
        ("frequency", ~(np.isfinite(x) & (x >= 0)), "a finite number of at least 0"),
        ("recency", ~(np.isfinite(t_x) & (t_x >= 0)), "a finite time of at least 0"),
        ("age", ~(np.isfinite(T) & (t_x <= T + 1e-9)), "a finite time not before the recency"),
        ("recency", (x == 0) & (t_x > 0), "0 for a customer without repeat purchases"),
    )
    for name, wrong, expected in rules:
        if wrong.any():
            place = int(np.flatnonzero(wrong)[0])
            value = {"frequency": x, "recency": t_x, "age": T}[name][place]
            raise ValueError(f"{name} of customer {place} is {value}; expected {expected}")
    return x, t_x, T


def log_likelihood(params: Floats, x: Floats, t_x: Floats, T: Floats) -> tuple[float, Floats]:
    """Total log-likelihood and its gradient in (r, alpha, a, b) (equation 6 of the paper)."""
    r, alpha, a, b = params
    repeat = x > 0
    ends = -(r + x) * np.log(alpha + T)
    left = np.where(
        repeat, np.log(a) - np.log(b + np.maximum(x, 1) - 1) - (r + x) * np.log(alpha + t_x), -np.inf
    )
    either = np.logaddexp(ends, left)
    total = (
        special.gammaln(r + x) - special.gammaln(r) + r * np.log(alpha)
        + special.gammaln(a + b) + special.gammaln(b + x) - special.gammaln(b) - special.gammaln(a + b + x)
        + either
    )  # fmt: skip
    alive, gone = np.exp(ends - either), np.exp(left - either)
    both = special.psi(a + b) - special.psi(a + b + x)
    gradient = np.array(
        [
            np.sum(special.psi(r + x) - special.psi(r) + np.log(alpha)
                   - alive * np.log(alpha + T) - gone * np.log(alpha + t_x)),
            np.sum(r / alpha - alive * (r + x) / (alpha + T) - gone * (r + x) / (alpha + t_x)),
            np.sum(both + gone / a),
            np.sum(both + special.psi(b + x) - special.psi(b) - gone / (b + np.maximum(x, 1) - 1)),
        ]
    )  # fmt: skip
    return float(total.sum()), gradient


def fit(frequency: Floats, recency: Floats, age: Floats) -> BgNbd:
    """Maximum likelihood from several starts, over logarithms of the four parameters.

    Args:
        frequency: float64[C], repeat purchases.
        recency: float64[C], time of the last purchase since the first.
        age: float64[C], time observed since the first purchase.

    Raises:
        ValueError: Counts do not fit together, or nobody bought twice.
        FitError: The best point lies at the edge of what is searched (parameters within exp(-14) and exp(14)):
            the data does not determine them, for example because nobody ever leaves.
    """
    x, t_x, T = check_counts(frequency, recency, age)
    if not np.any(x > 0):
        raise ValueError("frequency is 0 for every customer; expected some repeat purchases to fit on")
    scale = float(T.max())

    def loss(log_params: Floats) -> tuple[float, Floats]:
        params = np.exp(log_params)
        value, gradient = log_likelihood(params, x, t_x / scale, T / scale)
        return -value / len(x), -gradient * params / len(x)

    best: optimize.OptimizeResult | None = None
    for start in STARTS:
        r, alpha, a, b = start
        found = optimize.minimize(
            loss, np.log([r, alpha / 20, a, b]), jac=True, method="L-BFGS-B",
            bounds=[(-BOUND, BOUND)] * 4, options={"maxiter": 1000, "ftol": 1e-13, "gtol": 1e-8},
        )  # fmt: skip
        if best is None or found.fun < best.fun:
            best = found
    assert best is not None
    if not np.isfinite(best.fun) or np.any(np.abs(best.x) > BOUND - EDGE):
        raise FitError(
            f"BG/NBD ended at the edge of the search with log parameters {np.round(best.x, 2).tolist()}; "
            "expected a maximum inside: the data does not tell buying rarely from having left"
        )
    r, alpha, a, b = np.exp(best.x).tolist()
    params = np.array([r, alpha * scale, a, b])
    return BgNbd(r, alpha * scale, a, b, log_likelihood(params, x, t_x, T)[0], len(x))
