"""The main job's quality: each household's next basket, whole catalogue, judged through the serving engine.

The requests are the frozen set of the pipeline: the first basket of each household in the evaluation window.
Answers come from a release's engine whose tables are as of the start of the window, so nothing at or after
it is seen except public mailers; the baselines get the same histories. An installation in CONTINUUM_HOME
whose pipeline has run is used; otherwise the pipeline is run in a temporary one.

Variants: ``full`` knows the time and the store of the request, ``store_unknown`` its time (the customer's
usual store stands in), ``moment_unknown`` neither (the start of the window stands in). Short histories are
cut to the last three baskets.

Belongs here: asking and comparing. Does not belong here: metrics (`training/evaluation`), bars (`bars.py`).
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.features import MICROSECONDS_PER_DAY
from contracts.settings import Settings, read_retailer, read_settings
from orchestration.judging import Frozen, latest_frozen, read_requests
from orchestration.training_jobs import latest_bundle
from serving.engine.engine import Engine
from serving.profiles.history import History
from serving.releases.release import load_release
from training import packaging
from training.evaluation import metrics
from training.evaluation.baselines import baseline_answers
from training.evaluation.statistics import Interval, mean_interval, ratio_interval
from training.ranker import items as tables
from training.ranker import requests as ranker_requests

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL_SHOP = ROOT / "tests" / "small_shop.yaml"
K = 10
SHORT = 3
SEED = 0
QUICK_REQUESTS = 250
VARIANTS = ("full", "store_unknown", "moment_unknown")

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Asked:
    """One request.

    Attributes:
        history: What happened before it.
        at_us: Its moment.
        store: Its store's index, -1 for none.
    """

    history: History
    at_us: int
    store: int


def run(quick: bool, progress: Progress) -> dict[str, Any]:
    """Measure.

    Args:
        quick: Ask a sample of the requests; without an installation, of a small shop.
        progress: Receives one line per stage.
    """
    settings = read_settings()
    if (settings.bundles / "ranker" / "LATEST").exists():
        return _measure(settings, quick, progress)
    with tempfile.TemporaryDirectory(prefix="continuum-bench-") as folder:
        environment = {**os.environ, "CONTINUUM_HOME": folder}
        environment.pop("MLFLOW_TRACKING_URI", None)
        if quick:
            environment["RETAILER"] = str(SMALL_SHOP)
        _run_pipeline(environment, progress)
        return _measure(read_settings(environment), quick, progress)


def _run_pipeline(environment: Mapping[str, str], progress: Progress) -> None:
    progress("running the pipeline in a temporary home")
    done = subprocess.run(
        [sys.executable, "-m", "orchestration.cli", "run", "full_pipeline"],
        cwd=ROOT, env=dict(environment), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"the pipeline failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def _measure(settings: Settings, quick: bool, progress: Progress) -> dict[str, Any]:
    frozen = latest_frozen(settings)
    with tempfile.TemporaryDirectory(prefix="continuum-bench-") as folder:
        engine = _engine(settings, frozen, pathlib.Path(folder))
    rows = _chosen(frozen, quick)
    found = read_requests(settings, frozen, engine.items)
    asked = [Asked(*found[row][:3]) for row in rows]
    targets = _targets(frozen, engine, rows)
    start_us = round(frozen.windows.evaluate_from.timestamp() * 1_000_000)
    values: dict[str, Floats] = {}
    answers: dict[str, Ints] = {}
    for variant in VARIANTS:
        answers[variant] = _answers(engine, [_as_variant(one, variant, start_us) for one in asked])
        values[variant] = metrics.ndcg(answers[variant], targets, K)
        progress(f"{variant}: NDCG@10 {values[variant].mean():.4f}")
    short = metrics.ndcg(_answers(engine, [_shortened(one) for one in asked]), targets, K)
    progress(f"short histories: NDCG@10 {short.mean():.4f}")
    whole, cut = _baselines(settings, frozen, engine, rows, targets)
    best, best_short = _best(whole), _best(cut)
    ratios = {name: ratio_interval(value, whole[best], SEED) for name, value in values.items()}
    short_ratio = ratio_interval(short, cut[best_short], SEED)
    measured: dict[str, Any] = {
        "ndcg_at_10": float(values["full"].mean()),
        "recall_at_10": float(metrics.recall(answers["full"], targets, K).mean()),
        "mrr_at_10": float(metrics.mrr(answers["full"], targets, K).mean()),
        "coverage_at_10": metrics.coverage(answers["full"], engine.items.size, K),
        "best_baseline_ndcg_at_10": float(whole[best].mean()),
        "ratio_to_best_baseline": ratios["full"].value,
        "ratio_ci_low": ratios["full"].low,
        "ratio_to_personal_frequency_45d": float(
            values["full"].mean() / whole["personal_frequency_45d"].mean()
        ),
        "ratio_ci_high": ratios["full"].high,
        "short_history_ndcg_at_10": float(short.mean()),
        "short_history_best_baseline_ndcg_at_10": float(cut[best_short].mean()),
        "short_history_ratio": short_ratio.value,
        "short_history_ratio_ci_low": short_ratio.low,
        **_spread("ndcg_at_10", mean_interval(values["full"], SEED)),
        **{f"{name}_ndcg_at_10": float(values[name].mean()) for name in VARIANTS[1:]},
        **{f"{name}_ratio_ci_low": ratios[name].low for name in VARIANTS[1:]},
        **{f"baseline_{name}_ndcg_at_10": float(value.mean()) for name, value in whole.items()},
        **{f"short_baseline_{name}_ndcg_at_10": float(value.mean()) for name, value in cut.items()},
        "requests": len(rows),
    }
    setup = {
        "data": read_retailer(settings).title,
        "split_sha256": frozen.sha256,
        "evaluate_from": frozen.windows.evaluate_from.isoformat(),
        "evaluate_until": frozen.windows.evaluate_until.isoformat(),
        "best_baseline": best,
        "short_history_best_baseline": best_short,
        "variant": "full: time and store of the request are known",
        "events_version": frozen.events_version,
        "seed": SEED,
    }
    return {"measured": measured, "setup": setup}


def _engine(settings: Settings, frozen: Frozen, folder: pathlib.Path) -> Engine:
    """The engine of a release whose tables are as of the start of the evaluation window."""
    out = folder / "judged"
    packaging.assemble_release(
        settings,
        read_retailer(settings),
        frozen,
        latest_bundle(settings, "encoder"),
        latest_bundle(settings, "ranker"),
        out,
        at=frozen.windows.evaluate_from,
    )
    return load_release(out).engine


def _chosen(frozen: Frozen, quick: bool) -> Ints:
    if not quick or frozen.requests <= QUICK_REQUESTS:
        return np.arange(frozen.requests)
    return np.sort(np.random.default_rng(SEED).choice(frozen.requests, QUICK_REQUESTS, replace=False))


def _targets(frozen: Frozen, engine: Engine, rows: Ints) -> metrics.Targets:
    bought = frozen.table()["targets"].to_pylist()
    return metrics.targets_of([engine.items.indices(bought[row]).tolist() for row in rows])


def _answers(engine: Engine, asked: list[Asked]) -> Ints:
    """int64[R, 10], item indices."""
    table = np.full((len(asked), K), -1, np.int64)
    for row, one in zip(table, asked, strict=True):
        ranked = engine.rank(one.history, one.at_us / MICROSECONDS_PER_DAY, one.store, K)
        row[: len(ranked.items)] = ranked.items
    return table


def _as_variant(one: Asked, variant: str, start_us: int) -> Asked:
    if variant == "full":
        return one
    known = dataclasses.replace(one, store=_usual_store(one.history))
    return known if variant == "store_unknown" else dataclasses.replace(known, at_us=start_us)


def _usual_store(history: History) -> int:
    """The store with most visits lately (they halve every 30 days), -1 for none."""
    at_us, first = np.unique(history.at_us, return_index=True)
    store = history.store[first]
    at_us, store = at_us[store >= 0], store[store >= 0]
    if not len(store):
        return -1
    weights = np.exp2((at_us - at_us[-1]) / MICROSECONDS_PER_DAY / ranker_requests.USUAL_HALF_LIFE)
    return int(np.bincount(store, weights).argmax())


def _shortened(one: Asked) -> Asked:
    """Only what has happened since the third last basket began."""
    moments = np.unique(one.history.at_us[one.history.item >= 0])
    since = moments[-SHORT] if len(moments) >= SHORT else 0
    return dataclasses.replace(one, history=one.history.select(one.history.at_us >= since))


def _baselines(
    settings: Settings, frozen: Frozen, engine: Engine, rows: Ints, targets: metrics.Targets
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """NDCG@10 of every baseline, with whole histories and with those of three baskets."""
    con = tables.open_lake(settings, {"events": frozen.events_version})
    catalogue = tables.read_catalogue(con)
    if not np.array_equal(catalogue.product_id, engine.items.product_id):
        raise RuntimeError(
            "the lake's products are not those of the release; expected the snapshot it was made from"
        )
    lines = ranker_requests.read_lines(con, catalogue)
    start = tables.to_days(frozen.windows.evaluate_from)
    purchases = lines.until(start, len(catalogue.product_id))
    asked = frozen.table()["customer_id"].to_numpy(zero_copy_only=False).astype(str)[rows]
    customers = np.searchsorted(lines.customers, asked)
    found = []
    for histories in (None, purchases.last_baskets(SHORT)):
        answers = baseline_answers(purchases, customers, K, histories)
        found.append({name: metrics.ndcg(answer, targets, K) for name, answer in answers.items()})
    return found[0], found[1]


def _best(values: Mapping[str, Floats]) -> str:
    return max(values, key=lambda name: float(values[name].mean()))


def _spread(name: str, interval: Interval) -> dict[str, float]:
    return {f"{name}_ci_low": interval.low, f"{name}_ci_high": interval.high}
