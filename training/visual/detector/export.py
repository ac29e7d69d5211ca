"""The detector as an ONNX file, the proof that it answers as the network does, and its int8 form.

``detector.onnx``: pixels uint8[B, S, S, 3] to boxes float32[B, K, 4], scores float32[B, K], classes int64[B, K]; any
batch. Normalisation and peaks are inside the graph.

Belongs here: export, parity, quantisation. Does not belong here: how good the answers are (`answers.py`).
"""

from __future__ import annotations

import pathlib

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch

from training.graphs import export_graph, save_graph
from training.visual.detector.answers import Ask, Raw, of_network
from training.visual.detector.network import FIT_SHARE, Network, Peaks, without_norms
from training.visual.quantize import quantize_convolutions

BATCHES = (1, 2, 7)
FLOOR = 0.05 ** (1 - FIT_SHARE)
"""Of scores: peaks lower than 0.05 are near to one another and may change places."""

TOLERANCE = 1e-3
OUTPUTS = ("boxes", "scores", "classes")


class ParityError(AssertionError):
    """ONNX Runtime and the network disagree; the message says by how much."""


def export(network: Network, path: pathlib.Path) -> None:
    """Write a network with its peaks as one graph."""
    peaks = Peaks(without_norms(network)).cpu()
    pixels = torch.zeros(2, network.size, network.size, 3, dtype=torch.uint8)
    made = export_graph(peaks, (pixels,), ["pixels"], OUTPUTS, [{0: torch.export.Dim("B")}])
    save_graph(made, path)


def of_graph(path: pathlib.Path, threads: int = 1) -> Ask:
    """Ask a graph on CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def ask(pixels: npt.NDArray[np.uint8]) -> Raw:
        boxes, scores, classes = session.run(list(OUTPUTS), {"pixels": pixels})
        return boxes, scores, classes

    return ask


def check_parity(path: pathlib.Path, network: Network, squares: npt.NDArray[np.uint8]) -> float:
    """Ask file and network about the same pictures, in several batch sizes, and compare the boxes as sets.

    Args:
        path: The file.
        network: What it was exported from.
        squares: Letterboxed pictures ``[M, S, S, 3]``; batches repeat them where M is smaller.

    Returns:
        The largest difference of a score or of a box's edge (as a fraction of the square).

    Raises:
        ParityError: It is above 1e-3, or a box is missing.
    """
    graph, plain = of_graph(path), of_network(Peaks(network).eval())
    largest = 0.0
    for size in BATCHES:
        pixels = np.resize(squares, (size, *squares.shape[1:]))
        given, wanted = graph(pixels), plain(pixels)
        for number in range(size):
            for one, other in ((given, wanted), (wanted, given)):
                largest = max(largest, _farthest(one, other, number))
    if largest > TOLERANCE:
        raise ParityError(
            f"{path.name} differs from the network by {largest:.2g}; expected at most {TOLERANCE}"
        )
    return largest


def _farthest(one: Raw, other: Raw, number: int) -> float:
    """Largest distance of a box of one answer to its nearest of the same class in the other."""
    worst = 0.0
    for box, score, kind in zip(one[0][number], one[1][number], one[2][number], strict=True):
        if score < FLOOR:
            continue
        same = other[2][number] == kind
        gaps = np.maximum(
            np.abs(other[0][number][same] - box).max(axis=1), np.abs(other[1][number][same] - score)
        )
        worst = max(worst, float(gaps.min()) if len(gaps) else float("inf"))
    return worst


def quantise(path: pathlib.Path, squares: npt.NDArray[np.uint8], out: pathlib.Path) -> None:
    """Write the int8 form of a graph: static, convolutions only, weights per channel.

    The last convolution of each head stays float: they are small, and boxes and scores are read from them.

    Args:
        path: The float32 graph.
        squares: Letterboxed pictures ``[M, S, S, 3]`` that ranges are measured on; never those reported on.
        out: Where to.
    """
    quantize_convolutions(
        path, out, [square[None] for square in squares], keep=_last_convolutions(onnx.load(path))
    )


def _last_convolutions(model: onnx.ModelProto) -> list[str]:
    """Names of convolutions of which no other convolution is reached: the heads' last."""
    feeds = {name: node for node in model.graph.node for name in node.output}
    before: set[str] = set()
    for node in model.graph.node:
        if node.op_type == "Conv":
            open_names = list(node.input[:1])
            seen: set[str] = set()
            while open_names:
                source = feeds.get(open_names.pop())
                if source is None or source.name in seen:
                    continue
                seen.add(source.name)
                if source.op_type == "Conv":
                    before.add(source.name)
                else:
                    open_names += source.input
    return [node.name for node in model.graph.node if node.op_type == "Conv" and node.name not in before]
