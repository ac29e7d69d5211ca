"""What the visual parts of a release are called and how they are fed: training writes it, serving reads it.

Every visual component of a release is optional; one that is there brings all that its settings name.

* ``detector``: `DETECTOR_FILE`, pixels ``uint8[B, S, S, 3]`` (letterboxed: scaled to fit, laid top left on
  grey `GREY`) -> ``boxes float32[B, K, 4]`` (left, top, right, bottom as fractions of the square),
  ``scores float32[B, K]``, ``classes int64[B, K]``. With ``single`` there is no file: a photo is one item.
* ``embedder``: `EMBEDDER_FILE`, pixels ``uint8[B, s, s, 3]`` of crops -> ``embedding float32[B, d]`` of length 1,
  and one ``attr_<name> float32[B, n]`` of logits per attribute.
* ``text``: `TEXT_FILE` (``input_ids``, ``attention_mask`` ``int64[B, L]`` -> ``embedding float32[B, d]``) and
  `TOKENIZER_FILE`.
* ``outfit``: `OUTFIT_FILE` (``vectors float32[B, N, d]``, ``types int64[B, N]`` with 0 as padding, ``target
  int64[B]`` -> ``query float32[B, p]``, ``compatibility float32[B]``) and `OUTFIT_ITEMS_FILE` (``vectors
  float32[B, d]``, ``types int64[B]`` -> ``projected float32[B, p]``); slots count from 1.
* ``index``: `INDEX_FILE`, see `INDEX_ARRAYS`.
* ``looks``: `LOOKS_FILE`, see `LOOK_ARRAYS`.

Pictures that pages show are not in the release: they lie in `MEDIA` below CONTINUUM_HOME (`media_path`).

Belongs here: names, settings, array types. Does not belong here: reading pixels, models, search.
"""

from __future__ import annotations

import pathlib
import re
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

WEARABLE: tuple[str, ...] = (
    "bag", "belt", "boots", "footwear", "outer", "dress", "sunglasses", "pants", "top", "shorts", "skirt",
    "headwear", "scarf",
)  # fmt: skip
"""What a detector of clothes finds; a tie counts as scarf."""

WHOLE = "whole product"
"""The whole picture as one item: a pack shot, or a single-object shop such as a grocer."""

CLASSES: tuple[str, ...] = (*WEARABLE, WHOLE)
"""Classes by the number that the detector's graph gives, and the shards of the index: products that are not
wearable in this sense (watches, groceries) are in the last."""

GREY = 114
"""Ground of letterboxed pictures."""

SAME_PICTURE = 0.995
"""Cosine of what is seen (all of a vector but `EmbedderSettings.told_at`) from which a photo is a catalogue picture
itself: those come first, whatever their products are stated to be."""

VOTERS = 5
"""Rows of an index that look most alike and are asked what they are stated to be; see `agree`."""

VOTES_APART = 0.05
"""Difference of cosines by which a vote counts 1 / e of a nearer one's."""

BELIEF = 0.5
"""What is believed of the picture itself, beside all votes."""

DETECTOR_FILE = "visual/detector.onnx"
EMBEDDER_FILE = "visual/embedder.onnx"
TEXT_FILE = "visual/text.onnx"
TOKENIZER_FILE = "visual/tokenizer.json"
OUTFIT_FILE = "visual/outfit.onnx"
OUTFIT_ITEMS_FILE = "visual/outfit_items.onnx"
INDEX_FILE = "visual/index.npz"
LOOKS_FILE = "visual/looks.npz"
GOLDEN_FILE = "golden/visual.npz"

COMPONENTS: tuple[str, ...] = (
    "detector",
    "embedder",
    "text",
    "outfit",
    "index",
    "looks",
    "golden_visual",
)
"""Names of the visual components of a manifest."""

INDEX_ARRAYS: dict[str, tuple[str, str]] = {
    "product_id": ("U", "N"),
    "vectors": ("float32", "N,d"),
    "shard": ("int32", "N"),
    "shards": ("U", "S"),
    "projected": ("float32", "N,p"),
    "slot": ("int64", "N"),
    "colour": ("int32", "N"),
    "colours": ("U", "C"),
    "type": ("int32", "N"),
    "types": ("U", "T"),
    "price": ("float32", "N"),
    "in_stock": ("bool", "N"),
    "sizes": ("U", "Z"),
    "sized": ("int8", "N,Z"),
    "answers_from": ("int64", "N+1"),
    "answers": ("U", "A"),
    "centres": ("float32", "C,d"),
    "cell_shard": ("int32", "C"),
    "cell_rows": ("int64", "C,2"),
    "probes": ("int32", "S"),
    "embedder_sha256": ("U", ""),
}
"""Array -> (type, shape) of `INDEX_FILE`, rows sorted by shard. A shard too large to be searched whole is cut into
cells: ``centres`` with the first and last row (exclusive) of each, of which a search looks at the nearest ``probes``;
0 probes is a shard that is searched exactly. ``sized`` is 0 for a size that a product is not made in, 1 for one that
ran out, 2 for one in stock; a release without the two arrays knows of no sizes. ``price`` is NaN where unknown;
``projected`` has p = 0 without an outfit model; ``slot`` is an item's slot there, 0 for none. A row stands for
``answers[answers_from[i]:answers_from[i + 1]]``, which is itself in a shop with pictures of its products, and the
popular products of its type in a shop whose pictures show types (a grocer); ``embedder_sha256`` is that of
`EMBEDDER_FILE` in the same release."""

