"""The visual models of one release, and what they make of pixels and words.

Graphs run on whichever thread calls; the items of a photo are cut out and embedded on two threads, half of
them each, because a graph runs on one thread.

Belongs here: feeding graphs and reading what they give. Does not belong here: loading and proving them
(`serving/releases/visual.py`), searching (`index.py`).
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contracts.visual import WHOLE, DetectorSettings, EmbedderSettings, OutfitSettings, TextSettings
from serving.engine.sessions import GraphError, Session
from serving.vision.boxes import Box, Detection, cut, detections, letterboxed
from serving.vision.decode import Photo
from serving.vision.index import Index
from serving.vision.looks import Looks

MOST_ITEMS = 12
"""Items of one photo that are looked up, the surest first."""

SURE = 0.5
"""Probability from which an attribute is told."""


class Spent:
    """Nanoseconds by step of one request, by the wall clock."""

    def __init__(self) -> None:
        self.ns: dict[str, int] = {}
        self._lock = threading.Lock()

    def add(self, step: str, nanoseconds: int) -> None:
        """Count time for a step."""
        with self._lock:
            self.ns[step] = self.ns.get(step, 0) + nanoseconds

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count the time of a block for a step."""
        started = time.perf_counter_ns()
        try:
            yield
        finally:
            self.add(name, time.perf_counter_ns() - started)

    def milliseconds(self, *steps: str) -> float:
        """Sum of some steps, or of all."""
        return sum(self.ns.get(step, 0) for step in steps or self.ns) / 1e6


@dataclasses.dataclass(frozen=True)
class Trait:
    """What an attribute head says of an item.

    Attributes:
        value: The likeliest value.
        confidence: Its probability.
    """

    value: str
    confidence: float


@dataclasses.dataclass(frozen=True, eq=False)
class _Ran:
    """One run of a graph: its outputs, and when it ran."""

    values: list[NDArray[Any]]
    begins: int
    ends: int


class Detector:
    """Finds items in a photo.

    Args:
        session: The graph; None where a photo is one item.
        settings: How it is fed.
    """

    def __init__(self, session: Session | None, settings: DetectorSettings) -> None:
        self._session = session
        self.settings = settings

    def find(self, photo: Photo, spent: Spent) -> list[Detection]:
        """The items of a photo, the surest first.

        Raises:
            GraphError: The graph failed.
        """
        if self._session is None:
            return [Detection((0.0, 0.0, 1.0, 1.0), WHOLE, 1.0)]
        settings = self.settings
        with spent.step("letterbox"):
            square, filled = letterboxed(photo.image, settings.size)
        (boxes, scores, classes), run = self._session.run(
            ("boxes", "scores", "classes"), {"pixels": square[None]}
        )
        spent.add("detector", run)
        with spent.step("boxes"):
            return detections(
                boxes[0], scores[0], classes[0], settings.classes, filled, settings.threshold, settings.iou,
                MOST_ITEMS,
            )  # fmt: skip


class Embedder:
    """Turns crops into vectors and attributes.

    Args:
        session: The graph.
        settings: How it is fed.
    """

    def __init__(self, session: Session, settings: EmbedderSettings) -> None:
        self._session = session
        self.settings = settings
        self._outputs = ("embedding", *(f"attr_{name}" for name in settings.attributes))
        self._helper = concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="crops")

    def embed(
        self, image: Image.Image, boxes: Sequence[Box], spent: Spent
    ) -> tuple[NDArray[np.float32], list[dict[str, Trait]]]:
        """Vectors float32[B, d] of length 1, and what the attribute heads say of each box.

        Args:
            image: The photo.
            boxes: What of it; at least one.
            spent: Where the time is counted.

        Raises:
            GraphError: The graph failed or gave something that is no direction.
        """
        started = time.perf_counter_ns()
        half = (len(boxes) + 1) // 2
        if half == len(boxes):
            parts = [self._run(image, boxes)]
        else:
            rest = self._helper.submit(self._run, image, boxes[half:])
            try:
                first = self._run(image, boxes[:half])
            finally:
                concurrent.futures.wait((rest,))
            parts = [first, rest.result()]
        values = [np.concatenate(columns) for columns in zip(*(part.values for part in parts), strict=True)]
        run = _covered([(part.begins, part.ends) for part in parts])
        spent.add("embedder", run)
        spent.add("crop", time.perf_counter_ns() - started - run)
        traits: list[dict[str, Trait]] = [{} for _ in boxes]
        for (name, words), logits in zip(self.settings.attributes.items(), values[1:], strict=True):
            for place, (best, chance) in enumerate(_likeliest(logits)):
                traits[place][name] = Trait(words[best], chance)
        return directions("embedder", values[0]), traits

    def _run(self, image: Image.Image, boxes: Sequence[Box]) -> _Ran:
        settings = self.settings
        crops = [cut(image, box, settings.size, settings.margin, settings.letterbox) for box in boxes]
        pixels = np.stack(crops)
        begins = time.perf_counter_ns()
        values, run = self._session.run(self._outputs, {"pixels": pixels})
        return _Ran(values, begins, begins + run)


