"""The desk where photos, words and products are brought to: from a request to an answer and its record.

Decoding, models and search run on a bounded pool of threads; who asks, what the ranker thinks, and the
decision are settled on the event loop, as for every other answer.

Belongs here: the order of the steps of each kind of request, the record. Does not belong here: HTTP
(`serving/routes/vision.py`), the steps.
"""

from __future__ import annotations

import dataclasses
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np

from serving.answers import Answerer, NoReleaseError, Prepared, Question
from serving.decision_log import DecisionLog
from serving.engine.items import Filters
from serving.engine.sessions import GraphError
from serving.metrics import Metrics
from serving.releases.release import Release
from serving.routes.vision_types import ImageQuery, LookRequest, Shopper, TextQuery
from serving.vision.choose import Candidate, Entry, Group, Taste, choose, expand
from serving.vision.complete import complete, price_level
from serving.vision.index import Found, Wish
from serving.vision.lists import hotspot_list, part_list, photo_facts, seen_list, similar_list, words_list
from serving.vision.media import Media
from serving.vision.models import Spent, Visual
from serving.vision.pool import Pool
from serving.vision.record import Record, decided
from serving.vision.seek import Aim, View, blend, look_at
from serving.vision.words import Lexicon, Understood, understand

CANDIDATES = 64
"""Rows per list that are ordered for a shopper, at least."""

Result = TypeVar("Result")


class NoVisualError(RuntimeError):
    """The release lacks the models that the request needs."""


class UnknownError(RuntimeError):
    """A product or picture that the release does not know, or does not know by sight."""


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
    """An answer before it is written for the wire.

    Attributes:
        record: Decision and the release that made it.
        lists: Entries of each list, in the order of the decision's positions.
        subject: What the lists belong to.
        spent: Time by step.
    """

    record: Record
    lists: list[list[Entry]]
    subject: Any
    spent: Spent


