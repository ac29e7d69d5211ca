"""The simulation's own event log: plain integer columns, one chunk per block of events.

Belongs here: codes, column types, drafts of sessions whose steps still have to get a time. Does not belong
here: what happens (`digital.py`, `store.py`, ...), text (`rendering.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.events import ACTIONS, CHANNELS, MOMENTS
from training.rehearsal.draws import Draws, Ints

CH: dict[str, int] = {name: index for index, name in enumerate(CHANNELS)}
ACT: dict[str, int] = {name: index for index, name in enumerate(ACTIONS)}
MOMENT: dict[str, int] = {name: index for index, name in enumerate(MOMENTS)}

TOUCHPOINTS: tuple[str, ...] = (
    "home", "product", "reviews", "size-guide", "store-finder", "guide", "cart", "checkout", "results",
    "account", "ad", "newsletter", "message", "letter", "post", "notification", "care", "carrier", "friend", "import",
)  # fmt: skip
TP: dict[str, int] = {name: index for index, name in enumerate(TOUCHPOINTS)}
STORE, KIOSK = 1_000, 2_000
"""Touchpoint codes of store s and of its kiosk: ``STORE + s``, ``KIOSK + s``."""

CUSTOMER, CARD, EMAIL, PHONE, DEVICE, EMAIL_TWO = 1, 2, 4, 8, 16, 32
"""Bits of the column ``ids``: which identifiers an event carries."""

NO_DETAIL, RESULTS, SIZE, LATE, ERROR, FORM, CAMPAIGN, REASON, OFFER = range(9)
"""Codes of the column ``detail``; ``a`` and ``b`` hold its values."""

QUERY_FORWARD, QUERY_BACKWARD, QUERY_GO, QUERY_DO = range(4)

COLUMNS: dict[str, tuple[Any, Any]] = {
    "time": (np.int64, 0), "person": (np.int32, -1), "session": (np.int64, -1), "channel": (np.int8, 0),
    "action": (np.int8, 0), "touchpoint": (np.int16, -1), "product": (np.int32, -1),
    "quantity": (np.float32, np.nan), "price": (np.float64, np.nan), "discount": (np.float64, np.nan),
    "query_type": (np.int16, -1), "query_adjective": (np.int16, -1), "query_mode": (np.int8, -1),
    "media": (np.int64, -1), "device": (np.int64, -1), "ids": (np.int8, 0), "position": (np.int32, -1),
    "detail": (np.int8, NO_DETAIL), "a": (np.int64, 0), "b": (np.int64, 0), "cause": (np.int16, 0),
    "hidden": (np.int8, -1),
}  # fmt: skip
"""Type and default of each column. ``cause``: bit mask of channels without whose contacts a purchase would
not have happened; ``hidden``: index in MOMENTS of a moment that left no trace of its own."""

Chunk = dict[str, npt.NDArray[Any]]


class Log:
    """Grows by chunks, read once at the end."""

    def __init__(self) -> None:
        self._chunks: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in COLUMNS}
        self.events = 0

    def add(self, **columns: Any) -> None:
        """Append events; scalars are repeated, missing columns get their default."""
        rows = len(columns["person"])
        if not rows:
            return
        self.events += rows
        for name, (kind, default) in COLUMNS.items():
            value = np.asarray(columns.get(name, default), kind)
            self._chunks[name].append(np.full(rows, value, kind) if value.ndim == 0 else value)

    def read(self) -> Chunk:
        """All events by time, then by session."""
        whole = {
            name: np.concatenate(parts) if parts else np.empty(0, COLUMNS[name][0])
            for name, parts in self._chunks.items()
        }
        order = np.argsort(whole["time"], kind="stable")
        return {name: column[order] for name, column in whole.items()}


class Draft:
    """Events of one day's sessions, ordered by step inside each session.

    Args:
        start: int64[S], first instant of each session in microseconds.
        common: Columns ``[S]`` that every event of a session shares.
        key: int64[S], key of the session's draws.
    """

    def __init__(self, start: Ints, key: Ints, **common: npt.NDArray[Any]) -> None:
        self.start, self.key, self.common = start, key, common
        self._blocks: list[tuple[Ints, npt.NDArray[Any], npt.NDArray[Any], dict[str, Any]]] = []

    def add(self, at: Ints, step: npt.ArrayLike, pause: npt.ArrayLike = 1.0, **columns: Any) -> None:
        """Append one event to each session of `at` (repeats allowed).

        Args:
            at: int64[E], row of the session.
            step: Place inside the session; only the order counts.
            pause: Factor on the time since the step before; 0 for the same instant.
            columns: Values, scalar or ``[E]``.
        """
        if len(at):
            rows = len(at)
            self._blocks.append(
                (
                    at,
                    np.broadcast_to(np.asarray(step, np.float64), rows),
                    np.broadcast_to(np.asarray(pause, np.float64), rows),
                    columns,
                )
            )

    def finish(self, log: Log, draws: Draws, login: npt.NDArray[np.float64], base_ids: Ints) -> None:
        """Give every event its time and write all to the log.

        The time between steps is log-normal (median 43 s, mean 93 s, as measured on
        real shops), cut at 20 minutes.

        Args:
            log: Where to.
            draws: Of the day.
            login: float64[S], step from which on the session's events carry the customer id (inf: never).
            base_ids: int64[S], identifiers that all events of the session carry.
        """
        if not self._blocks:
            return
        at = np.concatenate([block[0] for block in self._blocks])
        step = np.concatenate([block[1] for block in self._blocks])
        pause = np.concatenate([block[2] for block in self._blocks])
        order = np.lexsort((step, at))
        at, step, pause = at[order], step[order], pause[order]
        first = np.concatenate([[True], at[1:] != at[:-1]])
        begin = np.flatnonzero(first)
        rank = np.arange(len(at)) - np.repeat(begin, np.diff([*begin, len(at)]))
        gap = np.exp(3.75 + 1.25 * draws.normal("gap", self.key[at] * 512 + rank)) * pause
        micros = (np.minimum(np.where(first, 0, gap), 1200) * 1e6).astype(np.int64)
        elapsed = np.cumsum(micros)
        elapsed -= np.repeat(elapsed[begin] - micros[begin], np.diff([*begin, len(at)]))
        columns: dict[str, Any] = {name: values[at] for name, values in self.common.items()}
        for name in {name for block in self._blocks for name in block[3]}:
            kind, default = COLUMNS[name]
            parts = [
                np.broadcast_to(np.asarray(block[3].get(name, default), kind), len(block[0]))
                if name in block[3] or name not in self.common
                else self.common[name][block[0]].astype(kind)
                for block in self._blocks
            ]
            columns[name] = np.concatenate(parts)[order]
        ids = base_ids[at] | np.where(step >= login[at], CUSTOMER, 0) | columns.pop("ids", 0)
        log.add(time=self.start[at] + elapsed, ids=ids, **columns)
