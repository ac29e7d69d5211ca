"""From evidence to persons: components of the identifier graph under guards.

Strong identifiers that one event names together are joined, unless one of them is shared by more
accounts than its guard allows. A device or cookie follows the one person that it was seen with; seen
with several it is shared and follows nobody; seen with nobody it joins the devices that it was seen
with. So no shared identifier can merge people, however many events name it. Components are those of
`scipy.sparse.csgraph.connected_components`; only a component that breaks a never-merge rule is built
again edge by edge, strongest and oldest first, leaving out the edge that would break the rule.

Belongs here: arrays in, arrays out. Does not belong here: SQL over events (`identity_evidence.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import duckdb
import numpy as np
from numpy.typing import NDArray

from orchestration.lake.identity_evidence import Guards, Nodes

Ints = NDArray[np.int64]

OBSERVED, CLAIMED = 0, 1
"""Tiers of edges: seen in one event; claimed by a ledger entry."""


@dataclasses.dataclass(frozen=True)
class Edges:
    """Undirected edges between nodes.

    Attributes:
        left: int64[E].
        right: int64[E].
        tier: int64[E], `OBSERVED` before `CLAIMED`.
        at_us: int64[E], when first seen or claimed.
    """

    left: Ints
    right: Ints
    tier: Ints
    at_us: Ints

    def __len__(self) -> int:
        return len(self.left)

    def select(self, index: NDArray[np.generic]) -> Edges:
        """The edges at a mask or positions."""
        return Edges(self.left[index], self.right[index], self.tier[index], self.at_us[index])

    def in_order(self) -> Edges:
        """Strongest first, then oldest first, then by node."""
        return self.select(np.lexsort((self.right, self.left, self.at_us, self.tier)))


def make_edges(rows: Sequence[tuple[int, int, int]], tier: int) -> Edges:
    """Edges out of (left, right, at_us)."""
    table = np.array(rows, np.int64).reshape(-1, 3)
    return Edges(table[:, 0], table[:, 1], np.full(len(table), tier, np.int64), table[:, 2])


def concat(parts: Sequence[Edges]) -> Edges:
    """All edges of several sets."""
    return Edges(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in dataclasses.fields(Edges)))


@dataclasses.dataclass(frozen=True)
class Graph:
    """Who belongs together.

    Attributes:
        component: int64[N], component of each node; -1 for shared and quarantined ones.
        shared: bool[N], seen with several persons.
        logins: int64[N], distinct accounts that were seen with it.
        edges: The edges between strong nodes that were used or refused, in their order.
        refused: bool[E], left out because of a never-merge rule.
    """

    component: Ints
    shared: NDArray[np.bool_]
    logins: Ints
    edges: Edges
    refused: NDArray[np.bool_]


def connect_nodes(
    con: duckdb.DuckDBPyConnection, nodes: Nodes, guards: Guards, claims: Edges, never: Ints
) -> Graph:
    """Build components from the temporary tables of `identity_evidence.gather`.

    Args:
        con: Connection with the tables, and the view `events`.
        nodes: The identifiers.
        guards: Limits.
        claims: Edges of active ledger entries.
        never: int64[R, 2], pairs of nodes that must stay apart.
    """
    usable = ~nodes.bot
    pairs = con.sql(
        "select bundle, node from members join bundles using (bundle) where clean > 0 order by bundle, node"
    )
    table = pairs.to_arrow_table()
    bundle, node = table["bundle"].to_numpy(), table["node"].to_numpy()
    seen = con.sql("select first_us from bundles order by bundle").to_arrow_table()["first_us"].to_numpy()
    quarantined = np.zeros(len(seen), np.bool_)
    quarantined[bundle[nodes.bot[node]]] = True
    kept = ~quarantined[bundle]
    bundle, node = bundle[kept], node[kept]

    logins = _distinct_logins(bundle, node, nodes)
    limit = np.full(len(nodes), np.iinfo(np.int64).max)
    for kind, most in guards.logins.items():
        limit[nodes.kinds == kind] = most
    joining = nodes.strong & usable & (logins <= limit)
    edges = concat([_chains(bundle, node, joining, seen), claims]).in_order()
    component = _components(len(nodes), edges.left, edges.right)
    component, refused = separate(component, edges, never)
    component = np.where(joining | _touched(len(nodes), claims), component, -1)
    shared = nodes.placed & ~nodes.strong & (component < 0)
    component, shared = _attach(bundle, node, component, nodes.strong & usable, shared)
    component, shared = _attach(bundle, node, component, usable & ~nodes.strong & ~shared, shared)
    component, shared = _attach_by_session(con, nodes, component, shared, usable)
    component = _attach_floating(bundle, node, component, shared, usable & ~nodes.strong, guards)
    alone = (component < 0) & usable & ~shared
    component[alone] = len(nodes) + np.flatnonzero(alone)
    return Graph(component, shared, logins, edges, refused)


def separate(component: Ints, edges: Edges, never: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Keep pairs apart: build broken components again, leaving out edges that would join a pair.

    Args:
        component: int64[N] from all edges.
        edges: In the order in which they may join.
        never: int64[R, 2].

    Returns:
        Components, and bool[E] of the edges left out.
    """
    refused = np.zeros(len(edges), np.bool_)
    broken = never[component[never[:, 0]] == component[never[:, 1]]] if len(never) else never
    if len(broken) == 0:
        return component, refused
    component = component.copy()
    hurt = np.unique(component[broken[:, 0]])
    members = np.flatnonzero(np.isin(component, hurt))
    parent = {int(i): int(i) for i in members}
    foes: dict[int, set[int]] = {int(i): set() for i in members}
    for left, right in never.tolist():
        if left in foes and right in foes:
            foes[left].add(right)
            foes[right].add(left)
    inside: dict[int, set[int]] = {int(i): {int(i)} for i in members}

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for place in np.flatnonzero(np.isin(component[edges.left], hurt)).tolist():
        a, b = root(int(edges.left[place])), root(int(edges.right[place]))
        if a == b:
            continue
        if len(inside[a]) < len(inside[b]):
            a, b = b, a
        if foes[b] & inside[a] or foes[a] & inside[b]:
            refused[place] = True
            continue
        parent[b] = a
        inside[a] |= inside.pop(b)
        foes[a] |= foes.pop(b)
    top = int(component.max(initial=-1)) + 1
    component[members] = [top + root(int(i)) for i in members]
    return component, refused


