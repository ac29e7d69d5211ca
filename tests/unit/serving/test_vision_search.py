"""Search by looks: filters, sizes, what a catalogue states and votes; each against a plain oracle."""

from __future__ import annotations

import pathlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.visual import VOTERS, agree
from serving.engine.items import TableError
from serving.vision.cards import Cardmaker
from serving.vision.index import Index, Wish
from serving.vision.media import Media
from serving.vision.seek import find_each, search_each
from serving.vision.sizes import Sizes
from tests.integration.serving import seeing
from tests.unit.serving.indexed import ARRAYS, EMBEDDER, EVERYTHING, INDEX, ITEMS
from training.visual import telling


@given(
    st.integers(0, 1_000), st.sampled_from(["", *seeing.SHARDS[:5]]), st.integers(1, 200),
    st.floats(5, 110), st.booleans(), st.sampled_from([(), ("red",), ("red", "blue")]), st.floats(0, 1),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_search_is_what_a_plain_scan_finds(
    seed: int, shard: str, count: int, most: float, in_stock: bool, colours: Any, share: float
) -> None:
    rng = np.random.default_rng(seed)
    queries = rng.normal(size=(2, seeing.DIM)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    may = rng.random(ITEMS.size) < share
    wish = Wish(items=may, price_max=most, in_stock=in_stock, colours=colours, not_colours=("green",))
    allowed = INDEX.allowed(wish)
    expected = [
        row
        for row in range(INDEX.size)
        if may[ITEMS.index[INDEX.products[row]]]
        and INDEX.price[row] <= most
        and (INDEX.in_stock[row] or not in_stock)
        and (not colours or INDEX.colours[INDEX.colour[row]] in colours)
        and INDEX.colours[INDEX.colour[row]] != "green"
    ]
    assert np.flatnonzero(allowed).tolist() == expected
    inside = [row for row in expected if not shard or INDEX.shards[INDEX.shard[row]] == shard]
    for query, (rows, similar) in zip(queries, INDEX.search(queries, shard, allowed, count), strict=True):
        scores = INDEX.vectors[inside] @ query
        best = sorted(zip(inside, scores.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))[:count]
        assert len(rows) == len(best)
        assert set(rows.tolist()) <= set(inside)
        assert np.allclose(similar, [score for _, score in best], atol=1e-6)


@pytest.mark.parametrize("wanted", [("M",), ("41",), ("S", "M"), ("M", "41"), ("XXL",), ("XXL", "M")])
def test_sizes_of_a_kind_leave_other_kinds_alone(wanted: tuple[str, ...]) -> None:
    kinds = (("S", "M", "L"), ("40", "41"))
    allowed = INDEX.allowed(Wish(items=EVERYTHING, in_stock=False, sizes=wanted))
    for row in range(INDEX.size):
        sized = dict(zip(INDEX.sizes.names, ARRAYS["sized"][row].tolist(), strict=True))
        asked = [kind for kind in kinds if set(kind) & set(wanted) and any(sized[size] for size in kind)]
        fits = all(any(sized[size] == 2 for size in kind if size in wanted) for kind in asked)
        assert bool(allowed[row]) == fits


def test_sizes_that_come_together_are_of_one_kind() -> None:
    # 36 and 40 never meet in one product, but both meet 38; one size alone is no choice.
    sized = np.array([[1, 2, 0, 0], [0, 2, 2, 0], [0, 0, 0, 2]], np.int8)
    sizes = Sizes(["36", "38", "40", "one size"], sized)
    assert sizes.groups() == [["36", "38", "40"]]
    assert sizes.fitting(("36",)).tolist() == [False, False, True]
    assert sizes.fitting(("40",)).tolist() == [False, True, True]
    assert [sizes.offered(row) for row in range(3)] == [["38"], ["38", "40"], ["one size"]]


def test_a_release_without_sizes_serves_everybody_and_one_with_wrong_ones_nobody() -> None:
    plain = {name: values for name, values in ARRAYS.items() if name not in ("sizes", "sized")}
    index = Index(plain, EMBEDDER, seeing.DIM, ITEMS)
    assert index.sizes.groups() == []
    assert index.allowed(Wish(items=EVERYTHING, in_stock=False, sizes=("M",))).all()
    with pytest.raises(TableError, match="'sizes' is missing"):
        Index(plain | {"sized": ARRAYS["sized"]}, EMBEDDER, seeing.DIM, ITEMS)
    with pytest.raises(TableError, match="'sized' holds 3"):
        Index(ARRAYS | {"sized": ARRAYS["sized"] + 1}, EMBEDDER, seeing.DIM, ITEMS)


def test_unknown_prices_pass_no_price_filter() -> None:
    price = ARRAYS["price"].copy()
    price[::2] = np.nan
    index = Index(ARRAYS | {"price": price}, EMBEDDER, seeing.DIM, ITEMS)
    for wish in (Wish(items=EVERYTHING, price_max=1e6), Wish(items=EVERYTHING, price_min=0.0)):
        assert not np.isnan(index.price[index.allowed(wish)]).any()


def test_a_row_may_stand_for_many_products() -> None:
    """A grocer's pictures show types; each answers with the products of its type."""
    counts = np.arange(len(ARRAYS["product_id"])) % 3
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    answers = np.array([ITEMS.product_ids[place % ITEMS.size] for place in range(int(starts[-1]))])
    index = Index(ARRAYS | {"answers_from": starts, "answers": answers}, EMBEDDER, seeing.DIM, ITEMS)
    may = np.zeros(ITEMS.size, np.bool_)
    may[::7] = True
    allowed = index.allowed(Wish(items=may, in_stock=False))
    for row in range(index.size):
        own = index.answers(row)
        assert len(own) == counts[row]
        assert bool(allowed[row]) == bool(may[own].any())


def test_a_product_without_a_picture_shows_that_of_its_kind(tmp_path: pathlib.Path) -> None:
    keys = ARRAYS["product_id"].copy()
    keys[0] = "kind"
    index = Index(ARRAYS | {"product_id": keys}, EMBEDDER, seeing.DIM, ITEMS)
    first, second, unseen = int(index.answers(0)[0]), int(index.answers(1)[0]), ITEMS.size - 1
    for name in ("kind", ITEMS.product_ids[second]):
        (tmp_path / f"{name}.jpg").write_bytes(b"x")
    release = SimpleNamespace(engine=SimpleNamespace(items=ITEMS), visual=SimpleNamespace(index=index))
    cards = Cardmaker(release, Media(tmp_path))  # type: ignore[arg-type]
    told = [(card.image, card.image_shows) for card in map(cards.card, (first, second, unseen))]
    assert told == [
        ("/media/kind.jpg", "kind"), (f"/media/{ITEMS.product_ids[second]}.jpg", "product"), (None, None)
    ]  # fmt: skip


def test_a_picture_of_the_catalogue_finds_itself_first() -> None:
    allowed = INDEX.allowed(Wish(items=EVERYTHING, in_stock=False))
    for rows, _ in INDEX.search(INDEX.vectors, "", allowed, 1)[:40]:
        assert len(rows) == 1
    found = [int(rows[0]) for rows, _ in INDEX.search(INDEX.vectors, "", allowed, 1)]
    assert found == list(range(INDEX.size))


def test_the_very_same_picture_comes_first_whatever_it_is_stated_to_be() -> None:
    told_at, share, size = (40, seeing.DIM), 0.6, INDEX.size
    rng = np.random.default_rng(4)
    believed, otherwise = np.eye(8, dtype=np.float32)[:2]
    looks = rng.standard_normal((size, 40)).astype(np.float32)
    looks[7] = looks[3] + 0.01 * looks[7]  # The same picture in another encoding.
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    stated = np.tile(believed, (size, 1))
    stated[[3, 7]] = otherwise  # The catalogue says that both are something else.
    vectors = np.concatenate([np.sqrt(1 - share) * looks, np.sqrt(share) * stated], axis=1).astype(np.float32)
    index = Index(ARRAYS | {"vectors": vectors}, EMBEDDER, seeing.DIM, ITEMS)
    allowed = np.ones(size, np.bool_)
    photos = np.stack(
        [np.concatenate([np.sqrt(1 - share) * looks[row], np.sqrt(share) * believed]) for row in (3, 20)]
    ).astype(np.float32)
    (found, _), (usual, _) = search_each(index, photos, ["", ""], allowed, 10)
    assert not {3, 7} & set(found.tolist())
    (moved, likeness), (same, _) = find_each(index, photos, ["", ""], allowed, 10, told_at)
    assert moved.tolist() == [3, 7, *found[:8].tolist()]
    assert np.all(np.diff(likeness) <= 0)
    assert likeness[0] == pytest.approx(1.0, abs=1e-5)
    assert same.tolist() == usual.tolist()
    ((plain, _), _) = find_each(index, photos, ["", ""], allowed, 10, (0, 0))
    assert plain.tolist() == found.tolist()
    allowed[3] = False  # It may not be shown.
    assert find_each(index, photos, ["", ""], allowed, 10, told_at)[0][0].tolist()[0] == 7
    assert len(find_each(index, photos, ["", ""], ~allowed & False, 10, told_at)[0][0]) == 0


def test_what_looks_most_alike_says_what_a_photo_shows() -> None:
    """A photo is believed to show one type; the five rows nearest to what is seen are stated to be of another."""
    told_at, share, size = (40, seeing.DIM), 0.6, INDEX.size
    rng = np.random.default_rng(5)
    believed, stated_as = np.eye(8, dtype=np.float32)[:2]
    looks = rng.standard_normal((size, 40)).astype(np.float32)
    own = rng.standard_normal(40).astype(np.float32)
    near = np.arange(10, 10 + VOTERS)
    looks[near] = own + 0.4 * looks[near]
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    stated = np.where(np.isin(np.arange(size), [*near, 0, 1])[:, None], stated_as, believed)
    vectors = np.concatenate([np.sqrt(1 - share) * looks, np.sqrt(share) * stated], axis=1).astype(np.float32)
    shown = np.concatenate([np.sqrt(1 - share) * own / np.linalg.norm(own), np.sqrt(share) * believed])[None]
    shown = shown.astype(np.float32)
    allowed = np.ones(size, np.bool_)

    def found(votes: bool) -> tuple[list[int], np.ndarray]:
        index = Index(ARRAYS | {"vectors": vectors}, EMBEDDER, seeing.DIM, ITEMS, votes)
        ((rows, similar),) = find_each(index, shown.copy(), [""], allowed, 7, told_at)
        return rows.tolist(), similar

    rows, similar = found(votes=True)
    assert set(rows) == {*near.tolist(), 0, 1}, "then all of that type, whatever was believed"
    assert not {0, 1} & set(found(votes=False)[0])
    # Training asks the same when it judges an embedder.
    told = telling.asked(shown, vectors, told_at)
    assert np.linalg.norm(told[0, 40:]) == pytest.approx(np.sqrt(share), abs=1e-5)
    np.testing.assert_array_equal(told[0, :40], shown[0, :40])
    np.testing.assert_allclose(similar, vectors[rows] @ told[0], atol=1e-5)


@given(st.integers(0, 1_000), st.sampled_from([0.02, 0.4, 1.0]), st.booleans(), st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_one_reading_of_a_shard_finds_what_two_searches_find(
    seed: int, share: float, votes: bool, count: int
) -> None:
    """Shards that are searched exactly are read once; cut ones are searched twice, which is the oracle here."""
    told_at, rng = (16, 24), np.random.default_rng(seed)
    vectors = rng.normal(size=(INDEX.size, seeing.DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    photos = np.concatenate([vectors[:1], rng.normal(size=(3, seeing.DIM)).astype(np.float32)])
    photos /= np.linalg.norm(photos, axis=1, keepdims=True)
    index = Index(ARRAYS | {"vectors": vectors}, EMBEDDER, seeing.DIM, ITEMS, votes)
    shards = ["", index.shards[0], "", index.shards[1]]
    allowed = rng.random(index.size) < share
    once = find_each(index, photos, shards, allowed, count, told_at)
    index.sweep = lambda shard, allowed: None  # type: ignore[method-assign]
    twice = find_each(index, photos, shards, allowed, count, told_at)
    for (rows, similar), (others, alike) in zip(once, twice, strict=True):
        assert rows.tolist() == others.tolist()
        np.testing.assert_allclose(similar, alike, atol=1e-6)


def test_votes_count_by_nearness_beside_what_is_believed() -> None:
    believed, one, other = np.eye(3, dtype=np.float32)
    apart = 0.05
    told = agree(2 * believed, np.stack([2 * one, 2 * other]), np.array([0.9, 0.9 - apart], np.float32))
    second = np.exp(-1)
    wanted = np.array([0.5, 1 / (1 + second), second / (1 + second)])
    np.testing.assert_allclose(told, 2 * wanted / np.linalg.norm(wanted), rtol=1e-5)
    np.testing.assert_array_equal(agree(believed, np.zeros((0, 3), np.float32), np.zeros(0)), believed)
