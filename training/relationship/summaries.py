"""Purchase histories as numbers per customer, as of a moment: counts for BG/NBD and features for learners.

Everything is computed from purchases strictly before the cut and labels from purchases at or after it, so a
feature cannot see what it predicts.

Belongs here: purchases in, arrays out. Does not belong here: reading a lake (`data.py`), models.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

WINDOWS = (7.0, 28.0, 56.0, 91.0)
HALF_LIVES = (14.0, 56.0)
NEVER = 10_000.0

FEATURES = (
    "days_since_last", "days_since_first", "visits", "spend", "spend_per_visit", "visit_days", "last_spend",
    "gap_mean", "gap_std", "gap_median", "gap_last", "recency_over_gap", "lines_per_visit", "discount_share",
    *(f"visits_{window:.0f}d" for window in WINDOWS), *(f"spend_{window:.0f}d" for window in WINDOWS),
    *(f"visits_half_{half:.0f}d" for half in HALF_LIVES), *(f"spend_half_{half:.0f}d" for half in HALF_LIVES),
    "spend_trend",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Visits:
    """Purchases, one row per visit (basket), sorted by customer and time.

    Attributes:
        customers: str[C], ascending.
        customer: int64[V], index into ``customers``.
        at: float64[V], days since 1970.
        spend: float64[V], money paid.
        lines: float64[V], lines of the basket.
        discount: float64[V], money saved.
    """

    customers: npt.NDArray[np.str_]
    customer: Ints
    at: Floats
    spend: Floats
    lines: Floats
    discount: Floats

    def before(self, moment: float) -> Visits:
        """The visits strictly before a moment; all customers stay."""
        return self._rows(self.at < moment)

    def between(self, start: float, stop: float) -> Visits:
        """The visits in [start, stop)."""
        return self._rows((self.at >= start) & (self.at < stop))

    def _rows(self, keep: npt.NDArray[np.bool_]) -> Visits:
        return dataclasses.replace(
            self, customer=self.customer[keep], at=self.at[keep], spend=self.spend[keep],
            lines=self.lines[keep], discount=self.discount[keep],
        )  # fmt: skip


def make_visits(
    customer: npt.ArrayLike,
    at: npt.ArrayLike,
    spend: npt.ArrayLike,
    lines: npt.ArrayLike | None = None,
    discount: npt.ArrayLike | None = None,
) -> Visits:
    """Sorted visits from columns.

    Args:
        customer: str[V].
        at: float64[V], days since 1970.
        spend: float64[V].
        lines: float64[V], 1 each by default.
        discount: float64[V], 0 each by default.

    Raises:
        ValueError: Lengths differ or a time or an amount is not finite; the message names the column.
    """
    names = np.asarray(customer, np.str_)
    size = len(names)
    columns = {
        "at": np.asarray(at, np.float64), "spend": np.asarray(spend, np.float64),
        "lines": np.ones(size) if lines is None else np.asarray(lines, np.float64),
        "discount": np.zeros(size) if discount is None else np.asarray(discount, np.float64),
    }  # fmt: skip
    for name, values in columns.items():
        if values.shape != (size,):
            raise ValueError(f"{name} has shape {values.shape}; expected ({size},) like customer")
        if not np.isfinite(values).all():
            raise ValueError(
                f"{name} of visit {int(np.flatnonzero(~np.isfinite(values))[0])} is not a finite number"
            )
    customers, index = np.unique(names, return_inverse=True)
    order = np.lexsort((columns["at"], index))
    return Visits(
        customers, index[order].astype(np.int64), **{name: values[order] for name, values in columns.items()}
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Counts:
    """What BG/NBD and Gamma-Gamma read, one row per customer who bought before the cut.

    Attributes:
        customer: int64[N], index into the visits' customers.
        frequency: float64[N], repeat days with a purchase.
        recency: float64[N], days from the first to the last of them.
        age: float64[N], days from the first to the cut.
        average: float64[N], mean spend of the repeat days; 0 without any.
    """

    customer: Ints
    frequency: Floats
    recency: Floats
    age: Floats
    average: Floats


def counts(visits: Visits, cut: float) -> Counts:
    """Counts as of a cut; purchases of one day are one purchase, as BG/NBD wants it.

    Args:
        visits: Any visits.
        cut: Days since 1970; visits at or after it are not read.
    """
    seen = visits.before(cut)
    day = np.floor(seen.at)
    first = np.append(True, (np.diff(seen.customer) != 0) | (np.diff(day) != 0))[: len(day)]
    block = np.cumsum(first) - 1
    spend = np.bincount(block, seen.spend, minlength=int(first.sum()))
    customer, at = seen.customer[first], day[first]
    present, start, number = np.unique(customer, return_index=True, return_counts=True)
    stop = start + number - 1
    total = np.add.reduceat(spend, start) if len(start) else np.zeros(0)
    repeats = number - 1.0
    average = np.where(repeats > 0, (total - spend[start]) / np.maximum(repeats, 1), 0.0)
    return Counts(
        present, repeats, at[stop] - at[start], np.maximum(cut - at[start], at[stop] - at[start]), average
    )


def features(visits: Visits, cut: float) -> tuple[Ints, Floats]:
    """Features of every customer who bought before a cut.

    Returns:
        int64[N], index into the visits' customers, and float64[N, len(FEATURES)] in the order of FEATURES;
        gaps are NaN for customers with one visit.
    """
    seen = visits.before(cut)
    present, start, number = np.unique(seen.customer, return_index=True, return_counts=True)
    if not len(present):
        return present.astype(np.int64), np.zeros((0, len(FEATURES)))
    group = np.repeat(np.arange(len(present)), number)
    ago = cut - seen.at
    last, n = start + number - 1, number.astype(np.float64)

    def total(values: Floats) -> Floats:
        return np.bincount(group, values, minlength=len(present))

    gaps = np.diff(seen.at)
    inner = group[1:] == group[:-1]
    gap, owner = gaps[inner], group[1:][inner]
    gap_count = np.bincount(owner, minlength=len(present)).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        gap_mean = np.bincount(owner, gap, minlength=len(present)) / gap_count
        gap_var = np.bincount(owner, gap**2, minlength=len(present)) / gap_count - gap_mean**2
    gap_std = np.sqrt(np.maximum(gap_var, 0.0))
    gap_last = np.where(number > 1, seen.at[last] - seen.at[np.maximum(last - 1, 0)], np.nan)
    spend, since = total(seen.spend), ago[last]
    day = np.floor(seen.at)
    new_day = np.append(True, (np.diff(day) != 0) | (np.diff(group) != 0))
    gross = spend + total(seen.discount)
    recent = {window: ago <= window for window in WINDOWS}
    quarter, four = total(seen.spend * recent[91.0]), total(seen.spend * recent[28.0])
    columns = [
        since, ago[start], n, spend, spend / n, total(new_day.astype(np.float64)), seen.spend[last],
        gap_mean, gap_std, _medians(gap, owner, len(present)), gap_last,
        since / np.maximum(gap_mean, 0.5), total(seen.lines) / n,
        np.where(gross > 0, total(seen.discount) / np.where(gross > 0, gross, 1.0), 0.0),
        *(total(inside.astype(np.float64)) for inside in recent.values()),
        *(total(seen.spend * inside) for inside in recent.values()),
        *(total(np.exp2(-ago / half)) for half in HALF_LIVES),
        *(total(seen.spend * np.exp2(-ago / half)) for half in HALF_LIVES),
        four / 28.0 - quarter / np.clip(ago[start], 28.0, 91.0),
    ]  # fmt: skip
    return present.astype(np.int64), np.column_stack(columns)


def _medians(values: Floats, owner: Ints, size: int) -> Floats:
    found = np.full(size, np.nan)
    if not len(values):
        return found
    order = np.lexsort((values, owner))
    ordered = values[order]
    present, start, number = np.unique(owner[order], return_index=True, return_counts=True)
    low, high = start + (number - 1) // 2, start + number // 2
    found[present] = (ordered[low] + ordered[high]) / 2
    return found


def next_purchase(visits: Visits, customer: Ints, cut: float, horizon: float) -> tuple[Floats, Floats]:
    """What customers did in [cut, cut + horizon).

    Args:
        visits: Any visits.
        customer: int64[N], whom to look at.
        cut: Days since 1970.
        horizon: Days.

    Returns:
        float64[N] days to the next purchase, infinite where there is none inside, and float64[N] spend inside.
    """
    later = visits.between(cut, cut + horizon)
    size = len(visits.customers)
    first = np.full(size, np.inf)
    np.minimum.at(first, later.customer, later.at - cut)
    spend = np.bincount(later.customer, later.spend, minlength=size)
    return first[customer], spend[customer]
