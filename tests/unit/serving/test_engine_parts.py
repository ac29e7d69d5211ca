"""The engine's parts against slow and obvious versions of themselves."""

from __future__ import annotations

import asyncio
import datetime as dt
import pathlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import features as contract
from contracts.decisions import Decision
from contracts.events import ACTIONS
from contracts.features import RANKER_FEATURES, ranker_features
from serving.batcher import Batcher, BusyError
from serving.clock import HORIZON, Clock
from serving.decision_log import DecisionLog
from serving.engine import reasons
from serving.engine.assemble import Scorer
from serving.engine.candidates import CO_BOUGHT, ENCODER, POPULAR, Candidates, candidates, described
from serving.engine.engine import _best_first
from serving.engine.explore import explore
from serving.engine.items import Exposures, Filters, ItemTable, StoreProducts, TableError
from serving.engine.memory import encoder_sequence, remember
from serving.engine.sessions import Session
from serving.profiles.fold import fold
from serving.profiles.history import empty_history, make_history, to_days, to_microseconds, to_moment
from serving.releases.golden import same_answer
from tests.integration.serving.synthetic import (
    ITEMS,
    NOW,
    PURCHASE,
    STORE,
    VOCABULARY,
    exposure_arrays,
    history_of,
    item_arrays,
    ranker_graph,
    store_arrays,
)

TABLE = ItemTable(item_arrays())
SALES = StoreProducts(store_arrays(), ITEMS, 3)
EXPOSED = Exposures(exposure_arrays(), ITEMS, 3)
RANKER = ranker_graph(np.random.default_rng(6), len(RANKER_FEATURES)).SerializeToString()
SCORER = Scorer(RANKER_FEATURES, TABLE, SALES, RANKER)
NOWHERE = np.zeros(0, np.int32)
AT = to_days(NOW)
VIEW = ACTIONS.index("view")


def days_ago(*days: float) -> list[int]:
    return [to_microseconds(NOW - dt.timedelta(days=day)) for day in days]


def bought(*pairs: tuple[int, float]) -> Any:
    """A history of purchases (item, days ago)."""
    size = len(pairs)
    return make_history(
        days_ago(*(day for _, day in pairs)), [item for item, _ in pairs], np.full(size, PURCHASE), np.full(size, STORE),
        np.arange(size), np.ones(size), np.ones(size),
    )  # fmt: skip


def proposed(memory: Any, items: Any) -> Candidates:
    return described(memory, items, np.zeros(len(items), np.uint8))


def slow_co_bought(history: Any, item: int) -> float:
    state = fold(history, TABLE, AT)
    weights = {
        int(own): state.cp["cp_decay_45"][k] * 2 ** (-(AT - state.cp["cp_last_at"][k]) / 45)
        for k, own in enumerate(state.items)
    }
    total = 0.0
    for own, weight in weights.items():
        for neighbour, score in zip(TABLE.neighbours[own], TABLE.neighbour_scores[own], strict=True):
            if int(neighbour) == item:
                total += weight * float(score)
    norm = sum(weight**2 for weight in weights.values()) ** 0.5
    return total / norm if norm else 0.0


@pytest.mark.parametrize("customer", [1, 2, 3])
def test_candidates_are_the_defined_union(customer: int) -> None:
    history = history_of(customer)
    memory = remember(history, TABLE, 64)
    encoded = np.random.default_rng(customer).choice(ITEMS, ENCODER, replace=False).astype(np.int32)
    encoded = encoded[TABLE.sellable[encoded]]
    chosen = candidates(memory, TABLE, np.append(encoded, -1), TABLE.sellable, filtered=False)
    own = set(history.item.tolist())
    scores = {item: slow_co_bought(history, item) for item in range(ITEMS)}
    near = sorted((i for i in scores if scores[i] > 0 and TABLE.sellable[i]), key=lambda i: (-scores[i], i))
    expected = own | set(encoded.tolist()) | set(TABLE.popular[:POPULAR].tolist()) | set(near[:CO_BOUGHT])
    assert sorted(chosen.items.tolist()) == sorted(i for i in expected if TABLE.sellable[i])
    for item, bits in zip(chosen.items.tolist(), chosen.bits.tolist(), strict=True):
        told = (item in own, item in encoded, item in near[:CO_BOUGHT], item in TABLE.popular[:POPULAR])
        assert [bool(bits & bit) for bit in (1, 2, 4, 8)] == list(told)
    alone = described(memory, chosen.items, chosen.bits)
    assert np.array_equal(chosen.places, alone.places)
    assert np.array_equal(chosen.together, alone.together)
    again = candidates(memory, TABLE, np.append(encoded, -1), TABLE.sellable, filtered=False)
    assert np.array_equal(again.bits, chosen.bits)


