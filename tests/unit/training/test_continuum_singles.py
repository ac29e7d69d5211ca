"""The lean path says what the general one says, where both can speak; and where the encoder may start from."""

from __future__ import annotations

import pathlib

import msgspec
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from contracts.events import ACTIONS
from tests.unit.training.toys import SMALL, encoder, sequences, vocabulary
from training.config import EncoderParams
from training.continuum import singles
from training.continuum.batches import cut_windows, find_steps, make_batches
from training.continuum.cold import level_lengths
from training.continuum.data import (
    Content,
    Sequences,
    Vocabulary,
    encode_content,
    load_vocabulary,
    save_vocabulary,
)
from training.continuum.fit import Average, seen_items
from training.continuum.loss import Negatives, total_loss
from training.continuum.model import Encoder, ItemTable
from training.continuum.start import (
    co_occurrence,
    share_with_content,
    spectral_start,
    spectral_vectors,
)

PARAMS = msgspec.structs.replace(SMALL, pointer=False, action_weight=0.0, customer_balance=0.5)
HISTORIES = [
    [(float(day), 1 + (3 * day + row * row) % 30) for day in range(size)]
    for row, size in enumerate((5, 2, 9, 1, 4))
]


def lean(found: Sequences, params: EncoderParams, seed: int = 0) -> list[singles.SingleBatch]:
    steps, rng = find_steps(found), np.random.default_rng(seed)
    assert singles.fits(found, steps, params)
    return list(singles.single_batches(found, singles.single_windows(found, steps, params, rng), params, rng))


@pytest.mark.parametrize(
    "change", [{}, {"blocks": 2}, {"time_bias": False}, {"block": "plain"}, {"length": 4}]
)
def test_loss_and_gradients_are_those_of_the_general_batches(change: dict[str, object]) -> None:
    params = msgspec.structs.replace(PARAMS, batch=99, **change)
    found, model = sequences(HISTORIES), encoder(params)
    negatives = Negatives(torch.tensor([3, 9, 9, 27, 1, 14]), torch.randn(6))
    hidden = torch.zeros(31, dtype=torch.bool)
    hidden[[4, 9]] = True
    (batch,) = lean(found, params)
    steps, rng = find_steps(found), np.random.default_rng(0)
    windows = cut_windows(found, steps, params.length, params.stride, params.customer_balance, rng)
    (general,) = make_batches(
        found, steps, windows, batch=99, queries=99, target_actions=params.target_actions, rng=rng
    )
    results = []
    for one in (batch, general):
        model.zero_grad()
        loss, _ = total_loss(model, one, negatives, hidden)
        loss.backward()
        grads = {
            name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None
        }
        results.append((loss.item(), grads))
    if params.length > 9:
        assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
        assert results[0][1].keys() == results[1][1].keys()
        for name, grad in results[0][1].items():
            assert torch.allclose(grad, results[1][1][name], atol=2e-6), name
    assert batch.request.sum() == general.request.sum()


def test_every_event_is_a_target_once_and_the_first_only_if_asked_for() -> None:
    found = sequences(HISTORIES)
    for first, expected in ((True, 21), (False, 16)):
        params = msgspec.structs.replace(PARAMS, length=4, learn_first=first)
        assert sum(int(batch.request.sum()) for batch in lean(found, params, seed=3)) == expected


def test_data_that_holds_more_goes_the_general_way() -> None:
    baskets = sequences([[(1.0, 1), (1.0, 2)]])
    refused = sequences([[(1.0, 1), (2.0, 2)]], action=[0, ACTIONS.index("return")])
    plain = sequences([[(1.0, 1), (2.0, 2)]])
    assert not singles.fits(baskets, find_steps(baskets), PARAMS)
    assert not singles.fits(refused, find_steps(refused), PARAMS)
    assert not singles.fits(plain, find_steps(plain), SMALL)
    assert singles.fits(plain, find_steps(plain), PARAMS)


