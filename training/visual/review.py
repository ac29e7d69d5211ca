"""What a reviewer sees of a visual model in MLflow: sheets of queries with their answers, maps, tables, the card.

Belongs here: pictures and text for people. Does not belong here: the numbers in them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

CELL = 96
LINE = 13
MOST_POINTS = 1500
MOST_NAMED = 20
GOOD, BAD, PLAIN = (11, 110, 79), (176, 42, 48), (40, 40, 40)

Pixels = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Shown = tuple[Pixels | None, str, bool | None]
"""A picture (none for words), what stands below it, and whether it is a right answer (None: it is the question)."""


def contact_sheet(title: str, rows: Sequence[Sequence[Shown]]) -> Image.Image:
    """Each row a query and its answers, right ones framed green, wrong ones red."""
    columns = max((len(row) for row in rows), default=1)
    high = CELL + 2 * LINE
    sheet = Image.new("RGB", (columns * (CELL + 8) + 8, len(rows) * high + LINE + 14), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    draw.text((8, 4), title, fill=PLAIN)
    for down, row in enumerate(rows):
        for across, (pixels, text, right) in enumerate(row):
            left, top = 8 + across * (CELL + 8), LINE + 10 + down * high
            if pixels is not None:
                sheet.paste(Image.fromarray(pixels).resize((CELL, CELL)), (left, top))
            colour = PLAIN if right is None else GOOD if right else BAD
            draw.rectangle((left - 2, top - 2, left + CELL + 1, top + CELL + 1), outline=colour, width=2)
            for line, part in enumerate(_lines(text, 2 if pixels is not None else 6)):
                start = top + CELL + 2 if pixels is not None else top + 4
                draw.text((left, start + line * LINE), part, fill=colour)
    return sheet


def _lines(text: str, most: int, width: int = 16) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word[: width + 2])
    return lines[:most]


def best_and_worst(value: npt.NDArray[np.float64], count: int, seed: int) -> tuple[Ints, Ints]:
    """Some queries with the best and some with the worst numbers, drawn among equals at random."""
    order = np.random.default_rng(seed).permutation(len(value))
    order = order[np.argsort(value[order], kind="stable")]
    return order[::-1][:count], order[:count]


def embedding_map(
    vectors: npt.NDArray[np.float32], names: Sequence[str], title: str, seed: int = 0
) -> Figure:
    """Vectors in two dimensions (t-SNE), coloured by what they are.

    Args:
        vectors: float32[N, d]; at most MOST_POINTS of them are drawn.
        names: Of each; the most frequent ones are named.
        title: Of the figure.
        seed: Of the choice and of t-SNE.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    rows = np.random.default_rng(seed).permutation(len(vectors))[:MOST_POINTS]
    some, named = vectors[rows], np.array(names)[rows]
    flat = PCA(min(30, *some.shape), random_state=seed).fit_transform(some)
    if len(rows) > 50:
        flat = TSNE(init="pca", perplexity=min(30.0, len(rows) / 4), random_state=seed).fit_transform(flat)
    distinct, counts = np.unique(named, return_counts=True)
    figure = Figure(figsize=(9.0, 7.0), layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(flat[:, 0], flat[:, 1], s=5, color="#d5dad7")
    for at, name in enumerate(distinct[np.argsort(-counts)][:MOST_NAMED]):
        here = flat[named == name]
        axes.scatter(here[:, 0], here[:, 1], s=8, color=_colour(at), label=f"{name} ({len(here)})")
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, loc="left")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7, frameon=False)
    return figure


def _colour(at: int) -> tuple[float, float, float]:
    import colorsys

    return colorsys.hsv_to_rgb(at / MOST_NAMED, 0.75, 0.9 if at % 2 else 0.6)


def class_table(
    names: Sequence[str], values: Mapping[str, npt.NDArray[np.float64]]
) -> list[dict[str, str | float | int]]:
    """Means by class, most frequent class first.

    Args:
        names: Class of each row.
        values: Number of each row by metric.
    """
    every = np.array(names)
    rows: list[dict[str, str | float | int]] = []
    for name in sorted(set(names)):
        here = every == name
        means = {metric: round(float(column[here].mean()), 4) for metric, column in values.items()}
        rows.append({"class": name, "count": int(here.sum()), **means})
    return sorted(rows, key=lambda row: (-int(row["count"]), str(row["class"])))


def csv_text(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as CSV."""
    out = io.StringIO()
    if rows:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return out.getvalue()


def confusion_figure(truth: Ints, told: Ints, names: Sequence[str], title: str) -> Figure:
    """What is taken for what: the most frequent classes, rows sum to 1."""
    counts = np.bincount(truth, minlength=len(names))
    kept = np.argsort(-counts, kind="stable")[: min(MOST_NAMED, int((counts > 0).sum()))]
    place = np.full(len(names), -1)
    place[kept] = np.arange(len(kept))
    inside = (place[truth] >= 0) & (place[told] >= 0)
    table = np.zeros((len(kept), len(kept)))
    np.add.at(table, (place[truth[inside]], place[told[inside]]), 1)
    table /= np.maximum(counts[kept][:, None], 1)
    figure = Figure(figsize=(7.5, 6.5), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(table, cmap="Greens", vmin=0, vmax=1)
    labels = [names[at] for at in kept]
    axes.set_xticks(range(len(kept)), labels, rotation=90, fontsize=7)
    axes.set_yticks(range(len(kept)), labels, fontsize=7)
    axes.set_title(title, loc="left")
    return figure


def card(
    title: str, what: str, facts: Mapping[str, str], numbers: Mapping[str, float], limits: Sequence[str]
) -> str:
    """Model card as Markdown."""
    lines = [f"# {title}", "", what, "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in facts.items()]
    lines += ["", "## Numbers", "", "| metric | value |", "|---|---|"]
    lines += [f"| {name} | {value:.4f} |" for name, value in numbers.items()]
    lines += ["", "## What it cannot do", "", *(f"- {limit}" for limit in limits), ""]
    return "\n".join(lines)