def test_only_the_most_recent_own_items_are_candidates() -> None:
    rng = np.random.default_rng(1)
    items = rng.permutation(ITEMS)[:300]
    memory = remember(bought(*((int(item), float(day)) for day, item in enumerate(items))), TABLE, 64)
    assert memory.own.tolist() == items.tolist()


@pytest.mark.parametrize("store", [-1, 0, 1, 2])
def test_features_are_what_the_contract_computes_one_by_one(store: int) -> None:
    history = history_of(4)
    memory = remember(history, TABLE, 64)
    chosen = np.sort(np.random.default_rng(2).choice(ITEMS, 80, replace=False)).astype(np.int32)
    chosen = np.union1d(chosen, memory.own[:20]).astype(np.int32)
    flags = None if store < 0 else EXPOSED.flags(int(contract.week_of(AT)), store)
    encoder_scores = np.random.default_rng(3).normal(size=VOCABULARY + 1).astype(np.float32)
    matrix = SCORER.features(memory, proposed(memory, chosen), AT, store, flags, encoder_scores)
    state = fold(history, TABLE, AT)
    sales = store_arrays()

    def row(columns: Any, keys: Any, key: int, names: tuple[str, ...]) -> dict[str, float]:
        found = np.flatnonzero(keys == key)
        return {n: float(columns[n][found[0]]) if len(found) else 0.0 for n in names}

    for place, item in enumerate(chosen.tolist()):
        sold = []
        if store >= 0:
            part = slice(int(sales["store_start"][store]), int(sales["store_start"][store + 1]))
            sold = np.flatnonzero(sales["item"][part] == item).tolist()
        numbers = sales["rows"][part][sold[0]] if sold else np.zeros(4)
        bits = 0 if flags is None else int(flags[item])
        expected = ranker_features(
            c=dict(zip(contract.CUSTOMER_COLUMNS, memory.customer[:, 0].tolist(), strict=True)),
            cp=row(state.cp, state.items, item, contract.CUSTOMER_PRODUCT_COLUMNS),
            ct=row(state.ct, state.types, int(TABLE.type_id[item]), contract.CUSTOMER_TYPE_COLUMNS),
            cc=row(
                state.cc, state.categories, int(TABLE.category_id[item]), contract.CUSTOMER_CATEGORY_COLUMNS
            ),
            p=dict(
                zip(contract.PRODUCT_COLUMNS, np.nan_to_num(TABLE.features[item]).astype(float), strict=True)
            ),
            s=dict(zip(contract.STORE_PRODUCT_COLUMNS, numbers, strict=True)),
            cs=row(
                state.cs,
                np.where(state.stores == store, state.store_items, -1),
                item,
                contract.CUSTOMER_STORE_PRODUCT_COLUMNS,
            ),
            x={"x_display": float(bits & 1), "x_mailer": float(bits >> 1 & 1)},
            encoder_score=encoder_scores[TABLE.encoder_id[item]] if TABLE.encoder_id[item] else 0.0,
            co_bought=slow_co_bought(history, item),
            now=AT,
            xp=np,
        )
        wanted = np.array([expected[name] for name in RANKER_FEATURES], np.float64)
        assert np.allclose(matrix[place], wanted, rtol=2e-6, atol=1e-6), item
    assert np.isfinite(matrix).all()


@pytest.mark.parametrize("history", [empty_history(), make_history(days_ago(3), [-1], [VIEW], [0])])
def test_features_of_a_customer_without_purchases_are_finite(history: Any) -> None:
    memory = remember(history, TABLE, 64)
    chosen = np.arange(50, dtype=np.int32)
    nothing = np.zeros(VOCABULARY + 1, np.float32)
    assert np.isfinite(SCORER.features(memory, proposed(memory, chosen), AT, -1, None, nothing)).all()
    assert len(SCORER.scores(memory, proposed(memory, chosen[:0]), AT, -1, None, nothing)[0]) == 0


