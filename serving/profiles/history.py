"""One customer's events as arrays: the input of the fold and of the encoder.

Belongs here: the `History` type and the plain operations on it (build, cut, merge). Does not belong
here: reading a snapshot (`snapshot.py`), feature arithmetic (`fold.py`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.features import MICROSECONDS_PER_DAY

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_LARGEST_NUMERIC_SESSION = 18  # digits


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class History:
    """A customer's events, ordered by time; events of one moment keep their order of arrival.

    Every field is an array of shape ``(E,)``.

    Attributes:
        at: float64, days since 1970-01-01 UTC.
        at_us: int64, microseconds since 1970-01-01 UTC.
        item: int32, index into the release's item table, -1 where there is none or it is unknown.
        action: int8, index into ``contracts.events.ACTIONS``.
        channel: int8, index into ``contracts.events.CHANNELS``.
        session: int64, `session_key` of the session, -1 for none.
        quantity: float32, units; 0 where the event has none.
        unit_price: float32, paid per unit; 0 where the event has none.
        discount: float32, per unit below list price; 0 where the event has none.
        store: int32, index into the release's store table, -1 where there is none or it is unknown.
        size: int32, `size_key` of the size of a piece, -1 where none is told.
    """

    at: NDArray[np.float64]
    at_us: NDArray[np.int64]
    item: NDArray[np.int32]
    action: NDArray[np.int8]
    channel: NDArray[np.int8]
    session: NDArray[np.int64]
    quantity: NDArray[np.float32]
    unit_price: NDArray[np.float32]
    discount: NDArray[np.float32]
    store: NDArray[np.int32]
    size: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.at_us)

    def select(self, index: slice | NDArray[Any]) -> History:
        """The events at a slice, a mask or positions, as a new history."""
        return History(*(getattr(self, name)[index] for name in COLUMNS))

    def before(self, at_us: int) -> History:
        """Only the events strictly before a moment (views, no copies)."""
        stop = int(np.searchsorted(self.at_us, at_us, side="left"))
        return self if stop == len(self) else self.select(slice(0, stop))


COLUMNS: tuple[str, ...] = tuple(field.name for field in dataclasses.fields(History))
DTYPES: dict[str, type[np.generic]] = {
    "at": np.float64, "at_us": np.int64, "item": np.int32, "action": np.int8, "channel": np.int8,
    "session": np.int64, "quantity": np.float32, "unit_price": np.float32, "discount": np.float32,
    "store": np.int32, "size": np.int32,
}  # fmt: skip


def make_history(
    at_us: Sequence[int] | NDArray[Any],
    item: Sequence[int] | NDArray[Any],
    action: Sequence[int] | NDArray[Any],
    channel: Sequence[int] | NDArray[Any],
    session: Sequence[int] | NDArray[Any] | None = None,
    quantity: Sequence[float] | NDArray[Any] | None = None,
    unit_price: Sequence[float] | NDArray[Any] | None = None,
    discount: Sequence[float] | NDArray[Any] | None = None,
    store: Sequence[int] | NDArray[Any] | None = None,
    size: Sequence[int] | NDArray[Any] | None = None,
) -> History:
    """Build a history from columns in any order of time; missing columns take their empty value.

    Raises:
        ValueError: The columns differ in length; the message names the column.
    """
    moments = np.asarray(at_us, np.int64)
    count = len(moments)
    given: dict[str, Any] = {
        "item": item, "action": action, "channel": channel,
        "session": np.full(count, -1) if session is None else session,
        "quantity": np.zeros(count) if quantity is None else quantity,
        "unit_price": np.zeros(count) if unit_price is None else unit_price,
        "discount": np.zeros(count) if discount is None else discount,
        "store": np.full(count, -1) if store is None else store,
        "size": np.full(count, -1) if size is None else size,
    }  # fmt: skip
    columns: dict[str, NDArray[Any]] = {"at": moments / MICROSECONDS_PER_DAY, "at_us": moments}
    for name, values in given.items():
        columns[name] = np.asarray(values, DTYPES[name])
        if columns[name].shape != (count,):
            raise ValueError(f"history column '{name}' has shape {columns[name].shape}; expected ({count},)")
    history = History(**columns)
    if count > 1 and bool(np.any(moments[1:] < moments[:-1])):
        return history.select(np.argsort(moments, kind="stable"))
    return history


def empty_history() -> History:
    """A history without events."""
    return make_history([], [], [], [])


def merge_histories(parts: Iterable[History]) -> History:
    """One history out of several; at equal times the earlier part's events come first."""
    kept = [part for part in parts if len(part)]
    if not kept:
        return empty_history()
    if len(kept) == 1:
        return kept[0]
    merged = History(*(np.concatenate([getattr(part, name) for part in kept]) for name in COLUMNS))
    if bool(np.any(merged.at_us[1:] < merged.at_us[:-1])):
        return merged.select(np.argsort(merged.at_us, kind="stable"))
    return merged


def session_key(session_id: str | None) -> int:
    """The number that stands for a session inside `History.session`.

    A plain decimal number of up to 18 digits is itself (a till's basket number); any other text is
    ``10**18`` plus the first 60 bits of its MD5, which DuckDB computes alike as
    ``1000000000000000000 + ('0x' || substr(md5(session_id), 1, 15))::BIGINT``. No session is -1.
    """
    if not session_id:
        return -1
    plain = session_id.isascii() and session_id.isdigit() and len(session_id) <= _LARGEST_NUMERIC_SESSION
    if plain and (session_id == "0" or session_id[0] != "0"):
        return int(session_id)
    return 10**18 + int(hashlib.md5(session_id.encode(), usedforsecurity=False).hexdigest()[:15], 16)


def size_key(size: object) -> int:
    """The number that stands for a size inside `History.size`: 28 bits of its MD5; -1 for none.

    DuckDB computes it alike as ``('0x' || substr(md5(size), 1, 7))::INTEGER``.
    """
    if not isinstance(size, str) or not size:
        return -1
    return int(hashlib.md5(size.encode(), usedforsecurity=False).hexdigest()[:7], 16)


def to_microseconds(moment: dt.datetime) -> int:
    """Microseconds since 1970-01-01 UTC of a time with a zone."""
    return (moment - EPOCH) // _MICROSECOND


def to_days(moment: dt.datetime) -> float:
    """Days since 1970-01-01 UTC of a time with a zone."""
    return to_microseconds(moment) / MICROSECONDS_PER_DAY


def to_moment(at_us: int) -> dt.datetime:
    """The UTC time of microseconds since 1970-01-01."""
    return EPOCH + at_us * _MICROSECOND
