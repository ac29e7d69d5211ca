"""Future spend as a zero-inflated lognormal network (Wang, Liu and Miao 2019).

One network gives the probability of spending at all and the location and scale of the logarithm of what is spent;
the expected value is their product with the lognormal's mean.

Belongs here: the loss, the fit, expectations. Does not belong here: features (`summaries.py`).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from training.relationship.network import Network, NetworkParams, fit_network, outputs_of

Floats = npt.NDArray[np.float64]

SMALLEST_SCALE, LARGEST_SCALE = 0.05, 3.0


class ValueHead(nn.Module):
    """Features float32[M, F] to float32[M, 3]: probability to spend, mean spend, median spend if any."""

    def __init__(self, network: Network, unit: float) -> None:
        super().__init__()
        self.network = network
        self.unit = unit

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Probability, expected spend, median of the positive part."""
        spends, place, scale = split(self.network(features))
        chance = torch.sigmoid(spends)
        mean = chance * torch.exp(place + scale**2 / 2) * self.unit
        return torch.stack([chance, mean, torch.exp(place) * self.unit], dim=1)


@dataclasses.dataclass(frozen=True, eq=False)
class Ziln:
    """A fitted value model.

    Attributes:
        head: The network with its head.
        curve: Validation loss by epoch.
    """

    head: ValueHead
    curve: tuple[float, ...]

    def p_spend(self, X: npt.ArrayLike) -> Floats:
        """float64[M], probability of spending anything."""
        return outputs_of(self.head, X)[:, 0]

    def expected(self, X: npt.ArrayLike) -> Floats:
        """float64[M], expected spend."""
        return outputs_of(self.head, X)[:, 1]

    def median(self, X: npt.ArrayLike) -> Floats:
        """float64[M], median spend: what misses least in absolute terms; 0 where spending is unlikely.

        With chance c the median of the mixture is the lognormal's quantile at 1 - 1 / (2 c).
        """
        with torch.no_grad():
            rows = torch.tensor(np.asarray(X, np.float64), dtype=torch.float32)
            spends, place, scale = split(self.head.network(rows))
            chance = torch.sigmoid(spends).double()
            level = (1 - 0.5 / chance).clamp(1e-6, 1 - 1e-6)
            found = torch.exp(place.double() + scale.double() * math.sqrt(2) * torch.erfinv(2 * level - 1))
            return torch.where(chance > 0.5, found * self.head.unit, torch.zeros_like(found)).numpy()


def split(outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logit of spending, location and scale of the log."""
    scale = nn.functional.softplus(outputs[:, 2]) + SMALLEST_SCALE
    return outputs[:, 0], outputs[:, 1].clamp(-12, 12), scale.clamp(max=LARGEST_SCALE)


def loss(outputs: torch.Tensor, spend: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood per customer of spend in the model's unit."""
    spends, place, scale = split(outputs)
    some = (spend > 0).to(spend.dtype)
    chance = nn.functional.binary_cross_entropy_with_logits(spends, some)
    log_spend = torch.log(torch.where(spend > 0, spend, torch.ones_like(spend)))
    amount = (
        torch.log(scale) + 0.5 * math.log(2 * math.pi) + log_spend + ((log_spend - place) / scale) ** 2 / 2
    )
    return chance + torch.mean(some * amount)


def fit(
    X: Floats,
    spend: Floats,
    validation: tuple[Floats, Floats],
    params: NetworkParams | None = None,
    seed: int = 0,
) -> Ziln:
    """Fit on customers at earlier cuts.

    Args:
        X: float64[M, F].
        spend: float64[M], spend in the window after each cut.
        validation: The same of a later cut; chooses the epoch.
        params: Shape and training.
        seed: Of weights and batches.

    Raises:
        ValueError: Spend is negative, not finite, or nobody spends.
    """
    for name, values in (("spend", spend), ("validation spend", validation[1])):
        if not np.all(np.isfinite(values) & (np.asarray(values) >= 0)):
            raise ValueError(
                f"{name} holds negative or infinite amounts; expected finite amounts of at least 0"
            )
    if not np.any(spend > 0):
        raise ValueError("spend is 0 for every customer; expected some who spend")
    unit = float(np.median(spend[spend > 0]))
    held = (validation[0], validation[1] / unit)
    network, curve = fit_network(X, spend / unit, held, 3, loss, params or NetworkParams(), seed)
    return Ziln(ValueHead(network, unit).eval(), tuple(curve))
