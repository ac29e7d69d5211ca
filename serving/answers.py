"""From a question to a decision: which path answers, with which history, and what is said about it.

An answer always comes: a customer whom nobody knows, a history that is empty, a profile store that
fails or a model that fails leads to a simpler path, and the decision's notes say so.

Belongs here: the choice of path and the making of the decision record. Does not belong here: scoring
(`serving/engine`), HTTP (`serving/routes`).
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import time
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from contracts.decisions import Decision, DecisionItem, Path
from contracts.features import MICROSECONDS_PER_DAY, week_of
from serving.clock import Clock
from serving.decision_log import DecisionLog
from serving.engine.engine import Engine, Query, Ranked
from serving.engine.items import Filters
from serving.engine.memory import Memory
from serving.engine.sessions import GraphError
from serving.inbox.schema import InboxError
from serving.metrics import Metrics
from serving.profiles.history import History, to_moment
from serving.profiles.live import Profile, Profiles, store_of
from serving.releases.release import Release

logger = logging.getLogger(__name__)


class NoReleaseError(RuntimeError):
    """Nothing is loaded that could answer."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What a client wants to know.

    Attributes:
        customer_id: Known customer, or None.
        session_id: Session, or None.
        touchpoint: Where the answer is shown.
        at_us: Moment, microseconds since 1970-01-01 UTC, or None for now.
        store_id: Store, or None.
        n: Items wanted.
        filters: Which items.
        started_ns: When the request began, `time.perf_counter_ns`.
    """

    customer_id: str | None
    session_id: str | None
    touchpoint: str
    at_us: int | None
    store_id: str | None
    n: int
    filters: Filters
    started_ns: int


class Prepared(msgspec.Struct):
    """A question on its way to an answer."""

    question: Question
    at_us: int
    path: Path
    query: Query
    context: dict[str, object]
    notes: list[str]
    rules: list[str]


class Answerer:
    """Answers questions with the release that is live when they are taken up.

    Args:
        release: The live release, or None.
        profiles: Live profiles.
        clock: The shop's clock.
        log: Where decisions are recorded.
        metrics: Where they are counted.
        exploration: Probability that the last slot shows a uniformly drawn further candidate.
    """

    def __init__(
        self,
        release: Callable[[], Release | None],
        profiles: Profiles,
        clock: Clock,
        log: DecisionLog,
        metrics: Metrics,
        exploration: float = 0.0,
    ) -> None:
        self._release = release
        self._profiles = profiles
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._exploration = exploration
        self._rng = np.random.default_rng()

    def answer(self, questions: Sequence[Question]) -> list[Decision | Exception]:
        """Answer a batch; all of it with one release.

        Returns:
            A decision for each question, or `NoReleaseError` while nothing is loaded.
        """
        release = self._release()
        if release is None:
            return [NoReleaseError("no release is loaded yet")] * len(questions)
        prepared = [self.prepare(release.engine, question) for question in questions]
        ranked = self._rank(release.engine, prepared)
        decisions: list[Decision | Exception] = []
        for one, result in zip(prepared, ranked, strict=True):
            decision = self._decide(release, one, result)
            self._log.record(decision)
            decisions.append(decision)
        return decisions

    def prepare(self, engine: Engine, question: Question) -> Prepared:
        """Find out who asks, when and where; on the engine's thread alone."""
        notes: list[str] = []
        profile: Profile | None = None
        try:
            profile = self._profiles.get(engine.items, question.customer_id, question.session_id)
        except InboxError as error:
            logger.error("profiles: %s", error)
            notes.append("profile_store_down")
        at_us = self._moment(question, profile)
        at_days = at_us / MICROSECONDS_PER_DAY
        seen: History | None = None if profile is None else profile.history.before(at_us)
        path = _path(question, profile, seen, notes)
        memory: Memory | None = None
        if path != "popular" and profile is not None and seen is not None:
            if profile.memory is None or len(profile.memory.history) != len(seen):
                profile.memory = engine.remember(seen)
            memory = profile.memory
        store, context = _place(engine, question, memory, notes)
        context |= _calendar(at_us)
        query = Query(
            history=engine.nothing if path == "popular" or seen is None else seen,
            at_days=at_days,
            store=store,
            n=question.n,
            filters=question.filters,
            touchpoint=question.touchpoint,
            memory=memory,
            exploration=self._exploration,
            rng=self._rng,
        )
        return Prepared(question, at_us, path, query, context, notes, rules_of(question.filters))

    def _moment(self, question: Question, profile: Profile | None) -> int:
        """The moment to answer for; without one given, after everything that is known to have happened."""
        if question.at_us is not None:
            return question.at_us
        now = self._clock.now_us()
        if profile is not None and len(profile.history):
            return max(now, int(profile.history.at_us[-1]) + 1)
        return now

    def _rank(self, engine: Engine, prepared: list[Prepared]) -> list[Ranked]:
        with_models = [one for one in prepared if one.path != "popular"]
        results: dict[int, Ranked] = {}
        try:
            ranked = engine.rank_many([one.query for one in with_models])
            results = {id(one): result for one, result in zip(with_models, ranked, strict=True)}
        except (GraphError, ArithmeticError, ValueError, IndexError, KeyError):
            logger.exception("ranking a batch of %d failed; trying one by one", len(with_models))
            for one in with_models:
                try:
                    results[id(one)] = engine.rank_many([one.query])[0]
                except (GraphError, ArithmeticError, ValueError, IndexError, KeyError):
                    logger.exception("ranking failed; the popular path answers")
                    one.path = "popular"
                    one.notes.append("model_failed")
        return [results.get(id(one)) or engine.popular(one.query) for one in prepared]

    def _decide(self, release: Release, one: Prepared, ranked: Ranked) -> Decision:
        items = release.engine.items
        question = one.question
        if len(ranked.items) == 0:
            one.notes.append("filters_leave_nothing" if question.filters else "nothing_to_recommend")
        elif len(ranked.items) < question.n:
            one.notes.append("fewer_than_asked")
        if ranked.explored:
            one.rules.append("exploration")
        model_ms = ranked.model_ns / 1e6
        for note in one.notes:
            self._metrics.fallbacks.labels(note).inc()
        self._metrics.answers.labels(one.path).inc()
        self._metrics.model_seconds.observe(model_ms / 1e3)
        for counter, nanoseconds in zip(self._metrics.graph_seconds, ranked.graph_ns, strict=True):
            counter.inc(nanoseconds / 1e9)
        shown = tuple(
            DecisionItem(
                product_id=items.product_ids[item],
                position=position,
                score=score,
                propensity=propensity,
                sources=sources,
                reason=reason,
                name=items.name[item],
            )
            for position, (item, score, propensity, sources, reason) in enumerate(
                zip(
                    ranked.items.tolist(),
                    ranked.scores.tolist(),
                    ranked.propensities,
                    ranked.sources,
                    ranked.reasons,
                    strict=True,
                )
            )
        )
        now = dt.datetime.now(dt.UTC)
        return Decision(
            decision_id=new_id(now),
            decided_at=now,
            as_of=to_moment(one.at_us),
            customer_id=question.customer_id,
            session_id=question.session_id,
            touchpoint=question.touchpoint,
            path=one.path,
            notes=tuple(one.notes),
            release=release.name,
            rules=tuple(one.rules),
            items=shown,
            context=one.context,
            candidates=ranked.candidates,
            history=len(one.query.history),
            model_ms=round(model_ms, 4),
            handler_ms=round((time.perf_counter_ns() - question.started_ns) / 1e6, 4),
        )


