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
from serving.engine.items import ItemTable, Mask, places
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
        items: int32[M], each once.
        bits: uint8[M], which sources proposed each.
        places: int32[M], row of each in the customer's `Memory.products`.
        together: float32[M], co-purchase score of each with the customer's items.
    """

    items: NDArray[np.int32]
    bits: NDArray[np.uint8]
    places: NDArray[np.int32]
    together: NDArray[np.float32]


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
    if filtered:
        standing = without_encoder(memory, items, allowed, _first(items.popularity, allowed, POPULAR))
    else:
        if memory.standing is None:
            memory.standing = without_encoder(memory, items, items.sellable, items.popular[:POPULAR])
        standing = memory.standing
    encoded = encoded[encoded >= 0]
    return _joined(standing, memory, encoded[allowed[encoded]])


def without_encoder(
    memory: Memory, items: ItemTable, allowed: Mask, popular: NDArray[np.int32]
) -> Candidates:
    """The candidates that do not come from the encoder: own, bought together, popular.

    Args:
        memory: The customer.
        items: The release's items.
        allowed: bool[N], items that may be shown.
        popular: The popular ones.
    """
    bits = np.zeros(items.size, np.uint8)
    bits[memory.own[:OWN]] |= REPEAT
    bits[_first(memory.together_best, allowed, CO_BOUGHT)] |= TOGETHER
    bits[popular] |= POPULARITY
    chosen = np.flatnonzero(bits > 0)
    chosen = chosen[allowed[chosen]]
    return described(memory, chosen.astype(np.int32), bits[chosen])


def described(memory: Memory, items: NDArray[np.int32], bits: NDArray[np.uint8]) -> Candidates:
    """Candidates with what the customer's history says of each.

    Args:
        memory: The customer.
        items: int32[M], ascending.
        bits: uint8[M], their sources.
    """
    return Candidates(items, bits, memory.products.places(items), _together(memory, items))


def _joined(standing: Candidates, memory: Memory, encoded: NDArray[np.int32]) -> Candidates:
    """Standing candidates and after them the encoder's others."""
    place = places(standing.items, encoded)
    known = place > 0
    bits = standing.bits.copy()
    bits[place[known] - 1] |= ENCODED
    fresh = encoded[~known]
    if not len(fresh):
        return Candidates(standing.items, bits, standing.places, standing.together)
    # An own item that is not among the standing ones is older than the `OWN` latest.
    rows = memory.products.places(fresh) if len(memory.own) > OWN else np.zeros(len(fresh), np.int32)
    return Candidates(
        np.concatenate((standing.items, fresh)),
        np.concatenate((bits, np.full(len(fresh), ENCODED, np.uint8))),
        np.concatenate((standing.places, rows)),
        np.concatenate((standing.together, _together(memory, fresh))),
    )


def _together(memory: Memory, items: NDArray[np.int32]) -> NDArray[np.float32]:
    found = places(memory.together, items)
    scores = np.zeros(len(items), np.float32)
    known = found > 0
    scores[known] = memory.together_scores[found[known] - 1]
    return scores


def _first(order: NDArray[np.int32], allowed: Mask, count: int) -> NDArray[np.int32]:
    """The first so many allowed items of an order; most orders need not be read to their end."""
    for length in (4 * count, len(order)):
        head = order[:length]
        found = head[allowed[head]]
        if len(found) >= count:
            break
    return found[:count]
