"""What a reviewer reads about a ranker: the model card and the plots.

Belongs here: words and figures from numbers. Does not belong here: the numbers (`evaluate.py`), MLflow
(`training/tracking.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from training.config import RankerConfig
from training.ranker.evaluate import Evaluation
from training.ranker.params import RankerParams

Numbers = Mapping[str, float | tuple[float, float, float]]
TOP_FEATURES = 15


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a card states beside the results.

    Attributes:
        config: The run's config.
        params: The ranker's parameters.
        lake: Delta version by table.
        code_version: Version of this code.
        encoder_run: MLflow run of the encoder whose scores are read.
        requests: Training requests.
        rows: Rows learned from.
        rounds: Trees.
        frozen: Frozen requests.
        recall: Share of the bought products that were among the candidates.
        parity: Largest difference of ONNX and LightGBM scores.
    """

    config: RankerConfig
    params: RankerParams
    lake: Mapping[str, int]
    code_version: str
    encoder_run: str
    requests: int
    rows: int
    rounds: int
    frozen: int
    recall: float
    parity: float


def model_card(
    facts: Facts, evaluation: Evaluation, numbers: Numbers, importance: Mapping[str, float]
) -> str:
    """The model card, Markdown."""
    config = facts.config
    simulated = "\n**Shoppers of this shop are simulated.**\n" if config.simulated else ""
    return f"""# Ranker of {config.retailer}
{simulated}
Orders about 600 candidate products for one customer at one moment; the first ten are shown.

## How it was made
| | |
|---|---|
| Method | LambdaRank over {facts.rounds} gradient-boosted trees, {facts.params.leaves} leaves each |
| Learned from | {facts.requests:,} requests, {facts.rows:,} rows |
| Window | [{config.ranker_from:%Y-%m-%d}, {config.train_until:%Y-%m-%d}) |
| A request | a customer's first basket after a moment every {facts.params.cut_days} days |
| Label | the product is in the basket |
| Candidates | own products, encoder, co-bought, recently popular; they hold {facts.recall:.1%} of what is bought |
| Features | feature service `{config.feature_service}`, joined as of each request |
| Encoder | run `{facts.encoder_run}`, trained on events before {config.ranker_from:%Y-%m-%d} |
| Lake | {", ".join(f"{name} {version}" for name, version in sorted(facts.lake.items()))} |
| Code | {facts.code_version} |
| ONNX against LightGBM | largest difference of scores {facts.parity:.1e} |

## How good it is
Judged on {facts.frozen:,} frozen requests: each customer's first basket in
[{config.evaluate_from:%Y-%m-%d}, {config.evaluate_until:%Y-%m-%d}), whole catalogue. Brackets hold 95 % bootstrap intervals.

| | NDCG@10 |
|---|---|
{_systems(evaluation, numbers)}

Ratio to the best baseline ({evaluation.best_baseline}): {_text(numbers["ratio_to_best_baseline"])}.

| headline | |
|---|---|
{_headline(numbers)}

Variants say what a request brings: `full` its time and store (as the gate judges), `store_unknown` its
time and the customer's usual store, `moment_unknown` nothing but the start of the window.

### By customer
| customers | requests | ranker | best baseline there |
|---|---|---|---|
{_segments(evaluation, numbers)}

## What it looks at
| feature | share of gain |
|---|---|
{_features(importance)}

## Use with care
- Most of its success is repeat buying; what a customer has never bought is rarely on top.
- It has seen one shop and one season. Ratings of products that were never sold do not exist.
- Scores order products inside one answer; they are no probabilities and do not compare between answers.
"""


def comparison(evaluation: Evaluation, numbers: Numbers) -> dict[str, tuple[float, float, float]]:
    """(mean, low, high) of NDCG@10 by system, for the comparison plot."""
    return {
        "ranker": _interval(numbers["ndcg_at_10"]),
        **{name: _interval(numbers[f"baseline_{name}_ndcg_at_10"]) for name in evaluation.baselines},
    }


def importance_figure(importance: Mapping[str, float]) -> Any:
    """Bars of the features that matter most."""
    from matplotlib.figure import Figure

    shown = list(importance.items())[:TOP_FEATURES][::-1]
    figure = Figure(figsize=(7.0, 1.0 + 0.3 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh([name for name, _ in shown], [value for _, value in shown], color="#0b6e4f")
    axes.set_title("Share of gain by feature", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _systems(evaluation: Evaluation, numbers: Numbers) -> str:
    rows = [
        f"| **ranker**, {name} | {_text(numbers[f'variant_{name}_ndcg_at_10'])} |"
        for name in evaluation.ranker
    ]
    order = sorted(evaluation.baselines, key=lambda name: -float(evaluation.baselines[name].ndcg.mean()))
    rows += [f"| {name} | {_text(numbers[f'baseline_{name}_ndcg_at_10'])} |" for name in order]
    return "\n".join(rows)


def _headline(numbers: Numbers) -> str:
    names = ("ndcg_at_10", "recall_at_10", "mrr_at_10", "hit_rate_at_10", "novelty_at_10", "coverage_at_10")
    return "\n".join(f"| {name} | {_text(numbers[name])} |" for name in names)


def _segments(evaluation: Evaluation, numbers: Numbers) -> str:
    return "\n".join(
        f"| {name} | {_value(numbers[f'segment_{name}_requests']):.0f} | {_text(numbers[f'segment_{name}_ndcg_at_10'])} "
        f"| {_text(numbers[f'segment_{name}_best_baseline_ndcg_at_10'])} |"
        for name, inside in evaluation.segments.items()
        if inside.any()
    )


def _features(importance: Mapping[str, float]) -> str:
    return "\n".join(f"| {name} | {share:.1%} |" for name, share in list(importance.items())[:TOP_FEATURES])


def _interval(number: float | tuple[float, float, float]) -> tuple[float, float, float]:
    return number if isinstance(number, tuple) else (number, number, number)


def _value(number: float | tuple[float, float, float]) -> float:
    return number[0] if isinstance(number, tuple) else number


def _text(number: float | tuple[float, float, float]) -> str:
    if isinstance(number, tuple):
        return f"{number[0]:.4f} [{number[1]:.4f}, {number[2]:.4f}]"
    return f"{number:.4f}"
