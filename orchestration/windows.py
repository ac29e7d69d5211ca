"""Which part of the data each model learns from, chooses on and is judged on.

Time runs: history | ranker's requests | evaluation. The encoder learns from everything before the
ranker's requests, so its scores on them are those of an unseen moment; the ranker learns before the
evaluation; both are judged on the first basket of each customer in the evaluation window.

Belongs here: cutting time. Does not belong here: selecting requests (`training/evaluation`).
"""

from __future__ import annotations

import datetime as dt
import pathlib
import statistics
from dataclasses import dataclass

from contracts.retailer import Retailer

QUIET_SHARE = 0.1
"""A day with fewer purchases than this share of the median day does not count as the data's end."""


class NotEnoughData(ValueError):
    """The lake does not hold enough days to learn from and be judged on."""


@dataclass(frozen=True)
class Windows:
    """Moments (UTC midnights) that cut a snapshot.

    Attributes:
        ranker_from: The encoder learns before, the ranker after.
        evaluate_from: The ranker learns before; requests after are for judging.
        evaluate_until: End of the data, exclusive.
    """

    ranker_from: dt.datetime
    evaluate_from: dt.datetime
    evaluate_until: dt.datetime


def cut(retailer: Retailer, lake: pathlib.Path, events_version: int | None = None) -> Windows:
    """Cut a snapshot's time by the shop's profile.

    The end is the day after the last ordinary day: a few stray events with a wrong clock do not move it.

    Raises:
        NotEnoughData: Fewer days than the two windows need, and four weeks of history.
    """
    from feature_repo.snapshots import attach, connect

    con = connect()
    attach(con, "events", lake / "events", events_version)
    counts = dict(
        con.execute("select day, count(*) from events where action = 'purchase' group by 1").fetchall()
    )
    if not counts:
        raise NotEnoughData("the lake holds no purchase")
    floor = QUIET_SHARE * statistics.median(counts.values())
    last = max(day for day, count in counts.items() if count >= floor)
    end = dt.datetime.combine(last + dt.timedelta(days=1), dt.time(), dt.UTC)
    if retailer.clock == "stream" and last >= retailer.last_day - dt.timedelta(days=1):
        # The archive's last day may be a stub (a few hours after midnight UTC): it still belongs to the window.
        end = max(
            end,
            dt.datetime.combine(
                min(max(counts), retailer.last_day) + dt.timedelta(days=1), dt.time(), dt.UTC
            ),
        )
    evaluate_from = end - dt.timedelta(days=retailer.evaluation_days)
    ranker_from = evaluate_from - dt.timedelta(days=retailer.ranker_days)
    if ranker_from.date() - dt.timedelta(days=28) < min(counts):
        raise NotEnoughData(
            f"the lake holds purchases from {min(counts)} to {last}; expected at least "
            f"{retailer.evaluation_days + retailer.ranker_days + 28} days (evaluation_days + ranker_days + 28)"
        )
    return Windows(ranker_from, evaluate_from, end)


def data_end(lake: pathlib.Path) -> dt.date:
    """Latest UTC day that holds an event.

    Raises:
        NotEnoughData: There is none.
    """
    from feature_repo.snapshots import attach, connect

    con = connect()
    attach(con, "events", lake / "events")
    row = con.execute("select max(day) from events").fetchone()
    if row is None or row[0] is None:
        raise NotEnoughData("the lake holds no event")
    last: dt.date = row[0]
    return last
