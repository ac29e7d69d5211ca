"""The parts of seeing on their own: boxes, search, order, words; each against a plain oracle."""

from __future__ import annotations

import io
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from contracts.events import ACTIONS
from serving.engine.items import ItemTable
from serving.profiles.history import History, make_history, size_key
from serving.vision import boxes
from serving.vision.complete import complete, price_level
from serving.vision.decode import decode
from serving.vision.index import Index, Wish
from serving.vision.models import Spent
from serving.vision.personal import BAND, order
from serving.vision.seek import NAMED, Seen, blend, one_per_place
from serving.vision.sizes import Sizes
from serving.vision.words import Lexicon, understand
from tests.integration.serving import seeing, synthetic
from tests.integration.serving.synthetic import item_arrays
from tests.unit.serving.indexed import ARRAYS, EMBEDDER, EVERYTHING, INDEX, ITEMS
from training.visual import decode as training_decode


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (9, 9, 3), np.uint8).astype(np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [(900, 600), (600, 900), (64, 64), (700, 40), (31, 500)])
def test_what_is_found_in_the_square_is_where_it_is_in_the_photo(size: tuple[int, int]) -> None:
    image = photo(*size)
    square, filled = boxes.letterboxed(image, 384)
    expected, _ = training_decode.letterbox(image, 384)
    assert np.array_equal(square, expected)
    wanted = np.array([[0.25, 0.5, 0.75, 1.0]], np.float32)
    inside = wanted * np.array([*filled, *filled], np.float32)
    (found,) = boxes.detections(
        inside, np.array([0.9], np.float32), np.array([0]), ["a"], filled, 0.5, 0.5, 10
    )
    assert np.allclose(found.box, wanted[0], atol=1e-4)


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("letterbox", [False, True])
def test_crops_are_what_training_crops(margin: float, letterbox: bool) -> None:
    image = photo(900, 600)
    for box in [(0.1, 0.2, 0.5, 0.9), (0.0, 0.0, 1.0, 1.0), (0.9, 0.9, 1.0, 1.0), (0.3, 0.3, 0.31, 0.32)]:
        mine = boxes.cut(image, box, 384, margin, letterbox)
        assert mine.shape == (384, 384, 3)
        assert np.array_equal(mine, training_decode.crop(image, box, 384, margin, letterbox))


def test_a_large_photo_is_seen_as_its_smaller_self() -> None:
    large, small = photo(3000, 2000), photo(900, 600)
    for one, other in (
        (boxes.letterboxed(large, 224)[0], boxes.letterboxed(small, 224)[0]),
        (
            boxes.cut(large, (0.1, 0.1, 0.9, 0.9), 224, 0.05, False),
            boxes.cut(small, (0.1, 0.1, 0.9, 0.9), 224, 0.05, False),
        ),
    ):
        assert np.abs(one.astype(int) - other).max() <= 3


@pytest.mark.parametrize(
    ("kind", "mode"),
    [*(("JPEG", mode) for mode in ("RGB", "L", "CMYK")),
     *((kind, mode) for kind in ("PNG", "WEBP", "GIF") for mode in ("RGB", "L", "P", "RGBA"))],
)  # fmt: skip
def test_the_server_decodes_as_training_does(kind: str, mode: str) -> None:
    image = photo(640, 480).convert(mode)
    if mode == "RGBA":
        image.putalpha(photo(640, 480, 1).convert("L"))
    turned = Image.Exif()
    turned[0x0112] = 8
    notes = {"exif": turned} if kind in ("JPEG", "PNG", "WEBP") else {}
    content = seeing.encoded(image, kind, **notes)
    for side in (0, 200):
        mine = decode(content, side)
        assert np.array_equal(mine.pixels(), np.asarray(training_decode.decode(content, side)))
        assert (mine.width, mine.height) == ((480, 640) if notes else (640, 480))
        assert mine.image.info == {}


def test_the_camera_s_notes_end_at_decoding() -> None:
    notes = Image.Exif()
    notes[0x010F] = "Secret camera"
    notes[0x8825] = {1: "N", 2: (48.0, 8.0, 0.0)}
    decoded = decode(seeing.encoded(photo(300, 200), exif=notes, comment=b"Secret place"))
    again = seeing.encoded(decoded.image)
    assert b"Secret" not in again
    assert dict(Image.open(io.BytesIO(again)).getexif()) == {}


