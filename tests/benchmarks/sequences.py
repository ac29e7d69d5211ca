"""The encoder on public sequence sets, by the published protocols, beside baselines in the same harness.

``--data`` is a known set or any file in one of the layouts of `training.evaluation.public_sets`. Every run (model
and seed) is kept under CONTINUUM_HOME, so a call that was cut off goes on. Metrics are means over seeds, ``_std``
is their standard deviation over seeds (of the sample), intervals are over requests. Published figures stand in
PUBLISHED with their source.

Cold items: one item in twenty leaves everything that is learned from; the test requests whose target it is are
asked of the whole catalogue. Random is the exact expectation of an order by chance.

Belongs here: what is run, and comparing. Does not belong here: models and configs (`sequences_models.py`), time to a
quality (`sequences_speed.py`).
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from contracts.settings import read_settings
from tests.benchmarks import sequences_models as library
from tests.benchmarks import sequences_speed as speed
from tests.benchmarks.sequences_cache import Cache, Run, key_of
from training.evaluation.protocol import Requests, Task, judge, make_task, without_items
from training.evaluation.public_sets import KNOWN, open_set
from training.evaluation.sequence_baselines import recent_popularity
from training.evaluation.statistics import Interval, mean_interval, ratio_interval

SEEDS = (1, 2, 3)
COLD_SHARE = 0.05
QUICK_ASKED = 1000
QUICK_LISTS = 3000

PUBLISHED: dict[str, dict[str, float]] = {
    "amazon-beauty": {
        "published_sasrec_ndcg_at_10": 0.0318, "published_hstu_ndcg_at_10": 0.0439,
        "published_esasrec_ndcg_at_10": 0.0523, "published_sasrec_softmax_ndcg_at_10": 0.0531,
        "published_sasrec_softmax_hr_at_10": 0.0921, "published_esasrec_hr_at_10": 0.0928,
    },
    "diginetica": {"published_gce_gnn_p_at_20": 0.5422, "published_gce_gnn_mrr_at_20": 0.1904},
}  # fmt: skip
"""amazon-beauty: README of the eSASRec benchmark (arXiv 2508.06450); diginetica: GCE-GNN (arXiv 2106.05081)."""

BEST = {"amazon-beauty": {"ndcg": 0.0531, "hr": 0.0928}, "diginetica": {"hr": 0.542, "mrr": 0.190}}
"""The best published figure of each metric."""

Floats = npt.NDArray[np.float64]
Progress = Callable[[str], None]


def options(words: Sequence[str]) -> argparse.Namespace:
    """The bench's own options."""
    parser = argparse.ArgumentParser("continuum bench sequences", description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="amazon-beauty", help=f"a file, or one of {', '.join(KNOWN)}")
    parser.add_argument(
        "--test", type=pathlib.Path, help="test file of sessions (default: 'test' for 'train')"
    )
    parser.add_argument("--attributes", type=pathlib.Path, help="JSON {item: [attribute, ...]}")
    parser.add_argument("--layout", choices=["users", "sessions", "events"], help="where lines leave it open")
    parser.add_argument("--only", default="", help="models to run, between commas (default: all)")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), choices=[1, 2, 3])
    parser.add_argument("--ablation", action="store_true", help="also the encoder without each of its parts")
    parser.add_argument(
        "--look", action="store_true", help="note the encoder's test quality after each epoch"
    )
    parser.add_argument("--speed", action="store_true", help="also time to the target beside RecTools")
    parser.add_argument("--cached", action="store_true", help="only put together what has been run")
    parser.add_argument("--fresh", action="store_true", help="make every run again")
    return parser.parse_args(list(words))