class Desk:
    """Answers with the visual parts of the release that is live when a request is taken up.

    Args:
        release: The live release, or None.
        answerer: Knows who asks.
        log: Where decisions are recorded.
        metrics: Where they are counted.
        media: Pictures for pages.
        exploration: Probability that the last place of a list explores.
        workers: Photos looked at at the same time.
        waiting: Photos that may wait.
    """

    def __init__(
        self,
        release: Callable[[], Release | None],
        answerer: Answerer,
        log: DecisionLog,
        metrics: Metrics,
        media: Media,
        exploration: float,
        workers: int,
        waiting: int,
    ) -> None:
        self._release = release
        self._answerer = answerer
        self._log = log
        self._metrics = metrics
        self.media = media
        self._exploration = exploration
        self._rng = np.random.default_rng()
        self.pool = Pool(workers, waiting)
        self._lexicons: weakref.WeakKeyDictionary[Release, Lexicon] = weakref.WeakKeyDictionary()

    def close(self) -> None:
        """Finish what is being looked at."""
        self.pool.close()

    async def photo(self, content: bytes, aim: Aim, asked: ImageQuery, started_ns: int) -> Answer:
        """Everything in a photo, or one item of it, with what looks like it; the caller holds a place of the pool.

        Raises:
            NoReleaseError: Nothing is loaded.
            NoVisualError: The release cannot see.
            PictureError: The photo cannot be used.
            BusyError: The server is stopping.
            GraphError: A graph failed.
        """
        release, visual = self._visual()
        spent = Spent()
        looking = self.pool.start(
            lambda: look_at(visual, content, aim, self._wish(release, asked), _count(asked), spent)
        )
        # Who asks is found out while the photo is looked at.
        prepared = self._prepare(release, asked, started_ns)
        view: View = await looking
        groups = [seen_list(visual, seen) for seen in view.seen]
        facts = photo_facts(aim, view.seen, asked.remember)
        answer = self._answer(release, asked, prepared, groups, facts, view, spent, view.notes)
        self._count("image", answer)
        return answer

    async def words(self, asked: TextQuery, started_ns: int) -> tuple[Answer, Understood]:
        """What fits words.

        Raises:
            NoReleaseError: Nothing is loaded.
            NoVisualError: The release has no text tower.
            BusyError: Too much is waiting.
            GraphError: A graph failed.
        """
        release, visual = self._visual()
        if visual.text is None:
            raise NoVisualError(
                "this release has no text model: it can be searched by photo and by product only"
            )
        spent = Spent()
        meant = understand(asked.query, visual.index.colours)
        found, notes = await self._work(lambda: self._search_words(release, visual, asked, meant, spent))
        group = words_list(visual.index, found, meant)
        facts: dict[str, Any] = {"surface": "text", "query": asked.query}
        prepared = self._prepare(release, asked, started_ns)
        answer = self._answer(release, asked, prepared, [group], facts, meant, spent, notes)
        self._count("text", answer)
        return answer, meant

    async def similar(self, product_id: str, asked: Shopper, started_ns: int) -> Answer:
        """What looks like a product.

        Raises:
            NoReleaseError: Nothing is loaded.
            NoVisualError: The release cannot see.
            UnknownError: No such product, or none with a picture.
            BusyError: Too much is waiting.
        """
        release, visual = self._visual()
        row = self._row(release, visual, product_id)
        index, spent = visual.index, Spent()
        wish = self._wish(release, asked)
        own = release.engine.items.index[product_id]
        wish.items[own] = False

        shard = index.searched(index.shards[int(index.shard[row])])

        def search() -> Found:
            with spent.step("search"):
                return index.search(index.vectors[row][None], shard, index.allowed(wish), _count(asked))[0]

        found = await self._work(search)
        group = similar_list(index, found, row, release.engine.items.name[own] or product_id)
        facts: dict[str, Any] = {"surface": "similar", "product_id": product_id}
        prepared = self._prepare(release, asked, started_ns)
        answer = self._answer(release, asked, prepared, [group], facts, product_id, spent, [], {own})
        self._count("similar", answer)
        return answer

    async def complete(self, asked: LookRequest, started_ns: int) -> tuple[Answer, float]:
        """What completes a look.

        Raises:
            NoReleaseError: Nothing is loaded.
            NoVisualError: The release has no outfit model.
            UnknownError: A product is not known, or is no part of outfits.
            BusyError: Too much is waiting.
            GraphError: A graph failed.
        """
        release, visual = self._visual()
        if visual.outfit is None:
            raise NoVisualError("this release has no outfit model: it cannot complete looks")
        index, spent = visual.index, Spent()
        rows = [self._row(release, visual, product_id) for product_id in asked.product_ids]
        for product_id, row in zip(asked.product_ids, rows, strict=True):
            if int(index.slot[row]) == 0:
                raise UnknownError(
                    f"product '{product_id}' is no part of outfits; expected clothes or accessories"
                )
        prepared = self._prepare(release, asked, started_ns)
        level = price_level(index, prepared.query.history, index.row_of_item)
        wish = self._wish(release, asked)
        usual = [] if asked.sizes else index.sizes.usual(prepared.query.history)
        parts, together = await self._work(
            lambda: complete(visual, rows, wish, _count(asked), asked.parts, level, spent, usual)
        )
        name = release.engine.items.name[release.engine.items.index[asked.product_ids[0]]]

        def worn(row: int) -> str:
            return next((size for size in index.sizes.offered(row) if size in usual), "")

        groups = [part_list(part, name, level, worn) for part in parts]
        notes = [f"price_band_relaxed:{part.slot}" for part in parts if part.relaxed]
        notes += [f"usual_size_relaxed:{part.slot}" for part in parts if part.any_size and usual]
        facts = {
            "surface": "look", "product_ids": list(asked.product_ids), "parts": [part.slot for part in parts],
            "price_level": None if level is None else round(level, 3), "usual_sizes": usual,
        }  # fmt: skip
        answer = self._answer(release, asked, prepared, groups, facts, parts, spent, notes)
        self._count("look", answer)
        return answer, together

    def look(self, media_id: str, asked: Shopper, started_ns: int) -> Answer:
        """A picture of the retailer with its hotspots.

        Raises:
            NoReleaseError: Nothing is loaded.
            NoVisualError: The release has no looks.
            UnknownError: No such picture.
        """
        release, visual = self._visual()
        if visual.looks is None:
            raise NoVisualError("this release has no looks: no pictures of the shop were prepared")
        found = visual.looks.find(media_id)
        if found is None:
            raise UnknownError(f"no look of id '{media_id[:64]}' is known")
        wish = self._wish(release, asked)
        groups = [hotspot_list(visual.index, spot, wish) for spot in found.hotspots]
        spots = [{"box": spot.found.box, "class": spot.found.label} for spot in found.hotspots]
        facts: dict[str, Any] = {"surface": "hotspots", "media_id": media_id, "objects": spots}
        prepared = self._prepare(release, asked, started_ns)
        answer = self._answer(release, asked, prepared, groups, facts, found, Spent(), [])
        self._count("hotspots", answer)
        return answer

    def _visual(self) -> tuple[Release, Visual]:
        release = self._release()
        if release is None:
            raise NoReleaseError("no release is loaded yet")
        if release.visual is None:
            raise NoVisualError("this release has no visual models: it recommends, and cannot see")
        return release, release.visual

    async def _work(self, work: Callable[[], Result]) -> Result:
        with self.pool.place():
            return await self.pool.start(work)

    def _wish(self, release: Release, asked: Shopper) -> Wish:
        return Wish(
            items=release.engine.items.allowed(_filters(asked)),
            price_min=asked.price_min,
            price_max=asked.price_max,
            in_stock=asked.in_stock,
            sizes=asked.sizes,
        )

    def _row(self, release: Release, visual: Visual, product_id: str) -> int:
        item = release.engine.items.index.get(product_id, -1)
        if item < 0:
            raise UnknownError(f"no product of id '{product_id[:64]}' is known")
        row = visual.index.row_of_item.get(item, -1)
        if row < 0:
            raise UnknownError(f"product '{product_id}' has no picture that was looked at")
        return row

    def _prepare(self, release: Release, asked: Shopper, started_ns: int) -> Prepared:
        """Who asks, when and where."""
        question = Question(
            customer_id=asked.customer_id, session_id=asked.session_id, touchpoint=asked.touchpoint, at_us=None,
            store_id=None, n=asked.n, filters=_filters(asked), started_ns=started_ns,
        )  # fmt: skip
        return self._answerer.prepare(release.engine, question)

    def _search_words(
        self, release: Release, visual: Visual, asked: TextQuery, meant: Understood, spent: Spent
    ) -> tuple[Found, list[str]]:
        assert visual.text is not None
        vectors = visual.text.embed(meant.words, spent)
        index, notes = visual.index, []
        with spent.step("search"):
            wish = self._wish(release, asked)
            if meant.without:
                lexicon = self._lexicon(release)
                for word in meant.without:
                    wish.items[lexicon.bearing(word)] = False
            wish = Wish(
                items=wish.items,
                price_min=_tighter(max, asked.price_min, meant.price_min),
                price_max=_tighter(min, asked.price_max, meant.price_max),
                in_stock=asked.in_stock,
                sizes=asked.sizes,
                colours=meant.colours,
                not_colours=meant.not_colours,
            )
            allowed = index.allowed(wish)
            if meant.colours and not allowed.any():
                allowed = index.allowed(msgspec.structs.replace(wish, colours=()))
                notes.append("colour_relaxed")
            borne = index.of_rows(self._lexicon(release).shares(meant.words))
            return blend(index, vectors, allowed, borne, _count(asked)), notes

    def _lexicon(self, release: Release) -> Lexicon:
        found = self._lexicons.get(release)
        if found is None:
            found = self._lexicons[release] = Lexicon(release.engine.items)
        return found

    def _answer(
        self,
        release: Release,
        asked: Shopper,
        prepared: Prepared,
        groups: Sequence[Group],
        facts: dict[str, Any],
        subject: Any,
        spent: Spent,
        notes: Sequence[str],
        hidden: set[int] | None = None,
    ) -> Answer:
        """Order every list for who asks, and write the decision down."""
        assert release.visual is not None
        engine, index = release.engine, release.visual.index
        prepared.notes += notes
        prepared.notes += [f"size_unknown:{size}" for size in asked.sizes if not index.sizes.known(size)]
        allowed = engine.items.allowed(_filters(asked))
        allowed[list(hidden or ())] = False
        lists = [expand(index, group, allowed, _count(asked)) for group in groups]
        taste = self._taste(release, prepared, lists, spent)
        entries = [
            choose(index, group, candidates, taste, asked.n, self._exploration, self._rng)
            for group, candidates in zip(groups, lists, strict=True)
        ]
        record = decided(
            release, prepared, entries, facts, spent, sum(len(one.items) for one in lists), asked
        )
        self._log.record(record.decision)
        return Answer(record, entries, subject, spent)

    def _taste(
        self, release: Release, prepared: Prepared, lists: Sequence[Candidate], spent: Spent
    ) -> Taste | None:
        """The ranker's view of all candidates; None where nobody is known, and then likeness alone counts."""
        if prepared.path == "popular" or not any(len(one.items) for one in lists):
            prepared.path = "visual"
            return None
        try:
            taste = Taste(release.engine, prepared, lists)
        except (GraphError, ArithmeticError, ValueError, IndexError, KeyError):
            prepared.notes.append("model_failed")
            prepared.path = "visual"
            return None
        spent.add("ranker", taste.run_ns)
        return taste

    def _count(self, surface: str, answer: Answer) -> None:
        decision = answer.record.decision
        for note in decision.notes:
            self._metrics.fallbacks.labels(note.partition(":")[0]).inc()
        self._metrics.answers.labels(decision.path).inc()
        self._metrics.visual_seconds.labels(surface).observe(
            (time.perf_counter_ns() - answer.record.started_ns) / 1e9
        )
        for step, nanoseconds in answer.spent.ns.items():
            self._metrics.visual_steps.labels(step).inc(nanoseconds / 1e9)


def _count(asked: Shopper) -> int:
    """Candidates per list."""
    return max(CANDIDATES, 4 * asked.n)


def _filters(asked: Shopper) -> Filters:
    return Filters(
        department=asked.department, category=asked.category, brand=asked.brand, exclude=asked.exclude
    )


def _tighter(pick: Callable[[float, float], float], one: float | None, other: float | None) -> float | None:
    """The tighter of two bounds, of which either may be missing."""
    if one is None or other is None:
        return other if one is None else one
    return pick(one, other)
