"""What each visual model of a shop is told: sources, targets and sizes by what pictures the shop has.

A recipe fits its shop: small graphs and minutes for drawn pictures, pretrained weights at full size for photos. A
profile overrides any parameter (`contracts.retailer.Pictures`).

Belongs here: configs. Does not belong here: their types (`training/visual`), running them.
"""

from __future__ import annotations

import csv
import datetime as dt
import json
import os
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from contracts.retailer import Pictures, Retailer
from contracts.settings import Settings
from orchestration.training_jobs import TrainingJob, latest_bundle
from orchestration.visual import catalogue, facts, sets

FAMILIES = ("detector", "embedder", "text", "outfit")
CATALOGUE, LOOKS, CLICKS, SHOPPERS = "catalogue", "looks", "clicks", "photos"
"""Names of the embedder's sources."""

BASKETS_FILE = "baskets.csv"
CLICKS_FOLDER = "clicks"
LEAST_BASKETS = 50
LABELS = ("type", "colour", "pattern", "gender", "usage")
TOLD = {"type": 1.0, "colour": 0.6}
"""Labels that vectors of photos tell, and how much each counts: a shopper who shows a shirt forgives another shade sooner
than another kind. Drawn pictures are told apart without."""

DRAWN: dict[str, dict[str, Any]] = {
    "detector": {
        "trunk": "plain", "size": 256, "width": 64, "batch": 16, "steps": 900, "learning_rate": 0.002,
        "average": 0.99, "check_every": 150, "keep": "last", "box_weight": 4.0,
        "max_seconds": 300,
    },
    "embedder": {"size": 128, "train_size": 96, "epochs": 5, "crop": 0.6, "max_seconds": 150},
    "text": {"epochs": 20},
    "outfit": {"members": 2, "epochs": 6},
}  # fmt: skip
"""Parameters for drawn pictures: all four within ten minutes on two cores. The detector keeps its last weights: some
dozens of drawings held out choose among checks by chance (AP50 on others 0.933 where they chose step 450, 0.970 at 600)."""

PHOTOS: dict[str, dict[str, Any]] = {
    "detector": {"max_seconds": 3600},
    "embedder": {"epochs": 8, "dim": 320, "max_seconds": 3600},
    "text": {},
    "outfit": {},
}

GROCERIES: dict[str, dict[str, Any]] = {
    "embedder": {"size": 224, "train_size": 128, "epochs": 5, "frozen": 8, "crop": 0.4, "max_seconds": 150},
    "text": {"epochs": 20},
}
"""Parameters for a grocer: part of the main job, which should end in minutes."""


def families(pictures: Pictures, settings: Settings) -> tuple[str, ...]:
    """Which models a shop trains, in order: a grocer needs no detector and no outfits."""
    if pictures.belongs == "type":
        return ("embedder", "text")
    return FAMILIES if _box_sources(settings, pictures) else ("embedder", "text", "outfit")


def prepare(settings: Settings, retailer: Retailer, family: str) -> TrainingJob:
    """Write the config of a visual family's next run.

    Raises:
        ValueError: The shop has no pictures here, or does not train this family.
    """
    pictures = sets.pictures_of(retailer.pictures)
    if family not in families(pictures, settings):
        raise ValueError(
            f"the shop trains no '{family}'; expected one of: {', '.join(families(pictures, settings))}"
        )
    recipe = GROCERIES if pictures.belongs == "type" else DRAWN if pictures.layout == "drawn" else PHOTOS
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S")
    out = settings.bundles / family / stamp
    parts = _PARTS[family](settings, pictures)
    config: dict[str, Any] = {
        "retailer": retailer.name, "home": str(settings.home), "out": str(out),
        "tracking_uri": settings.tracking_uri, "experiment": f"{retailer.name}-{family}",
        "threads": os.cpu_count() or 1, "simulated": pictures.layout == "drawn" or retailer.simulated,
        "params": {**recipe.get(family, {}), **parts.pop("params", {}), **getattr(pictures, family)},
        **parts,
    }  # fmt: skip
    path = settings.bundles / family / f"{stamp}.config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config, indent=1))
    return TrainingJob(family, path, out)