def _path(question: Question, profile: Profile | None, seen: History | None, notes: list[str]) -> Path:
    """Which path answers, and the notes that say why it is not a richer one."""
    if profile is None or seen is None:
        return "popular"
    if question.customer_id is None and question.session_id is None:
        notes.append("anonymous")
        return "popular"
    if question.customer_id is not None and not profile.known:
        notes.append("unknown_customer")
    if len(seen) == 0 or not bool(np.any(seen.item >= 0)):
        notes.append("empty_history")
        return "popular"
    return "personal" if profile.known else "session"


def _place(
    engine: Engine, question: Question, memory: Memory | None, notes: list[str]
) -> tuple[int, dict[str, object]]:
    """The store of the request: the one asked for, the touchpoint's, or the customer's usual one."""
    named, source = question.store_id, "request"
    if named is None:
        named, source = store_of(question.touchpoint), "touchpoint"
    if named is not None:
        store = engine.items.store_index.get(named, -1)
        if store < 0:
            notes.append("unknown_store")
        return store, {"store_id": named, "store_from": source}
    if memory is not None and memory.usual_store >= 0:
        store = memory.usual_store
        return store, {"store_id": engine.items.stores[store], "store_from": "usual"}
    return -1, {"store_id": None, "store_from": "none"}


def _calendar(at_us: int) -> dict[str, object]:
    moment = to_moment(at_us)
    week = int(week_of(at_us / MICROSECONDS_PER_DAY))
    return {"week": week, "hour": moment.hour, "weekday": moment.weekday()}


def rules_of(filters: Filters) -> list[str]:
    """Names of the rules that filters stand for."""
    names = ("department", "category", "brand", "exclude", "in_promotion")
    return ["sellable", *(f"filter:{name}" for name in names if getattr(filters, name))]


def new_id(now: dt.datetime) -> str:
    """32 hexadecimal digits: milliseconds first, so that ids sort by time, then 80 random bits."""
    return f"{int(now.timestamp() * 1000):012x}{os.urandom(10).hex()}"
