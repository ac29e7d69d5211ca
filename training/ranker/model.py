"""LambdaRank over gradient-boosted trees (Burges 2010; LightGBM), chosen on a later week than it learned from.

Belongs here: fitting, early stopping, thresholds that survive single precision. Does not belong here:
data (`data.py`), the ONNX file (`export.py`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from training.evaluation.metrics import Targets, ndcg, top_k
from training.ranker.data import Dataset
from training.ranker.params import RankerParams

Singles = npt.NDArray[np.float32]

STEP = 5
"""Validation is scored every so many trees."""


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """A fitted ranker.

    Attributes:
        booster: Trees whose thresholds are float32 numbers.
        rounds: Trees kept.
        curve: Validation NDCG@10 after every `STEP` trees.
        best: Best validation NDCG@10.
    """

    booster: lgb.Booster
    rounds: int
    curve: tuple[float, ...]
    best: float


def fit(
    learning: Dataset,
    validation: Dataset,
    targets: Targets,
    names: Sequence[str],
    params: RankerParams,
    *,
    threads: int,
    seed: int,
) -> Fit:
    """Fit on earlier requests, choose the number of trees on later ones, and learn from both if asked to.

    Args:
        learning: Earlier requests, negatives sampled.
        validation: Later requests, with all candidates.
        targets: What was bought at each request of ``validation``.
        names: Feature names.
        params: Trees.
        threads: CPU threads.
        seed: Of bagging.
    """
    settings = _settings(params, threads, seed)
    booster = lgb.Booster(settings, _bins(learning, names, settings))
    asked = np.unique(validation.candidates.row)
    wanted = targets.select(asked)
    place = np.searchsorted(asked, validation.candidates.row)
    total = np.zeros(len(validation.label))
    curve: list[float] = []
    for done in range(1, params.rounds + 1):
        finished = booster.update()
        if done % STEP == 0 or finished:
            total += booster.predict(
                validation.features, start_iteration=len(curve) * STEP, raw_score=True, num_threads=threads
            )
            best = top_k(total, place, validation.candidates.item, len(asked))
            curve.append(float(ndcg(best, wanted).mean()))
        if finished or (len(curve) - 1 - int(np.argmax(curve or [0.0]))) * STEP >= params.patience:
            break
    rounds = (int(np.argmax(curve)) + 1) * STEP if curve else params.rounds
    rounds = min(rounds, booster.current_iteration())
    return Fit(single_precision(booster, rounds), rounds, tuple(curve), max(curve, default=0.0))


def refit(
    data: Dataset, names: Sequence[str], params: RankerParams, rounds: int, *, threads: int, seed: int
) -> lgb.Booster:
    """Fit a given number of trees on everything."""
    settings = _settings(params, threads, seed)
    booster = lgb.train(settings, _bins(data, names, settings), rounds)
    return single_precision(booster, rounds)


def single_precision(booster: lgb.Booster, rounds: int) -> lgb.Booster:
    """The same trees with thresholds rounded down to float32.

    LightGBM compares ``x <= threshold`` in float64, ONNX in float32. For a float32 x the comparison with
    the largest float32 not above the threshold has the same outcome, so after this both agree at every split.
    """

    def rounded(line: re.Match[str]) -> str:
        values = np.array(line.group(1).split(), np.float64)
        near = values.astype(np.float32)
        down = np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near)
        return "threshold=" + " ".join(repr(float(value)) for value in down)

    text = re.sub(
        r"^threshold=(.*)$", rounded, booster.model_to_string(num_iteration=rounds), flags=re.MULTILINE
    )
    # The sizes of the trees' texts have changed; without this line LightGBM finds them by itself.
    return lgb.Booster(model_str=re.sub(r"^tree_sizes=.*\n", "", text, flags=re.MULTILINE))


def predict(booster: lgb.Booster, features: Singles, threads: int = 1) -> npt.NDArray[np.float64]:
    """Scores of candidates, float64[M]."""
    return np.asarray(booster.predict(features, raw_score=True, num_threads=threads), np.float64)


def importance(booster: lgb.Booster, names: Sequence[str]) -> dict[str, float]:
    """Share of each feature in the loss that the splits saved, largest first."""
    gain = booster.feature_importance("gain")
    share = gain / max(float(gain.sum()), 1e-12)
    return {names[place]: float(share[place]) for place in np.argsort(-share, kind="stable")}


def _bins(data: Dataset, names: Sequence[str], settings: dict[str, object]) -> lgb.Dataset:
    return lgb.Dataset(
        data.features,
        data.label,
        group=data.groups,
        feature_name=list(names),
        params=settings,
        free_raw_data=True,
    )


def _settings(params: RankerParams, threads: int, seed: int) -> dict[str, object]:
    return {
        "objective": "lambdarank",
        "lambdarank_truncation_level": params.truncation,
        "learning_rate": params.learning_rate,
        "num_leaves": params.leaves,
        "min_data_in_leaf": params.min_leaf,
        "lambda_l2": params.l2,
        "feature_fraction": params.features_per_tree,
        "bagging_fraction": params.rows_per_tree,
        "bagging_freq": 1,
        "max_bin": params.bins,
        "use_missing": False,
        "metric": "None",
        "num_threads": threads,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }
