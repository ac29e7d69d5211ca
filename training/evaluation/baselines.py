"""Simple ways to answer that a model has to beat, all from the same purchase histories.

Belongs here: recent popularity, personal frequency (plain and decayed), item-kNN, TIFU-kNN. Does not
belong here: metrics, anything that is trained.

A `Purchases` holds what may be seen. Personal baselines break ties by recent popularity and fill short
answers with it: without that, plain counts give NDCG@10 of 0.201 to 0.203 (by the order of ties) instead of 0.208 on the
frozen set of Complete Journey, so the stronger form is the one to beat.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

POPULAR_DAYS = 28
HALF_LIFE = 45.0
NEIGHBOUR_ITEMS = 50
BATCH = 128


@dataclasses.dataclass(frozen=True, eq=False)
class Purchases:
    """What customers have bought so far: one row per customer, moment and product.

    Attributes:
        customer: int64[E], index of the customer, ascending; times ascend inside a customer.
        item: int64[E], index of the product.
        at: float64[E], days since 1970-01-01 UTC.
        customers: Number of customers.
        items: Number of products.
        until: The moment up to which (exclusive) purchases are held.
    """

    customer: Ints
    item: Ints
    at: Floats
    customers: int
    items: int
    until: float

    @property
    def basket(self) -> Ints:
        """int64[E], dense number of each row's basket (customer and moment)."""
        new = np.ones(len(self.at), np.bool_)
        new[1:] = (self.customer[1:] != self.customer[:-1]) | (self.at[1:] != self.at[:-1])
        return np.cumsum(new) - 1

    def last_baskets(self, n: int) -> Purchases:
        """Only the last n baskets of every customer."""
        basket = self.basket
        last = np.zeros(self.customers, np.int64)
        np.maximum.at(last, self.customer, basket)
        keep = basket > last[self.customer] - n
        return dataclasses.replace(self, customer=self.customer[keep], item=self.item[keep], at=self.at[keep])


def baseline_answers(
    purchases: Purchases, customers: Ints, k: int = 10, histories: Purchases | None = None
) -> dict[str, Ints]:
    """Answers of every baseline.

    Args:
        purchases: What is known of everybody.
        customers: int64[R], index of each request's customer, -1 for one never seen.
        k: Answer length.
        histories: What is known of the requests' own customers, where it is less than ``purchases``.

    Returns:
        int64[R, k] by name: ``recent_popularity``, ``personal_frequency``, ``personal_frequency_45d``,
        ``item_knn``, ``tifu_knn``.
    """
    own = purchases if histories is None else histories
    popularity = recent_popularity(purchases)
    popular = np.argsort(-popularity, kind="stable")[:k]
    counts, decayed = frequency(own), frequency(own, HALF_LIFE)
    return {
        "recent_popularity": np.tile(popular, (len(customers), 1)),
        "personal_frequency": _answers(counts, customers, popularity, k),
        "personal_frequency_45d": _answers(decayed, customers, popularity, k),
        "item_knn": _answers(item_knn(purchases, decayed, customers), np.arange(len(customers)), popularity, k),
        "tifu_knn": _answers(
            tifu_knn(tifu_vectors(purchases), tifu_vectors(own), customers),
            np.arange(len(customers)), popularity, k,
        ),
    }  # fmt: skip


def recent_popularity(purchases: Purchases, days: float = POPULAR_DAYS) -> Floats:
    """float64[N], baskets with each product in the last days."""
    recent = purchases.at >= purchases.until - days
    return np.bincount(purchases.item[recent], minlength=purchases.items).astype(np.float64)


def frequency(purchases: Purchases, half_life: float | None = None) -> sp.csr_matrix:
    """Baskets with each product by customer, float64[C, N], each weighing 2 ** (-age / half_life)."""
    age = purchases.until - purchases.at
    weights = np.ones(len(age)) if half_life is None else np.exp2(-age / half_life)
    return sp.csr_matrix(
        (weights, (purchases.customer, purchases.item)), shape=(purchases.customers, purchases.items)
    )


def item_knn(purchases: Purchases, decayed: sp.csr_matrix, customers: Ints) -> sp.csr_matrix:
    """Cosine neighbours of the products bought, weighted by decayed counts (Sarwar et al. 2001).

    Similarity is the cosine of two products' baskets; a product is its own neighbour with similarity 1, so
    repeats are possible; each product keeps its `NEIGHBOUR_ITEMS` best.

    Returns:
        Scores, float64[R, N].
    """
    baskets = purchases.basket
    bought = sp.csr_matrix(
        (np.ones(len(baskets), np.float32), (baskets, purchases.item)),
        shape=(int(baskets.max(initial=0)) + 1, purchases.items),
    )
    norms = np.sqrt(np.maximum(np.asarray(bought.sum(axis=0)).ravel(), 1))
    unit = (bought @ sp.diags((1 / norms).astype(np.float32))).tocsc()
    wanted = _rows(decayed, customers)
    used = np.unique(wanted.indices)
    similar = sp.vstack(
        [_best(unit[:, used[part]].T @ unit, NEIGHBOUR_ITEMS) for part in _parts(len(used), 2000)]
    )
    return (wanted[:, used] @ similar).tocsr()


