"""Tombstones: written when somebody is erased, asked whenever rows come in.

Belongs here: writing the tombstones' file, keeping erased persons out of batches of any source. Does not
belong here: the server's own door (`serving/inbox/writer.py`), removal (`erasure.py`).
"""

from __future__ import annotations

import os
import pathlib
import secrets
import uuid
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from contracts.events import Identifier
from contracts.identity import FORMAT, LOGIN, TOMBSTONES_FILE, TombstoneContent, Tombstones, read_tombstones
from contracts.settings import Settings
from orchestration.lake import tables
from orchestration.sources import Source, WeeklyRows, Window

_IDENTIFIERS = msgspec.json.Decoder(Annotated[tuple[Identifier, ...], msgspec.Meta(max_length=16)])


def tombstones_path(settings: Settings) -> pathlib.Path:
    """Where the installation's tombstones lie: beside the inbox, so that the server finds them."""
    return settings.inbox.with_name(TOMBSTONES_FILE)


def load_or_draw(settings: Settings) -> Tombstones:
    """The tombstones of an installation; with a newly drawn salt where nobody was erased yet.

    Raises:
        TombstoneError: The file is damaged.
    """
    return read_tombstones(tombstones_path(settings)) or Tombstones(secrets.token_bytes(32))


def store(settings: Settings, tombstones: Tombstones, digests: Iterable[str]) -> Tombstones:
    """Add digests, atomically and on disk when this returns."""
    path = tombstones_path(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    wanted = Tombstones(tombstones.salt, {*tombstones.digests, *digests})
    content = TombstoneContent(FORMAT, wanted.salt.hex(), tuple(sorted(wanted.digests)))
    staged = path.with_name(f".tmp-{uuid.uuid4().hex}")
    with staged.open("wb") as file:
        file.write(msgspec.json.encode(content))
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)
    return wanted


def admitted(rows: pa.Table | pa.RecordBatch, tombstones: Tombstones | None) -> pa.Table:
    """Canonical rows without those of erased persons.

    Args:
        rows: At least source, event_id and identifiers (`tables.CANONICAL`), checked or not; what cannot be
            read is passed on, since validation judges it.
        tombstones: What was erased, or None.
    """
    table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
    if not tombstones or table.num_rows == 0:
        return table
    encoded = table["identifiers"].combine_chunks().dictionary_encode(null_encoding="encode")
    pairs = [_pairs(text) for text in encoded.dictionary.to_pylist()]
    by_name = [tombstones.holds(found, "", "") for found in pairs]
    keep = [
        not by_name[place] and not tombstones.holds((), source or "", event_id or "")
        for place, source, event_id in zip(
            encoded.indices.to_pylist(),
            table["source"].to_pylist(),
            table["event_id"].to_pylist(),
            strict=True,
        )
    ]
    return table.filter(pa.array(keep, pa.bool_()))


class Shielded:
    """A source without the events and customers that were erased.

    Args:
        source: Any source.
        settings: The installation whose tombstones count; they are read again at each call.
    """

    def __init__(self, source: Source, settings: Settings) -> None:
        self._source = source
        self._path = tombstones_path(settings)

    def events(self, window: Window) -> pa.RecordBatchReader:
        """As `Source.events`."""
        tombstones = read_tombstones(self._path)

        def batches() -> Iterator[pa.RecordBatch]:
            for batch in self._source.events(window):
                yield from admitted(batch, tombstones).to_batches()

        return pa.RecordBatchReader.from_batches(tables.CANONICAL, batches())

    def customers(self, households: int | None) -> pa.Table:
        """As `Source.customers`."""
        rows = self._source.customers(households)
        tombstones = read_tombstones(self._path)
        if not tombstones:
            return rows
        gone = [
            tombstones.of_identifier(LOGIN, c) in tombstones.digests for c in rows["customer_id"].to_pylist()
        ]
        return rows.filter(pc.invert(pa.array(gone, pa.bool_())))

    def products(self) -> pa.Table:
        """As `Source.products`."""
        return self._source.products()

    def offers(self) -> pa.Table:
        """As `Source.offers`."""
        return self._source.offers()

    def exposures(self, window: Window) -> WeeklyRows:
        """As `Source.exposures`."""
        return self._source.exposures(window)


def _pairs(text: Any) -> tuple[tuple[str, str], ...]:
    try:
        return tuple((found.kind, found.value) for found in _IDENTIFIERS.decode(text or "[]"))
    except (msgspec.ValidationError, msgspec.DecodeError):
        return ()
