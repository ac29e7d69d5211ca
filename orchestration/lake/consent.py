"""Consent on the profile: what each person allows now, per purpose, and who may be contacted.

An event that lists purposes states all that the person allows at that moment: what it does not list is
withdrawn. An event with an empty list states nothing (most events of a till cannot know). An
``unsubscribe`` withdraws marketing, and ``detail.consent`` (an object of purpose to true or false) states
the purposes that it names, which is how everything can be withdrawn. The latest statement by the
event's own time counts, whenever it arrived; of two at one moment, the withdrawal. A merge brings both
persons' statements together, so a refusal given under another address counts for the whole person.

Belongs here: events with persons -> consents, filtering a list of contacts. Does not belong here: what
is sent, over which channel and how often.
"""

from __future__ import annotations

import datetime as dt
import pathlib

import duckdb
import pyarrow as pa

from contracts.events import Purpose
from feature_repo.snapshots import attach, connect, literal
from orchestration.lake import writing
from orchestration.lake.identity_tables import EVENT_PERSONS, LINKS
from orchestration.lake.tables import TABLES, TIMESTAMP, Table

PURPOSES: tuple[Purpose, ...] = ("analytics", "personalization", "marketing")

CONSENTS = Table(
    "identity_consents",
    pa.schema(
        [
            pa.field("person_id", pa.string()),
            pa.field("purpose", pa.string()),
            pa.field("granted", pa.bool_()),
            pa.field("stated_at", TIMESTAMP),
            pa.field("source", pa.string()),
            pa.field("event_id", pa.string()),
            pa.field("day", pa.date32()),
        ]
    ),
    None,
    "What each person allows now, per purpose, and the event that said so; day is the event's.",
)


class ConsentError(ValueError):
    """A purpose or a list of contacts that cannot be judged; the message says what was expected."""


def consents(con: duckdb.DuckDBPyConnection, until: dt.datetime | None = None) -> pa.Table:
    """The latest statement of each person about each purpose.

    Args:
        con: Connection with views `events` (`tables.EVENTS`) and `event_persons` (source, event_id, person_id).
        until: Only statements before this moment (with a zone), or all.

    Returns:
        `CONSENTS`, by person and purpose; a person without a row for a purpose never stated it.
    """
    purposes = ", ".join(map(literal, PURPOSES))
    before = f"and e.occurred_at < {literal(until.isoformat())}::timestamptz" if until else ""
    rows = con.sql(
        f"""with said as (
            select p.person_id, e.occurred_at, e.source, e.event_id, e.day, e.action,
                e.consent, case when contains(e.detail, '"consent"') and json_valid(e.detail)
                    then e.detail->'$.consent' end as stated
            from events e join event_persons p using (source, event_id)
            where p.person_id is not null {before} and (e.action = 'unsubscribe'
                or (e.consent is not null and e.consent <> '[]') or contains(e.detail, '"consent"'))
        ), statements as (
            select said.*, purpose, case
                when json_type(stated, '$.' || purpose) = 'BOOLEAN' then (stated->>('$.' || purpose))::boolean
                when action = 'unsubscribe' and purpose = 'marketing' then false
                when consent is not null and consent <> '[]'
                    then list_contains(from_json(consent, '["VARCHAR"]'), purpose) end as granted
            from said, (select unnest([{purposes}]) as purpose))
        select person_id, purpose, granted, occurred_at as stated_at, source, event_id, day
        from statements where granted is not null
        qualify row_number() over (
            partition by person_id, purpose order by occurred_at desc, granted, source desc, event_id desc) = 1
        order by person_id, purpose"""
    ).to_arrow_table()
    return rows.cast(CONSENTS.schema)


def store_consents(lake: pathlib.Path, memory_limit: str = "2GB") -> writing.Commit:
    """Work out all consents of an installation after `identity.stitch_lake` and store them."""
    con = connect(memory_limit)
    attach(con, "events", TABLES["events"].path(lake))
    attach(con, "event_persons", EVENT_PERSONS.path(lake))
    return writing.replace_all(CONSENTS, lake, consents(con))


def may_contact(
    contacts: pa.Table, stored: pa.Table, purpose: Purpose, links: pa.Table | None = None
) -> pa.Table:
    """The contacts whose persons allow a purpose; silence is no consent.

    Args:
        contacts: Rows with ``person_id``, or with ``kind`` and ``value`` of an identifier.
        stored: `CONSENTS`.
        purpose: What they are contacted for.
        links: `identity_tables.LINKS`, needed for contacts by identifier; a shared or unknown identifier has
            no person, so its contact is left out.

    Returns:
        The kept rows in their order.

    Raises:
        ConsentError: An unknown purpose, or columns that name nobody.
    """
    if purpose not in PURPOSES:
        raise ConsentError(f"purpose is '{purpose}'; expected one of: {', '.join(PURPOSES)}")
    allowed = {row["person_id"] for row in stored.to_pylist() if row["purpose"] == purpose and row["granted"]}
    if "person_id" in contacts.column_names:
        persons = contacts["person_id"].to_pylist()
    elif {"kind", "value"} <= set(contacts.column_names) and links is not None:
        known = {
            (row["kind"], row["value"]): row["person_id"]
            for row in links.select(LINKS.schema.names[:3]).to_pylist()
        }
        pairs = zip(contacts["kind"].to_pylist(), contacts["value"].to_pylist(), strict=True)
        persons = [known.get(pair) for pair in pairs]
    else:
        raise ConsentError(
            f"contacts have columns {contacts.column_names}; expected person_id, or kind and value together with links"
        )
    return contacts.filter(pa.array([person in allowed for person in persons], pa.bool_()))
