"""One profile: every identifier and every event gets its person, with names that stay.

`stitch` reads a DuckDB view `events` and says who is who; `stitch_lake` does it for an installation and
stores the answer. The answer depends on the events, the ledger (`merges.py`) and the anchors alone: a run
that is repeated gives the same bytes. A person's id is derived from the identifier that the person was
first known by (the anchor) and stays when events, even late ones, bring others; when two persons turn
out to be one, the elder id stays and the other comes back if the merge is undone.

Belongs here: the steps in their order, ids, the tables' content. Does not belong here: SQL over events
(`identity_evidence.py`, `identity_events.py`), components (`identity_graph.py`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import pathlib
from collections.abc import Sequence

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contracts.identity import LOGIN, STRONG_KINDS, person_id
from feature_repo.snapshots import attach, connect
from orchestration.lake import merges, writing
from orchestration.lake.identity_events import EVENT_PERSONS_SQL, assign
from orchestration.lake.identity_evidence import Guards, Nodes, gather
from orchestration.lake.identity_graph import CLAIMED, Graph, Ints, connect_nodes, make_edges
from orchestration.lake.identity_tables import ANCHORS, BOTS, EVENT_PERSONS, LINKS
from orchestration.lake.tables import TABLES, TIMESTAMP

BATCH_ROWS = 131_072


@dataclasses.dataclass(frozen=True)
class Stitched:
    """Who is who.

    Attributes:
        links: `identity_tables.LINKS`, by kind and value.
        anchors: `identity_tables.ANCHORS`, by seq and rank.
        bots: `identity_tables.BOTS`.
        merged: Merges that the events imply: pairs of heads (accounts or elder anchors) of one person.
        refused: Edges that a never-merge rule left out.
        con: Connection in which `event_persons` can be read once.
    """

    links: pa.Table
    anchors: pa.Table
    bots: pa.Table
    merged: list[merges.Proposal]
    refused: int
    con: duckdb.DuckDBPyConnection

    def events(self) -> pa.RecordBatchReader:
        """Every event with its person (`identity_tables.EVENT_PERSONS`)."""
        rows = self.con.sql(EVENT_PERSONS_SQL).to_arrow_reader(BATCH_ROWS)
        schema = EVENT_PERSONS.schema
        return pa.RecordBatchReader.from_batches(schema, (batch.cast(schema) for batch in rows))

    def person_of(self, kind: str, value: str) -> str | None:
        """The person of an identifier, or None for one that is unknown, shared or quarantined."""
        mask = pc.and_(pc.equal(self.links["kind"], kind), pc.equal(self.links["value"], value))
        found = self.links.filter(mask)["person_id"].to_pylist()
        return found[0] if found else None


@dataclasses.dataclass(frozen=True)
class Profiled:
    """What one run over an installation did.

    Attributes:
        persons: Persons with at least one identifier.
        identifiers: Identifiers seen.
        shared: Identifiers that belong to several persons.
        bots: Identifiers that were quarantined as a whole.
        events: Events stored with their evidence.
        merged: Merges that the events implied and that are new in the ledger.
        refused: Edges left out by never-merge rules.
        events_version: Version of the events table that was read.
    """

    persons: int
    identifiers: int
    shared: int
    bots: int
    events: int
    merged: int
    refused: int
    events_version: int


def stitch(
    con: duckdb.DuckDBPyConnection,
    guards: Guards | None = None,
    ledger: Sequence[merges.Entry] = (),
    anchors: pa.Table | None = None,
) -> Stitched:
    """Work out who is who.

    Args:
        con: Connection with a view `events` (`tables.EVENTS`, at least source, event_id, occurred_at,
            session_id, action, identifiers, day); temporary tables are left in it.
        guards: Limits; the defaults if None.
        ledger: Entries of the merge ledger.
        anchors: Anchors of the run before, so that persons keep their ids.
    """
    limits = guards or Guards()
    nodes = gather(con, limits)
    counting = merges.active(ledger)
    claims = [_edge(nodes, entry) for entry in counting.merges]
    apart = [(nodes.find(*left), nodes.find(*right)) for left, right in counting.never]
    never = np.array([pair for pair in apart if min(pair) >= 0], np.int64).reshape(-1, 2)
    usable = [edge for edge in claims if edge is not None and not nodes.bot[[edge[0], edge[1]]].any()]
    graph = connect_nodes(con, nodes, limits, make_edges(usable, CLAIMED), never)
    assign(con, nodes, graph, limits)
    given = ANCHORS.schema.empty_table() if anchors is None else anchors
    persons, kept = name_persons(nodes, graph.component, given)
    con.register("persons_arrow", persons)
    con.execute("create or replace temp table persons as select * from persons_arrow")
    con.unregister("persons_arrow")
    links = _links(nodes, graph, persons)
    merged = _implied(nodes, graph, given)
    return Stitched(links, kept, _bots(con, nodes), merged, int(graph.refused.sum()), con)


def stitch_lake(lake: pathlib.Path, guards: Guards | None = None, memory_limit: str = "2GB") -> Profiled:
    """Work out who is who in an installation and store it: links, anchors, bots, events, new merges.

    Anchors and implied merges are written before the links that follow from them, so a killed run is
    completed by the next one.
    """
    con = connect(memory_limit)
    version = attach(con, "events", TABLES["events"].path(lake))
    found = stitch(con, guards, merges.read_ledger(lake), read_anchors(lake))
    written = merges.merge(lake, found.merged, "deterministic", "stitching")
    writing.replace_all(ANCHORS, lake, found.anchors)
    writing.replace_all(BOTS, lake, found.bots)
    commit = writing.replace_all(EVENT_PERSONS, lake, found.events())
    writing.replace_all(LINKS, lake, found.links)
    states = dict(
        zip(*np.unique(found.links["state"].to_numpy(zero_copy_only=False), return_counts=True), strict=True)
    )
    return Profiled(
        persons=len(found.links["person_id"].unique().drop_null()),
        identifiers=found.links.num_rows,
        shared=int(states.get("shared", 0)),
        bots=int(states.get("quarantined", 0)),
        events=commit.rows,
        merged=len(written),
        refused=found.refused,
        events_version=version,
    )


def read_anchors(lake: pathlib.Path) -> pa.Table:
    """The anchors that the last run stored; none where there was no run."""
    from deltalake import DeltaTable

    path = ANCHORS.path(lake)
    if not DeltaTable.is_deltatable(str(path)):
        return ANCHORS.schema.empty_table()
    return (
        DeltaTable(str(path))
        .to_pyarrow_table()
        .cast(ANCHORS.schema)
        .sort_by([("seq", "ascending"), ("rank", "ascending")])
    )


def name_persons(nodes: Nodes, component: Ints, anchors: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Give every component its person's id.

    A known person goes where its first anchor lies (or the next one that still belongs to anybody); of
    several in one component the eldest stays. A component without a known person gets a new id from its
    earliest strong identifier, or its earliest one.

    Args:
        nodes: Identifiers.
        component: int64[N], -1 for none.
        anchors: `identity_tables.ANCHORS` so far.

    Returns:
        (component, person_id) of all components, and the anchors with new ones added.
    """
    held = anchors.sort_by([("seq", "ascending"), ("rank", "ascending")])
    ids = np.array(held["person_id"].to_pylist(), dtype=object)
    places = np.array(
        [nodes.find(k, v) for k, v in zip(held["kind"].to_pylist(), held["value"].to_pylist(), strict=True)],
        np.int64,
    )
    person_at: dict[int, str] = {}
    placed: set[str] = set()
    for who, place in zip(ids.tolist(), places.tolist(), strict=True):
        where = int(component[place]) if place >= 0 else -1
        if where >= 0 and who not in placed:
            placed.add(who)
            person_at.setdefault(where, who)
    rank = np.full(len(nodes), len(STRONG_KINDS), np.int64)
    for position, kind in enumerate(STRONG_KINDS):
        rank[nodes.kinds == kind] = position
    order = np.lexsort((np.arange(len(nodes)), rank, nodes.first_us, ~nodes.strong, component))
    order = order[component[order] >= 0]
    heads = np.ones(len(order), np.bool_)
    heads[1:] = component[order[1:]] != component[order[:-1]]
    new = [node for node in order[heads].tolist() if int(component[node]) not in person_at]
    new.sort(key=lambda node: (int(nodes.first_us[node]), str(nodes.kinds[node]), str(nodes.values[node])))
    taken = set(ids.tolist())
    seq = int(np.max(held["seq"].to_numpy(), initial=0))
    rows: list[tuple[str, int, int, str, str]] = []
    for node in new:
        kind, value, attempt = str(nodes.kinds[node]), str(nodes.values[node]), 0
        while (who := person_id(kind, value, attempt)) in taken:
            attempt += 1
        taken.add(who)
        seq += 1
        person_at[int(component[node])] = who
        rows.append((who, seq, 0, kind, value))
    seqs = dict(zip(ids.tolist(), held["seq"].to_pylist(), strict=True)) | {row[0]: row[1] for row in rows}
    last = dict(zip(ids.tolist(), held["rank"].to_pylist(), strict=True))
    anchored = np.zeros(len(nodes), np.bool_)
    anchored[places[places >= 0]] = True
    anchored[new] = True
    for node in order[nodes.strong[order] & ~anchored[order]].tolist():
        who = person_at[int(component[node])]
        last[who] = last.get(who, 0) + 1
        rows.append((who, seqs[who], last[who], str(nodes.kinds[node]), str(nodes.values[node])))
    fresh = pa.table(
        {name: [row[i] for row in rows] for i, name in enumerate(ANCHORS.schema.names)}, schema=ANCHORS.schema
    )
    kept = (
        pa.concat_tables([held, fresh])
        .sort_by([("seq", "ascending"), ("rank", "ascending")])
        .combine_chunks()
    )
    persons = pa.table(
        {
            "component": pa.array(list(person_at), pa.int64()),
            "person_id": pa.array(list(person_at.values()), pa.string()),
        }
    )
    return persons, kept


