"""Pictures through the graphs that are shipped: what the index, the looks and the golden pictures are made of.

Belongs here: feeding exported graphs. Does not belong here: training them, serving them.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.visual import DetectorSettings, EmbedderSettings
from training.visual.boxes import thin_out
from training.visual.decode import Box, crop, decode, letterbox

BATCH = 16
MOST_SPOTS = 12
"""Items of one look that get a hotspot, the surest first; as many as a server looks at."""

Vectors = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Progress = Callable[[str], None]


class Graph:
    """An exported graph on the CPU.

    Args:
        path: ONNX file.
        threads: CPU threads.
    """

    def __init__(self, path: pathlib.Path, threads: int = 1) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(self, outputs: Sequence[str], feed: dict[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Run once."""
        found: list[npt.NDArray[Any]] = self._session.run(list(outputs), feed)
        return found


def embed(graph: Graph, squares: Iterable[Pixels], progress: Progress = lambda line: None) -> Vectors:
    """Vectors of length 1 of squares ``uint8[s, s, 3]``, in order."""
    return describe(graph, squares, (), progress)["embedding"]


def describe(
    graph: Graph, squares: Iterable[Pixels], attributes: Sequence[str], progress: Progress = lambda line: None
) -> dict[str, Vectors]:
    """``embedding``, vectors of length 1 of squares ``uint8[s, s, 3]``, in order, and the logits of some attributes."""
    names = ("embedding", *(f"attr_{name}" for name in attributes))
    found: list[list[Vectors]] = []
    batch: list[Pixels] = []
    done = 0

    def flush() -> None:
        nonlocal done
        if batch:
            vectors, *logits = graph.run(names, {"pixels": np.stack(batch)})
            found.append([vectors / np.linalg.norm(vectors, axis=1, keepdims=True), *logits])
            if (done + len(batch)) // 1000 > done // 1000:
                progress(f"embedding: {done + len(batch):,} pictures")
            done += len(batch)
            batch.clear()

    for square in squares:
        batch.append(square)
        if len(batch) == BATCH:
            flush()
    flush()
    if not found:
        return {name: np.zeros((0, 0), np.float32) for name in ("embedding", *attributes)}
    columns = (np.concatenate(column).astype(np.float32) for column in zip(*found, strict=True))
    return dict(zip(("embedding", *attributes), columns, strict=True))


def whole_square(raw: bytes, settings: EmbedderSettings) -> Pixels:
    """A product's own picture as the embedder sees it: all of it.

    Raises:
        PictureError: It cannot be read.
    """
    return crop(decode(raw, settings.size), None, settings.size, settings.margin, settings.letterbox)


def spots(graph: Graph, settings: DetectorSettings, raw: bytes) -> list[tuple[Box, int, float]]:
    """Items of a picture: box as shares of it, number of the class, score; the surest first.

    Raises:
        PictureError: It cannot be read.
    """
    image = decode(raw)
    square, scale = letterbox(image, settings.size)
    boxes, scores, classes = (
        part[0] for part in graph.run(("boxes", "scores", "classes"), {"pixels": square[None]})
    )
    sure = np.flatnonzero(scores >= settings.threshold)
    sure = sure[thin_out(boxes[sure], scores[sure], classes[sure], settings.iou)]
    shares = boxes[sure] * settings.size / scale / np.array([image.width, image.height] * 2)
    found = []
    for edges, score, number in zip(np.clip(shares, 0, 1), scores[sure], classes[sure], strict=True):
        left, top, right, bottom = (float(edge) for edge in edges)
        if min(right - left, bottom - top) >= 0.01:
            found.append(((left, top, right, bottom), int(number), float(score)))
    return found[:MOST_SPOTS]


def spot_squares(raw: bytes, boxes: Sequence[Box], settings: EmbedderSettings) -> list[Pixels]:
    """Items of a picture as the embedder sees them."""
    image = decode(raw)
    return [crop(image, box, settings.size, settings.margin, settings.letterbox) for box in boxes]
