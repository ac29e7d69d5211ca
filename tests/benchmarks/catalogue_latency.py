"""Latency of an answer by size of the catalogue: the product's encoder as ONNX on one core, top 20, by how it scores.

The network is the encoder as training exports it (default configuration, random weights), a history has 50 events, and
what the history holds is not to be found. The catalogue is simulated: items around a thousand centres, popularity
terms of a Zipf distribution. Each size runs in a process of its own that is bound to one core. Methods:

- ``graph``: the released graph as it is, which scores the whole catalogue inside (no 10 M: a graph holds 2 GB at most);
- ``fp32``: the network, then the float32 table read row by row;
- ``exact``: what the server does from `serving.engine.large.LARGE` items on, the same answer as a float64 brute force;
- ``int8``: the scan of ``exact`` without its true scores: an approximation, with its recall;
- ``subitem`` and ``subitem_pruned``: product quantisation, whole and pruned (`subitems.py`); the two must agree.

Belongs here: simulating, measuring, checking answers. Does not belong here: bars (`bars.py`).
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from contracts.settings import ROOT
from serving.engine.bounded import BLOCK, BoundedIndex
from serving.engine.large import LargeEncoder
from serving.engine.sessions import Session
from serving.engine.split import VECTORS, Halves, split
from tests.benchmarks.subitems import SubItems

SIZES = {"10k": 10_000, "100k": 100_000, "1m": 1_000_000, "10m": 10_000_000}
QUICK = ("10k", "100k")
REQUESTS = {"10k": 300, "100k": 300, "1m": 200, "10m": 40}
CHECKED = 20
LENGTH, K, CENTRES, SEED = 50, 20, 1000, 5
LARGEST_GRAPH = 1_000_000
TIE = 1e-5
"""Two float32 scores that differ by less, relative to the best, may change places."""

Floats = npt.NDArray[np.float32]
Feed = dict[str, npt.NDArray[Any]]


def run(quick: bool, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure; see `tests/benchmarks/report.py` for what becomes of the numbers."""
    measured: dict[str, Any] = {"p50_ms_1m_exact": None}
    setup: dict[str, Any] = {
        "data": f"simulated items around {CENTRES} centres, Zipf popularity; histories of {LENGTH} events",
        "seed": SEED, "k": K, "cores_used": 1, "requests": {}, "build_seconds": {},
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="continuum-bench-") as folder:
        graph = pathlib.Path(folder) / "encoder.onnx"
        setup |= _export(graph)
        for name in QUICK if quick else SIZES:
            progress(f"{name}: simulating and building")
            found = _child(name, graph, progress)
            measured |= {f"{key}_{name}_{method}": value for (key, method), value in found["measured"]}
            setup["requests"][name] = REQUESTS[name]
            setup["build_seconds"][name] = found["build_seconds"]
    if quick:
        del measured["p50_ms_1m_exact"]
    return {"measured": measured, "setup": setup}


def _export(path: pathlib.Path) -> dict[str, Any]:
    from tests.benchmarks.catalogue_network import export_network

    return export_network(path)


def _child(name: str, graph: pathlib.Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure one size in a process of its own."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, "-m", "tests.benchmarks.catalogue_latency", name, str(graph)]
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **threads}, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        last = ""
        for line in child.stdout:
            if last:
                progress(last)
            last = line.strip()
    if child.returncode:
        raise RuntimeError(f"measuring {name} items failed with exit code {child.returncode}: {last}")
    found: dict[str, Any] = json.loads(last)
    return found