def test_the_joined_graph_scores_what_the_ranker_alone_would_score() -> None:
    memory = remember(history_of(5), TABLE, 64)
    chosen = np.arange(0, ITEMS, 3, dtype=np.int32)
    encoder_scores = np.random.default_rng(5).normal(size=VOCABULARY + 1).astype(np.float32)
    flags = EXPOSED.flags(int(contract.week_of(AT)), 1)
    asked = (memory, proposed(memory, chosen), AT, 1, flags, encoder_scores)
    alone = Session("ranker", RANKER)
    (expected,), _ = alone.run(("scores",), {"features": SCORER.features(*asked)})
    for _ in range(2):  # The second run must not see anything of the first.
        assert np.array_equal(SCORER.scores(*asked)[0], expected.reshape(-1))


def test_a_basket_is_one_moment_for_the_encoder() -> None:
    at = days_ago(5, 4.9, 4.95, 4)
    history = make_history(at, [1, 2, 3, 4], [PURCHASE, PURCHASE, VIEW, PURCHASE], [STORE] * 4, [7, 7, 7, 8])
    sequence = encoder_sequence(history, TABLE, 64)
    assert sequence.item.tolist() == [int(TABLE.encoder_id[i]) for i in (1, 2, 3, 4)]
    assert sequence.at[0] == sequence.at[1] < sequence.at[2] < sequence.at[3]
    assert encoder_sequence(history, TABLE, 2).item.tolist() == [int(TABLE.encoder_id[i]) for i in (3, 4)]
    assert len(encoder_sequence(empty_history(), TABLE, 2).item) == 0


def test_what_was_only_looked_at_is_where_a_newcomer_starts_from() -> None:
    memory = remember(make_history(days_ago(1, 2), [5, 6], [VIEW, VIEW], [0, 0]), TABLE, 64)
    assert memory.anchors.tolist() == [5, 6]
    item = int(memory.together_best[0])
    assert "which you looked at" in reasons.explain(item, memory, TABLE, AT, 0, NOWHERE).text


@pytest.mark.parametrize(
    ("pairs", "item", "code", "words"),
    [
        (
            [(9, 30), (9, 20), (9, 10)],
            9,
            "repeat_due",
            "You buy this about every 10 days; last time 10 days ago",
        ),
        (
            [(9, 22), (9, 12), (9, 2)],
            9,
            "bought_often",
            "You buy this about every 10 days; last time 2 days ago",
        ),
        ([(9, 30), (9, 1.5)], 9, "bought_often", "You bought this twice, last time yesterday"),
        ([(9, 0.2)], 9, "bought_often", "You bought this once, today"),
    ],
)
def test_own_items_are_explained_by_their_rhythm(pairs: Any, item: int, code: str, words: str) -> None:
    reason = reasons.explain(item, remember(bought(*pairs), TABLE, 64), TABLE, AT, 0, NOWHERE)
    assert (reason.code, reason.text) == (code, words)
    assert reason.evidence["times_bought"] == len(pairs)


def test_other_items_are_explained_by_the_strongest_evidence_there_is() -> None:
    memory = remember(bought((9, 3)), TABLE, 64)
    together = int(TABLE.neighbours[9][0])
    reason = reasons.explain(together, memory, TABLE, AT, 0, NOWHERE)
    assert reason.code == "bought_together"
    assert reason.evidence["product_id"] == TABLE.product_ids[9]
    same_type = next(i for i in range(ITEMS) if i % 90 == 9 and i != 9 and i not in TABLE.neighbours[9])
    reason = reasons.explain(same_type, memory, TABLE, AT, 0, NOWHERE)
    assert (reason.code, reason.text) == ("history", "You bought TYPE 9 once, last 3 days ago")
    other = next(i for i in range(ITEMS) if i % 90 != 9 and i not in TABLE.neighbours[9])
    encoded = np.array([same_type, together, 9, -1, other], np.int32)
    reason = reasons.explain(other, memory, TABLE, AT, 0, encoded)
    assert (reason.code, reason.evidence) == ("history", {"encoder_place": 5})
    assert reasons.explain(other, memory, TABLE, AT, 0, NOWHERE).code == "popular"
    for bits, words in ((1, "On display"), (2, "In this week's mailer"), (3, "On display and in the mailer")):
        reason = reasons.explain(other, memory, TABLE, AT, bits, encoded)
        assert reason.code == "promotion"
        assert reason.text.startswith(words)


