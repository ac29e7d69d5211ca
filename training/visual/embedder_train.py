"""Training of the embedder from a config to a bundle, and what its run in MLflow shows.

Belongs here: the order of the steps, what is logged. Does not belong here: the steps.
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
import onnxruntime as ort
import torch

from training import tracking
from training.config import Bundle, read_config
from training.evaluation import retrieval
from training.visual import review
from training.visual.bundles import finish, sha256, stage
from training.visual.config import EmbedderConfig, check_embedder
from training.visual.embedder_data import TEST, VALIDATE, Samples, read_samples
from training.visual.embedder_export import check_parity, export_embedder, open_session
from training.visual.embedder_fit import Fit, fit
from training.visual.embedder_judge import (
    Answers,
    attribute_accuracy,
    choose_share,
    embed_rows,
    judged,
    reshare,
)
from training.visual.embedder_model import FIRST_SHARE

Progress = Callable[[str], None]
Vectors = npt.NDArray[np.float32]

GRAPH, WEIGHTS = "embedder.onnx", "weights.pt"
PARITY_PICTURES = 8
SHEET_ROWS = 8
SHEET_ANSWERS = 8


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What the exported graph is worth.

    Attributes:
        outputs: Of the graph for all rows, by name.
        validation: Number by judge, on the validation part.
        answers: What each judge saw of the test part.
        share: Weight of colour.
        tried: Judgement on the validation part by weight of colour.
        accuracy: By attribute, see `attribute_accuracy`.
        self_first: Share of pictures that no other is more similar to than themselves.
    """

    outputs: dict[str, Vectors]
    validation: dict[str, float]
    answers: list[Answers]
    share: float
    tried: dict[float, float]
    accuracy: dict[str, tuple[float, npt.NDArray[np.int64], npt.NDArray[np.int64]]]
    self_first: float

    def numbers(self) -> dict[str, float]:
        """All of them by metric."""
        return {
            **{answers.judge.name: answers.mean for answers in self.answers},
            **{f"validation_{name}": value for name, value in self.validation.items()},
            **{f"accuracy_{name}": value[0] for name, value in self.accuracy.items()},
            "self_first": self.self_first,
            "colour_share": self.share,
        }


def run(path: pathlib.Path, progress: Progress = lambda line: None) -> Bundle:
    """Train from a config file; see `train`."""
    return train(read_config(path, EmbedderConfig), progress)


def train(config: EmbedderConfig, progress: Progress = lambda line: None) -> Bundle:
    """Train an embedder, export, judge the exported graph, log, and write the bundle.

    Raises:
        ConfigError: The config's parts do not fit together, or pictures cannot be read.
        ParityError: The exported graph and the network disagree.
    """
    check_embedder(config)
    torch.set_num_threads(config.threads)
    params, started = config.params, time.monotonic()
    staged = stage(config)
    with tracking.start(config) as active:
        samples = read_samples(config.sources, params, pathlib.Path(config.home), config.seed, progress)
        for source in config.sources:
            tracking.log_dataset(source.name, source=source.root, digest=samples.digest, context="train")
        progress(f"{len(samples)} pictures, {int((samples.split == TEST).sum())} of them for reporting only")
        learned = fit(samples, config.targets, config.attributes, params, config.seed, config.words, progress)
        judgement = export_and_judge(config, samples, learned, staged, progress)
        gap = check_parity(
            learned.model, staged / GRAPH, params.size,
            samples.take(np.linspace(0, len(samples) - 1, PARITY_PICTURES).astype(np.int64)),
        )  # fmt: skip
        numbers = {**judgement.numbers(), "onnx_largest_difference": gap}
        told = {name: value for name, value in numbers.items() if np.isfinite(value)}
        facts = _facts(config, samples, learned, time.monotonic() - started)
        text = review.card(
            f"Embedder of {config.retailer}",
            f"A picture becomes {params.dim} numbers of length 1; what looks alike lies near. Of these, "
            f"{params.colour_dim} tell colour. It also names {', '.join(config.attributes) or 'no attributes'}.",
            facts, told,
            [
                "It was judged on pictures like those it learned from; a shop's own photos may be harder.",
                "Values of attributes that it never saw are never named.",
                "It sees one item: what else is in the crop disturbs it.",
            ],
        )  # fmt: skip
        (staged / "model_card.md").write_text(text)
        np.savez(
            staged / "vectors.npz", key=np.array(samples.keys), source=np.array(samples.sources)[samples.source],
            split=samples.split, embedding=judgement.outputs["embedding"],
        )  # fmt: skip
        torch.save(learned.model.state_dict(), staged / WEIGHTS)
        model_id, uri = tracking.log_onnx(staged / GRAPH, "embedder")
        tracking.log_metrics(told, model_id)
        tracking.log_metrics(
            {"seconds": time.monotonic() - started, "pictures_per_second": learned.images_per_second}
        )
        tracking.log_curve("loss", learned.curve)
        tracking.log_model_card(text)
        show(config, samples, judgement)
        bundle = Bundle(
            family="embedder", run_id=active.info.run_id, model_uri=uri, metrics=told,
            config=msgspec.to_builtins(config),
            files={"embedder": GRAPH, "card": "model_card.md", "vectors": "vectors.npz", "weights": WEIGHTS},
            details={
                "settings": {
                    "size": params.size, "dim": params.dim, "margin": params.box_margin, "letterbox": params.letterbox,
                    "attributes": {n: list(samples.values[n][: samples.learned[n]]) for n in config.attributes},
                    "base": facts["Trunk"],
                },
                "colour_dim": params.colour_dim, "colour_share": judgement.share, "sha256": sha256(staged / GRAPH),
                "galleries": {answers.judge.name: answers.gallery for answers in judgement.answers},
                "queries": {answers.judge.name: len(answers.queries) for answers in judgement.answers},
                "data": samples.digest,
            },
        )  # fmt: skip
        return finish(config, staged, bundle)


