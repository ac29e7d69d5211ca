"""The index as it is built and as it is searched: against brute force, with filters, with cells."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from serving.engine.items import TableError
from serving.vision.index import Index, Wish
from training.visual import index as building
from training.visual.index import Product, build, find_cells

DIM = 32


class _Items:
    """Stands in for the release's items: product ``p<n>`` is item n."""

    def __init__(self, count: int) -> None:
        self.size = count

    def indices(self, ids: list[str]) -> npt.NDArray[np.int32]:
        return np.array([int(name[1:]) if name.startswith("p") else -1 for name in ids], np.int32)


def clustered(count: int, seed: int) -> npt.NDArray[np.float32]:
    middles = np.random.default_rng(0).standard_normal((40, DIM))
    rng = np.random.default_rng(seed)
    rows = middles[rng.integers(0, 40, count)] + 0.5 * rng.standard_normal((count, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def products(count: int, shards: tuple[str, ...] = ("top", "bag")) -> list[Product]:
    return [
        Product(
            key=f"p{n}", shard=shards[n % len(shards)], type="tee", colour=("red", "blue", "")[n % 3],
            price=float(n % 100), in_stock=n % 7 != 0, answers=(f"p{n}",),
            sizes={} if n % 4 == 3 else {"S": n % 2 == 0, "M": True},
        )
        for n in range(count)
    ]  # fmt: skip


def opened(built: building.Built, count: int) -> Index:
    return Index(built.arrays, "a" * 64, DIM, _Items(count))  # type: ignore[arg-type]


def every(count: int, **wish: Any) -> Wish:
    return Wish(items=np.ones(count, bool), **{"in_stock": False, **wish})


def brute(index: Index, query: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_], k: int) -> set[str]:
    similar = np.where(mask, index.vectors @ query, -np.inf)
    return {index.products[row] for row in np.argsort(-similar, kind="stable")[:k] if mask[row]}


def test_rows_lie_by_shard_and_carry_what_they_were_given() -> None:
    built = build(products(60), clustered(60, 0), "a" * 64)
    index = opened(built, 60)
    assert index.rows_in("top") == index.rows_in("bag") == 30
    for row, name in enumerate(index.products):
        number = int(name[1:])
        assert index.shards[index.shard[row]] == ("top", "bag")[number % 2]
        colour = int(index.colour[row])
        assert ("" if colour < 0 else index.colours[colour]) == ("red", "blue", "")[number % 3]
        assert index.price[row] == number % 100
        assert built.order[row] == number
        assert index.sizes.offered(row) == {0: ["S", "M"], 1: ["M"], 2: ["S", "M"], 3: []}[number % 4]
    assert index.sizes.groups() == [["S", "M"]]
    assert built.settings.cells == {}


def test_every_product_finds_itself_first() -> None:
    index = opened(build(products(200), clustered(200, 1), "a" * 64), 200)
    allowed = index.allowed(every(200))
    for name in ("top", "bag"):
        mine = [row for row in range(200) if index.shards[index.shard[row]] == name]
        found = index.search(index.vectors[mine], name, allowed, 1)
        assert [int(rows[0]) for rows, _ in found] == mine


@pytest.fixture(scope="module")
def large() -> tuple[Index, building.Built]:
    count = 12_000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "ROWS_PER_CELL", 40)
        built = build(
            products(count, ("top", "top", "bag")), clustered(count, 2), "a" * 64, exact_limit=5_000
        )
    return opened(built, count), built


def test_a_large_shard_has_cells_that_find_what_exact_search_finds(
    large: tuple[Index, building.Built],
) -> None:
    index, built = large
    assert list(built.settings.cells) == ["top"]
    assert built.recalls["top"] >= building.RECALL
    allowed = index.allowed(every(index.size))
    asked = clustered(60, 3)
    hits = [
        len(
            {index.products[row] for row in found.tolist()}
            & brute(index, query, allowed & _of(index, "top"), 10)
        )
        for query, (found, _) in zip(asked, index.search(asked, "top", allowed, 10), strict=True)
    ]
    assert np.mean(hits) / 10 >= 0.95
    looked_at = (
        built.settings.cells["top"] / (built.arrays["cell_shard"] == building.CLASSES.index("top")).sum()
    )
    assert looked_at < building.MOST_PROBES


def _of(index: Index, shard: str) -> npt.NDArray[np.bool_]:
    mask: npt.NDArray[np.bool_] = index.shard == index.shards.index(shard)
    return mask


@pytest.mark.parametrize(
    "wish", [{"colours": ("red",)}, {"in_stock": True}, {"price_max": 4.0}, {"price_max": 0.0}]
)
def test_filters_come_before_the_top_k_also_in_cells(
    large: tuple[Index, building.Built], wish: dict[str, Any]
) -> None:
    index, _ = large
    allowed = index.allowed(every(index.size, **wish))
    asked = clustered(40, 4)
    hits = []
    for shard in ("top", ""):
        mask = allowed & _of(index, "top") if shard else allowed
        for query, (rows, similar) in zip(asked, index.search(asked, shard, allowed, 10), strict=True):
            assert len(rows) == 10
            assert mask[rows].all()
            assert np.all(np.diff(similar) <= 0)
            hits.append(len({index.products[row] for row in rows.tolist()} & brute(index, query, mask, 10)))
    assert np.mean(hits) / 10 >= 0.95


def test_the_number_of_cells_is_what_the_wanted_recall_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "ROWS_PER_CELL", 40)
    vectors = clustered(8_000, 5)
    few, many = find_cells(vectors, recall=0.7), find_cells(vectors, recall=0.999)
    assert building.LEAST_PROBES <= few.probes < many.probes
    assert few.recall >= 0.7
    assert many.recall >= 0.999


def test_vectors_without_neighbourhoods_are_searched_exactly() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((4_000, DIM)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    told: list[str] = []
    built = build(products(4_000, ("top",)), rows, "a" * 64, exact_limit=1_000, progress=told.append)
    assert built.settings.cells == {}
    assert "exactly" in told[-1]


def test_an_index_of_another_embedder_is_refused() -> None:
    built = build(products(10), clustered(10, 6), "b" * 64)
    with pytest.raises(TableError, match="made by embedder"):
        opened(built, 10)


@pytest.mark.parametrize("spoil", ["gap", "outside", "missing"])
def test_cells_that_do_not_cover_their_shard_are_refused(
    large: tuple[Index, building.Built], spoil: str
) -> None:
    arrays = dict(large[1].arrays)
    if spoil == "missing":
        del arrays["cell_rows"]
    else:
        rows = arrays["cell_rows"].copy()
        rows[-1, 1] += 10**6 if spoil == "outside" else 0
        rows[3, 0] += 1 if spoil == "gap" else 0
        arrays["cell_rows"] = rows
    with pytest.raises(TableError, match="cell"):
        opened(types.SimpleNamespace(arrays=arrays), 12_000)  # type: ignore[arg-type]


def test_what_cannot_be_indexed_is_named() -> None:
    with pytest.raises(ValueError, match="twice"):
        build([*products(2), *products(1)], clustered(3, 0), "a" * 64)
    with pytest.raises(ValueError, match="length 1"):
        build(products(3), clustered(3, 0) * 2, "a" * 64)
    with pytest.raises(ValueError, match="shard 'hat' is unknown"):
        build(products(3, ("hat",)), clustered(3, 0), "a" * 64)
