"""The product's encoder on a public set: the same network, loss and loop as for a shop, with another config.

Belongs here: a task's arrays as the encoder reads them, learning, scores. Does not belong here: protocols
(`training/evaluation/protocol.py`), the loop (`fit.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from contracts.events import ACTIONS, CHANNELS
from training.config import EncoderParams
from training.continuum.data import Content, Sequences, Vocabulary
from training.continuum.fit import Fit, Validation, fit
from training.continuum.model import Encoder
from training.evaluation.metrics import Targets
from training.evaluation.protocol import Task
from training.evaluation.public_sets import Lists

Ints = npt.NDArray[np.int64]
ACTION = ACTIONS.index("purchase")
CHANNEL = CHANNELS.index("web")


def learn(
    task: Task,
    params: EncoderParams,
    *,
    seed: int,
    progress: Callable[[str], None],
    content: bool = True,
    cold: Ints | None = None,
    refit: bool = False,
    watch: Callable[[Encoder, float], None] | None = None,
) -> Fit:
    """Train the encoder on a task.

    Args:
        task: What is learned from and chosen by.
        params: Shape and training; ``validation_customers`` bounds the validation requests.
        seed: Of every random choice.
        progress: Receives one line per epoch.
        content: Give items their attributes, if the set has them.
        cold: Items without an embedding of their own.
        refit: Learn from ``task.full`` for ``params.epochs`` epochs and keep the last.
        watch: Called after each epoch with the encoder and the seconds of training so far.
    """
    vocabulary = vocabulary_of(task, content=content, cold=cold)
    lists = task.full if refit else task.train
    if refit:
        seen, validation = (
            lists,
            Validation(
                np.zeros(0, np.int64), np.zeros(0), Targets(np.zeros(1, np.int64), np.zeros(0, np.int64))
            ),
        )
    else:
        rows = np.arange(len(task.validation))
        if len(rows) > params.validation_customers:
            drawn = np.random.default_rng(0).choice(len(rows), params.validation_customers, replace=False)
            rows = np.sort(drawn)
        asked = task.validation.select(rows)
        seen = asked.histories
        validation = Validation(
            np.arange(len(rows)), asked.histories.offsets[1:].astype(np.float64),
            Targets(np.arange(len(rows) + 1), asked.targets), filter_seen=not task.sessions,
        )  # fmt: skip
    return fit(
        sequences_of(lists), vocabulary, params, validation,
        seen=sequences_of(seen), seed=seed, progress=progress, watch=watch,
    )  # fmt: skip


def vocabulary_of(task: Task, *, content: bool = True, cold: Ints | None = None) -> Vocabulary:
    """Items 1 to V with how often each is learned from, and their attributes as tags."""
    count = np.bincount(task.train.items, minlength=task.size + 1).astype(np.float64)
    hidden = np.zeros(task.size + 1, bool)
    hidden[[] if cold is None else cold] = True
    tags = task.tags if content else None
    known = Content((), (), np.zeros((task.size + 1, 0), np.int64), None, tags)
    return Vocabulary(np.array(["", *map(str, range(1, task.size + 1))]), count, known, hidden)


def sequences_of(lists: Lists) -> Sequences:
    """One step per item, a day apart, list after list: sessions come oldest first."""
    size = len(lists.items)
    return Sequences(
        customers=np.arange(len(lists)).astype(str),
        offsets=lists.offsets,
        at=np.arange(size).astype(np.float64),
        item=lists.items.astype(np.int32),
        action=np.full(size, ACTION, np.int8),
        channel=np.full(size, CHANNEL, np.int8),
        session=np.full(size, -1, np.int64),
    )


@dataclasses.dataclass
class EncoderScorer:
    """Scores of the whole catalogue; see `protocol.Scorer`."""

    encoder: Encoder

    def __post_init__(self) -> None:
        """Fold the item table once."""
        with torch.no_grad():
            ids = torch.arange(self.encoder.items.rows)
            self._table, self._bias = self.encoder.items(ids), self.encoder.items.bias(ids)

    def __call__(self, histories: Lists) -> npt.NDArray[np.float32]:
        """float32[B, V + 1]."""
        item, age = pad_left(histories, self.encoder.params.length)
        real = item > 0
        action, channel = torch.from_numpy(real * (ACTION + 1)), torch.from_numpy(real * (CHANNEL + 1))
        with torch.no_grad():
            scores, _ = self.encoder.score(
                self._table, self._bias, torch.from_numpy(item), action, channel, torch.from_numpy(age)
            )
        return scores.numpy()


def pad_left(histories: Lists, length: int) -> tuple[Ints, npt.NDArray[np.float32]]:
    """Latest items int64[B, L] and their ages in steps float32[B, L], oldest first, padding on the left."""
    sizes = np.minimum(histories.sizes, length)
    width = max(1, int(sizes.max(initial=0)))
    back = np.arange(width, 0, -1)
    real = back <= sizes[:, None]
    places = np.where(real, histories.offsets[1:, None] - back, 0)
    items = histories.items if len(histories.items) else np.zeros(1, np.int64)
    return np.where(real, items[places], 0), np.where(real, back, 0).astype(np.float32)
