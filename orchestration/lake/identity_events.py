"""Which person an event belongs to, where identifiers alone do not say it.

An event that names a strong identifier is that person's. An event of a device or cookie is its one
person's. An event of a shared device is given to somebody only on evidence of its own: a login in the
same session, or, on a device that is not public, the login that was active around it. What remains is
nobody's, which is better than a guess.

Belongs here: bundles and components -> persons of events. Does not belong here: how components arise
(`identity_graph.py`).

Temporary tables, in the connection that is passed in:
    bundle_person: bundle, component, how (``strong`` or ``device``)
    rescued: source, event_id, component, how (``session``, ``device`` or ``near``)
"""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa

from contracts.identity import STRONG_KINDS
from orchestration.lake.identity_evidence import Guards, Nodes
from orchestration.lake.identity_graph import Graph

HOW = ("strong", "device", "session", "near", "unknown", "quarantined")
"""On what evidence an event has its person, or why it has none."""


def assign(con: duckdb.DuckDBPyConnection, nodes: Nodes, graph: Graph, guards: Guards) -> None:
    """Fill `bundle_person` and `rescued` from the tables of `identity_evidence.gather`.

    Args:
        con: Connection with the tables and the view `events`.
        nodes: The identifiers.
        graph: Their components.
        guards: Limits.
    """
    _place_bundles(con, nodes, graph, guards)
    con.execute(
        """create or replace temp table open_events as
        select source, event_id, session_id, bundle, epoch_us(occurred_at) as at_us
        from events left join bundles using (identifiers)
        anti join bundle_person using (bundle)
        where bundle is null or bundle in (select bundle from bundle_state where not quarantined)"""
    )
    con.execute(
        """create or replace temp table rescued as
        with wanted as (select distinct session_id from open_events where session_id is not null),
        sessions as (
            select session_id, min(component) as component
            from events join bundles using (identifiers) join bundle_person using (bundle)
            where session_id in (select session_id from wanted)
            group by session_id having min(component) = max(component))
        select source, event_id, component, 'session' as how from open_events join sessions using (session_id)"""
    )
    _linger(con, guards)
    _nearest(con, guards)


def _linger(con: duckdb.DuckDBPyConnection, guards: Guards) -> None:
    """Anonymous events of devices that seldom name somebody: up to a while after the last login."""
    con.execute(
        f"""insert into rescued
        select source, event_id, min(component), 'device' from open_events
        join members using (bundle) join placed using (node)
        where component >= 0 and seldom
            and at_us <= named_us + {int(guards.linger.total_seconds() * 1e6)}
            and (source, event_id) not in (select (source, event_id) from rescued)
        group by source, event_id having min(component) = max(component)"""
    )


def _place_bundles(con: duckdb.DuckDBPyConnection, nodes: Nodes, graph: Graph, guards: Guards) -> None:
    rank = np.full(len(nodes), len(STRONG_KINDS), np.int64)
    for place, kind in enumerate(STRONG_KINDS):
        rank[nodes.kinds == kind] = place
    seldom = (nodes.named_visits > 0) & (nodes.named_visits < guards.seldom_share * nodes.visits)
    con.register(
        "placed_arrow",
        pa.table(
            {
                "node": pa.array(np.arange(len(nodes))),
                "component": pa.array(graph.component),
                "rank": pa.array(rank),
                "bot": pa.array(nodes.bot),
                "shared": pa.array(graph.shared & (rank == len(STRONG_KINDS))),
                "seldom": pa.array(seldom),
                "named_us": pa.array(nodes.named_us),
                "public": pa.array(nodes.placed | (graph.logins > guards.public_logins)),
            }
        ),
    )
    con.execute("create or replace temp table placed as select * from placed_arrow")
    con.unregister("placed_arrow")
    con.execute(
        """create or replace temp table bundle_state as
        select bundle, bool_or(bot) as quarantined from members join placed using (node) group by bundle"""
    )
    con.execute(
        f"""create or replace temp table bundle_person as
        with known as (
            select bundle, component, rank, seldom from members join placed using (node)
            semi join (select bundle from bundle_state where not quarantined) using (bundle)
            where component >= 0),
        strongest as (select bundle, min(rank) as rank from known group by bundle)
        select bundle, min(component) as component,
            case when rank < {len(STRONG_KINDS)} then 'strong' else 'device' end as how
        from known join strongest using (bundle, rank) group by bundle, rank
        having min(component) = max(component)
            and (rank < {len(STRONG_KINDS)} or not bool_or(seldom))"""
    )


def _nearest(con: duckdb.DuckDBPyConnection, guards: Guards) -> None:
    """Anonymous events of shared, not public devices: the login active around them."""
    near = int(guards.near.total_seconds() * 1e6)
    between = int(guards.between.total_seconds() * 1e6)
    con.execute(
        """create or replace temp table shared_members as
        select bundle, node from members join placed using (node)
        where shared and not public"""
    )
    con.execute(
        """create or replace temp table active as
        select distinct node, epoch_us(occurred_at) as at_us, component
        from events join bundles using (identifiers) join shared_members using (bundle)
        join bundle_person using (bundle) where how = 'strong'"""
    )
    con.execute(
        """create or replace temp table lonely as
        select source, event_id, node, open_events.at_us
        from open_events join shared_members using (bundle) anti join rescued using (source, event_id)"""
    )
    con.execute(
        f"""insert into rescued
        with before as (
            select l.*, a.component as b, l.at_us - a.at_us as b_gap
            from lonely l asof left join active a on l.node = a.node and l.at_us >= a.at_us),
        around as (
            select l.*, a.component as n, a.at_us - l.at_us as n_gap
            from before l asof left join active a on l.node = a.node and l.at_us <= a.at_us),
        chosen as (
            select source, event_id, case
                when b = n and b_gap <= {between} and n_gap <= {between} then b
                when b_gap <= {near} and (n_gap is null or n_gap > {near}) then b
                when n_gap <= {near} and (b_gap is null or b_gap > {near}) then n end as component
            from around)
        select source, event_id, min(component), 'near' from chosen where component is not null
        group by source, event_id having min(component) = max(component)"""
    )
    con.execute("drop table lonely; drop table active; drop table shared_members")


EVENT_PERSONS_SQL = """
select e.source, e.event_id, e.occurred_at,
    case when burst_events.event_id is not null then null else persons.person_id end as person_id,
    case when burst_events.event_id is not null or coalesce(state.quarantined, false) then 'quarantined'
        when persons.person_id is null then 'unknown'
        else coalesce(bp.how, r.how) end as how,
    e.day
from events e left join bundles b on b.identifiers = e.identifiers
left join bundle_state state on state.bundle = b.bundle
left join bundle_person bp on bp.bundle = b.bundle
left join rescued r on bp.bundle is null and r.source = e.source and r.event_id = e.event_id
left join (select distinct source, event_id from burst_events) burst_events
    on burst_events.source = e.source and burst_events.event_id = e.event_id
left join persons on persons.component = coalesce(bp.component, r.component)
"""
"""Every event with its person: source, event_id, occurred_at, person_id (null for nobody), how, day."""