def _edge(nodes: Nodes, entry: merges.Entry) -> tuple[int, int, int] | None:
    if entry.left is None or entry.right is None:
        return None
    left, right = nodes.find(*entry.left), nodes.find(*entry.right)
    return None if min(left, right) < 0 else (left, right, int(entry.at.timestamp() * 1e6))


def _links(nodes: Nodes, graph: Graph, persons: pa.Table) -> pa.Table:
    name = dict(zip(persons["component"].to_pylist(), persons["person_id"].to_pylist(), strict=True))
    state = np.where(nodes.bot, "quarantined", np.where(graph.component >= 0, "linked", "shared"))
    return pa.table(
        {
            "kind": pa.array(nodes.kinds.tolist(), pa.string()),
            "value": pa.array(nodes.values.tolist(), pa.string()),
            "person_id": pa.array([name.get(c) for c in graph.component.tolist()], pa.string()),
            "state": pa.array(state.tolist(), pa.string()),
            "logins": pa.array(graph.logins),
            "events": pa.array(nodes.events),
            "first_at": pa.array(nodes.first_us).cast(pa.timestamp("us")).cast(TIMESTAMP),
        },
        schema=LINKS.schema,
    )


def _implied(nodes: Nodes, graph: Graph, anchors: pa.Table) -> list[merges.Proposal]:
    """Pairs of heads in one component: its accounts, and identifiers that other persons were first known by."""
    head = nodes.login.copy()
    first = anchors.filter(pc.equal(anchors["rank"], 0))
    for kind, value in zip(first["kind"].to_pylist(), first["value"].to_pylist(), strict=True):
        place = nodes.find(kind, value)
        if place >= 0 and nodes.strong[place]:
            head[place] = True
    places = np.flatnonzero(head & (graph.component >= 0))
    order = places[np.lexsort((places, nodes.first_us[places], graph.component[places]))]
    proposals: list[merges.Proposal] = []
    eldest = -1
    for place in order.tolist():
        if eldest < 0 or graph.component[place] != graph.component[eldest]:
            eldest = place
            continue
        proposals.append(
            merges.Proposal(
                _name(nodes, eldest), _name(nodes, place), {"seen_together": _beside(nodes, graph, place)}
            )
        )
    return proposals


