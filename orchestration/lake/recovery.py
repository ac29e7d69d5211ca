"""How much each answer to a bad moment helps, from the shop's own trials.

An answer is recorded as an event of the person with ``detail.recovery`` set to one of
`contracts.recovery.RECOVERIES`, or to ``none`` where the case was held out at random. A trial is a bad moment
with the person's first such event within `WITHIN_DAYS`; it worked if the moment was made good after the answer.

Belongs here: trials and effects. Does not belong here: the choice (`contracts/recovery.py`).
"""

from __future__ import annotations

import math

import pyarrow as pa

from contracts.recovery import ANSWERS, Effect
from feature_repo.snapshots import connect, quoted

HELD_OUT = "none"
WITHIN_DAYS = 3
STRENGTH = 10.0
"""Pseudo-trials at the kind's own recovery rate that each arm starts with, so that few trials say little."""


def recovery_trials(moments: pa.Table, events: pa.Table, person: str = "customer_id") -> pa.Table:
    """Answered bad moments.

    Args:
        moments: `orchestration.lake.moments.MOMENTS_TABLE`.
        events: With the person's column, occurred_at and detail.
        person: Column of the person's id.

    Returns:
        ``kind, action, trials, worked``: counts, `HELD_OUT` among the actions.
    """
    con = connect()
    try:
        con.register("moments", moments)
        con.register("events", events)
        return con.sql(
            f"""
            with answers as (
                select {quoted(person)} as person_id, occurred_at as answered_at,
                    json_extract_string(detail, '$.recovery') as action
                from events where {quoted(person)} is not null and json_extract_string(detail, '$.recovery') is not null
            ), bad as (
                select * from moments where kind in (select unnest({list(ANSWERS)!r}))
            ), trials as (
                select b.kind, a.action, b.recovered_at > a.answered_at as worked
                from bad b asof join answers a
                    on b.person_id = a.person_id and b.occurred_at <= a.answered_at
                where a.answered_at - b.occurred_at <= interval {WITHIN_DAYS} day
                    and (b.recovered_at is null or b.recovered_at > a.answered_at)
            )
            select kind, action, count(*) as trials, count(*) filter (worked) as worked
            from trials group by all order by kind, action
            """
        ).to_arrow_table()
    finally:
        con.close()


def recovery_effects(trials: pa.Table) -> list[Effect]:
    """Effects of the answers that were tried, each against the moments of its kind that were held out.

    Both arms are Beta posteriors whose prior is the kind's pooled recovery rate with the weight of `STRENGTH`
    trials; the interval is the normal one of their difference.

    Args:
        trials: Of `recovery_trials`.

    Returns:
        One effect per kind and answer that fits it; none for a kind without a held-out moment.
    """
    counts = {(row["kind"], row["action"]): (row["worked"], row["trials"]) for row in trials.to_pylist()}
    found = []
    for kind, actions in ANSWERS.items():
        if (kind, HELD_OUT) not in counts:
            continue
        arms = [counts[kind, action] for action in (*actions, HELD_OUT) if (kind, action) in counts]
        prior = (sum(worked for worked, _ in arms) + 1) / (sum(number for _, number in arms) + 2)
        base, base_variance = _posterior(*counts[kind, HELD_OUT], prior)
        for action in actions:
            if (kind, action) in counts:
                mean, variance = _posterior(*counts[kind, action], prior)
                reach = 1.645 * math.sqrt(variance + base_variance)
                low, high = mean - base - reach, mean - base + reach
                trials_of = counts[kind, action][1]
                found.append(Effect(kind, action, mean - base, low, high, trials_of))
    return found


def _posterior(worked: int, trials: int, prior: float) -> tuple[float, float]:
    mean = (worked + STRENGTH * prior) / (trials + STRENGTH)
    return mean, mean * (1 - mean) / (trials + STRENGTH + 1)
