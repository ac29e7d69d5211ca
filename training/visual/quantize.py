"""int8 graphs, shipped only where they are worth it: measured on the task, never on the loss.

Convolutions are quantised statically with calibration pictures (QDQ, symmetric weights), transformers
dynamically. ONNX Runtime's tools stumble over value information that the exporter leaves: it is taken out first.

Belongs here: quantising a graph, comparing it with what it came from. Does not belong here: the task's own
measure (given by the caller).
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Sequence

import numpy as np
import onnx

from training.visual.embedder_export import open_session

REPEATS = 9
ALLOWED, WANTED = 0.005, 1.8
"""int8 is worth shipping if it loses at most so much of the task's number and is so many times as fast."""


@dataclasses.dataclass(frozen=True)
class Quantised:
    """What became of a quantisation.

    Attributes:
        shipped: Whether the int8 graph took the place of the other.
        loss: Of the task's number, int8 against fp32.
        speedup: fp32 time over int8 time at batch 1; NaN if it was not measured.
    """

    shipped: bool
    loss: float
    speedup: float


def plain(path: pathlib.Path, out: pathlib.Path) -> None:
    """Copy a graph without value information, inferred anew."""
    model = onnx.load(path)
    del model.graph.value_info[:]
    onnx.save_model(onnx.shape_inference.infer_shapes(model), out)


def quantize_text(path: pathlib.Path, measure: Callable[[pathlib.Path], float], allowed: float) -> Quantised:
    """Put an int8 text graph in the place of a float one, if it loses little.

    Args:
        path: The graph; replaced if int8 is shipped.
        measure: Number of a graph, more is better.
        allowed: Largest loss of it.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    stripped, small = path.with_suffix(".plain.onnx"), path.with_suffix(".int8.onnx")
    model = onnx.load(path)
    del model.graph.value_info[:]
    onnx.save_model(model, stripped)
    quantize_dynamic(
        stripped, small, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm", "Gather"],
        per_channel=False, extra_options={"MatMulConstBOnly": True},
    )  # fmt: skip
    stripped.unlink()
    loss = measure(path) - measure(small)
    tokens = np.array([[101, *range(2000, 2010), 102]], np.int64)
    feeds = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
    speedup = seconds(path, feeds) / seconds(small, feeds)
    return _decide(path, small, loss, speedup, allowed)


def quantize_embedder(
    path: pathlib.Path,
    pictures: Sequence[np.ndarray],
    measure: Callable[[pathlib.Path], float],
    allowed: float = 0.005,
    least_speedup: float = 1.0,
    per_channel: bool = True,
    keep: Sequence[str] = (),
) -> Quantised:
    """Put an int8 embedder in the place of a float one, if it loses little and is faster.

    Only convolutions are quantised: pooling, the colour descriptor and the heads are cheap and stay exact.

    Args:
        path: The graph; replaced if int8 is shipped.
        pictures: Batches uint8[B, s, s, 3] to calibrate on, none of them reported on.
        measure: Number of a graph, more is better.
        allowed: Largest loss of it.
        least_speedup: Least gain in time at batch 1.
        per_channel: A scale per output channel of a weight.
        keep: Nodes that stay float.
    """
    small = path.with_suffix(".int8.onnx")
    quantize_convolutions(path, small, pictures, per_channel, keep)
    loss = measure(path) - measure(small)
    feeds = {"pixels": pictures[0][:1]}
    speedup = seconds(path, feeds) / seconds(small, feeds)
    return _decide(path, small, loss, speedup, allowed, least_speedup)


def quantize(
    folder: pathlib.Path, out: pathlib.Path, calibration: int = 96, seed: int = 0
) -> tuple[Quantised, dict[str, float]]:
    """An int8 copy of a bundle's embedder, compared with it by the first judge of its config.

    Args:
        folder: Bundle of an embedder.
        out: The copy; it is written whatever the comparison says.
        calibration: How many pictures to learn from it is calibrated on.
        seed: Of their choice.

    Returns:
        What it loses and gains (``shipped`` says whether it keeps to half a point of loss and 1.8 times the
        speed), and the judge's number before and after with both times in milliseconds.
    """
    import msgspec

    from training.config import read_bundle
    from training.visual.config import EmbedderConfig
    from training.visual.embedder_data import LEARN, TEST, read_samples
    from training.visual.embedder_judge import embed_rows, judged

    bundle = read_bundle(folder)
    config = msgspec.convert(bundle.config, EmbedderConfig)
    samples = read_samples(config.sources, config.params, pathlib.Path(config.home), config.seed)
    judge = config.judges[0]
    learn = np.flatnonzero(samples.split == LEARN)
    rows = np.sort(np.random.default_rng(seed).choice(learn, min(calibration, len(learn)), replace=False))
    pictures = [samples.take(rows[at : at + 16]) for at in range(0, len(rows), 16)]
    exact = folder / bundle.files["embedder"]
    quantize_convolutions(exact, out, pictures)
    asked = samples.of(judge.queries)
    needed = np.union1d(asked[samples.split[asked] == TEST], samples.of(judge.gallery))
    numbers: dict[str, float] = {}
    for name, path in (("fp32", exact), ("int8", out)):
        vectors = np.zeros((len(samples), config.params.dim), np.float32)
        vectors[needed] = embed_rows(open_session(path), samples, needed)["embedding"]
        numbers[f"{judge.name}_{name}"] = judged(samples, judge, vectors, TEST).mean
        numbers[f"ms_{name}"] = 1e3 * seconds(path, {"pixels": pictures[0][:1]})
    loss = numbers[f"{judge.name}_fp32"] - numbers[f"{judge.name}_int8"]
    speedup = numbers["ms_fp32"] / numbers["ms_int8"]
    return Quantised(loss <= ALLOWED and speedup >= WANTED, loss, speedup), numbers


def quantize_convolutions(
    path: pathlib.Path,
    out: pathlib.Path,
    pictures: Sequence[np.ndarray],
    per_channel: bool = True,
    keep: Sequence[str] = (),
) -> None:
    """Write an int8 copy of a graph that reads ``pixels``."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(pictures)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"pixels": batch}

    stripped = path.with_suffix(".plain.onnx")
    plain(path, stripped)
    quantize_static(
        stripped, out, Reader(), quant_format=QuantFormat.QDQ, per_channel=per_channel,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv", "Add", "Clip", "Pad"], nodes_to_exclude=list(keep),
    )  # fmt: skip
    stripped.unlink()


def seconds(path: pathlib.Path, feeds: dict[str, np.ndarray]) -> float:
    """Median time of one run, on one thread."""
    session = open_session(path)
    spent = []
    for _ in range(REPEATS + 2):
        started = time.perf_counter()
        session.run(None, feeds)
        spent.append(time.perf_counter() - started)
    return float(np.median(spent[2:]))


def _decide(
    path: pathlib.Path, small: pathlib.Path, loss: float, speedup: float, allowed: float, least: float = 0.0
) -> Quantised:
    shipped = loss <= allowed and speedup >= least
    if shipped:
        os.replace(small, path)
    else:
        small.unlink()
    return Quantised(shipped, loss, speedup)
