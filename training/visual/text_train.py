"""Training of the text tower from a config to a bundle: names and short phrases, in the embedder's space.

Which products are learned from, chosen on and reported on is what the embedder's bundle says: a picture that
the embedder never learned from is none that the tower may learn from. Where every picture is a class of its own
(a grocer's catalogue) none is left to report on; the tower is then asked for what it learned, and its metrics begin
with ``learned_``.

Belongs here: sentences and their pictures, the order of the steps, what is logged. Does not belong here: the
network (`text_model.py`).
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

from training import tracking
from training.config import Bundle, ConfigError, read_bundle, read_config, stage
from training.evaluation import retrieval
from training.visual import review
from training.visual.bundles import finish, sha256
from training.visual.config import EmbedderConfig, TextConfig
from training.visual.decode import crop, decode
from training.visual.embedder_data import LEARN, TEST, VALIDATE
from training.visual.pictures import PictureSet, open_pictures
from training.visual.quantize import quantize_text
from training.visual.sentences import Words, load_minilm, sentence_vectors
from training.visual.text_model import (
    Step,
    TextTower,
    check_text_parity,
    embed_text,
    export_text,
    learn_step,
)

Progress = Callable[[str], None]
Vectors = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

GRAPH, TOKENIZER = "text.onnx", "tokenizer.json"
DEPTHS = (1, 5, 10)
SHEET_ROWS, SHEET_ANSWERS = 8, 8


@dataclasses.dataclass(frozen=True)
class Named:
    """Pictures with names.

    Attributes:
        pictures: Their set.
        keys: Of each.
        labels: Of each, as the set tells them.
        names: Of each.
        vectors: Unit vectors float32[N, d].
        split: int64[N]: LEARN, VALIDATE or TEST.
    """

    pictures: PictureSet
    keys: tuple[str, ...]
    labels: tuple[dict[str, str], ...]
    names: tuple[str, ...]
    vectors: Vectors
    split: Ints


def run(path: pathlib.Path, progress: Progress = lambda line: None) -> Bundle:
    """Train from a config file; see `train`."""
    return train(read_config(path, TextConfig), progress)


def read_named(config: TextConfig, bundle: Bundle) -> Named:
    """Vectors of an embedder's bundle, with the names of their pictures.

    Raises:
        ConfigError: The bundle is of no embedder, it has no such source, or no picture has a name.
    """
    if bundle.family != "embedder":
        raise ConfigError(f"`$.embedder` is a bundle of family '{bundle.family}'; expected 'embedder'")
    told = msgspec.convert(bundle.config, EmbedderConfig)
    source = next((one for one in told.sources if one.name == config.source), None)
    if source is None:
        known = ", ".join(one.name for one in told.sources)
        raise ConfigError(f"`$.source` is '{config.source}'; expected one of the embedder's: {known}")
    pictures = open_pictures(source.layout, pathlib.Path(source.root), source.options)
    labels = {row.key: dict(row.labels) for row in pictures.rows}
    with np.load(pathlib.Path(config.embedder) / bundle.files["vectors"]) as stored:
        here = np.flatnonzero(stored["source"] == config.source)
        keys = stored["key"][here].tolist()
        rows = np.array([at for at, key in enumerate(keys) if labels.get(key, {}).get(config.name)], np.int64)
        if not len(rows):
            raise ConfigError(
                f"`$.name` is '{config.name}', and no picture of '{config.source}' has it; expected a name"
            )
        vectors, split = stored["embedding"][here][rows], stored["split"][here][rows]
    kept = [keys[at] for at in rows]
    return Named(
        pictures, tuple(kept), tuple(labels[key] for key in kept), tuple(labels[key][config.name] for key in kept),
        vectors, split,
    )  # fmt: skip


def joint(labels: Sequence[dict[str, str]], names: Sequence[str]) -> Ints:
    """Number of each picture's combination of labels, -1 where one is missing."""
    seen: dict[tuple[str, ...], int] = {}
    out = np.full(len(labels), -1, np.int64)
    for at, row in enumerate(labels):
        values = tuple(row.get(name, "") for name in names)
        if all(values):
            out[at] = seen.setdefault(values, len(seen))
    return out