@dataclasses.dataclass(frozen=True)
class TifuSettings:
    """Parameters of TIFU-kNN; the defaults lie inside the ranges of the paper and were not tuned on any shop.

    Attributes:
        group: Baskets per group (m).
        within: Decay from basket to basket inside a group (r_b).
        between: Decay from group to group (r_g).
        neighbours: k.
        own: Weight of the customer's own vector (alpha).
    """

    group: int = 7
    within: float = 1.0
    between: float = 0.8
    neighbours: int = 100
    own: float = 0.8


def tifu_vectors(purchases: Purchases, settings: TifuSettings = TifuSettings()) -> sp.csr_matrix:
    """Repeat-purchase vectors of TIFU-kNN (Hu et al., SIGIR 2020), float64[C, N].

    A customer's baskets are cut into groups of ``group`` from the newest backwards; inside a group the basket
    j places before its end weighs ``within ** j``, the group g places before the last ``between ** g``;
    both levels are averaged.
    """
    basket = purchases.basket
    count = int(basket.max(initial=-1)) + 1
    owner = np.zeros(count, np.int64)
    owner[basket] = purchases.customer
    last = np.searchsorted(owner, owner, side="right") - 1
    back = (last - np.arange(count))[basket]
    baskets = np.bincount(owner, minlength=purchases.customers)[purchases.customer]
    groups = -(-baskets // settings.group)
    place = back // settings.group
    size = np.where(place == groups - 1, baskets - place * settings.group, settings.group)
    weights = settings.within ** (back % settings.group) / size * settings.between**place / groups
    return sp.csr_matrix(
        (weights, (purchases.customer, purchases.item)), shape=(purchases.customers, purchases.items)
    )


def tifu_knn(
    everybody: sp.csr_matrix, own: sp.csr_matrix, customers: Ints, settings: TifuSettings = TifuSettings()
) -> sp.csr_matrix:
    """Own vector mixed with the mean of the nearest customers' (Euclidean), float64[R, N]."""
    squares = np.asarray(everybody.multiply(everybody).sum(axis=1)).ravel()
    wanted = _rows(own, customers)
    parts = []
    for part in _parts(len(customers), BATCH):
        block = wanted[part]
        distance = squares[None, :] - 2 * (block @ everybody.T).toarray()
        known = customers[part]
        distance[np.flatnonzero(known >= 0), known[known >= 0]] = np.inf
        k = min(settings.neighbours, distance.shape[1])
        near = np.argpartition(distance, k - 1, axis=1)[:, :k]
        pick = sp.csr_matrix(
            (np.full(near.size, 1 / k), (np.repeat(np.arange(len(near)), k), near.ravel())),
            shape=(len(near), everybody.shape[0]),
        )
        parts.append(settings.own * block + (1 - settings.own) * (pick @ everybody))
    return sp.vstack(parts).tocsr()


def _answers(scores: sp.csr_matrix, rows: Ints, popularity: Floats, k: int) -> Ints:
    """Best k by score, ties and empty places by recent popularity."""
    popular = np.argsort(-popularity, kind="stable")[: 2 * k]
    answers = np.full((len(rows), k), -1, np.int64)
    for place, row in enumerate(rows.tolist()):
        part = slice(scores.indptr[row], scores.indptr[row + 1]) if row >= 0 else slice(0, 0)
        items, values = scores.indices[part], scores.data[part]
        best = items[np.lexsort((items, -popularity[items], -values))[:k]]
        if len(best) < k:
            best = np.concatenate([best, popular[~np.isin(popular, best)]])[:k]
        answers[place, : len(best)] = best
    return answers


def _rows(matrix: sp.csr_matrix, rows: Ints) -> sp.csr_matrix:
    """Rows of a matrix; -1 gives an empty row."""
    empty = sp.csr_matrix((1, matrix.shape[1]), dtype=matrix.dtype)
    return sp.vstack([matrix, empty]).tocsr()[np.where(rows >= 0, rows, matrix.shape[0])]


def _best(matrix: sp.csr_matrix, k: int) -> sp.csr_matrix:
    """Only the k largest values of each row."""
    rows = matrix.tocsr()
    sizes = np.diff(rows.indptr)
    owner = np.repeat(np.arange(rows.shape[0]), sizes)
    order = np.lexsort((rows.indices, -rows.data, owner))
    position = np.arange(len(order)) - rows.indptr[:-1][owner]
    keep = order[position < k]
    return sp.csr_matrix((rows.data[keep], (owner[keep], rows.indices[keep])), shape=rows.shape)


def _parts(size: int, step: int) -> Iterator[slice]:
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))
