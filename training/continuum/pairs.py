"""Pairs of items that came near one another in a history, counted: the spectral start and the memory read them.

Belongs here: counting by step. Does not belong here: what counts are made into (`start.py`, `memory.py`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from training.continuum.data import Sequences


def lateness(sequences: Sequences, fade: float) -> npt.NDArray[np.float32]:
    """What each event counts by how late it is, float32[E]: the latest 1.

    Args:
        sequences: What may be learned from; ``at`` of all customers on one axis.
        fade: Share of the time that is learned from after which an event counts half; 0 for never.
    """
    span = float(np.ptp(sequences.at)) if len(sequences.at) else 0.0
    if not fade or not span:
        return np.ones(len(sequences.at), np.float32)
    return np.exp2((sequences.at - sequences.at.max()) / (fade * span)).astype(np.float32)


def count_pairs(
    sequences: Sequences,
    step: npt.NDArray[np.int64],
    size: int,
    reach: int,
    halve: float,
    fade: float = 0.0,
) -> sp.csr_matrix:
    """How often the column's item came after the row's, near pairs counting more, float32[V + 1, V + 1].

    Args:
        sequences: What may be learned from.
        step: int64[E], number of each event's step over all customers (`batches.Steps.of`).
        size: V.
        reach: Largest distance in steps.
        halve: Further steps after which a pair counts half.
        fade: As of `lateness`; a pair is as late as its second step.
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
    late = np.ones(steps, np.float32)
    late[step] = lateness(sequences, fade)
    faded = sp.diags(late) @ member if fade else member
    for apart in range(1, min(reach, steps - 1) + 1):
        first = np.flatnonzero(owner[apart:] == owner[:-apart])
        weight = np.float32(2.0 ** (-(apart - 1) / halve))
        total = total + (member[first].T @ faded[first + apart]).tocsr() * weight
    return total.tocsr()
