"""The training loop of the encoder: epochs, learning rate, early stopping.

Belongs here: how weights are found. Does not belong here: losses (`loss.py`), reading data and writing
results (`train.py`).
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from training.config import EncoderParams
from training.continuum import memory, singles
from training.continuum.batches import NEGATIVE, Batch, Steps, cut_windows, find_steps, make_batches
from training.continuum.data import Sequences, Vocabulary
from training.continuum.ensemble import Ensemble
from training.continuum.infer import pack
from training.continuum.loss import NegativeSampler, total_loss
from training.continuum.model import Encoder
from training.continuum.ranks import join, precise
from training.continuum.start import spectral_start
from training.continuum.trend import trend
from training.evaluation.metrics import Targets, ndcg

BIAS_RATE = 5.0
"""Learning rate of biases and bias tables over that of matrices: Adam moves each by at most about the rate per
step, and levels have further to go than directions."""

WARM_UP = 0.05
MEMBERS_APART = 1000
"""Distance of the seeds of two members."""

LARGEST_GRADIENT = 1.0
SCORE_BATCH = 64

Progress = Callable[[str], None]


class TrainingError(RuntimeError):
    """Training that went nowhere; the message says at which epoch."""


@dataclasses.dataclass(frozen=True)
class Validation:
    """Next-basket requests that choose the epoch.

    Attributes:
        rows: int64[R] customers, as rows of the sequences.
        at: float64[R] days.
        targets: Encoder ids of what was bought then, -1 for items outside the vocabulary.
        filter_seen: Leave out the items of the history.
    """

    rows: npt.NDArray[np.int64]
    at: npt.NDArray[np.float64]
    targets: Targets
    filter_seen: bool = False


@dataclasses.dataclass(frozen=True)
class Fit:
    """A trained encoder.

    Attributes:
        encoder: With the weights of the best epoch, in evaluation mode.
        heads: Which heads had labels to learn from, by name.
        curves: Values by epoch: ``train_loss`` and its parts, ``validation_ndcg_at_10`` (epoch 0 is untrained).
        best: Epoch that was kept.
        seconds: Spent on training, without validation.
        examples: Requests learned from per epoch.
        weighed: Weights of the memory's relations, None without one.
    """

    encoder: Encoder
    heads: dict[str, bool]
    curves: dict[str, list[float]]
    best: int
    seconds: float
    examples: int
    weighed: memory.Weights | None = None


def fit(
    sequences: Sequences,
    vocabulary: Vocabulary,
    params: EncoderParams,
    validation: Validation,
    *,
    seen: Sequences,
    seed: int,
    progress: Progress,
    watch: Callable[[Encoder, float], None] | None = None,
) -> Fit:
    """Train with early stopping: each member, then what counting adds to all of them.

    Args:
        sequences: What is learned from: only events before the validation days.
        vocabulary: Items.
        params: Shape and training.
        validation: Requests in the validation days; without any, the last epoch is kept.
        seen: All events, from which the validation requests read their histories.
        seed: Of every random choice.
        progress: Receives one line per epoch.
        watch: Called after each epoch with the encoder as it would be kept and the seconds of training so far.

    Raises:
        TrainingError: The loss is not finite.
    """
    steps, ranks = find_steps(sequences), join()
    told = progress if ranks.rank == 0 else str
    forward, trained = params.members - params.both_ways, []
    both = sequences.both_ways() if params.both_ways else sequences
    half = msgspec.structs.replace(params, epochs=-(-params.epochs // 2))
    for member in range(params.members):
        if params.members > 1:
            told(f"member {member + 1} of {params.members}{' (both ways)' if member >= forward else ''}")
        learned, own = (sequences, params) if member < forward else (both, half)
        trained.append(
            _train(
                learned, vocabulary, own, validation,
                seen=seen, seed=seed + MEMBERS_APART * member, progress=progress, watch=watch,
            )
        )  # fmt: skip
    encoder = trained[0].encoder if len(trained) == 1 else Ensemble([one.encoder for one in trained])
    spent = sum(one.seconds for one in trained)
    started = time.monotonic()
    if params.trend:
        lately = trend(sequences, vocabulary.size, params.trend_fade)
        encoder.items.trend.copy_(torch.from_numpy(params.trend * lately))
    weighed: memory.Weights | None = None
    if encoder.memory is not None:
        tables = memory.relations(sequences, steps.of, vocabulary.size, params.fade)
        weighed = params.memory_weights or weigh(encoder, tables, seen, validation)
        encoder.memory.fill(tables, weighed)
    spent += time.monotonic() - started
    if params.trend or weighed or len(trained) > 1:
        reached = validate(encoder, params, seen, validation)
        told(f"the whole, memory {weighed}: validation NDCG@10 {reached:.4f}, {spent:.0f} s")
    best = round(float(np.mean([one.best for one in trained[:forward]])))
    return Fit(
        encoder.eval(), label_heads(sequences, steps), _mean_curves([one.curves for one in trained]), best, spent,
        len(steps.buy), weighed,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Trained:
    """One member: see `Fit`."""

    encoder: Encoder
    curves: dict[str, list[float]]
    best: int
    seconds: float


def _train(
    sequences: Sequences,
    vocabulary: Vocabulary,
    params: EncoderParams,
    validation: Validation,
    *,
    seen: Sequences,
    seed: int,
    progress: Progress,
    watch: Callable[[Encoder, float], None] | None,
) -> _Trained:
    """One encoder, without what is counted; arguments as of `fit`."""
    torch.manual_seed(seed)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    ranks = join()
    encoder, steps = Encoder(vocabulary, params), find_steps(sequences)
    told = progress if ranks.rank == 0 else str
    spent = 0.0
    if params.start == "spectral":
        started = time.monotonic()
        spectral_start(encoder, sequences, steps.of, rng)
        spent += time.monotonic() - started
    encoder.to(ranks.device)
    if ranks.world > 1:
        torch.manual_seed(seed + ranks.rank)  # Each drops other values.
    sampler = NegativeSampler(vocabulary.count, params, generator)
    lean = singles.fits(sequences, steps, params)
    optimizer = torch.optim.AdamW(_groups(encoder, params), lr=params.learning_rate, fused=lean)
    weights, average = list(encoder.parameters()), Average(encoder, params.average)
    curves: dict[str, list[float]] = {"validation_ndcg_at_10": [validate(encoder, params, seen, validation)]}
    kept, best, step = _weights(encoder), 0, 0
    total = params.epochs * max(1, -(-_count(sequences, steps, params) // params.batch))
    for epoch in range(1, params.epochs + 1):
        started = time.monotonic()
        parts: dict[str, list[float]] = {}
        for whole in batches(sequences, steps, params, rng):
            batch, share = ranks.part(whole)
            _set_rate(optimizer, params.learning_rate * rate(step / total))
            hidden = torch.rand(len(vocabulary.product_id), generator=generator) < params.item_dropout
            negatives = sampler.draw()
            optimizer.zero_grad(set_to_none=True)
            values: dict[str, float] = {"train_loss": 0.0}
            if share:
                with precise(ranks.device, params.precision):
                    loss, parts_of = total_loss(encoder, batch, negatives, hidden)
                (loss * share).backward()
                values = {"train_loss": float(loss.detach()) * share, **parts_of}
            values["train_loss"] = ranks.add(weights, values["train_loss"])
            torch.nn.utils.clip_grad_norm_(encoder.parameters(), LARGEST_GRADIENT)
            optimizer.step()
            average.update()
            step += 1
            for name, value in values.items():
                parts.setdefault(name, []).append(value)
        spent += time.monotonic() - started
        _append(curves, parts, epoch)
        reached = ranks.agree(validate(average.encoder, params, seen, validation) if ranks.rank == 0 else 0.0)
        curves["validation_ndcg_at_10"].append(reached)
        told(
            f"epoch {epoch} of {params.epochs}: loss {curves['train_loss'][-1]:.4f}, "
            f"validation NDCG@10 {reached:.4f}, {spent:.0f} s"
        )
        if watch is not None and ranks.rank == 0:
            watch(average.encoder, spent)
        if best == 0 or not len(validation.rows) or reached > curves["validation_ndcg_at_10"][best]:
            kept, best = _weights(average.encoder), epoch
        if epoch - best >= params.patience or ranks.agree(spent) > params.max_seconds:
            break
    encoder.cpu().load_state_dict(kept)
    return _Trained(encoder, curves, best, spent)


def _mean_curves(curves: Sequence[dict[str, list[float]]]) -> dict[str, list[float]]:
    """The members' mean, as far as all have come."""
    return {
        name: [float(np.mean(values)) for values in zip(*(curve[name] for curve in curves), strict=False)]
        for name in curves[0]
    }