def _box_sources(settings: Settings, pictures: Pictures) -> list[dict[str, Any]]:
    """Pictures with boxes that the detector learns from, and pack shots beside them."""
    looks = sets.looks_source(settings, pictures)
    drawn = pictures.layout == "drawn" and isinstance(pictures.looks, int) and pictures.looks > 0
    found: list[dict[str, Any]] = []
    if drawn or (looks is not None and looks[0] == "drawn-looks"):
        root = str(sets.drawn_folder(settings))
        found += [
            {"layout": "drawn-looks", "root": root, "share": 0.85},
            {"layout": "drawn", "root": root, "share": 0.15, "limit": 200},
        ]
    if street := pictures.learn.get("street-looks"):
        found.append({"layout": "street-looks", "root": street, "share": 0.85})
        if pictures.layout == "fashion-products":
            found.append({"layout": "fashion-products", "root": pictures.root, "share": 0.15, "limit": 1000})
    return found


def _detector(settings: Settings, pictures: Pictures) -> dict[str, Any]:
    return {"sources": _box_sources(settings, pictures)}


def _embedder(settings: Settings, pictures: Pictures) -> dict[str, Any]:
    if pictures.belongs == "type":
        return _grocer(settings, pictures)
    known = _known_labels(settings, pictures)
    root = sets.root_of(settings, pictures)
    source: dict[str, Any] = {
        "name": CATALOGUE, "layout": pictures.layout, "root": root, "options": pictures.options,
        "labels": {**{label: label for label in known}, "product_id": "product_id", "name": "name"},
        "stated": [label for label in TOLD if label in known],
        "jitter": 0.05 if pictures.layout == "drawn" else 0.15,
    }  # fmt: skip
    sources = [source]
    if pictures.belongs == "alike":  # The folder has more photos than the shop has products: learn from all.
        sources = [
            {**source, "name": SHOPPERS},
            {"name": CATALOGUE, "layout": "table", "root": str(_own_table(settings, pictures)), "learn": False,
             "options": {"photos": _photos(pictures)}, "labels": {"product_id": "product_id", "name": "name"}},
        ]  # fmt: skip
    judged = sources[0]["name"]
    targets = [{"labels": ["type"], "part": "shape"}]
    judges = [_judge("type_p_at_10", "precision", judged, judged, ["type"], 10)]
    if "colour" in known:
        every = [label for label in ("type", "colour", "pattern") if label in known]
        targets += [{"labels": ["colour"], "part": "colour"}, {"labels": every, "part": "all"}]
        judges.append(_judge("type_colour_p_at_10", "precision", judged, judged, ["type", "colour"], 10))
    looks = sets.looks_source(settings, pictures)
    if looks is not None and looks[0] == "drawn-looks":
        sources.append({"name": LOOKS, "layout": looks[0], "root": looks[1], "boxes": True, "jitter": 0.05,
                        "labels": {"product_id": "product_id"}})  # fmt: skip
        targets.append({"labels": ["product_id"], "part": "all", "smallest": 2, "weight": 0.5})
        judges += [
            _judge(f"look_to_product_r_at_{k}", "recall", LOOKS, CATALOGUE, ["product_id"], k) for k in (1, 5)
        ]
    if (settings.visual / CLICKS_FOLDER / "pictures.csv").is_file():
        sources.append({"name": CLICKS, "layout": "table", "root": str(settings.visual / CLICKS_FOLDER), "boxes": True,
                        "labels": {"product_id": "product_id"}, "validate": False})  # fmt: skip
        if not any("product_id" in target["labels"] for target in targets):
            targets.append({"labels": ["product_id"], "part": "all", "smallest": 2, "weight": 0.5})
    return {
        "sources": sources, "targets": targets, "judges": judges, "attributes": list(known), "words": "name",
        "params": {} if pictures.layout == "drawn" else telling(known, pictures.embedder),
    }  # fmt: skip


def telling(known: Collection[str], own: Mapping[str, Any]) -> dict[str, Any]:
    """What vectors of photos tell, and how much each label counts.

    Args:
        known: Labels that the shop's pictures have.
        own: The profile's parameters of the embedder; what they tell counts as in TOLD, or 1.
    """
    told = own.get("told", [label for label in TOLD if label in known])
    return {"told": told, "told_weights": [TOLD.get(label, 1.0) for label in told]}


