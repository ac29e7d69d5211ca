"""The gate's guards: numbers of the shop that must not have fallen while a new release is promoted by itself.

They are the very KPIs that the pages show and experiments compare (`orchestration/lake/kpis.py`), over the latest days
of the data against as many days before.

Belongs here: which guard holds, and why not. Does not belong here: definitions of KPIs, moving aliases.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING

from contracts.retailer import Guard
from contracts.settings import Settings

if TYPE_CHECKING:
    from orchestration.lake.kpis import Tables


@dataclasses.dataclass(frozen=True)
class Guarded:
    """What one guard found.

    Attributes:
        kpi: Its KPI.
        before: Over the days before; None over nobody.
        now: Over the latest days; None over nobody.
        reason: Why it does not hold, empty if it does.
    """

    kpi: str
    before: float | None
    now: float | None
    reason: str


def guard_lake(settings: Settings, guards: Sequence[Guard]) -> list[Guarded]:
    """Ask all guards about the lake as it is.

    Raises:
        KpiError: A guard names no KPI.
        SnapshotError: People are not identified yet, so that there are no numbers.
    """
    if not guards:
        return []
    from feature_repo.snapshots import connect
    from orchestration.lake import kpis

    con = connect("2GB")
    tables = kpis.attach_tables(con, settings.lake)
    latest = con.execute("select max(occurred_at) from known").fetchall()[0][0]
    if latest is None:
        return [Guarded(guard.kpi, None, None, f"{guard.kpi}: nobody is known yet") for guard in guards]
    end = latest.astimezone(dt.UTC) + dt.timedelta(microseconds=1)
    return [ask(guard, tables, end) for guard in guards]


def ask(guard: Guard, tables: Tables, end: dt.datetime) -> Guarded:
    """Ask one guard.

    Args:
        guard: What must not fall by how much.
        tables: What KPIs are computed from.
        end: End of the latest days (excluded), with a zone.

    Raises:
        KpiError: It names no KPI.
    """
    from orchestration.lake import kpis

    window = kpis.Window(end - dt.timedelta(days=guard.days), end)
    before, now = (
        kpis.measure(guard.kpi, tables, each).to_pyarrow()["value"][0].as_py()
        for each in (window.before(), window)
    )
    reason = ""
    if before is not None and now is None:
        reason = f"{guard.kpi} has no value in the latest {guard.days} days; before them it was {before:.4g}"
    elif before is not None and now is not None and before > 0:
        higher = kpis.KPIS[guard.kpi].better == "higher"
        worse = (before - now) / before if higher else (now - before) / before
        if worse > guard.most_drop:
            reason = (
                f"{guard.kpi} is worse by {100 * worse:.1f} % than in the {guard.days} days before "
                f"({before:.4g} to {now:.4g}); allowed: {100 * guard.most_drop:.1f} %"
            )
    return Guarded(guard.kpi, before, now, reason)