def recalls(queries: Vectors, named: Named, asked: Ints, gallery: Ints) -> tuple[dict[int, float], Ints]:
    """Share of names whose own picture is among the first 1, 5, 10 of a gallery, and what was found."""
    near, _ = retrieval.nearest(queries, named.vectors[gallery], max(DEPTHS))
    found = gallery[near]
    return {k: float(retrieval.recall_at(asked, found, k).mean()) for k in DEPTHS}, found


def train(config: TextConfig, progress: Progress = lambda line: None) -> Bundle:
    """Train a text tower, export it, judge the exported graph, log, and write the bundle.

    Raises:
        ConfigError: The embedder's bundle, source or labels do not fit.
        ParityError: The exported graph and the network disagree.
    """
    torch.set_num_threads(config.threads)
    params, started = config.params, time.monotonic()
    embedder = read_bundle(pathlib.Path(config.embedder))
    named = read_named(config, embedder)
    learn, validate, test = (np.flatnonzero(named.split == part) for part in (LEARN, VALIDATE, TEST))
    if not len(learn):
        raise ConfigError(
            f"`$.source` is '{config.source}', of which nothing may be learned; expected some pictures"
        )
    asked, prefix = (test, "") if len(test) else (learn, "learned_")
    staged = stage(config.out)
    with tracking.start(config) as active:
        tracking.log_dataset(
            config.source, source=config.embedder, digest=embedder.details["data"], context="train"
        )
        step, losses, scores = _learn(config, named, learn, validate, progress)
        words = Words(params.length)
        tower = TextTower(load_minilm(), step)
        words.save(staged / TOKENIZER)
        export_text(tower, staged / GRAPH)
        some = [named.names[at] for at in asked[:9]]
        gap = check_text_parity(tower, staged / GRAPH, words, some, tower.encoder.words.num_embeddings)
        progress("exported; all names through the graph")
        names = [named.names[at] for at in asked]
        kept = quantize_text(
            staged / GRAPH, lambda path: recalls(embed_text(path, words, names), named, asked, asked)[0][10],
            params.int8_loss,
        )  # fmt: skip
        queries = embed_text(staged / GRAPH, words, names)
        own, found = recalls(queries, named, asked, asked)
        whole, _ = recalls(queries, named, asked, np.arange(len(named.keys)))
        numbers = {
            **{f"{prefix}name_to_picture_r_at_{k}": value for k, value in own.items()},
            **{f"{prefix}name_to_picture_whole_r_at_{k}": value for k, value in whole.items()},
            "gallery": float(len(asked)), "gallery_whole": float(len(named.keys)),
            "validation_r_at_10": max(scores, default=float("nan")), "onnx_largest_difference": gap,
            "int8_loss": kept.loss, "int8_speedup": kept.speedup,
            **_phrase_numbers(config, named, staged / GRAPH, words),
        }  # fmt: skip
        told = {name: value for name, value in numbers.items() if np.isfinite(value)}
        progress(
            f"{prefix}name to picture, recall at 10: {own[10]:.4f} of {len(asked)}, "
            f"{whole[10]:.4f} of {len(named.keys)}"
        )
        text = review.card(
            f"Text tower of {config.retailer}",
            "Words become a vector in the embedder's space; the products whose pictures lie near are found.",
            {
                "Sentences": "MiniLM (all-MiniLM-L6-v2), as packaged, not changed",
                "Learned": f"the step to {named.vectors.shape[1]} numbers, from names and phrases of {len(learn)} products",
                "Reported on": f"{len(asked)} names, gallery of their {len(asked)} pictures, and of all {len(named.keys)}"
                + ("" if len(test) else "; they were learned from, since every picture is a class of its own"),
                "Graph": f"{'int8' if kept.shipped else 'fp32'}; int8 loses {kept.loss:.4f} of recall at 10",
                "Embedder": embedder.details["sha256"][:16], "Pictures": "drawn" if config.simulated else "photographs",
                "Time": f"{time.monotonic() - started:.0f} s on {config.threads} thread(s)",
                "Code": tracking.code_version(),
            },
            told,
            [
                "English only.",
                "It finds what can be seen: a brand, a fabric or a price is not in a picture.",
                "'Without' and 'not' are not understood; filters have to take them.",
            ],
        )  # fmt: skip
        (staged / "model_card.md").write_text(text)
        model_id, uri = tracking.log_onnx(staged / GRAPH, "text")
        tracking.log_metrics(told, model_id)
        tracking.log_curve("loss", losses)
        tracking.log_curve("validation_r_at_10", scores)
        tracking.log_model_card(text)
        _show(config, named, asked, found)
        bundle = Bundle(
            family="text", run_id=active.info.run_id, model_uri=uri, metrics=told,
            config=msgspec.to_builtins(config),
            files={"text": GRAPH, "tokenizer": TOKENIZER, "card": "model_card.md"},
            details={
                "settings": {"length": params.length, "dim": named.vectors.shape[1], "int8": kept.shipped},
                "embedder_sha256": embedder.details["sha256"], "sha256": sha256(staged / GRAPH),
            },
        )  # fmt: skip
        return finish(config, staged, bundle)


