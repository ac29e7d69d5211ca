"""Credits against chains worked out by hand, against definitions by brute force, and paths row by row."""

import datetime as dt
import itertools

import numpy as np
import pyarrow as pa
import pytest

from orchestration.lake import attribution
from orchestration.lake.attribution import AttributionError, Path
from tests.benchmarks.attribution import HAND_WORKED, random_paths, walked


@pytest.mark.parametrize("case", HAND_WORKED, ids=[case.name for case in HAND_WORKED])
def test_credits_equal_those_worked_out_by_hand(case):
    credited = attribution.attribute(case.paths)
    for method, wanted in case.credits.items():
        assert credited[method] == pytest.approx(wanted, abs=1e-12), method


@pytest.mark.parametrize("seed", range(5))
def test_credits_sum_to_the_conversions(seed):
    paths = random_paths(seed)
    total = sum(path.conversions for path in paths)
    for method, credit in attribution.attribute(paths).items():
        assert sum(credit.values()) == pytest.approx(total, abs=1e-9), method


@pytest.mark.parametrize("seed", range(5))
def test_shapley_equals_its_definition_over_all_sets(seed):
    paths = random_paths(seed)
    names = sorted({channel for path in paths for channel in path.channels})
    by_definition = attribution.shapley_of(names, attribution.conversions_within(paths))
    assert attribution.shapley(paths) == pytest.approx(by_definition, abs=1e-9)


def test_shapley_of_a_game_equals_the_mean_over_all_orders():
    worth = {frozenset(): 0.0, frozenset("a"): 1, frozenset("b"): 2, frozenset("c"): 0, frozenset("ab"): 5,
             frozenset("ac"): 1, frozenset("bc"): 7, frozenset("abc"): 9}  # fmt: skip
    means = dict.fromkeys("abc", 0.0)
    for order in itertools.permutations("abc"):
        for place, player in enumerate(order):
            means[player] += (worth[frozenset(order[: place + 1])] - worth[frozenset(order[:place])]) / 6
    assert attribution.shapley_of("abc", worth.__getitem__) == pytest.approx(means, abs=1e-12)


@pytest.mark.parametrize("order", attribution.ORDERS)
def test_the_closed_form_equals_walking_the_chain(order):
    paths = random_paths(3)
    effects = attribution.removal_effects(paths, order)
    assert effects == pytest.approx(walked(paths, order), abs=1e-9)


def test_without_conversions_nobody_is_credited():
    for credit in attribution.attribute([Path(("a", "b"), 0, 4)]).values():
        assert credit == {"a": 0.0, "b": 0.0}


def test_what_cannot_be_credited_is_refused():
    with pytest.raises(AttributionError, match="no channel"):
        Path((), 1)
    with pytest.raises(AttributionError, match="losses nan"):
        Path(("a",), 1, float("nan"))
    with pytest.raises(AttributionError, match="order is 4"):
        attribution.markov([Path(("a",), 1)], 4)
    with pytest.raises(AttributionError, match="no paths"):
        attribution.attribute([])
    with pytest.raises(AttributionError, match="at most 16"):
        attribution.shapley_of([str(n) for n in range(17)], len)


def test_distance_is_total_variation_over_the_known_channels():
    assert attribution.distance({"a": 1, "b": 3, "web": 50}, {"a": 2, "b": 2}) == pytest.approx(0.25)
    assert attribution.distance({"a": 2, "b": 4}, {"a": 1, "b": 2}) == pytest.approx(0)
    with pytest.raises(AttributionError, match="sum to 0"):
        attribution.distance({"web": 1}, {"a": 1})


def events(*rows):
    """Rows of person, day, channel, action."""
    start = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
    people, days, channels, actions = zip(*rows, strict=True)
    return pa.table(
        {
            "customer_id": pa.array(people, pa.string()),
            "occurred_at": pa.array([start + dt.timedelta(days=day) for day in days], pa.timestamp("us", "UTC")),
            "source": ["s"] * len(rows), "event_id": [f"e{n:03}" for n in range(len(rows))],
            "channel": channels, "action": actions,
        }
    )  # fmt: skip


def test_paths_are_cut_by_conversions_folded_to_runs_and_lost_when_quiet():
    table = events(
        ("ann", 0, "email", "click"), ("ann", 1, "email", "open"), ("ann", 2, "social", "click"),
        ("ann", 3, "web", "view"), ("ann", 3, "web", "purchase"), ("ann", 3, "web", "purchase"),
        ("ann", 4, "store", "purchase"),
        ("ann", 5, "push", "click"),
        ("bob", 0, "email", "click"), ("bob", 40, "search", "click"), ("bob", 41, "app", "purchase"),
        ("cat", 79, "email", "click"), (None, 0, "sms", "click"), ("dan", 80, "web", "view"),
    )  # fmt: skip
    paths = attribution.paths_of(table)
    assert {(path.channels, path.conversions, path.losses) for path in paths} == {
        (("email", "social"), 1, 0), (("store",), 1, 0), (("push",), 0, 1), (("search",), 1, 0),
    }  # fmt: skip
    shuffled = table.take(pa.array(np.random.default_rng(1).permutation(table.num_rows)))
    assert attribution.paths_of(shuffled) == paths
