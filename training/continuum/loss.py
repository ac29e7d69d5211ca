"""Losses of the encoder: sampled softmax over items, and the heads.

Belongs here: negatives, the sampled softmax, the sum of heads. Does not belong here: the network
(`model.py`), which steps are targets (`batches.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training.config import EncoderParams
from training.continuum.batches import Batch
from training.continuum.blocks import FAR
from training.continuum.model import Encoder, Readout, mix
from training.continuum.singles import SingleBatch


@dataclasses.dataclass(frozen=True)
class Negatives:
    """Items drawn against all requests of a batch.

    Attributes:
        ids: int64[N].
        log_expected: float[N], log of how often each is expected in a draw (zeros without correction).
    """

    ids: Tensor
    log_expected: Tensor


CUTOFF = 10
"""Length of the list that the targets are weighed for."""

POWER = 1.0
"""Popular negatives are drawn in proportion to count ** POWER."""


class NegativeSampler:
    """Draws negatives uniformly, and a share of them in proportion to count ** 0.75.

    With correction, the logit of a negative is lowered by the log of its expected number of draws, so
    that the sum over negatives estimates the sum over the catalogue (Bengio and Senecal, 2008).
    """

    def __init__(self, count: np.ndarray, params: EncoderParams, generator: torch.Generator):
        size = len(count) - 1
        popular = round(params.negatives * params.popular_negatives)
        weight = torch.from_numpy(np.asarray(count[1:], dtype=np.float64) ** POWER)
        share = weight / weight.sum()
        self.uniform, self.popular, self.size = params.negatives - popular, popular, size
        self.cumulative = share.cumsum(0)
        expected = self.uniform / size + popular * share
        self.log_expected = torch.log(expected).float() if params.logq else torch.zeros(size)
        self.generator = generator

    def draw(self) -> Negatives:
        """One draw, with replacement."""
        ids = torch.randint(self.size, (self.uniform,), generator=self.generator)
        if self.popular:
            at = torch.rand(self.popular, generator=self.generator, dtype=torch.float64)
            drawn = torch.searchsorted(self.cumulative, at).clamp(max=self.size - 1)
            ids = torch.cat([ids, drawn])
        return Negatives(ids + 1, self.log_expected[ids])


def sampled_softmax(known: Tensor, target: Tensor, rival: Tensor, sampled: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy of each target against its rivals and the sampled negatives.

    Other targets of the same request are no rivals: each target is one choice among what was not chosen.

    Args:
        known: float[B, Q, U] logits of the window's items.
        target: bool[B, Q, U] items to predict.
        rival: bool[B, Q, U] items of the history that were not chosen.
        sampled: float[B, Q, N] corrected logits of the negatives, FAR where one is a target or rival.
        weight: float[B, Q], 0 where there is no request.

    Returns:
        Mean over targets, each weighed by its request's weight and `ideal_weight`.
    """
    against = torch.cat([known.masked_fill(~rival, FAR), sampled], dim=-1).logsumexp(-1, keepdim=True)
    each = torch.logaddexp(known, against) - known
    share = weight * ideal_weight(target.sum(-1))
    return (each * target * share.unsqueeze(-1)).sum() / (target * share.unsqueeze(-1)).sum().clamp(min=1e-9)


def ideal_weight(number: Tensor) -> Tensor:
    """Weight of one target among a request's targets: 1 / IDCG@10, what a hit is worth in NDCG@10.

    With equal weights per request the small baskets would outshout the large ones, with equal weights per
    target the other way round; the probabilities that are learned so order items for NDCG.
    """
    gains = 1.0 / torch.log2(torch.arange(CUTOFF, device=number.device) + 2.0)
    ideal = torch.cat([gains[:1], gains.cumsum(0)])
    return 1.0 / ideal[number.clamp(max=CUTOFF)]


def total_loss(
    model: Encoder, batch: Batch | SingleBatch, negatives: Negatives, hidden: Tensor | None
) -> tuple[Tensor, dict[str, float]]:
    """Weighted sum of all losses that the batch has labels for.

    Args:
        model: The encoder.
        batch: Windows and requests.
        negatives: Shared by all requests of the batch.
        hidden: bool[V + 1], items that must live from content in this batch, or None.

    Returns:
        The loss and its parts: ``item``, ``action``, ``channel``, and ``buy`` and ``avoid`` where labelled.
    """
    device = model.request.device
    data = {name: torch.from_numpy(value).to(device) for name, value in vars(batch).items()}
    negatives = Negatives(negatives.ids.to(device), negatives.log_expected.to(device))
    hidden = None if hidden is None else hidden.to(device)
    if isinstance(batch, SingleBatch):
        loss = single_loss(model, data, negatives, hidden)
        return loss, {"item": float(loss.detach())}
    vectors = model.items(data["unique"], hidden)
    slots = data["slot"].unsqueeze(-1).expand(-1, -1, vectors.shape[-1])
    x = model.tokens(vectors.gather(1, slots), data["action"], data["channel"])
    found = model.encode(
        x, data["action"] > 0, data["time"], data["step"], data["request_time"], data["request_step"]
    )
    loss = item_loss(model, data, vectors, found, negatives, hidden)
    parts = {"item": float(loss.detach())}
    for name, weight, part in head_losses(model, data, vectors, found.state):
        loss, parts[name] = loss + weight * part, float(part.detach())
    return loss, parts