def test_popularity_covers_everything_that_is_sold() -> None:
    assert set(TABLE.popularity.tolist()) == set(np.flatnonzero(TABLE.sellable).tolist())
    assert TABLE.popularity[: len(TABLE.popular)].tolist() == TABLE.popular.tolist()


@given(
    st.lists(st.sampled_from(["GROCERY", "meat", "nowhere"]), max_size=2),
    st.lists(st.sampled_from(["CATEGORY 1", "category 2"]), max_size=2),
    st.lists(st.sampled_from(["p0001", "p0002", "unknown"]), max_size=2),
)
@settings(max_examples=30, deadline=None)
def test_filters_are_and_over_fields_and_or_over_values(
    departments: Any, categories: Any, excluded: Any
) -> None:
    mask = TABLE.allowed(
        Filters(department=tuple(departments), category=tuple(categories), exclude=tuple(excluded))
    )
    arrays = item_arrays()
    for item in range(0, ITEMS, 7):
        wanted = bool(arrays["sellable"][item]) and arrays["product_id"][item] not in excluded
        wanted &= not departments or str(arrays["department"][item]) in [d.upper() for d in departments]
        wanted &= not categories or str(arrays["category"][item]) in [c.upper() for c in categories]
        assert bool(mask[item]) == wanted


def test_tables_that_do_not_fit_are_refused() -> None:
    for change, words in (
        ({"item": np.full(450, ITEMS, np.int32)}, "outside"),
        ({"store_start": np.zeros(3, np.int64)}, "store_start"),
        ({"rows": np.zeros((5, 4))}, "rows"),
    ):
        with pytest.raises(TableError, match=words):
            StoreProducts({**store_arrays(), **change}, ITEMS, 3)
    with pytest.raises(TableError, match="'astrology'"):
        Scorer(("astrology",), TABLE, SALES, RANKER)


def test_exploration_draws_uniformly_and_says_the_truth() -> None:
    rng = np.random.default_rng(11)
    order = np.arange(10)
    shown_last = np.zeros(10)
    rounds = 20_000
    for _ in range(rounds):
        shown, propensities, _ = explore(order, 4, 0.3, rng)
        assert shown[:3].tolist() == [0, 1, 2]
        shown_last[shown[-1]] += 1
        assert propensities[:3] == [1.0, 1.0, 1.0]
        assert propensities[3] == pytest.approx(0.7 if shown[-1] == 3 else 0.3 / 6)
    assert shown_last[3] / rounds == pytest.approx(0.7, abs=0.015)
    assert np.allclose(shown_last[4:] / rounds, 0.05, atol=0.01)


@pytest.mark.parametrize(("size", "n", "epsilon"), [(0, 5, 0.5), (3, 5, 1.0), (5, 5, 1.0), (9, 2, 0.0)])
def test_exploration_needs_something_further_to_show(size: int, n: int, epsilon: float) -> None:
    shown, propensities, explored = explore(np.arange(size), n, epsilon, np.random.default_rng(0))
    assert (shown.tolist(), propensities, explored) == (
        list(range(min(size, n))),
        [1.0] * min(size, n),
        False,
    )


def test_answers_are_compared_up_to_ties() -> None:
    scores = np.array([3.0, 2.0, 2.0, 1.0], np.float32)
    assert same_answer(["a", "b", "c", "d"], [3, 2, 2, 1], ["a", "c", "b", "d"], scores)
    assert same_answer(["a", "b", "c", "d"], [3, 2, 2, 1], ["a", "b", "c", "e"], scores)
    assert not same_answer(["a", "b", "c", "d"], [3, 2, 2, 1], ["b", "a", "c", "d"], scores)
    assert not same_answer(["a", "b", "c", "d"], [3, 2, 2, 1], ["a", "b", "e", "d"], scores)
    assert not same_answer(["a", "b"], [3, 2], ["a", "b"], np.array([3, np.nan], np.float32))
    assert not same_answer(["a", "b"], [3, 2], ["a"], np.array([3], np.float32))
    assert same_answer([], [], [], np.zeros(0, np.float32))


