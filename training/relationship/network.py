"""A small network over tabular features, shared by the survival and the value model.

Scaling is part of the network (a signed logarithm, then mean and deviation of the training rows; a missing value
becomes the mean plus a flag), so an exported graph takes features as `summaries.features` gives them.

Belongs here: the network, its training loop. Does not belong here: what the outputs mean (`survival.py`, `ziln.py`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

Floats = npt.NDArray[np.float64]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class NetworkParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shape and training of a network.

    Attributes:
        width: Of its two hidden layers.
        dropout: After each of them.
        learning_rate: Of AdamW, falling to zero along a cosine.
        weight_decay: Of AdamW.
        batch: Rows per step.
        epochs: At most this many.
        patience: Stop after this many without a better validation loss.
    """

    width: int = 48
    dropout: float = 0.1
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    batch: int = 512
    epochs: int = 30
    patience: int = 6


class Network(nn.Module):
    """Features float32[M, F] to outputs float32[M, O]."""

    def __init__(self, X: Floats, outputs: int, params: NetworkParams) -> None:
        super().__init__()
        finite = np.where(np.isfinite(X), X, np.nan)
        squeezed = np.sign(finite) * np.log1p(np.abs(finite))
        missing = np.isnan(squeezed).all(axis=0)
        squeezed = np.where(missing, 0.0, squeezed)
        mean, deviation = np.nanmean(squeezed, axis=0), np.nanstd(squeezed, axis=0)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("deviation", torch.tensor(np.maximum(deviation, 1e-3), dtype=torch.float32))
        self.layers = nn.Sequential(
            nn.Linear(2 * X.shape[1], params.width), nn.SiLU(), nn.Dropout(params.dropout),
            nn.Linear(params.width, params.width), nn.SiLU(), nn.Dropout(params.dropout),
            nn.Linear(params.width, outputs),
        )  # fmt: skip

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Raw outputs."""
        missing = torch.isnan(features)
        known = torch.where(missing, torch.zeros_like(features), features)
        scaled = (torch.sign(known) * torch.log1p(torch.abs(known)) - self.mean) / self.deviation
        scaled = torch.where(missing, torch.zeros_like(scaled), scaled).clamp(-5, 5)
        return self.layers(torch.cat([scaled, missing.to(scaled.dtype)], dim=1))


def check_features(X: npt.ArrayLike, rows: int | None = None) -> Floats:
    """Features as float64[M, F] with M and F at least 1.

    Raises:
        ValueError: Another shape, or infinite values; the message names row and column.
    """
    found = np.asarray(X, np.float64)
    if found.ndim != 2 or not found.size or (rows is not None and len(found) != rows):
        wanted = "M" if rows is None else str(rows)
        raise ValueError(
            f"features have shape {found.shape}; expected float64[{wanted}, F] with rows and columns"
        )
    if np.isinf(found).any():
        row, column = np.argwhere(np.isinf(found))[0].tolist()
        raise ValueError(
            f"features are infinite at row {row}, column {column}; expected finite numbers or NaN"
        )
    return found


def fit_network(
    X: Floats,
    targets: Floats,
    validation: tuple[Floats, Floats],
    outputs: int,
    loss: Loss,
    params: NetworkParams,
    seed: int = 0,
) -> tuple[Network, list[float]]:
    """Train until the validation loss stops falling; the best epoch is kept.

    Args:
        X: float64[M, F].
        targets: float64[M, ...], handed to the loss.
        validation: The same of rows that are only looked at.
        outputs: Of the network.
        loss: (outputs, targets) to one number.
        params: Shape and training.
        seed: Of weights and batches.

    Returns:
        The network in evaluation mode, and the validation loss by epoch.

    Raises:
        ValueError: Features cannot be used.
    """
    X, held = check_features(X, len(targets)), check_features(validation[0], len(validation[1]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(X, outputs, params)
        rows, wanted = torch.tensor(X, dtype=torch.float32), torch.tensor(targets, dtype=torch.float32)
        held_rows, held_wanted = (torch.tensor(part, dtype=torch.float32) for part in (held, validation[1]))
        optimizer = torch.optim.AdamW(
            network.parameters(), params.learning_rate, weight_decay=params.weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, params.epochs)
        best, state, curve = np.inf, copy.deepcopy(network.state_dict()), []
        for _ in range(params.epochs):
            network.train()
            for batch in torch.randperm(len(rows)).split(params.batch):
                optimizer.zero_grad()
                loss(network(rows[batch]), wanted[batch]).backward()
                optimizer.step()
            schedule.step()
            network.eval()
            with torch.no_grad():
                curve.append(float(loss(network(held_rows), held_wanted)))
            if curve[-1] < best:
                best, state = curve[-1], copy.deepcopy(network.state_dict())
            elif len(curve) - int(np.argmin(curve)) > params.patience:
                break
        network.load_state_dict(state)
    return network.eval(), curve


def outputs_of(module: nn.Module, X: npt.ArrayLike) -> Floats:
    """Outputs of a module, float64, without gradients."""
    with torch.no_grad():
        return module(torch.tensor(check_features(X), dtype=torch.float32)).double().numpy()
