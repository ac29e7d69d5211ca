"""All moments of all people in the lake, as a table with evidence.

Belongs here: running the shared detector over the lake, the moments table, time to recovery. Does not belong
here: definitions (`contracts/moments.py`), reading of columns (`sessions.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from contracts.events import MOMENTS
from contracts.moments import BAD, MOMENT, Found, MomentRules, moments
from contracts.sessions import ACTION, Stream, is_any, session_id
from feature_repo.snapshots import quoted
from orchestration.lake.sessions import NEEDED, LakeStream, sessions_table, stream_of, who_sql
from orchestration.lake.tables import TIMESTAMP

MOMENTS_TABLE = pa.schema(
    [
        pa.field("person_id", pa.string()),
        pa.field("session_id", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("occurred_at", TIMESTAMP),
        pa.field("channel", pa.string()),
        pa.field("confidence", pa.float64()),
        pa.field("source", pa.string()),
        pa.field("event_id", pa.string()),
        pa.field("evidence", pa.list_(pa.string())),
        pa.field("recovered_at", TIMESTAMP),
    ]
)
"""One row per moment. ``event_id`` shows it, ``evidence`` holds all events that it takes, earliest first;
``recovered_at`` is null for wants and for what was not (yet) made good within the horizon."""

RECOVERED_BY: tuple[str, ...] = ("add_to_cart", "purchase")
"""Acts that show that a person is on their way again after a bad moment."""

RECOVERY_HORIZON_US = 30 * 86_400_000_000


def detect(
    events: pa.Table, rules: MomentRules | None = None, person: str = "customer_id"
) -> tuple[pa.Table, pa.Table]:
    """Sessions and moments of a table of events.

    Args:
        events: As `orchestration.lake.sessions.stream_of`.
        rules: Thresholds, or None for the defaults.
        person: Column of the person's id.

    Returns:
        Sessions (`orchestration.lake.sessions.SESSIONS`) and moments (`MOMENTS_TABLE`).

    Raises:
        orchestration.lake.sessions.EventsError: A column is missing.
    """
    rules = rules or MomentRules()
    lake = stream_of(events, rules, person)
    found = moments(lake.stream, rules, np)
    return sessions_table(lake, found.sessions), moments_table(lake, found)


def detect_in_parts(
    con: Any, query: str, parts: int, rules: MomentRules | None = None, person: str = "customer_id"
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """As `detect`, over more events than fit into memory: one share of the people at a time.

    Args:
        con: A DuckDB connection.
        query: DuckDB query that yields the events.
        parts: How many shares; memory falls in proportion, the query runs once per share.
        rules: Thresholds, or None for the defaults.
        person: Column of the person's id.

    Yields:
        Sessions and moments of each share.
    """
    if parts < 1:
        raise ValueError(f"parts is {parts}; expected at least 1")
    columns = ", ".join(quoted(name) for name in dict.fromkeys((*NEEDED, person)))
    for part in range(parts):
        mine = f"hash({who_sql(person)}) % {int(parts)} = {part}"
        yield detect(con.sql(f"select {columns} from ({query}) where {mine}").to_arrow_table(), rules, person)


def moments_table(lake: LakeStream, found: Found) -> pa.Table:
    """Found moments as `MOMENTS_TABLE`."""
    stream, cut = lake.stream, found.sessions
    rows = pa.array(found.row)
    ids = lake.rows["event_id"].combine_chunks()
    number = cut.of_event[found.row]
    names = pa.array([session_id(key) for key in cut.key.tolist()], pa.string())
    back = recovered_at(stream, found)
    return pa.table(
        {
            "person_id": lake.people.take(pa.array(stream.person[found.row])),
            "session_id": names.take(pa.array(number, mask=number < 0)),
            "kind": pa.array(MOMENTS).take(pa.array(found.kind.astype(np.int64))),
            "occurred_at": pa.array(stream.at_us[found.row]).cast(TIMESTAMP),
            "channel": lake.rows["channel"].take(rows),
            "confidence": pa.array(found.confidence),
            "source": lake.rows["source"].take(rows),
            "event_id": ids.take(rows),
            "evidence": _evidence(found, ids),
            "recovered_at": pa.array(back, mask=back < 0).cast(TIMESTAMP),
        },
        schema=MOMENTS_TABLE,
    )


def recovered_at(
    stream: Stream, found: Found, horizon_us: int = RECOVERY_HORIZON_US
) -> npt.NDArray[np.int64]:
    """When each bad moment was made good.

    A bad moment is made good by the person's first act of `RECOVERED_BY` after it, if that comes within the
    horizon.

    Returns:
        Microseconds ``(M,)``, -1 for wants and for what was not made good.
    """
    good = np.flatnonzero(is_any(stream.action, RECOVERED_BY, ACTION, np))
    answer = np.full(len(found), -1, np.int64)
    if not len(good):
        return answer
    follows = np.searchsorted(good, found.row, side="right")
    after = good[np.minimum(follows, len(good) - 1)]
    wait = stream.at_us[after] - stream.at_us[found.row]
    fits = (follows < len(good)) & (stream.person[after] == stream.person[found.row]) & (wait <= horizon_us)
    fits &= np.isin(found.kind, [MOMENT[name] for name in BAD])
    answer[fits] = stream.at_us[after[fits]]
    return answer


def _evidence(found: Found, ids: pa.Array) -> Any:
    pairs = np.stack([found.earlier, found.row], 1).ravel()
    kept = pairs >= 0
    ends = np.concatenate([[0], np.cumsum(kept.reshape(-1, 2).sum(1))])
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), ids.take(pa.array(pairs[kept])))