def test_a_stream_clock_follows_events_and_a_wall_clock_the_wall() -> None:
    wall = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    stream, live = Clock("stream", lambda: wall), Clock("wall", lambda: wall)
    assert stream.now_us() == live.now_us() == to_microseconds(wall)
    assert stream.latest_allowed() is None
    for clock in (stream, live):
        clock.observe(1000)
        clock.observe(500)
    assert stream.now_us() == 1001
    assert live.now_us() == to_microseconds(wall)
    assert stream.latest_allowed() == to_moment(1000) + HORIZON
    assert live.latest_allowed() is None


def test_requests_that_arrive_together_are_answered_together_and_never_mixed() -> None:
    sizes = []

    def work(asks: Any) -> list[Any]:
        sizes.append(len(asks))
        return [ValueError(ask) if ask % 5 == 4 else ask * 10 for ask in asks]

    async def scenario() -> list[Any]:
        batcher: Batcher[int, int] = Batcher(work, limit=20, size=8)
        tasks = [asyncio.create_task(batcher.submit(number)) for number in range(21)]
        gone = asyncio.create_task(batcher.submit(99))
        await asyncio.sleep(0)
        gone.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert await batcher.submit(7) == 70
        batcher.close()
        with pytest.raises(BusyError):
            await batcher.submit(1)
        return list(answers)

    answers = asyncio.run(scenario())
    assert isinstance(answers.pop(), BusyError)
    for number, answer in enumerate(answers):
        assert isinstance(answer, ValueError) if number % 5 == 4 else answer == number * 10
    assert sizes == [8, 8, 4, 1]


def test_a_batch_that_fails_fails_for_its_requests_only() -> None:
    def work(asks: Any) -> list[Any]:
        if 13 in asks:
            raise RuntimeError("no luck")
        return list(asks)

    async def scenario() -> list[Any]:
        batcher: Batcher[int, int] = Batcher(work, limit=20, size=2)
        return list(
            await asyncio.gather(*(batcher.submit(n) for n in (1, 2, 13, 4, 5)), return_exceptions=True)
        )

    answers = asyncio.run(scenario())
    assert [answers[place] for place in (0, 1, 4)] == [1, 2, 5]
    assert all(isinstance(answers[place], RuntimeError) for place in (2, 3))


def decision(number: int) -> Decision:
    return Decision(
        decision_id=f"{number:032x}",
        decided_at=NOW,
        as_of=NOW,
        touchpoint="t",
        path="popular",
        release="r",
        items=(),
    )


def test_decisions_survive_and_a_store_that_fails_loses_no_answer(tmp_path: pathlib.Path) -> None:
    log = DecisionLog(tmp_path / "state" / "decisions.sqlite")
    for number in range(700):
        log.record(decision(number))
    assert [d.decision_id[-3:] for d in log.recent(2)] == ["2bb", "2ba"]
    log.close()
    assert (log.stored, log.lost) == (700, 0)
    assert DecisionLog(tmp_path / "state" / "decisions.sqlite").find(f"{650:032x}") is not None
    (tmp_path / "file").write_text("no folder")
    broken = DecisionLog(tmp_path / "file" / "decisions.sqlite")
    broken.record(decision(1))
    assert broken.find(f"{1:032x}") is not None
    broken.close()
    assert broken.lost == 1


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 70), st.randoms())
@settings(max_examples=100, deadline=None)
def test_the_best_come_first_and_of_equal_ones_the_lower_item(scores: Any, n: int, chance: Any) -> None:
    items = list(range(len(scores)))
    chance.shuffle(items)
    expected = sorted(range(len(scores)), key=lambda place: (-scores[place], items[place]))
    found = _best_first(np.array(scores, np.float32), np.array(items, np.int32), n)
    assert found.tolist() == expected[:n]
