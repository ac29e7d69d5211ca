"""The shop's clock: the wall's for a live shop, the stream's for an archived one.

Belongs here: what "now" means for an answer. Does not belong here: times of storage and logs, which
are always the wall's.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from typing import Literal

from serving.profiles.history import to_microseconds, to_moment

HORIZON = dt.timedelta(days=45)
"""How far one event may move a stream clock forward: one wrong date must not age every customer."""


class Clock:
    """Now, for answers.

    In ``stream`` mode now is one microsecond after the latest event known, so that this event is seen.

    Args:
        mode: ``stream`` or ``wall``.
        wall: The wall clock, UTC.
    """

    def __init__(
        self,
        mode: Literal["stream", "wall"],
        wall: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self.mode = mode
        self.wall = wall
        self._latest_us: int | None = None
        self._lock = threading.Lock()

    def observe(self, at_us: int) -> None:
        """Take note of an event at a moment (microseconds since 1970-01-01 UTC)."""
        with self._lock:
            if self._latest_us is None or at_us > self._latest_us:
                self._latest_us = at_us

    def now_us(self) -> int:
        """Now, microseconds since 1970-01-01 UTC."""
        latest = self._latest_us
        if self.mode == "stream" and latest is not None:
            return latest + 1
        return to_microseconds(self.wall())

    def latest_allowed(self) -> dt.datetime | None:
        """The latest time that an event may have by this shop's clock; None where only the wall counts."""
        latest = self._latest_us
        if self.mode == "wall" or latest is None:
            return None
        return to_moment(latest) + HORIZON
