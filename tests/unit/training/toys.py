"""A toy shop for the encoder's tests: few items, a small network, hand-made sequences."""

from __future__ import annotations

import numpy as np
import torch

from contracts.events import ACTIONS, CHANNELS
from training.config import EncoderParams
from training.continuum.data import Sequences, Vocabulary, encode_content
from training.continuum.model import Encoder

PURCHASE = ACTIONS.index("purchase")
STORE = CHANNELS.index("store")

SMALL = EncoderParams(
    dim=16, heads=2, length=16, dropout=0.0, content=("category",), negatives=8, batch=4, queries=16
)


def vocabulary(items: int = 30, categories: int = 3, cold: tuple[int, ...] = ()) -> Vocabulary:
    """Items 1 to n; item i has category i mod c."""
    ids = np.array(["", *(f"p{i:03d}" for i in range(1, items + 1))])
    content = encode_content(
        {"category": np.array([f"c{i % categories}" for i in range(1, items + 1)])}, items
    )
    hidden = np.zeros(items + 1, bool)
    hidden[list(cold)] = True
    return Vocabulary(ids, np.concatenate([[0.0], np.linspace(60, 5, items)]), content, hidden)


def encoder(
    params: EncoderParams = SMALL, items: int = 30, seed: int = 0, cold: tuple[int, ...] = ()
) -> Encoder:
    """An encoder whose weights, those that start at zero and those of a memory included, are random."""
    torch.manual_seed(seed)
    model = Encoder(vocabulary(items, cold=cold), params).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1)
        if model.memory is not None:
            model.memory.ids.random_(1, items + 1)[0] = 0
            model.memory.weights.uniform_()[0] = 0.0
    return model


def sequences(histories: list[list[tuple[float, int]]], **columns: list[int]) -> Sequences:
    """Purchases (day, item) by customer; further columns replace the default ones, flat over all customers."""
    flat = [event for history in histories for event in history]
    size = len(flat)
    arrays = {
        "action": np.full(size, PURCHASE, np.int8),
        "channel": np.full(size, STORE, np.int8),
        "session": np.full(size, -1, np.int64),
    }
    for name, values in columns.items():
        arrays[name] = np.asarray(values, arrays[name].dtype)
    return Sequences(
        customers=np.array([f"c{row:03d}" for row in range(len(histories))]),
        offsets=np.cumsum([0, *(len(history) for history in histories)]).astype(np.int64),
        at=np.array([at for at, _ in flat], np.float64),
        item=np.array([item for _, item in flat], np.int32),
        **arrays,
    )
