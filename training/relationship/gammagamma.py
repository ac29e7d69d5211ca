"""Gamma-Gamma: what a customer spends per purchase (Fader and Hardie 2013), and value over a horizon.

A customer's purchases scatter around their own mean, which is inverse-gamma distributed over customers; the
estimate shrinks a customer's average towards everyone's, the more so the fewer purchases there are. It
assumes that spend and frequency are independent.

Belongs here: the fit, expected spend, lifetime value. Does not belong here: how many purchases (`bgnbd.py`).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from training.relationship.bgnbd import BgNbd, FitError

Floats = npt.NDArray[np.float64]

BOUND = 14.0
STEPS = 12


@dataclasses.dataclass(frozen=True)
class GammaGamma:
    """A fitted Gamma-Gamma model.

    Attributes:
        p: Shape of one purchase's gamma.
        q: Shape of the gamma over customers.
        v: Its scale, in money.
        customers: How many it was fitted on.
    """

    p: float
    q: float
    v: float
    customers: int = 0

    def expected_spend(self, purchases: Floats, average: Floats) -> Floats:
        """Mean spend per purchase expected of customers.

        Args:
            purchases: float64[C], purchases behind the average, at least 0.
            average: float64[C], their average spend; ignored where there are none.

        Returns:
            float64[C]; everyone's mean, ``p v / (q - 1)``, for customers without purchases.

        Raises:
            ValueError: q is at most 1 and a customer has no purchases: the mean does not exist.
        """
        x, m = np.asarray(purchases, np.float64), np.asarray(average, np.float64)
        if self.q <= 1 and np.any(x == 0):
            raise ValueError(
                f"q is {self.q:.3f}, so the mean over customers is infinite; expected purchases of each"
            )
        return self.p * (self.v + x * np.where(x > 0, m, 0.0)) / (self.p * x + self.q - 1)


def fit(purchases: Floats, average: Floats) -> GammaGamma:
    """Maximum likelihood over logarithms of the three parameters.

    Args:
        purchases: float64[C], purchases behind the average, each at least 1.
        average: float64[C], average spend, each above 0.

    Raises:
        ValueError: A count is below 1 or an average not positive; the message names the customer's place.
        FitError: The data does not determine the parameters.
    """
    x, m = np.asarray(purchases, np.float64), np.asarray(average, np.float64)
    if x.shape != m.shape or x.ndim != 1 or not len(x):
        raise ValueError(
            f"purchases and average have shapes {x.shape}, {m.shape}; expected one float64[C], C >= 1"
        )
    for name, values, wrong, expected in (
        ("purchases", x, ~(x >= 1), "at least 1"),
        ("average", m, ~(np.isfinite(m) & (m > 0)), "a finite amount above 0"),
    ):
        if wrong.any():
            place = int(np.flatnonzero(wrong)[0])
            raise ValueError(f"{name} of customer {place} is {values[place]}; expected {expected}")
    scale = float(np.average(m, weights=x))
    money = m / scale

    def loss(log_params: Floats) -> tuple[float, Floats]:
        p, q, v = np.exp(log_params)
        shape, mass = p * x, v + x * money
        value = (
            special.gammaln(shape + q) - special.gammaln(shape) - special.gammaln(q) + q * np.log(v)
            + (shape - 1) * np.log(money) + shape * np.log(x) - (shape + q) * np.log(mass)
        )  # fmt: skip
        joint = special.psi(shape + q)
        gradient = np.array(
            [
                np.sum(x * (joint - special.psi(shape) + np.log(money) + np.log(x) - np.log(mass))),
                np.sum(joint - special.psi(q) + np.log(v) - np.log(mass)),
                np.sum(q / v - (shape + q) / mass),
            ]
        )
        return -float(value.mean()), -gradient * np.array([p, q, v]) / len(x)

    found = optimize.minimize(
        loss, np.zeros(3), jac=True, method="L-BFGS-B", bounds=[(-BOUND, BOUND)] * 3,
        options={"maxiter": 1000, "ftol": 1e-13, "gtol": 1e-8},
    )  # fmt: skip
    if not np.isfinite(found.fun) or np.any(np.abs(found.x) > BOUND - 1e-3):
        raise FitError(
            f"Gamma-Gamma ended at the edge of the search with log parameters {np.round(found.x, 2).tolist()}; "
            "expected a maximum inside"
        )
    p, q, v = np.exp(found.x).tolist()
    return GammaGamma(p, q, v * scale, len(x))


def lifetime_value(
    counts: tuple[Floats, Floats, Floats],
    spend: Floats,
    buying: BgNbd,
    horizon: float,
    discount: float = 0.0,
    steps: int = STEPS,
) -> Floats:
    """Spend expected over a horizon, discounted.

    Args:
        counts: frequency, recency and age, each float64[C].
        spend: float64[C], expected spend per purchase.
        buying: Who will buy how often.
        horizon: Length of the time after the observation, above 0, in the model's unit.
        discount: Rate per step; 0 for none. Each step's purchases are counted at its end.
        steps: Equal parts of the horizon.

    Returns:
        float64[C], money.

    Raises:
        ValueError: The horizon, the rate or the steps make no sense.
    """
    for name, value, right, expected in (
        ("horizon", horizon, horizon > 0, "above 0"),
        ("discount", discount, discount >= 0, "at least 0"),
        ("steps", steps, steps >= 1, "at least 1"),
    ):
        if not right:
            raise ValueError(f"{name} is {value}; expected {expected}")
    times = np.linspace(0, horizon, steps + 1)[1:]
    so_far = np.stack([buying.expected_purchases(float(time), *counts) for time in times])
    new = np.diff(so_far, axis=0, prepend=0.0)
    weights = (1 + discount) ** -np.arange(1, steps + 1, dtype=np.float64)
    return (weights @ new) * np.asarray(spend, np.float64)
