"""How people really move: between channels, along which paths, from moment to moment.

Belongs here: the channel graph, how much paths differ, time between moments. Does not belong here: credit for
conversions (`attribution.py`, whose paths are used here).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pyarrow as pa

from feature_repo.snapshots import connect, quoted
from orchestration.lake.attribution import Path

JOURNEY_TOUCHES: tuple[str, ...] = ("open", "click", "visit", "search", "contact_support", "add_to_cart")
"""Actions that show where a person was on the way to a purchase: `paths_of(events, touches=JOURNEY_TOUCHES)`."""


@dataclasses.dataclass(frozen=True)
class PathShape:
    """How alike the ways to a purchase are.

    Attributes:
        purchases: Conversions.
        paths: Distinct paths.
        entropy_bits: Shannon entropy of the paths, weighted by conversions.
        evenness: Entropy over that of as many different paths as there are conversions: 0 all take one path,
            1 no two take the same.
        commonest: The path that most take (of equals the first by name).
        commonest_share: Share of conversions that follow it.
    """

    purchases: float
    paths: int
    entropy_bits: float
    evenness: float
    commonest: tuple[str, ...]
    commonest_share: float


def path_shape(paths: Sequence[Path]) -> PathShape:
    """Entropy and commonest path of the ways that led to a purchase.

    Args:
        paths: Of `orchestration.lake.attribution.paths_of`; losses do not count.
    """
    won = [(path.channels, path.conversions) for path in paths if path.conversions > 0]
    total = sum(count for _, count in won)
    if not won:
        return PathShape(0.0, 0, 0.0, 0.0, (), 0.0)
    entropy = -sum(count / total * math.log2(count / total) for _, count in won)
    commonest, most = min(won, key=lambda item: (-item[1], item[0]))
    most_bits = math.log2(total) if total > 1 else 0.0
    return PathShape(
        total,
        len(won),
        max(entropy, 0.0),
        max(entropy, 0.0) / most_bits if most_bits else 0.0,
        commonest,
        most / total,
    )


def channel_graph(events: pa.Table, person: str = "customer_id", within_days: int = 30) -> pa.Table:
    """Moves of people from one channel to the next.

    What merely reached a person (an impression, a delivery) is no step. Steps on one channel in a row are one
    stay; a move further apart than `within_days` is none.

    Args:
        events: With person, occurred_at, source, event_id, channel and action.
        person: Column of the person's id; rows where it is null are left out.
        within_days: Longest time between two steps of a move.

    Returns:
        ``from_channel, to_channel, moves, people, share`` (of the moves that leave from_channel) and
        ``median_hours``, most moves first.
    """
    return _query(
        events,
        f"""
        with steps as (
            select {quoted(person)} as who, channel, occurred_at as moment,
                lag(channel) over w as before, lag(occurred_at) over w as left_at
            from rows where {quoted(person)} is not null and action not in ('impression', 'delivery')
            window w as (partition by {quoted(person)} order by occurred_at, source, event_id)
        ), moves as (
            select *, date_diff('microsecond', left_at, moment) / 3.6e9 as hours from steps
            where before <> channel and moment - left_at <= interval {int(within_days)} day
        )
        select before as from_channel, channel as to_channel, count(*) as moves, count(distinct who) as people,
            count(*) / sum(count(*)) over (partition by before) as share, median(hours) as median_hours
        from moves group by before, channel order by moves desc, from_channel, to_channel
        """,
    )


def time_between_moments(moments: pa.Table) -> pa.Table:
    """From each moment to the same person's next.

    Args:
        moments: `orchestration.lake.moments.MOMENTS_TABLE`.

    Returns:
        ``from_kind, to_kind, count, share`` (of what follows from_kind), ``median_hours``, ``p90_hours``.
    """
    return _query(
        moments,
        """
        with pairs as (
            select kind, occurred_at, lead(kind) over w as next_kind, lead(occurred_at) over w as next_at
            from rows window w as (partition by person_id order by occurred_at, source, event_id, kind)
        ), timed as (
            select *, date_diff('microsecond', occurred_at, next_at) / 3.6e9 as hours
            from pairs where next_kind is not null
        )
        select kind as from_kind, next_kind as to_kind, count(*) as count,
            count(*) / sum(count(*)) over (partition by kind) as share,
            median(hours) as median_hours, quantile_cont(hours, 0.9) as p90_hours
        from timed group by kind, next_kind order by count desc, from_kind, to_kind
        """,
    )


def _query(rows: pa.Table, sql: str) -> pa.Table:
    con = connect()
    try:
        con.register("rows", rows)
        return con.sql(sql).to_arrow_table()
    finally:
        con.close()
