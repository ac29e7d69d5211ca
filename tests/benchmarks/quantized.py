"""int8 against fp32, in one run: time at batch 1 on one thread, and the task's own numbers on the reported parts.

The detector is the one of the bench `visual` on street-looks (AP50 and AP, the worse of the two losses counts), the
embedder that for groceries (recall at 1 of photo to catalogue picture, and neighbours' accuracy; the worse counts).
Both graphs are quantised statically (QDQ, convolutions only, scale per channel) with pictures that were learned from.
A graph is shipped as int8 only where both of its bars hold.

Belongs here: asking both halves. Does not belong here: quantising (`training/visual/quantize.py`), the detector's half
(`visual_detection.py`).
"""

from __future__ import annotations

import argparse
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from tests.benchmarks import visual, visual_detection, visual_embedding
from tests.benchmarks.bars import BARS
from tests.benchmarks.visual import Bench

CALIBRATION, BATCH = 128, 8


def options(words: Sequence[str]) -> argparse.Namespace:
    """The bench's own options: those of `visual`."""
    return visual.options(words)


def run(quick: bool, progress: Callable[[str], None], words: Sequence[str] = ()) -> dict[str, Any]:
    """Measure; see `tests/benchmarks/report.py` for what becomes of the numbers."""
    bench = visual.opened(quick, progress, options(words))
    measured: dict[str, Any] = {**embedder(bench)}
    if not quick:
        measured |= visual_detection.int8(bench)
    least, most = BARS["quantized"]["embedder_speedup"][1], BARS["quantized"]["embedder_loss"][1]
    shipped = {
        name: "int8" if measured[f"{name}_speedup"] >= least and measured[f"{name}_loss"] <= most else "fp32"
        for name in ("detector", "embedder")
        if f"{name}_speedup" in measured
    }
    setup = {
        "data": "street-looks 0701 to 0800, grocery-photos val", "threads": 1, "batch": 1,
        "form": "static QDQ, convolutions, per channel", "shipped": shipped,
    }  # fmt: skip
    return {"measured": measured, "setup": setup}


def embedder(bench: Bench) -> dict[str, float]:
    """What int8 gains and costs the grocery embedder.

    Returns:
        ``embedder_speedup``, ``embedder_loss`` (as fractions) and the parts.
    """
    from training.visual.config import EmbedderConfig
    from training.visual.embedder_data import LEARN, TEST, read_samples
    from training.visual.embedder_export import open_session
    from training.visual.embedder_judge import embed_rows, judged
    from training.visual.quantize import quantize_convolutions, seconds

    bundle = visual_embedding._trained(bench, "grocery")
    graph = bench.folder("grocery") / bundle.files["embedder"]
    config = msgspec.convert(bundle.config, EmbedderConfig)
    samples = read_samples(config.sources, config.params, bench.home, config.seed, bench.progress)
    learned = np.flatnonzero(samples.split == LEARN)
    some = np.random.default_rng(config.seed).choice(learned, CALIBRATION, replace=False)
    pictures = [samples.take(np.sort(some[at : at + BATCH])) for at in range(0, len(some), BATCH)]
    judges = [judge for judge in config.judges if judge.name in ("grocery_r_at_1", "grocery_knn")]
    numbers: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name:
        small = pathlib.Path(name) / "int8.onnx"
        quantize_convolutions(graph, small, pictures)
        times = [seconds(path, {"pixels": pictures[0][:1]}) for path in (graph, small)]
        bench.progress(f"embedder: {1000 * times[0]:.2f} ms fp32, {1000 * times[1]:.2f} ms int8")
        for path in (graph, small):
            vectors = embed_rows(open_session(path), samples, np.arange(len(samples)))["embedding"]
            numbers.append({judge.name: judged(samples, judge, vectors, TEST).mean for judge in judges})
            bench.progress(f"embedder: {numbers[-1]}")
        sizes = [path.stat().st_size for path in (graph, small)]
    return {
        "embedder_speedup": times[0] / times[1],
        "embedder_loss": max(numbers[0][judge.name] - numbers[1][judge.name] for judge in judges),
        **{f"embedder_{judge.name}": numbers[0][judge.name] for judge in judges},
        **{f"embedder_{judge.name}_int8": numbers[1][judge.name] for judge in judges},
        "embedder_ms": 1000 * times[0], "embedder_ms_int8": 1000 * times[1],
        "embedder_mb": sizes[0] / 1e6, "embedder_mb_int8": sizes[1] / 1e6,
    }  # fmt: skip
