"""Configs of the visual models, as ``python -m training.visual`` reads them.

Belongs here: what every visual family is told, and each family's own knobs. Does not belong here: reading
files (`training/config.py`), defaults of a shop (`orchestration/retailers`).
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from training.config import Count, Positive, Rate, Share, Text

AtLeastZero = Annotated[float, msgspec.Meta(ge=0)]


class VisualConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every visual family is told.

    Attributes:
        retailer: Name of the shop.
        home: CONTINUUM_HOME of this run; decoded pictures are cached below it.
        out: Folder of the bundle; replaced as a whole.
        tracking_uri: MLflow tracking and registry address.
        experiment: Name of the MLflow experiment.
        seed: Of every random choice.
        threads: CPU threads that training may use.
        simulated: True where the pictures are drawn.
        tags: Further tags of the MLflow run.
    """

    retailer: Text
    home: Text
    out: Text
    tracking_uri: Text
    experiment: Text
    seed: Count = 0
    threads: Positive = 2
    simulated: bool = False
    tags: dict[str, str] = {}


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One picture set and what its labels mean to the embedder.

    Attributes:
        layout: As `pictures.open_pictures` takes it.
        root: Folder of the set, or the name of a data set of the hub.
        labels: Name of a target to the set's label column; equal targets of two sources share their proxies,
            which is how a shopper's photo and a catalogue photo come to lie together.
        rename: Target to (the set's value to the shared value); a value that is left out stays as it is, one
            renamed to "" counts as unlabelled.
        learn: Splits that are learned from; empty for all.
        report: Splits whose pictures are the queries of the report; empty for a share cut off by key.
        repeat: Times that each picture is seen in an epoch.
    """

    layout: Text
    root: Text
    labels: dict[str, str]
    rename: dict[str, dict[str, str]] = {}
    learn: tuple[str, ...] = ()
    report: tuple[str, ...] = ()
    repeat: Positive = 1


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What vectors are pulled together by.

    Attributes:
        labels: Labels whose combination is a class; a picture without one of them is left out.
        part: Of the vector: ``shape``, ``colour`` or ``all``.
        weight: Of its loss.
        smallest: Classes with fewer pictures are left out.
    """

    labels: tuple[str, ...]
    part: str = "all"
    weight: AtLeastZero = 1.0
    smallest: Positive = 1


class EmbedderParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shape and training of the embedder.

    Attributes:
        trunk: ``lite0``, or ``hub:NAME`` for an image encoder of the hub.
        weights: ``imagenet`` (the package's) or ``none``.
        size: Pixels a side that the exported graph reads; a multiple of 32.
        train_size: Pixels a side while learning.
        dim: Width of the vector.
        colour_dim: How much of it tells colour; 0 for no colour descriptor.
        colour_share: Weight of colour in the product of two vectors; chosen on the validation part where None.
        frozen: Leading blocks of the trunk that stay as they are.
        epochs: Passes over all pictures.
        batch: Pictures per step.
        learning_rate: Peak, of the trunk; heads and proxies learn `head_rate` times as fast.
        head_rate: See there.
        weight_decay: AdamW, on matrices.
        loss: ``softmax`` (normalised softmax over proxies) or ``anchor`` (proxy-anchor).
        scale: Inverse temperature of the loss.
        margin: Of the loss.
        attribute_weight: Of the attribute heads' cross-entropy.
        average: Decay of the running average of the weights that is exported; 0 exports the last weights.
        crop: Smallest share of a picture that a random crop keeps.
        jitter: Strength of brightness, contrast and colour temperature changes.
        validation: Share of what is learned from that is kept aside to choose and stop.
        box_margin: What a caller adds around a box, as a share of its sides.
        max_seconds: No further epoch starts once this much time is spent.
    """

    trunk: Text = "lite0"
    weights: Text = "imagenet"
    size: Positive = 224
    train_size: Positive = 192
    dim: Positive = 256
    colour_dim: Count = 64
    colour_share: Share | None = None
    frozen: Count = 3
    epochs: Positive = 8
    batch: Positive = 48
    learning_rate: Rate = 6e-4
    head_rate: Rate = 5.0
    weight_decay: AtLeastZero = 0.02
    loss: Text = "softmax"
    scale: Rate = 16.0
    margin: AtLeastZero = 0.1
    attribute_weight: AtLeastZero = 0.3
    average: Share = 0.98
    crop: Share = 0.5
    jitter: AtLeastZero = 0.2
    validation: Share = 0.1
    box_margin: AtLeastZero = 0.05
    max_seconds: Rate = 3600.0


class EmbedderConfig(VisualConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Config of ``python -m training.visual embedder``.

    Attributes:
        sources: Where pictures come from.
        targets: What vectors are pulled together by.
        attributes: Labels with a head of their own; exported as ``attr_<name>``.
        params: The embedder's own.
    """

    sources: tuple[Source, ...]
    targets: tuple[Target, ...]
    attributes: tuple[str, ...] = ()
    params: EmbedderParams = EmbedderParams()
