"""Truth about moments: what happened to whom, and whether the stream shows it.

Belongs here: the moments that the package's docstring defines, derived with knowledge of the true person.
Does not belong here: a detector; it has to do without this.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from contracts.events import MOMENTS
from training.rehearsal import log, rendering
from training.rehearsal.draws import Ints
from training.rehearsal.log import ACT, CH, MOMENT, TP, Chunk
from training.rehearsal.world import World

REPEAT_WINDOW = 30 * 60 * 1_000_000
"""Microseconds within which a similar search counts as repeated."""

REPEAT_OVERLAP = 0.5
"""Share of distinct words that two queries have in common (Jaccard)."""

SHOCK_RATIO = 1.05
SHOCK_WINDOW = 30 * 86_400_000_000
"""A price shock is a price above this ratio of the one seen at most so many microseconds before."""

Flags = npt.NDArray[np.bool_]


def moments(world: World, events: Chunk, linkable: Flags) -> pa.Table:
    """The truth table ``moments``.

    Args:
        world: The world after its last day.
        events: All events in the order of their written time.
        linkable: bool[E], whether the event's person can be known.
    """
    action = events["action"]
    found: list[tuple[Ints, Flags, int]] = []

    def always(mask: Flags, kind: str) -> None:
        rows = np.flatnonzero(mask)
        found.append((rows, np.ones(len(rows), bool), MOMENT[kind]))

    always((events["detail"] == log.RESULTS) & (events["a"] == 0), "failed_search")
    always(action == ACT["stockout"], "out_of_stock")
    always((events["detail"] == log.LATE) & (events["a"] > 0), "delay")
    for kind in ("error", "return", "complaint"):
        always(action == ACT[kind], kind)
    for kind, mask in _wants(events).items():
        always(_first_of_session(events, mask), kind)
    found.append((*_repeated(events, linkable), MOMENT["repeated_search"]))
    found.append((*_shocks(events, linkable), MOMENT["price_shock"]))
    return _table(world, events, [*found, *_hidden(world, events)])


def _wants(events: Chunk) -> dict[str, Flags]:
    view, place = events["action"] == ACT["view"], events["touchpoint"]
    bought = (events["action"] == ACT["purchase"]) & (events["channel"] == CH["store"])
    return {
        "want_to_buy": (events["action"] == ACT["add_to_cart"]) | bought,
        "want_to_go": view & (place == TP["store-finder"]),
        "want_to_do": view & (place == TP["guide"]),
        "want_to_know": view & ((place == TP["reviews"]) | (place == TP["size-guide"])),
    }


def _first_of_session(events: Chunk, mask: Flags) -> Flags:
    rows = np.flatnonzero(mask & (events["session"] >= 0))
    _, first = np.unique(events["session"][rows], return_index=True)
    chosen = np.zeros(len(mask), bool)
    chosen[rows[first]] = True
    return chosen


def _repeated(events: Chunk, linkable: Flags) -> tuple[Ints, Flags]:
    rows = np.flatnonzero((events["query_type"] >= 0) & (events["person"] >= 0))
    rows = rows[np.lexsort((rows, events["person"][rows]))]
    person, time = events["person"][rows].astype(np.int64), events["time"][rows]
    query = [
        (int(events["query_type"][row]), int(events["query_adjective"][row]), int(events["query_mode"][row]))
        for row in rows
    ]
    repeated: dict[int, bool] = {}
    for back in range(1, len(rows)):
        near = np.flatnonzero(
            (person[back:] == person[:-back]) & (time[back:] - time[:-back] <= REPEAT_WINDOW)
        )
        if not len(near):
            break
        for early in near.tolist():
            if _overlap(query[early], query[early + back]) >= REPEAT_OVERLAP:
                here, before = int(rows[early + back]), int(rows[early])
                repeated[here] = repeated.get(here, False) or _same(events, linkable, before, here)
    order = sorted(repeated)
    return np.array(order, np.int64), np.array([repeated[row] for row in order], bool)


@functools.lru_cache(100_000)
def _overlap(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    first, second = (set(rendering.query_text(*query).split()) for query in (one, other))
    return len(first & second) / len(first | second)


def _same(events: Chunk, linkable: Flags, before: int, here: int) -> bool:
    """Whether the stream can show that both events are one person's."""
    if linkable[before] and linkable[here]:
        return True
    device = events["device"]
    alone = (events["ids"][before] | events["ids"][here]) == log.DEVICE
    return bool(alone and device[before] == device[here] >= 0)


def _shocks(events: Chunk, linkable: Flags) -> tuple[Ints, Flags]:
    priced = (events["action"] == ACT["view"]) & ~np.isnan(events["price"]) & (events["person"] >= 0)
    rows = np.flatnonzero(priced)
    rows = rows[np.lexsort((rows, events["product"][rows], events["person"][rows]))]
    person, product = events["person"][rows], events["product"][rows]
    time, price = events["time"][rows], events["price"][rows]
    again = np.flatnonzero((person[1:] == person[:-1]) & (product[1:] == product[:-1]))
    higher = price[again + 1] > SHOCK_RATIO * price[again]
    higher &= time[again + 1] - time[again] <= SHOCK_WINDOW
    early, late = rows[again[higher]], rows[again[higher] + 1]
    seen = np.array([_same(events, linkable, int(a), int(b)) for a, b in zip(early, late, strict=True)], bool)
    return late, seen


def _hidden(world: World, events: Chunk) -> list[tuple[Ints, Flags, int]]:
    """What left no trace, on the first event of its session; a session without any event has none."""
    if not world.hidden:
        return []
    sessions = np.concatenate([numbers for numbers, _ in world.hidden])
    kinds = np.concatenate([np.full(len(numbers), kind) for numbers, kind in world.hidden])
    rows = np.flatnonzero(events["session"] >= 0)
    known, first = np.unique(events["session"][rows], return_index=True)
    at = np.minimum(np.searchsorted(known, sessions), len(known) - 1)
    has = known[at] == sessions
    return [
        (rows[first[at[has & (kinds == kind)]]], np.zeros((has & (kinds == kind)).sum(), bool), int(kind))
        for kind in np.unique(kinds)
    ]


def _table(world: World, events: Chunk, found: list[tuple[Ints, Flags, int]]) -> pa.Table:
    rows = np.concatenate([part[0] for part in found]).astype(np.int64)
    seen = np.concatenate([part[1] for part in found])
    kind = np.concatenate([np.full(len(part[0]), part[2]) for part in found])
    # A moment that the stream shows does not also count as hidden on the same event.
    order = np.lexsort((~seen, kind, rows))
    rows, seen, kind = rows[order], seen[order], kind[order]
    fresh = np.concatenate([[True], (rows[1:] != rows[:-1]) | (kind[1:] != kind[:-1])])
    rows, seen, kind = rows[fresh], seen[fresh], kind[fresh]
    ids = rendering.event_ids(world.config, len(events["time"])).take(pa.array(rows))
    person = events["person"][rows].astype(np.int64)
    return pa.table(
        {
            "event_id": ids,
            "person_id": rendering.person_ids(world.config, person),
            "occurred_at": pa.array(events["time"][rows]).cast(rendering.TIMESTAMP),
            "kind": pa.array(MOMENTS).take(pa.array(kind)),
            "observable": pa.array(seen),
        }
    )
