"""Small streams for tests of the one profile."""

import datetime as dt
import json
from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa

from feature_repo.snapshots import connect
from orchestration.lake import tables

START = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)


class Stream:
    """Events, written one after the other; ``names`` are written ``"kind:value kind:value"``."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(
        self, minute: float, names: str, session: str | None = None, action: str = "view", **more: Any
    ) -> str:
        """Append one event and return its id."""
        pairs = [name.split(":", 1) for name in names.split()]
        moment = START + dt.timedelta(minutes=minute)
        event_id = f"e{len(self.rows):05d}"
        self.rows.append(
            {
                "event_id": event_id, "source": "toy", "occurred_at": moment, "received_at": moment, "channel": "web",
                "action": action, "session_id": session, "day": moment.date(), "detail": "{}", "consent": "[]",
                "identifiers": json.dumps([{"kind": kind, "value": value} for kind, value in pairs]),
            } | more
        )  # fmt: skip
        return event_id

    def open(self, order: Sequence[int] | None = None) -> duckdb.DuckDBPyConnection:
        """A connection with the view `events`."""
        return open_rows([self.rows[i] for i in order] if order is not None else self.rows)


def open_rows(rows: list[dict[str, Any]]) -> duckdb.DuckDBPyConnection:
    """A connection with these rows as the view `events`."""
    con = connect(threads=1)
    con.register("rows_in", pa.Table.from_pylist(rows, schema=tables.EVENTS))
    con.execute("create view events as select * from rows_in")
    return con
