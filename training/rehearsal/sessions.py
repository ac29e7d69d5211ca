"""What a session is before it is played: who, when, over which channel, wanting what.

Belongs here: the record that visits hand to the channels. Does not belong here: its events.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from contracts.events import Channel
from training.rehearsal.draws import Ints
from training.rehearsal.log import CH
from training.rehearsal.people import Flags

PLACES: tuple[Channel, ...] = ("web", "app", "store", "marketplace")
WEB, APP, STORE, MARKETPLACE = range(4)
CODES = np.array([CH[name] for name in PLACES])
"""Channel codes of PLACES."""

GUIDE = 10_000_000
"""Product codes of guides begin here, so that they do not depend on the catalogue's size."""


@dataclasses.dataclass
class Sessions:
    """Sessions of one day part, arrays ``[S]``; each person occurs once.

    Attributes:
        person: Who.
        key: Key of the draws.
        start: First instant, microseconds.
        channel: Index in (web, app, store, marketplace).
        entry: Contact channel that was clicked, -1 for none.
        need: Index in NEEDS.
        wanted: Product type.
        cause: Bit mask of channels without whose contacts the session would not have happened.
        number: Session's number.
    """

    person: Ints
    key: Ints
    start: Ints
    channel: Ints
    entry: Ints
    need: Ints
    wanted: Ints
    cause: Ints
    number: Ints

    def take(self, rows: Flags) -> Sessions:
        """Some of them."""
        return Sessions(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))
