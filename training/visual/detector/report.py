"""What a reviewer sees of a detector: tables by class, overlays of good and bad answers, the card.

Belongs here: words, tables and pictures from answers. Does not belong here: the numbers.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from training.evaluation.detection import Boxes, Found, best_threshold
from training.visual.classes import CLASSES
from training.visual.detector.params import DetectorConfig
from training.visual.detector.scenes import Scene

TILE = 300
COLUMNS = 6
FOUND, MISSED = (11, 110, 79), (200, 40, 40)


def table(found: Mapping[str, Found]) -> list[dict[str, str]]:
    """Rows of set, class, true boxes, AP50, AP and recall, worst class first within a set."""
    rows = []
    for name, judged in found.items():
        for kind in np.argsort(judged.precision[:, 0]):
            if judged.truths[kind]:
                rows.append({
                    "set": name, "class": CLASSES[kind], "boxes": str(judged.truths[kind]),
                    "ap50": f"{judged.precision[kind, 0]:.3f}", "ap": f"{judged.precision[kind].mean():.3f}",
                    "recall50": f"{judged.recall[kind, 0]:.3f}",
                })  # fmt: skip
    return rows


def as_csv(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows as CSV with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["set"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def quality(answer: Boxes, truth: Boxes, threshold: float) -> float:
    """F1 of one picture's boxes above a score at an overlap of 0.5."""
    kept = answer.scores >= threshold
    shown = Boxes(answer.boxes[kept], answer.classes[kept], answer.scores[kept])
    if not len(shown.boxes) or not len(truth.boxes):
        return float(not len(shown.boxes) and not len(truth.boxes))
    # of F1 over score cuts, the one that keeps all
    ones = Boxes(shown.boxes, shown.classes, np.ones(len(shown.boxes)))
    return _f1_of_all(ones, truth)


def _f1_of_all(answer: Boxes, truth: Boxes) -> float:
    from training.evaluation.detection import judge

    judged = judge([answer], [truth], len(CLASSES), np.array([0.5]))
    right = np.nansum(judged.recall[:, 0] * judged.truths)
    return float(2 * right / (len(answer.boxes) + len(truth.boxes)))


def contact_sheet(
    scenes: Sequence[Scene],
    answers: Sequence[Boxes],
    truths: Sequence[Boxes],
    threshold: float,
    rows: int = 2,
) -> Image.Image:
    """Best pictures in the first rows, worst below: answers green with class and score, truth that was missed red."""
    scores = [quality(answer, truth, threshold) for answer, truth in zip(answers, truths, strict=True)]
    order = np.argsort(scores, kind="stable")
    count = min(rows * COLUMNS, math.ceil(len(order) / 2))
    chosen = [*order[::-1][:count], *order[:count]]
    sheet = Image.new("RGB", (COLUMNS * TILE, math.ceil(len(chosen) / COLUMNS) * TILE), (255, 255, 255))
    for place, number in enumerate(chosen):
        tile = overlay(scenes[number].pixels, answers[number], truths[number], threshold)
        label = f"{scenes[number].key}  F1 {scores[number]:.2f}"
        ImageDraw.Draw(tile).text(
            (4, TILE - 16), label, fill=(255, 255, 255), stroke_width=2, stroke_fill=(0, 0, 0)
        )
        sheet.paste(tile, (place % COLUMNS * TILE, place // COLUMNS * TILE))
    return sheet


def overlay(pixels: npt.NDArray[np.uint8], answer: Boxes, truth: Boxes, threshold: float) -> Image.Image:
    """One picture with its boxes, on a square tile."""
    scale = TILE / max(pixels.shape[:2])
    image = Image.fromarray(pixels)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    draw = ImageDraw.Draw(image)
    shown = np.flatnonzero(answer.scores >= threshold)
    for box, kind in zip(truth.boxes, truth.classes, strict=True):
        mine = [number for number in shown if answer.classes[number] == kind]
        if not any(_iou(answer.boxes[number], box) >= 0.5 for number in mine):
            draw.rectangle((box * scale).tolist(), outline=MISSED, width=2)
            draw.text((box[0] * scale + 2, box[1] * scale + 1), CLASSES[kind], fill=MISSED)
    for number in shown:
        box = answer.boxes[number] * scale
        draw.rectangle(box.tolist(), outline=FOUND, width=2)
        label = f"{CLASSES[answer.classes[number]]} {answer.scores[number]:.2f}"
        draw.text((box[0] + 2, box[1] + 1), label, fill=(255, 255, 255), stroke_width=1, stroke_fill=FOUND)
    tile = Image.new("RGB", (TILE, TILE), (230, 230, 230))
    tile.paste(image, (0, 0))
    return tile


def _iou(one: npt.NDArray[np.floating], other: npt.NDArray[np.floating]) -> float:
    shared = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None).prod()
    union = (one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - shared
    return float(shared / max(union, 1e-9))


def card(
    config: DetectorConfig,
    numbers: Mapping[str, float],
    rows: Sequence[Mapping[str, str]],
    facts: Mapping[str, str],
) -> str:
    """The model card, Markdown."""
    results = "\n".join(f"| {name} | {value:.4f} |" for name, value in numbers.items())
    made = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    header = "| set | class | boxes | AP50 | AP | recall at 0.5 |\n|---|---|---|---|---|---|\n"
    body = "\n".join("| " + " | ".join(row.values()) + " |" for row in rows)
    drawn = "\n**The pictures are drawn, not photographed.**\n" if config.simulated else ""
    return f"""# Detector of {config.retailer}
{drawn}
Finds what can be worn in a picture: a box, one of {len(CLASSES)} classes and a score for each. A box of
"whole product" says that the picture is a pack shot of one product.

## How it was made
| | |
|---|---|
{made}

## How good it is
AP as COCO defines it, mean over the classes that the set shows; street-looks is reported on photos 0701 to 0800.

| | |
|---|---|
{results}

{header}{body}

## Use with care
- Boxes of photos come from masks: one box per label, both shoes together, parts smaller than a twentieth of the
  label's largest part left out. What a garment hides is not in its box.
- It has learned from people who stand upright and fill the picture; lying, sitting and cut-off people are known from
  cropping only.
- Jewellery, watches, socks and gloves are not boxed. A class with few pictures (boots, shorts, scarf) is found less.
- A score is a rank, not a probability; the threshold has the best F1 on the validation part.
"""


__all__ = ["as_csv", "best_threshold", "card", "contact_sheet", "overlay", "quality", "table"]
