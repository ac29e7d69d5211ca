"""What the lake knows that decides about a contact: consent, reach, contacts made, hours, bad moments, what fits.

Belongs here: lake -> facts per person. Does not belong here: the choice (`next_actions.py`), predictions.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from typing import Any

import duckdb

from contracts.policy import ActionPolicy
from contracts.recovery import ANSWERS
from contracts.settings import Settings
from feature_repo.snapshots import attach, connect, literal
from orchestration.lake.consent import CONSENTS
from orchestration.lake.identity_tables import EVENT_PERSONS, LINKS
from orchestration.lake.people import MOMENTS, SESSIONS_TABLE
from orchestration.lake.recovery import recovery_effects, recovery_trials
from orchestration.lake.tables import TABLES

HOUR_PRIOR = 12.0
"""Acts of everybody that a person's own hours start with."""
TASTE_DAYS = 56
"""Half-life of interest in a type of product."""
POPULAR_DAYS = 28
REPEATS = 2
"""Orders of one product from which on it is bought again rather than replaced by another."""
WANT_DAYS = 7


@dataclasses.dataclass(frozen=True)
class Trouble:
    """A person's latest bad moment that was not made good.

    Attributes:
        kind: Of ``contracts.moments.BAD``.
        at: When.
        product_id: What it was about, empty where nothing is known.
        substitutes: Sellable products of the same type.
        sizes: Other sizes of the product that the catalogue counts as in stock.
    """

    kind: str
    at: dt.datetime
    product_id: str
    substitutes: int
    sizes: int


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of one person.

    Attributes:
        consented: Whether they allow the policy's purpose.
        reachable: Channels of the policy over which they can be reached and have not unsubscribed from.
        unsubscribed: Channels that they left.
        contacts: Times and channels of contacts within the longest cap.
        hours: 24 weights by local hour.
        trouble: An open bad moment, or None.
        product: Product that fits, and why; None where nothing does.
        content: Content that fits, and why.
        service: Service that fits, and why.
        want: Latest want within `WANT_DAYS`, empty for none.
    """

    consented: bool = False
    reachable: frozenset[str] = frozenset()
    unsubscribed: frozenset[str] = frozenset()
    contacts: tuple[tuple[dt.datetime, str], ...] = ()
    hours: tuple[float, ...] = (1.0,) * 24
    trouble: Trouble | None = None
    product: tuple[str, str] | None = None
    content: tuple[str, str] | None = None
    service: tuple[str, str] | None = None
    want: str = ""


@dataclasses.dataclass(frozen=True)
class Known:
    """Everything that is known.

    Attributes:
        customers: Login to person, of everybody who has one; in order of the login.
        facts: By person; who is missing has none.
        recovery: Effects of answers to bad moments that were tried.
        versions: Delta version of each table that was read.
    """

    customers: dict[str, str]
    facts: dict[str, Facts]
    recovery: tuple[Any, ...]
    versions: dict[str, int]


def read_facts(
    settings: Settings, policy: ActionPolicy, now: dt.datetime, memory_limit: str = "2GB"
) -> Known:
    """Read all facts as of a moment; nothing at or after it is read.

    Args:
        settings: The installation; identities, sessions, moments and consents must have been made.
        policy: The shop's rules.
        now: The moment, with a zone.
        memory_limit: What DuckDB may hold.

    Raises:
        SnapshotError: A table of the lake is missing.
    """
    con = connect(memory_limit)
    lake = settings.lake
    paths = {
        "events": TABLES["events"].path(lake), "products": TABLES["products"].path(lake),
        "persons": EVENT_PERSONS.path(lake), "links": LINKS.path(lake), "consents": CONSENTS.path(lake),
        "sessions": SESSIONS_TABLE.path(lake), "moments": MOMENTS.path(lake),
    }  # fmt: skip
    versions = {name: attach(con, name, path) for name, path in paths.items()}
    moment = f"{literal(now.isoformat())}::timestamptz"
    con.execute(
        f"""create temp table logins as select value as customer_id, person_id from links
            where kind = 'customer' and state = 'linked' and person_id is not null;
        create temp table mine as select e.*, p.person_id from events e
            join persons p on p.source = e.source and p.event_id = e.event_id
            semi join logins on logins.person_id = p.person_id where e.occurred_at < {moment}"""
    )
    customers = dict(con.execute("select customer_id, person_id from logins order by customer_id").fetchall())
    consented = {
        row[0] for row in con.execute(
            f"select person_id from consents where purpose = {literal(policy.purpose)} and granted "
            f"and stated_at < {moment}"
        ).fetchall()
    }  # fmt: skip
    left = _grouped(con, _LEFT)
    reach, seen = _reach(con), _grouped(con, "select distinct person_id, channel from mine order by all")
    contacts = _contacts(con, policy, moment)
    hours, everybody = _hours(con, policy)
    trouble = _trouble(con, policy, moment)
    product, content, service = _subjects(con, moment)
    wants = dict(con.execute(_WANTS.format(now=moment, days=WANT_DAYS)).fetchall())
    trials = recovery_trials(
        con.sql(f"from moments where occurred_at < {moment}").to_arrow_table(),
        con.sql("select person_id, occurred_at, detail from mine").to_arrow_table(), "person_id",
    )  # fmt: skip
    facts = {
        person: Facts(
            consented=person in consented,
            reachable=frozenset(
                name for name, channel in policy.channels.items()
                if name not in left.get(person, ())
                and (set(channel.reach) & reach.get(person, set()) or set(channel.seen_on) & seen.get(person, set()))
            ),
            unsubscribed=frozenset(left.get(person, ())),
            contacts=tuple(contacts.get(person, ())),
            hours=hours.get(person, everybody),
            trouble=trouble.get(person),
            product=product.get(person), content=content.get(person), service=service,
            want=wants.get(person, ""),
        )
        for person in sorted(set(customers.values()))
    }  # fmt: skip
    con.close()
    return Known(customers, facts, tuple(recovery_effects(trials)), versions)


_LEFT = """
select person_id, channel from (
    select person_id, channel, arg_max(action, (occurred_at, action)) as last_said from mine
    where action in ('subscribe', 'unsubscribe') group by all
) where last_said = 'unsubscribe' order by all
"""
"""Channels on which a person's latest word was to leave; at one moment the leaving counts."""

