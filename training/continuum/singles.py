"""Batches where every step is one event, as in public sequence sets and in sessions of clicks: the lean way.

Each event is the target of a request that sees the events before it, so one causal pass learns all of a
history; arrays are cut without a loop over customers, and times and steps are shared where they can be.
`batches.make_batches` gives the same requests for any data.

Belongs here: when this holds, the windows and batches of it. Does not belong here: the loss (`loss.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from contracts.events import ACTIONS
from training.config import EncoderParams
from training.continuum.batches import NEGATIVE, Steps, customer_weights, cut_windows
from training.continuum.data import Sequences

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

CHUNK = 16
"""Batches among which histories of similar length are put together."""


@dataclasses.dataclass(frozen=True)
class SingleBatch:
    """B windows of at most L events; padding on the right is 0 or False.

    Attributes:
        item: int64[B, L] encoder ids.
        action: int64[B, L] index in ACTIONS plus 1.
        channel: int64[B, L] index in CHANNELS plus 1.
        time: float32[B, L] days before the window's last event; [1, L] where nothing reads it.
        step: int64[1, L] 0, 1, 2, ...
        request: bool[B, L] which events are targets; each sees the events before it.
        weight: float32[B] of each request, about 1 on average.
    """

    item: Ints
    action: Ints
    channel: Ints
    time: Floats
    step: Ints
    request: Bools
    weight: Floats


@dataclasses.dataclass(frozen=True)
class SingleWindows:
    """W windows as arrays; see `batches.Window`."""

    start: Ints
    stop: Ints
    fresh: Ints
    whole: Bools
    weight: Floats


def fits(sequences: Sequences, steps: Steps, params: EncoderParams) -> bool:
    """Whether this module's batches hold all that is to be learned."""
    single = len(steps.first) == len(sequences.at) + 1
    refused = NEGATIVE[sequences.action].any()
    return bool(
        single and not params.pointer and not params.action_weight and not refused and (steps.buy < 0).all()
    )


def single_windows(
    sequences: Sequences, steps: Steps, params: EncoderParams, rng: np.random.Generator
) -> SingleWindows:
    """`batches.cut_windows`: one window for each history that fits in one, the others cut one by one."""
    sizes = np.diff(sequences.offsets)
    weights = customer_weights(sequences, steps, params.customer_balance).astype(np.float32)
    short = np.flatnonzero((sizes > 0) & (sizes <= params.length))
    start, stop = sequences.offsets[short], sequences.offsets[short + 1]
    parts = [(start, stop, start, np.ones(len(short), bool), weights[short])]
    for row in np.flatnonzero(sizes > params.length):
        part = slice(int(sequences.offsets[row]), int(sequences.offsets[row + 1]))
        alone = dataclasses.replace(
            sequences, customers=sequences.customers[row : row + 1], offsets=np.array([0, sizes[row]]),
            at=sequences.at[part],
        )  # fmt: skip
        own = Steps(np.arange(sizes[row]), np.arange(sizes[row] + 1), steps.buy[part])
        found = cut_windows(alone, own, params.length, params.stride, 0.0, rng)
        places = np.array([[window.start, window.stop, window.fresh] for window in found]) + part.start
        whole = np.array([window.whole for window in found])
        parts.append((*places.T, whole, np.full(len(found), weights[row])))
    return SingleWindows(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def single_batches(
    sequences: Sequences, windows: SingleWindows, params: EncoderParams, rng: np.random.Generator
) -> Iterator[SingleBatch]:
    """Shuffle windows, keep those of similar length together, and pad them into batches."""
    wanted = np.isin(np.arange(len(ACTIONS)), [ACTIONS.index(name) for name in params.target_actions])
    order = rng.permutation(len(windows.start))
    sizes = windows.stop - windows.start
    groups: list[Ints] = []
    for chunk in np.array_split(order, max(1, len(order) // (CHUNK * params.batch))):
        by_size = chunk[np.argsort(sizes[chunk], kind="stable")]
        groups.extend(by_size[i : i + params.batch] for i in range(0, len(by_size), params.batch))
    for group in rng.permutation(len(groups)):
        batch = _batch(sequences, windows, groups[group], wanted, params)
        if batch.request.any():
            yield batch


def _batch(
    sequences: Sequences, windows: SingleWindows, rows: Ints, wanted: Bools, params: EncoderParams
) -> SingleBatch:
    start, stop = windows.start[rows, None], windows.stop[rows, None]
    places = start + np.arange(int((stop - start).max()))
    real = places < stop
    places = np.where(real, places, start)
    item = np.where(real, sequences.item[places], 0).astype(np.int64)
    action = sequences.action[places]
    request = real & (item > 0) & wanted[action] & (places >= windows.fresh[rows, None])
    request[:, 0] &= windows.whole[rows] & params.learn_first
    time = np.where(real, sequences.at[places] - sequences.at[stop - 1], 0).astype(np.float32)
    return SingleBatch(
        item=item,
        action=np.where(real, action.astype(np.int64) + 1, 0),
        channel=np.where(real, sequences.channel[places].astype(np.int64) + 1, 0),
        time=time if params.time_bias else np.zeros((1, time.shape[1]), np.float32),
        step=np.arange(time.shape[1])[None, :],
        request=request,
        weight=windows.weight[rows],
    )
