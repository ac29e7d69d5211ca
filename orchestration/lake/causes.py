"""What contacts over each channel cause, by the shop's own trials.

In a trial some people are contacted and some held out at random, so orders per contacted person less orders per person
held out are what the contact caused. Trials of a channel are put together by the people contacted; the interval is the
normal one of a difference of means.

Belongs here: effects of trials that are over. Does not belong here: taking trials in (`trials.py`), predicting effects
for one customer (`training/relationship`), dividing conversions among channels (`attribution.py`).
"""

from __future__ import annotations

import math

import duckdb

from contracts.overview import Trial
from orchestration.lake.trials import OUTCOME_DAYS

Z = 1.959964


def effects_of_trials(con: duckdb.DuckDBPyConnection) -> tuple[Trial, ...]:
    """Effects by channel, the surest first.

    Args:
        con: With views `known` (events with person_id), `links` (`identity_tables.LINKS`) and `trials`
            (`orchestration.lake.trials.TRIALS`). Trials whose days of outcome are not over take no part.
    """
    rows = con.execute(
        f"""with latest as (select max(occurred_at) as at from known),
        arms as (
            select t.trial_id, t.channel, t.treated, t.sent_at, l.person_id from trials t
            join links l on l.kind = 'customer' and l.value = t.customer_id and l.state = 'linked', latest
            where t.sent_at + interval {OUTCOME_DAYS} days <= latest.at
        ), orders as (
            select distinct person_id, occurred_at from known where action = 'purchase'
        ), outcomes as (
            select a.trial_id, a.channel, a.treated, a.person_id, count(o.occurred_at) as bought
            from arms a left join orders o on o.person_id = a.person_id and o.occurred_at > a.sent_at
                and o.occurred_at <= a.sent_at + interval {OUTCOME_DAYS} days
            group by all
        ), told as (
            select trial_id, channel, count(*) filter (treated) as contacted, count(*) filter (not treated) as held_out,
                avg(bought) filter (treated) as mean_1, avg(bought) filter (not treated) as mean_0,
                var_samp(bought) filter (treated) as var_1, var_samp(bought) filter (not treated) as var_0
            from outcomes group by all
        )
        select channel, sum(contacted), sum(held_out),
            sum(contacted * (mean_1 - mean_0)) / sum(contacted),
            sum(contacted * contacted * (var_1 / contacted + var_0 / held_out)) / (sum(contacted) * sum(contacted))
        from told where contacted > 1 and held_out > 1 group by channel order by channel"""
    ).fetchall()
    found = []
    for channel, contacted, held_out, effect, variance in rows:
        reach = Z * math.sqrt(float(variance))
        found.append(
            Trial(
                channel=channel, effect=float(effect), low=float(effect) - reach, high=float(effect) + reach,
                contacted=int(contacted), held_out=int(held_out), days=OUTCOME_DAYS,
            )
        )  # fmt: skip
    return tuple(sorted(found, key=lambda trial: (-trial.low, trial.channel)))
