"""Training of the detector from a config to a bundle.

Belongs here: the order of the steps, what is logged. Does not belong here: the steps (`detector/`).
"""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Callable, Sequence

import mlflow
import msgspec
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from contracts.visual import DetectorSettings
from training import tracking
from training.config import Bundle, ConfigError, read_config, stage
from training.evaluation.detection import Boxes, Found, best_threshold, judge
from training.visual.bundles import finish
from training.visual.classes import CLASSES
from training.visual.decode import letterbox
from training.visual.detector import answers, export, learn, report, scenes
from training.visual.detector.params import DetectorConfig, check
from training.visual.pictures import PictureSetError
from training.visual.trunk import told_trunk

Progress = Callable[[str], None]

NAMES = {
    "street-looks": "street", "drawn-looks": "drawn", "fashion-products": "packshots", "drawn": "drawn_packshots",
}  # fmt: skip
GRAPH = "detector.onnx"
PARITY_PICTURES = 7
PAUSED = 75
"""Exit code of a session that is to be gone on with (EX_TEMPFAIL of sysexits.h)."""


def run(path: pathlib.Path, progress: Progress = lambda line: None) -> Bundle:
    """Train as a config file says.

    A session that is over before the training is leaves its checkpoint and exit code 75 (try again).

    Raises:
        ConfigError: The config or a folder of it cannot be used.
    """
    config = read_config(path, DetectorConfig)
    try:
        return train(config, progress)
    except PictureSetError as error:
        raise ConfigError(f"{path.name}: {error}") from error
    except learn.PausedError as paused:
        progress(f"detector: {paused}")
        raise SystemExit(PAUSED) from None


