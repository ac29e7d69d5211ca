"""The visual parts of a release: from proven bytes to models and an index that answer.

All of them are optional. What is there must be whole: an embedder without its index, an index of another
embedder, or graphs that answer other than where the release was made are refused.

Belongs here: loading, checking and warming up. Does not belong here: feeding graphs
(`serving/vision/models.py`), the index itself (`serving/vision/index.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from contracts.release import Component, Manifest
from contracts.visual import (
    COMPONENTS,
    DETECTOR_FILE,
    EMBEDDER_FILE,
    GOLDEN_FILE,
    INDEX_FILE,
    LOOKS_FILE,
    OUTFIT_FILE,
    TEXT_FILE,
    TOKENIZER_FILE,
    DetectorSettings,
    EmbedderSettings,
    IndexSettings,
    OutfitSettings,
    TextSettings,
)
from serving.engine.items import ItemTable, TableError, read_arrays
from serving.engine.sessions import CPU, Session
from serving.releases.graphs import check_graph, check_signature
from serving.releases.verify import ReleaseError, Verified
from serving.vision.boxes import iou
from serving.vision.index import Index
from serving.vision.looks import Looks
from serving.vision.models import Detector, Embedder, Outfit, TextTower, Visual

Settings = TypeVar(
    "Settings", DetectorSettings, EmbedderSettings, IndexSettings, TextSettings, OutfitSettings
)

PIXELS = {"pixels": "tensor(uint8)"}
BOXES = {"boxes": "tensor(float)", "scores": "tensor(float)", "classes": "tensor(int64)"}
VECTOR = {"embedding": "tensor(float)"}
TOKENS = {"input_ids": "tensor(int64)", "attention_mask": "tensor(int64)"}
SET = {"vectors": "tensor(float)", "types": "tensor(int64)", "target": "tensor(int64)"}
POINTS = {"query": "tensor(float)", "compatibility": "tensor(float)"}

ALIKE = 0.99
"""Least cosine of a golden vector with the recorded one: another CPU or a GPU rounds differently."""

SCORE_MARGIN = 0.03
SURE_BOX = 0.5
SAME_BOX = 0.8


def require_visual_golden(verified: Verified) -> None:
    """Refuse visual models that cannot prove how they answer.

    Raises:
        ReleaseError: The release has visual models and no golden pictures.
    """
    if _names(verified.manifest) and GOLDEN_FILE not in verified.files:
        raise ReleaseError(f"the manifest names no '{GOLDEN_FILE}'; expected recorded pictures and vectors")


def build_visual(verified: Verified, items: ItemTable, providers: Sequence[str] = (CPU,)) -> Visual | None:
    """The visual parts of a release, proven on their golden pictures; None where it has none.

    Args:
        verified: The release's bytes.
        items: Its items.
        providers: ONNX Runtime execution providers by preference.

    Raises:
        ReleaseError: A part is missing, cannot be read, or answers other than it should.
        GraphError: ONNX Runtime refuses a graph.
        TableError: Tables do not fit the models or one another.
    """
    names = _names(verified.manifest)
    if not names:
        return None
    for needed in ("embedder", "index"):
        if needed not in names:
            raise ReleaseError(f"the release has {sorted(names)} and no '{needed}'; expected both or none")
    loader = _Loader(verified, providers)
    embed = loader.settings("embedder", EmbedderSettings)
    attributes = {f"attr_{name}": "tensor(float)" for name in embed.attributes}
    embedder = Embedder(loader.session("embedder", EMBEDDER_FILE, PIXELS, VECTOR | attributes), embed)
    content = loader.file(EMBEDDER_FILE)
    digest = hashlib.sha256(content).hexdigest()
    votes = loader.settings("index", IndexSettings).votes
    index = Index(read_arrays(INDEX_FILE, loader.file(INDEX_FILE)), digest, embed.dim, items, votes)
    visual = Visual(
        embedder=embedder,
        index=index,
        detector=loader.detector() if "detector" in names else Detector(None, DetectorSettings(single=True)),
        text=loader.text(embed.dim) if "text" in names else None,
        outfit=loader.outfit(index) if "outfit" in names else None,
        looks=Looks(read_arrays(LOOKS_FILE, loader.file(LOOKS_FILE))) if "looks" in names else None,
        providers=loader.providers,
    )
    if GOLDEN_FILE in verified.files:
        check_visual_golden(loader.sessions, read_arrays(GOLDEN_FILE, verified.files[GOLDEN_FILE]))
    _warm(loader.sessions, visual)
    return visual


class _Loader:
    """Reads parts out of one release."""

    def __init__(self, verified: Verified, providers: Sequence[str]) -> None:
        self._verified = verified
        self._providers = providers
        self.sessions: dict[str, Session] = {}

    @property
    def providers(self) -> dict[str, str]:
        return {name: session.provider for name, session in self.sessions.items()}

    def file(self, path: str) -> bytes:
        if path not in self._verified.files:
            raise ReleaseError(f"the manifest names no '{path}'")
        return self._verified.files[path]

    def settings(self, name: str, kind: type[Settings]) -> Settings:
        component: Component = self._verified.manifest.component(name)
        try:
            return msgspec.convert(component.settings, kind)
        except msgspec.ValidationError as error:
            raise ReleaseError(f"settings of component '{name}': {error}") from error

    def session(self, name: str, path: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Session:
        content = self.file(path)
        check_graph(path, content)
        session = Session(path, content, self._providers)
        check_signature(path, (session.inputs, session.outputs), inputs, outputs)
        self.sessions[name] = session
        return session

    def detector(self) -> Detector:
        settings = self.settings("detector", DetectorSettings)
        if settings.single:
            return Detector(None, settings)
        if settings.size < 1 or not settings.classes:
            raise ReleaseError("settings of component 'detector': expected 'size' and 'classes'")
        return Detector(self.session("detector", DETECTOR_FILE, PIXELS, BOXES), settings)

    def text(self, dim: int) -> TextTower:
        settings = self.settings("text", TextSettings)
        if settings.dim != dim:
            raise ReleaseError(f"'text' gives {settings.dim} numbers, the embedder {dim}; expected the same")
        session = self.session("text", TEXT_FILE, TOKENS, VECTOR)
        return TextTower(session, self.file(TOKENIZER_FILE), settings)

    def outfit(self, index: Index) -> Outfit:
        settings = self.settings("outfit", OutfitSettings)
        if index.projected.shape[1] != settings.dim:
            raise TableError(
                f"{INDEX_FILE}: 'projected' has {index.projected.shape[1]} columns; "
                f"expected {settings.dim}, as the outfit model has"
            )
        if index.size and not 0 <= int(index.slot.min()) <= int(index.slot.max()) <= len(settings.slots):
            raise TableError(f"{INDEX_FILE}: 'slot' is outside 0 to {len(settings.slots)}")
        return Outfit(self.session("outfit", OUTFIT_FILE, SET, POINTS), settings)


def check_visual_golden(sessions: Mapping[str, Session], golden: Mapping[str, NDArray[Any]]) -> None:
    """Run the graphs on recorded inputs and compare with what they gave where the release was made.

    Raises:
        ReleaseError: An array is missing, or a graph answers differently.
    """
    if "embedder" in sessions:
        _same_directions("embedder", sessions, {"pixels": "pixels"}, golden, "embedding")
    if "text" in sessions:
        tokens = {"input_ids": "input_ids", "attention_mask": "attention_mask"}
        _same_directions("text", sessions, tokens, golden, "text")
    if "detector" in sessions:
        _same_boxes(sessions["detector"], golden)


def _same_directions(
    name: str,
    sessions: Mapping[str, Session],
    inputs: Mapping[str, str],
    golden: Mapping[str, NDArray[Any]],
    expected: str,
) -> None:
    want = _golden(golden, expected)
    feed = {key: _golden(golden, array) for key, array in inputs.items()}
    (got,), _ = sessions[name].run(("embedding",), feed)
    if got.shape != want.shape or not len(want):
        raise ReleaseError(f"{GOLDEN_FILE}: '{name}' gives {list(got.shape)}; recorded is {list(want.shape)}")
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(want, axis=1)
    alike = (got * want).sum(axis=1) / np.maximum(lengths, 1e-9)
    if not float(alike.min()) >= ALIKE:
        raise ReleaseError(
            f"golden input {int(alike.argmin())} of '{name}' gives another vector than recorded "
            f"(cosine {float(alike.min()):.3f}; expected at least {ALIKE})"
        )


def _same_boxes(session: Session, golden: Mapping[str, NDArray[Any]]) -> None:
    scenes, boxes, scores = (_golden(golden, key) for key in ("scene", "boxes", "scores"))
    (found, got, _), _ = session.run(("boxes", "scores", "classes"), {"pixels": scenes})
    if got.shape != scores.shape or not len(scores):
        raise ReleaseError(
            f"{GOLDEN_FILE}: 'detector' gives {list(got.shape)}; recorded is {list(scores.shape)}"
        )
    for scene in range(len(scores)):
        apart = np.abs(np.sort(got[scene]) - np.sort(scores[scene])).max(initial=0.0)
        sure = np.flatnonzero(scores[scene] >= SURE_BOX)
        held = all(float(iou(boxes[scene, box], found[scene]).max()) >= SAME_BOX for box in sure.tolist())
        if not float(apart) <= SCORE_MARGIN or not held:
            raise ReleaseError(f"golden scene {scene}: 'detector' finds other boxes than recorded")


def _golden(golden: Mapping[str, NDArray[Any]], key: str) -> NDArray[Any]:
    if key not in golden:
        raise ReleaseError(f"{GOLDEN_FILE} has no '{key}'; expected it for the graphs of the release")
    return golden[key]


def _warm(sessions: Mapping[str, Session], visual: Visual) -> None:
    """Let ONNX Runtime lay out its memory before the first shopper waits for it."""
    side = visual.embedder.settings.size
    names = ("embedding", *(f"attr_{name}" for name in visual.embedder.settings.attributes))
    for count in (1, 2, 3):
        sessions["embedder"].run(names, {"pixels": np.zeros((count, side, side, 3), np.uint8)})
    if "detector" in sessions:
        size = visual.detector.settings.size
        sessions["detector"].run(tuple(BOXES), {"pixels": np.zeros((1, size, size, 3), np.uint8)})


def _names(manifest: Manifest) -> set[str]:
    """The visual components of a manifest, without the golden pictures."""
    return ({component.name for component in manifest.components} & set(COMPONENTS)) - {"golden_visual"}