@given(st.integers(0, 10_000), st.floats(0.05, 0.95), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_doubles_are_suppressed_as_by_hand(seed: int, overlap: float, most: int) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 0.7, (12, 2))
    found = np.concatenate([corners, corners + rng.uniform(0.02, 0.3, (12, 2))], 1).astype(np.float32)
    scores = rng.permutation(12).astype(np.float32) / 12
    classes = rng.integers(0, 3, 12)
    got = boxes.detections(found, scores, classes, ["a", "b", "c"], (1.0, 1.0), 0.2, overlap, most)

    def area(box: Any) -> float:
        return max(0.0, float(box[2] - box[0])) * max(0.0, float(box[3] - box[1]))

    kept: list[int] = []
    for place in sorted(range(12), key=lambda p: -scores[p]):
        if scores[place] < 0.2 or len(kept) == most:
            continue
        a = found[place]
        for other in kept:
            b = found[other]
            inner = area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
            if classes[other] == classes[place] and inner / (area(a) + area(b) - inner) > overlap:
                break
        else:
            kept.append(place)
    assert [d.label for d in got] == ["abc"[classes[p]] for p in kept]
    assert np.allclose([d.confidence for d in got], scores[kept])


def test_broken_numbers_are_no_detections() -> None:
    found = np.array([[0, 0, 1, 1], [np.nan, 0, 1, 1], [0.5, 0.5, 0.4, 0.4], [-3, -3, 9, 9]], np.float32)
    scores = np.array([np.nan, 0.9, 0.9, 0.9], np.float32)
    got = boxes.detections(found, scores, np.array([0, 0, 0, 7]), ["a"], (1.0, 1.0), 0.3, 0.5, 9)
    assert got == []
    (whole,) = boxes.detections(found, scores, np.array([0, 0, 0, 0]), ["a"], (1.0, 1.0), 0.3, 0.5, 9)
    assert whole.box == (0.0, 0.0, 1.0, 1.0)


@given(st.integers(0, 10_000), st.integers(1, 40), st.floats(0.01, 0.5))
@settings(max_examples=100, deadline=None)
def test_taste_never_lifts_what_looks_different(seed: int, size: int, band: float) -> None:
    rng = np.random.default_rng(seed)
    similar = np.sort(rng.uniform(0, 1, size).astype(np.float32))[::-1]
    may_rise = rng.random(size) < 0.6
    found = order(similar, rng.normal(size=size).astype(np.float32), may_rise, band)
    places = found.places
    assert sorted(places.tolist()) == list(range(size))
    within = similar >= similar[0] - band
    assert within[places].tolist() == sorted(within[places].tolist(), reverse=True)
    for rank, place in enumerate(places.tolist()):
        if not may_rise[place]:  # Nothing that was more alike is behind it.
            assert all(other in places[:rank] for other in range(place))
        ahead = places[:rank][places[:rank] > place]
        assert all(similar[place] - similar[other] <= 0.5 * band + 1e-6 for other in ahead.tolist())
    assert np.all(np.diff(found.scores) <= 1e-12)
    assert order(similar).places.tolist() == list(range(size))
    assert BAND > 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("red dress under 50", ("red dress", None, 50, ("red",), (), ())),
        ("Dress below €49.90, black", ("Dress , black", None, 49.9, ("black",), (), ())),
        ("boots between 40 and 120 euros", ("boots", 40, 120, (), (), ())),
        ("boots from 120 to 40", ("boots", 40, 120, (), (), ())),
        ("more than 30 dollars shoes", ("shoes", 30, None, (), (), ())),
        ("no more than 30", ("no more than 30", None, 30, (), (), ())),
        ("shirt without stripes or dots", ("shirt", None, None, (), (), ("stripes", "dots"))),
        ("shirt, not red and not blue", ("shirt, and", None, None, (), ("red", "blue"), ())),
        ("bag without any leather under 80", ("bag", None, 80, (), (), ("leather",))),
        ("gray violet scarf", ("gray violet scarf", None, None, ("purple",), (), ())),
        ("redwood notebook", ("redwood notebook", None, None, (), (), ())),
        ("under 20", ("under 20", None, 20, (), (), ())),
        ("size 38", ("size 38", None, None, (), (), ())),
    ],
)  # fmt: skip
def test_words_are_read_as_people_mean_them(text: str, expected: Any) -> None:
    meant = understand(text, list(seeing.COLOURS))
    got = (meant.words, meant.price_min, meant.price_max, meant.colours, meant.not_colours, meant.without)
    assert got == expected


