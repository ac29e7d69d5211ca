"""What the models make of the shop's pictures: the index, the hotspots of looks, and the parts of a release.

Belongs here: bringing pictures, models and the lake's facts together. Does not belong here: how an index is built or a
graph is fed (`training/visual`).
"""

from __future__ import annotations

import hashlib
import math
import pathlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from contracts.retailer import Pictures, Retailer
from contracts.settings import Settings
from contracts.visual import (
    CLASSES,
    DetectorSettings,
    EmbedderSettings,
    IndexSettings,
    OutfitSettings,
    media_path,
)
from orchestration.training_jobs import latest_bundle
from orchestration.visual import catalogue, facts, sets

if TYPE_CHECKING:
    from training.config import Bundle
    from training.visual.packing import Parts

INDEX_ARRAYS, LOOK_ARRAYS, MADE_FILE = "index.npz", "looks.npz", "index.json"
GOLDEN_PICTURES, GOLDEN_SCENES = 4, 2
SENTENCES = 4
LEAST_STATED = 0.5
"""Share of rows that have to tell what is stated of an attribute for their votes to count."""

Progress = Callable[[str], None]


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """Record of a built index, beside its arrays.

    Attributes:
        embedder: Bundle folder of the embedder.
        outfit: Bundle folder of the outfit model, empty for none.
        settings: Of the index.
        recalls: Recall at 10 per category that is searched by cells.
        rows: Products (or types) per category.
        self_first: Share of rows that no other row is nearer to than themselves.
        stated: Share of rows by attribute that tell what the catalogue states, not what is believed of their pictures.
        unanswered: Types of product that no product answers.
    """

    embedder: str
    outfit: str
    settings: IndexSettings
    recalls: dict[str, float]
    rows: dict[str, int]
    self_first: float
    stated: dict[str, float]
    unanswered: list[str]


@dataclass(frozen=True)
class Spots:
    """Hotspots of looks.

    Attributes:
        looks: Pictures.
        spots: Items found in them.
        classes: Items per class.
        empty: Looks in which nothing was found.
    """

    looks: int
    spots: int
    classes: dict[str, int]
    empty: int


def build_index(settings: Settings, retailer: Retailer, progress: Progress = lambda line: None) -> Made:
    """Embed every usable picture with the newest embedder and lay out the index.

    Raises:
        FileNotFoundError: Pictures were not collected, or no embedder was trained.
        PictureSetError: The pictures are not in their layout any more.
    """
    from training.visual.embedding import Graph, describe, whole_square
    from training.visual.index import build
    from training.visual.telling import restate

    pictures = sets.pictures_of(retailer.pictures)
    folder = latest_bundle(settings, "embedder")
    embedder, graph, sha = _open_bundle(folder, "embedder")
    told = msgspec.convert(embedder.details["settings"], EmbedderSettings)
    rows = catalogue.usable(settings)
    opened = sets.open_products(settings, pictures)
    squares = (whole_square(opened.read(row["picture"]), told) for row in rows)
    outputs = describe(Graph(graph, 2), squares, told.told, progress)
    stated = {name: stated_values(rows, name, told.attributes[name]) for name in told.told}
    vectors = restate(outputs["embedding"], told.told, told.told_at, outputs, stated, told.told_weights)
    outfit = _fitting(settings, "outfit", sha)
    products = _index_rows(settings, rows, pictures, outfit)
    projected = (
        None if outfit is None else _projected(outfit, vectors, [product.slot for product in products])
    )
    kinds = pictures.belongs == "type"
    votes = not kinds and any((values >= 0).mean() >= LEAST_STATED for values in stated.values())
    built = build(
        products,
        vectors,
        sha,
        projected,
        pictures.exact_limit,
        "type" if kinds else "product",
        votes,
        progress,
    )
    arrays = built.arrays
    _write(settings.visual / INDEX_ARRAYS, arrays)
    counts = np.bincount(arrays["shard"], minlength=len(CLASSES))
    made = Made(
        embedder=str(folder),
        outfit="" if outfit is None else str(outfit),
        settings=built.settings,
        recalls=built.recalls,
        rows={name: int(count) for name, count in zip(CLASSES, counts, strict=True) if count},
        self_first=_self_first(arrays["vectors"]),
        stated={name: float((values >= 0).mean()) for name, values in stated.items()},
        unanswered=[product.key for product in products if not product.answers],
    )
    (settings.visual / MADE_FILE).write_bytes(msgspec.json.encode(made))
    return made


def read_made(settings: Settings) -> Made | None:
    """Record of the newest index, or None where there is none."""
    path = settings.visual / MADE_FILE
    return msgspec.json.decode(path.read_bytes(), type=Made) if path.is_file() else None