def export_and_judge(
    config: EmbedderConfig, samples: Samples, learned: Fit, staged: pathlib.Path, progress: Progress
) -> Judgement:
    """Export, choose the weight of colour on the validation part of the graph's own vectors, judge the test part."""
    params, model = config.params, learned.model
    export_embedder(model, params.size, staged / GRAPH)
    progress("exported; all pictures through the graph")
    outputs = _outputs(open_session(staged / GRAPH, config.threads), samples)
    old = share = FIRST_SHARE if params.colour_dim else 0.0
    tried: dict[float, float] = {}
    if params.colour_share is not None and params.colour_dim:
        share = params.colour_share
    elif params.colour_dim and config.judges and (samples.split == VALIDATE).any():
        share, tried = choose_share(samples, config.judges, outputs["embedding"], params.colour_dim, old)
    if share != old:
        model.share.fill_(share)
        export_embedder(model, params.size, staged / GRAPH)
        outputs["embedding"] = reshare(outputs["embedding"], params.colour_dim, old, share)
    vectors = outputs["embedding"]
    validation = {}
    if (samples.split == VALIDATE).any():
        validation = {judge.name: judged(samples, judge, vectors, VALIDATE).mean for judge in config.judges}
    answers = [judged(samples, judge, vectors, TEST) for judge in config.judges]
    for one in answers:
        progress(
            f"{one.judge.name}: {one.mean:.4f} ({len(one.queries)} queries, {one.gallery} in the gallery), "
            f"validation {validation.get(one.judge.name, float('nan')):.4f}"
        )
    galleries = {judge.gallery for judge in config.judges} or set(samples.sources)
    alone = [retrieval.finds_itself(vectors[samples.of(name)]) for name in sorted(galleries)]
    return Judgement(
        outputs, validation, answers, share, tried, attribute_accuracy(samples, outputs, TEST),
        float(np.concatenate(alone).mean()),
    )  # fmt: skip


def _outputs(session: ort.InferenceSession, samples: Samples) -> dict[str, Vectors]:
    return embed_rows(session, samples, np.arange(len(samples)))


def _facts(config: EmbedderConfig, samples: Samples, learned: Fit, seconds: float) -> dict[str, str]:
    params = config.params
    base = (
        "EfficientNet-Lite0, ImageNet weights"
        if params.weights == "imagenet"
        else "EfficientNet-Lite0, from nothing"
    )
    sources = (f"{source.name} ({len(samples.of(source.name))})" for source in config.sources)
    parts = zip(config.targets, learned.classes, strict=True)
    targets = (
        f"{' and '.join(target.labels)} ({classes} classes, {target.part})" for target, classes in parts
    )
    return {
        "Trunk": base if params.trunk == "lite0" else params.trunk,
        "Pictures": ", ".join(sources) + (", drawn, not photographed" if config.simulated else ""),
        "Learned from / chosen on / reported on": " / ".join(
            str(int((samples.split == part).sum())) for part in (0, VALIDATE, TEST)
        ),
        "Pulled together by": "; ".join(targets),
        "Loss": f"{params.loss}, {learned.epochs} epochs at {params.train_size} pixels, {params.frozen} parts frozen",
        "Read at": f"{params.size} pixels a side",
        "Time": f"{seconds:.0f} s on {config.threads} thread(s)",
        "Data": samples.digest[:16], "Code": tracking.code_version(),
    }  # fmt: skip


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
        if (judge.gallery, judge.labels[0]) not in done:
            done.add((judge.gallery, judge.labels[0]))
            rows = samples.of(judge.gallery)
            first, words = samples.joint(judge.labels[:1])
            title = f"{judge.gallery} by {judge.labels[0]}"
            figure = review.embedding_map(
                judgement.outputs["embedding"][rows], [words[c] if c >= 0 else "unknown" for c in first[rows]], title
            )  # fmt: skip
            mlflow.log_figure(figure, f"maps/{judge.gallery}-{judge.labels[0]}.png")
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
            {"colour_share": share, "judgement": round(value, 5)} for share, value in judgement.tried.items()
        ]
        mlflow.log_text(review.csv_text(rows), "tables/colour-share.csv")


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
