"""Customers at several moments: the rows that churn and value are learned from and judged on.

At each cut every customer with a purchase before it gives one row. A learning row's outcome is read only from
purchases before ``known_until``, and a spend window must end by then; so nothing of the judged window is seen.

Belongs here: which rows. Does not belong here: features of one moment (`summaries.py`), models.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from training.relationship.summaries import FEATURES, Visits, features, next_purchase
from training.relationship.survival import EDGES, targets

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Customers at cuts.

    Attributes:
        customer: int64[M], index into the visits' customers.
        cut: float64[M], days since 1970.
        features: float64[M, F].
        days: float64[M], days to the next purchase, infinite where none was seen.
        observed: float64[M], days that were watched.
        spend: float64[M], spend while watched.
    """

    customer: Ints
    cut: Floats
    features: Floats
    days: Floats
    observed: Floats
    spend: Floats

    def __len__(self) -> int:
        return len(self.customer)

    def hazard_targets(self) -> Floats:
        """float64[M, 2, K], see `survival.targets`."""
        return targets(self.days, self.observed, EDGES)

    def select(self, keep: npt.NDArray[np.bool_]) -> Rows:
        """Some of the rows."""
        return Rows(*(getattr(self, field.name)[keep] for field in dataclasses.fields(self)))


def rows_at(visits: Visits, cuts: Floats, horizon: float, known_until: float, censored: bool = False) -> Rows:
    """Rows at some cuts.

    Args:
        visits: Any visits; those at or after ``known_until`` are not read.
        cuts: float64[N], days since 1970.
        horizon: Days after each cut that outcomes are about.
        known_until: Days since 1970.
        censored: Watch a cut for less than the horizon where its end is not known yet, instead of refusing.

    Raises:
        ValueError: A cut is not before ``known_until``, its window ends later (unless censored), or nobody
            has bought before any cut.
    """
    known = visits.before(known_until)
    parts = []
    for cut in np.asarray(cuts, np.float64):
        watched = min(horizon, known_until - cut)
        if watched <= 0 or (watched < horizon and not censored):
            raise ValueError(
                f"cut {cut} with a window of {horizon} days ends after known_until ({known_until}); "
                "expected it to be known"
            )
        who, table = features(known, float(cut))
        days, spend = next_purchase(known, who, float(cut), watched)
        size = len(who)
        parts.append(Rows(who, np.full(size, cut), table, days, np.full(size, watched), spend))
    if not sum(map(len, parts)):
        raise ValueError("nobody has bought before any cut; expected some customers")
    return Rows(
        *(np.concatenate([getattr(part, f.name) for part in parts]) for f in dataclasses.fields(Rows))
    )


def learning_cuts(
    first: float, test: float, horizon: float, step: float = 14.0, warm_up: float = 35.0
) -> Floats:
    """Cuts whose windows end by the moment that will be judged, oldest first.

    Args:
        first: First purchase of the shop, days since 1970.
        test: The judged cut.
        horizon: Window after each cut.
        step: Days between cuts.
        warm_up: Days of history before the first cut.

    Raises:
        ValueError: Fewer than three cuts fit.
    """
    found = np.arange(test - horizon, first + warm_up - 1e-9, -step)[::-1]
    if len(found) < 3:
        raise ValueError(
            f"{len(found)} cuts fit between {first + warm_up} and {test - horizon}; expected at least 3: "
            "give more history, a shorter window or a smaller step"
        )
    return found


def average_spend_baseline(rows: Rows, horizon: float, shortest: float = 28.0) -> Floats:
    """Spend in the horizon if a customer goes on as on average so far: what a shop would do without a model."""
    spend, age = (
        rows.features[:, FEATURES.index("spend")],
        rows.features[:, FEATURES.index("days_since_first")],
    )
    return spend / np.maximum(age, shortest) * horizon
