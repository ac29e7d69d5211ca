"""Visual parts for a tiny release, in which everything is known: hand-made graphs that see colours.

A product's picture is a coloured shape on white. The embedder pools colours over a grid of four by four,
the detector looks at the four quarters of a photo and finds what is coloured, the text tower knows the
vector of each colour word, and an outfit is what a fixed projection says. All obey `contracts/visual.py`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw

from contracts import visual as names
from contracts.release import Component, Manifest, describe_file, read_manifest
from serving.engine.sessions import Session
from tests.integration.serving.synthetic import Keys, sign

SIDE, SCENE, GRID = 32, 64, 4
DIM, POINT = 3 * GRID * GRID, 16
PRODUCTS = 160
CLASSES = ("top", "dress", "footwear", "bag")
SLOTS = ("top", "dress", "footwear", "bag", "pants")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (200, 30, 40), "green": (30, 150, 60), "blue": (40, 60, 190), "yellow": (230, 200, 40),
    "purple": (130, 40, 150), "black": (25, 25, 28),
}  # fmt: skip
SHARDS = (*CLASSES, "pants", names.WHOLE)
WORDS = ("[UNK]", *COLOURS, *CLASSES, "striped", "shirt")


def shard_of(place: int) -> int:
    return place % 5


def colour_of(place: int) -> int:
    return (place // 5) % len(COLOURS)


def picture(place: int, size: int = 96) -> Image.Image:
    """The catalogue picture of a product: its colour, in a shape that no other product has."""
    rng = np.random.default_rng(place)
    image = Image.new("RGB", (size, size), (255, 255, 255))
    edges = rng.uniform(0.02, 0.2, 4)
    box = [edges[0] * size, edges[1] * size, (1 - edges[2]) * size, (1 - edges[3]) * size]
    draw = ImageDraw.Draw(image)
    draw.rectangle(box, fill=tuple(COLOURS.values())[colour_of(place)])
    hole = [rng.uniform(box[0], box[2] - size / 6), rng.uniform(box[1], box[3] - size / 6)]
    draw.rectangle([*hole, hole[0] + size / 7, hole[1] + size / 7], fill=(250, 250, 250))
    return image


def scene(quarters: Mapping[int, int], size: int = 800) -> Image.Image:
    """A photo with product pictures in some of its quarters: quarter -> product."""
    photo = Image.new("RGB", (size, size), (255, 255, 255))
    half = size // 2
    for quarter, place in quarters.items():
        spot = ((quarter % 2) * half, (quarter // 2) * half)
        photo.paste(picture(place, half), spot)
    return photo


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}), **options)
    return buffer.getvalue()


@dataclasses.dataclass(frozen=True)
class Range:
    """The products that can be seen: the first ``count`` of the catalogue.

    Attributes:
        count: How many.
        picture: Place and size to picture.
        shard: Place to its shard, index in `SHARDS`.
        colour: Place to its colour, index in ``colours``, -1 for none.
        price: Place to its price.
        colours: Names of colours.
    """

    count: int
    picture: Callable[[int, int], Image.Image]
    shard: Callable[[int], int]
    colour: Callable[[int], int]
    price: Callable[[int], float]
    colours: tuple[str, ...] = tuple(COLOURS)


def embedder_graph() -> onnx.ModelProto:
    palette = np.array(list(COLOURS.values()), np.float32) / 255.0
    weights = {
        "scale": np.array(1 / 255, np.float32), "one": np.array(1, np.float32), "small": np.array(1e-3, np.float32),
        "from": np.array([8, 8], np.int64), "to": np.array([24, 24], np.int64), "axes": np.array([2, 3], np.int64),
        "flat": np.array([0, DIM], np.int64), "palette": (60 * palette.T).copy(),
        "lengths": -30 * (palette**2).sum(1), "last": np.array([1], np.int64),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        node("Mul", ["float", "scale"], ["unit"]),
        node("Transpose", ["unit"], ["planes"], perm=[0, 3, 1, 2]),
        node("AveragePool", ["planes"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
        node("Reshape", ["pooled", "flat"], ["cells"]),
        node("Sub", ["one", "cells"], ["ink"]),
        node("Add", ["ink", "small"], ["some"]),
        node("ReduceL2", ["some", "last"], ["length"], keepdims=1),
        node("Div", ["some", "length"], ["embedding"]),
        node("Slice", ["planes", "from", "to", "axes"], ["middle"]),
        node("ReduceMean", ["middle", "axes"], ["mean"], keepdims=0),
        node("MatMul", ["mean", "palette"], ["alike"]),
        node("Add", ["alike", "lengths"], ["attr_colour"]),
    ]
    value = helper.make_tensor_value_info
    return _model(
        nodes, [value("pixels", TensorProto.UINT8, ["B", SIDE, SIDE, 3])],
        [value("embedding", TensorProto.FLOAT, ["B", DIM]), value("attr_colour", TensorProto.FLOAT, ["B", len(COLOURS)])],
        weights,
    )  # fmt: skip


def detector_graph() -> onnx.ModelProto:
    """Each quarter is a box of its own class; its score is how coloured or dark it is."""
    boxes = np.array([[x, y, x + 0.5, y + 0.5] for y in (0, 0.5) for x in (0, 0.5)], np.float32)
    weights = {
        "three": np.array([3], np.int64), "planes": np.array([0, 1, SCENE, SCENE], np.int64),
        "flat": np.array([0, 4], np.int64), "gain": np.array(1 / 40, np.float32), "zero": np.array(0, np.float32),
        "one": np.array(1, np.float32), "fixed": boxes[None], "kinds": np.arange(4, dtype=np.float32)[None],
        "corner": np.array([1], np.int64), "corners": np.array([2], np.int64), "white": np.array(230, np.float32),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        node("ReduceMax", ["float", "three"], ["most"], keepdims=0),
        node("ReduceMin", ["float", "three"], ["least"], keepdims=0),
        node("Sub", ["most", "least"], ["hue"]),
        node("Sub", ["white", "most"], ["below"]),
        node("Sub", ["below", "below"], ["nothing"]),
        node("Add", ["hue", "nothing"], ["coloured"]),
        node("Reshape", ["coloured", "planes"], ["plane"]),
        node("AveragePool", ["plane"], ["pooled"], kernel_shape=[SCENE // 2] * 2, strides=[SCENE // 2] * 2),
        node("Reshape", ["pooled", "flat"], ["sums"]),
        node("Mul", ["sums", "gain"], ["raw"]),
        node("Clip", ["raw", "zero", "one"], ["scores"]),
        node("Mul", ["scores", "zero"], ["zeros"]),
        node("Unsqueeze", ["zeros", "corners"], ["column"]),
        node("Add", ["column", "fixed"], ["boxes"]),
        node("Add", ["zeros", "kinds"], ["kind"]),
        node("Cast", ["kind"], ["classes"], to=TensorProto.INT64),
    ]
    value = helper.make_tensor_value_info
    return _model(
        nodes, [value("pixels", TensorProto.UINT8, ["B", SCENE, SCENE, 3])],
        [value("boxes", TensorProto.FLOAT, ["B", 4, 4]), value("scores", TensorProto.FLOAT, ["B", 4]),
         value("classes", TensorProto.INT64, ["B", 4])], weights,
    )  # fmt: skip


def text_graph(table: np.ndarray) -> onnx.ModelProto:
    weights = {
        "table": table.astype(np.float32), "two": np.array([2], np.int64), "one": np.array([1], np.int64),
        "small": np.array(1e-3, np.float32),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Gather", ["table", "input_ids"], ["vectors"]),
        node("Cast", ["attention_mask"], ["weights"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["weights", "two"], ["weight"]),
        node("Mul", ["vectors", "weight"], ["weighted"]),
        node("ReduceSum", ["weighted", "one"], ["sum"], keepdims=0),
        node("Add", ["sum", "small"], ["some"]),
        node("ReduceL2", ["some", "one"], ["length"], keepdims=1),
        node("Div", ["some", "length"], ["embedding"]),
    ]
    value = helper.make_tensor_value_info
    inputs = [value(key, TensorProto.INT64, ["B", "L"]) for key in ("input_ids", "attention_mask")]
    return _model(nodes, inputs, [value("embedding", TensorProto.FLOAT, ["B", DIM])], weights)


def projection() -> np.ndarray:
    return np.random.default_rng(11).normal(size=(DIM, POINT)).astype(np.float32)


def slot_points() -> np.ndarray:
    return 0.1 * np.random.default_rng(12).normal(size=(len(SLOTS) + 1, POINT)).astype(np.float32)


def outfit_graph() -> onnx.ModelProto:
    """Query = mean of what is there, projected, and a little of the target slot; goes together = its length."""
    weights = {
        "w": projection(), "slots": slot_points(),
        "zero": np.array(0, np.int64), "one": np.array([1], np.int64), "two": np.array([2], np.int64),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Greater", ["types", "zero"], ["real"]),
        node("Cast", ["real"], ["weights"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["weights", "two"], ["weight"]),
        node("Mul", ["vectors", "weight"], ["weighted"]),
        node("ReduceSum", ["weighted", "one"], ["sum"], keepdims=0),
        node("ReduceSum", ["weights", "one"], ["count"], keepdims=1),
        node("Div", ["sum", "count"], ["mean"]),
        node("MatMul", ["mean", "w"], ["projected"]),
        node("Gather", ["slots", "target"], ["slot"]),
        node("Add", ["projected", "slot"], ["query"]),
        node("ReduceL2", ["query", "one"], ["compatibility"], keepdims=0),
    ]
    value = helper.make_tensor_value_info
    return _model(
        nodes, [value("vectors", TensorProto.FLOAT, ["B", "N", DIM]), value("types", TensorProto.INT64, ["B", "N"]),
                value("target", TensorProto.INT64, ["B"])],
        [value("query", TensorProto.FLOAT, ["B", POINT]), value("compatibility", TensorProto.FLOAT, ["B"])], weights,
    )  # fmt: skip


def tokenizer() -> bytes:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    made = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made.to_str().encode()


def vectors_of(pictures: Sequence[Image.Image], graph: bytes) -> np.ndarray:
    """Vectors of whole pictures."""
    pixels = np.stack(
        [np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, None, 2.0)) for image in pictures]
    )
    return Session("embedder", graph).run(("embedding",), {"pixels": pixels})[0][0]


SIZES = ("S", "M", "L", "40", "41")


def sized(place: int, shard: int) -> list[int]:
    """Even shards come in letters, odd ones in numbers, the last in none; each third product lacks the second size."""
    made = [1, 1, 1, 0, 0] if shard % 2 == 0 else [0, 0, 0, 1, 1]
    if shard == len(SHARDS) - 1:
        return [0] * 5
    lacks = place % 3 == 0
    return [
        size * (1 if lacks and name in ("M", "41") else 2) for size, name in zip(made, SIZES, strict=True)
    ]


def price_of(place: int) -> float:
    return 10.0 + 7 * (place % 13)


STAND_IN = Range(PRODUCTS, picture, shard_of, colour_of, price_of)


def index_arrays(graph: bytes, product_ids: Sequence[str], seen: Range = STAND_IN) -> dict[str, Any]:
    """The index over the first products of the catalogue, sorted by shard."""
    places = sorted(range(seen.count), key=lambda place: (seen.shard(place), place))
    vectors = vectors_of([seen.picture(place, 96) for place in places], graph)
    shards = np.array([seen.shard(place) for place in places], np.int32)
    return {
        "product_id": np.array([product_ids[place] for place in places]),
        "vectors": vectors,
        "shard": shards,
        "shards": np.array(SHARDS),
        "projected": vectors @ projection(),
        "slot": np.where(shards < len(SLOTS), shards + 1, 0).astype(np.int64),
        "colour": np.array([seen.colour(place) for place in places], np.int32),
        "colours": np.array(seen.colours),
        "type": shards,
        "types": np.array(SHARDS),
        "price": np.array([seen.price(place) for place in places], np.float32),
        "in_stock": np.array([place % 9 != 0 for place in places]),
        "sizes": np.array(SIZES),
        "sized": np.array([sized(place, seen.shard(place)) for place in places], np.int8),
        "answers_from": np.arange(seen.count + 1, dtype=np.int64),
        "answers": np.array([product_ids[place] for place in places]),
        "embedder_sha256": np.array(hashlib.sha256(graph).hexdigest()),
    }


def look_arrays(product_ids: Sequence[str]) -> dict[str, Any]:
    return {
        "media_id": np.array(["look-1", "look-2"]),
        "title": np.array(["Red and blue", "Nothing here"]),
        "width": np.array([800, 800], np.int32),
        "height": np.array([800, 800], np.int32),
        "spot_media": np.array([0, 0], np.int32),
        "box": np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]], np.float32),
        "class": np.array([0, 3], np.int32),
        "classes": np.array(CLASSES),
        "score": np.array([0.9, 0.8], np.float32),
        "answers": np.array([[product_ids[5], product_ids[10], ""], [product_ids[8], "", ""]]),
        "similarity": np.array([[0.9, 0.8, 0.0], [0.7, 0.0, 0.0]], np.float32),
    }


def add_visual(
    folder: pathlib.Path,
    keys: Keys,
    parts: Sequence[str] = names.COMPONENTS,
    seen: Range = STAND_IN,
    looks: Mapping[str, Any] | None = None,
) -> Manifest:
    """Give a signed release visual parts, and sign it again.

    Args:
        folder: The release.
        keys: Who signs.
        parts: Components to add.
        seen: The products that can be seen.
        looks: Arrays of `contracts.visual.LOOKS_FILE`, or None for two made-up looks.
    """
    manifest = read_manifest((folder / "manifest.json").read_bytes())
    product_ids = np.load(folder / "items" / "items.npz")["product_id"].tolist()
    (folder / "visual").mkdir(exist_ok=True)
    embedder, detector = embedder_graph().SerializeToString(), detector_graph().SerializeToString()
    flat = vectors_of([_flat(colour) for colour in COLOURS.values()], embedder)
    table = np.zeros((len(WORDS), DIM), np.float32)
    table[1 : len(COLOURS) + 1] = flat
    text = text_graph(table).SerializeToString()
    files: dict[str, dict[str, bytes]] = {
        "detector": {names.DETECTOR_FILE: detector},
        "embedder": {names.EMBEDDER_FILE: embedder},
        "text": {names.TEXT_FILE: text, names.TOKENIZER_FILE: tokenizer()},
        "outfit": {names.OUTFIT_FILE: outfit_graph().SerializeToString()},
        "index": {names.INDEX_FILE: archive(index_arrays(embedder, product_ids, seen))},
        "looks": {names.LOOKS_FILE: archive(look_arrays(product_ids) if looks is None else looks)},
        "golden_visual": {names.GOLDEN_FILE: archive(golden_arrays(embedder, detector, text))},
    }
    settings: dict[str, dict[str, Any]] = {
        "detector": {"size": SCENE, "classes": CLASSES, "threshold": 0.3, "iou": 0.5},
        "embedder": {"size": SIDE, "dim": DIM, "attributes": {"colour": list(COLOURS)}},
        "text": {"length": 16, "dim": DIM},
        "outfit": {"slots": SLOTS, "dim": POINT},
        "index": {"products": seen.count, "dim": DIM, "exact_limit": 1_000_000},
    }
    components = [c for c in manifest.components if c.name not in names.COMPONENTS]
    for part in parts:
        for path, content in files[part].items():
            (folder / path).write_bytes(content)
        described = tuple(describe_file(folder, path) for path in files[part])
        kind = "onnx" if part in ("detector", "embedder", "text", "outfit") else "arrays"
        components.append(Component(name=part, kind=kind, files=described, settings=settings.get(part, {})))
    manifest = msgspec.structs.replace(manifest, components=tuple(components))
    sign(folder, keys, manifest)
    return manifest


def golden_arrays(embedder: bytes, detector: bytes, text: bytes) -> dict[str, Any]:
    pixels = np.stack([np.asarray(picture(place, SIDE)) for place in (3, 40)])
    scenes = np.asarray(scene({0: 5, 3: 8}, SCENE))[None]
    tokens = np.array([[1, 7], [3, 8]], np.int64)
    boxes, scores = Session("detector", detector).run(("boxes", "scores"), {"pixels": scenes})[0]
    feed = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
    return {
        "pixels": pixels,
        "embedding": Session("embedder", embedder).run(("embedding",), {"pixels": pixels})[0][0],
        "scene": scenes,
        "boxes": boxes,
        "scores": scores,
        **feed,
        "text": Session("text", text).run(("embedding",), feed)[0][0],
    }


def archive(arrays: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _flat(colour: tuple[int, int, int]) -> Image.Image:
    image = Image.new("RGB", (96, 96), (255, 255, 255))
    ImageDraw.Draw(image).rectangle([10, 10, 85, 85], fill=colour)
    return image


def _model(nodes: Any, inputs: Any, outputs: Any, weights: Mapping[str, Any]) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(content), key) for key, content in weights.items()]
    graph = helper.make_graph(nodes, "seeing", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
