"""The server's limits, in one place.

Belongs here: numbers that bound what one client may cost. Does not belong here: their enforcement.
"""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one request may bring and what may wait.

    Attributes:
        body_bytes: Largest body of a recommendation request.
        events_bytes: Largest body of an event batch.
        batch_events: Most events in one body.
        body_seconds: Longest time to send a body.
        waiting_answers: Recommendation requests that may wait for the engine.
        waiting_batches: Event batches that may wait for the disk.
        photo_bytes: Largest photo.
        photo_workers: Photos looked at at the same time.
        waiting_photos: Photos that may wait for that or be on their way.
        micro_batch: Most waiting requests that the engine answers in one run.
    """

    body_bytes: int = 65_536
    events_bytes: int = 2 << 20
    batch_events: int = 1_000
    body_seconds: float = 15.0
    waiting_answers: int = 256
    waiting_batches: int = 512
    photo_bytes: int = 16 << 20
    photo_workers: int = 2
    waiting_photos: int = 16
    micro_batch: int = 8
