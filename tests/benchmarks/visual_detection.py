"""Parts of `visual` that ask the detector and the outfit model: photos, drawn looks, what was worn together.

* ``street``: 13 classes on photos 0701 to 0800 of street-looks, AP as COCO defines it (`training/evaluation/detection`,
  proven against pycocotools). Boxes come from masks: one per label, both shoes together.
* ``drawn``: every fifth of 600 looks composed of the atelier's drawn products, by the detector that the atelier's own
  recipe trains.
* ``outfit``: the looks of photos 0701 to 0800: each item hidden among three of its class from three other photos, five
  draws each; real looks against ten mixed ones each, of the same classes; drawn with the config's seed. All but the item
  is made white before it is described, since surroundings give answers away; the numbers with surroundings stand
  beside, as does plain likeness. What light and camera still give away cannot be taken out.

A bundle that `--bundle detector-street=FOLDER` (or detector-drawn, outfit, outfit_surroundings) names is measured as it
is, whatever its config.

* `int8`: the detector's half of the bench ``quantized``.

Belongs here: configs, protocols, what a record says. Does not belong here: training (`training/visual`).
"""

from __future__ import annotations

import pathlib
import tempfile
from typing import Any

import msgspec

from orchestration.visual.recipes import DRAWN
from tests.benchmarks.visual import Bench, Outcome
from tests.benchmarks.visual_bundles import SEED, finished, places
from tests.benchmarks.visual_embedding import forget_start, trained
from training.config import Bundle, read_bundle
from training.visual.bundles import sha256
from training.visual.detector.params import DetectorConfig, DetectorParams, DetectorSource
from training.visual.outfit.params import OutfitConfig, OutfitParams, OutfitSource
from training.visual.trunk import told_trunk

LOOKS = 600
CALIBRATION = 64

MEASURES = (
    "tests/benchmarks/visual_detection.py", "training/evaluation/detection.py", "training/visual/boxes.py",
    "training/visual/classes.py", "training/visual/decode.py", "training/visual/detector/answers.py",
    "training/visual/detector/scenes.py", "training/visual/pictures.py",
)  # fmt: skip


def street(bench: Bench) -> Outcome:
    """Every item of a photo."""
    return _detector(bench, "street", "street-looks")


def drawn(bench: Bench) -> Outcome:
    """Every item of a composed look."""
    return _detector(bench, "drawn", "drawn-looks")


def outfit(bench: Bench) -> Outcome:
    """What goes with what."""
    from training.visual.outfit_train import train

    measured: dict[str, Any] = {}
    about: dict[str, Any] = {}
    for blank, suffix in ((True, ""), (False, "_surroundings")):
        folder = bench.folder(f"outfit{suffix}")
        config = outfit_config(bench, folder, blank)
        given = f"outfit{suffix}" in bench.bundles
        bundle = (
            read_bundle(folder)
            if given
            else finished(folder, config, _forget) or train(config, bench.progress)
        )
        for name in ("fitb", "auc"):
            measured[f"outfit_{name}{suffix}"] = bundle.metrics[f"street_{name}"]
            if blank:
                measured[f"outfit_{name}_alike"] = bundle.metrics[f"street_{name}_alike"]
        about |= {f"run{suffix}": bundle.run_id, "blanks": int(bundle.metrics["street_blanks"]), "seed": SEED}
    return measured, about