def batches(
    sequences: Sequences, steps: Steps, params: EncoderParams, rng: np.random.Generator
) -> Iterator[Batch] | Iterator[singles.SingleBatch]:
    """One epoch, in the lean form where the data allows it."""
    if singles.fits(sequences, steps, params):
        return singles.single_batches(
            sequences, singles.single_windows(sequences, steps, params, rng), params, rng
        )
    windows = cut_windows(sequences, steps, params.length, params.stride, params.customer_balance, rng)
    return make_batches(
        sequences, steps, windows, batch=params.batch, queries=params.queries,
        target_actions=params.target_actions, rng=rng,
    )  # fmt: skip


class Average:
    """Running mean of the weights (Polyak averaging), or the weights themselves where decay is 0.

    Attributes:
        encoder: Has the mean.
    """

    def __init__(self, encoder: Encoder, decay: float):
        self.encoder = copy.deepcopy(encoder) if decay else encoder
        self.decay, self.steps = decay, 0
        self._mean = list(self.encoder.parameters()) if decay else []
        self._now = list(encoder.parameters())

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step; the first steps weigh as in a plain mean."""
        if self.decay:
            self.steps += 1
            torch._foreach_lerp_(self._mean, self._now, 1 - min(self.decay, self.steps / (self.steps + 10)))


def validate(encoder: Encoder, params: EncoderParams, seen: Sequences, validation: Validation) -> float:
    """Mean NDCG@10 on the validation requests, 0 without any."""
    if not len(validation.rows):
        return 0.0
    return ndcg_of(validation, (scores for _, scores in scored(encoder, params, seen, validation)))


def ndcg_of(validation: Validation, parts: Iterable[torch.Tensor]) -> float:
    """Mean NDCG@10 of scores float[B, V + 1] of all validation requests, in their order."""
    answers = [scores.topk(min(10, scores.shape[1] - 1)).indices.numpy() for scores in parts]
    return float(ndcg(np.concatenate(answers), validation.targets, 10).mean())


def scored(
    encoder: Encoder, params: EncoderParams, seen: Sequences, validation: Validation
) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
    """Inputs of each batch of validation requests, and scores float[B, V + 1], -inf for what must not be answered."""
    encoder.eval()
    device = encoder.request.device
    with torch.no_grad():
        catalogue = torch.arange(encoder.items.rows, device=device)
        table, bias = encoder.items(catalogue), encoder.items.bias(catalogue)
        for start in range(0, len(validation.rows), SCORE_BATCH):
            part = slice(start, start + SCORE_BATCH)
            packed = pack(seen, validation.rows[part], validation.at[part], params.length)
            inputs = {name: torch.from_numpy(value).to(device) for name, value in packed.items()}
            scores = encoder.score(table, bias, **inputs)[0].cpu()
            scores[:, 0] = -torch.inf
            if validation.filter_seen:
                scores[seen_items(seen, validation.rows[part], validation.at[part])] = -torch.inf
            yield inputs, scores
    encoder.train()


def weigh(encoder: Encoder, tables: memory.Tables, seen: Sequences, validation: Validation) -> memory.Weights:
    """Weights of the memory's relations by the mean NDCG@10 on the validation requests; 0 without any.

    Args:
        encoder: Trained, its memory empty; afterwards that holds what was tried last.
        tables: As `memory.relations` gives them.
        seen: As of `fit`.
        validation: Likewise.
    """
    if not len(validation.rows):
        return memory.NONE
    parts = list(scored(encoder, encoder.params, seen, validation))

    def quality(weights: memory.Weights) -> float:
        assert encoder.memory is not None
        encoder.memory.fill(tables, weights)
        return ndcg_of(
            validation,
            (
                scores.scatter_add(1, *encoder.remembered(given["item"], given["action"], given["age"]))
                for given, scores in parts
            ),
        )

    return memory.choose(quality)


def seen_items(
    seen: Sequences, rows: npt.NDArray[np.int64], at: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Places (request, item) of what each customer had before a moment."""
    starts = seen.offsets[rows]
    sizes = seen.offsets[rows + 1] - starts
    owner = np.repeat(np.arange(len(rows)), sizes)
    places = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes - starts, sizes)
    before = seen.at[places] < at[owner]
    return owner[before], seen.item[places[before]].astype(np.int64)


