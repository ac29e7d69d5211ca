"""Configs of the visual models, as ``python -m training.visual`` reads them.

Belongs here: what every visual family is told, and each family's own knobs. Does not belong here: reading
files (`training/config.py`), defaults of a shop (`orchestration/retailers`).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from training.config import ConfigError, Count, Positive, Rate, Share, Text

AtLeastZero = Annotated[float, msgspec.Meta(ge=0)]
LAST_FROZEN = 12
"""Parts of the trunk up to its map of stride 16."""

Side = Annotated[int, msgspec.Meta(ge=32, multiple_of=32)]


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

    Its rows of the split ``train`` are learned from, those of ``test`` are only judged on.

    Attributes:
        name: For judges and tables.
        layout: As `pictures.open_pictures` takes it.
        root: Folder of the set, or the name of a data set of the hub.
        options: Of the layout.
        labels: Label to the set's label it is read from; equal labels of two sources share their proxies,
            which is how a shopper's photo and a catalogue photo come to lie together. A label that is not
            named here is not read. ``product_id`` also brings in labels of the same product in other sources.
        rename: Label to (the set's value to the shared value); with an entry for a label, a value that is left
            out counts as unlabelled.
        stated: Labels of these that a catalogue states: as a gallery, the pictures are told by them where vectors tell
            attributes (`EmbedderParams.told`).
        boxes: Every box is a picture of its own, with the label of the box as ``type``.
        learn: Whether it is learned from at all.
        validate: Whether rows are kept aside for validation; off where every row is a class of its own.
        aside: Which rows those are: ``hashed``, by product or key; ``last`` of each class of the first label, in
            the set's order, where neighbours in that order are nearly equal.
        repeat: Times that each picture is seen in an epoch.
        jitter: Strength of brightness, contrast and colour temperature changes.
    """

    name: Text
    layout: Text
    root: Text
    options: dict[str, str] = {}
    labels: dict[str, str]
    rename: dict[str, dict[str, str]] = {}
    stated: tuple[Text, ...] = ()
    boxes: bool = False
    learn: bool = True
    validate: bool = True
    aside: Literal["hashed", "last"] = "hashed"
    repeat: Positive = 1
    jitter: AtLeastZero = 0.2


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What vectors are pulled together by.

    Attributes:
        labels: Labels whose combination is a class; a picture without one of them is left out.
        part: Of the vector: ``shape``, ``colour`` or ``all``.
        weight: Of its loss.
        smallest: Classes with fewer pictures to learn from are left out.
    """

    labels: tuple[Text, ...]
    part: Literal["shape", "colour", "all"] = "all"
    weight: AtLeastZero = 1.0
    smallest: Positive = 1


class Judge(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One number by which an embedder is judged.

    Queries are the test rows of a source; while learning, the validation rows. ``recall`` asks whether one of
    the first k of the gallery has the query's labels, ``precision`` which share of the first k has them,
    ``knn`` whether the vote of the first k (weighted by similarity) names them.

    Attributes:
        name: Of the metric.
        kind: See above.
        queries: Source.
        gallery: Source; where it is the queries' own, all rows but test (validation) rows.
        labels: What has to be equal.
        k: How many neighbours.
        weight: Of this number in the choice on the validation part.
    """

    name: Text
    kind: Literal["recall", "precision", "knn"]
    queries: Text
    gallery: Text
    labels: tuple[Text, ...]
    k: Positive
    weight: AtLeastZero = 1.0


class EmbedderParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shape and training of the embedder.

    Attributes:
        trunk: One of `trunk.VARIANTS` (``lite0``, ``lite1``, ``lite2``), or ``hub:NAME`` for an image encoder of the hub.
        weights: ``imagenet`` (the package's), ``none``, or the folder of an embedder's bundle to go on from.
        size: Pixels a side that the exported graph reads; a multiple of 32.
        train_size: Pixels a side while learning, likewise.
        dim: Width of the vector.
        colour_dim: How much of it tells colour; 0 for no colour descriptor.
        colour_share: Weight of colour in the product of two vectors; None chooses it on the validation part,
            where there is one.
        told: Attributes whose probabilities are a part of the vector.
        told_dim: How much of it, if there are any.
        told_weights: How much each of them counts in that part, one of each; empty for all alike.
        told_share: As ``colour_share``, of that part.
        frozen: Leading parts of the trunk (stem, blocks, head; 18 of ``lite0``) that stay as they are.
        epochs: Passes over all pictures.
        batch: Pictures per step.
        learning_rate: Peak, of the trunk.
        head_rate: How much faster heads and proxies learn.
        weight_decay: AdamW, on matrices.
        loss: ``softmax`` (normalised softmax over proxies) or ``anchor`` (proxy-anchor).
        scale: Inverse temperature of the loss.
        margin: Of the loss.
        smoothing: Share of a label that goes to all other classes, of ``softmax``.
        attribute_weight: Of the attribute heads' cross-entropy.
        attribute_smoothing: As ``smoothing``, of the attribute heads.
        words_weight: Of the contrast between pictures and their words.
        dropout: Of pooled features.
        average: Decay of the running average of the weights that is exported; 0 exports the last weights.
        blend: Share of the weights of the bundle gone on from that the result keeps: what is forgotten while learning from
            the same pictures once more comes back (WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903).
        crop: Smallest share of a picture that a random crop keeps.
        validation: Share of what is learned from that is kept aside to choose; 0 learns from all of it.
        box_margin: What a caller adds around a box, as a share of its sides.
        letterbox: Pictures keep their shape, scaled to fit, top left on grey; else they are stretched.
        int8: Ship an int8 graph if it loses little on the validation part.
        int8_loss: The most that it may lose of the judges' weighted mean.
        max_seconds: No further epoch starts once this much time is spent.
    """

    trunk: Text = "lite0"
    weights: Text = "imagenet"
    size: Side = 224
    train_size: Side = 160
    dim: Positive = 256
    colour_dim: Count = 64
    colour_share: Share | None = None
    told: tuple[Text, ...] = ()
    told_dim: Positive = 64
    told_share: Share | None = None
    told_weights: tuple[Rate, ...] = ()
    frozen: Count = 5
    epochs: Positive = 8
    batch: Annotated[int, msgspec.Meta(ge=2)] = 48
    learning_rate: Rate = 6e-4
    head_rate: Rate = 5.0
    weight_decay: AtLeastZero = 0.02
    loss: Literal["softmax", "anchor"] = "softmax"
    scale: Rate = 16.0
    margin: AtLeastZero = 0.1
    smoothing: Share = 0.0
    attribute_weight: AtLeastZero = 0.3
    attribute_smoothing: Share = 0.0
    words_weight: AtLeastZero = 0.5
    dropout: Share = 0.2
    average: Share = 0.98
    blend: Share = 0.0
    crop: Rate = 0.4
    validation: Share = 0.1
    box_margin: AtLeastZero = 0.05
    letterbox: bool = True
    int8: bool = False
    int8_loss: AtLeastZero = 0.005
    max_seconds: Rate = 3600.0

    @property
    def shape_dim(self) -> int:
        """What is left of the vector for shape."""
        return self.dim - self.colour_dim - (self.told_dim if self.told else 0)

    @property
    def told_at(self) -> tuple[int, int]:
        """First and last (exclusive) number of the vector that tells attributes."""
        return self.shape_dim, self.dim - self.colour_dim


class EmbedderConfig(VisualConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Config of ``python -m training.visual embedder``.

    Attributes:
        sources: Where pictures come from.
        targets: What vectors are pulled together by.
        attributes: Labels with a head of their own; exported as ``attr_<name>``.
        words: Label whose text vectors are pulled to as well (a product's name), which teaches what words can say
            of a picture; empty for none.
        judges: What it is judged by.
        params: The embedder's own.
    """

    sources: tuple[Source, ...]
    targets: tuple[Target, ...]
    attributes: tuple[Text, ...] = ()
    words: str = ""
    judges: tuple[Judge, ...] = ()
    params: EmbedderParams = EmbedderParams()


class TextParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shape and training of the text tower.

    Attributes:
        length: Most tokens of a sentence that are read.
        hidden: Width of the learned step.
        dropout: While learning.
        epochs: Passes over all sentences.
        batch: Sentences per step.
        learning_rate: Peak.
        weight_decay: AdamW.
        scale: First inverse temperature of the contrast; it is learned.
        alike_weight: How right a picture is for the name of another one that is alike.
        noise: Deviation per number that is added to pictures' vectors: those learned from lie nearer to their
            classes than those of new pictures.
        int8_loss: The quantised graph is shipped if it loses at most so much of the recall.
    """

    length: Annotated[int, msgspec.Meta(ge=4, le=256)] = 48
    hidden: Positive = 512
    dropout: Share = 0.2
    epochs: Positive = 40
    batch: Annotated[int, msgspec.Meta(ge=2)] = 1024
    learning_rate: Rate = 2e-3
    weight_decay: AtLeastZero = 0.05
    scale: Rate = 20.0
    alike_weight: Share = 0.05
    noise: AtLeastZero = 0.02
    int8_loss: AtLeastZero = 0.005


class TextConfig(VisualConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Config of ``python -m training.visual text``.

    Attributes:
        embedder: Bundle folder of the embedder, in whose space the tower speaks.
        source: Which of the embedder's sources has the names.
        name: The set's label that holds a product's name.
        phrases: Combinations of the set's labels that are said as well, such as colour and type: what shoppers
            type is shorter than a name.
        alike: Combinations of the set's labels; pictures that share one are weakly right for each other's names.
        params: The tower's own.
    """

    embedder: Text
    source: Text
    name: Text = "name"
    phrases: tuple[tuple[Text, ...], ...] = (("type",), ("colour", "type"), ("gender", "type"))
    alike: tuple[tuple[Text, ...], ...] = (("type", "colour", "gender"),)
    params: TextParams = TextParams()


def check_embedder(config: EmbedderConfig) -> None:
    """Apply the rules that types cannot state.

    Raises:
        ConfigError: Naming the key and what was expected.
    """
    params, names = config.params, [source.name for source in config.sources]
    if len(set(names)) < len(names) or not names:
        raise ConfigError(f"`$.sources` are named {', '.join(names)}; expected different names, at least one")
    for at, source in enumerate(config.sources):
        if missing := [label for label in source.stated if label not in source.labels]:
            raise ConfigError(
                f"`$.sources[{at}].stated` names '{missing[0]}'; expected labels of it: {', '.join(sorted(source.labels))}"
            )
    if not config.targets:
        raise ConfigError("`$.targets` is empty; expected at least one")
    labels = {label for source in config.sources for label in source.labels}
    wanted = {
        **{f"targets[{at}].labels": target.labels for at, target in enumerate(config.targets)},
        **{f"judges[{at}].labels": judge.labels for at, judge in enumerate(config.judges)},
        "attributes": config.attributes,
        "words": (config.words,) if config.words else (),
    }
    for key, some in wanted.items():
        if missing := [label for label in some if label not in labels]:
            raise ConfigError(
                f"`$.{key}` names '{missing[0]}'; expected labels of a source: {', '.join(sorted(labels))}"
            )
    for at, judge in enumerate(config.judges):
        for name in (judge.queries, judge.gallery):
            if name not in names:
                raise ConfigError(
                    f"`$.judges[{at}]` names source '{name}'; expected one of: {', '.join(names)}"
                )
    if params.shape_dim < 1:
        taken = "colour_dim" if params.colour_dim >= params.dim else "told_dim"
        raise ConfigError(
            f"`$.params.{taken}` is {getattr(params, taken)}; expected less than dim ({params.dim})"
        )
    if missing := [name for name in params.told if name not in config.attributes]:
        raise ConfigError(
            f"`$.params.told` names '{missing[0]}'; expected some of: {', '.join(config.attributes)}"
        )
    if params.told_weights and len(params.told_weights) != len(params.told):
        raise ConfigError(
            f"`$.params.told_weights` has {len(params.told_weights)} weights; expected none or one of each of told "
            f"({len(params.told)})"
        )
    if (params.colour_share or 0.0) + (params.told_share or 0.0) >= 1:
        raise ConfigError(
            "`$.params.colour_share` and `told_share` leave nothing for shape; expected less than 1"
        )
    if any(target.part == "colour" for target in config.targets) and not params.colour_dim:
        raise ConfigError("`$.params.colour_dim` is 0, and a target learns the colour part; expected more")
    if params.frozen > LAST_FROZEN:
        raise ConfigError(f"`$.params.frozen` is {params.frozen}; expected at most {LAST_FROZEN}")
    if params.blend and params.weights in ("imagenet", "none"):
        raise ConfigError(
            f"`$.params.blend` is {params.blend:g} and `weights` '{params.weights}'; expected the folder of a bundle"
        )
    if params.crop > 1:
        raise ConfigError(f"`$.params.crop` is {params.crop:g}; expected at most 1")
