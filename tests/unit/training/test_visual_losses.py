"""Losses of the visual models against sums written out by hand."""

import math

import pytest
import torch
from torch import nn

from training.visual.losses import ProxyAnchor, ProxySoftmax, WordsContrast, contrast


def _unit(rows: int, dim: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return nn.functional.normalize(torch.randn(rows, dim, generator=generator), dim=-1)


def test_proxy_anchor_is_the_papers_sum() -> None:
    scale, margin = 8.0, 0.1
    loss = ProxyAnchor(4, 6, scale, margin)
    vectors, labels = _unit(5, 6, 1), torch.tensor([0, 0, 2, -1, 3])
    proxies = nn.functional.normalize(loss.proxies.detach(), dim=-1)
    pulled, pushed = [], []
    for proxy in range(4):
        near = [float(vectors[i] @ proxies[proxy]) for i in range(5) if labels[i] == proxy]
        far = [float(vectors[i] @ proxies[proxy]) for i in range(5) if labels[i] not in (proxy, -1)]
        if near:
            pulled.append(math.log(1 + sum(math.exp(-scale * (s - margin)) for s in near)))
        pushed.append(math.log(1 + sum(math.exp(scale * (s + margin)) for s in far)))
    wanted = sum(pulled) / 3 + sum(pushed) / 4
    assert loss(vectors, labels).item() == pytest.approx(wanted, rel=1e-5)


def test_proxy_softmax_takes_the_margin_off_the_own_class_only() -> None:
    loss = ProxySoftmax(3, 4, 10.0, 0.2)
    vectors, labels = _unit(2, 4, 2), torch.tensor([1, -1])
    cosine = vectors[0] @ nn.functional.normalize(loss.proxies.detach(), dim=-1).T
    logits = [10.0 * (float(cosine[i]) - (0.2 if i == 1 else 0.0)) for i in range(3)]
    wanted = math.log(sum(math.exp(value) for value in logits)) - logits[1]
    assert loss(vectors, labels).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("kind", [ProxySoftmax, ProxyAnchor])
def test_a_batch_without_labels_costs_nothing(kind: type[nn.Module]) -> None:
    vectors = _unit(3, 4, 3).requires_grad_()
    value = kind(5, 4, 8.0, 0.1)(vectors, torch.full((3,), -1))
    value.backward()
    assert value.item() == 0.0
    assert vectors.grad is not None
    assert not vectors.grad.any()


def test_contrast_with_one_partner_each_is_the_symmetric_cross_entropy() -> None:
    first, second = _unit(6, 8, 4), _unit(6, 8, 5)
    logits, own = 12.0 * first @ second.T, torch.arange(6)
    wanted = (nn.functional.cross_entropy(logits, own) + nn.functional.cross_entropy(logits.T, own)) / 2
    found = contrast(first, second, torch.tensor(12.0), torch.eye(6))
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_equal_sentences_are_partners() -> None:
    loss = WordsContrast(_unit(3, 5, 6), 4, 10.0)
    vectors, codes = _unit(4, 4, 7), torch.tensor([0, 1, 0, -1])
    words = nn.functional.normalize(loss.project(loss.sentences[codes[:3]]), dim=-1)
    same = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 0, 1]])
    wanted = contrast(vectors[:3], words, torch.tensor(10.0), same)
    assert loss(vectors, codes).item() == pytest.approx(wanted.item(), rel=1e-5)
