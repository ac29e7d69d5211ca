"""Who is in an audience: those who meet its condition, within consent, without the erased, with an identifier.

Belongs here: the choice and its counts. Does not belong here: what is known of people (`people.py`), where they go.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pyarrow as pa

from contracts.conditions import fields_of as asked
from contracts.conditions import parse
from contracts.events import Purpose
from contracts.identity import LOGIN, STRONG_KINDS, Tombstones, read_tombstones
from contracts.outbound import Audience, OutboundError
from contracts.settings import Settings
from feature_repo.snapshots import literal, quoted
from orchestration.lake.erasure_shield import tombstones_path
from orchestration.outbound import conditions
from orchestration.outbound.actions import load_actions
from orchestration.outbound.fields import TOLD_OF_ACTIONS, fields_of
from orchestration.outbound.people import People

KEYS = {"people": "person_id", "actions": "action_id"}
"""Column that names a row of each kind of audience."""

TYPES = {
    "number": pa.float64(),
    "text": pa.string(),
    "flag": pa.bool_(),
    "time": pa.timestamp("us", tz="UTC"),
}


@dataclasses.dataclass(frozen=True)
class Selection:
    """An audience as it is now.

    Attributes:
        name: Of the audience.
        audience: As the yaml states it.
        rows: What leaves: the key, person_id, one column per kind of identifier, the fields.
        counts: ``matched``, of these ``without_consent``, ``erased``, ``without_identifier``, ``over_limit``; ``leaving``.
    """

    name: str
    audience: Audience
    rows: pa.Table
    counts: dict[str, int]

    @property
    def key(self) -> str:
        """Column that names a row."""
        return KEYS[self.audience.rows]


def check_audience(name: str, audience: Audience) -> None:
    """Hold an audience against the fields that there are.

    Raises:
        OutboundError: Naming the key and what was expected.
    """
    fields = fields_of(audience.rows)
    where = f"audiences.{name}"
    conditions.check(parse(audience.condition), fields, f"{where}.condition")
    for field in audience.fields:
        if field not in fields:
            raise OutboundError(
                f"{where}.fields names '{field}'; expected some of: {', '.join(fields)}"
                + (" (some are of actions only: `rows: actions`)" if field in fields_of("actions") else "")
            )
    clash = set(audience.identifiers) & (set(fields) | {"person_id", "action_id", "audience", "exported_at"})
    if clash:
        raise OutboundError(
            f"{where}.identifiers names '{sorted(clash)[0]}'; expected kinds of identifiers, not a field"
        )
    if audience.order is not None and (
        audience.order not in fields or fields[audience.order].type != "number"
    ):
        numbers = ", ".join(field.name for field in fields.values() if field.type == "number")
        raise OutboundError(f"{where}.order is '{audience.order}'; expected one of: {numbers}")


def select(people: People, settings: Settings, name: str, audience: Audience) -> Selection:
    """Choose.

    Args:
        people: Everybody.
        settings: The installation, whose tombstones count.
        name: Of the audience.
        audience: As the yaml states it.

    Raises:
        OutboundError: The audience asks for what is not there.
    """
    import ibis

    check_audience(name, audience)
    condition = parse(audience.condition)
    used = dict.fromkeys((*asked(condition), *audience.fields, *([audience.order] if audience.order else [])))
    for field in used:
        if field in people.absent:
            raise OutboundError(
                f"audiences.{name} asks for '{field}', of which nothing is known yet: {people.absent[field]}"
            )
    con, key = people.con, KEYS[audience.rows]
    if audience.rows == "actions":
        load_actions(people, settings)
    table = ibis.duckdb.from_connection(con).table(audience.rows)
    chosen = table.filter(conditions.expression(condition, table)).select(key)
    con.execute(
        f"""create or replace temp table matched as select r.* from {audience.rows} r
        semi join ({ibis.to_sql(chosen, dialect="duckdb")}) using ({key})"""
    )
    consents = f"select person_id from consents where granted and purpose = {literal(audience.purpose)}"
    con.execute(
        f"create or replace temp table allowed as select * from matched semi join ({consents}) using (person_id)"
    )
    if audience.rows == "actions":
        con.execute(
            """create or replace temp table allowed as select * from allowed
            semi join (select person_id, purpose from consents where granted) using (person_id, purpose)"""
        )
    gone = erased_persons(people, read_tombstones(tombstones_path(settings)))
    con.register("gone", pa.table({"person_id": pa.array(sorted(gone), pa.string())}))
    con.execute(
        "create or replace temp table living as select * from allowed anti join gone using (person_id)"
    )
    _name(con, audience)
    rows = con.sql(_leaving(audience, key)).to_arrow_table()
    steps = [
        _count(con, table)
        for table in ("matched", "allowed", "living", "living semi join named using (person_id)")
    ]
    names = ("without_consent", "erased", "without_identifier", "over_limit")
    falls = {name: a - b for name, a, b in zip(names, steps, [*steps[1:], rows.num_rows], strict=True)}
    counts = {"matched": steps[0], **falls, "leaving": rows.num_rows}
    return Selection(name, audience, rows.cast(schema(audience)), counts)


def schema(audience: Audience) -> pa.Schema:
    """Columns of what leaves."""
    fields = fields_of(audience.rows)
    columns = {} if audience.rows == "people" else {"action_id": pa.string()}
    columns |= {"person_id": pa.string()} | dict.fromkeys(audience.identifiers, pa.string())
    columns |= {name: TYPES[fields[name].type] for name in told(audience)}
    return pa.schema(list(columns.items()))


def told(audience: Audience) -> tuple[str, ...]:
    """Fields that leave."""
    own = TOLD_OF_ACTIONS if audience.rows == "actions" else ()
    return tuple(dict.fromkeys((*own, *audience.fields)))


def _name(con: Any, audience: Audience) -> None:
    """Table `named`: of each wanted kind the identifier with the most events, for persons who have any."""
    kinds = ", ".join(map(literal, audience.identifiers))
    columns = ", ".join(
        f"max(case when kind = {literal(kind)} then value end) as {quoted(kind)}"
        for kind in audience.identifiers
    )
    con.execute(
        f"""create or replace temp table named as select person_id, {columns} from (
            select person_id, kind, value from links where kind in ({kinds})
            qualify row_number() over (partition by person_id, kind order by events desc, first_at, value) = 1)
        group by person_id"""
    )


def _leaving(audience: Audience, key: str) -> str:
    # Advice for one account of a person goes to that account.
    of_row = (
        {LOGIN: "coalesce(living.customer_id, named.customer) as customer"}
        if audience.rows == "actions"
        else {}
    )
    columns = [f"living.{key}", *(["living.person_id"] if key != "person_id" else [])]
    columns += [of_row.get(kind, f"named.{quoted(kind)}") for kind in audience.identifiers]
    columns += [f"living.{quoted(name)}" for name in told(audience)]
    order = f"living.{quoted(audience.order)} desc nulls last, " if audience.order else ""
    limit = f"limit {audience.limit}" if audience.limit else ""
    return f"select {', '.join(columns)} from living join named using (person_id) order by {order}living.{key} {limit}"


def _count(con: Any, table: str) -> int:
    return int(con.execute(f"select count(*) from {table}").fetchall()[0][0])


def erased_persons(people: People, tombstones: Tombstones | None) -> set[str]:
    """Persons of whom an identifier was erased although the lake still (or again) holds them."""
    if not tombstones:
        return set()
    rows = people.con.execute("select person_id, kind, value from links").fetchall()
    return {
        person
        for person, kind, value in rows
        if kind in STRONG_KINDS and tombstones.of_identifier(kind, value) in tombstones.digests
    }


def lawful(people: People, settings: Settings, purpose: Purpose) -> set[str]:
    """Persons who may be told of for a purpose now: they allow it, and were not erased."""
    rows = people.con.execute("select person_id from consents where granted and purpose = ?", [purpose])
    return {row[0] for row in rows.fetchall()} - erased_persons(
        people, read_tombstones(tombstones_path(settings))
    )
