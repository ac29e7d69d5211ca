"""Networks to compare with on public sets: SASRec with its own and with a better loss, GRU4Rec with its correct loss.

Plain models of the papers, trained by one loop on the same windows as the encoder and chosen by the same
validation requests. Belongs here: peers that run in our environment. Does not belong here: the encoder
(`training/continuum`), peers with their own environment (`sequences_rectools.py`).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.config import EncoderParams
from training.continuum import singles
from training.continuum.batches import find_steps
from training.continuum.public import pad_left, sequences_of
from training.evaluation.protocol import Task, ndcg_of_ranks, ranks
from training.evaluation.public_sets import Lists

Ints = npt.NDArray[np.int64]


class PeerParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shape and training of a peer.

    Attributes:
        model: ``sasrec`` (arXiv 1808.09781) or ``gru4rec`` (arXiv 1706.03847).
        loss: ``bce`` with one negative per position; ``softmax`` over shared uniform negatives (arXiv 2508.06450);
            ``logq`` with half of the negatives by popularity and corrected logits, GRU4Rec's cross-entropy.
        dim: Width.
        blocks: Of SASRec; layers of GRU4Rec.
        heads: Of SASRec.
        dropout: Everywhere.
        length: Latest items that are read.
        negatives: Shared by a batch.
        batch: Windows per step.
        epochs: At most.
        patience: Epochs without a better validation NDCG.
        learning_rate: Adam's, constant.
        validation: Requests that choose the epoch.
        every: Epochs from validation to validation.
    """

    model: Literal["sasrec", "gru4rec"] = "sasrec"
    loss: Literal["bce", "softmax", "logq"] = "softmax"
    dim: int = 64
    blocks: int = 2
    heads: int = 2
    dropout: float = 0.3
    length: int = 50
    negatives: int = 256
    batch: int = 128
    epochs: int = 60
    patience: int = 4
    learning_rate: float = 1e-3
    validation: int = 5000
    every: int = 2


class SasRec(nn.Module):
    """SASRec as published: learned positions, causal self-attention, point-wise feed-forward, tied items."""

    def __init__(self, size: int, params: PeerParams):
        super().__init__()
        self.params = params
        self.items = nn.Embedding(size + 1, params.dim, padding_idx=0)
        self.places = nn.Embedding(params.length, params.dim)
        layer = nn.TransformerEncoderLayer(
            params.dim, params.heads, params.dim, params.dropout, batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(
            layer, params.blocks, nn.LayerNorm(params.dim), enable_nested_tensor=False
        )
        self.dropout = nn.Dropout(params.dropout)
        for table in (self.items, self.places):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, item: Tensor, real: Tensor) -> Tensor:
        """States float[B, L, d] of items int64[B, L], padded on the right where not real; places count from the end."""
        length = item.shape[1]
        back = (real.sum(1, keepdim=True) - 1 - torch.arange(length)).clamp(0, self.params.length - 1)
        x = self.dropout(self.items(item) * self.params.dim**0.5 + self.places(back))
        mask = torch.ones(length, length, dtype=torch.bool).triu(1)
        return self.body(x, mask=mask, src_key_padding_mask=None, is_causal=True)


class Gru4Rec(nn.Module):
    """GRU4Rec with tied item vectors (its ``constrained_embedding``)."""

    def __init__(self, size: int, params: PeerParams):
        super().__init__()
        self.items = nn.Embedding(size + 1, params.dim, padding_idx=0)
        self.body = nn.GRU(params.dim, params.dim, params.blocks, batch_first=True)
        self.dropout = nn.Dropout(params.dropout)
        nn.init.normal_(self.items.weight, std=params.dim**-0.5)

    def forward(self, item: Tensor, real: Tensor) -> Tensor:
        """States float[B, L, d]; padding on the right is behind everything that counts."""
        return self.dropout(self.body(self.dropout(self.items(item)))[0])


class PeerScorer:
    """Scores of the whole catalogue; see `protocol.Scorer`."""

    def __init__(self, model: nn.Module, params: PeerParams):
        self.model, self.params = model, params

    def __call__(self, histories: Lists) -> npt.NDArray[np.float32]:
        """float32[B, V + 1]."""
        left, _ = pad_left(histories, self.params.length)
        sizes = (left > 0).sum(1)
        item = np.zeros_like(left)
        for row, size in enumerate(sizes):
            item[row, :size] = left[row, left.shape[1] - size :]
        with torch.no_grad():
            states = self.model(torch.from_numpy(item), torch.from_numpy(item > 0))
            last = states[torch.arange(len(item)), torch.from_numpy(np.maximum(sizes - 1, 0))]
            return (last @ self.model.items.weight.T).numpy()  # type: ignore[operator, union-attr]


