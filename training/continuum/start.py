"""Where the encoder starts from: at random, or at what counting already tells (the *spectral start*).

Items that follow one another closely have a co-occurrence matrix; its largest eigenvectors, found in seconds,
are item vectors by which the neighbours of the latest items score highest (item-kNN of low rank; for the link
between such factors and learned embeddings see Levy and Goldberg, NIPS 2014). The block starts as a mean of
the history that weighs recent events more. Training then only has to learn what counting cannot tell.

Belongs here: first weights from counts. Does not belong here: training (`fit.py`).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from training.continuum.blocks import Block
from training.continuum.data import Sequences
from training.continuum.model import Encoder, ItemTable
from training.continuum.pairs import count_pairs

Floats = npt.NDArray[np.float32]

REACH = 12
"""Events up to this many steps apart co-occur."""

HALVE = 3.0
"""Further steps after which a pair counts half."""

DAMPING = 20.0
"""Added to an item's pairs, so that rare pairs weigh less."""

ROUNDS = 6
EXTRA = 32
"""Power iterations and spare columns of the randomized decomposition (Halko et al. 2011)."""

NORM = 1.0
"""Mean length of the first item vectors."""

QUIET = 0.1
"""Share that is left of first weights that say nothing yet."""

RECENCY = 2.0
"""Steps after which an event's first attention halves."""


def co_occurrence(sequences: Sequences, step: npt.NDArray[np.int64], size: int) -> sp.csr_matrix:
    """Symmetric float32[V + 1, V + 1]: how often two items are near; arguments as of `pairs.count_pairs`."""
    pairs = count_pairs(sequences, step, size, REACH, HALVE)
    both = (pairs + pairs.T).tocsr()
    both.setdiag(0.0)
    both.eliminate_zeros()
    return both


def spectral_vectors(pairs: sp.csr_matrix, dim: int, rng: np.random.Generator) -> Floats:
    """Item vectors float32[V + 1, d] whose dot products approach the normalised co-occurrence."""
    scale = sp.diags((np.asarray(pairs.sum(axis=1)).ravel() + DAMPING) ** -0.5)
    matrix = (scale @ pairs @ scale).astype(np.float32).tocsr()
    width = min(dim + EXTRA, matrix.shape[0])
    basis = rng.standard_normal((matrix.shape[0], width), dtype=np.float32)
    for _ in range(ROUNDS):
        basis = np.linalg.qr(matrix @ basis)[0]
    values, turn = np.linalg.eigh(basis.T @ (matrix @ basis))
    best = np.argsort(-values)[:dim]
    found = (basis @ turn[:, best]) * np.sqrt(np.maximum(values[best], 0.0))
    out = np.zeros((matrix.shape[0], dim), np.float32)
    out[:, : found.shape[1]] = found
    lengths = np.linalg.norm(out, axis=1)
    return out * (NORM / max(1e-9, float(lengths[lengths > 0].mean() if (lengths > 0).any() else 1.0)))


def share_with_content(items: ItemTable, vectors: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Give each value of the content the mean of what its items' vectors have left.

    An item that nothing was seen of starts as its content says.

    Args:
        items: Its embeddings of content are set.
        vectors: float[V + 1, d] item vectors.
        known: bool[V + 1], items that count.

    Returns:
        What is left for the items' own embeddings, float[V + 1, d]; 0 where nothing is known.
    """
    left = vectors * known.unsqueeze(1)
    parts = [(table.weight, items.codes[:, column : column + 1]) for column, table in enumerate(items.fields)]
    if items.tag is not None:
        parts.append((items.tag.weight, items.tags))
    for weight, codes in parts:
        real = ((codes > 0) & known.unsqueeze(1)).to(left.dtype)
        share = real / real.sum(1, keepdim=True).clamp(min=1.0)
        flat, counted = codes.flatten(), (codes > 0) & known.unsqueeze(1)
        number = torch.zeros(len(weight)).index_add_(0, flat, counted.flatten().to(left.dtype))
        spread = (left.unsqueeze(1) * real.unsqueeze(2)).flatten(0, 1)
        weight.zero_().index_add_(0, flat, spread).div_(number.clamp(min=1.0).unsqueeze(1))
        weight[0] = 0.0
        for column in range(codes.shape[1]):
            left = left - share[:, column : column + 1] * weight[codes[:, column]]
    return left


@torch.no_grad()
def spectral_start(
    encoder: Encoder, sequences: Sequences, step: npt.NDArray[np.int64], rng: np.random.Generator
) -> None:
    """Set an encoder's first weights from the co-occurrence of what it will learn from.

    Args:
        encoder: Its weights are set.
        sequences: What will be learned from.
        step: As of `pairs.count_pairs`.
        rng: Of the decomposition.
    """
    table = encoder.items.own
    pairs = co_occurrence(sequences, step, table.num_embeddings - 1)
    vectors = torch.from_numpy(spectral_vectors(pairs, table.embedding_dim, rng))
    known = torch.from_numpy(np.asarray(pairs.sum(axis=1)).ravel() > 0)
    table.weight.copy_(share_with_content(encoder.items, vectors, known))
    for weight in (encoder.request, encoder.sizes.weight, encoder.actions.weight, encoder.channels.weight):
        weight.mul_(QUIET)
    dim = table.embedding_dim
    for block, bias in zip(encoder.blocks, encoder.biases, strict=True):
        attention = block.attention
        attention.value.weight.copy_(torch.eye(dim) * (2.0 * NORM / math.sqrt(dim)))
        attention.out.weight.copy_(torch.eye(dim))
        for weight in (attention.query.weight, attention.key.weight):
            weight.mul_(QUIET)
        last = block.feed.down if isinstance(block, Block) else block.feed[-1]
        last.weight.mul_(QUIET)
        if bias.steps is not None:
            bias.steps.copy_(
                -math.log(2.0) / RECENCY * torch.arange(len(bias.steps)).unsqueeze(1).expand_as(bias.steps)
            )
