"""How much has happened since the champion's data, and how different it is.

Belongs here: counting new evidence and measuring drift between two lake snapshots. Does not belong
here: the decision to train again (`defs/loop/sensors.py` compares these numbers with the profile).
"""

from __future__ import annotations

import math
import pathlib
from dataclasses import asdict, dataclass
from typing import Any

REFERENCE_DAYS = 28

SIGNALS: dict[str, str] = {
    "hour": "cast(floor(date_part('hour', occurred_at) / 3) as varchar)",
    "weekday": "cast(date_part('isodow', occurred_at) as varchar)",
    "channel": "channel",
    "department": "coalesce(department, '?')",
    "discounted": "cast(coalesce(discount, 0) > 0 as varchar)",
    "quantity": "cast(least(floor(coalesce(quantity, 0)), 5) as varchar)",
    "unit_price": "cast(floor(2 * log2(1 + coalesce(unit_price, 0))) as varchar)",
}
"""What is compared, as SQL over events joined with products; each gives one bin per row."""


@dataclass(frozen=True)
class Evidence:
    """What a lake snapshot holds beyond the champion's.

    Attributes:
        events_version: Snapshot that was looked at.
        champion_version: Snapshot the champion was made from, or -1 without a champion.
        new_purchases: Purchase lines that the champion's snapshot does not hold.
        psi: Population stability index by signal, new purchases against the four weeks before them.
    """

    events_version: int
    champion_version: int
    new_purchases: int
    psi: dict[str, float]

    @property
    def max_psi(self) -> float:
        """The largest drift of any signal, 0 without new purchases."""
        return max(self.psi.values(), default=0.0)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for metadata."""
        return {**asdict(self), "max_psi": self.max_psi}


def population_stability_index(reference: dict[str, int], current: dict[str, int]) -> float:
    """Population stability index between two binned samples.

    ``sum((q - p) * ln(q / p))`` over bins, with half a count added to every bin so that an empty bin
    is finite (Siddiqi, Credit Risk Scorecards, 2006; 0.1 is usually read as some, 0.25 as much drift).

    Args:
        reference: Count by bin.
        current: Count by bin.

    Returns:
        0 for equal shares; larger means further apart.
    """
    bins = reference.keys() | current.keys()
    reference_total = sum(reference.values()) + 0.5 * len(bins)
    current_total = sum(current.values()) + 0.5 * len(bins)
    index = 0.0
    for key in bins:
        p = (reference.get(key, 0) + 0.5) / reference_total
        q = (current.get(key, 0) + 0.5) / current_total
        index += (q - p) * math.log(q / p)
    return index


def gather(lake: pathlib.Path, champion_version: int) -> Evidence:
    """Compare the newest snapshot with the champion's.

    Args:
        lake: Folder of the lake.
        champion_version: Version of `events` the champion was made from; -1 if there is no champion.
    """
    from feature_repo.snapshots import attach, connect

    con = connect()
    version = attach(con, "events", lake / "events")
    attach(con, "products", lake / "products")
    if champion_version < 0:
        return Evidence(version, -1, _count(con, "select count(*) from events where action = 'purchase'"), {})
    attach(con, "known", lake / "events", champion_version)
    con.execute(
        """create temp table fresh as
        select e.*, p.department from events e left join products p using (product_id)
        where e.action = 'purchase'
          and e.day >= (select coalesce(max(day), date '1970-01-01') - 31 from known)
          and (e.source, e.event_id) not in (
            select (source, event_id) from known where day >= (select max(day) - 31 from known))"""
    )
    fresh = _count(con, "select count(*) from fresh")
    if fresh == 0:
        return Evidence(version, champion_version, 0, {})
    con.execute(
        f"""create temp table before as
        select k.*, p.department from known k left join products p using (product_id)
        where k.action = 'purchase' and k.day > (select max(day) - {REFERENCE_DAYS} from known)"""
    )
    psi = {
        name: population_stability_index(
            _histogram(con, "before", bin_sql), _histogram(con, "fresh", bin_sql)
        )
        for name, bin_sql in SIGNALS.items()
    }
    return Evidence(version, champion_version, fresh, psi)


def _count(con: Any, sql: str) -> int:
    return int(con.execute(sql).fetchone()[0])


def _histogram(con: Any, table: str, bin_sql: str) -> dict[str, int]:
    return dict(con.execute(f"select {bin_sql} as bin, count(*) from {table} group by 1").fetchall())
