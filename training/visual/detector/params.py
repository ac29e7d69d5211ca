"""What a training of the detector is told.

Belongs here: config and its rules. Does not belong here: what every visual family is told (`config.py`).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from training.config import ConfigError, Count, Positive, Rate, Share, Text
from training.visual.config import VisualConfig
from training.visual.detector.trunk import TRUNKS


class DetectorSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Pictures with boxes.

    Attributes:
        layout: ``street-looks``, ``drawn-looks``, or for pack shots ``fashion-products`` or ``drawn``.
        root: Folder of the set.
        share: How many of the views in a batch come from it, over all sources' shares.
        limit: At most this many of its pictures, 0 for all.
        report: Whether its reporting part is reported on.
    """

    layout: Text
    root: Text
    share: Rate = 1.0
    limit: Count = 0
    report: bool = True


class DetectorParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shape and training of the detector.

    Attributes:
        trunk: One of `trunk.VARIANTS` (``lite0``, ``lite1``, ``lite2``), or ``plain`` (from nothing).
        weights: What a lite one begins with: ``imagenet`` (the package's), ``none``, or the folder of an embedder's
            bundle, which has learned to tell types of products apart that few photos with boxes show.
        size: Side of the square that the graph reads, in pixels; a multiple of 32.
        width: Channels of pyramid and heads.
        batch: Views per step.
        steps: Steps in all.
        learning_rate: Peak of heads and pyramid; linear warm-up, cosine decay to a hundredth.
        trunk_rate: Of the trunk, over `learning_rate`.
        weight_decay: AdamW, on matrices.
        box_weight: Of the boxes' loss.
        average: Decay of the running average of weights that is exported.
        check_every: Steps between checks on the validation part.
        keep: The weights of the ``best`` check, or the ``last``: where few pictures are held out, the best is chance.
        iou: Of a class's boxes, above which the weaker one is dropped by the caller.
        max_seconds: The schedule ends early, learning rate and all, once this much time is spent; 0 for never.
        session_seconds: A longer training is left after so long, to be taken up by the same command; 0 for never.
    """

    trunk: Text = "lite0"
    weights: Text = "imagenet"
    size: Annotated[int, msgspec.Meta(ge=64, le=1024, multiple_of=32)] = 384
    width: Positive = 96
    batch: Positive = 8
    steps: Positive = 4000
    learning_rate: Rate = 1e-3
    trunk_rate: Rate = 0.2
    weight_decay: Annotated[float, msgspec.Meta(ge=0)] = 0.02
    box_weight: Rate = 2.0
    average: Share = 0.998
    check_every: Positive = 500
    keep: Literal["best", "last"] = "best"
    iou: Share = 0.6
    max_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    session_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class DetectorConfig(VisualConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Config of ``python -m training.visual detector``.

    Attributes:
        sources: Pictures to learn from and to report on.
        params: The detector's own.
    """

    sources: tuple[DetectorSource, ...]
    params: DetectorParams = DetectorParams()


def check(config: DetectorConfig) -> None:
    """Apply the rules that types cannot state.

    Raises:
        ConfigError: Naming the key and what was expected.
    """
    if not config.sources:
        raise ConfigError("`$.sources` is empty; expected at least one folder of pictures with boxes")
    if config.params.trunk not in TRUNKS:
        raise ConfigError(
            f"`$.params.trunk` is {config.params.trunk!r}; expected one of: {', '.join(TRUNKS)}"
        )