def _beside(nodes: Nodes, graph: Graph, place: int, most: int = 5) -> list[dict[str, str]]:
    edges = graph.edges
    mine = np.flatnonzero(((edges.left == place) | (edges.right == place)) & ~graph.refused)[:most]
    found = []
    for edge in mine.tolist():
        other = int(edges.right[edge] if edges.left[edge] == place else edges.left[edge])
        moment = dt.datetime.fromtimestamp(int(edges.at_us[edge]) / 1e6, dt.UTC)
        found.append(
            {"kind": str(nodes.kinds[other]), "value": str(nodes.values[other]), "at": moment.isoformat()}
        )
    return found


def _name(nodes: Nodes, place: int) -> merges.Identifier:
    return str(nodes.kinds[place]), str(nodes.values[place])


def _bots(con: duckdb.DuckDBPyConnection, nodes: Nodes) -> pa.Table:
    flags: NDArray[np.bool_] = nodes.bot
    con.register(
        "bot_flags", pa.table({"node": pa.array(np.arange(len(nodes))), "quarantined": pa.array(flags)})
    )
    rows = con.sql(
        """select kind, value, nodes.n as events, nodes.burst as burst_events, max(peak) as peak_per_second,
            make_timestamptz(min(minute) * 60000000) as first_at,
            make_timestamptz(max(minute) * 60000000 + 59999999) as last_at, any_value(quarantined) as quarantined
        from bursts join nodes using (node) join bot_flags using (node)
        group by node, kind, value, nodes.n, nodes.burst order by burst_events desc, kind, value"""
    ).to_arrow_table()
    con.unregister("bot_flags")
    return rows.cast(BOTS.schema)


__all__ = ["LOGIN", "Guards", "Profiled", "Stitched", "name_persons", "read_anchors", "stitch", "stitch_lake"]
