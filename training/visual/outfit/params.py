"""What a training of the outfit model is told.

Belongs here: config and its rules. Does not belong here: what every visual family is told (`training/visual/config.py`).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from contracts.visual import WEARABLE
from training.config import ConfigError, Count, Positive, Rate, Share, Text
from training.visual.config import VisualConfig

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

    members: Positive = 2
    dim: Positive = 64
    width: Positive = 64
    layers: Count = 2
    heads: Positive = 2
    dropout: Share = 0.2
    noise: NotNegative = 0.15
    whitening: Share = 0.3
    set_dropout: Share = 0.5
    negatives: Positive = 48
    temperature: Rate = 0.1
    smoothing: Share = 0.0
    learning_rate: Rate = 2e-3
    weight_decay: NotNegative = 0.05
    epochs: Positive = 20


class OutfitSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Items that belong together.

    Attributes:
        kind: ``street-looks`` (worn, from masks), ``drawn-looks`` (composed of products) or ``baskets`` (bought).
        root: Folder of the set, or the CSV file ``basket,product_id``.
        catalogue: For products: name of the embedder's source that shows them.
        limit: At most this many looks, 0 for all.
    """

    kind: Literal["street-looks", "drawn-looks", "baskets"]
    root: Text
    catalogue: str = "catalogue"
    limit: Count = 0


class OutfitConfig(VisualConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Config of ``python -m training.visual outfit``.

    Attributes:
        sources: What is learned from; of street-looks the reporting part is reported on, of others the last tenth.
        embedder: Bundle folder of the embedder whose vectors are read. Empty for vectors of untuned weights and
            colours: good for measuring on street-looks, of no use to a release.
        slots: Class of a product's type; empty for the atelier's.
        blank: Whether all but the item is made white in photos.
        params: The model's own.
    """

    sources: tuple[OutfitSource, ...]
    embedder: str = ""
    slots: dict[str, str] = msgspec.field(default_factory=dict)
    blank: bool = True
    params: OutfitParams = OutfitParams()


def check(config: OutfitConfig) -> None:
    """Apply the rules that types cannot state.

    Raises:
        ConfigError: Naming the key and what was expected.
    """
    if not config.sources:
        raise ConfigError("`$.sources` is empty; expected looks or baskets")
    if config.params.width % config.params.heads:
        raise ConfigError(
            f"`$.params.heads` is {config.params.heads}; expected a divisor of width ({config.params.width})"
        )
    for source in config.sources:
        if source.kind != "street-looks" and not config.embedder:
            raise ConfigError(
                f"`$.embedder` is empty; source '{source.kind}' needs the bundle of an embedder"
            )
    for kind, name in config.slots.items():
        if name not in WEARABLE:
            raise ConfigError(f"`$.slots.{kind}` is '{name}'; expected one of: {', '.join(WEARABLE)}")
