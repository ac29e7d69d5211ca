"""The lake's events as a `contracts.sessions.Stream`, and all sessions of all people.

Belongs here: reading columns out of an events table, the sessions table. Does not belong here: the array
programs themselves (`contracts/sessions.py`), identity (whose person id is one column of the input).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from contracts.sessions import ACTION, CHANNEL, Sessions, session_id
from feature_repo.streams import NEEDED, EventsError, LakeStream, stream_of, who_sql
from orchestration.lake.tables import TIMESTAMP

__all__ = ["NEEDED", "SESSIONS", "EventsError", "LakeStream", "sessions_table", "stream_of", "who_sql"]

SESSIONS = pa.schema(
    [
        pa.field("session_id", pa.string()),
        pa.field("person_id", pa.string()),
        pa.field("started_at", TIMESTAMP),
        pa.field("ended_at", TIMESTAMP),
        pa.field("acts", pa.int64()),
        pa.field("channels", pa.int64()),
        pa.field("first_channel", pa.string()),
        pa.field("purchases", pa.int64()),
    ]
)
"""One row per session; ``channels`` counts the distinct ones that its acts used."""


def sessions_table(lake: LakeStream, cut: Sessions) -> pa.Table:
    """The sessions of a stream as `SESSIONS`.

    Args:
        lake: The stream.
        cut: Its sessions.
    """
    stream = lake.stream
    inside = np.flatnonzero((cut.of_event >= 0) & (stream.action != ACTION["impression"]))
    inside = inside[stream.action[inside] != ACTION["delivery"]]
    number = cut.of_event[inside]
    used = np.unique(number * len(CHANNEL) + stream.channel[inside]) // len(CHANNEL)
    bought = number[stream.action[inside] == ACTION["purchase"]]
    channel = pa.array(list(CHANNEL)).take(pa.array(stream.channel[cut.first_row].astype(np.int64)))
    return pa.table(
        {
            "session_id": pa.array([session_id(key) for key in cut.key.tolist()], pa.string()),
            "person_id": lake.people.take(pa.array(cut.person)),
            "started_at": pa.array(cut.start_us).cast(TIMESTAMP),
            "ended_at": pa.array(cut.end_us).cast(TIMESTAMP),
            "acts": pa.array(cut.acts),
            "channels": pa.array(np.bincount(used, minlength=len(cut))),
            "first_channel": channel,
            "purchases": pa.array(np.bincount(bought, minlength=len(cut))),
        },
        schema=SESSIONS,
    )
