"""The ranker's parts against slow and obvious versions, and against what serving does for one request."""

from __future__ import annotations

import math
import pathlib

import lightgbm as lgb
import numpy as np
import pytest

from contracts.features import PRODUCT_COLUMNS, RANKER_FEATURES
from serving.engine import candidates as serving_candidates
from serving.engine.items import ItemTable
from serving.engine.memory import remember
from serving.profiles.history import History
from training.evaluation.metrics import Targets, targets_of
from training.ranker import candidates, data, export, items, model, requests
from training.ranker.params import RankerParams

DAY = 86_400_000_000
RNG = np.random.default_rng(11)
N, V, STORES = 60, 40, 3


def item_arrays() -> items.Arrays:
    baskets = random_baskets()
    neighbours, scores = items.co_bought(baskets, N)
    ids = np.zeros(N, np.int32)
    ids[RNG.choice(N, V, replace=False)] = np.arange(1, V + 1)
    text = {name: np.array([f"{name} {i % 7}" for i in range(N)]) for name in ("name", "department", "brand")}
    levels = {name: np.array([f"{name} {i % 9}" for i in range(N)]) for name in ("type", "category")}
    return {
        "product_id": np.array([f"p{i:02d}" for i in range(N)]), **text, **levels,
        "type_id": items.level_ids(levels["type"]), "category_id": items.level_ids(levels["category"]),
        "private": np.zeros(N, bool), "sellable": RNG.random(N) < 0.9, "encoder_id": ids,
        "features": np.zeros((N, len(PRODUCT_COLUMNS)), np.float32), "neighbours": neighbours, "neighbour_scores": scores,
        "popular": RNG.permutation(N)[:20].astype(np.int32), "stores": np.array(["1", "2", "3"]),
    }  # fmt: skip


def random_baskets() -> items.Baskets:
    basket = np.repeat(np.arange(150), 5)
    pairs = np.unique(np.stack([basket, RNG.integers(0, N, len(basket))]), axis=1)
    return items.Baskets(pairs[0], pairs[1], pairs[0] / 10)


