"""Pairs of items that came near one another in a history, counted: the spectral start and the memory read them.

Belongs here: counting by step. Does not belong here: what counts are made into (`start.py`, `memory.py`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from training.continuum.data import Sequences


def count_pairs(
    sequences: Sequences, step: npt.NDArray[np.int64], size: int, reach: int, halve: float
) -> sp.csr_matrix:
    """How often the column's item came after the row's, near pairs counting more, float32[V + 1, V + 1].

    Args:
        sequences: What may be learned from.
        step: int64[E], number of each event's step over all customers (`batches.Steps.of`).
        size: V.
        reach: Largest distance in steps.
        halve: Further steps after which a pair counts half.
    """
    total = sp.csr_matrix((size + 1, size + 1), dtype=np.float32)
    if not len(step):
        return total
    steps, real = int(step[-1]) + 1, sequences.item > 0
    member = sp.csr_matrix(
        (np.ones(int(real.sum()), np.float32), (step[real], sequences.item[real])), shape=(steps, size + 1)
    )
    owner = np.zeros(steps, np.int64)
    owner[step] = np.repeat(np.arange(len(sequences.customers)), np.diff(sequences.offsets))
    for apart in range(1, min(reach, steps - 1) + 1):
        first = np.flatnonzero(owner[apart:] == owner[:-apart])
        weight = np.float32(2.0 ** (-(apart - 1) / halve))
        total = total + (member[first].T @ member[first + apart]).tocsr() * weight
    return total.tocsr()