class Size:
    """One catalogue and the requests to it."""

    def __init__(self, name: str, graph: bytes) -> None:
        self.name, self.items = name, SIZES[name]
        self.graph = graph
        self.table, self.bias = simulated(self.items)
        self.feeds = list(requests(self.items, REQUESTS[name]))
        halves = split(graph)
        assert halves is not None
        self.halves = Halves(
            halves.network,
            self.table,
            self.bias,
            halves.outputs,
            halves.inputs_of_whole,
            halves.outputs_of_whole,
        )
        self.network = Session("network", halves.network)
        self.measured: list[tuple[tuple[str, str], Any]] = []
        self.build_seconds: dict[str, float] = {}
        self.truth: list[tuple[npt.NDArray[np.int64], Floats]] = []

    def state(self, feed: Feed) -> Floats:
        """float32[d], what the network makes of a history."""
        inputs = {key: feed[key] for key in self.network.inputs if key != VECTORS}
        (found,), _ = self.network.run(("state",), {**inputs, VECTORS: self.table[feed["item"]]})
        return np.asarray(found[0], np.float32)

    def note(self, key: str, method: str, value: Any) -> None:
        """Keep a number."""
        self.measured.append(((key, method), value))

    def method(self, name: str, build: Callable[[], Callable[[Feed], Any]], tails: bool = False) -> list[Any]:
        """Build a method, time it on every request, and give its answers to the first CHECKED."""
        print(f"{self.name}: {name}", flush=True)
        before, started = resident_mb(), time.perf_counter()
        ask = build()
        self.build_seconds[name] = round(time.perf_counter() - started, 2)
        answers = [ask(feed) for feed in self.feeds[:CHECKED]]
        self.note("memory_mb", name, round(max(0.0, resident_mb() - before), 1))
        spent, worked = [], []
        for feed in self.feeds:
            started, busy = time.perf_counter_ns(), time.thread_time_ns()
            ask(feed)
            worked.append(time.thread_time_ns() - busy)
            spent.append(time.perf_counter_ns() - started)
        self.note("p50_ms", name, float(np.median(spent)) / 1e6)
        self.note("cpu_ms", name, float(np.median(worked)) / 1e6)
        if tails:
            self.note("p95_ms", name, float(np.quantile(spent, 0.95)) / 1e6)
        return answers


def measure(name: str, path: pathlib.Path) -> dict[str, Any]:
    """Every method on one size."""
    size = Size(name, path.read_bytes())
    size.note("table_mb", "float32", size.table.nbytes / 2**20)
    size.truth = [truth(size, feed) for feed in size.feeds[:CHECKED]]
    if size.items <= LARGEST_GRAPH:
        compare(size, "graph", size.method("graph", lambda: _graph(size)))
        gc.collect()
    compare(size, "fp32", size.method("fp32", lambda: _fp32(size)))
    encoders: list[LargeEncoder] = []
    answers = size.method("exact", lambda: _exact(size, encoders), tails=True)
    compare(size, "exact", [ids for ids, _ in answers])
    size.note("mismatches", "exact", sum(
        ids.tolist() != want.tolist() for (ids, _), (want, _) in zip(answers, size.truth, strict=False)
    ))  # fmt: skip
    size.note("rescored", "exact", float(np.mean([count for _, count in answers])))
    compare(size, "int8", size.method("int8", lambda: _int8(size, encoders[0].index)))
    encoders.clear()
    gc.collect()
    _subitems(size)
    return {"measured": size.measured, "build_seconds": size.build_seconds}


def compare(size: Size, method: str, answers: list[npt.NDArray[np.int64]]) -> None:
    """Recall of the true best k; an item that ties with the last of them counts as found."""
    found = []
    for ids, (_, scores), feed in zip(answers, size.truth, size.feeds, strict=False):
        mine = own_scores(size, feed, ids)
        found.append((mine >= scores[-1] - TIE * abs(float(scores[0]))).mean())
    size.note("recall", method, float(np.mean(found)))


