"""What came together before is counted as by hand, weighed on what was held out, and added to the scores."""

from __future__ import annotations

import itertools

import msgspec
import numpy as np
import pytest
import torch

from tests.unit.training.toys import SMALL, encoder, sequences, vocabulary
from training.continuum import fit as loop
from training.continuum import memory
from training.continuum.batches import find_steps
from training.continuum.infer import pack
from training.evaluation.metrics import targets_of

ITEMS = 6
HISTORIES = [
    [(1.0, 1), (1.0, 2), (3.0, 1), (4.0, 3), (9.0, 0), (10.0, 4)],
    [(1.0, 3), (2.0, 1), (3.0, 2)],
    [],
    [(5.0, 6)],
]


def steps_of(history: list[tuple[float, int]]) -> list[list[int]]:
    return [[item for _, item in group] for _, group in itertools.groupby(history, key=lambda one: one[0])]


WEIGHTS = (2.0, 3.0, 0.5)


def by_hand(reach: int, halve: float, fade: float = 0.0) -> np.ndarray:
    total = np.zeros((ITEMS + 1, ITEMS + 1))
    for history in HISTORIES:
        steps, days = steps_of(history), sorted({day for day, _ in history})
        for early, late in itertools.combinations(range(len(steps)), 2):
            if late - early > reach:
                continue
            for one, other in itertools.product(steps[early], steps[late]):
                if one and other:
                    age = (10.0 - days[late]) / (fade * 9.0) if fade else 0.0  # Events lie on days 1 to 10.
                    total[one, other] += 2.0 ** (-(late - early - 1) / halve - age)
    return total


@pytest.mark.parametrize("fade", [0.0, 0.3])
def test_pairs_are_counted_by_step_and_never_across_customers(fade: float) -> None:
    found = sequences(HISTORIES)
    followed, along, again = memory.relations(found, find_steps(found).of, ITEMS, fade)
    counts = by_hand(memory.FOLLOW_REACH, memory.FOLLOW_HALVE, fade)
    share = counts / (counts.sum(axis=1, keepdims=True) + memory.FOLLOW_DAMPING)
    np.testing.assert_allclose(followed.toarray(), share, rtol=1e-6)
    counts = by_hand(memory.ALONG_REACH, memory.ALONG_HALVE, fade)
    both = counts + counts.T
    norm = np.sqrt(both.sum(axis=1))
    np.testing.assert_allclose(
        along.toarray(), both / (np.outer(norm, norm) + memory.ALONG_DAMPING), rtol=1e-6
    )
    seen = {item for history in HISTORIES for step in steps_of(history) for item in step if item}
    np.testing.assert_array_equal(again.toarray(), np.diag([float(n in seen) for n in range(ITEMS + 1)]))


def test_nothing_to_count_is_an_empty_memory() -> None:
    for table in memory.relations(sequences([[], []]), np.zeros(0, np.int64), ITEMS):
        assert table.shape == (ITEMS + 1, ITEMS + 1)
        assert table.nnz == 0


def test_only_the_largest_pairs_are_kept() -> None:
    found = sequences(HISTORIES)
    tables = memory.relations(found, find_steps(found).of, ITEMS)
    total = sum(weight * table.toarray() for weight, table in zip(WEIGHTS, tables, strict=True))
    kept = memory.Memory(ITEMS, 2)
    kept.fill(tables, WEIGHTS)
    for item in range(ITEMS + 1):
        best = np.sort(total[item])[::-1][:2]
        np.testing.assert_allclose(kept.weights[item].numpy(), best, rtol=1e-6)
        for other, weight in zip(kept.ids[item].tolist(), kept.weights[item].tolist(), strict=True):
            assert weight == 0 or np.isclose(total[item, other], weight)


def test_the_rows_of_a_history_are_added_each_step_back_counting_less() -> None:
    found = sequences(HISTORIES)
    tables = memory.relations(found, find_steps(found).of, ITEMS)
    model = encoder(msgspec.structs.replace(SMALL, memory=ITEMS), items=ITEMS)
    assert model.memory is not None
    inputs = pack(found, np.arange(4), np.full(4, 12.0), 16)
    given = [torch.from_numpy(inputs[name]) for name in ("item", "action", "channel", "age")]
    with torch.no_grad():
        model.memory.fill(tables, memory.NONE)
        without, _ = model(*given)
        model.memory.fill(tables, WEIGHTS)
        with_it, _ = model(*given)
    total = sum(weight * table.toarray() for weight, table in zip(WEIGHTS, tables, strict=True))
    for row, history in enumerate(HISTORIES):
        wanted = np.zeros(ITEMS + 1)
        for back, step in enumerate(reversed(steps_of(history))):
            for item in step:
                wanted += total[item] * 2.0 ** (-back / memory.RECENCY)
        np.testing.assert_allclose((with_it - without)[row].numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_weights_are_chosen_one_relation_after_the_other() -> None:
    asked: list[tuple[float, ...]] = []

    def quality(weights: tuple[float, ...]) -> float:
        asked.append(weights)
        return -abs(weights[0] - weights[2]) - abs(weights[1] - 3.0) - 2 * abs(weights[2] - 10.0)

    assert memory.choose(quality) == (10.0, 3.0, 10.0), "a later relation moves an earlier one"
    assert len(asked) == len(set(asked)), "nothing is asked twice"
    assert memory.choose(lambda _: 0.5) == memory.NONE, "what does not help is left out"


def test_a_trained_encoder_remembers_pairs_that_its_validation_asks_for() -> None:
    """Items 2 k + 1 are always followed by 2 k + 2; one epoch of a tiny network does not know it yet."""
    pairs = [[(float(day), 2 * ((c + day // 2) % 15) + 1 + day % 2) for day in range(9)] for c in range(40)]
    found = sequences(pairs)
    asked = loop.Validation(np.arange(40), np.full(40, 6.5), targets_of([[row[7][1]] for row in pairs]))
    params = msgspec.structs.replace(SMALL, epochs=1, pointer=False, learning_rate=1e-5)

    def learn(memory: int, weights: tuple[float, float, float] | None = None) -> loop.Fit:
        return loop.fit(
            found.until(6.5), vocabulary(), msgspec.structs.replace(params, memory=memory, memory_weights=weights),
            asked, seen=found, seed=0, progress=lambda line: None,
        )  # fmt: skip

    plain, remembering = learn(0), learn(8)
    assert plain.weighed is None
    assert remembering.weighed is not None
    assert remembering.weighed[0] > 0
    before, after = (loop.validate(one.encoder, params, found, asked) for one in (plain, remembering))
    assert after > 0.99 > before
    given = learn(8, (3.0, 0.0, 0.0))
    assert given.weighed == (3.0, 0.0, 0.0)