def test_bce_takes_one_negative_for_each_request() -> None:
    (batch,) = lean(sequences(HISTORIES), msgspec.structs.replace(PARAMS, batch=99))
    model = encoder(msgspec.structs.replace(PARAMS, loss="bce"))
    alone = Negatives(torch.tensor([8]), torch.zeros(1))
    loss, _ = total_loss(model, batch, alone, None)
    data = {name: torch.from_numpy(value) for name, value in vars(batch).items()}
    x = model.tokens(model.items(data["item"]), data["action"], data["channel"])
    state = model.encode(x, data["action"] > 0, data["time"], data["step"], data["time"], data["step"]).state
    logits = state @ model.items(torch.arange(31)).T + model.items.bias(torch.arange(31))
    total, weights = 0.0, 0.0
    for row, column in zip(*np.nonzero(batch.request), strict=True):
        target, weight = int(batch.item[row, column]), float(batch.weight[row])
        each = torch.nn.functional.softplus(-logits[row, column, target])
        if target != 8:
            each = each + torch.nn.functional.softplus(logits[row, column, 8])
        total, weights = total + weight * each.item(), weights + weight
    assert loss.item() == pytest.approx(total / weights, rel=1e-5)


def test_tags_are_averaged_and_hidden_items_live_from_them(tmp_path: pathlib.Path) -> None:
    words = vocabulary()
    tags = np.zeros((31, 2), np.int64)
    tags[1:, 0] = 1 + np.arange(30) % 3
    tags[5] = [2, 3]
    content = Content((), (), np.zeros((31, 0), np.int64), None, tags)
    words = Vocabulary(words.product_id, words.count, content, words.cold)
    model = Encoder(words, PARAMS).eval()
    assert model.items.tag is not None
    hidden = torch.zeros(31, dtype=torch.bool)
    hidden[5] = True
    with torch.no_grad():
        got = model.items(torch.tensor([[5, 1]]), hidden)
        weights = model.items.tag.weight
        assert torch.allclose(got[0, 0], (weights[2] + weights[3]) / 2, atol=1e-6)
        assert torch.allclose(got[0, 1], model.items.own.weight[1] + weights[1], atol=1e-6)
        assert model.items.bias(torch.tensor([5, 1]), hidden).shape == (2,)
    path = tmp_path / "words.npz"
    save_vocabulary(path, words)
    assert np.array_equal(load_vocabulary(path).content.tags, tags)


def test_co_occurrence_counts_near_pairs_more_and_never_across_customers() -> None:
    found = sequences([[(0.0, 1), (1.0, 2), (2.0, 3)], [(0.0, 4), (1.0, 1)]])
    pairs = co_occurrence(found, find_steps(found).of, 30).toarray()
    assert np.array_equal(pairs, pairs.T)
    assert pairs[1, 2] == pairs[2, 3] == pairs[1, 4] == 1.0
    assert pairs[1, 3] == pytest.approx(2 ** (-1 / 3))
    assert pairs[3, 4] == pairs[2, 4] == 0.0
    assert pairs.sum() == pytest.approx(2 * (3 + 2 ** (-1 / 3)))


def test_spectral_vectors_approach_the_normalised_matrix() -> None:
    """With as many columns as items and a matrix without negative eigenvalues nothing is lost."""
    rng = np.random.default_rng(0)
    root = np.abs(rng.standard_normal((12, 12))).astype(np.float32)
    pairs = sp.csr_matrix(root @ root.T)
    vectors = spectral_vectors(pairs, 12, rng)
    scale = (pairs.toarray().sum(1) + 20.0) ** -0.5
    wanted = scale[:, None] * pairs.toarray() * scale
    got = vectors @ vectors.T
    assert np.allclose(got / got.max(), wanted / wanted.max(), atol=1e-3)
    assert np.linalg.norm(vectors, axis=1).mean() == pytest.approx(1.0, abs=1e-5)


