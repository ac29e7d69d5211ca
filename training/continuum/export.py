"""From the trained network to one ONNX file, and the proof that both say the same.

The graph takes a batch of any size and histories of any length: item, action, channel int64[B, L]
and age float32[B, L] (padding on the left), deny bool[B, V + 1], k int64[1]. It gives scores
float32[B, V + 1] (column 0 is -inf), the top k of what is not denied (ties: lower id first), and the
probabilities of the next action and channel; ``buy`` float32[B] is there only if that head was
trained, and a trained not-to-recommend head lowers the scores. ``state`` float32[B, d], ``pointer`` float32[B, L]
(with the pointer), ``remembered_items`` int64[B, M] and ``remembered`` float32[B, M] (with the memory) and ``avoid``
float32[B, d + 1] (with that head) are what the scores are made of, for servers that search a large catalogue
(`serving/engine/large.py`).

Belongs here: export and parity. Does not belong here: the network (`model.py`).
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from training.continuum.model import Encoder
from training.graphs import export_graph, save_graph

"""Oldest that the operators need, so that older runtimes load the file."""

TOLERANCE = 2e-3
"""Largest difference of two scores that still counts as a tie."""


class ParityError(AssertionError):
    """The exported graph and the network disagree; the message says at which shape."""


class Inference(nn.Module):
    """The encoder at one request, with the item table folded into a constant.

    Args:
        encoder: Trained network.
        heads: Heads that were trained, of ``buy`` and ``avoid``.
    """

    table: Tensor
    bias: Tensor

    def __init__(self, encoder: Encoder, heads: Iterable[str] = ()):
        super().__init__()
        self.encoder = encoder
        self.heads = frozenset(heads)
        with torch.no_grad():
            ids = torch.arange(encoder.items.rows)
            table, bias = encoder.items(ids), encoder.items.bias(ids)
            table[0], bias[0] = 0.0, 0.0
        self.register_buffer("table", table)
        self.register_buffer("bias", bias)

    def forward(self, item: Tensor, action: Tensor, channel: Tensor, age: Tensor) -> tuple[Tensor, ...]:
        """Scores [B, V + 1], next_action [B, A], next_channel [B, C], buy [B] if trained, and the scores' parts."""
        encoder = self.encoder
        found = encoder.read(self.table, item, action, channel, age)
        scores, state = (
            encoder.catalogue_scores(self.table, self.bias, item, action, age, found),
            found.state[:, 0],
        )
        if "avoid" in self.heads:
            logits = encoder.avoid_logits(state.unsqueeze(1), self.table.unsqueeze(0)).squeeze(1)
            scores = scores - nn.functional.softplus(logits)
        first = torch.arange(scores.shape[1], device=scores.device) == 0
        scores = scores.masked_fill(first, float("-inf"))
        out = [scores, encoder.action_head(state).softmax(-1), encoder.channel_head(state).softmax(-1)]
        if "buy" in self.heads:
            out.append(torch.sigmoid(encoder.buy_logit(state)))
        # What a server needs to search a large catalogue without scoring all of it.
        out.append(state.clone())
        if found.pointer is not None:
            out.append(found.pointer[:, 0].clone())
        if encoder.memory is not None:
            out.extend(encoder.remembered(item, action, age))
        if "avoid" in self.heads:
            out.append(encoder.avoid_head(state))
        return tuple(out)


def export_onnx(encoder: Encoder, path: pathlib.Path, heads: Iterable[str] = ()) -> None:
    """Write the encoder as one ONNX file without external data.

    Args:
        encoder: Trained network.
        path: Where to write.
        heads: Heads that were trained, of ``buy`` and ``avoid``.
    """
    inference = Inference(encoder, heads).eval()
    example = tuple(
        torch.from_numpy(value) for value in example_inputs(3, 7, inference.table.shape[0]).values()
    )
    batch, length = torch.export.Dim("batch", min=1), torch.export.Dim("length", min=1)
    names = ["scores", "next_action", "next_channel", *(["buy"] if "buy" in inference.heads else []), "state"]
    names += ["pointer"] if encoder.params.pointer else []
    names += ["remembered_items", "remembered"] if encoder.memory is not None else []
    names += ["avoid"] if "avoid" in inference.heads else []
    shape = {0: batch, 1: length}
    model = export_graph(
        inference, example, ["item", "action", "channel", "age"], names, [shape for _ in example]
    )
    _add_selection(model, inference.table.shape[0])
    save_graph(model, path)