@given(st.text(max_size=512))
@settings(max_examples=150, deadline=1000)
def test_any_words_can_be_read(text: str) -> None:
    meant = understand(text, list(seeing.COLOURS))
    assert meant.words == meant.words.strip()


@pytest.mark.parametrize(
    "piece", ["without a and ", "not ", "a and ", "1", "no a, ", "between 1 and ", "- ", "aand"]
)
def test_no_words_take_long_to_read(piece: str) -> None:
    started = time.perf_counter()
    understand((piece * 512)[:512], list(seeing.COLOURS))
    assert time.perf_counter() - started < 0.5


def test_a_word_is_found_in_its_forms() -> None:
    arrays = item_arrays()
    arrays["name"] = arrays["name"].astype("U40")
    arrays["name"][:4] = ["Striped tee", "Stripe shirt", "Plain tee", "Dotted dress"]
    lexicon = Lexicon(ItemTable(arrays))
    assert np.flatnonzero(lexicon.bearing("stripes")).tolist() == [0, 1]
    assert np.flatnonzero(lexicon.bearing("dots")).tolist() == [3]
    assert not lexicon.bearing("velvet").any()


def test_where_a_box_has_two_classes_the_more_alike_goods_decide() -> None:
    def item(label: str, left: float, best: float) -> Seen:
        found = boxes.Detection((left, 0.1, left + 0.3, 0.5), label, 0.5)
        rows = np.arange(1 if best > 0 else 0)
        return Seen(found, {}, np.zeros(3, np.float32), label, rows, np.full(len(rows), best, np.float32))

    top, outer, bag, empty = (
        item("top", 0.5, 0.55),
        item("outer", 0.51, 0.87),
        item("bag", 0.1, 0.3),
        item("skirt", 0.1, 0),
    )
    assert [one.found.label for one in one_per_place([top, bag, outer, empty])] == ["bag", "outer"]
    assert one_per_place([]) == []
    near = item("top", 0.6, 0.2)  # Over the coat, and not in its place.
    assert [one.found.label for one in one_per_place([outer, near])] == ["outer", "top"]


def test_names_count_beside_what_is_seen() -> None:
    query = INDEX.vectors[:1]
    allowed = INDEX.allowed(Wish(items=EVERYTHING, in_stock=False))
    borne = np.zeros(INDEX.size, np.float32)
    far = int(np.argmin(INDEX.vectors @ query[0]))
    borne[far] = 1.0
    rows, scores = blend(INDEX, query, allowed, borne, INDEX.size)
    expected = INDEX.vectors @ query[0] + NAMED * borne
    assert np.allclose(scores, np.sort(expected)[::-1], atol=1e-6)
    assert far in blend(INDEX, query, allowed, borne, 5)[0] or expected[far] < np.sort(expected)[-5]
    assert np.array_equal(rows[:1], [0])
    plain = blend(INDEX, query, allowed, np.zeros(INDEX.size, np.float32), 7)
    assert np.array_equal(plain[0], INDEX.search(query, "", allowed, 7)[0][0])
    lexicon = Lexicon(ITEMS)
    shares = lexicon.shares("Product 7 of unheard brilliance")
    assert shares.max() == 1.0
    assert shares[ITEMS.index["p0007"]] == 1.0
    assert (INDEX.of_rows(shares) <= 1.0).all()


