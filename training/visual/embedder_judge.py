"""How good an embedder is, by the judges of its config, and which weights its parts should have.

Belongs here: who is asked what, of the validation or the test part. Does not belong here: the metrics
(`training/evaluation/retrieval.py`), pictures of good and bad answers (`review.py`).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from training.evaluation import retrieval
from training.visual.config import EmbedderConfig, EmbedderParams, Judge
from training.visual.embedder_data import LEARN, TEST, VALIDATE, Ints, Samples
from training.visual.embedder_export import embed
from training.visual.telling import asked, restate, without_told

SHARES = tuple(round(0.05 * step, 2) for step in range(1, 15))
TOLD_SHARES = tuple(round(0.1 * step, 2) for step in range(7))
BATCH = 64
SHOWN = 8
"""Answers that are shown, also where fewer count."""

SIMPLER = 0.001
"""Shares whose judgement is this near to the best are as good; the smallest of them is taken."""

Vectors = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Answers:
    """What one judge saw.

    Attributes:
        judge: Who.
        queries: int64[Q] rows.
        found: int64[Q, max(k, SHOWN)] rows of the gallery, best first.
        value: float64[Q], the number of each query; its mean is the judge's.
        gallery: Size of the gallery.
    """

    judge: Judge
    queries: Ints
    found: Ints
    value: Floats
    gallery: int

    @property
    def mean(self) -> float:
        """The judge's number."""
        return float(self.value.mean()) if len(self.value) else float("nan")


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Vectors as they stand in an index.

    Attributes:
        vectors: float32[N, d] of all rows.
        told_at: First and last (exclusive) number of the part that tells attributes.
        states: Sources whose rows tell what a catalogue states, and so have a vote in what a photo shows.
    """

    vectors: Vectors
    told_at: tuple[int, int]
    states: frozenset[str]

    def asked(self, vectors: Vectors, source: str, rows: Ints) -> Vectors:
        """Vectors float32[Q, d] of photos as a server asks those rows of a source with them."""
        return asked(vectors, self.vectors[rows], self.told_at) if source in self.states else vectors


class Shares(NamedTuple):
    """Weights of two parts of a vector; shape has the rest."""

    told: float
    colour: float


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What the exported graph is worth.

    Attributes:
        outputs: Of the graph for all rows, by name.
        validation: Number by judge, on the validation part.
        answers: What each judge saw of the test part.
        shares: Weights of the parts.
        tried: Judgement on the validation part by weights.
        accuracy: By attribute, see `attribute_accuracy`.
        self_first: Share of pictures that find themselves first in an index.
        int8_loss: What an int8 graph loses on the validation part; None if none was made.
    """

    outputs: dict[str, Vectors]
    validation: dict[str, float]
    answers: list[Answers]
    shares: Shares
    tried: dict[Shares, float]
    accuracy: dict[str, tuple[float, npt.NDArray[np.int64], npt.NDArray[np.int64]]]
    self_first: float
    int8_loss: float | None = None

    def numbers(self) -> dict[str, float]:
        """All of them by metric."""
        return {
            **{answers.judge.name: answers.mean for answers in self.answers},
            **{f"validation_{name}": value for name, value in self.validation.items()},
            **{f"accuracy_{name}": value[0] for name, value in self.accuracy.items()},
            "self_first": self.self_first,
            "colour_share": self.shares.colour,
            "told_share": self.shares.told,
            **({} if self.int8_loss is None else {"int8_loss": self.int8_loss}),
        }


