"""Windows of histories and the requests inside them: what one training step sees.

A *request* stands at the moment of a step of the customer (a basket, a click, a mailing) and sees only
the steps before it; its targets are the items of that step. This is next-basket learning where a step
holds many items and next-item learning where it holds one.

Belongs here: cutting windows, targets and labels, padding. Does not belong here: reading data
(`data.py`), negatives and losses (`loss.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from contracts.events import ACTIONS
from training.continuum.data import Sequences

NEGATIVE_ACTIONS = ("dismiss", "remove_from_cart", "return", "complaint")
"""Actions on an item that say: this should not have been recommended."""

NEGATIVE = np.isin(np.arange(len(ACTIONS)), [ACTIONS.index(name) for name in NEGATIVE_ACTIONS])
"""bool[A], which of ACTIONS are NEGATIVE_ACTIONS."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class Batch:
    """B windows of at most L events, U distinct items and Q requests; padding is 0 or False.

    Attributes:
        item: int64[B, L] encoder ids.
        action: int64[B, L] index in ACTIONS plus 1.
        channel: int64[B, L] index in CHANNELS plus 1.
        time: float32[B, L] days before the window's last event, negative or 0.
        step: int64[B, L] number of the event's step inside the window.
        slot: int64[B, L] column of the event's item in ``unique``.
        unique: int64[B, U] distinct items of the window.
        request: bool[B, Q] which requests exist.
        weight: float32[B, Q] of each request in the item loss, about 1 on average.
        request_time: float32[B, Q] on the axis of ``time``.
        request_step: int64[B, Q] step of the request; it sees only smaller steps.
        target: bool[B, Q, U] items to predict.
        avoid: bool[B, Q, U] items that got a negative action at the request.
        next_action: int64[B, Q] index in ACTIONS of the step's first event.
        next_channel: int64[B, Q] index in CHANNELS.
        buy: int64[B, Q] 1 the session goes on to a purchase, 0 it does not, -1 no label.
    """

    item: Ints
    action: Ints
    channel: Ints
    time: Floats
    step: Ints
    slot: Ints
    unique: Ints
    request: Bools
    weight: Floats
    request_time: Floats
    request_step: Ints
    target: Bools
    avoid: Bools
    next_action: Ints
    next_channel: Ints
    buy: Ints


@dataclasses.dataclass(frozen=True)
class Steps:
    """Steps of all sequences: runs of events of one customer at one time.

    Attributes:
        of: int64[E] step of each event.
        first: int64[S + 1] first event of each step.
        buy: int64[S] label of `Batch.buy`.
    """

    of: Ints
    first: Ints
    buy: Ints


@dataclasses.dataclass(frozen=True)
class Window:
    """Events ``start`` to ``stop`` of the arrays; requests stand at steps beginning at ``fresh`` or later.

    Attributes:
        start: First event.
        stop: One past the last.
        fresh: First event that may be a request's.
        whole: Whether the history begins here.
        weight: Of its requests.
    """

    start: int
    stop: int
    fresh: int
    whole: bool
    weight: float = 1.0


def find_steps(sequences: Sequences) -> Steps:
    """Number the steps and label those in the middle of a session with whether it ends in a purchase."""
    events = len(sequences.at)
    fresh = np.ones(events, bool)
    fresh[1:] = sequences.at[1:] != sequences.at[:-1]
    fresh[sequences.offsets[:-1][np.diff(sequences.offsets) > 0]] = True
    of = np.cumsum(fresh) - 1
    first = np.append(np.flatnonzero(fresh), events)
    return Steps(of, first, _buy_labels(sequences, of, first[:-1]))


def _buy_labels(sequences: Sequences, of: Ints, first: Ints) -> Ints:
    session = sequences.session[first]
    label = np.full(len(first), -1, np.int64)
    if not (session >= 0).any():
        return label
    size = int(sequences.session.max()) + 1
    begun, last_purchase = np.full(size, len(first), np.int64), np.full(size, -1, np.int64)
    known = sequences.session >= 0
    np.minimum.at(begun, sequences.session[known], of[known])
    bought = known & (sequences.action == ACTIONS.index("purchase"))
    np.maximum.at(last_purchase, sequences.session[bought], of[bought])
    steps = np.arange(len(first))
    inside = (session >= 0) & (steps > begun[session])
    label[inside] = last_purchase[session[inside]] >= steps[inside]
    return label


