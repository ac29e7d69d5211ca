"""Items without an embedding of their own among those with one.

An item that lives from its content alone has a vector that is a mean over many items and so a short one; its
scores are small whatever the request, and it never comes first. Its direction is what content tells; its length
tells only that the rest is unknown. So cold items get the typical length of the others.

Belongs here: making cold and warm items comparable. Does not belong here: learning (`fit.py`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.continuum.public import EncoderScorer


def level_lengths(table: Tensor, cold: Tensor) -> Tensor:
    """Scale cold items as one, so that their median length is that of the others.

    Args:
        table: float[V + 1, d] item vectors; row 0 is padding.
        cold: bool[V + 1].

    Returns:
        float[V + 1, d]; ``table`` itself where either kind is missing or has no length.
    """
    warm = ~cold
    warm[0] = False
    lengths = table.norm(dim=1)
    if not warm.any() or not cold.any() or not lengths[cold].median() > 0:
        return table
    gain = lengths[warm].median() / lengths[cold].median()
    return torch.where(cold.unsqueeze(1), table * gain, table)


class LevelScorer(EncoderScorer):
    """Scores where cold items have the length of the others."""

    def __post_init__(self) -> None:
        """Fold the item table once."""
        super().__post_init__()
        self._table = level_lengths(self._table, self.encoder.items.cold)
