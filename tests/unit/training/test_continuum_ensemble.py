"""Members as one encoder say the mean of what each says, and demand of late lifts what sells now."""

from __future__ import annotations

import dataclasses
import pathlib

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from tests.unit.training.toys import SMALL, encoder, sequences, vocabulary
from training.continuum import fit as loop
from training.continuum.batches import find_steps
from training.continuum.data import Sequences
from training.continuum.ensemble import Ensemble
from training.continuum.export import check_parity, example_inputs, export_onnx
from training.continuum.infer import open_session
from training.continuum.model import Encoder, mix
from training.continuum.trend import CALM, trend
from training.evaluation.metrics import targets_of

ITEMS = 30
PARTS = ("item", "action", "channel", "age")


def inputs(seed: int = 3) -> list[Tensor]:
    made = example_inputs(5, 9, ITEMS + 1, seed)
    return [torch.from_numpy(made[name]) for name in PARTS]


def members(**changes: object) -> list[Encoder]:
    params = msgspec.structs.replace(SMALL, **changes)
    return [encoder(params, seed=seed) for seed in (1, 2, 3)]


@torch.no_grad()
def test_without_a_pointer_scores_are_the_mean_of_the_members() -> None:
    several = members(pointer=False)
    given = inputs()
    wanted = torch.stack([one(*given)[0] for one in several]).mean(0)
    assert torch.allclose(Ensemble(several)(*given)[0], wanted, atol=1e-5)


@torch.no_grad()
def test_the_pointer_is_the_mean_of_theirs_and_all_heads_are_too() -> None:
    several, (item, *rest) = members(), inputs()
    whole, every = Ensemble(several), torch.arange(ITEMS + 1)
    table = whole.items(every)
    found = whole.read(table, item, *rest)
    read = [one.read(one.items(every), item, *rest) for one in several]
    plain = torch.stack(
        [
            said.state[:, 0] @ one.items(every).T + one.items.bias(every)
            for one, said in zip(several, read, strict=True)
        ]
    ).mean(0)
    pointers = torch.stack([said.pointer for said in read if said.pointer is not None]).mean(0)[:, 0]
    evidence = torch.zeros_like(plain).scatter_add(1, item, pointers.exp())
    scores, state = whole(item, *rest)
    assert torch.allclose(scores, mix(plain, evidence), atol=1e-4)
    for name in ("action_head", "channel_head", "buy_head"):
        said = [getattr(one, name)(each.state) for one, each in zip(several, read, strict=True)]
        assert torch.allclose(getattr(whole, name)(found.state), torch.stack(said).mean(0), atol=1e-5)
    avoided = [
        one.avoid_logits(each.state, one.items(every).unsqueeze(0))
        for one, each in zip(several, read, strict=True)
    ]
    assert torch.allclose(
        whole.avoid_logits(found.state, table.unsqueeze(0)), torch.stack(avoided).mean(0), atol=1e-5
    )
    assert state.shape == (5, 3 * SMALL.dim)


def test_it_is_exported_like_one_network(tmp_path: pathlib.Path) -> None:
    whole = Ensemble(members(memory=7)).eval()
    assert whole.memory is not None
    whole.memory.ids.random_(1, ITEMS + 1)[0] = 0
    whole.memory.weights.uniform_()[0] = 0.0
    whole.items.trend.normal_()[0] = 0.0
    path = tmp_path / "encoder.onnx"
    export_onnx(whole, path, ("buy", "avoid"))
    session = open_session(path)
    for batch, length in ((1, 1), (4, 12)):
        made = example_inputs(batch, length, ITEMS + 1)
        assert check_parity(whole, session, made, ("buy", "avoid")) < 1e-4


