"""What the run of an embedder shows: sheets of queries with answers, maps, tables by class.

Belongs here: which of them are logged, from what. Does not belong here: how they are drawn (`review.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import mlflow
import numpy as np
import numpy.typing as npt

from training.visual import review
from training.visual.config import EmbedderConfig
from training.visual.embedder_data import Samples
from training.visual.embedder_judge import Answers, Judgement

SHEET_ROWS = 8
SHEET_ANSWERS = 8


def show(config: EmbedderConfig, samples: Samples, judgement: Judgement) -> None:
    """Log sheets, maps and tables into the open run."""
    done: set[tuple[str, str]] = set()
    for answers in judgement.answers:
        judge = answers.judge
        codes, texts = samples.joint(judge.labels)
        if not len(answers.queries):
            continue
        names = [texts[code] for code in codes[answers.queries]]
        table = review.class_table(names, {judge.name: answers.value})
        mlflow.log_text(review.csv_text(table), f"tables/{judge.name}.csv")
        good, bad = review.best_and_worst(answers.value, SHEET_ROWS, config.seed)
        for kind, chosen in (("good", good), ("worst", bad)):
            sheet = review.contact_sheet(
                f"{judge.name}, {kind}: query, then its answers",
                _sheet(samples, answers, chosen, codes, texts),
            )
            mlflow.log_image(sheet, f"sheets/{judge.name}-{kind}.png")
        for source in (judge.gallery, judge.queries):
            label = _telling(samples, source, (*judge.labels, *config.attributes))
            if label and (source, label) not in done:
                done.add((source, label))
                rows = samples.of(source)
                codes, words = samples.joint([label])
                figure = review.embedding_map(
                    judgement.outputs["embedding"][rows], [words[c] if c >= 0 else "unknown" for c in codes[rows]],
                    f"{source} by {label}",
                )  # fmt: skip
                mlflow.log_figure(figure, f"maps/{source}-{label}.png")
    for name, (_, truth, told) in judgement.accuracy.items():
        if len(truth):
            values = samples.values[name]
            right = (truth == told).astype(np.float64)
            table = review.class_table([values[code] for code in truth], {"accuracy": right})
            mlflow.log_text(review.csv_text(table), f"tables/attribute-{name}.csv")
            mlflow.log_figure(
                review.confusion_figure(truth, told, values, f"{name}: true (rows) and told"),
                f"plots/attribute-{name}.png",
            )
    if judgement.tried:
        rows = [
            {"told_share": shares.told, "colour_share": shares.colour, "judgement": round(value, 5)}
            for shares, value in judgement.tried.items()
        ]
        mlflow.log_text(review.csv_text(rows), "tables/shares.csv")


def _telling(samples: Samples, source: str, labels: Sequence[str]) -> str:
    """The first label that several pictures of a source share; empty if there is none."""
    rows = samples.of(source)
    for label in labels:
        codes = samples.labels[label][rows]
        if 1 < len(np.unique(codes[codes >= 0])) <= (codes >= 0).sum() / 2:
            return label
    return ""


def _sheet(
    samples: Samples,
    answers: Answers,
    chosen: npt.NDArray[np.int64],
    codes: npt.NDArray[np.int64],
    texts: Sequence[str],
) -> list[list[review.Shown]]:
    rows: list[list[review.Shown]] = []
    for query in chosen:
        row = answers.queries[query]
        found = answers.found[query, :SHEET_ANSWERS]
        pixels = samples.take(np.append(row, found))
        line: list[review.Shown] = [(pixels[0], texts[codes[row]], None)]
        for square, other in zip(pixels[1:], found, strict=True):
            text = texts[codes[other]] if codes[other] >= 0 else "unknown"
            line.append((square, text, bool(codes[other] == codes[row])))
        rows.append(line)
    return rows
