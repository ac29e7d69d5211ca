"""The loop: repeatable, stops when it no longer helps, says what it could not learn."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch

from contracts.events import ACTIONS
from tests.unit.training.toys import PURCHASE, SMALL, sequences, vocabulary
from training.config import EncoderParams
from training.continuum import fit as loop
from training.continuum.batches import find_steps
from training.continuum.data import Sequences
from training.evaluation.metrics import targets_of

PARAMS = msgspec.structs.replace(SMALL, epochs=3, patience=3, dropout=0.1)


def weekly(customers: int = 12, weeks: int = 10) -> Sequences:
    """Every customer buys the same two items each week."""
    return sequences(
        [
            [(7.0 * week, 1 + (c + k) % 30) for week in range(weeks) for k in range(2)]
            for c in range(customers)
        ]
    )


def learn(params: EncoderParams = PARAMS, seed: int = 0) -> loop.Fit:
    found = weekly()
    asked = loop.Validation(
        np.arange(12), np.full(12, 70.0), targets_of([[1 + c % 30, 1 + (c + 1) % 30] for c in range(12)])
    )
    return loop.fit(
        found.until(56.0), vocabulary(), params, asked, seen=found, seed=seed, progress=lambda line: None
    )


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    first, again, other = learn(), learn(), learn(seed=1)
    assert first.curves == again.curves
    for name, weight in first.encoder.state_dict().items():
        assert torch.equal(weight, again.encoder.state_dict()[name])
    assert first.curves["train_loss"] != other.curves["train_loss"]


def test_it_learns_and_keeps_the_best_epoch() -> None:
    found = learn(msgspec.structs.replace(PARAMS, epochs=6, patience=6))
    assert found.curves["train_loss"][-1] < found.curves["train_loss"][0]
    reached = found.curves["validation_ndcg_at_10"]
    assert len(reached) == 7
    assert reached[found.best] == max(reached[1:])
    assert reached[found.best] > 0.8
    assert not found.encoder.training


def test_it_stops_without_progress_and_when_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "validate", lambda *_: 0.5)
    stopped = learn(msgspec.structs.replace(PARAMS, epochs=9, patience=2))
    assert len(stopped.curves["train_loss"]) == 3
    assert stopped.best == 1
    late = learn(msgspec.structs.replace(PARAMS, epochs=9, patience=9, max_seconds=1e-9))
    assert len(late.curves["train_loss"]) == 1


def test_a_loss_that_is_no_number_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    real = loop.total_loss
    monkeypatch.setattr(loop, "total_loss", lambda *args: (real(*args)[0] * float("nan"), {}))
    with pytest.raises(loop.TrainingError, match=r"epoch 1.*finite"):
        learn()


def test_heads_are_trained_where_the_data_has_labels() -> None:
    plain = weekly()
    assert loop.label_heads(plain, find_steps(plain)) == {
        "next_item": True, "next_action": True, "next_channel": True, "buy": False, "avoid": False,
    }  # fmt: skip
    view, refuse = ACTIONS.index("view"), ACTIONS.index("return")
    rich = sequences(
        [[(1.0, 1), (1.1, 2), (1.2, 2), (2.0, 3), (2.1, 4)]],
        action=[view, refuse, PURCHASE, view, view], session=[0, 0, 0, 1, 1],
    )  # fmt: skip
    assert all(loop.label_heads(rich, find_steps(rich)).values())


def test_the_rate_warms_up_and_decays_to_a_tenth() -> None:
    values = [loop.rate(done / 100) for done in range(101)]
    assert values[0] < 0.05
    assert max(values) == pytest.approx(1.0, abs=0.02)
    assert values[-1] == pytest.approx(0.1)


@pytest.mark.parametrize("lean", [True, False])
def test_products_in_16_bits_learn_about_the_same(lean: bool) -> None:
    changes = {"pointer": False, "action_weight": 0.0} if lean else {}
    items = 1 if lean else 2
    found = sequences(
        [
            [(7.0 * week, 1 + (c + k + week) % 30) for week in range(10) for k in range(items)]
            for c in range(12)
        ]
    )
    nobody = loop.Validation(np.zeros(0, np.int64), np.zeros(0), targets_of([]))
    losses = {}
    for precision in ("float32", "bfloat16"):
        params = msgspec.structs.replace(PARAMS, precision=precision, **changes)
        fitted = loop.fit(found, vocabulary(), params, nobody, seen=found, seed=0, progress=lambda line: None)
        losses[precision] = fitted.curves["train_loss"]
        assert {weight.dtype for weight in fitted.encoder.parameters()} == {torch.float32}
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.03)
