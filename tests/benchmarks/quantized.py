"""int8 against fp32, in one run: time at batch 1 on one thread, and the task's own numbers on the reported parts.

The detector is the one of the bench `visual` on street-looks (AP50 and AP, the worse of the two losses counts), the
embedder that for groceries (recall at 1 of photo to catalogue picture).
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

from tests.benchmarks import visual, visual_detection, visual_embedding
from tests.benchmarks.bars import BARS
from tests.benchmarks.visual import Bench


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
    """What int8 gains and costs the grocery embedder: time at batch 1 on one thread, and recall at 1.

    Returns:
        ``embedder_speedup``, ``embedder_loss`` (as a fraction) and the parts.
    """
    from training.visual.quantize import quantize

    visual_embedding.trained(bench, "grocery")
    folder = bench.folder("grocery")
    with tempfile.TemporaryDirectory() as name:
        small = pathlib.Path(name) / "int8.onnx"
        found, numbers = quantize(folder, small)
        sizes = [path.stat().st_size for path in (folder / "embedder.onnx", small)]
    bench.progress(f"embedder: {found.speedup:.2f} times as fast, {100 * found.loss:.2f} points lost")
    return {
        "embedder_speedup": found.speedup,
        "embedder_loss": found.loss,
        **{f"embedder_{key}": value for key, value in numbers.items()},
        "embedder_mb_fp32": sizes[0] / 1e6,
        "embedder_mb_int8": sizes[1] / 1e6,
    }
