"""What is in demand lately, over what was in demand altogether: shops move on while a network keeps the mean.

If only how often items are asked for changes, and not what leads to them, the probabilities of a network are right again
once each is multiplied by its item's late share over its share of all (Saerens et al. 2002, prior shift). A share of few
late events is mostly chance, so the ratio is that of a gamma-Poisson estimate around 1.

Belongs here: that ratio. Does not belong here: how much of it is used (`EncoderParams.trend`), biases (`model.py`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from training.continuum.data import Sequences
from training.continuum.pairs import lateness

CALM = 2.0
"""Late events that speak for an item's share of all, whatever its own: without them an item that happened to come twice
at the end would be in demand. With them the ratio can be used in full and over a short time: on three parts of Yoochoose's
training sessions HR@20 is then (`trend_fade` 0.05) 0.4 % above the best without (0.2, and 0.4 of the ratio)."""


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
    expected = np.bincount(item, minlength=size + 1) * late.mean()
    lately = np.bincount(item, late, size + 1)
    return np.log((lately + CALM) / (expected + CALM)).astype(np.float32)
