"""What a reviewer reads about an encoder: the model card.

Belongs here: words from numbers. Does not belong here: the numbers (`training/ranker/evaluate.py` judges
every system alike), MLflow (`training/tracking.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from training.config import EncoderConfig
from training.ranker.evaluate import Evaluation

Numbers = Mapping[str, float | tuple[float, float, float]]
NAME = "encoder"


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a card states beside the results.

    Attributes:
        config: The run's config.
        lake: Delta version by table.
        code_version: Version of this code.
        vocabulary: Items with a score.
        cold: Of them, those that live from content alone.
        customers: Customers learned from.
        events: Events learned from.
        heads: Which heads had labels to learn from.
        best: Epoch that was kept.
        seconds: Spent on training.
        parity: Largest difference of ONNX and torch scores.
        frozen: Frozen requests.
    """

    config: EncoderConfig
    lake: Mapping[str, int]
    code_version: str
    vocabulary: int
    cold: int
    customers: int
    events: int
    heads: Mapping[str, bool]
    best: int
    seconds: float
    parity: float
    frozen: int


def model_card(facts: Facts, evaluation: Evaluation, numbers: Numbers) -> str:
    """The model card, Markdown."""
    config, params = facts.config, facts.config.params
    simulated = "\n**Shoppers of this shop are simulated.**\n" if config.simulated else ""
    trained = ", ".join(name for name, done in facts.heads.items() if done)
    untrained = ", ".join(name for name, done in facts.heads.items() if not done) or "none"
    parts = ", with a pointer that scores items of the history directly" if params.pointer else ""
    parts += f", {params.members} such networks as one" if params.members > 1 else ""
    parts += f", with {params.memory} counted pairs per item" if params.memory else ""
    parts += ", with what is in demand lately" if params.trend else ""
    return f"""# Continuum encoder of {config.retailer}
{simulated}
Reads the last {params.length} events of one customer over all channels and scores the whole vocabulary for the
next visit. It proposes candidates to the ranker and is one of its features; alone it answers nobody.

## How it was made
| | |
|---|---|
| Network | {params.blocks} gated block(s), width {params.dim}, {params.heads} heads, relative time buckets{parts} |
| Content of items | {", ".join(params.content) or "none"} |
| Loss | softmax over the history's items and {params.negatives} sampled negatives |
| Learned from | {facts.events:,} events of {facts.customers:,} customers before {config.train_until:%Y-%m-%d} |
| Chosen on | the last {params.validation_days} of these days, which are not learned from; epoch {facts.best} kept |
| Vocabulary | {facts.vocabulary:,} items, {facts.cold:,} of them by content alone |
| Heads trained | {trained} |
| Heads without labels in this data | {untrained} |
| Training time | {facts.seconds:.0f} s on {config.threads} thread(s) |
| Lake | {", ".join(f"{name} {version}" for name, version in sorted(facts.lake.items()))} |
| Code | {facts.code_version} |
| ONNX against torch | largest difference of scores {facts.parity:.1e} |

## How good it is
Judged on {facts.frozen:,} frozen requests: each customer's first visit with a purchase in
[{config.evaluate_from:%Y-%m-%d}, {config.evaluate_until:%Y-%m-%d}), whole catalogue, nothing learned after
{config.train_until:%Y-%m-%d}. Brackets hold 95 % bootstrap intervals.

| | NDCG@10 |
|---|---|
{_systems(evaluation, numbers)}

| encoder | |
|---|---|
{_headline(numbers)}

### By customer
| customers | requests | encoder | best baseline there |
|---|---|---|---|
{_segments(evaluation, numbers)}

## Use with care
- Baselines see everything up to the evaluation window; the encoder's weights end at {config.train_until:%Y-%m-%d},
  so that the ranker can learn from scores of an unseen time.
- Items outside the vocabulary have no score; the ranker reaches them by popularity and co-purchase.
- Scores order items inside one answer; they are no calibrated probabilities.
"""


def headline(numbers: Numbers) -> dict[str, float | tuple[float, float, float]]:
    """The summary of `training.ranker.evaluate` in the encoder's terms: it has one variant and no candidates."""
    left_out = ("variant_", "candidate_recall")
    return {name: value for name, value in numbers.items() if not name.startswith(left_out)}


def comparison(evaluation: Evaluation, numbers: Numbers) -> dict[str, tuple[float, float, float]]:
    """(mean, low, high) of NDCG@10 by system, for the comparison plot."""
    systems = {NAME: numbers["ndcg_at_10"]}
    systems |= {name: numbers[f"baseline_{name}_ndcg_at_10"] for name in evaluation.baselines}
    return {name: value if isinstance(value, tuple) else (value,) * 3 for name, value in systems.items()}


def _systems(evaluation: Evaluation, numbers: Numbers) -> str:
    order = sorted(evaluation.baselines, key=lambda name: -float(evaluation.baselines[name].ndcg.mean()))
    rows = [f"| **encoder** | {_text(numbers['ndcg_at_10'])} |"]
    return "\n".join(
        rows + [f"| {name} | {_text(numbers[f'baseline_{name}_ndcg_at_10'])} |" for name in order]
    )


def _headline(numbers: Numbers) -> str:
    names = (
        "ndcg_at_10", "recall_at_10", "recall_at_100", "mrr_at_10", "hit_rate_at_10", "novelty_at_10", "coverage_at_10",
    )  # fmt: skip
    return "\n".join(f"| {name} | {_text(numbers[name])} |" for name in names)


def _segments(evaluation: Evaluation, numbers: Numbers) -> str:
    return "\n".join(
        f"| {name} | {int(inside.sum())} | {_text(numbers[f'segment_{name}_ndcg_at_10'])} "
        f"| {_text(numbers[f'segment_{name}_best_baseline_ndcg_at_10'])} |"
        for name, inside in evaluation.segments.items()
        if inside.any()
    )


def _text(number: float | tuple[float, float, float]) -> str:
    if isinstance(number, tuple):
        return f"{number[0]:.4f} [{number[1]:.4f}, {number[2]:.4f}]"
    return f"{number:.4f}"