def own_scores(size: Size, feed: Feed, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """float64 scores of items."""
    state = size.state(feed).astype(np.float64)
    return np.asarray(size.table[ids].astype(np.float64) @ state + size.bias[ids])


def truth(size: Size, feed: Feed) -> tuple[npt.NDArray[np.int64], Floats]:
    """The best k by brute force in float64, equal float32 scores by id."""
    state = size.state(feed).astype(np.float64)
    scores = np.empty(size.items, np.float32)
    for start in range(0, size.items, 1 << 18):
        part = slice(start, start + (1 << 18))
        scores[part] = size.table[part].astype(np.float64) @ state + size.bias[part]
    scores[feed["deny"][0]] = -np.inf
    near = np.flatnonzero(scores >= np.partition(scores, size.items - K)[size.items - K])
    order = near[np.lexsort((near, -scores[near]))][:K]
    return order, scores[order]


def _graph(size: Size) -> Callable[[Feed], Any]:
    from tests.benchmarks.catalogue_network import resized

    session = Session("encoder", resized(size.graph, size.table, size.bias))
    k = np.array([K])

    def ask(feed: Feed) -> Any:
        (top,), _ = session.run(("top_items",), {**feed, "k": k})
        return top[0]

    return ask


def _fp32(size: Size) -> Callable[[Feed], Any]:
    def ask(feed: Feed) -> Any:
        state = size.state(feed)
        scores = size.table @ state
        scores += size.bias
        scores[feed["deny"][0]] = -np.inf
        top = np.argpartition(scores, size.items - K)[size.items - K :]
        return top[np.lexsort((top, -scores[top]))]

    return ask


def _exact(size: Size, encoders: list[LargeEncoder]) -> Callable[[Feed], Any]:
    encoder = LargeEncoder(size.halves)
    encoders.append(encoder)
    k = np.array([K])

    def ask(feed: Feed) -> Any:
        answer = encoder.answer({**feed, "k": k})
        return answer.top_items[0], int(answer.rescored[0])

    return ask


def _int8(size: Size, index: BoundedIndex) -> Callable[[Feed], Any]:
    def ask(feed: Feed) -> Any:
        ids, values = np.zeros(0, np.int64), np.zeros(0, np.float32)
        denied = feed["deny"][0]
        for part, scan in index.approximate(size.state(feed)[None]):
            close = scan[0]
            close[np.flatnonzero(denied[part])] = -np.inf
            whole = len(close) // BLOCK * BLOCK
            peaks = close[:whole].reshape(-1, BLOCK).max(1)
            # No item below the K-th highest peak of a block is among the best K.
            floor = np.partition(peaks, len(peaks) - K)[len(peaks) - K] if len(peaks) >= K else -np.inf
            top = np.flatnonzero(close >= floor)
            ids, values = np.concatenate((ids, top + part.start)), np.concatenate((values, close[top]))
        return ids[np.lexsort((ids, -values))[:K]]

    return ask


def _subitems(size: Size) -> None:
    held: list[SubItems] = []

    def build(pruned: bool) -> Callable[[Feed], Any]:
        if pruned:
            held[0].prepare_pruning()
        else:
            held.append(SubItems(size.table, size.bias))

        def ask(feed: Feed) -> Any:
            denied = np.unique(np.append(feed["item"][0], 0))
            state = size.state(feed)
            return held[0].pruned(state, K, denied) if pruned else held[0].search(state, K, denied)

        return ask

    whole = size.method("subitem", lambda: build(False))
    compare(size, "subitem", whole)
    pruned = size.method("subitem_pruned", lambda: build(True))
    size.note("visited_share", "subitem_pruned", float(np.mean([count for _, count in pruned])) / size.items)
    size.note("mismatches", "subitem_pruned", sum(
        sorted(ids.tolist()) != sorted(want.tolist()) for (ids, _), want in zip(pruned, whole, strict=True)
    ))  # fmt: skip


def simulated(items: int) -> tuple[Floats, Floats]:
    """Vectors float32[N, 64] around centres, and popularity terms float32[N]; row 0 is padding."""
    rng = np.random.default_rng(SEED)
    centres = rng.standard_normal((CENTRES, 64), dtype=np.float32)
    table = rng.standard_normal((items, 64), dtype=np.float32)
    for start in range(0, items, 1 << 18):
        part = table[start : start + (1 << 18)]
        part *= 0.6
        part += 0.8 * centres[rng.integers(0, CENTRES, len(part))]
        part *= 0.25 * rng.lognormal(0.0, 0.25, (len(part), 1)).astype(np.float32)
    rank = rng.permutation(items) + 1.0
    count = 20.0 * items / (rank * np.log(items))
    bias = np.log1p(count).astype(np.float32)
    table[0], bias[0] = 0.0, 0.0
    return table, bias


def requests(items: int, number: int) -> Iterator[Feed]:
    """Histories of one customer each, and the mask that keeps them out of the answer."""
    rng = np.random.default_rng(SEED + 1)
    for _ in range(number):
        item = rng.integers(1, items, (1, LENGTH))
        deny = np.zeros((1, items), np.bool_)
        deny[0, item[0]] = deny[0, 0] = True
        age = np.sort(rng.exponential(60.0, (1, LENGTH)).astype(np.float32))[:, ::-1].copy()
        action = np.full((1, LENGTH), 1 + 12, np.int64)
        yield {
            "item": item,
            "action": action,
            "channel": np.ones((1, LENGTH), np.int64),
            "age": age,
            "deny": deny,
        }


def resident_mb() -> float:
    """Memory of this process after giving back what is free."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return float(psutil.Process().memory_info().rss) / 2**20


def main(arguments: list[str]) -> None:
    """Measure one size and print the numbers as JSON on the last line."""
    name, path = arguments
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
    print(json.dumps(measure(name, pathlib.Path(path))))


if __name__ == "__main__":
    main(sys.argv[1:])