def item_loss(
    model: Encoder,
    data: dict[str, Tensor],
    vectors: Tensor,
    found: Readout,
    negatives: Negatives,
    hidden: Tensor | None,
) -> Tensor:
    """Sampled softmax over the window's items and the negatives.

    With the pointer, the items of the history are always rivals; the negatives stand for the rest.
    """
    unique, target = data["unique"], data["target"]
    known = found.state @ vectors.transpose(1, 2) + model.items.bias(unique, hidden).unsqueeze(1)
    rival = torch.zeros_like(target)
    if found.pointer is not None:
        column = data["slot"].unsqueeze(1).expand(-1, target.shape[1], -1)
        evidence = torch.zeros_like(known).scatter_add(2, column, torch.exp(found.pointer))
        known = mix(known, evidence)
        rival = (evidence > 0) & ~target & (unique > 0).unsqueeze(1)
    sampled = found.state @ model.items(negatives.ids, hidden).T
    sampled = sampled + model.items.bias(negatives.ids, hidden) - negatives.log_expected
    # A negative is left out only where it is counted already. An item that the customer takes later is a
    # fair negative now; leaving it out as well would overrate everything popular.
    same = (unique.unsqueeze(2) == negatives.ids).to(known.dtype)
    counted = (target | rival).to(known.dtype) @ same > 0
    return sampled_softmax(known, target, rival, sampled.masked_fill(counted, FAR), data["weight"])


def head_losses(
    model: Encoder, data: dict[str, Tensor], vectors: Tensor, state: Tensor
) -> Iterator[tuple[str, float, Tensor]]:
    """Name, weight and value of each head's loss that the batch has labels for."""
    params, request = model.params, data["request"]
    for name, head in (("action", model.action_head), ("channel", model.channel_head)):
        if not params.action_weight:
            continue
        yield (
            name,
            params.action_weight,
            functional.cross_entropy(head(state)[request], data[f"next_{name}"][request]),
        )
    labelled = request & (data["buy"] >= 0)
    if labelled.any():
        logit = model.buy_logit(state)[labelled]
        truth = data["buy"][labelled].float()
        yield "buy", params.label_weight, functional.binary_cross_entropy_with_logits(logit, truth)
    if data["avoid"].any():
        judged = data["avoid"] | data["target"]
        logit = model.avoid_logits(state, vectors)[judged]
        truth = data["avoid"][judged].float()
        yield "avoid", params.label_weight, functional.binary_cross_entropy_with_logits(logit, truth)


def single_loss(
    model: Encoder, data: dict[str, Tensor], negatives: Negatives, hidden: Tensor | None
) -> Tensor:
    """`item_loss` where every step is one event and nothing points back: one target per request.

    Padding is dropped before items are scored, and the vectors of the events serve as tokens and as targets.

    Args:
        model: The encoder.
        data: Arrays of a `SingleBatch`.
        negatives: Shared by all requests of the batch.
        hidden: As in `total_loss`.
    """
    vectors = model.items(data["item"], hidden)
    x = model.tokens(vectors, data["action"], data["channel"])
    time, step = data["time"], data["step"]
    state = model.encode(x, data["action"] > 0, time, step, time, step).state[data["request"]]
    target = data["item"][data["request"]]
    known = (state * vectors[data["request"]]).sum(-1) + model.items.bias(target, hidden)
    weight = data["weight"].unsqueeze(1).expand_as(data["request"])[data["request"]]
    if model.params.loss == "bce":
        ids = negatives.ids[torch.randint(len(negatives.ids), target.shape)]
        drawn = (state * model.items(ids, hidden)).sum(-1) + model.items.bias(ids, hidden)
        each = functional.softplus(-known) + functional.softplus(drawn) * (ids != target)
    else:
        level = model.items.bias(negatives.ids, hidden) - negatives.log_expected
        rivals = model.items(negatives.ids, hidden)
        each = SharedSoftmax.apply(state, rivals, level, known, target.unsqueeze(1) == negatives.ids)
    return (each * weight).sum() / weight.sum().clamp(min=1e-9)


class SharedSoftmax(torch.autograd.Function):
    """Cross-entropy of each request's target against negatives that all requests share.

    Holds one matrix [T, N], which is logits, then shares, then their gradient in turn; composed of single
    operations it would be four.
    """

    @staticmethod
    def forward(ctx, state: Tensor, rivals: Tensor, level: Tensor, known: Tensor, counted: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        """float[T] from states [T, d], negatives [N, d], their levels [N], targets' logits [T], left out [T, N]."""
        share = torch.addmm(level, state, rivals.T).float().masked_fill_(counted, FAR)
        total = torch.logaddexp(share.logsumexp(1), known)
        share.sub_(total.unsqueeze(1)).exp_()
        each = total - known
        ctx.save_for_backward(state, rivals, share, each)
        return each

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        """Gradients; the kept matrix is consumed, so this runs once."""
        state, rivals, share, each = ctx.saved_tensors
        flow = share.mul_(grad.unsqueeze(1))
        missed = grad * torch.expm1(-each)
        return flow @ rivals, flow.T @ state, flow.sum(0), missed, None