LOOK_ARRAYS: dict[str, tuple[str, str]] = {
    "media_id": ("U", "M"),
    "title": ("U", "M"),
    "width": ("int32", "M"),
    "height": ("int32", "M"),
    "spot_media": ("int32", "H"),
    "box": ("float32", "H,4"),
    "class": ("int32", "H"),
    "classes": ("U", "K"),
    "score": ("float32", "H"),
    "answers": ("U", "H,A"),
    "similarity": ("float32", "H,A"),
}
"""Array -> (type, shape) of `LOOKS_FILE`: pictures, their hotspots (boxes as fractions of the picture) and the
products that answer each, best first, padded with empty ids."""

GOLDEN_ARRAYS: dict[str, tuple[str, str]] = {
    "pixels": ("uint8", "G,s,s,3"),
    "embedding": ("float32", "G,d"),
    "scene": ("uint8", "D,S,S,3"),
    "boxes": ("float32", "D,K,4"),
    "scores": ("float32", "D,K"),
    "input_ids": ("int64", "Q,L"),
    "attention_mask": ("int64", "Q,L"),
    "text": ("float32", "Q,d"),
}
"""Array -> (type, shape) of `GOLDEN_FILE`: inputs with the outputs that the shipped graphs gave; the arrays of a
component that is not in the release are left out."""

MEDIA = "media"
LOOKS_FOLDER = "looks"
MEDIA_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What the name of a picture may look like in an address and on disk."""

Positive = Annotated[int, msgspec.Meta(ge=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class DetectorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the component ``detector``.

    Attributes:
        size: S, side of the square it sees; 0 with ``single``.
        classes: Name of each class it finds.
        threshold: Least score of a box that is kept.
        iou: Boxes of one class that overlap a better one by more are dropped (greedy, by the caller).
        single: A photo is one item, `WHOLE`; there is no graph.
        int8: Whether the graph is quantised.
    """

    size: Count = 0
    classes: tuple[str, ...] = ()
    threshold: Share = 0.3
    iou: Share = 0.5
    single: bool = False
    int8: bool = False


class EmbedderSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the component ``embedder``.

    Attributes:
        size: s, side of the square crop.
        dim: d, width of a vector.
        margin: Share of a box's width and height that is added on each side of it before cropping.
        letterbox: Keep the shape of a crop (scaled to fit, top left on grey), instead of stretching it to the square.
        attributes: Values per attribute, in the order of the logits of ``attr_<name>``.
        told: Attributes whose probabilities are a part of the vector: of a photo as believed, of a row of the index as
            the catalogue states them.
        told_at: First and last (exclusive) number of that part.
        told_weights: How much each of ``told`` counts in it; empty for all alike.
        base: Weights it started from.
        int8: Whether the graph is quantised.
    """

    size: Positive
    dim: Positive
    margin: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.0
    letterbox: bool = False
    attributes: dict[str, tuple[str, ...]] = {}
    told: tuple[str, ...] = ()
    told_at: tuple[Count, Count] = (0, 0)
    told_weights: tuple[float, ...] = ()
    base: str = ""
    int8: bool = False


class TextSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the component ``text``.

    Attributes:
        length: Most tokens that are read.
        dim: d, as the embedder's.
        int8: Whether the graph is quantised.
    """

    length: Positive
    dim: Positive
    int8: bool = False


class OutfitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the component ``outfit``.

    Attributes:
        slots: Names of the slots 1, 2, ...: shards of the index.
        dim: p, width of the space of compatibility.
        items: Most items of a set.
    """

    slots: tuple[str, ...]
    dim: Positive
    items: Positive = 8


class IndexSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the component ``index``.

    Attributes:
        products: N, its rows.
        dim: d.
        exact_limit: A shard of at most this many rows is not cut into cells: exact search is as fast there.
        cells: Shards that are cut into cells, and how many of them a search looks at.
        meaning: What a row is: a ``product``, or a product ``type`` whose popular products answer.
        votes: Whether rows tell what the catalogue states, so that they know what a photo shows; see `agree`.
    """

    products: Count
    dim: Positive
    exact_limit: Positive
    cells: dict[str, int] = {}
    meaning: Annotated[str, msgspec.Meta(pattern="^(product|type)$")] = "product"
    votes: bool = False


def agree(
    believed: NDArray[np.float32], stated: NDArray[np.float32], alike: NDArray[np.float32]
) -> NDArray[np.float32]:
    """What a picture tells of its attributes once the products that look most alike were asked what they are.

    The nearest products of a catalogue name a photo's type more surely than a head that learned from them does (on the
    validation part of fashion-products 0.924 of the types against 0.911), and one dot product with rows that state
    theirs then brings up one type and not a mixture. It is pseudo-relevance feedback (Rocchio 1971) on this part alone.

    Args:
        believed: float32[w], the part of the picture's vector at `EmbedderSettings.told_at`.
        stated: float32[K, w], that of the rows that look most alike.
        alike: float32[K], cosine with them of what is seen.

    Returns:
        float32[w], as long as ``believed``; that itself where there are no rows.
    """
    if not len(alike):
        return believed
    weights = np.exp((alike - alike.max()) / VOTES_APART)
    mixed = weights @ stated / weights.sum() + BELIEF * believed
    length = np.linalg.norm(believed) / max(float(np.linalg.norm(mixed)), 1e-12)
    return np.asarray(mixed * length, np.float32)


def media_path(home: pathlib.Path, name: str, look: bool = False) -> pathlib.Path:
    """Where a page's picture of a product or a look lies.

    Args:
        home: CONTINUUM_HOME.
        name: Product or media id.
        look: Whether it is a look.

    Raises:
        ValueError: The name cannot be a file's.
    """
    if not MEDIA_NAME.fullmatch(name):
        raise ValueError(f"picture name is {name!r}; expected letters, digits, dot, dash, underscore")
    folder = home / MEDIA / LOOKS_FOLDER if look else home / MEDIA
    return folder / f"{name}.jpg"
