"""What training reads and what it leaves behind: configs and bundles, both strict.

Belongs here: the typed config of each model family as the CLI reads it, and the bundle's record.
Does not belong here: defaults of a shop (`orchestration/retailers`), paths of the lake's tables
(`feature_repo/snapshots`), a family's own parameters when nobody else needs them.
"""

from __future__ import annotations

import datetime as dt
import pathlib
import shutil
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from contracts.events import ACTIONS

BUNDLE_FILE = "bundle.json"
CONTENT_FIELDS = ("department", "category", "type", "brand", "manufacturer", "price_band")
"""Product fields that can serve as item content."""

Positive = Annotated[int, msgspec.Meta(ge=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Weight = Annotated[float, msgspec.Meta(ge=0)]
Rate = Annotated[float, msgspec.Meta(gt=0)]
Instant = Annotated[dt.datetime, msgspec.Meta(tz=True)]
Text = Annotated[str, msgspec.Meta(min_length=1)]

T = TypeVar("T")


class ConfigError(ValueError):
    """A config that cannot be used; the message names the file, the key and what was expected."""


class EncoderParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shape and training of the continuum encoder.

    Attributes:
        dim: Width d of every embedding.
        heads: Attention heads; must divide ``dim``.
        blocks: LiGR blocks; with one block only the request attends, which is linear in length.
        length: Most recent events of a customer that are read.
        dropout: Of embeddings and of each block's outputs.
        expansion: Width of the SwiGLU layer over ``dim``.
        time_bias: Relative time buckets (log2 of seconds).
        buckets_per_octave: How finely time is cut.
        step_bias: Distance in visits, up to this many (0 switches it off).
        pointer: Score items of the history directly (repeat buying); off where seen items are filtered.
        item_bias: One learned popularity term per item.
        content: Product fields whose embeddings are added to the item's; see CONTENT_FIELDS.
        price_bands: Number of price bands when ``price_band`` is among them.
        item_dropout: Share of items whose own embedding is hidden in a batch, so that content alone
            must carry them; this is what makes items without a trained embedding usable.
        min_count: Purchases before ``train_until`` that bring an item into the vocabulary.
        cold_count: Items with fewer, but at least this many, join after training and live from content
            alone; 0 leaves them out.
        target_actions: Actions whose items are predicted.
        negatives: Sampled negatives per batch.
        popular_negatives: Share of them drawn in proportion to count instead of uniformly; with few uniform
            negatives alone the sum over a long-tailed catalogue is missed, and popular items are overrated.
        logq: Correct the negatives' logits for how they were drawn.
        action_weight: Weight of the next-action and next-channel losses.
        label_weight: Weight of the buy-or-leave and not-to-recommend losses where labels exist.
        customer_balance: 0 weighs every request the same, 1 every customer.
        queries: At most this many requests are learned from in one window of a history.
        stride: Windows of one history start this share of ``length`` apart.
        batch: Windows per step.
        epochs: At most this many.
        patience: Stop after this many epochs without a better validation NDCG@10.
        learning_rate: Peak; linear warm-up over the first 5 percent, cosine decay to a tenth.
        weight_decay: AdamW, not on biases.
        validation_days: Last days before ``train_until``: the next-basket validation set.
        validation_customers: At most this many customers in it.
        bias_rate: How much faster biases and gains learn than matrices.
        learn_first: Learn also the first step of a history, of which nothing is known yet.
        average: Decay per step of the running mean of all weights that is kept in the end (Polyak); 0 keeps
            the last weights.
        start: ``random``, or ``spectral``: from the co-occurrence of items (see `training.continuum.start`).
        memory: Pairs kept for each item in a sparse table that is added to the scores; see `training.continuum.memory`.
            0 for none.
        memory_weights: Of what followed, of what came along and of what comes again; None for what is best on the
            validation requests.
        fade: Share of the time that is learned from after which what the memory counts counts half; 0 for never.
        trend: How much an item's score follows what is in demand lately (`training.continuum.trend`); 1 is as much as
            its demand rose.
        trend_fade: As ``fade``, of what the trend counts.
        members: Encoders that are trained, from one seed each, and answer as one; see `training.continuum.ensemble`.
        both_ways: As many of the members learn from every history backwards as well, for half the epochs: what comes
            together comes together either way, and such members err elsewhere than the others. What heads tell of the
            next action has one way only, so ``action_weight`` and ``label_weight`` have to be 0.
        unit_items: Give every item vector length 1, so that scores are cosines with a learned scale and rare items
            are not drowned by popular ones (NISER, arXiv 1909.04276).
        block: ``ligr``, or ``plain`` for a pre-norm block without gates and with ReLU (SASRec's), to compare.
        precision: ``bfloat16`` runs matrix products in 16 bits (autocast, for a GPU that has them); weights stay float32.
        loss: ``softmax`` over target and negatives, or ``bce`` with one negative per request, to compare.
        max_seconds: No further epoch starts once this much time is spent on training.
    """

    dim: Positive = 64
    heads: Positive = 2
    blocks: Positive = 1
    length: Annotated[int, msgspec.Meta(ge=2, le=4096)] = 512
    dropout: Share = 0.1
    expansion: Positive = 2
    time_bias: bool = True
    buckets_per_octave: Positive = 2
    step_bias: Count = 32
    pointer: bool = True
    item_bias: bool = True
    content: tuple[str, ...] = ("category", "type", "brand", "price_band")
    price_bands: Positive = 10
    item_dropout: Share = 0.1
    min_count: Positive = 5
    cold_count: Count = 0
    target_actions: tuple[str, ...] = ("purchase",)
    negatives: Positive = 512
    popular_negatives: Share = 0.75
    logq: bool = True
    action_weight: Annotated[float, msgspec.Meta(ge=0)] = 0.05
    label_weight: Annotated[float, msgspec.Meta(ge=0)] = 0.1
    customer_balance: Share = 0.5
    queries: Positive = 64
    stride: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    batch: Positive = 16
    epochs: Positive = 2
    patience: Positive = 2
    learning_rate: Rate = 2e-3
    weight_decay: Annotated[float, msgspec.Meta(ge=0)] = 1e-4
    validation_days: Positive = 14
    validation_customers: Positive = 1000
    bias_rate: Rate = 5.0
    learn_first: bool = True
    average: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    start: Literal["random", "spectral"] = "random"
    memory: Count = 0
    memory_weights: tuple[Weight, Weight, Weight] | None = None
    fade: Share = 0.0
    trend: Weight = 0.0
    trend_fade: Share = 0.0
    members: Positive = 1
    both_ways: Count = 0
    unit_items: bool = False
    block: Literal["ligr", "plain"] = "ligr"
    precision: Literal["float32", "bfloat16"] = "float32"
    loss: Literal["softmax", "bce"] = "softmax"
    max_seconds: Rate = 600.0


class TrainingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every model family is told.

    Attributes:
        retailer: Name of the shop.
        home: CONTINUUM_HOME of this run: the lake is read from there.
        lake: Delta version per table; a table that is left out is read at its latest version.
        train_until: Only events before this moment are learned from.
        evaluate_from: Start of the evaluation window.
        evaluate_until: Its end (exclusive).
        out: Folder of the bundle; replaced as a whole.
        tracking_uri: MLflow tracking and registry address.
        experiment: Name of the MLflow experiment.
        seed: Of every random choice.
        threads: CPU threads that training may use.
        feature_service: Feast feature service that the model reads, empty for none.
        simulated: True where shoppers are simulated.
        tags: Further tags of the MLflow run.
    """

    retailer: Text
    home: Text
    lake: dict[str, int] = {}
    train_until: Instant
    evaluate_from: Instant
    evaluate_until: Instant
    out: Text
    tracking_uri: Text
    experiment: Text
    seed: Count = 0
    threads: Positive = 2
    feature_service: str = ""
    simulated: bool = False
    tags: dict[str, str] = {}


class EncoderConfig(TrainingConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Config of ``python -m training encoder``.

    Attributes:
        params: The encoder's own.
    """

    params: EncoderParams = EncoderParams()


class RankerConfig(TrainingConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Config of ``python -m training ranker``.

    Attributes:
        ranker_from: First request that the ranker learns from.
        encoder: Bundle folder of the encoder whose scores the ranker reads.
        params: The ranker's own; its module decodes them with `decode_params`.
    """

    ranker_from: Instant
    encoder: Text
    params: dict[str, Any] = {}


class Bundle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Record of one training, beside the files it made.

    Attributes:
        family: Which model family.
        run_id: MLflow run.
        model_uri: MLflow LoggedModel.
        metrics: Final numbers.
        config: The config it was trained from.
        files: Role to path below the bundle's folder.
        details: What a reader of the model must know (lengths, heads trained, feature names).
        lake: Delta versions that were read.
    """

    family: Literal["encoder", "ranker", "detector", "embedder", "text", "outfit"]
    run_id: str
    model_uri: str
    metrics: dict[str, float]
    config: dict[str, Any]
    files: dict[str, str]
    details: dict[str, Any] = {}
    lake: dict[str, int] = {}


def read_config(path: pathlib.Path, kind: type[T]) -> T:
    """Read and check one config file (JSON).

    Raises:
        ConfigError: The file cannot be read, a key is unknown, missing or of the wrong type, or the
            times are out of order; the message names the file and the key.
    """
    try:
        config = msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; expected a JSON file") from error
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise ConfigError(f"{path.name}: {error}") from error
    if isinstance(config, TrainingConfig):
        try:
            check_config(config)
        except ConfigError as error:
            raise ConfigError(f"{path.name}: {error}") from error
    return config


def check_config(config: TrainingConfig) -> None:
    """Apply the rules that types cannot state.

    Raises:
        ConfigError: Naming the key and what was expected.
    """
    if config.evaluate_until <= config.evaluate_from:
        raise ConfigError(
            f"`$.evaluate_until` is {config.evaluate_until.isoformat()}; "
            f"expected a time after evaluate_from ({config.evaluate_from.isoformat()})"
        )
    if config.train_until > config.evaluate_from:
        raise ConfigError(
            f"`$.train_until` is {config.train_until.isoformat()}; "
            f"expected no later than evaluate_from ({config.evaluate_from.isoformat()})"
        )
    if isinstance(config, RankerConfig) and config.ranker_from >= config.train_until:
        raise ConfigError(
            f"`$.ranker_from` is {config.ranker_from.isoformat()}; "
            f"expected a time before train_until ({config.train_until.isoformat()})"
        )
    if isinstance(config, EncoderConfig) and config.params.dim % config.params.heads:
        raise ConfigError(
            f"`$.params.heads` is {config.params.heads}; expected a divisor of dim ({config.params.dim})"
        )
    if isinstance(config, EncoderConfig):
        _check_names("content", config.params.content, CONTENT_FIELDS)
        _check_names("target_actions", config.params.target_actions, ACTIONS)
        if config.params.trend and not config.params.trend_fade:
            raise ConfigError(
                f"`$.params.trend` is {config.params.trend:g}; expected 0, or a 'trend_fade' that says what is late"
            )
        if config.params.both_ways and config.params.both_ways >= config.params.members:
            raise ConfigError(
                f"`$.params.both_ways` is {config.params.both_ways}; expected less than members ({config.params.members})"
            )
        if config.params.both_ways and (config.params.action_weight or config.params.label_weight):
            raise ConfigError(
                f"`$.params.both_ways` is {config.params.both_ways}; expected 0, or action_weight and label_weight of 0"
            )


def _check_names(key: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f"`$.params.{key}` holds '{name}'; expected some of {', '.join(known)}")


def decode_params(params: dict[str, Any], kind: type[T]) -> T:
    """A family's own parameters as its strict struct.

    Raises:
        ConfigError: A key is unknown or a value does not fit.
    """
    try:
        return msgspec.convert(params, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"params: {error}") from error


def stage(out: str) -> pathlib.Path:
    """An empty folder beside a bundle's place, where its files are written first."""
    place = pathlib.Path(out)
    staged = place.with_name(f".tmp-{place.name}")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    return staged


def put(staged: pathlib.Path, out: str) -> pathlib.Path:
    """Put a finished bundle in its place, instead of what was there."""
    place = pathlib.Path(out)
    shutil.rmtree(place, ignore_errors=True)
    return staged.rename(place)


def write_bundle(folder: pathlib.Path, bundle: Bundle) -> None:
    """Write the record into the bundle's folder; written last, it marks the bundle as complete."""
    (folder / BUNDLE_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(bundle), indent=2))


def read_bundle(folder: pathlib.Path) -> Bundle:
    """Read a bundle's record.

    Raises:
        ConfigError: The folder holds no complete bundle.
    """
    path = folder / BUNDLE_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Bundle)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; expected the bundle of a finished training") from error
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