_WANTS = """
select m.person_id, arg_max(m.kind, m.occurred_at) from moments m semi join logins on logins.person_id = m.person_id
where m.kind like 'want_to_%' and m.occurred_at < {now} and m.occurred_at >= {now} - interval {days} day
group by all
"""


def _grouped(con: duckdb.DuckDBPyConnection, query: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for person, value in con.execute(query).fetchall():
        found.setdefault(person, set()).add(value)
    return found


def _reach(con: duckdb.DuckDBPyConnection) -> dict[str, set[str]]:
    return _grouped(
        con, "select distinct person_id, kind from links where state = 'linked' and person_id is not null"
    )


def _contacts(
    con: duckdb.DuckDBPyConnection, policy: ActionPolicy, moment: str
) -> dict[str, list[tuple[dt.datetime, str]]]:
    longest = max((cap.days for cap in policy.caps), default=0.0)
    channels = ", ".join(literal(name) for name in policy.channels) or "''"
    rows = con.execute(
        f"""select person_id, occurred_at, channel from mine
        where action = 'impression' and channel in ({channels})
            and occurred_at >= {moment} - interval {int(longest * 86_400)} second
        order by person_id, occurred_at, channel"""
    ).fetchall()
    found: dict[str, list[tuple[dt.datetime, str]]] = {}
    for person, at, channel in rows:
        found.setdefault(person, []).append((at.astimezone(dt.UTC), channel))
    return found


def _hours(
    con: duckdb.DuckDBPyConnection, policy: ActionPolicy
) -> tuple[dict[str, tuple[float, ...]], tuple[float, ...]]:
    """Local hours of each person's sessions, with everybody's as a start; and everybody's."""
    rows = con.execute(
        f"""select person_id, hour(timezone({literal(policy.time_zone)}, started_at)) as hour, count(*)
        from sessions semi join logins on logins.person_id = sessions.person_id group by all"""
    ).fetchall()
    total = [1.0] * 24
    for _, hour, count in rows:
        total[hour] += count
    everybody = tuple(value / sum(total) for value in total)
    found: dict[str, list[float]] = {}
    for person, hour, count in rows:
        found.setdefault(person, [HOUR_PRIOR * share for share in everybody])[hour] += count
    return {person: tuple(value / sum(own) for value in own) for person, own in found.items()}, everybody


def _trouble(con: duckdb.DuckDBPyConnection, policy: ActionPolicy, moment: str) -> dict[str, Trouble]:
    kinds = ", ".join(literal(kind) for kind in ANSWERS)
    rows = con.execute(
        f"""with open_ as (
            select m.person_id, m.kind, m.occurred_at, m.source, m.event_id from moments m
            semi join logins on logins.person_id = m.person_id
            where m.kind in ({kinds}) and m.occurred_at < {moment}
                and m.occurred_at >= {moment} - interval {int(policy.recovery_days * 86_400)} second
                and (m.recovered_at is null or m.recovered_at >= {moment})
            qualify row_number() over (partition by m.person_id order by m.occurred_at desc, m.kind) = 1
        ), types as (
            select type, count(*) filter (kind = 'good' and sellable) as sellable from products group by type
        )
        select o.person_id, o.kind, o.occurred_at, coalesce(e.product_id, ''), coalesce(t.sellable, 0),
            p.attributes, json_extract_string(e.detail, '$.size')
        from open_ o join mine e on e.source = o.source and e.event_id = o.event_id
        left join products p on p.product_id = e.product_id left join types t on t.type = p.type
        order by o.person_id"""
    ).fetchall()
    return {
        person: Trouble(
            kind, at.astimezone(dt.UTC), product, max(0, int(sellable) - 1), _sizes(attributes, size)
        )
        for person, kind, at, product, sellable, attributes, size in rows
    }


def _sizes(attributes: str | None, missing: str | None) -> int:
    stock = json.loads(attributes or "{}").get("stock")
    if not isinstance(stock, dict):
        return 0
    return sum(
        1 for size, number in stock.items() if size != missing and isinstance(number, int) and number > 0
    )


def _subjects(
    con: duckdb.DuckDBPyConnection, moment: str
) -> tuple[dict[str, tuple[str, str]], dict[str, tuple[str, str]], tuple[str, str] | None]:
    """Per person a product and a piece of content, with the reason; and the shop's first service."""
    con.execute(
        f"""create temp table liked as
        select m.person_id, p.type, sum(pow(2, -date_diff('second', m.occurred_at, {moment}) / 86400.0 / {TASTE_DAYS})
            * case m.action when 'purchase' then 3 when 'add_to_cart' then 2 else 1 end) as weight
        from mine m join products p using (product_id)
        where m.action in ('view', 'add_to_cart', 'wishlist', 'purchase') and p.kind = 'good' group by all;
        create temp table owned as select person_id, product_id, count(distinct occurred_at) as orders,
            max(occurred_at) as last_at from mine where action = 'purchase' group by all;
        create temp table popular as select p.type, p.product_id, count(*) as sold
        from events e join products p using (product_id)
        where e.action = 'purchase' and p.kind = 'good' and p.sellable and e.occurred_at < {moment}
            and e.occurred_at >= {moment} - interval {POPULAR_DAYS} day group by all;
        create temp table favourite as select person_id, type from liked
        qualify row_number() over (partition by person_id order by weight desc, type) = 1"""
    )
    again = con.execute(
        f"""select person_id, product_id, orders from owned join products p using (product_id)
        where orders >= {REPEATS} and p.sellable
        qualify row_number() over (partition by person_id order by orders desc, last_at desc, product_id) = 1"""
    ).fetchall()
    fresh = con.execute(
        """select f.person_id, p.product_id, f.type from favourite f join popular p using (type)
        anti join owned o on o.person_id = f.person_id and o.product_id = p.product_id
        qualify row_number() over (partition by f.person_id order by p.sold desc, p.product_id) = 1"""
    ).fetchall()
    products = {
        person: (product, f"much bought of {kind}, which they look at most")
        for person, product, kind in fresh
    }
    products |= {person: (product, f"bought {orders} times before") for person, product, orders in again}
    guides = con.execute(
        """select f.person_id, c.product_id, f.type from favourite f
        join products c on c.kind = 'content' and coalesce(json_extract_string(c.attributes, '$.about'), c.type) = f.type
        qualify row_number() over (partition by f.person_id order by c.product_id) = 1"""
    ).fetchall()
    content = {
        person: (product, f"about {kind}, which they look at most") for person, product, kind in guides
    }
    service = con.execute(
        "select product_id, name from products where kind = 'service' order by product_id limit 1"
    ).fetchone()
    return products, content, (service[0], f"the shop offers {service[1]}") if service else None