def _components(size: int, left: Ints, right: Ints) -> Ints:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(left), np.bool_), (left, right)), shape=(size, size))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def _touched(size: int, edges: Edges) -> NDArray[np.bool_]:
    found = np.zeros(size, np.bool_)
    found[edges.left] = True
    found[edges.right] = True
    return found


def _distinct_logins(bundle: Ints, node: Ints, nodes: Nodes) -> Ints:
    """Accounts seen with each node, itself not counted."""
    is_login = nodes.login[node]
    rank = np.unique(np.stack(_joined(bundle, node, bundle[is_login], node[is_login]), 1), axis=0)
    rank = rank[rank[:, 0] != rank[:, 1]]
    return np.bincount(rank[:, 0], minlength=len(nodes)).astype(np.int64)


def _joined(left_key: Ints, left: Ints, right_key: Ints, right: Ints) -> tuple[Ints, Ints]:
    """All (left, right) with equal keys; right_key is sorted."""
    low, high = np.searchsorted(right_key, left_key), np.searchsorted(right_key, left_key, side="right")
    counts = high - low
    starts = np.repeat(low - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
    return np.repeat(left, counts), right[starts + np.arange(int(counts.sum()))]


def _chains(bundle: Ints, node: Ints, allowed: NDArray[np.bool_], seen: Ints) -> Edges:
    """One path through the allowed nodes of each bundle; each pair once, at its first time."""
    keep = allowed[node]
    bundle, node = bundle[keep], node[keep]
    same = bundle[1:] == bundle[:-1]
    left, right, at = node[:-1][same], node[1:][same], seen[bundle[1:][same]]
    order = np.lexsort((at, right, left))
    left, right, at = left[order], right[order], at[order]
    first = np.ones(len(left), np.bool_)
    first[1:] = (left[1:] != left[:-1]) | (right[1:] != right[:-1])
    return Edges(left[first], right[first], np.full(int(first.sum()), OBSERVED, np.int64), at[first])


def _only(node: Ints, person: Ints, size: int) -> tuple[Ints, Ints]:
    """For each node the one person it was seen with (-1 for none or several), and how many."""
    pairs = np.unique(np.stack([node, person], 1), axis=0)
    count = np.bincount(pairs[:, 0], minlength=size).astype(np.int64)
    found = np.full(size, -1, np.int64)
    found[pairs[:, 0]] = pairs[:, 1]
    found[count != 1] = -1
    return found, count


def _attach(
    bundle: Ints, node: Ints, component: Ints, who: NDArray[np.bool_], shared: NDArray[np.bool_]
) -> tuple[Ints, NDArray[np.bool_]]:
    """Give each node of `who` without a component the one that it was seen with; several make it shared."""
    known, loose = component[node] >= 0, who[node] & (component[node] < 0)
    left, right = _joined(bundle[loose], node[loose], bundle[known], component[node[known]])
    found, count = _only(left, right, len(component))
    return np.where((count == 1) & (component < 0), found, component), shared | (count > 1)


def _attach_by_session(
    con: duckdb.DuckDBPyConnection,
    nodes: Nodes,
    component: Ints,
    shared: NDArray[np.bool_],
    usable: NDArray[np.bool_],
) -> tuple[Ints, NDArray[np.bool_]]:
    """Devices that never appear beside a login, but in one session with it."""
    loose = usable & ~nodes.strong & (component < 0) & ~shared
    if not loose.any():
        return component, shared
    strong = np.flatnonzero(nodes.strong & usable & (component >= 0))
    con.register("loose_nodes", _column("node", np.flatnonzero(loose)))
    con.register("strong_nodes", _column("node", strong))
    rows = con.sql(
        """with here as (
            select distinct session_id, node from events join bundles using (identifiers)
            join members using (bundle) where session_id is not null and clean > 0
        ), wanted as (select session_id, node from here semi join loose_nodes using (node)),
        persons as (select session_id, node from here semi join strong_nodes using (node)
            where session_id in (select session_id from wanted))
        select distinct wanted.node, persons.node as strong, session_id
        from wanted join persons using (session_id) order by all"""
    ).to_arrow_table()
    con.unregister("loose_nodes")
    con.unregister("strong_nodes")
    node, person = rows["node"].to_numpy(), component[rows["strong"].to_numpy()]
    found, count = _only(node, person, len(component))
    return np.where((count == 1) & (component < 0), found, component), shared | (count > 1)


def _attach_floating(
    bundle: Ints,
    node: Ints,
    component: Ints,
    shared: NDArray[np.bool_],
    weak: NDArray[np.bool_],
    guards: Guards,
) -> Ints:
    """Join devices and cookies that know no login; a group that touches one person follows that person."""
    keep = weak[node] & ~shared[node]
    bundle, node = bundle[keep], node[keep]
    pairs = np.unique(np.stack(_joined(bundle, node, bundle, node), 1), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    crowded = np.bincount(pairs[:, 0], minlength=len(component)) > guards.neighbours
    floating = component < 0
    inner = floating[pairs].all(1) & ~crowded[pairs].any(1)
    group = _components(len(component), pairs[inner, 0], pairs[inner, 1])
    outer = floating[pairs[:, 0]] & ~floating[pairs[:, 1]] & ~crowded[pairs].any(1)
    found, _ = _only(group[pairs[outer, 0]], component[pairs[outer, 1]], len(component))
    member = floating & weak & ~shared
    out = component.copy()
    out[member] = np.where(
        found[group[member]] >= 0, found[group[member]], 2 * len(component) + group[member]
    )
    return out


def _column(name: str, values: Ints) -> object:
    import pyarrow as pa

    return pa.table({name: pa.array(values, pa.int64())})
