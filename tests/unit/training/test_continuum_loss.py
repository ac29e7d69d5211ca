"""Sampled softmax against the softmax that it stands for."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch

from contracts.events import ACTIONS
from tests.unit.training.toys import PURCHASE, SMALL, encoder, sequences
from training.continuum.batches import Batch, cut_windows, find_steps, make_batches
from training.continuum.blocks import FAR
from training.continuum.data import Sequences
from training.continuum.infer import pack
from training.continuum.loss import Negatives, NegativeSampler, ideal_weight, sampled_softmax, total_loss

HISTORIES = [[(1.0, 1), (1.0, 2), (3.0, 1), (3.0, 3), (9.0, 4)], [(2.0, 7), (5.0, 7), (6.0, 9)]]


def batch_of(found: Sequences) -> Batch:
    rng = np.random.default_rng(0)
    steps = find_steps(found)
    windows = cut_windows(found, steps, 16, 0.5, 0.0, rng)
    return next(
        make_batches(found, steps, windows, batch=4, queries=16, target_actions=("purchase",), rng=rng)
    )


@pytest.mark.parametrize("pointer", [True, False])
def test_with_every_item_as_negative_it_is_the_full_softmax(pointer: bool) -> None:
    """The full softmax is taken from the scores that the network answers with."""
    model = encoder(msgspec.structs.replace(SMALL, pointer=pointer))
    found = sequences(HISTORIES)
    everything = Negatives(torch.arange(1, 31), torch.zeros(30))
    loss, parts = total_loss(model, batch_of(found), everything, None)
    expected, weights = [], []
    for row, history in enumerate(HISTORIES):
        for day in sorted({at for at, _ in history}):
            inputs = pack(found, np.array([row]), np.array([day]), 16)
            with torch.no_grad():
                scores, _ = model(
                    *(torch.from_numpy(inputs[n]) for n in ("item", "action", "channel", "age"))
                )
            logits = scores[0, 1:].double()
            wanted = [item - 1 for at, item in history if at == day]
            others = torch.ones(30, dtype=torch.bool)
            others[wanted] = False
            against = logits[others].logsumexp(0)
            for item in wanted:
                expected.append(float(torch.logaddexp(logits[item], against) - logits[item]))
                weights.append(float(ideal_weight(torch.tensor(len(wanted)))))
    assert parts["item"] == pytest.approx(np.average(expected, weights=weights), rel=1e-4)
    assert torch.isfinite(loss)


@pytest.mark.parametrize("popular", [0.0, 0.5])
def test_corrected_negatives_estimate_the_sum_over_the_catalogue(popular: float) -> None:
    params = msgspec.structs.replace(SMALL, negatives=64, popular_negatives=popular)
    count = np.concatenate([[0.0], np.geomspace(1000, 1, 50)])
    sampler = NegativeSampler(count, params, torch.Generator().manual_seed(0))
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=51)).float()
    estimates = []
    for _ in range(400):
        drawn = sampler.draw()
        assert drawn.ids.min() >= 1
        estimates.append(torch.exp(logits[drawn.ids] - drawn.log_expected).sum().item())
    assert np.mean(estimates) == pytest.approx(torch.exp(logits[1:]).sum().item(), rel=0.05)


def test_without_correction_negatives_count_as_they_are() -> None:
    params = msgspec.structs.replace(SMALL, logq=False)
    drawn = NegativeSampler(np.ones(31), params, torch.Generator().manual_seed(0)).draw()
    assert drawn.log_expected.abs().sum() == 0
    assert len(drawn.ids) == params.negatives


def test_a_hand_worked_case() -> None:
    """One request with two targets, one rival and one negative; each target fights only the others."""
    known = torch.tensor([[[1.0, 2.0, 0.5, 9.0]]])
    target = torch.tensor([[[True, True, False, False]]])
    rival = torch.tensor([[[False, False, True, False]]])
    sampled = torch.tensor([[[0.0, FAR]]])
    against = np.log(np.exp(0.5) + 1.0)
    each = [np.logaddexp(value, against) - value for value in (1.0, 2.0)]
    found = sampled_softmax(known, target, rival, sampled, torch.ones(1, 1))
    assert found.item() == pytest.approx(np.mean(each), rel=1e-6)


def test_requests_without_targets_or_weight_do_not_count() -> None:
    known = torch.zeros(1, 3, 2)
    target = torch.tensor([[[True, False], [False, False], [True, False]]])
    sampled = torch.zeros(1, 3, 1)
    rival = torch.zeros_like(target)
    found = sampled_softmax(known, target, rival, sampled, torch.tensor([[1.0, 1.0, 0.0]]))
    assert found.item() == pytest.approx(np.log(2.0))
    nothing = sampled_softmax(known, torch.zeros_like(target), rival, sampled, torch.ones(1, 3))
    assert nothing.item() == 0.0


def test_a_target_weighs_what_a_hit_is_worth() -> None:
    found = ideal_weight(torch.tensor([0, 1, 2, 10, 50]))
    gains = 1 / np.log2(np.arange(10) + 2)
    assert found.tolist() == pytest.approx([1.0, 1.0, 1 / gains[:2].sum(), 1 / gains.sum(), 1 / gains.sum()])


def test_heads_learn_only_where_the_data_has_labels() -> None:
    model = encoder()
    drawn = Negatives(torch.arange(1, 31), torch.zeros(30))
    _, plain = total_loss(model, batch_of(sequences(HISTORIES)), drawn, None)
    assert set(plain) == {"item", "action", "channel"}
    view, dismiss = ACTIONS.index("view"), ACTIONS.index("dismiss")
    rich = sequences(
        [[(1.0, 1), (1.1, 2), (1.2, 2), (2.0, 3), (2.1, 4)]],
        action=[view, dismiss, PURCHASE, view, view], session=[0, 0, 0, 1, 1],
    )  # fmt: skip
    loss, parts = total_loss(model, batch_of(rich), drawn, None)
    assert set(parts) == {"item", "action", "channel", "buy", "avoid"}
    loss.backward()
    assert model.buy_head.weight.grad is not None
    assert model.avoid_head.weight.grad is not None
