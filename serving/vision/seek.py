"""From pixels, words or a product to the rows of the index that answer: the work of one thread.

Belongs here: the order of the steps. Does not belong here: the steps, HTTP, the shopper's taste (`personal.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from contracts.visual import SAME_PICTURE, VOTERS, WHOLE, agree
from serving.engine.items import Mask
from serving.vision.boxes import Box, Detection, around, at_point, iou
from serving.vision.decode import Photo, decode
from serving.vision.index import Found, Index, Sweep, Wish, best_rows
from serving.vision.models import Spent, Trait, Visual

SAME_PLACE = 0.75
"""Intersection over union above which two boxes are of one item, whatever their classes."""

NAMED = 0.2
"""What bearing all words of a query counts, in cosine."""

MOST_SAME = 8
"""Rows that may show the very same picture."""

SHARD_VOTERS = 10
"""Nearest rows that vote for the shard of an item whose class nobody told."""


@dataclasses.dataclass(frozen=True)
class Aim:
    """What of a photo is wanted; nothing set: all that is found.

    Attributes:
        box: This box.
        point: The item at this point, as shares of width and height.
    """

    box: Box | None = None
    point: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """One item, and what looks like it.

    Attributes:
        found: Where it is in the photo.
        traits: What the attribute heads say.
        vector: float32[d].
        shard: Shard that was searched, empty for all.
        rows: int64[K], best first.
        similar: float32[K].
    """

    found: Detection
    traits: dict[str, Trait]
    vector: NDArray[np.float32]
    shard: str
    rows: NDArray[np.int64]
    similar: NDArray[np.float32]


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """What was made of a photo.

    Attributes:
        width: Of the upright photo.
        height: Likewise.
        seen: Its items, the surest first.
        notes: Stated deviations.
    """

    width: int
    height: int
    seen: list[Seen]
    notes: list[str]


def look_at(visual: Visual, content: bytes, aim: Aim, wish: Wish, count: int, spent: Spent) -> View:
    """Decode a photo, find its items, and search for each.

    Args:
        visual: The models.
        content: The file.
        aim: What of it is wanted.
        wish: What results must be.
        count: Rows per item.
        spent: Where the time is counted.

    Raises:
        PictureError: The photo cannot be used.
        GraphError: A graph failed.
    """
    with spent.step("decode"):
        photo = decode(content)
    notes: list[str] = []
    found = _aimed(visual, photo, aim, spent, notes)
    if not found:
        return View(photo.width, photo.height, [], notes)
    vectors, traits = visual.embedder.embed(photo.image, [one.box for one in found], spent)
    with spent.step("search"):
        allowed = visual.index.allowed(wish)
        shards = [
            _shard(visual.index, one, vector, allowed) for one, vector in zip(found, vectors, strict=True)
        ]
        told_at = visual.embedder.settings.told_at
        answers = find_each(visual.index, vectors, shards, allowed, count, told_at)
    seen = [
        Seen(one, told, vector, shard, *answer)
        for one, told, vector, shard, answer in zip(found, traits, vectors, shards, answers, strict=True)
    ]
    return View(photo.width, photo.height, one_per_place(seen), notes)


def one_per_place(seen: Sequence[Seen]) -> list[Seen]:
    """Items without those that another class claims too: where a box has two classes, the shop's own goods decide.

    A blazer that is found as top and as outer wear is shown as what more alike products were found of.
    """
    best = [float(one.similar[0]) if len(one.similar) else -1.0 for one in seen]
    kept: list[int] = []
    for place in sorted(range(len(seen)), key=lambda place: (-best[place], place)):
        box = np.array(seen[place].found.box, np.float32)
        others = np.array([seen[other].found.box for other in kept], np.float32).reshape(-1, 4)
        if float(iou(box, others).max(initial=0.0)) <= SAME_PLACE:
            kept.append(place)
    return [seen[place] for place in sorted(kept)]


def search_each(
    index: Index, vectors: NDArray[np.float32], shards: Sequence[str], allowed: Mask, count: int
) -> list[Found]:
    """Search for several vectors, each in its own shard; those of one shard read it once."""
    return _by_shard(shards, lambda shard, places: index.search(vectors[places], shard, allowed, count))


def _by_shard(shards: Sequence[str], search: Callable[[str, list[int]], list[Found]]) -> list[Found]:
    """Search each shard once, for all places that name it; answers in the order of the places."""
    answers: dict[int, Found] = {}
    for shard in dict.fromkeys(shards):
        places = [place for place, other in enumerate(shards) if other == shard]
        answers.update(zip(places, search(shard, places), strict=True))
    return [answers[place] for place in range(len(shards))]


def find_each(
    index: Index,
    vectors: NDArray[np.float32],
    shards: Sequence[str],
    allowed: Mask,
    count: int,
    told_at: tuple[int, int],
) -> list[Found]:
    """Search for several vectors, each in its own shard; rows of the very same picture come first.

    A row tells what the catalogue states of it, a photo what is believed: where they differ, other products would lie
    nearer to a catalogue picture than its own. So it is looked for by what is seen alone first; and the rows that look
    most alike say what the photo shows (`agree`) before it is looked for by everything.

    Args:
        index: The index.
        vectors: float32[B, d] of items of photos.
        shards: Shard of each, empty for all.
        allowed: bool[N].
        count: Rows per item.
        told_at: First and last (exclusive) number of a vector that tells attributes; equal for none.

    Returns:
        As `Index.search`; similarities fall.
    """
    if told_at[0] == told_at[1]:
        return search_each(index, vectors, shards, allowed, count)

    def search(shard: str, places: list[int]) -> list[Found]:
        sweep = index.sweep(shard, allowed)
        if sweep is None:
            return _find(index, vectors[places], shard, allowed, count, told_at)
        return _find_exactly(index, sweep, vectors[places], count, told_at)

    return _by_shard(shards, search)


def _find(
    index: Index,
    vectors: NDArray[np.float32],
    shard: str,
    allowed: Mask,
    count: int,
    told_at: tuple[int, int],
) -> list[Found]:
    """Two searches of a shard: by what is seen, then by everything."""
    seen = _seen(vectors, told_at)
    near = index.search(seen, shard, allowed, MOST_SAME)
    alike = [_alike(index, one, rows, told_at) for one, (rows, _) in zip(seen, near, strict=True)]
    found = index.search(_asked(index, vectors, alike, told_at), shard, allowed, count)
    return [_same_first(*pair) for pair in zip(found, alike, strict=True)]


def _find_exactly(
    index: Index, sweep: Sweep, vectors: NDArray[np.float32], count: int, told_at: tuple[int, int]
) -> list[Found]:
    """As `_find`, reading each row once: what is seen of it counts in both searches."""
    before, after = slice(0, told_at[0]), slice(told_at[1], vectors.shape[1])
    by_sight = sweep.dots(vectors, before) + sweep.dots(vectors, after)
    alike = [
        _alike(index, one, best_rows(sweep.rows, by_sight[:, place], MOST_SAME)[0], told_at)
        for place, one in enumerate(_seen(vectors, told_at))
    ]
    similar = by_sight + sweep.dots(_asked(index, vectors, alike, told_at), slice(*told_at))
    found = [best_rows(sweep.rows, similar[:, place], count) for place in range(len(vectors))]
    return [_same_first(*pair) for pair in zip(found, alike, strict=True)]


def _asked(
    index: Index, vectors: NDArray[np.float32], alike: Sequence[Found], told_at: tuple[int, int]
) -> NDArray[np.float32]:
    """Vectors that tell what the rows that look most alike are stated to be, where an index has them vote."""
    if not index.votes:
        return vectors
    asked, told = vectors.copy(), slice(*told_at)
    for one, (rows, likeness) in zip(asked, alike, strict=True):
        one[told] = agree(one[told], index.vectors[rows[:VOTERS], told], likeness[:VOTERS])
    return asked


def _seen(vectors: NDArray[np.float32], told_at: tuple[int, int]) -> NDArray[np.float32]:
    """Unit vectors of the same width with zeros where attributes are told."""
    seen = vectors.copy()
    seen[:, slice(*told_at)] = 0
    seen /= np.maximum(np.linalg.norm(seen, axis=1, keepdims=True), np.float32(1e-12))
    return seen


def _alike(
    index: Index, seen: NDArray[np.float32], rows: NDArray[np.int64], told_at: tuple[int, int]
) -> Found:
    """Some rows by how much of what is seen they share, the most alike first."""
    alike = _seen(index.vectors[rows], told_at) @ seen
    order = np.lexsort((rows, -alike))
    return rows[order], alike[order]


def _same_first(found: Found, alike: Found) -> Found:
    """Rows that look so alike that they are of the very same picture, then what was found."""
    same = alike[1] >= SAME_PICTURE
    if not same.any():
        return found
    rows, others = alike[0][same], ~np.isin(found[0], alike[0][same])
    likeness = np.maximum(alike[1][same], found[1].max(initial=0.0))
    count = len(found[0])
    return (
        np.concatenate([rows, found[0][others]])[:count],
        np.concatenate([likeness, found[1][others]])[:count],
    )


def blend(
    index: Index, vectors: NDArray[np.float32], allowed: Mask, borne: NDArray[np.float32], count: int
) -> Found:
    """Rows for words: by what they look like, and by how many of the words their products bear.

    A vector of words knows no brands and few rare words; the names do. Rows that bear the most words are looked
    for on their own, so that none is missed for lying far away.

    Args:
        index: The index.
        vectors: float32[1, d] of the words.
        allowed: bool[N].
        borne: float32[N], share of the words that each row's products bear.
        count: Rows wanted.

    Returns:
        Rows and cosine + `NAMED` x share, best first.
    """
    ((rows, _),) = index.search(vectors, "", allowed, count)
    most = float(borne[allowed].max(initial=0.0))
    if most > 0:
        ((named, _),) = index.search(vectors, "", allowed & (borne >= most), count)
        rows = np.union1d(rows, named)
    return best_rows(rows, index.vectors[rows] @ vectors[0] + NAMED * borne[rows], count)


def _aimed(visual: Visual, photo: Photo, aim: Aim, spent: Spent, notes: list[str]) -> list[Detection]:
    if aim.box is not None:
        return [Detection(aim.box, "", 1.0)]
    found = visual.detector.find(photo, spent)
    if aim.point is None:
        return found
    at = at_point(found, *aim.point)
    if at is None:
        notes.append("nothing_found_at_point")
        at = Detection(around(*aim.point, photo.width, photo.height), "", 0.0)
    return [at]


def _shard(index: Index, found: Detection, vector: NDArray[np.float32], allowed: Mask) -> str:
    """The shard that answers for an item: its class's, or where nobody told it, that of most of its nearest."""
    if found.label:
        return index.searched(found.label)
    ((rows, _),) = index.search(vector[None], "", allowed, SHARD_VOTERS)
    if not len(rows):
        return ""
    votes = np.bincount(index.shard[rows], minlength=len(index.shards))
    best = int(votes.argmax())
    name = index.shards[best]
    return name if 2 * int(votes[best]) > len(rows) and name != WHOLE else ""
