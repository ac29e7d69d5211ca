"""Losses that pull vectors to proxies of their classes; a label of -1 leaves a picture out.

Belongs here: losses and their proxies. Does not belong here: which labels there are (`attributes.py`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ProxySoftmax(nn.Module):
    """Normalised softmax over proxies (Zhai and Wu 2019) with an additive margin (Wang et al. 2018).

    Args:
        classes: How many.
        dim: Width of the vectors.
        scale: Inverse temperature.
        margin: Taken off the product with the own proxy.
        smoothing: Share of a label that goes to all other classes.
    """

    def __init__(self, classes: int, dim: int, scale: float, margin: float, smoothing: float = 0.0) -> None:
        super().__init__()
        self.proxies = nn.Parameter(nn.functional.normalize(torch.randn(classes, dim), dim=-1))
        self.scale, self.margin, self.smoothing = scale, margin, smoothing

    def __len__(self) -> int:
        return len(self.proxies)

    def forward(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of unit vectors float[B, dim] with int64[B] labels; 0 where no picture has one."""
        vectors, labels = vectors[labels >= 0], labels[labels >= 0]
        if not len(labels):
            return vectors.sum() * 0.0
        cosine = vectors @ nn.functional.normalize(self.proxies, dim=-1).T
        own = nn.functional.one_hot(labels, cosine.shape[1])
        return nn.functional.cross_entropy(
            self.scale * (cosine - self.margin * own), labels, label_smoothing=self.smoothing
        )


class ProxyAnchor(nn.Module):
    """Proxy-anchor loss (Kim et al. 2020): each proxy pulls its pictures and pushes all others, hard ones harder.

    Args:
        classes: How many.
        dim: Width of the vectors.
        scale: Alpha of the paper, 32 there.
        margin: Delta of the paper, 0.1 there.
        smoothing: Not used; the loss has no distribution to smooth.
    """

    def __init__(self, classes: int, dim: int, scale: float, margin: float, smoothing: float = 0.0) -> None:
        super().__init__()
        self.proxies = nn.Parameter(nn.functional.normalize(torch.randn(classes, dim), dim=-1))
        self.scale, self.margin = scale, margin

    def __len__(self) -> int:
        return len(self.proxies)

    def forward(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """Loss of unit vectors float[B, dim] with int64[B] labels; 0 where no picture has one."""
        vectors, labels = vectors[labels >= 0], labels[labels >= 0]
        if not len(labels):
            return vectors.sum() * 0.0
        cosine = vectors @ nn.functional.normalize(self.proxies, dim=-1).T
        own = nn.functional.one_hot(labels, cosine.shape[1]).bool()
        never = torch.finfo(cosine.dtype).min
        pull = (-self.scale * (cosine - self.margin)).masked_fill(~own, never)
        push = (self.scale * (cosine + self.margin)).masked_fill(own, never)
        # log(1 + sum exp) over the batch, for each proxy.
        pulled, pushed = (nn.functional.softplus(torch.logsumexp(part, 0)) for part in (pull, push))
        return pulled[own.any(0)].mean() + pushed.mean()


LOSSES = {"softmax": ProxySoftmax, "anchor": ProxyAnchor}


class WordsContrast(nn.Module):
    """Contrast between pictures and sentences, through a learned projection of the sentences' vectors.

    Args:
        sentences: float[S, width], as they stay.
        dim: Width of the pictures' vectors.
        scale: Inverse temperature.
    """

    sentences: Tensor

    def __init__(self, sentences: Tensor, dim: int, scale: float) -> None:
        super().__init__()
        self.register_buffer("sentences", nn.functional.normalize(sentences, dim=-1))
        self.project = nn.Linear(sentences.shape[1], dim)
        self.scale = scale

    def forward(self, vectors: Tensor, codes: Tensor) -> Tensor:
        """Loss of unit vectors float[B, dim] with int64[B] sentences (-1: none); equal sentences are partners."""
        vectors, codes = vectors[codes >= 0], codes[codes >= 0]
        if len(codes) < 2:
            return vectors.sum() * 0.0
        words = nn.functional.normalize(self.project(self.sentences[codes]), dim=-1)
        same = (codes[:, None] == codes[None, :]).to(vectors.dtype)
        return contrast(vectors, words, vectors.new_tensor(self.scale), same)


def contrast(first: Tensor, second: Tensor, scale: Tensor, same: Tensor) -> Tensor:
    """Both-way contrastive loss in which several pairs may be right (Khosla et al. 2020; Radford et al. 2021).

    Args:
        first: Unit vectors float[B, dim].
        second: Those of their partners.
        scale: Inverse temperature, a scalar.
        same: Weights float[B, B] of what counts as a partner; the diagonal is not 0.
    """
    logits = scale * first @ second.T
    rows, columns = same / same.sum(1, keepdim=True), (same / same.sum(0, keepdim=True)).T
    return -0.5 * ((rows * logits.log_softmax(1)).sum(1) + (columns * logits.T.log_softmax(1)).sum(1)).mean()
