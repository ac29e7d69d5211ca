"""The exported graph says what the network says, at every batch size and length."""

from __future__ import annotations

import pathlib

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.events import ACTIONS, CHANNELS
from serving.releases.graphs import ENCODER_INPUTS, ENCODER_OUTPUTS, check_graph, check_signature
from tests.unit.training.toys import SMALL, encoder
from training.continuum.export import ParityError, check_parity, example_inputs, export_onnx
from training.continuum.infer import open_session
from training.continuum.model import Encoder

ITEMS = 200
Exported = tuple[Encoder, pathlib.Path, ort.InferenceSession]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    model = encoder(items=ITEMS)
    path = tmp_path_factory.mktemp("plain") / "encoder.onnx"
    export_onnx(model, path)
    return model, path, open_session(path)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Two blocks, a memory and both labelled heads."""
    model = encoder(msgspec.structs.replace(SMALL, blocks=2, memory=7), items=ITEMS)
    path = tmp_path_factory.mktemp("full") / "encoder.onnx"
    export_onnx(model, path, ("buy", "avoid"))
    return model, path, open_session(path)


def run(session: ort.InferenceSession, inputs: dict, k: int, deny: np.ndarray | None = None) -> dict:
    mask = np.zeros((len(inputs["item"]), ITEMS + 1), bool) if deny is None else deny
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {**inputs, "deny": mask, "k": np.array([k])}), strict=True))


@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize("length", [1, 2, 5, 16, 33, 130])
def test_parity_at_the_stated_shapes(plain: Exported, full: Exported, batch: int, length: int) -> None:
    inputs = example_inputs(batch, length, ITEMS + 1, seed=batch + 10 * length)
    assert check_parity(plain[0], plain[2], inputs) < 1e-4
    assert check_parity(full[0], full[2], inputs, ("buy", "avoid")) < 1e-4


@settings(max_examples=40, deadline=None)
@given(batch=st.integers(1, 9), length=st.integers(1, 70), seed=st.integers(0, 10_000))
def test_parity_at_any_shape(plain: Exported, batch: int, length: int, seed: int) -> None:
    check_parity(plain[0], plain[2], example_inputs(batch, length, ITEMS + 1, seed))


def test_parity_notices_other_weights(plain: Exported) -> None:
    with pytest.raises(ParityError, match="differ"):
        check_parity(encoder(items=ITEMS, seed=1), plain[2], example_inputs(2, 5, ITEMS + 1))


def test_an_empty_history_is_answered(plain: Exported, full: Exported) -> None:
    inputs = {name: np.zeros_like(value) for name, value in example_inputs(3, 4, ITEMS + 1).items()}
    for _, _, session in (plain, full):
        found = run(session, inputs, 20)
        assert np.isfinite(found["scores"][:, 1:]).all()
        assert np.isneginf(found["scores"][:, 0]).all()
        assert np.isfinite(found["top_scores"]).all()


def test_what_is_denied_is_not_on_top_but_keeps_its_score(plain: Exported) -> None:
    inputs = example_inputs(2, 9, ITEMS + 1)
    free = run(plain[2], inputs, 20)
    deny = np.zeros((2, ITEMS + 1), bool)
    np.put_along_axis(deny, free["top_items"][:, :5], True, axis=1)
    found = run(plain[2], inputs, 15, deny)
    assert found["top_items"].tolist() == free["top_items"][:, 5:].tolist()
    assert np.array_equal(found["scores"], free["scores"])
    assert found["top_scores"].shape == (2, 15)


def test_next_action_and_channel_are_probabilities(plain: Exported) -> None:
    found = run(plain[2], example_inputs(7, 12, ITEMS + 1), 1)
    assert found["next_action"].shape == (7, len(ACTIONS))
    assert found["next_channel"].shape == (7, len(CHANNELS))
    for name in ("next_action", "next_channel"):
        assert np.allclose(found[name].sum(1), 1.0, atol=1e-5)


def test_only_trained_heads_are_in_the_graph(plain: Exported, full: Exported) -> None:
    inputs = example_inputs(2, 5, ITEMS + 1)
    assert "buy" not in run(plain[2], inputs, 1)
    buy = run(full[2], inputs, 1)["buy"]
    assert buy.shape == (2,)
    assert ((buy > 0) & (buy < 1)).all()


def test_the_file_is_one_that_serving_takes(plain: Exported) -> None:
    _, path, session = plain
    check_graph("encoder.onnx", path.read_bytes())
    inputs = {value.name: value.type for value in session.get_inputs()}
    outputs = {value.name: value.type for value in session.get_outputs()}
    check_signature("encoder.onnx", (inputs, outputs), ENCODER_INPUTS, ENCODER_OUTPUTS)
    assert [entry.name for entry in path.parent.iterdir()] == ["encoder.onnx"]
    assert onnx.load(path).ir_version <= 10


def test_batching_does_not_mix_customers(plain: Exported) -> None:
    inputs = example_inputs(5, 11, ITEMS + 1, seed=3)
    together = run(plain[2], inputs, 10)
    for row in range(5):
        alone = run(plain[2], {name: value[row : row + 1] for name, value in inputs.items()}, 10)
        assert np.allclose(alone["scores"][0, 1:], together["scores"][row, 1:], atol=1e-5)
