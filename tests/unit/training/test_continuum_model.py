"""What the network may see, and what its parts are for."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch

from contracts.events import ACTIONS
from tests.unit.training.toys import SMALL, encoder, sequences, vocabulary
from training.config import EncoderParams
from training.continuum.batches import Batch, cut_windows, find_steps, make_batches
from training.continuum.blocks import time_bucket
from training.continuum.data import encode_content
from training.continuum.infer import pack
from training.continuum.loss import NegativeSampler, total_loss
from training.continuum.model import Encoder, Readout, step_numbers

BASKETS = [(1.0, 1), (1.0, 2), (3.0, 1), (3.0, 3), (9.0, 4)]
TWO_BLOCKS = msgspec.structs.replace(SMALL, blocks=2)


def batch_of(history: list[tuple[float, int]]) -> Batch:
    found = sequences([history])
    rng = np.random.default_rng(0)
    steps = find_steps(found)
    windows = cut_windows(found, steps, 16, 0.5, 0.0, rng)
    return next(
        make_batches(found, steps, windows, batch=1, queries=16, target_actions=("purchase",), rng=rng)
    )


def read(model: Encoder, batch: Batch) -> Readout:
    data = {name: torch.from_numpy(value) for name, value in vars(batch).items()}
    x = model.tokens(model.items(data["item"]), data["action"], data["channel"])
    with torch.no_grad():
        return model.encode(
            x, data["action"] > 0, data["time"], data["step"], data["request_time"], data["request_step"]
        )


def scores(model: Encoder, history: list[tuple[float, int]], at: float) -> np.ndarray:
    inputs = pack(sequences([history]), np.array([0]), np.array([at]), model.params.length)
    with torch.no_grad():
        found, _ = model(*(torch.from_numpy(inputs[name]) for name in ("item", "action", "channel", "age")))
    return found[0, 1:].numpy()


@pytest.mark.parametrize("params", [SMALL, TWO_BLOCKS])
def test_a_request_sees_earlier_steps_and_nothing_of_its_own(params: EncoderParams) -> None:
    model = encoder(params)
    before = read(model, batch_of(BASKETS))
    own = read(model, batch_of([*BASKETS[:2], (3.0, 8), (3.0, 9), BASKETS[4]]))
    assert torch.allclose(before.state[0, :2], own.state[0, :2])
    assert not torch.allclose(before.state[0, 2], own.state[0, 2])
    earlier = read(model, batch_of([(1.0, 9), *BASKETS[1:]]))
    assert torch.allclose(before.state[0, 0], earlier.state[0, 0])
    assert not torch.allclose(before.state[0, 1], earlier.state[0, 1])


@pytest.mark.parametrize("params", [SMALL, TWO_BLOCKS])
def test_a_basket_has_no_order_inside(params: EncoderParams) -> None:
    model = encoder(params)
    turned = [BASKETS[1], BASKETS[0], BASKETS[3], BASKETS[2], BASKETS[4]]
    assert np.allclose(scores(model, BASKETS, 12.0), scores(model, turned, 12.0), atol=1e-5)


@pytest.mark.parametrize("params", [SMALL, TWO_BLOCKS])
def test_training_and_answering_say_the_same(params: EncoderParams) -> None:
    """The third request of the window is the question 'what comes at day 9?'."""
    model = encoder(params)
    learned = read(model, batch_of(BASKETS))
    inputs = pack(sequences([BASKETS]), np.array([0]), np.array([9.0]), 16)
    with torch.no_grad():
        _, state = model(*(torch.from_numpy(inputs[name]) for name in ("item", "action", "channel", "age")))
    assert torch.allclose(learned.state[0, 2], state[0], atol=1e-5)


def test_padding_changes_nothing() -> None:
    model = encoder()
    inputs = pack(sequences([BASKETS]), np.array([0]), np.array([12.0]), 16)
    wide = {name: np.pad(value, ((0, 0), (9, 0))) for name, value in inputs.items()}
    with torch.no_grad():
        narrow, broad = (
            model(*(torch.from_numpy(given[name]) for name in ("item", "action", "channel", "age")))[0]
            for given in (inputs, wide)
        )
    assert torch.allclose(narrow, broad, atol=1e-5)


def test_the_time_of_the_request_matters_only_with_time_bias() -> None:
    with_time = encoder()
    assert not np.allclose(scores(with_time, BASKETS, 10.0), scores(with_time, BASKETS, 300.0))
    without = encoder(msgspec.structs.replace(SMALL, time_bias=False))
    assert np.allclose(scores(without, BASKETS, 10.0), scores(without, BASKETS, 300.0))


def test_time_buckets_are_logarithmic_and_ascend() -> None:
    days = torch.tensor([-1.0, 0.0, 1 / 86_400, 1.0, 2.0, 4.0, 1e6])
    found = time_bucket(days, 2).tolist()
    assert found[:2] == [0, 0]
    assert found == sorted(found)
    assert found[4] - found[3] == found[5] - found[4] == 2


def test_steps_are_numbered_by_age() -> None:
    age = torch.tensor([[0.0, 9.0, 9.0, 4.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    valid = torch.tensor([[False, True, True, True, True, True], [False] * 6])
    assert step_numbers(age, valid)[0, 1:].tolist() == [0, 0, 1, 2, 2]


@pytest.mark.parametrize("params", [SMALL, TWO_BLOCKS, msgspec.structs.replace(SMALL, pointer=False)])
def test_an_empty_history_has_finite_scores(params: EncoderParams) -> None:
    found = scores(encoder(params), [], 5.0)
    assert np.isfinite(found).all()


def test_the_untrained_pointer_prefers_what_was_bought_more_often_and_lately() -> None:
    torch.manual_seed(0)
    model = Encoder(vocabulary(), SMALL).eval()
    found = scores(model, [(1.0, 30), (80.0, 29), (90.0, 28), (95.0, 28)], 100.0)
    assert found[27] > found[28] > found[29]
    assert found[27] > np.delete(found, 27).max()


def test_unknown_items_do_not_point_anywhere() -> None:
    model = encoder()
    found = scores(model, [(1.0, 0), (2.0, 0)], 3.0)
    assert np.isfinite(found).all()
    assert found.shape == (30,)


def test_content_makes_a_cold_item_reachable() -> None:
    """Customers buy one category each; items 28 to 30 are never seen, one of each category."""
    params = msgspec.structs.replace(
        SMALL, pointer=False, item_dropout=0.5, learning_rate=1e-2, negatives=27, logq=False, item_bias=False
    )
    cold = (28, 29, 30)
    torch.manual_seed(0)
    words = vocabulary(cold=cold)
    model = Encoder(words, params)
    rng = np.random.default_rng(0)
    histories = [
        [
            (float(day), int(rng.choice(np.arange(1, 28)[np.arange(1, 28) % 3 == customer % 3])))
            for day in range(12)
        ]
        for customer in range(24)
    ]
    found = sequences(histories)
    steps = find_steps(found)
    generator = torch.Generator().manual_seed(0)
    sampler = NegativeSampler(words.count, params, generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=params.learning_rate)
    for _ in range(12):
        windows = cut_windows(found, steps, 16, 0.5, 0.0, rng)
        for batch in make_batches(
            found, steps, windows, batch=8, queries=16, target_actions=("purchase",), rng=rng
        ):
            hidden = torch.rand(31, generator=generator) < params.item_dropout
            loss, _ = total_loss(model, batch, sampler.draw(), hidden)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    for category in range(3):
        bought = [item for item in range(1, 28) if item % 3 == category][:6]
        got = scores(model, [(float(day), item) for day, item in enumerate(bought)], 7.0)
        best = max(cold, key=lambda item: got[item - 1])
        assert best % 3 == category


def test_vectors_are_a_further_content() -> None:
    words = vocabulary()
    vectors = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    content = encode_content({"category": np.array(["c"] * 30)}, 30, vectors)
    torch.manual_seed(0)
    model = Encoder(type(words)(words.product_id, words.count, content, words.cold), SMALL).eval()
    table = model.items(torch.arange(31)) - model.items.own(torch.arange(31))
    assert not torch.allclose(table[1], table[2])


def test_every_action_has_its_own_meaning() -> None:
    model = encoder()
    view = sequences([[(1.0, 5)]], action=[ACTIONS.index("view")])
    bought = sequences([[(1.0, 5)]])
    got = []
    for found in (view, bought):
        inputs = pack(found, np.array([0]), np.array([2.0]), 16)
        with torch.no_grad():
            got.append(model(*(torch.from_numpy(inputs[n]) for n in ("item", "action", "channel", "age")))[0])
    assert not torch.allclose(got[0], got[1])


def test_item_vectors_of_length_one_score_as_cosines() -> None:
    model = encoder(msgspec.structs.replace(SMALL, unit_items=True, pointer=False, item_bias=False))
    ids = torch.arange(1, 31)
    np.testing.assert_allclose(model.items(ids).norm(dim=-1).detach(), 1.0, rtol=1e-5)
    own = model.items.own.weight[ids] + model.items.fields[0].weight[model.items.codes[ids, 0]]
    np.testing.assert_allclose(
        model.items(ids).detach(), (own / own.norm(dim=-1, keepdim=True)).detach(), rtol=1e-5
    )