def random_lines(customers: int = 8) -> requests.Lines:
    rows = []
    for customer in range(customers):
        for at in np.sort(RNG.choice(5000, 12, replace=False)):
            store = int(RNG.integers(0, STORES))
            rows += [
                (customer, int(at) * DAY // 50 + 17000 * DAY, int(item), store)
                for item in np.sort(RNG.choice(N, 5, replace=False))
            ]
    customer, at_us, item, store = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    names = np.array([f"c{i}" for i in range(customers)])
    return requests.Lines(names, np.searchsorted(customer, np.arange(customers + 1)), at_us, item, store)


class FixedScorer:
    """The same random scores for every request."""

    def __init__(self) -> None:
        self.row = np.append(np.float32(-np.inf), RNG.permutation(V).astype(np.float32) - 5)

    def batches(self, asked: requests.Requests):
        for start in range(0, len(asked), 3):
            part = slice(start, min(start + 3, len(asked)))
            yield part, np.tile(self.row, (part.stop - part.start, 1))


def test_co_bought_equals_counting_pairs() -> None:
    baskets = random_baskets()
    neighbours, scores = items.co_bought(baskets, N)
    sets = [set(baskets.item[baskets.basket == b].tolist()) for b in np.unique(baskets.basket)]
    counts = np.array([sum(item in each for each in sets) for item in range(N)])
    for item in range(N):
        expected = []
        for other in range(N):
            together = sum(item in each and other in each for each in sets)
            if other != item and together and min(counts[item], counts[other]) >= items.MIN_BASKETS:
                expected.append((-together / math.sqrt((counts[item] + 20) * (counts[other] + 20)), other))
        expected = sorted(expected)[: items.NEIGHBOURS]
        found = neighbours[item][neighbours[item] >= 0]
        np.testing.assert_allclose(scores[item][: len(expected)], [-s for s, _ in expected], rtol=1e-6)
        assert len(found) == len(expected)


def test_candidates_equal_those_of_the_server() -> None:
    arrays, lines, scorer = item_arrays(), random_lines(), FixedScorer()
    table = ItemTable(arrays)
    asked = requests.first_baskets(lines, 17050.0, 1e6)
    popular = {int(asked.cut_us[0]): table.popular}
    found = candidates.generate(lines, asked, arrays, popular, scorer)
    for row in range(len(asked)):
        mine = found.row == row
        memory = remember(history_of(lines, int(asked.customer[row]), int(asked.at_us[row])), table, 16)
        order = np.argsort(-scorer.row, kind="stable")
        encoded = table.by_encoder_id[order[order > 0]]
        encoded = encoded[table.sellable[encoded]][: serving_candidates.ENCODER].astype(np.int32)
        expected = serving_candidates.candidates(memory, table, encoded, table.sellable, filtered=False)
        order = np.argsort(expected.items)
        np.testing.assert_array_equal(found.item[mine], expected.items[order])
        np.testing.assert_array_equal(found.bits[mine], expected.bits[order])
        together = dict(zip(memory.together.tolist(), memory.together_scores.tolist(), strict=True))
        np.testing.assert_allclose(
            found.co_bought[mine],
            [together.get(item, 0.0) for item in expected.items[order].tolist()],
            rtol=1e-6,
        )


def history_of(lines: requests.Lines, customer: int, moment_us: int) -> History:
    past = lines.before(customer, moment_us)
    size = past.stop - past.start
    at_us = lines.at_us[past]
    return History(
        at=at_us / DAY, at_us=at_us, item=lines.item[past].astype(np.int32),
        action=np.full(size, 12, np.int8), channel=np.full(size, 10, np.int8), session=at_us,
        quantity=np.ones(size, np.float32), unit_price=np.ones(size, np.float32),
        discount=np.zeros(size, np.float32), store=lines.store[past].astype(np.int32),
        size=np.full(size, -1, np.int32),
    )  # fmt: skip


def test_requests_are_first_baskets_and_come_once() -> None:
    lines = random_lines()
    moments = requests.cuts(17020.0, 17090.0, 14)
    assert moments == [17020.0, 17034.0, 17048.0, 17062.0, 17076.0]
    asked = requests.training_requests(lines, moments, 17090.0)
    keys = list(zip(asked.customer.tolist(), asked.at_us.tolist(), strict=True))
    assert len(set(keys)) == len(keys)
    assert (asked.at_us < 17090 * DAY).all()
    for row, (customer, at_us) in enumerate(keys):
        own = slice(lines.offsets[customer], lines.offsets[customer + 1])
        times = lines.at_us[own]
        assert not ((times >= asked.cut_us[row]) & (times < at_us)).any()
        expected = lines.item[own][times == at_us]
        assert asked.targets.select(np.array([row])).items.tolist() == expected.tolist()


def test_the_usual_store_is_the_one_of_late() -> None:
    at_us = np.array([0, 1, 2, 100, 101]) * DAY
    lines = requests.Lines(
        np.array(["a"]), np.array([0, 5]), at_us, np.arange(5), np.array([0, 0, 0, 1, 1])
    )  # fmt: skip
    nothing = Targets(np.array([0, 0]), np.zeros(0, np.int64))

    def at(day: float) -> requests.Requests:
        moment = np.array([int(day * DAY)])
        return requests.Requests(np.array([0]), moment, moment, np.array([-1]), nothing)

    assert requests.usual_stores(lines, at(50)).tolist() == [0]
    assert requests.usual_stores(lines, at(102)).tolist() == [1]
    assert requests.usual_stores(lines, at(0)).tolist() == [-1]


def learned() -> tuple[lgb.Booster, np.ndarray]:
    """Trees over features with few distinct, awkward values, so that thresholds fall between close numbers."""
    width = len(RANKER_FEATURES)
    features = (RNG.integers(0, 30, (4000, width)) / 3).astype(np.float32)
    features[:, 0] = np.nextafter(np.float32(1), np.float32(2), dtype=np.float32) * (features[:, 0] > 5) + 1
    label = (features[:, 1] + features[:, 0] + RNG.normal(0, 2, 4000) > 8) * 1
    booster = lgb.train(
        {"objective": "lambdarank", "verbose": -1, "min_data_in_leaf": 5, "num_threads": 1},
        lgb.Dataset(features, label, group=[40] * 100), 30,
    )  # fmt: skip
    return booster, features


def test_single_precision_thresholds_change_no_decision() -> None:
    booster, features = learned()
    rounded = model.single_precision(booster, 30)
    np.testing.assert_array_equal(model.predict(rounded, features), model.predict(booster, features))
    thresholds = rounded.trees_to_dataframe()["threshold"].dropna().to_numpy(float)
    np.testing.assert_array_equal(thresholds, thresholds.astype(np.float32))


def test_the_graph_ranks_as_the_trees_do(tmp_path: pathlib.Path) -> None:
    booster, features = learned()
    rounded = model.single_precision(booster, 30)
    export.export_onnx(rounded, tmp_path / "ranker.onnx")
    parity = export.check_parity(rounded, tmp_path / "ranker.onnx", features)
    assert parity.mismatches == 0
    assert parity.largest < 1e-5


def test_a_graph_of_other_trees_is_refused(tmp_path: pathlib.Path) -> None:
    booster, features = learned()
    export.export_onnx(model.single_precision(booster, 30), tmp_path / "ranker.onnx")
    with pytest.raises(export.ParityError, match="batch 1"):
        export.check_parity(model.single_precision(booster, 10), tmp_path / "ranker.onnx", features)


def test_labels_and_sampling() -> None:
    rows, chosen = np.array([0, 0, 0, 1, 1]), np.array([1, 4, 6, 2, 4])
    zeros = np.zeros(5, np.float32)
    found = candidates.Candidates(
        rows, chosen, np.zeros(5, np.uint8), zeros, zeros, np.array([0, 1, 0, 0, 1], np.float32)
    )
    label = data.labels(found, targets_of([[4, 9], [2]]))
    assert label.tolist() == [False, True, False, True, False]
    nothing_weak = data.sample(found, label, RankerParams(keep_weak=0.0), seed=0)
    assert nothing_weak.tolist() == [False, True, False, True, True]


def test_promotions_are_those_of_the_store_and_week() -> None:
    keys = np.array([(5 * 2 + 1) * 10 + 3, (6 * 2 + 0) * 10 + 3])
    found = data.Promotions(keys, np.array([True, False]), np.array([False, True]), 2, 10)
    flags = found.flags(np.array([5, 5, 6, 6]), np.array([1, 0, 0, -1]), np.array([3, 3, 3, 3]))
    assert flags["x_display"].tolist() == [1, 0, 0, 0]
    assert flags["x_mailer"].tolist() == [0, 0, 1, 0]


def test_groups_follow_the_order_of_the_requests() -> None:
    row = np.array([4, 4, 0, 2, 2, 2], np.int64)
    none = np.zeros(6, np.float32)
    found = candidates.Candidates(row, np.arange(6), np.zeros(6, np.uint8), none, none, none)
    built = data.Dataset(np.zeros((6, 1), np.float32), np.zeros(6, np.bool_), found, 5)
    assert built.groups.tolist() == [2, 1, 3]
    assert built.rows(slice(2, 6)).groups.tolist() == [1, 3]
    assert np.shares_memory(built.rows(slice(2, 6)).features, built.features)
    assert built.rows(np.array([True, False, True, False, False, False])).groups.tolist() == [1, 1]