def train_peer(
    task: Task, params: PeerParams, seed: int, progress: Callable[[str], None], *, refit: bool = False
) -> tuple[PeerScorer, dict[str, Any]]:
    """Train, keep the best epoch.

    Args:
        task: What is learned from and chosen by.
        params: See `PeerParams`.
        seed: Of every random choice.
        progress: Receives one line per validation.
        refit: Learn from ``task.full`` for ``params.epochs`` epochs and keep the last.

    Returns:
        The model as a scorer, and ``seconds``, ``best`` epoch and the validation ``curve``.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = (SasRec if params.model == "sasrec" else Gru4Rec)(task.size, params)
    optimizer = torch.optim.Adam(model.parameters(), lr=params.learning_rate, betas=(0.9, 0.98), fused=True)
    lists = task.full if refit else task.train
    sequences, shape = sequences_of(lists), _windows(params)
    steps = find_steps(sequences)
    count = torch.from_numpy(np.bincount(lists.items, minlength=task.size + 1)[1:].astype(np.float64))
    draw = _negatives(count, params)
    drawn = np.random.default_rng(0).permutation(len(task.validation))[: params.validation]
    asked, curve, spent = task.validation.select(np.sort(drawn)), [0.0], 0.0
    kept, best = copy.deepcopy(model.state_dict()), 0
    for epoch in range(1, params.epochs + 1):
        started = time.monotonic()
        model.train()
        windows = singles.single_windows(sequences, steps, shape, rng)
        for batch in singles.single_batches(sequences, windows, shape, rng):
            loss = _loss(model, params, torch.from_numpy(batch.item), torch.from_numpy(batch.request), draw)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        spent += time.monotonic() - started
        if refit or epoch % params.every:
            continue
        model.eval()
        curve.append(
            ndcg_of_ranks(ranks(PeerScorer(model, params), asked, filter_seen=not task.sessions), task.k)
        )
        progress(f"epoch {epoch} of {params.epochs}: validation NDCG {curve[-1]:.4f}, {spent:.0f} s")
        if curve[-1] >= max(curve):
            kept, best = copy.deepcopy(model.state_dict()), epoch
        if epoch - best >= params.patience * params.every:
            break
    if not refit:
        model.load_state_dict(kept)
    return PeerScorer(model.eval(), params), {"seconds": spent, "best": best, "curve": curve}


def _windows(params: PeerParams) -> EncoderParams:
    return EncoderParams(
        length=params.length, batch=params.batch, learn_first=False, customer_balance=0.0, pointer=False,
        time_bias=False, action_weight=0.0,
    )  # fmt: skip


def _negatives(count: Tensor, params: PeerParams) -> Callable[[], tuple[Tensor, Tensor]]:
    """Drawer of ids int64[N] and of what to take from their logits, float[N]."""
    share = count / count.sum()
    popular = params.negatives // 2 if params.loss == "logq" else 0
    uniform, total = params.negatives - popular, len(count)
    expected = torch.log(uniform / total + popular * share).float()
    cumulative = share.cumsum(0)

    def draw() -> tuple[Tensor, Tensor]:
        ids = torch.randint(total, (uniform,))
        at = torch.searchsorted(cumulative, torch.rand(popular, dtype=torch.float64)).clamp(max=total - 1)
        ids = torch.cat([ids, at])
        return ids + 1, expected[ids] if params.loss == "logq" else torch.zeros(len(ids))

    return draw


def _loss(
    model: nn.Module,
    params: PeerParams,
    item: Tensor,
    request: Tensor,
    draw: Callable[[], tuple[Tensor, Tensor]],
) -> Tensor:
    states = model(item[:, :-1], item[:, :-1] > 0)[request[:, 1:]]
    target = item[:, 1:][request[:, 1:]]
    items: nn.Embedding = model.items  # type: ignore[assignment]
    known = (states * items(target)).sum(-1)
    if params.loss == "bce":
        wrong = torch.randint(1, items.num_embeddings, target.shape)
        drawn = (states * items(wrong)).sum(-1)
        return (functional.softplus(-known) + functional.softplus(drawn)).mean()
    ids, expected = draw()
    logits = (states @ items(ids).T - expected).masked_fill(target.unsqueeze(1) == ids, -1e9)
    return (torch.cat([known.unsqueeze(1), logits], dim=1).logsumexp(1) - known).mean()
