"""Who is to be erased: the person's own identifiers, visits and events.

What a person shares with others (a household's tablet, a card for all, a kiosk) is not theirs alone and
stays; their events on it go.

Belongs here: from one identifier to everything that is the person's. Does not belong here: removing it.
"""

from __future__ import annotations

import datetime as dt
import pathlib

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from contracts.events import Event, InvalidEvent, decode_event
from contracts.identity import LOGIN, person_id
from contracts.settings import Settings
from feature_repo.snapshots import SnapshotError, connect, scan_sql
from orchestration.lake import intake, merges, tables
from orchestration.lake.identity import read_anchors, stitch
from orchestration.lake.identity_events import EVENT_PERSONS_SQL
from orchestration.lake.tables import TABLES


class EventKey(msgspec.Struct, frozen=True, array_like=True):
    """Where an event is found.

    Attributes:
        source: Its source.
        event_id: Its id there.
        day: Its UTC day.
        identifiers: JSON of the identifiers that it names, or None.
    """

    source: str
    event_id: str
    day: dt.date
    identifiers: str | None


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is one person's alone.

    Attributes:
        asked: Kind and value that the erasure was asked for.
        identifiers: Their identifiers, the asked one included.
        shared: Identifiers that they share with others; these stay.
        persons: Ids that the person has or had.
        sessions: Visits that were theirs alone.
        events: Their events in lake and inbox.
    """

    asked: tuple[str, str]
    identifiers: tuple[tuple[str, str], ...]
    shared: tuple[tuple[str, str], ...] = ()
    persons: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    events: tuple[EventKey, ...] = ()

    @property
    def customers(self) -> tuple[str, ...]:
        """Their accounts."""
        return tuple(value for kind, value in self.identifiers if kind == LOGIN)

    def joined(self, other: Subject | None) -> Subject:
        """Both together: what an interrupted erasure knew and what is found now."""
        if other is None:
            return self
        names = ("identifiers", "shared", "persons", "sessions", "events")
        both = {name: tuple(dict.fromkeys((*getattr(other, name), *getattr(self, name)))) for name in names}
        both["shared"] = tuple(pair for pair in both["shared"] if pair not in set(both["identifiers"]))
        return msgspec.structs.replace(self, **both)


def find_subject(settings: Settings, kind: str, value: str, memory_limit: str = "2GB") -> Subject:
    """Look a person up in the lake and in what waits in the inbox.

    Args:
        settings: The installation.
        kind: Kind of the identifier.
        value: The identifier.
        memory_limit: What DuckDB may hold.
    """
    con = connect(memory_limit)
    waiting = _waiting(settings)
    con.register("waiting", waiting)
    names = ", ".join(tables.EVENTS.names)
    try:
        stored = scan_sql(TABLES["events"].path(settings.lake))
        con.execute(
            f"create view events as select {names} from ({stored}) union all select {names} from waiting"
        )
    except SnapshotError:
        con.execute(f"create view events as select {names} from waiting")
    anchors = read_anchors(settings.lake)
    found = stitch(con, None, merges.read_ledger(settings.lake), anchors)
    person = found.person_of(kind, value)
    if person is None:
        return _by_name_alone(con, kind, value)
    own = [
        (row["kind"], row["value"])
        for row in found.links.filter(pc.equal(found.links["person_id"], person)).to_pylist()
    ]
    persons = {person, *(person_id(*pair) for pair in own)}
    persons |= {
        row["person_id"]
        for row in anchors.to_pylist()
        if (row["kind"], row["value"]) in set(own) and row["rank"] == 0
    }
    con.execute(
        f"create temp table placed_events as select source, event_id from ({EVENT_PERSONS_SQL}) where person_id = ?",
        [person],
    )
    con.register("own", pa.table({"kind": [k for k, _ in own], "value": [v for _, v in own]}))
    con.execute(
        """create temp table theirs as
        select e.source, e.event_id, e.day, e.identifiers, e.session_id from events e
        semi join placed_events using (source, event_id)
        union
        select e.source, e.event_id, e.day, e.identifiers, e.session_id from events e
        semi join (select identifiers from bundles join members using (bundle) join nodes using (node)
            semi join own using (kind, value)) using (identifiers)"""
    )
    return Subject(
        asked=(kind, value),
        identifiers=tuple(sorted(own)),
        shared=_shared(con),
        persons=tuple(sorted(persons)),
        sessions=_sessions(con),
        events=_events(con),
    )


def _by_name_alone(con: duckdb.DuckDBPyConnection, kind: str, value: str) -> Subject:
    """Somebody who cannot be told from others by the graph: only what names the identifier itself."""
    con.execute(
        """create temp table theirs as select source, event_id, day, identifiers, session_id from events
        where identifiers in (select identifiers from members join nodes using (node) join bundles using (bundle)
            where kind = ? and value = ?)""",
        [kind, value],
    )
    return Subject(
        asked=(kind, value),
        identifiers=((kind, value),),
        persons=(person_id(kind, value),),
        events=_events(con),
    )


def _events(con: duckdb.DuckDBPyConnection) -> tuple[EventKey, ...]:
    rows = con.sql("select distinct source, event_id, day, identifiers from theirs order by all").fetchall()
    return tuple(EventKey(*row) for row in rows)


def _sessions(con: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
    rows = con.sql(
        """select session_id from theirs where session_id is not null group by session_id
        having count(*) = (select count(*) from events where events.session_id = theirs.session_id)
        order by session_id"""
    ).fetchall()
    return tuple(row[0] for row in rows)


def _shared(con: duckdb.DuckDBPyConnection) -> tuple[tuple[str, str], ...]:
    rows = con.sql(
        """select distinct kind, value from theirs join bundles using (identifiers) join members using (bundle)
        join nodes using (node) anti join own using (kind, value) order by all"""
    ).fetchall()
    return tuple((row[0], row[1]) for row in rows)


def _waiting(settings: Settings, batch: int = 50_000) -> pa.Table:
    """Events that the server accepted and the lake does not hold yet."""
    from serving.inbox.reader import read_after

    path: pathlib.Path = settings.inbox
    parts = [tables.EVENTS.empty_table()]
    offset = _drained(settings)
    while rows := read_after(path, offset, batch):
        parts.append(intake.to_arrow([event for row in rows if (event := _decoded(row)) is not None]))
        offset = rows[-1][0]
    return pa.concat_tables(parts)


def _decoded(row: intake.InboxRow) -> Event | None:
    try:
        return decode_event(row[2], row[1])
    except InvalidEvent:
        return None  # A dead letter to be: found by its text, not by its meaning.


def _drained(settings: Settings) -> int:
    from deltalake import DeltaTable

    path = TABLES["events"].path(settings.lake)
    if not DeltaTable.is_deltatable(str(path)):
        return 0
    return int(DeltaTable(str(path)).transaction_version(intake.INBOX) or 0)
