"""Training in several processes: what each learns from, and how their gradients become one.

`torchrun` starts the processes and names each in the environment; without it there is one. Every process draws the
same batches and negatives and takes every n-th window of a batch, so that the sum of their gradients is that of one
process with the whole batch (exactly so for the item loss; the means of the heads are weighed alike). Weights stay
equal because each process makes the same step from the same sum. The first process validates, decides and writes.

Belongs here: processes, devices, precision. Does not belong here: the loop (`fit.py`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from typing import Any

import numpy as np
import torch
from torch import distributed, nn

from training.continuum.batches import Batch
from training.continuum.loss import CUTOFF
from training.continuum.singles import SingleBatch


@dataclasses.dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        rank: Number of this process, 0 is the one that writes.
        world: How many there are.
        device: Where this one computes.
    """

    rank: int
    world: int
    device: torch.device

    def part(self, batch: Batch | SingleBatch) -> tuple[Any, float]:
        """This process's windows of a batch, and their share of its weight (0 where there are none)."""
        if self.world == 1:
            return batch, 1.0
        size = len(batch.item)
        arrays = {
            name: value[self.rank :: self.world] if len(value) == size else value
            for name, value in vars(batch).items()
        }
        own = type(batch)(**arrays)
        return own, weight_of(own) / max(weight_of(batch), 1e-9)

    def add(self, parameters: list[nn.Parameter], value: float) -> float:
        """Replace each gradient by the sum over processes; gives the sum of a value.

        A parameter that no process has a gradient for keeps none, as in one process.
        """
        if self.world == 1:
            return value
        parts = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
        there = torch.tensor([value, *(one.grad is not None for one in parameters)], device=self.device)
        flat = torch.cat([there.float(), *(part.flatten() for part in parts)])
        distributed.all_reduce(flat)
        start = len(there)
        for one, found in zip(parameters, flat[1:start].tolist(), strict=True):
            stop = start + one.numel()
            one.grad = flat[start:stop].view_as(one).clone() if found else None
            start = stop
        return float(flat[0])

    def agree(self, value: float) -> float:
        """What the first process says."""
        if self.world == 1:
            return value
        said = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(said, 0)
        return float(said)


def join() -> Ranks:
    """Join the processes that `torchrun` started; one process where it did not start any."""
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if world > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if cuda else "gloo")
    return Ranks(rank, world, device)


def leave() -> None:
    """End what `join` began."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def precise(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Where matrix products run in 16 bits, or nothing where they do not."""
    if precision == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def weight_of(batch: Batch | SingleBatch) -> float:
    """Weight of all targets of a batch, as the item loss weighs them."""
    if isinstance(batch, SingleBatch):
        return float((batch.weight[:, None] * batch.request).sum())
    gains = np.cumsum(1.0 / np.log2(np.arange(CUTOFF) + 2.0))
    ideal = 1.0 / np.concatenate([gains[:1], gains])
    number = batch.target.sum(-1)
    return float((batch.weight * number * ideal[np.minimum(number, CUTOFF)]).sum())
