"""A large catalogue is searched exactly: whatever brute force finds, the bounded search finds."""

from __future__ import annotations

import pathlib

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.engine.bounded import BLOCK, BoundedIndex, Fixed
from serving.engine.large import LargeEncoder, open_encoder
from serving.engine.sessions import GraphError, Session
from serving.engine.split import PARTS, split
from tests.unit.training.toys import SMALL, encoder
from training.continuum.ensemble import Ensemble
from training.continuum.export import example_inputs, export_onnx

ITEMS, K = 3000, 20
SHAPES = [(1, 1), (1, 16), (2, 5), (7, 16)]


def brute(table: np.ndarray, bias: np.ndarray, state: np.ndarray, k: int, denied: np.ndarray) -> tuple:
    scores = (table.astype(np.float64) @ state.astype(np.float64) + bias).astype(np.float32)
    scores[denied] = -np.inf
    order = np.lexsort((np.arange(len(table)), -scores))[:k]
    order = order[scores[order] > -np.inf]
    return order, scores[order]


def check(
    index: BoundedIndex, table: np.ndarray, bias: np.ndarray, states: np.ndarray, k: int, deny: np.ndarray
) -> int:
    found = index.search(states, k, deny)
    for row, state in enumerate(states):
        ids, scores = brute(table, bias, state, k, deny[row % len(deny)])
        assert found.ids[row, : len(ids)].tolist() == ids.tolist()
        np.testing.assert_array_equal(found.scores[row, : len(ids)], scores)
        assert (found.scores[row, len(ids) :] == -np.inf).all()
    return int(found.rescored.max())


@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize("shared", [True, False])
def test_equals_brute_force_over_several_segments(batch: int, shared: bool) -> None:
    rng = np.random.default_rng(batch)
    table = rng.standard_normal((20_000, 64)).astype(np.float32)
    bias = rng.standard_normal(20_000).astype(np.float32)
    index = BoundedIndex(table, bias, segment=4096)
    states = rng.standard_normal((batch, 64)).astype(np.float32)
    deny = rng.random((1 if shared else batch, 20_000)) < 0.3
    assert check(index, table, bias, states, K, deny) < 1000, "most of the table is never scored"


@settings(max_examples=60, deadline=None)
@given(
    items=st.integers(1, 1500),
    k=st.integers(1, 40),
    denied=st.sampled_from([0.0, 0.001, 0.5, 0.99, 1.0]),
    levels=st.sampled_from([0, 1, 2]),
    spread=st.sampled_from([0.0, 1.0, 6.0]),
    seed=st.integers(0, 10_000),
)
def test_equals_brute_force_on_any_table(
    items: int, k: int, denied: float, levels: int, spread: float, seed: int
) -> None:
    """Small and empty tables, whole numbers (many exact ties), norms over orders of magnitude."""
    rng = np.random.default_rng(seed)
    draw = (
        (lambda *shape: rng.standard_normal(shape))
        if levels == 0
        else (lambda *shape: rng.integers(-levels, levels + 1, shape))
    )
    table = (draw(items, 8) * np.exp(spread * rng.standard_normal((items, 1)).round())).astype(np.float32)
    bias, states = draw(items).astype(np.float32), draw(2, 8).astype(np.float32)
    check(BoundedIndex(table, bias, BLOCK), table, bias, states, k, rng.random((2, items)) < denied)


def test_equal_items_come_in_the_order_of_their_ids() -> None:
    table = np.tile(np.random.default_rng(0).standard_normal((1, 64)).astype(np.float32), (5000, 1))
    index = BoundedIndex(table, np.zeros(5000, np.float32), 1024)
    deny = np.zeros((1, 5000), bool)
    deny[0, [0, 3]] = True
    found = index.search(table[:1], 5, deny)
    assert found.ids.tolist() == [[1, 2, 4, 5, 6]]


def test_sums_do_not_saturate() -> None:
    """The largest products of both signs: exact on every processor, or the bound would be wrong."""
    table = np.full((2 * BLOCK, 64), 1.0, np.float32)
    table[1::2] = -1.0
    state = np.full((1, 64), 63.0, np.float32)
    index = BoundedIndex(table, np.zeros(len(table), np.float32))
    segment = index._segments[0]
    (scores,), _ = segment.session.run(
        ("scores",), {"state": np.full((1, 64), 127, np.uint8), "step": np.ones(1, np.float32)}
    )
    np.testing.assert_allclose(scores[0, :2], [64 * 63, -64 * 63], rtol=1e-6)
    check(index, table, np.zeros(len(table), np.float32), state, 3, np.zeros((1, len(table)), bool))


