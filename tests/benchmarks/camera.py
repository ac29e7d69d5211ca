"""Camera search: one 12-megapixel photo with five items against 50,000 products, through the server's socket.

The graphs are those of CONTINUUM_HOME's champion if it sees, and otherwise untrained ones of the very
shape that training exports; the setup says which. The catalogue's vectors are made up (clusters of unit
vectors in shards of the detector's classes), because time depends on how many there are, not on what
they show. A known customer asks, so the ranker's work is in the time.

`server_over_model_time` is the handler's time, from the first byte of the request to the last of the
answer, over the time in which the photo was decoded or an ONNX graph ran. Crops are embedded on two
threads at once; that stretch counts once, by the wall clock, which is the strict way to read the bar.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from contracts import visual as names
from contracts.release import Component, describe_file, read_manifest
from tests.benchmarks.loadgen import Client, Reply
from tests.benchmarks.serving import SYNTHETIC_YAML, Bench

Progress = Callable[[str], None]

PRODUCTS, ITEMS_IN_PHOTO = 50_000, 5
WIDTH, HEIGHT = 4_000, 3_000
CLUSTERS = 400


@dataclasses.dataclass
class Graphs:
    """The models of the bench.

    Attributes:
        detector: Bytes of its graph.
        embedder: Likewise.
        detecting: Its settings.
        embedding: Likewise.
        origin: Where they come from, for the setup.
        photo: The photo as a JPEG.
    """

    detector: bytes
    embedder: bytes
    detecting: dict[str, Any]
    embedding: dict[str, Any]
    origin: str
    photo: bytes


def run(quick: bool, progress: Progress) -> dict[str, Any]:
    """Measure; tests/benchmarks/bars.py says what has to hold."""
    with tempfile.TemporaryDirectory(prefix="continuum-camera-") as folder:
        home = pathlib.Path(folder)
        graphs = real_graphs() or untrained_graphs(home)
        progress(f"graphs: {graphs.origin}; photo of {len(graphs.photo) / 1e6:.1f} MB")
        install(home, graphs)
        bench = Bench(home)
        bench.environment = {
            **os.environ, "CONTINUUM_HOME": str(home), "RETAILER": str(home / "synthetic.yaml"), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        with bench.server() as (_, address):
            replies = ask(address, graphs.photo, 15 if quick else 60)
        return report(replies, graphs)


def ask(address: str, photo: bytes, requests: int) -> list[Reply]:
    """Send the photo, one request at a time, on one connection."""
    client = Client(address)
    path = "/v1/search/image?customer_id=1001&n=8"
    for _ in range(5):
        client.post(path, photo)
    replies = [client.post(path, photo) for _ in range(requests)]
    client.close()
    for reply in replies:
        if reply.status != 200:
            raise RuntimeError(f"the server answered {reply.status}: {reply.body[:300]!r}")
    return replies


def report(replies: list[Reply], graphs: Graphs) -> dict[str, Any]:
    """The numbers of all replies."""
    handler, model = (
        np.array([reply.server_timing[key] for reply in replies]) for key in ("handler", "model")
    )
    client = np.array([reply.seconds * 1e3 for reply in replies])
    answer = json.loads(replies[-1].body)
    steps = sorted({key for reply in replies for key in reply.server_timing} - {"handler", "model"})
    return {
        "measured": {
            "server_over_model_time": float(np.median(handler / model)),
            "p50_ms": float(np.median(client)),
            "p95_ms": float(np.quantile(client, 0.95)),
            "handler_p50_ms": float(np.median(handler)),
            "model_p50_ms": float(np.median(model)),
            "items": len(answer["objects"]),
            "results": sum(len(seen["items"]) for seen in answer["objects"]),
        },
        "setup": {
            "graphs": graphs.origin,
            "products": PRODUCTS,
            "photo": f"{WIDTH} x {HEIGHT} JPEG, {len(graphs.photo) / 1e6:.1f} MB",
            "requests": len(replies),
            "embedder_input": graphs.embedding["size"],
            "told": list(graphs.embedding.get("told", ())),
            "detector_input": graphs.detecting["size"],
            "step_p50_ms": {
                step: round(float(np.median([reply.server_timing.get(step, 0.0) for reply in replies])), 2)
                for step in steps
            },
        },
    }


def real_graphs() -> Graphs | None:
    """Graphs of the champion under CONTINUUM_HOME, with a drawn photo of which they find five items; None without."""
    from serving.releases.release import load_release
    from tests.benchmarks.serving import _real_release

    found = _real_release()
    if found is None:
        return None
    folder = found[0]
    manifest = read_manifest((folder / "manifest.json").read_bytes())
    parts = {component.name: component for component in manifest.components}
    if not {"detector", "embedder", "index"} <= set(parts) or parts["detector"].settings.get("single"):
        return None
    visual = load_release(folder, manifest).visual
    assert visual is not None
    photo = best_photo(visual)
    return Graphs(
        (folder / names.DETECTOR_FILE).read_bytes(), (folder / names.EMBEDDER_FILE).read_bytes(),
        parts["detector"].settings, parts["embedder"].settings, f"champion {manifest.release}", photo,
    )  # fmt: skip


def best_photo(visual: Any) -> bytes:
    """The first drawn photo in which five items are found; if there is none among many, the last one tried."""
    from serving.vision.decode import Photo, decode
    from serving.vision.models import Spent

    photo = b""
    for seed in range(200):
        image = drawn_look(seed)
        if len(visual.detector.find(Photo(image, *image.size), Spent())) != ITEMS_IN_PHOTO:
            continue
        photo = photograph(seed)
        if len(visual.detector.find(decode(photo), Spent())) == ITEMS_IN_PHOTO:
            return photo
    return photo or photograph(0)


def untrained_graphs(folder: pathlib.Path) -> Graphs:
    """Graphs as training exports them, with the first weights; the detector's answer is fixed to five boxes."""
    from training.visual.config import EmbedderParams
    from training.visual.detector.export import export
    from training.visual.detector.network import Network
    from training.visual.detector.params import DetectorParams
    from training.visual.detector.trunk import Levels
    from training.visual.embedder_export import export_embedder
    from training.visual.embedder_model import Embedder
    from training.visual.trunk import make_trunk

    seeing, finding = EmbedderParams(dim=320, told=("type", "colour")), DetectorParams()
    attributes = {"colour": 12, "pattern": 6, "type": 39}
    values = {name: [f"{name} {place}" for place in range(size)] for name, size in attributes.items()}
    embedder = Embedder(
        make_trunk("imagenet"),
        seeing.dim,
        seeing.colour_dim,
        attributes,
        told=seeing.told,
        told_dim=seeing.told_dim,
    ).eval()
    export_embedder(embedder, seeing.size, folder / "embedder.onnx")
    detector = Network(Levels("lite0", "imagenet"), len(names.CLASSES), finding.size, finding.width).eval()
    export(detector, folder / "plain.onnx")
    (folder / "detector.onnx").write_bytes(five_boxes((folder / "plain.onnx").read_bytes()))
    return Graphs(
        (folder / "detector.onnx").read_bytes(),
        (folder / "embedder.onnx").read_bytes(),
        {"size": finding.size, "classes": list(names.CLASSES), "threshold": 0.3, "iou": 0.6},
        {"size": seeing.size, "dim": seeing.dim, "margin": seeing.box_margin, "attributes": values,
         "told": list(seeing.told), "told_at": list(seeing.told_at)},
        "untrained, of the shape that training on photos exports",
        photograph(1),
    )  # fmt: skip