def build_looks(settings: Settings, retailer: Retailer, progress: Progress = lambda line: None) -> Spots:
    """Find the items of every look that is shown, and what of the shop answers each.

    Raises:
        FileNotFoundError: There is no index or no detector yet.
    """
    from training.visual.decode import size_of
    from training.visual.embedding import Graph, embed, spot_squares, spots

    pictures = sets.pictures_of(retailer.pictures)
    made, opened = read_made(settings), sets.open_looks(settings, pictures)
    if made is None:
        raise FileNotFoundError("there is no index; expected the asset `visual/index` first")
    detector, graph, _ = _open_bundle(latest_bundle(settings, "detector"), "detector")
    told = msgspec.convert(detector.details["settings"], DetectorSettings)
    embedder, embedder_graph, _ = _open_bundle(pathlib.Path(made.embedder), "embedder")
    crops = msgspec.convert(embedder.details["settings"], EmbedderSettings)
    votes_at = crops.told_at if made.settings.votes else (0, 0)
    finder, describer = Graph(graph, 2), Graph(embedder_graph, 2)
    arrays = dict(np.load(settings.visual / INDEX_ARRAYS, allow_pickle=False))
    shown = catalogue.looks(settings)
    media, sizes, owners, boxes, classes, scores, found = [], [], [], [], [], [], []
    for media_id, key in shown.items():
        assert opened is not None
        raw = opened.read(key)
        items = spots(finder, told, raw)
        place = len(media)
        media.append(media_id)
        sizes.append(size_of(media_path(settings.home, media_id, look=True).read_bytes()))
        if not items:
            continue
        vectors = embed(describer, spot_squares(raw, [box for box, _, _ in items], crops))
        for (box, number, score), vector in zip(items, vectors, strict=True):
            owners.append(place)
            boxes.append(box)
            classes.append(number)
            scores.append(score)
            found.append(_answers(arrays, vector, told.classes[number], pictures.answers, votes_at))
        if len(media) % 50 == 0:
            progress(f"looks: {len(media)} of {len(shown)}")
    width = max((len(ids) for ids, _ in found), default=0)
    table: dict[str, NDArray[Any]] = {
        "media_id": np.array(media, np.str_), "title": np.array([f"Look {name}" for name in media], np.str_),
        "width": np.array([size[0] for size in sizes], np.int32),
        "height": np.array([size[1] for size in sizes], np.int32),
        "spot_media": np.array(owners, np.int32), "box": np.array(boxes, np.float32).reshape(-1, 4),
        "class": np.array(classes, np.int32), "classes": np.array(told.classes, np.str_),
        "score": np.array(scores, np.float32),
        "answers": np.array([ids + [""] * (width - len(ids)) for ids, _ in found], np.str_).reshape(-1, width),
        "similarity": np.array(
            [alike + [0.0] * (width - len(alike)) for _, alike in found], np.float32
        ).reshape(-1, width),
    }  # fmt: skip
    _write(settings.visual / LOOK_ARRAYS, table)
    counted = np.bincount(table["class"], minlength=len(told.classes))
    return Spots(
        looks=len(media),
        spots=len(owners),
        classes={name: int(count) for name, count in zip(told.classes, counted, strict=True) if count},
        empty=len(media) - len(set(owners)),
    )


def parts(settings: Settings, retailer: Retailer) -> Parts | None:
    """The visual parts of the next release, or None for a shop without pictures or without an index yet.

    Text tower and outfit model go in if they were trained in the space of the index's embedder.
    """
    from training.visual.decode import decode, letterbox
    from training.visual.embedding import whole_square
    from training.visual.packing import Parts

    made = read_made(settings)
    if retailer.pictures is None or made is None:
        return None
    pictures = retailer.pictures
    folder = pathlib.Path(made.embedder)
    embedder, _, sha = _open_bundle(folder, "embedder")
    bundles = {"embedder": folder}
    for family in ("text", "outfit"):
        fitting = pathlib.Path(made.outfit) if family == "outfit" and made.outfit else None
        fitting = _fitting(settings, family, sha) if family == "text" else fitting
        if fitting is not None:
            bundles[family] = fitting
    told = msgspec.convert(embedder.details["settings"], EmbedderSettings)
    rows, opened = catalogue.usable(settings), sets.open_products(settings, pictures)
    some = [rows[place] for place in np.linspace(0, len(rows) - 1, GOLDEN_PICTURES).astype(int)]
    squares = np.stack([whole_square(opened.read(row["picture"]), told) for row in some])
    scenes, looks = None, None
    try:
        detector, _, _ = _open_bundle(latest_bundle(settings, "detector"), "detector")
    except FileNotFoundError:
        pass
    else:
        bundles = {"detector": latest_bundle(settings, "detector"), **bundles}
        size = msgspec.convert(detector.details["settings"], DetectorSettings).size
        shown = list(catalogue.looks(settings).values())[:GOLDEN_SCENES]
        looked_at = sets.open_looks(settings, pictures)
        raws = [looked_at.read(key) for key in shown] if looked_at is not None else []
        raws = raws or [opened.read(row["picture"]) for row in some[:GOLDEN_SCENES]]
        scenes = np.stack([letterbox(decode(raw), size)[0] for raw in raws])
        if (settings.visual / LOOK_ARRAYS).is_file():
            looks = dict(np.load(settings.visual / LOOK_ARRAYS, allow_pickle=False))
    return Parts(
        bundles=bundles,
        index=dict(np.load(settings.visual / INDEX_ARRAYS, allow_pickle=False)),
        index_settings=made.settings,
        looks=looks,
        pictures=squares,
        scenes=scenes,
        sentences=[row["name"] or row["type"] or row["key"] for row in rows[:SENTENCES]],
    )


