"""What the events say about who belongs to whom, gathered in a few linear passes of DuckDB.

Events name people by lists of identifiers, and the same lists come again and again: a list (a bundle)
is parsed once, and the graph has as many parts as there are distinct bundles, not events.

Belongs here: DuckDB views `events` -> temporary tables `bundles`, `members`, `nodes`, `bursts`. Does not
belong here: conclusions (`identity_graph.py`, `identity_events.py`).

Temporary tables, in the connection that is passed in:
    bundles: bundle BIGINT, identifiers VARCHAR, n BIGINT, first_us, last_us, clean BIGINT (events outside bursts)
    members: bundle, node
    nodes: node BIGINT (0..N-1, in order of kind and value), kind, value, n, first_us, burst (events inside bursts)
    bursts: node, minute (since 1970), peak (most events in one second), n (in the minute)
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping

import duckdb
import numpy as np
from numpy.typing import NDArray

from contracts.identity import LOGIN, STRONG_KINDS
from feature_repo.snapshots import literal

HUMAN_ACTIONS = ("click", "visit", "view", "search", "visual_search", "voice_search", "wishlist", "dismiss")
"""Acts that a person does one at a time; lines of one basket or tiles of one page share a moment."""


@dataclasses.dataclass(frozen=True)
class Guards:
    """What keeps one identifier from joining strangers.

    Attributes:
        logins: How many logins an identifier of a kind may join before it counts as shared. A second account
            under one e-mail address is common; a card or a landline with two accounts is a household's.
        public_logins: A device with more logins is public (a kiosk): only a login in the same session counts.
        seldom_share: A device whose visits name somebody in a smaller share is likely used by others too.
        linger: On such a device an anonymous event this long after its last login is nobody's.
        neighbours: A device or cookie without login that was seen with more others is not joined to them.
        near: A shared device's anonymous event belongs to the login active at most this long before or after.
        between: It also belongs to a login that came both before and after it within this time.
        burst_second: More acts of one identifier in one second are a machine's.
        burst_minute: More acts of one identifier in one minute are a machine's.
        bot_share: An identifier with at least this share of its events in bursts is a bot as a whole.
    """

    logins: Mapping[str, int] = dataclasses.field(
        default_factory=lambda: {"email_sha256": 3, "phone_sha256": 1, "loyalty_card": 1}
    )
    public_logins: int = 8
    seldom_share: float = 0.35
    neighbours: int = 50
    near: dt.timedelta = dt.timedelta(minutes=30)
    between: dt.timedelta = dt.timedelta(days=3)
    linger: dt.timedelta = dt.timedelta(days=2)
    burst_second: int = 40
    burst_minute: int = 300
    bot_share: float = 0.5

    def __post_init__(self) -> None:
        for name in ("public_logins", "neighbours", "burst_second", "burst_minute"):
            if getattr(self, name) < 1:
                raise ValueError(f"guard '{name}' is {getattr(self, name)}; expected at least 1")
        if not 0 <= self.seldom_share <= 1:
            raise ValueError(f"guard 'seldom_share' is {self.seldom_share}; expected 0 to 1")
        if not 0 < self.bot_share <= 1:
            raise ValueError(f"guard 'bot_share' is {self.bot_share}; expected above 0 and at most 1")


@dataclasses.dataclass(frozen=True)
class Nodes:
    """Identifiers, in order of kind and value.

    Attributes:
        kinds: U[N].
        values: U[N].
        events: int64[N], events that name it.
        first_us: int64[N], its first event outside bursts (its first event where all are inside).
        bot: bool[N], quarantined as a whole.
        placed: bool[N], stands in a shop: most of its events are from a touchpoint ``kiosk:<id>`` or ``store:<id>``.
        visits: int64[N], distinct sessions that name it (weak kinds only, else 0).
        named_visits: int64[N], those among them that name a strong identifier too.
        named_us: int64[N], latest event that names a strong identifier too, 0 for none.
    """

    kinds: NDArray[np.str_]
    values: NDArray[np.str_]
    events: NDArray[np.int64]
    first_us: NDArray[np.int64]
    bot: NDArray[np.bool_]
    placed: NDArray[np.bool_]
    visits: NDArray[np.int64]
    named_visits: NDArray[np.int64]
    named_us: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.kinds)

    @property
    def login(self) -> NDArray[np.bool_]:
        """bool[N], an account."""
        return np.asarray(self.kinds == LOGIN)

    @property
    def strong(self) -> NDArray[np.bool_]:
        """bool[N], may join others."""
        return np.isin(self.kinds, STRONG_KINDS)

    def find(self, kind: str, value: str) -> int:
        """Position of an identifier, or -1."""
        low, high = np.searchsorted(self.kinds, kind), np.searchsorted(self.kinds, kind, side="right")
        place = int(low + np.searchsorted(self.values[low:high], value))
        return place if place < high and self.values[place] == value else -1


def gather(con: duckdb.DuckDBPyConnection, guards: Guards) -> Nodes:
    """Fill the temporary tables from the view `events` (columns of `tables.EVENTS`).

    Args:
        con: Connection with the view.
        guards: Limits.
    """
    con.execute(
        """create or replace temp table bundles as
        select row_number() over () - 1 as bundle, identifiers, n, first_us, last_us, n as clean
        from (select identifiers, count(*) as n, min(epoch_us(occurred_at)) as first_us,
                max(epoch_us(occurred_at)) as last_us
            from events where identifiers is not null and identifiers <> '[]' group by identifiers)"""
    )
    con.execute(
        """create or replace temp table spelled as
        select distinct bundle, pair.kind as kind, pair.value as value from (
            select bundle, unnest(from_json(identifiers, '[{"kind": "VARCHAR", "value": "VARCHAR"}]')) as pair
            from bundles)"""
    )
    con.execute(
        """create or replace temp table nodes as
        select row_number() over (order by kind, value) - 1 as node, kind, value, n, first_us, 0::bigint as burst
        from (select kind, value, sum(n)::bigint as n, min(first_us) as first_us
            from spelled join bundles using (bundle) group by kind, value)"""
    )
    con.execute(
        """create or replace temp table members as
        select bundle, node from spelled join nodes using (kind, value) order by bundle, node"""
    )
    con.execute("drop table spelled")
    _find_bursts(con, guards)
    _count_visits(con)
    rows = con.sql(
        """select kind, value, n, first_us, burst, coalesce(in_shop, 0) * 2 > n as placed,
            coalesce(visits, 0) as visits, coalesce(named, 0) as named, coalesce(named_us, 0) as named_us
        from nodes left join node_visits using (node) order by node"""
    ).to_arrow_table()
    events = rows["n"].to_numpy()
    return Nodes(
        kinds=np.array(rows["kind"].to_pylist(), dtype=np.str_),
        values=np.array(rows["value"].to_pylist(), dtype=np.str_),
        events=events,
        first_us=rows["first_us"].to_numpy(),
        bot=rows["burst"].to_numpy() >= np.maximum(1, np.ceil(guards.bot_share * events)),
        placed=rows["placed"].to_numpy(zero_copy_only=False),
        visits=rows["visits"].to_numpy(),
        named_visits=rows["named"].to_numpy(),
        named_us=rows["named_us"].to_numpy(),
    )


def _count_visits(con: duckdb.DuckDBPyConnection) -> None:
    strong = ", ".join(map(literal, STRONG_KINDS))
    con.execute(
        f"""create or replace temp table node_visits as
        with strength as (
            select bundle, bool_or(kind in ({strong})) as named, bool_or(kind not in ({strong})) as weak
            from members join nodes using (node) group by bundle),
        visits as (
            select session_id, bundle, named, max(epoch_us(occurred_at)) as last_us, count(*) filter (where
                starts_with(touchpoint, 'kiosk:') or starts_with(touchpoint, 'store:')) as in_shop
            from events join bundles using (identifiers) join strength using (bundle) where weak group by all)
        select node, sum(in_shop)::bigint as in_shop, count(distinct session_id) as visits,
            count(distinct session_id) filter (where named) as named,
            max(last_us) filter (where named) as named_us
        from visits join members using (bundle) join nodes using (node) where kind not in ({strong})
        group by node"""
    )


def _find_bursts(con: duckdb.DuckDBPyConnection, guards: Guards) -> None:
    acts = ", ".join(map(literal, HUMAN_ACTIONS))
    con.execute(
        f"""create or replace temp table busy as
        select node, minute from (
            select bundle, epoch_us(occurred_at) // 60000000 as minute, count(*) as n
            from events join bundles using (identifiers) where action in ({acts}) group by 1, 2
        ) join members using (bundle)
        group by node, minute having sum(n) > {min(guards.burst_second, guards.burst_minute)}"""
    )
    con.execute(
        f"""create or replace temp table bursts as
        with seconds as (
            select node, minute, epoch_us(occurred_at) // 1000000 as second, count(*) as n
            from events join bundles using (identifiers) join members using (bundle)
            join busy using (node)
            where action in ({acts}) and busy.minute = epoch_us(occurred_at) // 60000000
            group by 1, 2, 3)
        select node, minute, max(n)::bigint as peak, sum(n)::bigint as n from seconds group by node, minute
        having max(n) > {guards.burst_second} or sum(n) > {guards.burst_minute}"""
    )
    con.execute("drop table busy")
    con.execute(
        "create or replace temp table burst_events "
        "(source varchar, event_id varchar, bundle bigint, at_us bigint)"
    )
    if con.execute("select count(*) from bursts").fetchall()[0][0] == 0:
        return
    con.execute(
        """insert into burst_events
        select distinct source, event_id, bundle, epoch_us(occurred_at) as at_us
        from events join bundles using (identifiers) join members using (bundle)
        join bursts on bursts.node = members.node and bursts.minute = epoch_us(occurred_at) // 60000000"""
    )
    con.execute(
        """update bundles set clean = n - found.dirty from
        (select bundle, count(*) as dirty from burst_events group by bundle) found
        where found.bundle = bundles.bundle"""
    )
    con.execute(
        """update nodes set burst = found.dirty from (
            select node, count(*) as dirty from burst_events join members using (bundle) group by node) found
        where found.node = nodes.node"""
    )