def five_boxes(content: bytes) -> bytes:
    """A detector that does all its work and then answers with five items of five classes."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_model_from_string(content)
    graph = model.graph
    boxes = np.zeros((1, 100, 4), np.float32)
    for place in range(ITEMS_IN_PHOTO):
        left, top = 0.02 + 0.19 * place, 0.05 + 0.1 * (place % 3)
        boxes[0, place] = (left, top, left + 0.17, top + 0.45)
    scores = np.zeros((1, 100), np.float32)
    scores[0, :ITEMS_IN_PHOTO] = 0.9
    classes = (np.arange(100, dtype=np.int64) % len(names.WEARABLE))[None]
    for name, fixed in (("boxes", boxes), ("scores", scores), ("classes", classes)):
        for node in graph.node:
            node.output[:] = [f"{name}_found" if output == name else output for output in node.output]
            node.input[:] = [f"{name}_found" if value == name else value for value in node.input]
        zero = np.zeros((), np.int64 if name == "classes" else np.float32)
        graph.initializer.append(numpy_helper.from_array(fixed, f"{name}_fixed"))
        graph.initializer.append(numpy_helper.from_array(zero, f"{name}_zero"))
        graph.node.append(helper.make_node("Mul", [f"{name}_found", f"{name}_zero"], [f"{name}_none"]))
        graph.node.append(helper.make_node("Add", [f"{name}_none", f"{name}_fixed"], [name]))
    return bytes(model.SerializeToString())


@functools.cache
def goods() -> list[dict[str, Any]]:
    """Rows of the simulated catalogue."""
    from training.rehearsal import catalogue
    from training.rehearsal.config import checked

    rows = catalogue.table(catalogue.build(checked({"products": 240, "seed": 7}))).to_pylist()
    return [row for row in rows if row["kind"] == "good"]


def drawn_look(seed: int) -> Image.Image:
    """A drawn look of five items, on a ground as wide as a photo."""
    from training.rehearsal.drawing.looks import look

    made = look(goods(), seed)
    while len(made.items) != ITEMS_IN_PHOTO:
        seed += 1_000
        made = look(goods(), seed)
    image = made.image.convert("RGB")
    ground = tuple(int(level) for level in np.asarray(image)[:2].mean((0, 1)))
    whole = Image.new("RGB", (image.height * WIDTH // HEIGHT, image.height), ground)
    whole.paste(image, ((whole.width - image.width) // 2, 0))
    return whole


def photograph(seed: int) -> bytes:
    """A drawn look as large and as noisy as a phone's photo."""
    rng = np.random.default_rng(seed)
    drawn = drawn_look(seed).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    whole = np.asarray(drawn).astype(np.int16) + rng.normal(0, 5, (HEIGHT, WIDTH, 1)).astype(np.int16)
    buffer = io.BytesIO()
    Image.fromarray(whole.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def install(home: pathlib.Path, graphs: Graphs) -> None:
    """A signed release with the graphs, 50,000 products and their index, in an installation of its own."""
    from tests.integration.serving import seeing
    from tests.integration.serving.synthetic import Keys, make_release, remake, write_profiles

    keys = Keys(home / "keys")
    folder = make_release(home / "registry" / "a", keys, "camera", seed=1)
    write_profiles(home / "profiles")
    (home / "synthetic.yaml").write_text(SYNTHETIC_YAML)
    (home / "registry" / "champion").write_text("a")
    with np.load(folder / "items" / "items.npz") as arrays:
        items = grown(dict(arrays))
    remake(folder, keys, items)
    (folder / "visual").mkdir()
    files = {
        names.DETECTOR_FILE: graphs.detector,
        names.EMBEDDER_FILE: graphs.embedder,
        names.INDEX_FILE: seeing.archive(index(graphs, items["product_id"])),
        names.GOLDEN_FILE: seeing.archive(golden(graphs)),
    }
    for path, content in files.items():
        (folder / path).write_bytes(content)
    manifest = read_manifest((folder / "manifest.json").read_bytes())
    settings = {
        "detector": graphs.detecting, "embedder": graphs.embedding,
        "index": {"products": PRODUCTS, "dim": graphs.embedding["dim"], "exact_limit": 100_000,
                  "votes": bool(graphs.embedding.get("told"))},
    }  # fmt: skip
    parts = {
        "detector": names.DETECTOR_FILE, "embedder": names.EMBEDDER_FILE, "index": names.INDEX_FILE,
        "golden_visual": names.GOLDEN_FILE,
    }  # fmt: skip
    components = tuple(
        Component(name=name, kind="onnx" if path.endswith("onnx") else "arrays", files=(describe_file(folder, path),),
                  settings=settings.get(name, {}))
        for name, path in parts.items()
    )  # fmt: skip
    manifest = msgspec.structs.replace(manifest, components=(*manifest.components, *components))
    from tests.integration.serving.synthetic import sign

    sign(folder, keys, manifest)


def grown(arrays: dict[str, Any]) -> dict[str, Any]:
    """The item table of the tests with 50,000 items; what is new sells and nobody bought it yet."""
    size = len(arrays["product_id"])
    more = PRODUCTS - size
    for key, column in arrays.items():
        if len(column) == size and key != "popular":
            arrays[key] = np.concatenate([column, np.resize(column, (more, *column.shape[1:]))])
    added = [f"q{place:05d}" for place in range(more)]
    arrays["product_id"] = np.concatenate([arrays["product_id"][:size], added])
    arrays["name"] = np.array([f"Product {place}" for place in range(PRODUCTS)])
    arrays["encoder_id"][size:] = 0
    return arrays


def index(graphs: Graphs, product_ids: Any) -> dict[str, Any]:
    """Made-up unit vectors in clusters, spread over the classes as products would be."""
    rng = np.random.default_rng(3)
    dim = graphs.embedding["dim"]
    centres = rng.normal(size=(CLUSTERS, dim)).astype(np.float32)
    vectors = centres[rng.integers(0, CLUSTERS, PRODUCTS)] + 0.5 * rng.normal(size=(PRODUCTS, dim)).astype(
        np.float32
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    shard = np.sort(rng.integers(0, len(names.CLASSES), PRODUCTS)).astype(np.int32)
    return {
        "product_id": product_ids, "vectors": vectors, "shard": shard, "shards": np.array(names.CLASSES),
        "projected": np.zeros((PRODUCTS, 0), np.float32), "slot": np.zeros(PRODUCTS, np.int64),
        "colour": rng.integers(0, 12, PRODUCTS).astype(np.int32),
        "colours": np.array([f"colour {place}" for place in range(12)]),
        "type": np.zeros(PRODUCTS, np.int32), "types": np.array(["product"]),
        "price": rng.uniform(5, 200, PRODUCTS).astype(np.float32), "in_stock": rng.random(PRODUCTS) < 0.9,
        "answers_from": np.arange(PRODUCTS + 1, dtype=np.int64), "answers": product_ids,
        "embedder_sha256": np.array(hashlib.sha256(graphs.embedder).hexdigest()),
    }  # fmt: skip


def golden(graphs: Graphs) -> dict[str, Any]:
    """What the graphs give here, as a release records it."""
    from serving.engine.sessions import Session

    rng = np.random.default_rng(5)
    side, size = graphs.embedding["size"], graphs.detecting["size"]
    pixels = rng.integers(0, 255, (2, side, side, 3), np.uint8)
    scene = rng.integers(0, 255, (1, size, size, 3), np.uint8)
    (embedding,), _ = Session("embedder", graphs.embedder).run(("embedding",), {"pixels": pixels})
    (boxes, scores), _ = Session("detector", graphs.detector).run(("boxes", "scores"), {"pixels": scene})
    return {"pixels": pixels, "embedding": embedding, "scene": scene, "boxes": boxes, "scores": scores}
