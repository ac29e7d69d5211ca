"""The visual parts of a release: graphs, index and looks with golden pictures, added to an assembled folder.

Belongs here: which files go where, that parts fit one another, golden inputs. Does not belong here: signing, the other
parts (`training/packaging.py`), making the parts.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.release import (
    MANIFEST_FILE,
    SIGNATURE_FILE,
    Component,
    Manifest,
    describe_file,
    manifest_bytes,
    read_manifest,
)
from contracts.visual import (
    COMPONENTS,
    DETECTOR_FILE,
    EMBEDDER_FILE,
    GOLDEN_FILE,
    INDEX_FILE,
    LOOKS_FILE,
    OUTFIT_FILE,
    OUTFIT_ITEMS_FILE,
    TEXT_FILE,
    TOKENIZER_FILE,
    DetectorSettings,
    IndexSettings,
    TextSettings,
)
from training.config import Bundle, read_bundle
from training.sealing import PackagingError, write_file
from training.visual.embedding import Graph

FILES: dict[str, dict[str, str]] = {
    "detector": {"detector": DETECTOR_FILE},
    "embedder": {"embedder": EMBEDDER_FILE},
    "text": {"text": TEXT_FILE, "tokenizer": TOKENIZER_FILE},
    "outfit": {"outfit": OUTFIT_FILE, "outfit_items": OUTFIT_ITEMS_FILE},
}
"""Family -> role of a bundle's file -> its place in a release."""

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """What is added.

    Attributes:
        bundles: Bundle folder by family; ``embedder`` must be among them.
        index: Arrays of the index.
        index_settings: Of the same.
        looks: Arrays of the looks, or None without any.
        pictures: Squares for the golden embedding, ``uint8[G, s, s, 3]``.
        scenes: Squares for the golden boxes, ``uint8[D, S, S, 3]``, or None without a detector.
        sentences: For the golden text vectors.
    """

    bundles: Mapping[str, pathlib.Path]
    index: Arrays
    index_settings: IndexSettings
    looks: Arrays | None
    pictures: npt.NDArray[np.uint8]
    scenes: npt.NDArray[np.uint8] | None
    sentences: Sequence[str]


def add_visual(folder: pathlib.Path, parts: Parts) -> Manifest:
    """Add the visual parts to an assembled, unsigned release, or replace them.

    Args:
        folder: The release.
        parts: What is added.

    Returns:
        The new manifest.

    Raises:
        PackagingError: The parts do not fit together.
        ConfigError: A bundle is incomplete.
    """
    bundles = {family: read_bundle(path) for family, path in parts.bundles.items()}
    _check(bundles, parts)
    manifest = read_manifest((folder / MANIFEST_FILE).read_bytes())
    (folder / SIGNATURE_FILE).unlink(missing_ok=True)
    (folder / "visual").mkdir(exist_ok=True)
    made = [_component(folder, family, bundle, parts.bundles[family]) for family, bundle in bundles.items()]
    if "detector" not in bundles:
        single = msgspec.to_builtins(DetectorSettings(single=True))
        made.insert(0, Component(name="detector", kind="arrays", files=(), settings=single))
    _save(folder, INDEX_FILE, parts.index)
    settings = msgspec.to_builtins(parts.index_settings)
    made.append(
        Component(name="index", kind="arrays", files=(describe_file(folder, INDEX_FILE),), settings=settings)
    )
    if parts.looks is not None:
        _save(folder, LOOKS_FILE, parts.looks)
        made.append(Component(name="looks", kind="arrays", files=(describe_file(folder, LOOKS_FILE),)))
    _save(folder, GOLDEN_FILE, golden(folder, bundles, parts))
    made.append(Component(name="golden_visual", kind="arrays", files=(describe_file(folder, GOLDEN_FILE),)))
    others = tuple(component for component in manifest.components if component.name not in COMPONENTS)
    metrics = {**manifest.metrics, **visual_metrics(bundles)}
    manifest = msgspec.structs.replace(manifest, components=(*others, *made), metrics=metrics)
    write_file(folder, MANIFEST_FILE, manifest_bytes(manifest))
    return manifest


