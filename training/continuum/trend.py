"""What is in demand lately, over what was in demand altogether: shops move on while a network keeps the mean.

Belongs here: that ratio. Does not belong here: how much of it is used (`EncoderParams.trend`), biases (`model.py`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from training.continuum.data import Sequences
from training.continuum.pairs import lateness

CALM = 1.0
"""Added to both counts, so that an item seen once moves little."""


def trend(sequences: Sequences, size: int, fade: float) -> npt.NDArray[np.float32]:
    """Log of an item's share of late events over its share of all, float32[V + 1]; 0 for what never occurs.

    Args:
        sequences: What may be learned from.
        size: V.
        fade: As of `lateness`.
    """
    known = sequences.item > 0
    if not known.any():
        return np.zeros(size + 1, np.float32)
    item, late = sequences.item[known], lateness(sequences, fade)[known]
    count = np.bincount(item, minlength=size + 1)
    lately = np.bincount(item, late / late.mean(), size + 1)
    return np.where(count > 0, np.log((lately + CALM) / (count + CALM)), 0.0).astype(np.float32)