class TextTower:
    """Turns words into vectors of the same space.

    Args:
        session: The graph.
        tokenizer: Content of tokenizer.json.
        settings: How it is fed.

    Raises:
        GraphError: The tokenizer cannot be read.
    """

    def __init__(self, session: Session, tokenizer: bytes, settings: TextSettings) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_str(tokenizer.decode())
        except Exception as error:  # The library raises plain exceptions.
            raise GraphError(f"the tokenizer cannot be read: {str(error)[:200]}") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(settings.length)
        self._session = session

    def embed(self, words: str, spent: Spent) -> NDArray[np.float32]:
        """float32[1, d] of length 1.

        Raises:
            GraphError: The graph failed or gave something that is no direction.
        """
        with spent.step("tokens"):
            tokens = self._tokenizer.encode(words)
        feed = {
            "input_ids": np.array([tokens.ids], np.int64),
            "attention_mask": np.array([tokens.attention_mask], np.int64),
        }
        (vectors,), run = self._session.run(("embedding",), feed)
        spent.add("text", run)
        return directions("text", vectors)


class Outfit:
    """Says which products go with a set of products.

    Args:
        session: Graph of a set and a slot to fill.
        settings: Its slots.
    """

    def __init__(self, session: Session, settings: OutfitSettings) -> None:
        self._session = session
        self.settings = settings

    def queries(
        self, vectors: NDArray[np.float32], slots: Sequence[int], targets: Sequence[int], spent: Spent
    ) -> tuple[NDArray[np.float32], float]:
        """Points float32[T, p] that items of each target slot should lie at, and how well the set goes together.

        Args:
            vectors: float32[N, d] of the set.
            slots: Slot of each, from 1 on.
            targets: Slots to fill.
            spent: Where the time is counted.

        Raises:
            GraphError: The graph failed or gave something that is no number.
        """
        count = len(targets)
        feed: dict[str, NDArray[Any]] = {
            "vectors": np.repeat(vectors[None], count, axis=0),
            "types": np.repeat(np.array([slots], np.int64), count, axis=0),
            "target": np.array(targets, np.int64),
        }
        (points, together), run = self._session.run(("query", "compatibility"), feed)
        spent.add("outfit", run)
        if not (np.isfinite(points).all() and np.isfinite(together).all()):
            raise GraphError("'outfit' gave numbers that are not finite")
        return points, float(together.reshape(-1)[0])


@dataclasses.dataclass(frozen=True, eq=False)
class Visual:
    """The visual parts of a release; a part that it lacks is None.

    Attributes:
        embedder: Crops to vectors.
        index: The products.
        detector: Photos to items; without one a photo is one item.
        text: Words to vectors.
        outfit: What goes together.
        looks: The retailer's own pictures with their hotspots.
        providers: Execution provider that really runs each graph.
    """

    embedder: Embedder
    index: Index
    detector: Detector
    text: TextTower | None
    outfit: Outfit | None
    looks: Looks | None
    providers: dict[str, str]

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts that are there."""
        optional = {"text": self.text, "outfit": self.outfit, "looks": self.looks}
        return (
            "detector",
            "embedder",
            "index",
            *(name for name, part in optional.items() if part is not None),
        )


def directions(name: str, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors scaled to length 1.

    Raises:
        GraphError: One has no direction.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or float(lengths.min(initial=1.0)) < 1e-6:
        raise GraphError(f"'{name}' gave a vector without a direction")
    scaled: NDArray[np.float32] = vectors / lengths
    return scaled


def _covered(runs: Sequence[tuple[int, int]]) -> int:
    """Nanoseconds in which at least one of some runs was under way."""
    total, until = 0, 0
    for begins, ends in sorted(runs):
        total += max(0, ends - max(begins, until))
        until = max(until, ends)
    return total


def _likeliest(logits: NDArray[np.float32]) -> list[tuple[int, float]]:
    best = logits.argmax(axis=1)
    chances = 1.0 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
    return [(int(place), round(float(chance), 4)) for place, chance in zip(best, chances, strict=True)]
