"""Which of the alike things come first for this shopper, and why.

What looks right is decided first: only results within a band below the best match may change places, and
one of another colour than was seen never moves up. Inside the band the release's own ranker, which knows
what this shopper buys, may move a result by at most half of the band's width: a red dress stays a red dress.

Belongs here: the order and its reasons. Does not belong here: similarity (`index.py`), the ranker.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

BAND = 0.15
"""How far below the best match (in cosine) a result may be and still change places."""

PULL = 0.5
"""Most that the shopper's own taste can move a result, in widths of the band."""


@dataclasses.dataclass(frozen=True, eq=False)
class Order:
    """An order of candidates.

    Attributes:
        places: int64[M], places of the candidates, best first.
        scores: float64[M], in that order, never rising.
        floor: Least similarity of what may change places.
        within: How many candidates reach it.
        gained: Places by which each of ``places`` rose by the shopper's taste, negative where it fell.
    """

    places: NDArray[np.int64]
    scores: NDArray[np.float64]
    floor: float
    within: int
    gained: NDArray[np.int64]


def order(
    similar: NDArray[np.float32],
    taste: NDArray[np.float32] | None = None,
    may_rise: NDArray[np.bool_] | None = None,
    band: float = BAND,
) -> Order:
    """Order candidates by how alike they are and, within the floor, by the shopper's taste.

    Args:
        similar: float32[M], falling.
        taste: float32[M], the ranker's scores, or None where nobody is known.
        may_rise: bool[M], False for what must not move up.
        band: Width below the best match in which places may change.
    """
    size = len(similar)
    if size == 0:
        none = np.zeros(0, np.int64)
        return Order(none, np.zeros(0), 0.0, 0, none)
    floor = float(similar[0]) - band
    within = similar >= floor
    scores = similar.astype(np.float64)
    if taste is not None and int(within.sum()) > 1:
        liked = within if may_rise is None else within & may_rise
        scores = scores + np.where(liked, PULL * band * _shares(taste, within), 0.0)
    # What lies below the floor stays below all that reaches it, whatever the shopper likes.
    places = np.lexsort((np.arange(size), -scores, ~within))
    ranked = np.minimum.accumulate(scores[places])
    return Order(places, ranked, floor, int(within.sum()), places - np.arange(size))


def _shares(taste: NDArray[np.float32], within: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Rank of each candidate's taste among those within the floor, from 0 (least) to 1 (most)."""
    shares = np.zeros(len(taste))
    chosen = np.flatnonzero(within)
    ranks = np.empty(len(chosen))
    ranks[np.argsort(taste[chosen], kind="stable")] = np.arange(len(chosen))
    shares[chosen] = ranks / max(1, len(chosen) - 1)
    return shares
