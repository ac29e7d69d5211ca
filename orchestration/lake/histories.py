"""Publishing every known customer's events as arrays, for the live server.

The server starts from the newest snapshot and adds the tail of its inbox, so a snapshot names the inbox
offset that it includes. A snapshot is a folder that appears complete or not at all.

``histories.npz`` (no pickles): customers U[C] sorted, offsets int64[C + 1] (rows of customer i are
``offsets[i]:offsets[i + 1]``), and per event at_us int64, product int32 (index into products U[P], -1
none), action int8, channel int8 (indices in `contracts.events`), session int64 (-1 none; a till's number
is itself, other texts are hashed, as `serving.profiles.history.session_key`), quantity, unit_price,
discount float32 (0 where none), store int32 (index into stores U[S], -1 none), size int32 (hashed, -1 none). A customer's
events are ordered by occurred_at, received_at, event_id. ``meta.json`` names versions, counts and the file's sha256.

Belongs here: writing snapshots. Does not belong here: reading them (`serving/profiles/snapshot.py`).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import pathlib
import shutil
import uuid

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contracts.events import ACTIONS, CHANNELS
from contracts.settings import Settings, read_retailer
from feature_repo.snapshots import attach, connect, literal
from orchestration.lake.tables import TABLES

CURRENT = "CURRENT"
FORMAT = 1
KEPT = 3


def publish_histories(
    settings: Settings,
    events_version: int | None = None,
    inbox_offset: int = 0,
    years: int = 5,
    limit: int = 5000,
) -> pathlib.Path:
    """Write a snapshot of all histories and make it the current one.

    Args:
        settings: Where the lake and the profiles lie.
        events_version: Version of the events table, or None for the latest.
        inbox_offset: Inbox offset up to which that version is complete.
        years: Leave out events older than this before the newest event.
        limit: Keep at most this many latest events per customer.

    Returns:
        Folder of the snapshot. Publishing the same version and offset again gives the same folder.
    """
    con = connect()
    version = attach(con, "events", TABLES["events"].path(settings.lake), events_version)
    name = f"v{version:08d}-{inbox_offset:012d}"
    folder = settings.profiles / name
    if not (folder / "meta.json").is_file():
        arrays = build_histories(con, years, limit)
        meta = {
            "format": FORMAT,
            "retailer": read_retailer(settings).name,
            "events_version": version,
            "inbox_offset": inbox_offset,
            "customers": len(arrays["customers"]),
            "events": len(arrays["at_us"]),
            "newest_us": int(arrays["at_us"].max(initial=0)),
            "created_at": dt.datetime.now(dt.UTC).isoformat(),
            "years": years,
            "limit": limit,
        }
        _write_folder(folder, arrays, meta)
    _point(settings.profiles, name)
    _forget(settings.profiles, name)
    return folder


def build_histories(con: duckdb.DuckDBPyConnection, years: int, limit: int) -> dict[str, NDArray[np.generic]]:
    """The arrays of a snapshot, from a DuckDB view `events`; see the module's docstring for shapes."""
    rows = con.sql(_query(years, limit)).to_arrow_table()
    customers, customer = _table_of(rows["customer_id"])
    products, product = _table_of(rows["product_id"])
    stores, store = _table_of(rows["store_id"])
    counts = np.bincount(customer, minlength=len(customers)) if len(customers) else np.zeros(0, np.int64)
    arrays: dict[str, NDArray[np.generic]] = {
        "customers": customers,
        "offsets": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "product": product,
        "products": products,
        "store": store,
        "stores": stores,
    }
    for column in ("at_us", "action", "channel", "session", "quantity", "unit_price", "discount", "size"):
        arrays[column] = rows[column].to_numpy()
    return arrays


def _query(years: int, limit: int) -> str:
    return f"""
        select customer_id, product_id, store_id, epoch_us(occurred_at) as at_us,
            {_index("action", ACTIONS)} as action, {_index("channel", CHANNELS)} as channel,
            {session_sql("session_id")} as session,
            coalesce(quantity, 0)::float as quantity, coalesce(unit_price, 0)::float as unit_price,
            coalesce(discount, 0)::float as discount, {size_sql("json_extract_string(detail, '$.size')")} as size
        from events
        where customer_id is not null
            and occurred_at >= (select max(occurred_at) from events) - to_years({int(years)})
        qualify row_number() over (
            partition by customer_id order by occurred_at desc, received_at desc, event_id desc
        ) <= {int(limit)}
        order by customer_id, occurred_at, received_at, event_id
    """


def session_sql(column: str) -> str:
    """DuckDB expression of `serving.profiles.history.session_key`."""
    return f"""case when coalesce({column}, '') = '' then -1
        when regexp_full_match({column}, '0|[1-9][0-9]{{0,17}}') then try_cast({column} as bigint)
        else 1000000000000000000 + ('0x' || substr(md5({column}), 1, 15))::bigint end"""


def size_sql(column: str) -> str:
    """DuckDB expression of `serving.profiles.history.size_key`."""
    return f"""case when coalesce({column}, '') = '' then -1
        else ('0x' || substr(md5({column}), 1, 7))::integer end"""


def _index(column: str, values: tuple[str, ...]) -> str:
    names = ", ".join(literal(value) for value in values)
    return f"(list_position([{names}], {column}) - 1)::tinyint"


def _table_of(column: pa.ChunkedArray) -> tuple[NDArray[np.str_], NDArray[np.int32]]:
    """Distinct texts in order, and each row's index among them (-1 for null)."""
    encoded = column.combine_chunks().dictionary_encode()
    names = np.array(encoded.dictionary.to_pylist(), dtype=np.str_)
    order = np.argsort(names, kind="stable")
    rank = np.empty(len(names) + 1, np.int32)
    rank[order] = np.arange(len(names), dtype=np.int32)
    rank[-1] = -1
    return names[order], rank[encoded.indices.fill_null(len(names)).to_numpy(zero_copy_only=False)]


def _write_folder(
    folder: pathlib.Path, arrays: dict[str, NDArray[np.generic]], meta: dict[str, object]
) -> None:
    temporary = folder.parent / f".tmp-{uuid.uuid4().hex}"
    temporary.mkdir(parents=True)
    try:
        with (temporary / "histories.npz").open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            _flush(file.fileno())
        with (temporary / "histories.npz").open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        with (temporary / "meta.json").open("w") as text:
            json.dump({**meta, "sha256": digest}, text, indent=1)
            _flush(text.fileno())
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _flush(descriptor: int) -> None:
    os.fsync(descriptor)


def _point(profiles: pathlib.Path, name: str) -> None:
    temporary = profiles / f".tmp-{uuid.uuid4().hex}"
    temporary.write_text(name)
    temporary.replace(profiles / CURRENT)


def _forget(profiles: pathlib.Path, current: str) -> None:
    folders = sorted(
        (path for path in profiles.glob("v*-*") if path.is_dir()), key=lambda p: p.stat().st_mtime
    )
    for old in [path for path in folders if path.name != current][: -(KEPT - 1)]:
        shutil.rmtree(old, ignore_errors=True)
