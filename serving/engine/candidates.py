"""Which items are ranked for one request.

The definition is that of `training/ranker/candidates.py`, which makes the same sets for many requests
at once: the customer's own items (most recent first), the encoder's best, recent popularity, and what
is bought together with the own items.

Belongs here: making the set and remembering who proposed what. Does not belong here: features, scores.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from contracts.decisions import Source
from serving.engine.items import ItemTable, Mask
from serving.engine.memory import Memory

OWN = 600
ENCODER = 100
POPULAR = 150
CO_BOUGHT = 50

REPEAT, ENCODED, TOGETHER, POPULARITY = 1, 2, 4, 8
_NAMES: tuple[tuple[int, Source], ...] = (
    (REPEAT, "repeat"), (ENCODED, "encoder"), (TOGETHER, "co_bought"), (POPULARITY, "popular"),
)  # fmt: skip
SOURCES: tuple[tuple[Source, ...], ...] = tuple(
    tuple(name for bit, name in _NAMES if bits & bit) for bits in range(16)
)
"""Source names by the bits of `Candidates.bits`."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What is ranked for one request.

    Attributes:
        items: int32[M], ascending.
        bits: uint8[M], which sources proposed each.
    """

    items: NDArray[np.int32]
    bits: NDArray[np.uint8]


def candidates(
    memory: Memory, items: ItemTable, encoded: NDArray[np.int32], allowed: Mask, filtered: bool
) -> Candidates:
    """The candidate set of one request.

    Args:
        memory: The customer.
        items: The release's items.
        encoded: Items that the encoder puts forward, best first, -1 for none.
        allowed: bool[N], items that may be shown.
        filtered: True where the request's filters narrow ``allowed``; popularity then means popularity
            among what is allowed, so that a narrow filter still has something to rank.
    """
    bits = np.zeros(items.size, np.uint8)
    bits[memory.own[:OWN]] |= REPEAT
    bits[encoded[encoded >= 0]] |= ENCODED
    bits[_first(memory.together_best, allowed, CO_BOUGHT)] |= TOGETHER
    popular = _first(items.popularity, allowed, POPULAR) if filtered else items.popular[:POPULAR]
    bits[popular] |= POPULARITY
    chosen = np.flatnonzero(bits > 0)
    chosen = chosen[allowed[chosen]]
    return Candidates(chosen.astype(np.int32), bits[chosen])


def _first(order: NDArray[np.int32], allowed: Mask, count: int) -> NDArray[np.int32]:
    """The first so many allowed items of an order; most orders need not be read to their end."""
    for length in (4 * count, len(order)):
        head = order[:length]
        found = head[allowed[head]]
        if len(found) >= count:
            break
    return found[:count]