def test_each_member_is_what_its_seed_alone_would_give() -> None:
    """Bought weekly; item 9 only of late."""
    found = sequences(
        [
            [(7.0 * week, 9 if week > 7 and c % 2 else 1 + (c + k) % 8) for week in range(10) for k in (0, 1)]
            for c in range(12)
        ]
    )
    asked = loop.Validation(np.arange(12), np.full(12, 70.0), targets_of([[1 + c % 8] for c in range(12)]))
    params = msgspec.structs.replace(SMALL, epochs=2, patience=2, memory=5, memory_weights=(1.0, 0.0, 0.0))

    def learn(seed: int, **changes: object) -> loop.Fit:
        own = msgspec.structs.replace(params, **changes)
        return loop.fit(found, vocabulary(), own, asked, seen=found, seed=seed, progress=lambda line: None)

    both = learn(5, members=2, trend=0.5, trend_fade=0.2, fade=0.2)
    assert isinstance(both.encoder, Ensemble)
    alone = [learn(5, fade=0.2), learn(5 + loop.MEMBERS_APART)]
    for member, one in zip(both.encoder.members, alone, strict=True):
        for name, weight in member.named_parameters():
            assert torch.equal(weight, one.encoder.get_parameter(name))
    curves = [one.curves["validation_ndcg_at_10"] for one in alone]
    assert both.curves["validation_ndcg_at_10"] == pytest.approx(np.mean(curves, axis=0))
    assert both.encoder.memory is not None
    assert alone[0].encoder.memory is not None
    assert torch.equal(both.encoder.memory.weights, alone[0].encoder.memory.weights)
    every = torch.arange(31)
    lifted = both.encoder.items.bias(every) - torch.stack(
        [one.encoder.items.bias(every) for one in alone]
    ).mean(0)
    np.testing.assert_allclose(lifted.detach(), 0.5 * trend(found, 30, 0.2), atol=1e-6)
    assert int(lifted.argmax()) == 9


def test_a_member_that_learns_both_ways_does_so_in_half_the_epochs() -> None:
    found = sequences([[(7.0 * week, 1 + (c + week) % 8) for week in range(10)] for c in range(12)])
    nobody = loop.Validation(np.zeros(0, np.int64), np.zeros(0), targets_of([]))
    params = msgspec.structs.replace(SMALL, action_weight=0.0, label_weight=0.0)

    def learn(of: Sequences, seed: int, **changes: int) -> loop.Fit:
        own = msgspec.structs.replace(params, **changes)
        return loop.fit(of, vocabulary(), own, nobody, seen=of, seed=seed, progress=lambda line: None)

    mixed = learn(found, 5, members=2, both_ways=1, epochs=3)
    assert mixed.best == 3
    assert isinstance(mixed.encoder, Ensemble)
    alone = [learn(found, 5, epochs=3), learn(found.both_ways(), 5 + loop.MEMBERS_APART, epochs=2)]
    for member, one in zip(mixed.encoder.members, alone, strict=True):
        for name, weight in member.named_parameters():
            assert torch.equal(weight, one.encoder.get_parameter(name))


def test_histories_both_ways() -> None:
    """Two customers and one of whom nothing is known; what happened at one time stays one step."""
    found = sequences([[(0.0, 1), (3.0, 2), (3.0, 3), (4.0, 4)], [], [(7.0, 5)]])
    found = dataclasses.replace(found, session=np.array([0, 1, 1, -1, 2]))
    both = found.both_ways()
    np.testing.assert_array_equal(both.offsets, [0, 4, 4, 5, 9, 9, 10])
    np.testing.assert_array_equal(both.item, [1, 2, 3, 4, 5, 4, 3, 2, 1, 5])
    np.testing.assert_array_equal(both.at, [0, 3, 3, 4, 7, 0, 1, 1, 4, 7])
    np.testing.assert_array_equal(both.session, [0, 1, 1, -1, 2, -1, 4, 4, 3, 5])
    np.testing.assert_array_equal(both.customers, [*found.customers, *found.customers])
    assert find_steps(both).of.tolist() == [0, 1, 1, 2, 3, 4, 5, 5, 6, 7]
    assert len(sequences([[]]).both_ways().at) == 0


def test_demand_of_late_over_all_demand() -> None:
    """Two customers over ten days; the last tenth of the time counts half of what is latest."""
    found = sequences([[(0.0, 1), (10.0, 2)], [(0.0, 1), (9.0, 3), (10.0, 0)]])
    early, mean = 2.0**-10, (2 * 2.0**-10 + 1.0 + 0.5) / 4  # Of what has an item.
    wanted = np.zeros(5)
    wanted[1] = np.log((2 * early + CALM) / (2 * mean + CALM))
    wanted[2] = np.log((1.0 + CALM) / (mean + CALM))
    wanted[3] = np.log((0.5 + CALM) / (mean + CALM))
    np.testing.assert_allclose(trend(found, 4, 0.1), wanted, rtol=1e-5)
    still = sequences([[(4.0, 1), (4.0, 2)]])
    np.testing.assert_array_equal(trend(still, 4, 0.1), np.zeros(5))
    np.testing.assert_array_equal(trend(sequences([[]]), 4, 0.1), np.zeros(5))