def test_a_price_level_is_believed_after_three_purchases() -> None:
    from serving.profiles.history import make_history
    from tests.integration.serving.synthetic import PURCHASE

    rows = [0, 40, 80, 120]
    items = [ITEMS.index[INDEX.products[row]] for row in rows]
    usual = [INDEX.usual_price(int(INDEX.shard[row])) for row in rows]
    paid = [2 * price for price in usual]
    for size, expected in ((2, None), (3, 2.0), (4, 2.0)):
        history = make_history(
            list(range(size)),
            items[:size],
            [PURCHASE] * size,
            [0] * size,
            [1] * size,
            [1.0] * size,
            paid[:size],
        )
        level = price_level(INDEX, history, INDEX.row_of_item)
        assert level is None if expected is None else level == pytest.approx(expected, rel=1e-5)


def wardrobe(*sizes: str, action: int | None = None) -> History:
    """Pieces in these sizes, bought one after another."""
    count = len(sizes)
    actions = [synthetic.PURCHASE if action is None else action] * count
    return make_history(range(count), [0] * count, actions, [0] * count, size=[size_key(s) for s in sizes])


@pytest.mark.parametrize(
    ("bought", "expected"),
    [
        ((), []),
        (("M",), []),  # It may have been a gift.
        (("M", "M"), ["M"]),
        (("S", "S", "M", "M"), ["M"]),  # As often, and of late.
        (("S", "M", "M", "S", "S"), ["S"]),
        (("M",) * 8 + ("L",) * 9, ["L"]),  # The latest ten.
        (("M", "41", "M", "40", "41"), ["41", "M"]),
        (("one size", "one size", ""), []),  # No such size here.
    ],
)
def test_the_usual_size_is_what_is_bought_most_of_late(bought: tuple[str, ...], expected: list[str]) -> None:
    assert INDEX.sizes.usual(wardrobe(*bought)) == expected


def test_only_what_was_bought_tells_a_size() -> None:
    assert INDEX.sizes.usual(wardrobe("M", "M", action=ACTIONS.index("view"))) == []
    lone = Sizes(["one size"], np.full((3, 1), 2, np.int8))
    assert lone.usual(wardrobe("one size", "one size")) == []


@pytest.mark.parametrize("level", [None, 0.5, 1.0, 2.0, 50.0])
def test_looks_stay_in_the_shopper_s_price_band(level: float | None) -> None:
    from contracts.visual import OutfitSettings
    from serving.engine.sessions import Session
    from serving.vision.models import Outfit

    outfit = Outfit(
        Session("outfit", seeing.outfit_graph().SerializeToString()),
        OutfitSettings(slots=seeing.SLOTS, dim=seeing.POINT),
    )

    class Models:
        index = INDEX

    Models.outfit = outfit  # type: ignore[attr-defined]
    start = INDEX.products.index("p0005")
    parts, _ = complete(Models, [start], Wish(items=EVERYTHING), 20, 4, level, Spent())  # type: ignore[arg-type]
    assert {part.slot for part in parts} == {"footwear", "bag", "pants"}
    fitted, _ = complete(Models, [start], Wish(items=EVERYTHING), 20, 4, level, Spent(), ["M", "41"])  # type: ignore[arg-type]
    for part in fitted:
        told = [INDEX.sizes.offered(row) for row in part.rows.tolist()]
        assert not part.any_size
        assert all({"M", "41"} & set(sizes) for sizes in told if sizes)
    none_left = Index(
        ARRAYS | {"sized": np.where(ARRAYS["sized"] > 0, 1, 0).astype(np.int8)}, EMBEDDER, seeing.DIM, ITEMS
    )
    Models.index = none_left
    relaxed, _ = complete(Models, [start], Wish(items=EVERYTHING), 20, 4, level, Spent(), ["M", "41"])  # type: ignore[arg-type]
    assert {part.slot for part in relaxed if part.any_size} == {"footwear", "bag", "pants"}
    for part in parts:
        usual = INDEX.usual_price(INDEX.shards.index(part.slot))
        prices = INDEX.price[part.rows]
        assert INDEX.in_stock[part.rows].all()
        assert part.relaxed == (level == 50.0)
        if level is not None and not part.relaxed:
            assert prices.min() >= 0.5 * level * usual - 1e-3
            assert prices.max() <= 2.0 * level * usual + 1e-3
