"""Training of the outfit model from a config to a bundle.

Belongs here: the order of the steps, what is logged. Does not belong here: the steps (`outfit/`).
"""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable, Sequence

import mlflow
import msgspec
import numpy as np
import numpy.typing as npt
import torch

from contracts.visual import WEARABLE, OutfitSettings
from training import tracking
from training.config import Bundle, ConfigError, read_bundle, read_config, stage
from training.visual.bundles import finish, sha256
from training.visual.classes import ATELIER_TYPES
from training.visual.outfit import describe, export, items, judge, learn, report
from training.visual.outfit.looks import Integers, Looks, joined
from training.visual.outfit.params import OutfitConfig, OutfitSource, check
from training.visual.pictures import PictureSetError

Progress = Callable[[str], None]

SETS, ITEMS = "outfit.onnx", "outfit_items.onnx"
VALIDATION = 1 / 7
"""Last share of the looks to learn from that is kept for choosing."""

REPORTED = 0.1
"""Last share of baskets and composed looks that is reported on; street-looks has a part of its own."""


@dataclasses.dataclass(frozen=True)
class Part:
    """Looks of one source.

    Attributes:
        name: Of the source, in metrics.
        learn: To learn from.
        validate: To choose on.
        report: For reporting only.
        shown: Items of `report` as pictures, where there are some.
    """

    name: str
    learn: Looks
    validate: Looks
    report: Looks
    shown: Sequence[items.Item] = ()


def run(path: pathlib.Path, progress: Progress = lambda line: None) -> Bundle:
    """Train as a config file says.

    Raises:
        ConfigError: The config or a folder of it cannot be used.
    """
    config = read_config(path, OutfitConfig)
    try:
        return train(config, progress)
    except PictureSetError as error:
        raise ConfigError(f"{path.name}: {error}") from error


def train(config: OutfitConfig, progress: Progress = lambda line: None) -> Bundle:
    """Describe items, learn, choose, report, export, log.

    Raises:
        ConfigError: The config cannot be used, or its sources hold no looks.
        PictureSetError: A folder is not in its layout.
        ParityError: An exported graph and the network disagree.
    """
    check(config)
    torch.set_num_threads(config.threads)
    started = time.monotonic()
    parts = [read_part(config, source) for source in config.sources]
    looks, validation = (
        joined([part.learn for part in parts]),
        joined([part.validate for part in parts]),
    )
    if not looks.count() or not validation.count():
        raise ConfigError(
            "`$.sources` hold too few looks of two items and more; expected some to learn from and some to choose on"
        )
    progress(f"outfit: {len(looks):,} items in {looks.count():,} looks, {time.monotonic() - started:.0f} s")
    learned = learn.learn(looks, validation, len(WEARABLE), config.params, config.seed, progress)
    staged = stage(config.out)
    export.export(learned.network, staged / SETS, staged / ITEMS)
    gap = export.check_parity(learned.network, staged / SETS, staged / ITEMS, len(WEARABLE))
    numbers = {"onnx_largest_difference": gap, "kept_epoch": float(learned.best_epoch)}
    sheets = {}
    for part in parts:
        judged, questions, scores = judge_part(learned, part, config.seed)
        numbers |= {f"{part.name}_{name}": value for name, value in judged.items()}
        if part.shown:
            sheets[part.name] = report.contact_sheet(part.shown, part.report, questions, scores)
        progress(f"outfit: {part.name} " + ", ".join(f"{k} {v:.4f}" for k, v in judged.items()))
    numbers |= {
        "validation_fitb": learned.curves["validation_fitb"][learned.best_epoch - 1],
        "validation_auc": learned.curves["validation_auc"][learned.best_epoch - 1],
    }
    with tracking.start(config) as opened:
        facts = {
            "Model": f"{config.params.members} members, {config.params.layers} layers on a linear model of pairs",
            "Vectors": "of the embedder" if config.embedder else "untuned EfficientNet-Lite0 with colours",
            "Learned from": ", ".join(f"{p.name}: {p.learn.count():,} looks" for p in parts),
            "Reported on": ", ".join(f"{p.name}: {p.report.count():,} looks" for p in parts),
            "Code": tracking.code_version(),
        }
        text = report.card(config, numbers, facts)
        (staged / "model_card.md").write_text(text)
        for source in config.sources:
            tracking.log_dataset(source.kind, source=source.root, digest=source.kind, context="train")
        for name, values in learned.curves.items():
            tracking.log_curve(name, values)
        model_id, uri = tracking.log_onnx(staged / SETS, "outfit")
        tracking.log_onnx(staged / ITEMS, "outfit_items")
        told = {name: value for name, value in numbers.items() if np.isfinite(value)}
        tracking.log_metrics(told, model_id)
        tracking.log_metrics({"seconds": time.monotonic() - started})
        tracking.log_model_card(text)
        files = {"outfit": SETS, "outfit_items": ITEMS, "card": "model_card.md"}
        for name, sheet in sheets.items():
            sheet.save(staged / f"blanks-{name}.png")
            files[f"blanks_{name}"] = f"blanks-{name}.png"
            mlflow.log_image(sheet, f"blanks/{name}.png")
        settings = OutfitSettings(slots=WEARABLE, dim=learned.network.dim)
        embedder = pathlib.Path(config.embedder)
        bundle = Bundle(
            family="outfit", run_id=opened.info.run_id, model_uri=uri, metrics=told,
            config=msgspec.to_builtins(config), files=files,
            details={
                "settings": msgspec.to_builtins(settings),
                "embedder_sha256": sha256(embedder / read_bundle(embedder).files["embedder"]) if config.embedder else "",
            },
        )  # fmt: skip
    return finish(config, staged, bundle)


