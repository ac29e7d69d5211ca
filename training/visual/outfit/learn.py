"""Training of the outfit network: each item of a look against all of its slot.

Belongs here: loss, loop, stopping. Does not belong here: tests (`judge.py`).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from training.visual.outfit.judge import Answer, Fit, auc, blanks, fitb, mixtures
from training.visual.outfit.looks import Integers, Looks, padded
from training.visual.outfit.model import Outfit
from training.visual.outfit.params import OutfitParams

BATCH = 256


@dataclasses.dataclass
class Learned:
    """A trained network.

    Attributes:
        network: In evaluation mode.
        curves: Loss, and fill-in-the-blank and compatibility on the validation looks, by epoch.
        best_epoch: Epoch that was kept.
    """

    network: Outfit
    curves: dict[str, list[float]]
    best_epoch: int


def learn(
    looks: Looks, validation: Looks, slots: int, params: OutfitParams, seed: int,
    progress: Callable[[str], None] = lambda line: None,
) -> Learned:  # fmt: skip
    """Train on looks; keep the epoch with the best sum of both tests on the validation looks.

    Raises:
        ValueError: No look has two items.
    """
    members = looks.members()
    if not members:
        raise ValueError("no look has two items; expected items that belong together")
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = Outfit(
        params.members, looks.vectors.shape[1], slots, params.dim, params.width, params.layers, params.heads,
        params.dropout,
    )  # fmt: skip
    _whiten(network, looks.vectors, params.whitening)
    start_alike(network)
    matrices = [p for name, p in network.named_parameters() if p.ndim > 1 and "embedding" not in name]
    others = [p for p in network.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": params.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=params.learning_rate,
    )
    tests = (blanks(validation, seed, 2), mixtures(validation, seed, 4)) if len(validation) else None
    curves: dict[str, list[float]] = {"loss": [], "validation_fitb": [], "validation_auc": []}
    best, best_epoch, kept = -1.0, 0, copy.deepcopy(network.state_dict())
    pool = _pool(looks)
    pairs = [(group, item) for group in members for item in group]
    total = params.epochs * max(1, len(pairs) // BATCH)
    step = 0
    for epoch in range(params.epochs):
        network.train()
        losses = []
        order = rng.permutation(len(pairs))
        for first in range(0, max(1, len(order) // BATCH) * BATCH, BATCH):
            for group_ in optimizer.param_groups:
                group_["lr"] = params.learning_rate * 0.5 * (1 + np.cos(np.pi * step / total))
            step += 1
            chosen = [pairs[number] for number in order[first : first + BATCH]]
            loss = _loss(network, looks, chosen, pool, params, rng)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        curves["loss"].append(float(np.mean(losses)))
        if tests is None:
            best_epoch, kept = epoch + 1, network.state_dict()
            continue
        network.eval()
        curves["validation_fitb"].append(fitb(answers(network), validation, tests[0]))
        curves["validation_auc"].append(auc(fits(network), validation, tests[1]))
        score = float(np.nansum([curves["validation_fitb"][-1], curves["validation_auc"][-1]]))
        if score > best:
            best, best_epoch, kept = score, epoch + 1, copy.deepcopy(network.state_dict())
        if (epoch + 1) % 5 == 0:
            progress(
                f"outfit: epoch {epoch + 1}, loss {curves['loss'][-1]:.3f}, blanks "
                f"{curves['validation_fitb'][-1]:.3f}, compatibility {curves['validation_auc'][-1]:.3f}"
            )
    network.load_state_dict(kept)
    return Learned(network.eval(), curves, best_epoch)


def _whiten(network: Outfit, vectors: npt.NDArray[np.float32], strength: float) -> None:
    """Centre vectors and even out their directions: 0 not at all, 1 fully."""
    middle = vectors.mean(0)
    values, directions = np.linalg.eigh(np.cov((vectors - middle).T.astype(np.float64)))
    values = np.maximum(values, values.max() * 1e-4)
    even = directions * (values ** (-strength / 2))
    even *= np.sqrt(vectors.shape[1] / np.mean(np.square((vectors - middle) @ even).sum(1)))
    network.middle.copy_(torch.from_numpy(middle))
    network.whiten.copy_(torch.from_numpy(even[:, ::-1].astype(np.float32).copy()))


@torch.no_grad()
def start_alike(network: Outfit) -> None:
    """Let items and sets be projected the same way at first: what is alike fits."""
    for member in network.members:
        member.give.weight.copy_(member.item.weight)


def _pool(looks: Looks) -> dict[int, Integers]:
    return {int(slot): np.flatnonzero(looks.slots == slot) for slot in np.unique(looks.slots)}


def _loss(
    network: Outfit, looks: Looks, chosen: list[tuple[Integers, np.int64]], pool: dict[int, Integers],
    params: OutfitParams, rng: np.random.Generator,
) -> Tensor:  # fmt: skip
    """Softmax of the right item among items of its slot, for each member alone."""
    sets = []
    for group, item in chosen:
        rest = group[group != item]
        if len(rest) > 1 and rng.random() < params.set_dropout:
            rest = rng.choice(rest, int(rng.integers(1, len(rest))), replace=False)
        sets.append(rest)
    vectors, types = padded(looks, sets)
    right = np.array([item for _, item in chosen])
    wrong = np.stack([rng.choice(pool[int(looks.slots[item])], params.negatives) for item in right])
    same = looks.looks[wrong] == looks.looks[right][:, None]
    candidates = np.concatenate([right[:, None], wrong], 1)
    target = torch.from_numpy(looks.slots[right])
    given = network.prepare(_noisy(vectors, params.noise, rng))
    items = network.prepare(_noisy(looks.vectors[candidates], params.noise, rng))
    kinds = target[:, None].expand(-1, candidates.shape[1])
    total = torch.zeros(())
    for member in network.members:
        query = member.ask(given, torch.from_numpy(types), target)
        logits = (member.project(items, kinds) @ query[..., None])[..., 0] / params.temperature
        logits[:, 1:] = logits[:, 1:].masked_fill(torch.from_numpy(same), -1e9)
        total = total + functional.cross_entropy(
            logits, torch.zeros(len(right), dtype=torch.long), label_smoothing=params.smoothing
        )
    return total / len(network.members)


def _noisy(vectors: npt.NDArray[np.float32], noise: float, rng: np.random.Generator) -> Tensor:
    if noise:
        vectors = vectors + rng.normal(0, noise / vectors.shape[-1] ** 0.5, vectors.shape).astype(np.float32)
    return torch.from_numpy(vectors)


def answers(network: Outfit) -> Answer:
    """A network as `judge.fitb` asks it."""

    @torch.inference_mode()
    def answer(looks: Looks, sets: list[Integers], candidates: Integers) -> npt.NDArray[np.float32]:
        made = []
        for first in range(0, len(sets), 1024):
            vectors, types = padded(looks, sets[first : first + 1024])
            some = candidates[first : first + 1024]
            slots = torch.from_numpy(looks.slots[some])
            query = network.query(torch.from_numpy(vectors), torch.from_numpy(types), slots[:, 0])
            points = network.project(torch.from_numpy(looks.vectors[some]), slots)
            made.append((points @ query[..., None])[..., 0].numpy())
        return np.concatenate(made)

    return answer


def fits(network: Outfit) -> Fit:
    """A network as `judge.auc` asks it."""

    @torch.inference_mode()
    def fit(looks: Looks, sets: list[Integers]) -> npt.NDArray[np.float32]:
        made = []
        for first in range(0, len(sets), 512):
            vectors, types = padded(looks, sets[first : first + 512])
            made.append(network.compatibility(torch.from_numpy(vectors), torch.from_numpy(types)).numpy())
        return np.concatenate(made)

    return fit