def train(config: DetectorConfig, progress: Progress = lambda line: None) -> Bundle:
    """Learn, choose, report, export, log.

    Raises:
        ConfigError: The config cannot be used.
        PictureSetError: A folder is not in its layout.
        PausedError: The session's time is over; see `DetectorParams.session_seconds`.
        ParityError: The exported graph and the network disagree.
    """
    check(config)
    torch.set_num_threads(config.threads)
    params, out = config.params, pathlib.Path(config.out)
    parts = [
        scenes.read_source(source.layout, pathlib.Path(source.root), params.size * 5 // 4, source.limit)
        for source in config.sources
    ]
    progress(f"detector: {sum(len(part.learn) for part in parts):,} pictures to learn from")
    validation = [part.validate for part in parts]

    def score(peaks: torch.nn.Module) -> float:
        ask = answers.of_network(peaks)
        return float(
            np.mean([answers.judged(ask, part, params.size, params.iou).ap for part in validation if part])
        )

    checkpoint = out.with_name(f".{out.name}-{_digest(config)}.pt")
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    learned = learn.learn(
        [(source.share, part.learn) for source, part in zip(config.sources, parts, strict=True)],
        params, score, checkpoint, config.seed, progress,
    )  # fmt: skip
    staged = stage(config.out)
    graph = staged / GRAPH
    export.export(learned.network, graph)
    chosen = [scene for part in validation for scene in part]
    gap = export.check_parity(graph, learned.network, squares(chosen[:PARITY_PICTURES], params.size))
    ask = export.of_graph(graph, config.threads)
    threshold, f1 = best_threshold(
        answers.answers(ask, chosen, params.size, params.iou), answers.truth(chosen)
    )
    settings = DetectorSettings(size=params.size, classes=CLASSES, threshold=threshold, iou=params.iou)
    numbers = {
        "validation_ap": learned.curves["validation_ap"][-1], "validation_f1": f1, "threshold": threshold,
        "onnx_largest_difference": gap, "training_seconds": learned.seconds, "kept_step": float(learned.best_step),
    }  # fmt: skip
    found: dict[str, Found] = {}
    sheets: dict[str, Image.Image] = {}
    for source in config.sources:
        if source.report:
            name = NAMES[source.layout]
            shown = scenes.read_report(source.layout, pathlib.Path(source.root), source.limit)
            given, true = answers.answers(ask, shown, params.size, params.iou), answers.truth(shown)
            found[name] = judge(given, true, len(CLASSES))
            numbers |= {
                f"{name}_ap50": found[name].ap50, f"{name}_ap": found[name].ap, f"{name}_ar": found[name].ar,
            }  # fmt: skip
            sheets[name] = report.contact_sheet(shown, given, true, threshold)
            progress(f"detector: {name} AP50 {found[name].ap50:.4f}, AP {found[name].ap:.4f}")
    bundle = _log(config, staged, numbers, found, sheets, learned, settings)
    checkpoint.unlink(missing_ok=True)
    return finish(config, staged, bundle)


def squares(shown: Sequence[scenes.Scene], size: int) -> npt.NDArray[np.uint8]:
    """Scenes as the graph sees them, ``[M, S, S, 3]``."""
    return np.stack([letterbox(Image.fromarray(scene.pixels), size)[0] for scene in shown])


def _digest(config: DetectorConfig) -> str:
    """What a checkpoint belongs to: everything but how long a session may take."""
    params = msgspec.structs.replace(config.params, session_seconds=0.0)
    whole = msgspec.structs.replace(config, params=params, threads=1)
    return hashlib.sha256(msgspec.json.encode(whole)).hexdigest()[:12]


def _log(
    config: DetectorConfig, staged: pathlib.Path, numbers: dict[str, float], found: dict[str, Found],
    sheets: dict[str, Image.Image], learned: learn.Learned, settings: DetectorSettings,
) -> Bundle:  # fmt: skip
    rows = report.table(found)
    params = config.params
    facts = {
        "Trunk": f"{told_trunk(params.trunk, params.weights)}, square of {params.size} px",
        "Learned from": ", ".join(f"{source.layout} (share {source.share:g})" for source in config.sources),
        "Steps": f"{len(learned.curves['loss_boxes'])} of {params.batch} views, {learned.seconds:.0f} s",
        "Kept": f"running average of the weights at step {learned.best_step}"
        + (", best on the validation part" if params.keep == "best" else ", the last"),
        "Code": tracking.code_version(),
    }
    text = report.card(config, numbers, rows, facts)
    (staged / "model_card.md").write_text(text)
    (staged / "per_class.csv").write_text(report.as_csv(rows))
    files = {"detector": GRAPH, "card": "model_card.md", "per_class": "per_class.csv"}
    for name, sheet in sheets.items():
        sheet.save(staged / f"overlays-{name}.png")
        files[f"overlays_{name}"] = f"overlays-{name}.png"
    with tracking.start(config) as opened:
        for source in config.sources:
            tracking.log_dataset(
                source.layout, source=source.root, digest=f"{source.layout}-{source.limit}", context="train"
            )
        for name, values in learned.curves.items():
            tracking.log_curve(name, _thinned(values))
        model_id, uri = tracking.log_onnx(staged / GRAPH, "detector")
        tracking.log_metrics(numbers, model_id)
        tracking.log_model_card(text)
        mlflow.log_text((staged / "per_class.csv").read_text(), "tables/per_class.csv")
        for name, sheet in sheets.items():
            mlflow.log_image(sheet, f"overlays/{name}.png")
        return Bundle(
            family="detector", run_id=opened.info.run_id, model_uri=uri, metrics=numbers,
            config=msgspec.to_builtins(config), files=files,
            details={"settings": msgspec.to_builtins(settings), "per_class": rows},
        )  # fmt: skip


def _thinned(values: list[float], most: int = 400) -> list[float]:
    """A long curve as means of equal stretches."""
    if len(values) <= most:
        return values
    return [float(part.mean()) for part in np.array_split(np.array(values), most)]


__all__ = ["Boxes", "run", "squares", "train"]