def _grocer(settings: Settings, pictures: Pictures) -> dict[str, Any]:
    labels = {"class": "product_id", "type": "type", "category": "category", "name": "name"}
    sources: list[dict[str, Any]] = [
        {"name": CATALOGUE, "layout": pictures.layout, "root": pictures.root, "labels": labels, "validate": False,
         "repeat": 5, "jitter": 0.4},
    ]  # fmt: skip
    judges = []
    if photos := pictures.learn.get("grocery-photos"):
        sources.insert(0, {"name": SHOPPERS, "layout": "grocery-photos", "root": photos, "labels": labels,
                           "jitter": 0.25})  # fmt: skip
        judges = [
            _judge("photo_to_catalogue_r_at_1", "recall", SHOPPERS, CATALOGUE, ["class"], 1),
            _judge("photo_to_catalogue_r_at_5", "recall", SHOPPERS, CATALOGUE, ["class"], 5),
            {**_judge("photo_knn", "knn", SHOPPERS, SHOPPERS, ["class"], 10), "weight": 0.5},
        ]
    targets = [
        {"labels": ["class"], "part": "all"},
        {"labels": ["class"], "part": "shape", "weight": 0.5},
        {"labels": ["category"], "part": "shape", "weight": 0.3},
    ]
    return {"sources": sources, "targets": targets, "judges": judges, "attributes": ["type", "category"]}


def _text(settings: Settings, pictures: Pictures) -> dict[str, Any]:
    known = () if pictures.belongs == "type" else _known_labels(settings, pictures)
    phrases: list[list[str]] = [["type"], ["category"]] if pictures.belongs == "type" else [["type"]]
    phrases += [["colour", "type"]] if "colour" in known else []
    phrases += [["colour", "pattern", "type"], ["pattern", "type"]] if "pattern" in known else []
    phrases += [["gender", "type"]] if "gender" in known else []
    alike = [label for label in ("type", "colour", "pattern", "gender") if label in known] or ["type"]
    return {
        "embedder": str(latest_bundle(settings, "embedder")),
        "source": SHOPPERS if pictures.belongs == "alike" else CATALOGUE,
        "phrases": phrases,
        "alike": [alike],
    }


def _outfit(settings: Settings, pictures: Pictures) -> dict[str, Any]:
    from contracts.visual import WHOLE
    from training.visual.kinds import class_of

    rows = catalogue.usable(settings)
    types = {row["type"] for row in rows}
    path = settings.visual / BASKETS_FILE
    count = facts.write_baskets(settings, path, {row["key"] for row in rows})
    sources: list[dict[str, Any]] = []
    if count >= LEAST_BASKETS:
        sources.append({"kind": "baskets", "root": str(path)})
    looks = sets.looks_source(settings, pictures)
    if looks is not None and looks[0] == "drawn-looks":
        sources.append({"kind": "drawn-looks", "root": looks[1]})
    if street := pictures.learn.get("street-looks"):
        sources.append({"kind": "street-looks", "root": street})
    slots = {kind: name for kind in sorted(types) if (name := class_of({"type": kind})) != WHOLE}
    return {"embedder": str(latest_bundle(settings, "embedder")), "sources": sources, "slots": slots}


_PARTS = {"detector": _detector, "embedder": _embedder, "text": _text, "outfit": _outfit}


def _judge(name: str, kind: str, queries: str, gallery: str, labels: list[str], k: int) -> dict[str, Any]:
    return {"name": name, "kind": kind, "queries": queries, "gallery": gallery, "labels": labels, "k": k}


def _known_labels(settings: Settings, pictures: Pictures) -> list[str]:
    """Labels that at least half of the pictures have and that tell pictures apart."""
    opened = sets.open_products(settings, pictures)
    found = []
    for label in LABELS:
        values = [picture.labels[label] for picture in opened.rows if label in picture.labels]
        if 2 * len(values) >= len(opened) and len(set(values)) > 1:
            found.append(label)
    return found


def _photos(pictures: Pictures) -> str:
    """Absolute path of the zip or folder that holds the photos."""
    root = pathlib.Path(pictures.root)
    return next(str(root / name) for name in ("photos.zip", "photos", "images") if (root / name).exists())


def _own_table(settings: Settings, pictures: Pictures) -> pathlib.Path:
    """A table of the shop's own products and the photos that belong to them, for the layout ``table``."""
    folder = settings.visual / "catalogue"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "pictures.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "product_id", "type", "name"))
        writer.writerows(
            (f"{r['picture']}.jpg", r["key"], r["type"], r["name"]) for r in catalogue.usable(settings)
        )
    return folder
