"""The outfit network as two ONNX files, and the proof that they say what it says.

``outfit.onnx``: vectors float32[B, N, d], types int64[B, N] (0 is padding), target int64[B] to query float32[B, p] and
compatibility float32[B]. ``outfit_items.onnx``: vectors float32[B, d], types int64[B] to projected float32[B, p]. An
item fits as well as its projection's dot product with the query.

Belongs here: export and parity. Does not belong here: the network (`model.py`).
"""

from __future__ import annotations

import pathlib

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from training.graphs import export_graph, save_graph
from training.visual.outfit.model import Outfit

SHAPES = ((1, 1), (1, 4), (2, 3), (7, 6))
TOLERANCE = 1e-4


class ParityError(AssertionError):
    """ONNX Runtime and the network disagree; the message says by how much."""


class Sets(nn.Module):
    """What ``outfit.onnx`` is made from."""

    def __init__(self, network: Outfit) -> None:
        super().__init__()
        self.network = network

    def forward(self, vectors: Tensor, types: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """See the module."""
        return self.network.query(vectors, types, target), self.network.compatibility(vectors, types)


class Items(nn.Module):
    """What ``outfit_items.onnx`` is made from."""

    def __init__(self, network: Outfit) -> None:
        super().__init__()
        self.network = network

    def forward(self, vectors: Tensor, types: Tensor) -> Tensor:
        """See the module."""
        return self.network.project(vectors, types)


def export(network: Outfit, sets: pathlib.Path, items: pathlib.Path) -> None:
    """Write both graphs."""
    network = network.eval()
    given = network.middle.shape[0]
    batch, count = torch.export.Dim("B"), torch.export.Dim("N")
    of_sets = export_graph(
        Sets(network), (torch.zeros(2, 3, given), torch.ones(2, 3, dtype=torch.long), torch.ones(2, dtype=torch.long)),
        ["vectors", "types", "target"], ["query", "compatibility"],
        [{0: batch, 1: count}, {0: batch, 1: count}, {0: batch}],
    )  # fmt: skip
    save_graph(of_sets, sets)
    of_items = export_graph(
        Items(network), (torch.zeros(2, given), torch.ones(2, dtype=torch.long)), ["vectors", "types"], ["projected"],
        [{0: batch}, {0: batch}],
    )  # fmt: skip
    save_graph(of_items, items)


def check_parity(
    network: Outfit, sets: pathlib.Path, items: pathlib.Path, slots: int, seed: int = 0
) -> float:
    """Ask files and network about the same sets, of several sizes and paddings.

    Returns:
        The largest difference.

    Raises:
        ParityError: It is above 1e-4.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    of_sets, of_items = (
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]) for path in (sets, items)
    )
    rng = np.random.default_rng(seed)
    largest = 0.0
    for batch, count in SHAPES:
        vectors = rng.normal(size=(batch, count, network.middle.shape[0])).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
        types = rng.integers(1, slots + 1, (batch, count))
        types[1:, count // 2 + 1 :] = 0
        target = rng.integers(1, slots + 1, batch)
        given = of_sets.run(
            ["query", "compatibility"], {"vectors": vectors, "types": types, "target": target}
        )
        projected = of_items.run(["projected"], {"vectors": vectors[:, 0], "types": types[:, 0]})
        with torch.inference_mode():
            kinds, asked = torch.from_numpy(types), torch.from_numpy(vectors)
            wanted = Sets(network)(asked, kinds, torch.from_numpy(target))
            points = network.project(asked[:, 0], kinds[:, 0])
        for one, other in zip((*given, *projected), (*wanted, points), strict=True):
            if one.shape != tuple(other.shape):
                raise ParityError(f"shape {one.shape} where the network gives {tuple(other.shape)}")
            largest = max(largest, float(np.abs(one - other.numpy()).max()))
    if largest > TOLERANCE:
        raise ParityError(
            f"{sets.name} differs from the network by {largest:.2g}; expected at most {TOLERANCE}"
        )
    return largest
