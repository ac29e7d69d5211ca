"""What a catalogue states of its products, in the place of what an embedder believes of their pictures.

A part of a vector tells attributes (`embedder_model.py`). Of a shopper's photo they are believed; of a product the
catalogue states them, so its row of an index tells those, in the same directions: one dot product then also weighs how
probable a photo finds a product's stated type and colour.

A product's neighbours know more of a photo than the photo alone: `asked` lets them vote.

Belongs here: that part of vectors that were made already. Does not belong here: the network, who states what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from contracts.visual import VOTERS, agree
from training.evaluation.retrieval import nearest
from training.visual.embedder_model import ways

Vectors = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

TOLERANCE = 5e-3
"""Largest difference of any number of the part between graph and here; int8 graphs round."""


def restate(
    vectors: Vectors,
    told: Sequence[str],
    told_at: tuple[int, int],
    logits: Mapping[str, Vectors],
    stated: Mapping[str, Ints],
    weights: Sequence[float] = (),
) -> Vectors:
    """Vectors that tell what is stated.

    Args:
        vectors: ``float32[N, d]`` of length 1, as the graph made them.
        told: Attributes that the vectors tell, in the graph's order.
        told_at: First and last (exclusive) number of the part that does.
        logits: Of each of these, ``float32[N, values]``.
        stated: By attribute ``int64[N]``: the stated value, negative where nothing is; an attribute that is not in it
            is believed throughout.
        weights: How much each of ``told`` counts, as the graph was told; empty for all alike.

    Returns:
        ``float32[N, d]`` of length 1; a copy.

    Raises:
        ValueError: The part is not what the logits say, so the vectors are of another layout.
    """
    part = slice(*told_at)
    length = np.linalg.norm(vectors[:, part], axis=1, keepdims=True)
    if not told or not float(length.max(initial=0.0)) > 0:
        return vectors.copy()
    width = told_at[1] - told_at[0]
    believed, known = np.zeros((len(vectors), width), np.float32), np.zeros((len(vectors), width), np.float32)
    sizes = {name: logits[name].shape[1] for name in told}
    for name, way in ways(told, weights, sizes, width).items():
        toward = way.numpy()
        roots = _roots(logits[name]) @ toward
        values = stated.get(name, np.full(len(vectors), -1, np.int64))
        believed += roots
        known += np.where((values >= 0)[:, None], toward[np.maximum(values, 0)], roots)
    gap = float(np.abs(length * _unit(believed) - vectors[:, part]).max(initial=0.0))
    if not gap <= TOLERANCE:
        raise ValueError(
            f"the numbers {told_at[0]} to {told_at[1]} differ by {gap:.2g} from what {', '.join(told)} tell; "
            f"expected at most {TOLERANCE:g}"
        )
    out = vectors.copy()
    out[:, part] = length * _unit(known)
    return out


def asked(vectors: Vectors, index: Vectors, told_at: tuple[int, int]) -> Vectors:
    """Vectors of photos as a server asks an index with them whose rows tell what is stated; see `agree`.

    Args:
        vectors: ``float32[Q, d]`` of length 1, as the graph made them.
        index: ``float32[N, d]``, see `restate`.
        told_at: First and last (exclusive) number of the part that tells.
    """
    part, out = slice(*told_at), vectors.copy()
    near, alike = nearest(without_told(vectors, told_at), without_told(index, told_at), VOTERS)
    for row, (rows, similar) in enumerate(zip(near, alike, strict=True)):
        out[row, part] = agree(vectors[row, part], index[rows, part], similar)
    return out


def without_told(vectors: Vectors, told_at: tuple[int, int]) -> Vectors:
    """Unit vectors of all that is seen: the part that tells attributes is left out."""
    return _unit(np.delete(vectors, slice(*told_at), axis=1))


def _roots(logits: Vectors) -> Vectors:
    """Square roots of the probabilities."""
    powers = np.exp(0.5 * (logits - logits.max(axis=1, keepdims=True)))
    return powers / np.linalg.norm(powers, axis=1, keepdims=True)


def _unit(vectors: Vectors) -> Vectors:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
