"""People's events in the lake as a `contracts.sessions.Stream`.

Belongs here: which columns are read and how they become codes. Does not belong here: what is found in a stream
(`contracts`), tables made of it (`orchestration/lake`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.events import MOMENTS
from contracts.moments import MomentRules
from contracts.sessions import ACTION, CHANNEL, WORDS, Stream, query_row, text_key
from feature_repo.snapshots import connect, quoted

NEEDED = (
    "event_id", "source", "occurred_at", "session_id", "channel", "touchpoint", "action", "product_id",
    "unit_price", "query", "moment", "detail",
)  # fmt: skip
"""Columns that are read, beside the person's."""


class EventsError(ValueError):
    """An events table that cannot be read; the message names the column and what was expected."""


@dataclasses.dataclass(frozen=True)
class LakeStream:
    """A stream and what is needed to name its rows.

    Attributes:
        stream: The columns.
        people: string[P], person id by ``stream.person``.
        rows: ``event_id, source, channel`` of the stream's rows.
    """

    stream: Stream
    people: pa.Array
    rows: pa.Table


def stream_of(events: pa.Table, rules: MomentRules, person: str = "customer_id") -> LakeStream:
    """Read a stream out of an events table, in any order of rows.

    Args:
        events: Rows of ``events`` with unique (source, event_id).
        rules: Says what a page is for.
        person: Column of the person's id. Where it is null, the source's session counts as a person of its
            own, and an event without either is alone.

    Raises:
        EventsError: A column is missing.
    """
    missing = [name for name in (*NEEDED, person) if name not in events.column_names]
    if missing:
        raise EventsError(
            f"the events have no column '{missing[0]}'; expected {', '.join((*NEEDED, person))}"
        )
    con = connect()
    try:
        con.register("events", events.select(list(dict.fromkeys((*NEEDED, person)))))
        table = con.sql(_sql(person)).to_arrow_table().combine_chunks()
    finally:
        con.close()
    person_code, people = _codes(table["person"])
    query, queries = _codes(table["query"])
    touchpoint, touchpoints = _codes(table["touchpoint"])
    places = np.array([*(rules.place(name) for name in touchpoints.to_pylist()), 0], np.int8)
    keys = np.array([text_key(name) for name in people.to_pylist()], np.uint64)
    words = np.array([query_row(text) for text in queries.to_pylist()], np.uint64).reshape(-1, WORDS)
    stream = Stream(
        person=person_code,
        person_key=keys[person_code],
        at_us=table["at_us"].to_numpy(),
        action=_index(table["action"], tuple(ACTION)),
        channel=_index(table["channel"], tuple(CHANNEL)),
        place=places[touchpoint],
        product=_codes(table["product_id"])[0],
        price=_floats(table["unit_price"]),
        query=query,
        words=words,
        results=_floats(table["results"]),
        late_days=_floats(table["late_days"]),
        named=_index(table["moment"], MOMENTS),
    )
    return LakeStream(stream, people, table.select(["event_id", "source", "channel", "session"]))


def who_sql(person: str) -> str:
    """DuckDB expression of whose an event is: the person's, else its visit's, else its own."""
    return f"coalesce({quoted(person)}, 'session:' || session_id, 'event:' || source || ':' || event_id)"


def _sql(person: str) -> str:
    def number(name: str, actions: str) -> str:
        kind = f"json_type(detail, '$.{name}') in ('BIGINT', 'UBIGINT', 'HUGEINT', 'DOUBLE')"
        value = f"json_extract(detail, '$.{name}')::double"
        return f"case when action in ({actions}) then case when {kind} then {value} end end as {name}"

    return f"""
        select {who_sql(person)} as person,
            epoch_us(occurred_at) as at_us, source, event_id, action, channel, touchpoint, product_id, unit_price,
            case when action in ('search', 'voice_search') then query end as query, moment,
            session_id as session,
            {number("results", "'search', 'visual_search', 'voice_search'")},
            {number("late_days", "'delivery'")}
        from events order by person, at_us, source, event_id
    """


def _codes(column: Any) -> tuple[np.ndarray[Any, Any], pa.Array]:
    """Numbers of texts in order of appearance (-1 for null) and the texts."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    encoded = array.dictionary_encode()
    return pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(
        np.int64
    ), encoded.dictionary


def _index(column: Any, names: tuple[str, ...]) -> np.ndarray[Any, Any]:
    found = pc.fill_null(pc.index_in(column, value_set=pa.array(names)), -1)
    return np.asarray(found.to_numpy(), np.int8)


def _floats(column: Any) -> np.ndarray[Any, Any]:
    return np.asarray(pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy(), np.float64)