def test_known_scores_replace_those_of_the_table() -> None:
    table = np.eye(4, dtype=np.float32)
    index = BoundedIndex(table, np.zeros(4, np.float32))
    state = np.array([[4, 3, 2, 1]], np.float32)
    known = [Fixed(np.array([1, 3]), np.array([3.5, 9.0]))]
    assert index.search(state, 3, None, known).ids.tolist() == [[3, 0, 1]]
    denied = np.array([[True, False, False, True]])
    assert index.search(state, 3, denied, known).ids.tolist() == [[1, 2, 0]]
    assert index.search(state, 3, denied, known).scores[0, 2] == -np.inf


@pytest.mark.parametrize(
    ("table", "bias", "message"),
    [
        (np.zeros((3, 2)), np.zeros(2), r"bias \[2\]"),
        (np.zeros((0, 2)), np.zeros(0), r"table is \[0, 2\]"),
        (np.array([[np.nan, 1.0]]), np.zeros(1), "not finite"),
    ],
)
def test_tables_that_cannot_be_searched_are_refused(
    table: np.ndarray, bias: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        BoundedIndex(table.astype(np.float32), bias.astype(np.float32))


def test_searches_that_do_not_fit_are_refused() -> None:
    index = BoundedIndex(np.ones((3, 2), np.float32), np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="states"):
        index.search(np.ones((1, 3), np.float32), 1)
    with pytest.raises(ValueError, match="deny"):
        index.search(np.ones((1, 2), np.float32), 1, np.zeros((1, 2), bool))
    with pytest.raises(ValueError, match="not finite"):
        index.search(np.full((1, 2), np.nan, np.float32), 1)


@pytest.fixture(scope="module", params=["pointer", "no pointer", "heads", "memory", "members"])
def content(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    params = msgspec.structs.replace(
        SMALL, pointer=request.param != "no pointer", blocks=2 if request.param == "heads" else 1,
        memory=5 if request.param == "memory" else 0,
    )  # fmt: skip
    path: pathlib.Path = tmp_path_factory.mktemp("large") / "encoder.onnx"
    made = encoder(params, items=ITEMS)
    if request.param == "members":
        made = Ensemble([made, encoder(params, items=ITEMS, seed=1)]).eval()
    export_onnx(made, path, ("buy", "avoid") if request.param in ("heads", "members") else ())
    return path.read_bytes()


@pytest.mark.parametrize(("batch", "length"), SHAPES)
@pytest.mark.parametrize("shared", [True, False])
def test_a_cut_encoder_answers_like_the_whole_one(
    content: bytes, batch: int, length: int, shared: bool
) -> None:
    whole, cut = Session("encoder", content), open_encoder("encoder", content, large=ITEMS)
    assert isinstance(cut, LargeEncoder)
    assert (cut.inputs, cut.outputs) == (whole.inputs, whole.outputs)
    rng = np.random.default_rng(batch)
    deny = rng.random((1 if shared else batch, ITEMS + 1)) < 0.1
    feed = {**example_inputs(batch, length, ITEMS + 1, seed=length), "deny": deny, "k": np.array([K])}
    every = {**feed, "deny": np.broadcast_to(deny, (batch, ITEMS + 1)).copy()}
    (scores, values, items), _ = whole.run(("scores", "top_scores", "top_items"), every)
    answer = cut.answer(feed)
    np.testing.assert_allclose(answer.top_scores, values, rtol=1e-5, atol=1e-5)
    for row in range(batch):
        assert not deny[row % len(deny), answer.top_items[row]].any()
        assert 0 not in answer.top_items[row]
        # The same items, but for those whose float32 sums tie.
        for a, b in zip(answer.top_items[row], items[row], strict=True):
            assert a == b or abs(scores[row, a] - scores[row, b]) < 1e-4
        asked = np.unique(np.concatenate((feed["item"][row], answer.top_items[row], [5, 17])))
        asked = asked[asked > 0]
        given = answer.row(row, asked)
        np.testing.assert_allclose(given[asked], scores[row, asked], rtol=1e-5, atol=1e-5)
        assert (np.delete(given, asked) == 0).all()


def test_a_small_catalogue_stays_whole(content: bytes) -> None:
    assert isinstance(open_encoder("encoder", content, large=ITEMS + 2), Session)
    assert isinstance(open_encoder("encoder", content), Session)


def test_a_graph_that_does_not_name_the_parts_of_its_scores_stays_whole(content: bytes) -> None:
    model = onnx.load_model_from_string(content)
    for output in list(model.graph.output):
        if output.name in PARTS:
            model.graph.output.remove(output)
    assert split(model.SerializeToString()) is None


def test_a_graph_without_its_table_is_refused(content: bytes) -> None:
    model = onnx.load_model_from_string(content)
    for tensor in model.graph.initializer:
        if tensor.name == "bias":
            tensor.name = "renamed"
    with pytest.raises(GraphError, match="no constants"):
        split(model.SerializeToString())