def _add_selection(model: onnx.ModelProto, columns: int) -> None:
    """Put the deny mask and top-k behind the scores."""
    graph = model.graph
    graph.input.append(helper.make_tensor_value_info("deny", TensorProto.BOOL, ["batch", columns]))
    graph.input.append(helper.make_tensor_value_info("k", TensorProto.INT64, [1]))
    graph.initializer.append(numpy_helper.from_array(np.array(-np.inf, np.float32), "denied_score"))
    graph.node.append(helper.make_node("Where", ["deny", "denied_score", "scores"], ["allowed_scores"]))
    graph.node.append(
        helper.make_node(
            "TopK", ["allowed_scores", "k"], ["top_scores", "top_items"], axis=1, largest=1, sorted=1
        )
    )
    graph.output.insert(1, helper.make_tensor_value_info("top_scores", TensorProto.FLOAT, ["batch", "k_"]))
    graph.output.insert(2, helper.make_tensor_value_info("top_items", TensorProto.INT64, ["batch", "k_"]))


def example_inputs(batch: int, length: int, items: int, seed: int = 0) -> dict[str, npt.NDArray]:
    """Random histories: different lengths (the last row is empty from a batch of 2 on), several events per step."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, length + 1, batch)
    sizes[0] = length
    if batch > 1:
        sizes[-1] = 0
    real = np.arange(length) >= length - sizes[:, None]
    step = np.cumsum(
        rng.integers(0, 2, (batch, length))[:, ::-1] * rng.exponential(9.0, (batch, length)), axis=1
    )
    age = (step[:, ::-1] + 0.01).astype(np.float32)
    return {
        "item": np.where(real, rng.integers(0, items, (batch, length)), 0).astype(np.int64),
        "action": np.where(real, rng.integers(1, 5, (batch, length)), 0).astype(np.int64),
        "channel": np.where(real, rng.integers(1, 5, (batch, length)), 0).astype(np.int64),
        "age": np.where(real, age, 0).astype(np.float32),
    }


def check_parity(
    encoder: Encoder,
    session: ort.InferenceSession,
    inputs: dict[str, npt.NDArray],
    heads: Iterable[str] = (),
    k: int = 20,
) -> float:
    """Compare graph and network on one batch.

    Args:
        encoder: Trained network.
        session: The exported graph.
        inputs: As `example_inputs`.
        heads: Heads that were trained.
        k: Length of the compared lists.

    Returns:
        Largest absolute difference of any score.

    Raises:
        ParityError: A score differs by more than TOLERANCE, is not finite, or the top k differ beyond ties.
    """
    inference = Inference(encoder, heads).eval()
    with torch.no_grad():
        expected = inference(
            *(torch.from_numpy(inputs[name]) for name in ("item", "action", "channel", "age"))
        )
    shape = inputs["item"].shape
    size = inference.table.shape[0]
    k = min(k, size - 1)
    deny = np.zeros((shape[0], size), bool)
    deny[:, 1 : size // 10] = True
    names = ["scores", "next_action", "next_channel", "top_scores", "top_items"]
    got = dict(
        zip(names, session.run(names, {**inputs, "deny": deny, "k": np.array([k], np.int64)}), strict=True)
    )
    worst = 0.0
    for name, value in zip(("scores", "next_action", "next_channel"), expected, strict=False):
        want, have = value.numpy(), got[name]
        if name == "scores":
            want, have = want[:, 1:], have[:, 1:]
        if not np.isfinite(have).all():
            raise ParityError(f"{name} at batch x length {shape}: not finite")
        worst = max(worst, float(np.abs(want - have).max()))
    if worst > TOLERANCE:
        raise ParityError(
            f"batch x length {shape}: scores differ by {worst:.2e}; expected at most {TOLERANCE:.0e}"
        )
    allowed = np.where(deny, -np.inf, expected[0].numpy())
    best = -np.sort(-allowed, axis=1)[:, :k]
    picked = np.take_along_axis(allowed, got["top_items"], axis=1)
    if np.abs(best - picked).max() > TOLERANCE:
        raise ParityError(f"batch x length {shape}: the top {k} differ beyond ties")
    if any(len(set(row)) != k for row in got["top_items"].tolist()):
        raise ParityError(f"batch x length {shape}: an item is twice in the top {k}")
    return worst
