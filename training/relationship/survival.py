"""Days to the next purchase as a survival curve: a discrete-time hazard network.

Time after the cut is cut into intervals; the network gives, for each, the probability that the customer buys in
it if they have not bought before (Gensheimer and Narasimhan 2019, "nnet-survival"). Customers whose
observation ends early are learned from up to that point. Churn within N days is the survival at N.

Belongs here: likelihood, fit, curves. Does not belong here: features (`summaries.py`), export (`export.py`).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from training.relationship.network import Network, NetworkParams, fit_network, outputs_of

Floats = npt.NDArray[np.float64]

EDGES = (1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 14.0, 21.0, 28.0, 42.0, 56.0)


class SurvivalHead(nn.Module):
    """Features float32[M, F] to survival float32[M, K] at the end of each interval."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Probability of no purchase until each edge."""
        return torch.exp(torch.cumsum(nn.functional.logsigmoid(-self.network(features)), dim=1))


@dataclasses.dataclass(frozen=True, eq=False)
class Survival:
    """A fitted survival model.

    Attributes:
        head: The network with its head.
        edges: Ends of the intervals, days.
        curve: Validation loss by epoch.
    """

    head: SurvivalHead
    edges: tuple[float, ...]
    curve: tuple[float, ...]

    def survival(self, X: npt.ArrayLike) -> Floats:
        """float64[M, K]: probability of no purchase until each edge."""
        return outputs_of(self.head, X)

    def churn(self, X: npt.ArrayLike, days: float) -> Floats:
        """Probability of no purchase within so many days.

        Args:
            X: float64[M, F].
            days: Between 0 and the last edge; between edges it is interpolated geometrically.

        Raises:
            ValueError: Days outside of what the model has learned.
        """
        if not 0 < days <= self.edges[-1]:
            raise ValueError(f"days is {days}; expected more than 0 and at most {self.edges[-1]}")
        log_survival = np.log(np.maximum(self.survival(X), 1e-12))
        grid = np.concatenate([[0.0], self.edges])
        padded = np.column_stack([np.zeros(len(log_survival)), log_survival])
        place = int(np.searchsorted(grid, days))
        share = (days - grid[place - 1]) / (grid[place] - grid[place - 1])
        return np.exp((1 - share) * padded[:, place - 1] + share * padded[:, place])

    def median_days(self, X: npt.ArrayLike) -> Floats:
        """float64[M]: first edge by which a purchase is more likely than not; infinite beyond the last."""
        below = self.survival(X) <= 0.5
        return np.where(below.any(axis=1), np.asarray(self.edges)[below.argmax(axis=1)], np.inf)


def targets(days: Floats, observed: Floats, edges: tuple[float, ...] = EDGES) -> Floats:
    """Which intervals a customer was seen through, and in which one they bought.

    Args:
        days: float64[M], days to the next purchase, infinite where none was seen.
        observed: float64[M], days that were watched; later purchases do not count.
        edges: Ends of the intervals.

    Returns:
        float64[M, 2, K]: at risk (0, 1) and bought (0, 1). An interval that ends after the watch counts for
        nothing: learning from its purchases alone would make everybody look quicker.

    Raises:
        ValueError: A number is negative or not a number.
    """
    days, observed = np.asarray(days, np.float64), np.asarray(observed, np.float64)
    for name, values in (("days", days), ("observed", observed)):
        if not np.all(values >= 0):
            raise ValueError(f"{name} of customer {int(np.flatnonzero(~(values >= 0))[0])} is not at least 0")
    stop = np.asarray(edges)
    start = np.concatenate([[0.0], stop[:-1]])
    seen = np.where(days < observed, days, np.inf)[:, None]
    whole = observed[:, None] >= stop
    bought = (seen >= start) & (seen < stop) & whole
    through = (seen >= stop) & whole
    return np.stack([bought | through, bought], axis=1).astype(np.float64)


def loss(outputs: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood per customer."""
    risk, bought = wanted[:, 0], wanted[:, 1]
    each = nn.functional.binary_cross_entropy_with_logits(outputs, bought, weight=risk, reduction="sum")
    return each / len(outputs)


def fit(
    X: Floats,
    wanted: Floats,
    validation: tuple[Floats, Floats],
    params: NetworkParams | None = None,
    edges: tuple[float, ...] = EDGES,
    seed: int = 0,
) -> Survival:
    """Fit on customers at earlier cuts.

    Args:
        X: float64[M, F].
        wanted: float64[M, 2, K], see `targets`.
        validation: The same of a later cut; chooses the epoch.
        params: Shape and training.
        edges: Ends of the intervals, ascending.
        seed: Of weights and batches.

    Raises:
        ValueError: Edges are not ascending, or shapes do not fit.
    """
    if list(edges) != sorted(set(edges)) or edges[0] <= 0:
        raise ValueError(f"edges are {edges}; expected ascending numbers of days above 0")
    if wanted.shape[1:] != (2, len(edges)):
        raise ValueError(f"wanted has shape {wanted.shape}; expected (M, 2, {len(edges)})")
    network, curve = fit_network(X, wanted, validation, len(edges), loss, params or NetworkParams(), seed)
    return Survival(SurvivalHead(network).eval(), tuple(edges), tuple(curve))