def _open_bundle(folder: pathlib.Path, role: str) -> tuple[Bundle, pathlib.Path, str]:
    from training.config import read_bundle

    bundle = read_bundle(folder)
    graph = folder / bundle.files[role]
    return bundle, graph, hashlib.sha256(graph.read_bytes()).hexdigest()


def _fitting(settings: Settings, family: str, sha: str) -> pathlib.Path | None:
    """The family's newest bundle if it was trained in this embedder's space."""
    from training.config import read_bundle

    try:
        folder = latest_bundle(settings, family)
    except FileNotFoundError:
        return None
    return folder if read_bundle(folder).details.get("embedder_sha256") == sha else None


def _index_rows(
    settings: Settings, rows: Sequence[dict[str, Any]], pictures: Pictures, outfit: pathlib.Path | None
) -> list[Any]:
    from training.config import read_bundle
    from training.visual.index import Product

    told = {product.product_id: product for product in facts.products(settings)}
    slots: tuple[str, ...] = ()
    if outfit is not None:
        slots = msgspec.convert(read_bundle(outfit).details["settings"], OutfitSettings).slots
    made = []
    for row in rows:
        answers = [answer for answer in row["answers"] if answer in told and told[answer].sellable]
        prices = [told[answer].price for answer in answers if not math.isnan(told[answer].price)]
        made.append(
            Product(
                key=row["key"], shard=row["class"], type=row["type"], colour=row["colour"],
                price=statistics.median(prices) if prices else math.nan,
                in_stock=any(told[answer].in_stock for answer in answers),
                sizes=told[answers[0]].sizes if answers == [row["key"]] else {},
                answers=tuple(answers[: pictures.answers]),
                slot=slots.index(row["class"]) + 1 if row["class"] in slots else 0,
            )
        )  # fmt: skip
    return made


def stated_values(rows: Sequence[Mapping[str, Any]], name: str, values: Sequence[str]) -> NDArray[np.int64]:
    """Number of the value that the catalogue states of each row; -1 where it states none that the embedder learned."""
    places = {value: number for number, value in enumerate(values)}
    return np.array([places.get(str(row.get(name) or ""), -1) for row in rows], np.int64)


def _projected(
    outfit: pathlib.Path, vectors: NDArray[np.float32], slots: Sequence[int]
) -> NDArray[np.float32]:
    """Points of products in the space of compatibility; zero for what has no slot."""
    from training.config import read_bundle
    from training.visual.embedding import Graph

    bundle = read_bundle(outfit)
    graph = Graph(outfit / bundle.files["outfit_items"], 2)
    dim = msgspec.convert(bundle.details["settings"], OutfitSettings).dim
    made = np.zeros((len(vectors), dim), np.float32)
    here = np.flatnonzero(np.array(slots) > 0)
    if len(here):
        feed = {"vectors": vectors[here], "types": np.array(slots, np.int64)[here]}
        made[here] = graph.run(("projected",), feed)[0]
    return made


def _answers(
    arrays: dict[str, NDArray[Any]],
    vector: NDArray[np.float32],
    name: str,
    count: int,
    votes_at: tuple[int, int],
) -> tuple[list[str], list[float]]:
    """Products of a class that are nearest to a vector; of all classes where the class has none.

    They vote for the numbers ``votes_at`` of the vector, where that is a part of it, as in a search.
    """
    from training.visual.telling import asked

    number = CLASSES.index(name)
    rows = np.flatnonzero(arrays["shard"] == number)
    rows = rows if len(rows) else np.arange(len(arrays["shard"]))
    if votes_at[0] < votes_at[1]:
        vector = asked(vector[None], arrays["vectors"][rows], votes_at)[0]
    similar = arrays["vectors"][rows] @ vector
    best = np.argsort(-similar, kind="stable")[:count]
    return arrays["product_id"][rows[best]].tolist(), [float(value) for value in similar[best]]


def _self_first(vectors: NDArray[np.float32]) -> float:
    """Share of rows that no other row is nearer to than themselves (equal ones share the first place)."""
    first = 0
    for start in range(0, len(vectors), 1024):
        block = vectors[start : start + 1024]
        own = (block * block).sum(axis=1)
        first += int(((block @ vectors.T).max(axis=1) <= own + 1e-5).sum())
    return first / max(len(vectors), 1)


def _write(path: pathlib.Path, arrays: dict[str, NDArray[Any]]) -> None:
    staged = path.with_name(f".{path.name}")
    with staged.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    staged.replace(path)
