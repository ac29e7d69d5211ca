"""Which products are ranked for a request: the definition, for many requests at once.

The candidates of a request are the sellable ones among

- *own*: the products the customer has bought, the 600 most recently bought of them;
- *encoder*: the 100 sellable products that the encoder scores highest;
- *co-bought*: the 50 sellable products with the highest co-purchase score. The score of product i is the sum
  over own products j of w_j * neighbour_score(j -> i), divided by the Euclidean norm of w; w_j is the decayed
  count of j (half-life 45 days);
- *popular*: the first 150 of the table of recent popularity.

Ties go to the lower item index. `serving/engine/candidates.py` makes the same set for one request.

Belongs here: the sets, and what their making already tells (source, scores). Does not belong here:
features, sampling of negatives (`data.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from contracts.features import MICROSECONDS_PER_DAY
from training.ranker.items import Arrays
from training.ranker.requests import Lines, Requests

OWN = 600
ENCODER = 100
POPULAR = 150
CO_BOUGHT = 50
HALF_LIFE = 45.0

REPEAT, ENCODED, TOGETHER, POPULARITY = 1, 2, 4, 8
SOURCES = {"own": REPEAT, "encoder": ENCODED, "co_bought": TOGETHER, "popular": POPULARITY}

Ints = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]


class Scorer(Protocol):
    """The encoder, as candidates need it."""

    def batches(self, requests: Requests) -> Iterator[tuple[slice, Singles]]:
        """Raw scores float32[B, V + 1] by encoder id, batch of requests by batch, in order."""


@dataclasses.dataclass(frozen=True, eq=False)
class Candidates:
    """Candidates of many requests, by request, then item.

    Attributes:
        row: int64[M], request.
        item: int64[M], index in the catalogue.
        bits: uint8[M], sources.
        encoder_score: float32[M], 0 for items outside the vocabulary.
        co_bought: float32[M].
        weight: float32[M], decayed count (45 days) of an own item, else 0.
    """

    row: Ints
    item: Ints
    bits: npt.NDArray[np.uint8]
    encoder_score: Singles
    co_bought: Singles
    weight: Singles

    def __len__(self) -> int:
        return len(self.row)

    def select(self, keep: npt.NDArray[np.bool_] | npt.NDArray[np.int64] | slice) -> Candidates:
        """Some of the candidates."""
        return Candidates(*(getattr(self, field.name)[keep] for field in dataclasses.fields(self)))


@dataclasses.dataclass(frozen=True, eq=False)
class Own:
    """A customer's products before a moment.

    Attributes:
        items: int64[K], ascending.
        weights: float64[K], decayed counts as of the latest purchase.
        last_us: int64[K], latest purchase.
    """

    items: Ints
    weights: npt.NDArray[np.float64]
    last_us: Ints


def generate(
    lines: Lines,
    requests: Requests,
    items: Arrays,
    popular: dict[int, npt.NDArray[np.int32]],
    encoder: Scorer,
) -> Candidates:
    """Candidates of requests.

    Args:
        lines: Purchase histories.
        requests: Whom to answer, when.
        items: Item table as of a moment that no request precedes.
        popular: Table of recent popularity by cut (microseconds).
        encoder: Scores of every vocabulary item.
    """
    parts = []
    for part, scores in encoder.batches(requests):
        tops = encoder_tops(scores, items)
        for row, top, score in zip(range(part.start, part.stop), tops, scores, strict=True):
            own = own_items(lines, int(requests.customer[row]), int(requests.at_us[row]))
            common = popular[int(requests.cut_us[row])]
            parts.append(_one(row, own, items, common, top, score))
    return Candidates(
        *(np.concatenate([getattr(part, f.name) for part in parts]) for f in dataclasses.fields(Candidates))
    )


def own_items(lines: Lines, customer: int, moment_us: int) -> Own:
    """What a customer has bought strictly before a moment."""
    past = lines.before(customer, moment_us)
    item, at_us = lines.item[past], lines.at_us[past]
    items, place = np.unique(item, return_inverse=True)
    last = np.zeros(len(items), np.int64)
    np.maximum.at(last, place, at_us)
    age = (at_us - (at_us[-1] if len(at_us) else 0)) / MICROSECONDS_PER_DAY
    return Own(items, np.bincount(place, np.exp2(age / HALF_LIFE), len(items)), last)


def co_bought_scores(own: Own, items: Arrays) -> tuple[Ints, Singles]:
    """Co-purchase scores: items ascending with their scores; empty for a customer without purchases."""
    if not len(own.items):
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    neighbours = items["neighbours"][own.items]
    known = neighbours >= 0
    values = (items["neighbour_scores"][own.items] * own.weights[:, None])[known]
    sums = np.bincount(neighbours[known], values, len(items["product_id"]))
    found = np.flatnonzero(sums > 0)
    return found, (sums[found] / np.sqrt(np.sum(own.weights * own.weights))).astype(np.float32)


def encoder_tops(scores: Singles, items: Arrays) -> Ints:
    """The best sellable items by the encoder, int64[B, min(100, V)]; -1 where there are fewer."""
    item_of = np.full(scores.shape[1], -1, np.int64)
    known = items["encoder_id"] > 0
    item_of[items["encoder_id"][known]] = np.flatnonzero(known)
    allowed = item_of >= 0
    allowed[allowed] = items["sellable"][item_of[allowed]]
    masked = np.where(allowed, scores, -np.inf)
    k = min(ENCODER, scores.shape[1] - 1)
    best = np.argpartition(-masked, k - 1, axis=1)[:, :k]
    return np.where(np.take_along_axis(masked, best, axis=1) > -np.inf, item_of[best], -1)


def _one(
    row: int, own: Own, items: Arrays, common: npt.NDArray[np.int32], top: Ints, score: Singles
) -> Candidates:
    size = len(items["product_id"])
    sellable = items["sellable"]
    bits = np.zeros(size, np.uint8)
    bits[own.items[np.argsort(-own.last_us, kind="stable")[:OWN]]] |= REPEAT
    bits[top[top >= 0]] |= ENCODED
    bits[common[:POPULAR]] |= POPULARITY
    found, together = co_bought_scores(own, items)
    may = sellable[found]
    bits[found[may][np.argsort(-together[may], kind="stable")[:CO_BOUGHT]]] |= TOGETHER
    chosen = np.flatnonzero((bits > 0) & sellable)
    ids = items["encoder_id"][chosen]
    return Candidates(
        np.full(len(chosen), row, np.int64), chosen, bits[chosen],
        np.where(ids > 0, score[ids], np.float32(0)), _looked_up(found, together, chosen),
        _looked_up(own.items, own.weights.astype(np.float32), chosen),
    )  # fmt: skip


def _looked_up(keys: Ints, values: Singles, wanted: Ints) -> Singles:
    """Values by ascending key, 0 for keys that are not there."""
    if not len(keys):
        return np.zeros(len(wanted), np.float32)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], np.float32(0))