def int8(bench: Bench) -> dict[str, float]:
    """What int8 gains and costs: time at batch 1 on one thread, and points of AP on the reported photos.

    Returns:
        ``detector_speedup``, ``detector_loss`` (both AP50 and AP as fractions, the worse of the two) and the parts.
    """
    from training.visual.detector import answers, export, scenes
    from training.visual.detector_train import squares
    from training.visual.quantize import seconds

    bundle, folder = _trained(bench, "street"), bench.folder("detector-street")
    config, graph = msgspec.convert(bundle.config, DetectorConfig), folder / bundle.files["detector"]
    params, root = config.params, bench.data / "street-looks"
    known = scenes.read_source("street-looks", root, params.size * 5 // 4, CALIBRATION).learn
    shown = scenes.read_report("street-looks", root)
    with tempfile.TemporaryDirectory() as name:
        small = pathlib.Path(name) / "int8.onnx"
        pictures = squares(known, params.size)
        export.quantise(graph, pictures, small)
        judged = [
            answers.judged(export.of_graph(path), shown, params.size, params.iou) for path in (graph, small)
        ]
        times = [seconds(path, {"pixels": pictures[:1]}) for path in (graph, small)]
        sizes = [path.stat().st_size for path in (graph, small)]
    return {
        "detector_speedup": times[0] / times[1],
        "detector_loss": max(judged[0].ap50 - judged[1].ap50, judged[0].ap - judged[1].ap),
        "detector_ap50": judged[0].ap50, "detector_ap50_int8": judged[1].ap50,
        "detector_ap": judged[0].ap, "detector_ap_int8": judged[1].ap,
        "detector_ms": 1000 * times[0], "detector_ms_int8": 1000 * times[1],
        "detector_mb": sizes[0] / 1e6, "detector_mb_int8": sizes[1] / 1e6,
    }  # fmt: skip


def _detector(bench: Bench, name: str, layout: str) -> Outcome:
    """Judge a detector's graph anew, from bytes of pictures to numbers."""
    bundle = _trained(bench, name)
    folder = bench.folder(f"detector-{name}")
    config, graph = msgspec.convert(bundle.config, DetectorConfig), folder / bundle.files["detector"]
    source = next(source for source in config.sources if source.layout == layout)

    def measure() -> dict[str, Any]:
        from training.visual.detector import answers, export, report, scenes

        shown = scenes.read_report(layout, pathlib.Path(source.root), source.limit if bench.quick else 0)
        found = answers.judged(export.of_graph(graph), shown, config.params.size, config.params.iou)
        rows = {row["class"]: (row["ap50"], row["ap"], row["boxes"]) for row in report.table({name: found})}
        return {"ap50": found.ap50, "ap": found.ap, "ar": found.ar, "pictures": len(shown), "classes": rows}

    kept = bench.kept(f"detector-{name}", [sha256(graph), layout, bench.quick], MEASURES, measure)
    about = {
        "run": bundle.run_id, "graph": sha256(graph)[:16], "pictures": kept["pictures"],
        "trunk": told_trunk(config.params.trunk, config.params.weights),
        "size": config.params.size, "training_seconds": bundle.metrics["training_seconds"],
        "ap50_by_class": {kind: values[0] for kind, values in kept["classes"].items()},
    }  # fmt: skip
    return {f"{name}_{key}": kept[key] for key in ("ap50", "ap", "ar")}, about


def _trained(bench: Bench, name: str) -> Bundle:
    """The finished bundle of a config, trained if there is none."""
    from training.visual.detector_train import train

    folder = bench.folder(f"detector-{name}")
    if f"detector-{name}" in bench.bundles:
        return read_bundle(folder)
    if name == "street" and not bench.quick:
        trained(bench, "fashion-coarse")
    config = (street_config if name == "street" else drawn_config)(bench, folder)
    return finished(folder, config, _forget) or train(config, bench.progress)


def _forget(told: dict[str, Any]) -> None:
    """How long a session took and where pictures lay does not matter."""
    told["params"].pop("session_seconds", None)
    if "weights" in told["params"]:
        forget_start(told)
    for source in told["sources"]:
        source.pop("root")


def _drawings(bench: Bench) -> pathlib.Path:
    """The atelier's drawn products and looks."""
    from training.rehearsal import catalogue
    from training.rehearsal.config import checked
    from training.rehearsal.drawing import write_catalogue, write_looks

    count = 60 if bench.quick else LOOKS
    folder = bench.home / "benchmarks" / "visual" / f"drawn-{count}"
    if not (folder / "boxes.csv").is_file():
        bench.progress(f"drawing {count} looks")
        rows = catalogue.table(catalogue.build(checked({"seed": SEED}))).to_pylist()
        write_catalogue(rows, folder)
        write_looks(rows, folder, count, SEED)
    return folder


def street_config(bench: Bench, folder: pathlib.Path) -> DetectorConfig:
    """Of the detector for photos: its trunk begins with that of the fashion shop's embedder."""
    params = DetectorParams(
        trunk="lite2", weights=str(bench.folder("fashion-coarse")), size=384, width=96, batch=16, steps=1000,
        box_weight=4.0, trunk_rate=0.3, average=0.995, check_every=200,
    )  # fmt: skip
    sources = (
        DetectorSource(layout="street-looks", root=str(bench.data / "street-looks"), share=0.86),
        DetectorSource(layout="drawn-looks", root=str(_drawings(bench)), share=0.07, limit=200),
        DetectorSource(
            layout="fashion-products", root=str(bench.data / "fashion-products"), share=0.07, limit=250
        ),
    )
    if bench.quick:
        params = msgspec.structs.replace(
            params, size=192, width=32, steps=8, check_every=8, weights="imagenet"
        )
        sources = (msgspec.structs.replace(sources[0], limit=48),)
    return DetectorConfig(
        **places(bench, folder, "street"), retailer="street-looks", sources=sources, params=params
    )


def drawn_config(bench: Bench, folder: pathlib.Path) -> DetectorConfig:
    """Of the atelier's detector, as its recipe says."""
    root = str(_drawings(bench))
    params = DetectorParams(**DRAWN["detector"])
    if bench.quick:
        params = msgspec.structs.replace(params, size=128, width=16, steps=8, check_every=8)
    return DetectorConfig(
        **places(bench, folder, "drawn"), retailer="atelier", simulated=True, params=params,
        sources=(
            DetectorSource(layout="drawn-looks", root=root, share=0.85),
            DetectorSource(layout="drawn", root=root, share=0.15, limit=200),
        ),
    )  # fmt: skip


def outfit_config(bench: Bench, folder: pathlib.Path, blank: bool) -> OutfitConfig:
    """Of the outfit model on what people in photos wear."""
    params = OutfitParams(epochs=1) if bench.quick else OutfitParams()
    source = OutfitSource(
        kind="street-looks", root=str(bench.data / "street-looks"), limit=40 if bench.quick else 0
    )
    return OutfitConfig(
        **places(bench, folder, "outfit"),
        retailer="street-looks",
        sources=(source,),
        blank=blank,
        params=params,
    )
