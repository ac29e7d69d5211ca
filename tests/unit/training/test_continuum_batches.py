"""Windows and requests: who sees what, and what is to be predicted."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from contracts.events import ACTIONS
from tests.unit.training.toys import PURCHASE, sequences
from training.continuum.batches import Batch, cut_windows, find_steps, make_batches
from training.continuum.data import Sequences

BASKETS = [(1.0, 1), (1.0, 2), (3.0, 1), (3.0, 3), (9.0, 4)]


def batches(
    found: Sequences, length: int = 16, stride: float = 0.5, queries: int = 16, seed: int = 0
) -> list[Batch]:
    rng = np.random.default_rng(seed)
    steps = find_steps(found)
    windows = cut_windows(found, steps, length, stride, 0.0, rng)
    return list(
        make_batches(found, steps, windows, batch=4, queries=queries, target_actions=("purchase",), rng=rng)
    )


def test_targets_are_the_items_of_the_step_and_only_earlier_steps_are_seen() -> None:
    (batch,) = batches(sequences([BASKETS]))
    assert batch.step.tolist() == [[0, 0, 1, 1, 2]]
    assert batch.request_step.tolist() == [[0, 1, 2]]
    items = [sorted(batch.unique[0][row].tolist()) for row in batch.target[0]]
    assert items == [[1, 2], [1, 3], [4]]
    assert batch.request_time.tolist() == [[-8.0, -6.0, 0.0]]
    assert batch.unique[0][batch.slot[0]].tolist() == batch.item[0].tolist()


@given(
    sizes=st.lists(st.lists(st.integers(1, 5), max_size=12), min_size=1, max_size=4),
    length=st.integers(2, 9),
    stride=st.sampled_from([0.25, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_every_step_is_a_request_exactly_once(
    sizes: list[list[int]], length: int, stride: float, seed: int
) -> None:
    """Whatever the baskets; those longer than a window excepted, which no window can precede."""
    histories = [
        [(float(day), 1 + (day * 7 + line) % 30) for day, size in enumerate(row) for line in range(size)]
        for row in sizes
    ]
    found = sequences(histories)
    asked: list[tuple[int, float]] = []
    steps = find_steps(found)
    windows = cut_windows(found, steps, length, stride, 0.0, np.random.default_rng(seed))
    for window in windows:
        assert window.stop - window.start <= length
    for window in windows:
        for batch in make_batches(
            found,
            steps,
            [window],
            batch=1,
            queries=64,
            target_actions=("purchase",),
            rng=np.random.default_rng(0),
        ):
            customer = int(np.searchsorted(found.offsets, window.start, side="right") - 1)
            for place in np.flatnonzero(batch.request[0]):
                day = found.at[window.stop - 1] + batch.request_time[0, place]
                asked.append((customer, round(float(day), 3)))
                wanted = set(batch.unique[0][batch.target[0, place]].tolist())
                real = {item for at, item in histories[customer] if at == round(float(day), 3)}
                assert wanted <= real
    expected = [(c, float(day)) for c, row in enumerate(sizes) for day in range(len(row))]
    assert len(asked) == len(set(asked))
    assert set(asked) <= set(expected)
    if length > 5:
        assert set(asked) == set(expected)


def test_at_most_so_many_requests_are_drawn_from_a_window() -> None:
    (batch,) = batches(sequences([[(float(day), 1) for day in range(12)]]), queries=5)
    assert batch.request.sum() == 5


def test_padding_is_neither_a_request_nor_an_event() -> None:
    (batch,) = batches(sequences([BASKETS, [(2.0, 7)]]))
    short = int(np.argmin((batch.action > 0).sum(1)))
    assert (batch.action[short] > 0).sum() == 1
    assert batch.request[short].sum() == 1
    assert batch.weight[short].tolist() == [1.0, 0.0, 0.0]
    assert batch.buy[short].tolist() == [-1, -1, -1]
    assert not batch.target[short][~batch.request[short]].any()


def test_the_middle_of_a_session_is_labelled_with_how_it_ends() -> None:
    view, buy = ACTIONS.index("view"), PURCHASE
    found = sequences(
        [[(1.0, 1), (1.1, 2), (1.2, 2), (2.0, 3), (2.1, 4)]],
        action=[view, view, buy, view, view], session=[0, 0, 0, 1, 1],
    )  # fmt: skip
    assert find_steps(found).buy.tolist() == [-1, 1, 1, -1, 0]


def test_refused_items_are_labels_and_no_targets() -> None:
    found = sequences([[(1.0, 1), (2.0, 2), (3.0, 3)]], action=[PURCHASE, ACTIONS.index("dismiss"), PURCHASE])
    (batch,) = batches(found)
    assert batch.unique[0][batch.avoid[0, 1]].tolist() == [2]
    assert not batch.target[0, 1].any()


def test_weights_run_from_equal_requests_to_equal_customers() -> None:
    found = sequences([[(float(day), 1) for day in range(9)], [(1.0, 2)]])
    steps = find_steps(found)
    rng = np.random.default_rng(0)
    equal = {w.weight for w in cut_windows(found, steps, 16, 0.5, 0.0, rng)}
    assert equal == {1.0}
    many, one = (w.weight for w in cut_windows(found, steps, 16, 0.5, 1.0, rng))
    assert np.isclose(9 * many, one)
    assert np.isclose((9 * many + one) / 10, 1.0)