def visual_metrics(bundles: Mapping[str, Bundle]) -> dict[str, float]:
    """Numbers of all bundles as ``visual_<family>_<name>``."""
    return {
        f"visual_{family}_{name}": float(value)
        for family, bundle in bundles.items()
        for name, value in bundle.metrics.items()
        if np.isfinite(value)
    }


def golden(folder: pathlib.Path, bundles: Mapping[str, Bundle], parts: Parts) -> dict[str, npt.NDArray[Any]]:
    """Inputs and what the shipped graphs say to them, as `contracts.visual.GOLDEN_ARRAYS`."""
    (embedding,) = Graph(folder / EMBEDDER_FILE).run(("embedding",), {"pixels": parts.pictures})
    made: dict[str, npt.NDArray[Any]] = {"pixels": parts.pictures, "embedding": embedding}
    if "detector" in bundles and parts.scenes is not None:
        boxes, scores, _ = Graph(folder / DETECTOR_FILE).run(
            ("boxes", "scores", "classes"), {"pixels": parts.scenes}
        )
        made |= {"scene": parts.scenes, "boxes": boxes, "scores": scores}
    if "text" in bundles:
        from tokenizers import Tokenizer

        settings = msgspec.convert(bundles["text"].details["settings"], TextSettings)
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        tokenizer.enable_truncation(settings.length)
        tokenizer.enable_padding()
        told = tokenizer.encode_batch(list(parts.sentences))
        tokens = {
            "input_ids": np.array([one.ids for one in told], np.int64),
            "attention_mask": np.array([one.attention_mask for one in told], np.int64),
        }
        (text,) = Graph(folder / TEXT_FILE).run(("embedding",), dict(tokens))
        made |= {**tokens, "text": text}
    return made


def _check(bundles: Mapping[str, Bundle], parts: Parts) -> None:
    for family, bundle in bundles.items():
        if bundle.family != family:
            raise PackagingError(f"the bundle of '{family}' is of family '{bundle.family}'")
        for role in FILES[family]:
            if role not in bundle.files:
                raise PackagingError(
                    f"the bundle of '{family}' names no file '{role}'; it has {sorted(bundle.files)}"
                )
    if "embedder" not in bundles:
        raise PackagingError("the visual parts have no embedder; expected one, with the index it made")
    graph = parts.bundles["embedder"] / bundles["embedder"].files["embedder"]
    sha = hashlib.sha256(graph.read_bytes()).hexdigest()
    if str(parts.index["embedder_sha256"]) != sha:
        raise PackagingError(
            f"the index was made by embedder {str(parts.index['embedder_sha256'])[:12]}, the bundle is {sha[:12]}; "
            "expected the index to be built again"
        )
    for family in ("text", "outfit"):
        made_for = bundles[family].details.get("embedder_sha256") if family in bundles else sha
        if made_for != sha:
            raise PackagingError(
                f"'{family}' was trained in the space of embedder {str(made_for)[:12]}, the bundle is {sha[:12]}; "
                "expected it to be trained again"
            )
    if "detector" in bundles and parts.scenes is None:
        raise PackagingError("there is a detector and no golden scene; expected at least one")


def _component(folder: pathlib.Path, family: str, bundle: Bundle, source: pathlib.Path) -> Component:
    for role, place in FILES[family].items():
        shutil.copyfile(source / bundle.files[role], folder / place)
    return Component(
        name=family, kind="onnx", files=tuple(describe_file(folder, place) for place in FILES[family].values()),
        model=bundle.model_uri, run_id=bundle.run_id, settings=bundle.details["settings"],
    )  # fmt: skip


def _save(folder: pathlib.Path, path: str, arrays: Arrays) -> None:
    for key, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise PackagingError(
                f"{path}: '{key}' holds Python objects; expected numbers or fixed-width text"
            )
    (folder / path).parent.mkdir(exist_ok=True)
    np.savez(folder / path, allow_pickle=False, **arrays)
