"""The published snapshot of customer histories: what the lake knew when orchestration last wrote it.

A snapshot is a folder ``<name>`` with ``histories.npz`` (one table of events in CSR form by customer)
and ``meta.json``; the file ``CURRENT`` beside the folders names the newest. A visible folder is
complete and never changes.

Belongs here: finding, checking and slicing a snapshot. Does not belong here: writing it
(`orchestration/lake/histories.py`), merging it with the inbox's tail (`live.py`).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import pathlib
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from contracts.features import MICROSECONDS_PER_DAY
from serving.profiles.history import DTYPES, History

CURRENT = "CURRENT"
FORMAT = 1
_EVENT_COLUMNS: dict[str, type[np.generic]] = {
    "at_us": np.int64, "product": np.int32, "action": np.int8, "channel": np.int8, "session": np.int64,
    "quantity": np.float32, "unit_price": np.float32, "discount": np.float32, "store": np.int32, "size": np.int32,
}  # fmt: skip


class SnapshotError(RuntimeError):
    """A snapshot that cannot be used; the message says what is wrong with it."""


class SnapshotMeta(msgspec.Struct, frozen=True, kw_only=True):
    """Content of meta.json.

    Attributes:
        format: Version of this layout.
        retailer: Shop.
        events_version: Version of the lake's event table.
        inbox_offset: Inbox rows up to this one are inside; the server adds the later ones.
        customers: How many.
        events: How many.
        newest_us: Latest event, microseconds since 1970-01-01 UTC.
        created_at: When it was written.
        sha256: Hex digest of histories.npz.
    """

    format: int
    retailer: str
    events_version: int
    inbox_offset: int
    customers: int
    events: int
    newest_us: int
    created_at: dt.datetime
    sha256: str


class Snapshot:
    """Histories of known customers, read only.

    Args:
        name: Folder name.
        meta: Content of meta.json.
        arrays: Content of histories.npz.

    Raises:
        SnapshotError: Arrays are missing, of another type, or do not fit together.
    """

    def __init__(self, name: str, meta: SnapshotMeta, arrays: dict[str, NDArray[Any]]) -> None:
        self.name = name
        self.meta = meta
        self.customers = _strings(arrays, "customers")
        self.products = _strings(arrays, "products")
        self.stores = _strings(arrays, "stores")
        self._offsets = _column(arrays, "offsets", np.int64)
        if "size" not in arrays and "at_us" in arrays:  # Snapshots that are older than sizes.
            arrays = {**arrays, "size": np.full(len(arrays["at_us"]), -1, np.int32)}
        self._columns = {key: _column(arrays, key, dtype) for key, dtype in _EVENT_COLUMNS.items()}
        size = len(self._columns["at_us"])
        if any(len(column) != size for column in self._columns.values()):
            raise SnapshotError("histories.npz: the event columns differ in length")
        offsets = self._offsets
        fits = len(offsets) == len(self.customers) + 1 and offsets[0] == 0 and offsets[-1] == size
        if not fits or bool(np.any(np.diff(offsets) < 0)):
            raise SnapshotError("histories.npz: 'offsets' does not fit customers and events")
        for key, table in (("product", self.products), ("store", self.stores)):
            column = self._columns[key]
            if size and (int(column.min()) < -1 or int(column.max()) >= len(table)):
                raise SnapshotError(f"histories.npz: '{key}' points outside its table")
        self._at = self._columns["at_us"] / MICROSECONDS_PER_DAY

    def row(self, customer_id: str) -> int:
        """Position of a customer, or -1 for one that the snapshot does not know."""
        place = int(np.searchsorted(self.customers, customer_id))
        if place < len(self.customers) and self.customers[place] == customer_id:
            return place
        return -1

    def history(self, row: int, items: NDArray[np.int32], stores: NDArray[np.int32]) -> History:
        """The events of a customer.

        Args:
            row: Position from `row`.
            items: Release item index of each of ``products``, with a last extra entry of -1.
            stores: Release store index of each of ``stores``, with a last extra entry of -1.
        """
        part = slice(int(self._offsets[row]), int(self._offsets[row + 1]))
        columns: dict[str, Any] = {
            name: self._columns[name][part] for name in DTYPES if name not in {"at", "item", "store"}
        }
        return History(
            at=self._at[part],
            item=items[self._columns["product"][part]],
            store=stores[self._columns["store"][part]],
            **columns,
        )


def current_name(folder: pathlib.Path) -> str | None:
    """Name of the newest snapshot in a profiles folder, or None where nothing was published yet.

    Raises:
        SnapshotError: The pointer cannot be read or names something else than a folder beside it.
    """
    try:
        name = (folder / CURRENT).read_text().strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise SnapshotError(f"{CURRENT} cannot be read") from error
    if not name or "/" in name or name.startswith("."):
        raise SnapshotError(f"{CURRENT} names '{name}'; expected a folder beside it")
    return name


def read_snapshot(folder: pathlib.Path, name: str) -> Snapshot:
    """Read and check a snapshot.

    Args:
        folder: The profiles folder.
        name: Name of the snapshot.

    Raises:
        SnapshotError: A file is missing, damaged, or of an unknown format.
    """
    try:
        meta = msgspec.json.decode((folder / name / "meta.json").read_bytes(), type=SnapshotMeta)
        content = (folder / name / "histories.npz").read_bytes()
    except OSError as error:
        raise SnapshotError(f"snapshot {name} is incomplete") from error
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise SnapshotError(f"snapshot {name}: meta.json: {error}") from error
    if meta.format != FORMAT:
        raise SnapshotError(f"snapshot {name} has format {meta.format}; expected {FORMAT}")
    if hashlib.sha256(content).hexdigest() != meta.sha256:
        raise SnapshotError(f"snapshot {name}: histories.npz does not have the hash that meta.json names")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (ValueError, OSError, EOFError, KeyError) as error:
        raise SnapshotError(f"snapshot {name}: histories.npz is not an array archive") from error
    return Snapshot(name, meta, arrays)


def _column(arrays: dict[str, NDArray[Any]], key: str, dtype: type[np.generic]) -> NDArray[Any]:
    column = arrays.get(key)
    if column is None or column.ndim != 1 or column.dtype != dtype:
        found = "missing" if column is None else f"{column.dtype}{list(column.shape)}"
        raise SnapshotError(f"histories.npz: '{key}' is {found}; expected one row of {np.dtype(dtype).name}")
    column.setflags(write=False)
    return column


def _strings(arrays: dict[str, NDArray[Any]], key: str) -> NDArray[np.str_]:
    column = arrays.get(key)
    if column is None or column.ndim != 1 or (column.dtype.kind != "U" and len(column)):
        raise SnapshotError(f"histories.npz: '{key}' is missing or no row of text")
    if len(column) > 1 and bool(np.any(column[1:] <= column[:-1])):
        raise SnapshotError(f"histories.npz: '{key}' is not sorted and unique")
    return column.astype(np.str_) if len(column) == 0 else column