def read_part(config: OutfitConfig, source: OutfitSource) -> Part:
    """Looks of one source, with vectors.

    Raises:
        ConfigError: The source, or the embedder's bundle, cannot be used.
        PictureSetError: The folder is not in its layout.
    """
    root = pathlib.Path(source.root)
    bundle = read_bundle(pathlib.Path(config.embedder)) if config.embedder else None
    if source.kind == "street-looks":
        known = items.worn(root, False, config.blank, source.limit)
        shown = items.worn(root, True, config.blank, source.limit)
        if bundle is None:
            describer: describe.Describe = describe.Plain(known)
        else:
            graph = pathlib.Path(config.embedder) / bundle.files["embedder"]
            describer = describe.by_embedder(graph, bundle.details["settings"], config.threads)
        learned, reported = (_looks(part, describer(part)) for part in (known, shown))
        late = learned.last(VALIDATION)
        return Part("street", learned.only(~late), learned.only(late), reported, shown)
    assert bundle is not None
    named = [entry for entry in bundle.config["sources"] if entry["name"] == source.catalogue]
    if not named:
        raise ConfigError(
            f"`$.sources.catalogue` is '{source.catalogue}'; expected a source of the embedder's config"
        )
    catalogue = items.read_catalogue(pathlib.Path(config.embedder), named[0], config.slots or ATELIER_TYPES)
    groups = items.composed(root) if source.kind == "drawn-looks" else items.read_baskets(root)
    if source.limit:
        groups = dict(list(groups.items())[: source.limit])
    found = items.together(groups, catalogue)
    last = found.last(REPORTED)
    early, reported = found.only(~last), found.only(last)
    late = early.last(VALIDATION)
    name = "drawn" if source.kind == "drawn-looks" else "baskets"
    return Part(name, early.only(~late), early.only(late), reported)


def judge_part(
    learned: learn.Learned, part: Part, seed: int
) -> tuple[dict[str, float], judge.Questions, npt.NDArray[np.float32]]:
    """Both tests of a model and of likeness alone, on a source's reported looks.

    Returns:
        Numbers, the blanks, and the model's scores of their candidates.
    """
    questions, mixed = judge.blanks(part.report, seed), judge.mixtures(part.report, seed)
    answer, fit = learn.answers(learned.network), learn.fits(learned.network)
    scores = answer(part.report, questions.sets, questions.candidates) if questions.sets else np.zeros((0, 4))
    return (
        {
            "fitb": judge.fitb(lambda *_: scores, part.report, questions),
            "auc": judge.auc(fit, part.report, mixed),
            "fitb_alike": judge.fitb(alike_answers, part.report, questions),
            "auc_alike": judge.auc(alike_fits, part.report, mixed),
            "blanks": float(len(questions.sets)),
        },
        questions,
        scores,
    )


def alike_answers(looks: Looks, sets: list[Integers], candidates: Integers) -> npt.NDArray[np.float32]:
    """Mean cosine of each candidate to what is there."""
    unit = _unit(looks.vectors)
    return np.stack([unit[some] @ unit[there].mean(0) for there, some in zip(sets, candidates, strict=True)])


def alike_fits(looks: Looks, sets: list[Integers]) -> npt.NDArray[np.float32]:
    """Mean cosine of the pairs of a set."""
    unit = _unit(looks.vectors)
    made = []
    for there in sets:
        cosines = unit[there] @ unit[there].T
        made.append(cosines[np.triu_indices(len(there), 1)].mean())
    return np.array(made, np.float32)


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def _looks(known: Sequence[items.Item], vectors: npt.NDArray[np.float32]) -> Looks:
    return Looks(vectors, np.array([item.slot for item in known]), np.array([item.look for item in known]))