def run(quick: bool, progress: Progress, words: Sequence[str] = ()) -> dict[str, Any]:
    """Run what is asked for, and put the record together.

    Args:
        quick: One seed, few epochs, part of the lists and requests; nothing of it is kept.
        progress: Receives one line per step.
        words: See `options`.

    Raises:
        PublicSetError: The data cannot be read.
    """
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    given = options(words)
    root = os.environ.get("CONTINUUM_DATA")
    folder = pathlib.Path(root) / "sequences" if root else None
    task = make_task(open_set(given.data, folder, given.test, given.attributes, given.layout))
    if quick:
        task = shrink(task)
    progress(f"{task.name}: " + ", ".join(f"{name} {value}" for name, value in task.facts.items()))
    home = pathlib.Path(os.environ.get("CONTINUUM_HOME") or read_settings().home)
    cache = Cache(
        home / "bench" / "sequences" / (f"{task.name}-quick" if quick else task.name), given.fresh or quick
    )
    bench = Bench(
        task,
        cache,
        SEEDS[: 1 if quick else given.seeds],
        progress,
        given.cached,
        quick,
        given.look or given.speed,
    )
    chosen = [model for model in bench.models() if not given.only or model.name in given.only.split(",")]
    measured = bench.table(chosen)
    if task.tags is not None and (not given.only or "cold" in given.only.split(",")):
        measured |= bench.cold()
    if given.ablation:
        measured |= bench.ablation()
    if given.speed:
        runs = bench.runs(bench.models()[0], task, task.test)
        measured |= speed.measure(task, runs, home, cache, progress, cached=given.cached)
    measured |= PUBLISHED.get(task.name, {})
    setup = {
        "data": task.name, "protocol": protocol(task), "split_sha256": task.split, "seeds": list(bench.seeds),
        "threads": torch.get_num_threads(), **task.facts, "encoder": msgspec.to_builtins(library.encoder_params(task)),
        "item_attributes": task.tags is not None, "runs_from_earlier_calls": bench.reused,
    }  # fmt: skip
    return {"bench": f"sequences-{task.name}", "measured": measured, "setup": setup}


def protocol(task: Task) -> str:
    """The protocol in words."""
    if task.sessions:
        return "next item of every prefix of every test session, whole catalogue, k 20"
    return "leave-one-out: last item test, one before validation; whole catalogue without seen items, k 10"


def shrink(task: Task) -> Task:
    """A small part of a task, for a quick look."""
    rows = np.arange(min(len(task.train), QUICK_LISTS))
    some = np.arange(min(len(task.test), QUICK_ASKED))
    return dataclasses.replace(
        task, train=task.train.select(rows), full=task.full.select(rows),
        validation=task.validation.select(some[: len(task.validation)]), test=task.test.select(some),
    )  # fmt: skip