def test_a_spectral_start_already_names_neighbours() -> None:
    """Items come in five cycles of six; before any training the next of the cycle is among the first answers."""
    histories = [[(float(day), 1 + 6 * (row % 5) + (row + day) % 6) for day in range(6)] for row in range(60)]
    found, params = sequences(histories), msgspec.structs.replace(PARAMS, dim=16, item_bias=False)
    torch.manual_seed(0)
    model = Encoder(vocabulary(), params).eval()
    spectral_start(model, found, find_steps(found).of, np.random.default_rng(0))
    item, action = torch.tensor([[1, 2, 3], [13, 14, 15]]), torch.ones(2, 3, dtype=torch.long)
    with torch.no_grad():
        scores, _ = model(item, action, action, torch.tensor([[3.0, 2.0, 1.0]] * 2))
    best = scores[:, 1:].topk(6).indices + 1
    assert set(best[0].tolist()) == set(range(1, 7))
    assert set(best[1].tolist()) == set(range(13, 19))


def test_a_spectral_start_is_shared_with_content_and_reaches_items_without_pairs() -> None:
    """Item 30 is never seen; it starts at the mean of its tag's items, all others exactly at their vectors."""
    tags = np.zeros((31, 2), np.int64)
    tags[1:, 0] = 1 + np.arange(30) % 3
    tags[::2, 1] = np.where(tags[::2, 0] > 0, 4, 0)
    known = torch.arange(31) < 30
    known[0] = False
    content = encode_content({"category": np.array([f"c{i % 2}" for i in range(30)])}, 30)
    content = Content(content.fields, content.values, content.codes, None, tags)
    items = ItemTable(
        Vocabulary(np.arange(31).astype(str), np.ones(31), content, np.zeros(31, bool)), 16, False
    )
    vectors = torch.randn(31, 16)
    with torch.no_grad():
        items.own.weight.copy_(share_with_content(items, vectors, known))
        found = items(torch.arange(31))
    assert torch.allclose(found[known], vectors[known], atol=1e-5)
    assert not items.own.weight[30].any()
    means = torch.stack([vectors[1:30][content.codes[1:30, 0] == code].mean(0) for code in (1, 2)])
    assert torch.allclose(items.fields[0].weight[1:], means, atol=1e-5)


def test_the_average_follows_the_weights() -> None:
    model = encoder(PARAMS)
    mean = Average(model, 0.5)
    before = model.request.detach().clone()
    with torch.no_grad():
        model.request.add_(1.0)
    mean.update()
    share = 1 - min(0.5, 1 / 11)
    assert torch.allclose(mean.encoder.request, before + share, atol=1e-6)
    assert Average(model, 0.0).encoder is model


def test_seen_items_are_those_before_the_moment() -> None:
    found = sequences([[(0.0, 1), (1.0, 2), (2.0, 3)], [(0.0, 4), (1.0, 1)]])
    rows, items = seen_items(found, np.array([1, 0]), np.array([1.0, 2.0]))
    assert sorted(zip(rows.tolist(), items.tolist(), strict=True)) == [(0, 4), (1, 1), (1, 2)]


def test_cold_items_get_the_typical_length_of_the_others() -> None:
    table, cold = torch.randn(31, 8), torch.zeros(31, dtype=torch.bool)
    cold[[4, 9, 20]] = True
    table[cold] *= 0.1
    found = level_lengths(table, cold)
    lengths = found.norm(dim=1)
    warm = ~cold
    warm[0] = False
    assert torch.equal(found[~cold], table[~cold])
    assert lengths[cold].median() == pytest.approx(lengths[warm].median().item(), rel=1e-5)
    assert torch.allclose(torch.cosine_similarity(found[cold], table[cold]), torch.ones(3), atol=1e-5)
    assert level_lengths(table, torch.zeros(31, dtype=torch.bool)) is table
    nothing = table.clone()
    nothing[cold] = 0.0
    assert level_lengths(nothing, cold) is nothing
