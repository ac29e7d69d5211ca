"""Sources: one module per kind of raw data, which turns it into canonical rows.

A source is a module in this package with the functions of `Source`. A retailer with data of its own
shape adds one module and names it in its profile (`source: my_shop`); nothing else changes.

Belongs here: reading raw rows and naming them in the contract's words. Does not belong here: checking
them against the contract and writing them (`orchestration/lake`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import importlib
import pkgutil
from typing import Protocol, cast

import pyarrow as pa

from contracts.retailer import Retailer
from contracts.settings import Settings


class UnknownSourceError(LookupError):
    """A profile names a source that does not exist; the message lists those that do."""


@dataclasses.dataclass(frozen=True)
class Window:
    """Which part of a source to read.

    Attributes:
        first_day: First UTC day.
        last_day: Last UTC day, inclusive.
        households: Keep only this many customers, always the same ones, or all.
        first: First day that the source has; events whose time cannot be read count as of that day.
    """

    first_day: dt.date
    last_day: dt.date
    households: int | None = None
    first: dt.date | None = None

    def __post_init__(self) -> None:
        if self.last_day < self.first_day:
            raise ValueError(f"window ends {self.last_day}, before its first day {self.first_day}")

    @property
    def holds_first(self) -> bool:
        """Whether the source's first day lies inside."""
        return self.first is None or self.first_day <= self.first <= self.last_day


@dataclasses.dataclass(frozen=True)
class WeeklyRows:
    """Rows of a range of weeks, complete for each of them.

    Attributes:
        first_week: First week (`contracts.features.week_of`).
        last_week: Last week, inclusive; before `first_week` where there is none.
        rows: The rows, by week.
    """

    first_week: int
    last_week: int
    rows: pa.RecordBatchReader


class Source(Protocol):
    """What a source module offers; every reader yields rows of a schema in `orchestration.lake.tables`.

    A source may also offer ``trials()``: contacts that were assigned at random (`orchestration.lake.trials`).
    All functions read the raw data again at each call, so that a single day can be mapped alone.
    """

    def events(self, window: Window) -> pa.RecordBatchReader:
        """Canonical events of the window (`tables.CANONICAL`), unchecked, in any order."""
        ...

    def products(self) -> pa.Table:
        """The catalogue (`tables.PRODUCTS`)."""
        ...

    def customers(self, households: int | None) -> pa.Table:
        """Known customers (`tables.CUSTOMERS`)."""
        ...

    def offers(self) -> pa.Table:
        """Coupons (`tables.OFFERS`); empty where the shop has none."""
        ...

    def exposures(self, window: Window) -> WeeklyRows:
        """Displays and mailers (`tables.EXPOSURES`) of every week that touches the window."""
        ...


def load(name: str, retailer: Retailer | None = None, settings: Settings | None = None) -> Source:
    """The source of that name.

    Args:
        name: Module of this package.
        retailer: The open shop, for sources that read its mapping; taken from the environment if None.
        settings: Where state lives, for sources that keep any; taken from the environment if None.

    Raises:
        UnknownSourceError: No such module.
    """
    known = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)
    if name not in known:
        raise UnknownSourceError(f"source is '{name}'; expected one of: {', '.join(known)}")
    module = importlib.import_module(f"{__name__}.{name}")
    if retailer is not None and settings is not None and hasattr(module, "bind"):
        return cast(Source, module.bind(retailer, settings))
    return cast(Source, module)