def label_heads(sequences: Sequences, steps: Steps) -> dict[str, bool]:
    """Which heads the data has labels for: next item, action and channel always have."""
    labels = set(np.unique(steps.buy).tolist())
    refused = (sequences.item > 0) & NEGATIVE[sequences.action]
    return {
        "next_item": True, "next_action": True, "next_channel": True,
        "buy": {0, 1} <= labels, "avoid": bool(refused.any()),
    }  # fmt: skip


def rate(done: float) -> float:
    """Learning rate over its peak after a share of all steps: linear warm-up, cosine decay to a tenth."""
    return min(1.0, (done + 1e-3) / WARM_UP) * (0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, done))))


def _set_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = value * group["scale"]


def _groups(encoder: Encoder, params: EncoderParams) -> list[dict[str, object]]:
    named = list(encoder.named_parameters())
    levels = [weight for name, weight in named if weight.ndim == 1 or "bias" in name]
    matrices = [weight for name, weight in named if not (weight.ndim == 1 or "bias" in name)]
    return [
        {"params": levels, "scale": BIAS_RATE, "weight_decay": 0.0},
        {"params": matrices, "scale": 1.0, "weight_decay": params.weight_decay},
    ]


def _weights(encoder: Encoder) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in encoder.state_dict().items()}


def _count(sequences: Sequences, steps: Steps, params: EncoderParams) -> int:
    rng = np.random.default_rng(0)
    return len(cut_windows(sequences, steps, params.length, params.stride, params.customer_balance, rng))


def _append(curves: dict[str, list[float]], parts: dict[str, list[float]], epoch: int) -> None:
    means = {name: float(np.mean(values)) for name, values in parts.items()}
    if not means or not math.isfinite(means["train_loss"]):
        raise TrainingError(f"epoch {epoch}: loss is {means.get('train_loss')}; expected a finite number")
    for name, mean in means.items():
        curves.setdefault(name if name == "train_loss" else f"{name}_loss", []).append(mean)