def embed_rows(session: ort.InferenceSession, samples: Samples, rows: Ints) -> dict[str, Vectors]:
    """All outputs of a graph for some rows, by name, in blocks so that few squares are in memory."""
    blocks = [embed(session, samples.take(rows[at : at + BATCH]), BATCH) for at in range(0, len(rows), BATCH)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def reshare(vectors: Vectors, params: EmbedderParams, old: Shares, new: Shares) -> Vectors:
    """Unit vectors with other weights of their parts."""
    at = (params.shape_dim, params.dim - params.colour_dim)
    parts = np.split(vectors, at, axis=1)
    pairs = ((1 - sum(new), 1 - sum(old)), (new.told, old.told), (new.colour, old.colour))
    return np.concatenate(
        [
            part * np.float32(np.sqrt(after / before)) if part.shape[1] else part
            for part, (after, before) in zip(parts, pairs, strict=True)
        ],
        axis=1,
    )


def as_index(samples: Samples, config: EmbedderConfig, outputs: Mapping[str, Vectors]) -> Gallery:
    """Vectors as they stand in an index: those of a catalogue tell what it states (`Source.stated`).

    Args:
        samples: All pictures.
        config: Its sources say what is stated of them.
        outputs: Of the graph for all rows, by name.
    """
    params = config.params
    logits = {name: outputs[f"attr_{name}"] for name in params.told}
    stated = {name: np.full(len(samples), -1, np.int64) for name in params.told}
    for source in config.sources:
        rows = samples.of(source.name)
        for name in set(source.stated) & set(params.told):
            values = samples.labels[name][rows]
            stated[name][rows] = np.where(values < samples.learned[name], values, -1)
    return Gallery(
        restate(outputs["embedding"], params.told, params.told_at, logits, stated, params.told_weights),
        params.told_at,
        frozenset(source.name for source in config.sources if set(source.stated) & set(params.told)),
    )


def self_first(samples: Samples, config: EmbedderConfig, vectors: Vectors) -> float:
    """Share of the pictures of all galleries that find themselves first.

    A server looks for the very same picture by what is seen, whatever it is stated to be (`SAME_PICTURE`).
    """
    seen = without_told(vectors, config.params.told_at)
    names = sorted({judge.gallery for judge in config.judges} or set(samples.sources))
    return float(np.concatenate([retrieval.finds_itself(seen[samples.of(name)]) for name in names]).mean())


def judged(
    samples: Samples, judge: Judge, vectors: Vectors, part: int, index: Gallery | None = None
) -> Answers:
    """Ask one judge.

    Args:
        samples: All pictures.
        judge: Who is asked.
        vectors: float32[N, d] of all rows, as queries.
        index: What galleries are, see `as_index`; the same vectors if there is no other.
        part: Split of the queries, TEST or VALIDATE; rows of it are never in the queries' own gallery.
    """
    codes, _ = samples.joint(judge.labels)
    rows = samples.of(judge.queries)
    queries = rows[(samples.split[rows] == part) & (codes[rows] >= 0)]
    gallery = samples.of(judge.gallery)
    if judge.gallery == judge.queries:
        hidden = (TEST,) if part == TEST else (TEST, VALIDATE)
        gallery = gallery[~np.isin(samples.split[gallery], hidden)]
    asking, rows_of_index = vectors[queries], vectors[gallery]
    if index is not None:
        asking, rows_of_index = index.asked(asking, judge.gallery, gallery), index.vectors[gallery]
    near, similarity = retrieval.nearest(asking, rows_of_index, max(judge.k, SHOWN))
    shown = gallery[near]
    found, similarity = shown[:, : judge.k], similarity[:, : judge.k]
    if not len(queries):
        value: Floats = np.zeros(0)
    elif judge.kind == "recall":
        value = retrieval.recall_at(codes[queries], codes[found], judge.k)
    elif judge.kind == "precision":
        value = retrieval.precision_at(codes[queries], codes[found], judge.k)
    else:
        votes = retrieval.knn_votes(codes[found], similarity, int(codes.max()) + 1)
        value = (votes == codes[queries]).astype(np.float64)
    return Answers(judge, queries, shown, value, len(gallery))


def choose_shares(
    samples: Samples, config: EmbedderConfig, outputs: Mapping[str, Vectors], old: Shares
) -> tuple[Shares, dict[Shares, float]]:
    """The weights of the parts that the judges like best on the validation part; stated ones stay.

    Args:
        samples: All pictures.
        config: Its judges are asked, weighted by their weights.
        outputs: Of the graph for all rows, by name.
        old: Weights of its vectors.

    Returns:
        The weights, and the judgement of all that were tried. Of those that are about as good the smallest are taken.
    """
    params, tried = config.params, dict[Shares, float]()
    weighing = [judge for judge in config.judges if judge.weight > 0]
    chosen = bool(weighing) and bool((samples.split == VALIDATE).any())

    def weights(there: bool, stated: float | None, grid: tuple[float, ...], was: float) -> tuple[float, ...]:
        return (0.0,) if not there else (stated,) if stated is not None else grid if chosen else (was,)

    told = weights(bool(params.told), params.told_share, TOLD_SHARES, old.told)
    colour = weights(bool(params.colour_dim), params.colour_share, SHARES, old.colour)
    wanted = [Shares(*pair) for pair in itertools.product(told, colour) if sum(pair) < 1]
    if len(wanted) == 1:
        return wanted[0], tried
    vectors, index = outputs["embedding"], as_index(samples, config, outputs)
    for new in wanted:
        asking = reshare(vectors, params, old, new)
        rows = dataclasses.replace(index, vectors=reshare(index.vectors, params, old, new))
        means = [judged(samples, judge, asking, VALIDATE, rows).mean for judge in weighing]
        tried[new] = float(np.average(means, weights=[judge.weight for judge in weighing]))
    best = max(tried.values())
    return min(
        (new for new, value in tried.items() if value >= best - SIMPLER), key=lambda new: (sum(new), new)
    ), tried


def attribute_accuracy(
    samples: Samples, outputs: dict[str, Vectors], part: int
) -> dict[str, tuple[float, Ints, Ints]]:
    """By attribute: accuracy on a part, and the true and the told value of its rows."""
    found = {}
    for output, logits in outputs.items():
        name = output.removeprefix("attr_")
        if name == output:
            continue
        truth = samples.labels[name]
        rows = np.flatnonzero((samples.split == part) & (truth >= 0) & (truth < samples.learned[name]))
        told = logits[rows].argmax(1)
        found[name] = float((told == truth[rows]).mean()) if len(rows) else float("nan"), truth[rows], told
    return found


__all__ = [
    "LEARN", "TEST", "VALIDATE", "Answers", "Shares", "as_index", "attribute_accuracy", "choose_shares", "embed_rows",
    "judged", "reshare", "self_first",
]  # fmt: skip
