"""What a training of a visual model is told.

Belongs here: the typed config of each visual family. Does not belong here: a family's hyper-parameters, which
its own module decodes with `training.config.decode_params`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from training.config import Count, Positive, Text


class PictureSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Pictures to learn from; see `pictures.open_pictures`.

    Attributes:
        layout: One of `pictures.LAYOUTS`.
        root: Its folder.
        options: Of the layout (columns of a table, split of a hub's data set).
        limit: At most this many pictures of it, 0 for all; the same ones every time.
    """

    layout: Text
    root: Text
    options: dict[str, str] = {}
    limit: Count = 0


class VisualConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every visual family is told.

    Attributes:
        retailer: Name of the shop or of the study.
        home: CONTINUUM_HOME of this run.
        sources: Pictures; their reporting part (`Picture.split` is ``test``) is only reported on.
        out: Folder of the bundle; replaced as a whole.
        tracking_uri: MLflow tracking and registry address.
        experiment: Name of the MLflow experiment.
        seed: Of every random choice.
        threads: CPU threads that training may use.
        device: ``cpu``, ``cuda``, or ``auto`` for the best there is.
        max_seconds: No further epoch starts once this much time is spent on training.
        simulated: True where pictures are drawn or shoppers simulated.
        tags: Further tags of the MLflow run.
        params: The family's own; its module decodes them.
    """

    retailer: Text
    home: Text
    sources: tuple[PictureSource, ...]
    out: Text
    tracking_uri: Text
    experiment: Text
    seed: Count = 0
    threads: Positive = 2
    device: Text = "auto"
    max_seconds: float = 0.0
    simulated: bool = False
    tags: dict[str, str] = {}
    params: dict[str, Any] = {}


class DetectorConfig(VisualConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Config of ``python -m training.visual detector``."""


class EmbedderConfig(VisualConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Config of ``python -m training.visual embedder``.

    Attributes:
        pairs: CSV file (``media,box,product_id,weight``) of photos that shoppers searched with and products that
            they then chose, as `orchestration/lake/visual_pairs.py` writes it; empty for none.
    """

    pairs: str = ""


class TextConfig(VisualConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Config of ``python -m training.visual text``.

    Attributes:
        embedder: Bundle folder of the embedder whose space the words go into.
    """

    embedder: Text


class OutfitConfig(VisualConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Config of ``python -m training.visual outfit``.

    Attributes:
        embedder: Bundle folder of the embedder whose vectors it reads.
        baskets: CSV file (``basket,product_id``) of products bought together; empty for none.
    """

    embedder: Text
    baskets: str = ""