@dataclasses.dataclass
class Bench:
    """One task with what has been run on it.

    Attributes:
        task: Data and protocol.
        cache: Finished runs.
        seeds: Of models that draw.
        progress: Receives lines.
        cached: Leave out what has not been run.
        quick: Few epochs.
        look: Note the encoder's quality after each epoch.
        reused: Runs that an earlier call has made.
    """

    task: Task
    cache: Cache
    seeds: tuple[int, ...]
    progress: Progress
    cached: bool = False
    quick: bool = False
    look: bool = False
    reused: int = 0

    def models(self) -> list[library.Model]:
        """The encoder and every baseline."""
        if not self.quick:
            return library.models(self.task, look=self.look)
        params = msgspec.structs.replace(library.encoder_params(self.task), epochs=2, dim=32)
        simple = [
            model for model in library.baselines(self.task) if not model.seeded and model.name != "ease"
        ]
        return [library.encoder(self.task, params), *simple]

    def runs(self, model: library.Model, task: Task, asked: Requests, name: str = "") -> list[Run]:
        """Runs of a model with each seed."""
        found = []
        for seed in self.seeds if model.seeded else (0,):
            key = key_of([task.split, len(asked), model.config, seed], model.sources)
            try:
                run = self.cache.run(
                    f"{name or model.name}-{seed}", key, lambda seed=seed: self._make(model, task, asked, seed)
                )  # fmt: skip
            except LookupError:
                continue
            self.reused += run.cached
            found.append(run)
        return found

    def _make(self, model: library.Model, task: Task, asked: Requests, seed: int) -> Run:
        if self.cached:
            raise LookupError(model.name)
        return library.execute(model, task, asked, seed, self.progress)

    def table(self, chosen: Sequence[library.Model]) -> dict[str, Any]:
        """Every model's metrics, and the encoder's over the best baseline's."""
        values: dict[str, dict[str, Floats]] = {}
        measured: dict[str, Any] = {}
        for model in chosen:
            runs = self.runs(model, self.task, self.task.test)
            if not runs:
                self.progress(f"{model.name}: has not been run")
                continue
            prefix = "" if model.name == "encoder" else f"{model.name}_"
            found, values[model.name] = self.metrics(runs, prefix)
            measured |= found
            if "seconds" in runs[0].facts:
                measured[f"{prefix}seconds"] = float(np.mean([run.facts["seconds"] for run in runs]))
            if prefix == "":
                examples = [
                    run.facts["examples"] * len(run.facts["curve"][1:]) / run.facts["seconds"] for run in runs
                ]
                measured["examples_per_second"] = float(np.mean(examples))
            measured[f"{prefix}runs"] = len(runs)
        return measured | self.comparison(values)

    def metrics(self, runs: Sequence[Run], prefix: str) -> tuple[dict[str, float], dict[str, Floats]]:
        """Numbers of the record, and float64[R] of each metric, means over seeds."""
        judged = [judge(run.answers, self.task.test.targets, self.task.k) for run in runs]
        measured, values = {}, {}
        for metric in self.headline():
            each = np.stack([one[metric] for one in judged])
            values[metric] = each.mean(axis=0)
            name = f"{prefix}{'p' if self.task.sessions and metric == 'hr' else metric}_at_{self.task.k}"
            measured[name] = float(each.mean())
            if len(runs) > 1:
                measured[f"{name}_std"] = float(each.mean(axis=1).std(ddof=1))
            if not prefix:
                measured |= _spread(name, mean_interval(values[metric]))
        return measured, values

    def headline(self) -> tuple[str, str]:
        """The protocol's two metrics."""
        return ("hr", "mrr") if self.task.sessions else ("ndcg", "hr")

    def comparison(self, values: dict[str, dict[str, Floats]]) -> dict[str, Any]:
        """The encoder over the best baseline (of the first metric), paired by request, and over the published."""
        ours, rest = (
            values.get("encoder"),
            {name: value for name, value in values.items() if name != "encoder"},
        )
        measured: dict[str, Any] = {}
        if ours is None:
            return measured
        for metric, figure in BEST.get(self.task.name, {}).items():
            measured[f"{metric}_over_best_published"] = float(ours[metric].mean() / figure)
        if rest:
            for metric in self.headline():
                best = max(rest, key=lambda name: float(rest[name][metric].mean()))
                ratio = ratio_interval(ours[metric], rest[best][metric])
                measured[f"{metric}_best_baseline"] = best
                measured[f"{metric}_over_best_baseline"] = ratio.value
                measured |= _spread(f"{metric}_over_best_baseline", ratio)
            if "vsknn" in rest:
                for metric in self.headline():
                    measured[f"{metric}_over_vsknn"] = float(
                        ours[metric].mean() / rest["vsknn"][metric].mean()
                    )
        return measured

    def cold(self) -> dict[str, Any]:
        """Hit rate on targets that were in nothing that was learned from."""
        rng = np.random.default_rng(0)
        items = np.sort(
            rng.choice(np.arange(1, self.task.size + 1), round(COLD_SHARE * self.task.size), replace=False)
        )
        task = without_items(self.task, items)
        hidden = np.zeros(self.task.size + 1, bool)
        hidden[items] = True
        theirs = hidden[task.test.targets]
        asked = task.test.select(np.flatnonzero(theirs))
        model = library.cold_encoder(task, items, quick=self.quick)
        runs = self.runs(model, task, task.test, "cold")
        if not runs or not len(asked):
            return {}
        hit = [judge(run.answers, task.test.targets, self.task.k)["hr"] for run in runs]
        each = [float(one[theirs].mean()) for one in hit]
        warm = float(np.mean([one[~theirs].mean() for one in hit]))
        left = self.task.size - (0 if self.task.sessions else asked.histories.sizes)
        random = float(np.mean(self.task.k / (left * np.ones(len(asked)))))
        counts = recent_popularity(task.full, task.size)
        popular = library.answer_all(counts, task, asked)
        hits = judge(popular, asked.targets, self.task.k)["hr"]
        value = float(np.mean(each))
        return {
            f"cold_hr_at_{self.task.k}": value,
            f"cold_hr_at_{self.task.k}_std": float(np.std(each, ddof=1)) if len(each) > 1 else 0.0,
            f"cold_random_hr_at_{self.task.k}": random, f"cold_popularity_hr_at_{self.task.k}": float(hits.mean()),
            "cold_over_random": value / random, "cold_over_popularity": value - float(hits.mean()),
            "cold_requests": len(asked), "cold_items": len(items), f"cold_run_warm_hr_at_{self.task.k}": warm,
        }  # fmt: skip

    def ablation(self) -> dict[str, Any]:
        """The encoder's headline without each of its parts, one seed each unless more have been run."""
        measured: dict[str, Any] = {}
        for name, model in library.ablations(self.task).items():
            few = dataclasses.replace(self, seeds=self.seeds[:1])
            runs = few.runs(model, self.task, self.task.test, f"ablation-{name}")
            self.reused += few.reused - self.reused
            if runs:
                measured |= self.metrics(runs, f"ablation_{name}_")[0]
                measured[f"ablation_{name}_seconds"] = float(np.mean([run.facts["seconds"] for run in runs]))
        return measured


def _spread(name: str, interval: Interval) -> dict[str, float]:
    return {f"{name}_ci_low": interval.low, f"{name}_ci_high": interval.high}
