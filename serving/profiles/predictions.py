"""What is expected of each customer: churn and value, as orchestration last published them.

The file ``customers.npz`` (no pickles) holds customers U[C] sorted, churn float32[C] (probability of no
purchase within ``churn_days``), value float32[C] (money expected within ``value_days``), and the scalars
churn_days, value_days float64 and as_of_us int64, the moment that the expectations are made for.

Belongs here: finding, checking and looking up. Does not belong here: predicting (`training/relationship`).
"""

from __future__ import annotations

import datetime as dt
import pathlib

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.profiles.history import to_moment
from serving.profiles.published import Published

FILE = "customers.npz"


class Expectation(msgspec.Struct, frozen=True, kw_only=True):
    """What is expected of one customer.

    Attributes:
        churn: Probability of no purchase within ``churn_days``.
        churn_days: Horizon of churn.
        value: Money expected within ``value_days``.
        value_days: Horizon of value.
        as_of: Moment that the expectation is made for.
    """

    churn: float
    churn_days: float
    value: float
    value_days: float
    as_of: dt.datetime


class PredictionsError(RuntimeError):
    """The published file cannot be used; the message says what is wrong with it."""


class Predictions:
    """The newest published expectations; read again when the file changes.

    Args:
        folder: Where orchestration publishes, or None for nowhere.
    """

    def __init__(self, folder: pathlib.Path | None) -> None:
        self._table = Published(folder, FILE, _read)

    def of(self, customer_id: str) -> Expectation | None:
        """What is expected of a customer, or None where nothing is.

        Raises:
            PredictionsError: The published file is damaged.
        """
        table = self._table.current()
        return None if table is None else table.of(customer_id)


class _Table:
    def __init__(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        size = len(arrays["customers"])
        for name in ("churn", "value"):
            if arrays[name].shape != (size,) or arrays[name].dtype != np.float32:
                raise ValueError(f"'{name}' is no float32[{size}]")
        self._customers = arrays["customers"].astype(np.str_)
        self._churn, self._value = arrays["churn"], arrays["value"]
        self._days = (float(arrays["churn_days"]), float(arrays["value_days"]))
        self._as_of = to_moment(int(arrays["as_of_us"]))

    def of(self, customer_id: str) -> Expectation | None:
        place = int(np.searchsorted(self._customers, customer_id))
        if place >= len(self._customers) or self._customers[place] != customer_id:
            return None
        return Expectation(
            churn=float(self._churn[place]),
            churn_days=self._days[0],
            value=float(self._value[place]),
            value_days=self._days[1],
            as_of=self._as_of,
        )


def _read(path: pathlib.Path) -> _Table:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return _Table({name: archive[name] for name in archive.files})
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise PredictionsError(f"{path.name} cannot be used: {error}") from error
