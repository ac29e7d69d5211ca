"""From the trained embedder to one ONNX file, and the proof that both say the same.

The graph takes pixels uint8[B, s, s, 3] with any B and gives ``embedding`` float32[B, d] of length 1 and
``attr_<name>`` float32[B, n] per attribute; normalisation and colour descriptor are inside.

Belongs here: export and parity. Does not belong here: the network (`embedder_model.py`), int8 (`quantize.py`).
"""

from __future__ import annotations

import copy
import pathlib

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import nn

from training.graphs import export_graph, save_graph
from training.visual.embedder_model import Embedder
from training.visual.trunk import Lite, folded

OUT = "out."
BATCHES = (1, 2, 7)
TOLERANCE = 1e-3
"""Largest difference of any number of a vector; logits may differ by ten times as much."""


class ParityError(AssertionError):
    """The exported graph and the network disagree; the message says where."""


def for_inference(model: Embedder) -> Embedder:
    """A copy in evaluation mode, its batch norms folded."""
    plain = copy.deepcopy(model).eval()
    if isinstance(plain.trunk, Lite):
        plain.trunk = folded(plain.trunk)
    return plain.to(memory_format=torch.contiguous_format)


def export_onnx(model: nn.Module, example: tuple[torch.Tensor, ...], path: pathlib.Path, inputs: list[str],
                outputs: list[str], dynamic: dict[int, torch.export.Dim]) -> None:  # fmt: skip
    """Write a network as one ONNX file without external data.

    Args:
        model: In evaluation mode.
        example: One batch of two.
        path: Where to write.
        inputs: Names.
        outputs: Names.
        dynamic: Dimensions of any size, the same for all inputs.
    """
    proto = export_graph(
        model, example, inputs, [f"{OUT}{name}" for name in outputs], [dynamic for _ in example]
    )
    _rename(proto.graph, {name: f"inner_{name}" for name in outputs})
    _rename(proto.graph, {f"{OUT}{name}": name for name in outputs})
    save_graph(proto, path)


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Give values of a graph other names: the exporter names inner values freely, ``embedding`` among them."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*graph.output, *graph.value_info, *graph.initializer):
        value.name = names.get(value.name, value.name)


def export_embedder(model: Embedder, size: int, path: pathlib.Path) -> None:
    """Write the embedder as ONNX.

    Args:
        model: Trained network.
        size: Side of the pictures it will be given.
        path: Where to write.
    """
    plain = for_inference(model)
    names = ["embedding", *(f"attr_{name}" for name in plain.attributes)]
    example = (torch.from_numpy(example_pixels(2, size)),)
    export_onnx(plain, example, path, ["pixels"], names, {0: torch.export.Dim("batch", min=1)})


def example_pixels(batch: int, size: int, seed: int = 0) -> np.ndarray:
    """Smooth random pictures: noise alone is nothing that a network ever sees."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (batch, 4, 4, 3))
    fine = np.kron(coarse, np.ones((1, size // 4, size // 4, 1))) + rng.normal(0, 12, (batch, size, size, 3))
    return np.clip(fine, 0, 255).astype(np.uint8)


def open_session(path: pathlib.Path, threads: int = 1) -> ort.InferenceSession:
    """A CPU session whose threads do not spin."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def check_parity(model: Embedder, path: pathlib.Path, size: int, pictures: np.ndarray | None = None) -> float:
    """Compare graph and network at several batch sizes.

    Args:
        model: Trained network.
        path: The exported graph.
        size: Side of the pictures.
        pictures: Real ones uint8[N, s, s, 3], compared as well.

    Returns:
        Largest difference of any number of a vector.

    Raises:
        ParityError: A number differs by more than TOLERANCE or is not finite.
    """
    session, plain, worst = open_session(path), for_inference(model), 0.0
    batches = [example_pixels(batch, size, batch) for batch in BATCHES]
    for pixels in [*batches, *([pictures] if pictures is not None and len(pictures) else [])]:
        with torch.no_grad():
            expected = [value.numpy() for value in plain(torch.from_numpy(pixels))]
        found = session.run(None, {"pixels": pixels})
        for output, want, have in zip(session.get_outputs(), expected, found, strict=True):
            gap = float(np.abs(want - have).max())
            allowed = TOLERANCE if output.name == "embedding" else 10 * TOLERANCE
            if not np.isfinite(have).all() or have.shape != want.shape or gap > allowed:
                raise ParityError(
                    f"{output.name} of {len(pixels)} pictures differs by {gap:.2e}; expected at most {allowed:.0e}"
                )
            if output.name == "embedding":
                worst = max(worst, gap)
    return worst


def embed(session: ort.InferenceSession, pixels: np.ndarray, batch: int = 32) -> dict[str, np.ndarray]:
    """All outputs of a graph on uint8[N, s, s, 3], by name."""
    names = [output.name for output in session.get_outputs()]
    found = [
        session.run(names, {"pixels": pixels[first : first + batch]})
        for first in range(0, len(pixels), batch)
    ]
    return {name: np.concatenate([some[at] for some in found]) for at, name in enumerate(names)}