def _learn(
    config: TextConfig, named: Named, learn: Ints, validate: Ints, progress: Progress
) -> tuple[Step, list[float], list[float]]:
    """Learn from names and phrases; where there is a validation part, it chooses the epoch."""
    sentences = [named.names[at] for at in learn]
    rows = list(learn)
    for phrase in config.phrases:
        for at in learn:
            values = [named.labels[at].get(label, "") for label in phrase]
            if all(values):
                sentences.append(" ".join(values).lower())
                rows.append(at)
    every = np.array(rows)
    # A phrase is the name of all pictures that it fits, a name of its own and, weakly, of those alike.
    columns = [joint(named.labels, combination)[every] for combination in config.alike]
    cache = pathlib.Path(config.home) / "cache" / "sentences"
    vectors = sentence_vectors(sentences, config.params.length, cache)
    score = None
    if len(validate):
        asked = sentence_vectors([named.names[at] for at in validate], config.params.length, cache)

        def score(step: Step) -> float:
            with torch.inference_mode():
                queries = step(asked).numpy()
            return recalls(queries, named, validate, validate)[0][10]

    return learn_step(
        vectors, torch.from_numpy(named.vectors[every]), np.stack(columns, 1), config.params, config.seed,
        score, progress,
    )  # fmt: skip


def _phrase_numbers(config: TextConfig, named: Named, graph: pathlib.Path, words: Words) -> dict[str, float]:
    """Precision at 10 of each kind of phrase over all pictures: does "red dress" find red dresses?"""
    numbers = {}
    for phrase in config.phrases:
        codes = joint(named.labels, phrase)
        test = np.flatnonzero((named.split == TEST) & (codes >= 0))
        said = {
            int(codes[at]): " ".join(named.labels[at][label] for label in phrase).lower() for at in test[::-1]
        }
        if not said:
            continue
        asked = np.array(sorted(said))
        near, _ = retrieval.nearest(
            embed_text(graph, words, [said[code] for code in asked]), named.vectors, 10
        )
        name = "_".join(phrase)
        numbers[f"phrase_{name}_p_at_10"] = float(retrieval.precision_at(asked, codes[near], 10).mean())
    return numbers


def _show(config: TextConfig, named: Named, test: Ints, found: Ints) -> None:
    """Log sheets of names with the pictures that they found."""
    right = found == test[:, None]
    rank = np.where(right.any(1), right.argmax(1), found.shape[1])
    table = review.class_table(
        [named.labels[at].get("type", "unknown") for at in test],
        {"r_at_10": (rank < 10).astype(np.float64), "r_at_1": (rank < 1).astype(np.float64)},
    )
    mlflow.log_text(review.csv_text(table), "tables/name-to-picture.csv")
    good, bad = review.best_and_worst(-rank.astype(np.float64), SHEET_ROWS, config.seed)
    for kind, chosen in (("good", good), ("worst", bad)):
        rows: list[list[review.Shown]] = []
        for query in chosen:
            line: list[review.Shown] = [(None, named.names[test[query]], None)]
            for other in found[query, :SHEET_ANSWERS]:
                pixels = crop(decode(named.pictures.read(named.keys[other])), None, review.CELL, 0.0, True)
                line.append((pixels, named.names[other], bool(other == test[query])))
            rows.append(line)
        sheet = review.contact_sheet(f"name to picture, {kind}: words, then what they find", rows)
        mlflow.log_image(sheet, f"sheets/name-to-picture-{kind}.png")
