"""What a training of the outfit model is told.

Belongs here: config. Does not belong here: what every visual family is told (`training/visual/config.py`).
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from training.config import Count, Positive, Rate, Share

NotNegative = Annotated[float, msgspec.Meta(ge=0)]


class OutfitParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shape and training of the outfit model.

    Attributes:
        members: Models side by side, see `model.Outfit`.
        dim: Width of the points of each.
        width: Of the transformer.
        layers: Of the same; 0 for the linear model alone.
        heads: Of attention; must divide `width`.
        dropout: Of vectors and of blocks' outputs.
        noise: Length of the noise added to unit vectors while learning.
        whitening: How far directions of vectors are evened out first, 0 to 1.
        set_dropout: Share of sets of which only a part is shown.
        negatives: Wrong items of the right slot per set.
        temperature: Of the softmax.
        smoothing: Of its labels.
        learning_rate: Peak; cosine decay to nothing.
        weight_decay: AdamW, on matrices.
        epochs: Each asks once for each item.
    """

    members: Positive = 4
    dim: Positive = 32
    width: Positive = 64
    layers: Count = 2
    heads: Positive = 2
    dropout: Share = 0.3
    noise: NotNegative = 0.1
    whitening: Share = 0.5
    set_dropout: Share = 0.5
    negatives: Positive = 48
    temperature: Rate = 0.15
    smoothing: Share = 0.0
    learning_rate: Rate = 2e-3
    weight_decay: NotNegative = 0.05
    epochs: Positive = 30