def cut_windows(
    sequences: Sequences, steps: Steps, length: int, stride: float, balance: float, rng: np.random.Generator
) -> list[Window]:
    """Cut every history into overlapping windows so that each step is a request in exactly one of them.

    Windows end at a random phase, so that epochs differ; each holds about ``(1 - stride) * length``
    events before its first request, or the history's beginning.

    Args:
        sequences: All events.
        steps: Their steps.
        length: Events per window.
        stride: Distance of windows as a share of ``length``.
        balance: 0 gives every request the same weight, 1 every customer, whatever lies between a mixture:
            a request weighs its customer's number of steps to the power ``-balance``.
        rng: Source of the phases.
    """
    hop = max(1, int(length * stride))
    windows = []
    weights = customer_weights(sequences, steps, balance)
    for start, stop, weight in zip(sequences.offsets[:-1], sequences.offsets[1:], weights, strict=True):
        if stop - start < 1:
            continue
        end = start + (length if stop - start <= length else int(rng.integers(length - hop, length) + 1))
        fresh = start
        while True:
            end = min(end, stop)
            begin = max(start, end - length)
            windows.append(Window(int(begin), int(end), int(fresh), bool(begin == start), float(weight)))
            if end == stop:
                break
            # A step that the end cuts in two is a request of the next window, which holds all of it and
            # something before it; only a step as long as a window cannot be one.
            fresh, cut = int(steps.first[steps.of[end]]), end
            end = min(max(fresh + hop, int(steps.first[steps.of[end] + 1])), fresh + length - 1)
            if end <= cut:
                end = cut + hop
    return windows


def customer_weights(sequences: Sequences, steps: Steps, balance: float) -> npt.NDArray[np.float64]:
    """Weight of each customer's requests, float64[C], 1 on average over requests."""
    begun = np.append(steps.of, len(steps.buy))[sequences.offsets]
    number = np.diff(begun).astype(float)
    raw = np.maximum(number, 1.0) ** -balance
    return raw * number.sum() / max(1.0, (raw * number).sum())


def make_batches(
    sequences: Sequences,
    steps: Steps,
    windows: list[Window],
    *,
    batch: int,
    queries: int,
    target_actions: tuple[str, ...],
    rng: np.random.Generator,
) -> Iterator[Batch]:
    """Shuffle windows, keep those of similar length together, and pad them into batches.

    Args:
        sequences: All events.
        steps: Their steps.
        windows: What to learn from.
        batch: Windows per batch.
        queries: At most this many requests per window (drawn at random).
        target_actions: Actions whose items are predicted.
        rng: Source of the order and of drawn requests.
    """
    wanted = np.isin(np.arange(len(ACTIONS)), [ACTIONS.index(name) for name in target_actions])
    order = rng.permutation(len(windows))
    groups: list[Ints] = []
    for chunk in np.array_split(order, max(1, len(order) // (16 * batch))):
        by_size = chunk[np.argsort([windows[i].stop - windows[i].start for i in chunk], kind="stable")]
        groups.extend(by_size[i : i + batch] for i in range(0, len(by_size), batch))
    for group in rng.permutation(len(groups)):
        parts = [_window(sequences, steps, windows[i], queries, wanted, rng) for i in groups[group]]
        parts = [part for part in parts if len(part["request_step"])]
        if parts:
            yield _pad(parts)


def _window(
    sequences: Sequences, steps: Steps, window: Window, queries: int, wanted: Bools, rng: np.random.Generator
) -> dict[str, npt.NDArray]:
    part = slice(window.start, window.stop)
    step = steps.of[part] - steps.of[window.start]
    unique, slot = np.unique(sequences.item[part], return_inverse=True)
    firsts = np.maximum(steps.first[steps.of[window.start] : steps.of[window.stop - 1] + 1], window.start)
    stands = (firsts >= window.fresh) & ((firsts > window.start) | window.whole)
    cut = window.stop < len(steps.of) and steps.of[window.stop] == steps.of[window.stop - 1]
    if cut:
        stands[-1] = False
    at = np.flatnonzero(stands)
    if len(at) > queries:
        at = np.sort(rng.choice(at, queries, replace=False))
    action = sequences.action[part]
    member = step[None, :] == at[:, None]
    real = (sequences.item[part] > 0)[None, :]
    return {
        "item": sequences.item[part],
        "action": action + 1,
        "channel": sequences.channel[part] + 1,
        "time": (sequences.at[part] - sequences.at[window.stop - 1]).astype(np.float32),
        "step": step,
        "slot": slot,
        "unique": unique,
        "request": np.ones(len(at), bool),
        "weight": np.full(len(at), window.weight, np.float32),
        "request_time": (sequences.at[firsts[at]] - sequences.at[window.stop - 1]).astype(np.float32),
        "request_step": at,
        "target": _slots(member & real & wanted[action][None, :], slot, len(unique)),
        "avoid": _slots(member & real & NEGATIVE[action][None, :], slot, len(unique)),
        "next_action": action[firsts[at] - window.start],
        "next_channel": sequences.channel[part][firsts[at] - window.start],
        "buy": steps.buy[steps.of[firsts[at]]],
    }


def _slots(member: Bools, slot: Ints, size: int) -> Bools:
    out = np.zeros((len(member), size), bool)
    row, column = np.nonzero(member)
    out[row, slot[column]] = True
    return out


def _pad(parts: list[dict[str, npt.NDArray]]) -> Batch:
    arrays = {}
    for name in parts[0]:
        kind = parts[0][name].dtype
        out_type = kind if kind in (np.float32, np.bool_) else np.int64
        shape = np.max([part[name].shape for part in parts], axis=0)
        out = np.zeros((len(parts), *shape), out_type)
        if name == "buy":
            out[:] = -1
        for row, part in enumerate(parts):
            out[(row, *map(slice, part[name].shape))] = part[name]
        arrays[name] = out
    return Batch(**arrays)
