"""The published protocols: what may be learned from, what is asked, and how answers are judged.

Leave-one-out (users): the last item is the test's target, the one before the validation's, everything
before is learned from; the whole catalogue is ranked, items of the history are left out, k is 10.
Next item (sessions): each beginning of each test session asks for what followed; nothing is left out,
k is 20; validation requests come from the latest training sessions.

Belongs here: splits with their hash, answers from scores, metrics. Does not belong here: reading files
(`public_sets.py`), whatever gives scores.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from training.evaluation import metrics
from training.evaluation.public_sets import Lists, PublicSet, PublicSetError, prefixes_of

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

HELD_OUT = 0.1
"""Share of the latest sessions that are asked about where there is no test file, and of those left for validation."""

DEPTH = 20
"""Length of every kept answer."""


@dataclasses.dataclass(frozen=True, eq=False)
class Requests:
    """R questions for the next item.

    Attributes:
        histories: What came before, oldest first.
        targets: int64[R], what came; 0 for an item that is not in the catalogue.
    """

    histories: Lists
    targets: Ints

    def __len__(self) -> int:
        return len(self.targets)

    def select(self, rows: npt.NDArray[np.integer]) -> Requests:
        """Some of the requests, in that order."""
        return Requests(self.histories.select(rows), self.targets[rows])


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """One set under its protocol; items are 1 to V.

    Attributes:
        name: Of the set.
        sessions: Whether lists are sessions and not histories of users.
        size: V.
        train: What is learned from while choosing; the latest sessions come last.
        full: What is learned from in the end: ``train``, or all training sessions.
        validation: Asked while choosing.
        test: Asked once, at the end.
        k: Cut-off of the headline.
        tags: As in `PublicSet`.
        split: sha256 of everything above.
        facts: Counts to report.
    """

    name: str
    sessions: bool
    size: int
    train: Lists
    full: Lists
    validation: Requests
    test: Requests
    k: int
    tags: Ints | None
    split: str
    facts: dict[str, int]


Scorer = Callable[[Lists], npt.NDArray[np.float32]]
"""Histories of a batch to scores float32[B, V + 1] of which this module may overwrite any."""


def make_task(data: PublicSet) -> Task:
    """Split a set as its layout asks.

    Raises:
        PublicSetError: Nothing would be left to learn from or to ask about.
    """
    if data.layout == "users":
        return _leave_one_out(data)
    return _next_in_session(data)


def _leave_one_out(data: PublicSet) -> Task:
    sizes, ends = data.lists.sizes, data.lists.offsets[1:]
    asked = np.flatnonzero(sizes >= 3)
    if not len(asked):
        raise PublicSetError(
            f"{data.name}: no user has three items; expected one each for training, validation, test"
        )
    cut = np.where(sizes >= 3, sizes - 2, sizes)
    train = _heads(data.lists, np.arange(len(sizes)), cut)
    validation = Requests(train.select(asked), data.lists.items[ends[asked] - 2])
    test = Requests(_heads(data.lists, asked, sizes[asked] - 1), data.lists.items[ends[asked] - 1])
    facts = {"users": len(sizes), "users_not_asked": int((sizes < 3).sum())}
    return _task(data, False, train, train, validation, test, 10, facts)


def _next_in_session(data: PublicSet) -> Task:
    lists = data.lists
    if data.prefixes is None or data.targets is None:
        cut = len(lists) - max(1, round(HELD_OUT * len(lists)))
        test = Requests(*prefixes_of(lists.select(np.arange(cut, len(lists)))))
        lists = lists.select(np.arange(cut))
    else:
        test = Requests(data.prefixes, data.targets)
    cut = len(lists) - max(1, round(HELD_OUT * len(lists)))
    validation = Requests(*prefixes_of(lists.select(np.arange(cut, len(lists)))))
    if cut < 1 or not len(validation) or not len(test):
        raise PublicSetError(
            f"{data.name}: {len(data.lists)} sessions leave nothing to learn from or to ask about; expected at least "
            "a few dozen, some of two items"
        )
    facts = {"sessions": len(lists), "targets_not_in_training": int((test.targets == 0).sum())}
    return _task(data, True, lists.select(np.arange(cut)), lists, validation, test, 20, facts)


def _task(
    data: PublicSet, sessions: bool, train: Lists, full: Lists, validation: Requests, test: Requests, k: int,
    facts: dict[str, int],
) -> Task:  # fmt: skip
    digest = hashlib.sha256(f"{sessions} {k} {data.size}".encode())
    for part in (train, full, validation.histories, test.histories):
        digest.update(np.ascontiguousarray(part.offsets, np.int64).tobytes())
        digest.update(np.ascontiguousarray(data.raw[part.items], np.int64).tobytes())
    for targets in (validation.targets, test.targets):
        digest.update(np.ascontiguousarray(data.raw[targets], np.int64).tobytes())
    return Task(
        name=data.name, sessions=sessions, size=data.size, train=train, full=full, validation=validation, test=test,
        k=k, tags=data.tags, split=digest.hexdigest(),
        facts={**facts, "items": data.size, "learned_events": len(full.items), "requests": len(test)},
    )  # fmt: skip


def _heads(lists: Lists, rows: Ints, sizes: Ints) -> Lists:
    """The first ``sizes`` items of some lists."""
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    places = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - lists.offsets[rows], sizes)
    return Lists(offsets, lists.items[places])


def without_items(task: Task, items: Ints) -> Task:
    """The same task with some items left out of everything that is learned from and chosen by.

    Test histories keep them: they are what the shopper really did.
    """
    drop = np.zeros(task.size + 1, bool)
    drop[items] = True
    keep = ~drop[task.validation.targets]
    validation = task.validation.select(np.flatnonzero(keep))
    return dataclasses.replace(
        task,
        train=_dropped(task.train, drop),
        full=_dropped(task.full, drop),
        validation=Requests(_dropped(validation.histories, drop), validation.targets),
    )


def _dropped(lists: Lists, drop: npt.NDArray[np.bool_]) -> Lists:
    keep = ~drop[lists.items]
    kept = np.concatenate([[0], np.cumsum(keep)])
    return Lists(kept[lists.offsets].astype(np.int64), lists.items[keep])


def answer(scorer: Scorer, asked: Requests, *, filter_seen: bool, batch: int = 256) -> Ints:
    """The best items of each request; ties go to the lower id.

    Args:
        scorer: Gives scores of the whole catalogue.
        asked: Requests.
        filter_seen: Leave out the items of the history.
        batch: Requests per call.

    Returns:
        int64[R, DEPTH], -1 where there are no more items.
    """
    parts = [found for _, found in answers(scorer, asked, filter_seen=filter_seen, batch=batch)]
    return np.concatenate(parts) if parts else np.zeros((0, DEPTH), np.int64)


def answers(
    scorer: Scorer, asked: Requests, *, filter_seen: bool, batch: int = 256
) -> Iterator[tuple[int, Ints]]:
    """`answer` batch by batch, each with how many requests are done."""
    for rows, scores in _scored(scorer, asked, filter_seen, batch):
        yield int(rows[-1]) + 1, best_items(scores, DEPTH)


def _scored(
    scorer: Scorer, asked: Requests, filter_seen: bool, batch: int
) -> Iterator[tuple[Ints, npt.NDArray[np.float32]]]:
    """Requests and their scores, -inf for what must not be answered."""
    for start in range(0, len(asked), batch):
        rows = np.arange(start, min(start + batch, len(asked)))
        histories = asked.histories.select(rows)
        scores = scorer(histories)
        scores[:, 0] = -np.inf
        if filter_seen:
            scores[np.repeat(np.arange(len(rows)), histories.sizes), histories.items] = -np.inf
        yield rows, scores


def ranks(scorer: Scorer, asked: Requests, *, filter_seen: bool, batch: int = 256) -> Ints:
    """Place of each target among all items, 1 is best, ties against it: much cheaper than answers.

    Returns:
        int64[R]; V + 1 for a target that must not be answered.
    """
    found = np.zeros(len(asked), np.int64)
    for rows, scores in _scored(scorer, asked, filter_seen, batch):
        own = scores[np.arange(len(rows)), asked.targets[rows]]
        found[rows] = np.where(own > -np.inf, (scores >= own[:, None]).sum(axis=1), scores.shape[1])
    return found


def ndcg_of_ranks(places: Ints, k: int) -> float:
    """Mean NDCG@k of single targets at these places."""
    return float(np.where(places <= k, 1 / np.log2(places + 1.0), 0.0).mean())


def best_items(scores: npt.NDArray[np.floating], k: int) -> Ints:
    """Columns of the k largest values of each row, best first, ties to the lower column; -1 for -inf."""
    k_there = min(k, scores.shape[1])
    edge = np.partition(scores, scores.shape[1] - k_there, axis=1)[:, scores.shape[1] - k_there]
    out = np.full((len(scores), k), -1, np.int64)
    rows, columns = np.nonzero(scores >= np.maximum(edge, -3e38)[:, None])
    order = np.lexsort((columns, -scores[rows, columns], rows))
    rows, columns = rows[order], columns[order]
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    keep = place < k_there
    out[rows[keep], place[keep]] = columns[keep]
    return out


def judge(found: Ints, targets: Ints, k: int) -> dict[str, Floats]:
    """NDCG, hit rate and MRR at k of each request; a target of 0 is always missed.

    Returns:
        float64[R] by ``ndcg``, ``hr`` and ``mrr``.
    """
    wanted = metrics.Targets(np.arange(len(targets) + 1), np.where(targets > 0, targets, -1))
    return {
        "ndcg": metrics.ndcg(found, wanted, k),
        "hr": metrics.hit_rate(found, wanted, k),
        "mrr": metrics.mrr(found, wanted, k),
    }
