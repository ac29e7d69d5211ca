"""Questions to the parts: a window of events with each id once, the catalogue, the customers.

Ids that occur more than once (exports that overlap, rows that were corrected) are found once for a set of
parts and kept in a small file; all other rows stream through. Of rows with one id that of the latest part
counts, and in a part the first, wherever in time the others lie.

Belongs here: queries over parts. Does not belong here: which parts there are (`parts.py`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import pathlib
import uuid

import duckdb

from feature_repo.snapshots import connect, literal
from orchestration.lake import tables
from orchestration.sources.feeds.parts import Part
from orchestration.sources.feeds.staging import rows_file

REPEATED = "repeated"


@dataclasses.dataclass(frozen=True)
class Rows:
    """Parts that count, with their files.

    Attributes:
        root: Folder of all parts.
        parts: In the order they were made, with rows.
        files: Their Parquet files.
    """

    root: pathlib.Path
    parts: tuple[Part, ...]
    files: tuple[str, ...]

    @classmethod
    def of(cls, root: pathlib.Path, parts: list[Part], kind: str) -> Rows:
        """Those of a kind (events, products, customers) that have rows."""
        pairs = [(p, str(f)) for p in parts if p.rows_kind == kind and (f := rows_file(root, p))]
        return cls(root, tuple(p for p, _ in pairs), tuple(f for _, f in pairs))


def events_sql(rows: Rows, start: dt.datetime, stop: dt.datetime, sample: str | None) -> str | None:
    """A query of the good events from start to stop, each id once; None where there is none.

    Args:
        rows: All parts with events.
        start: First moment.
        stop: Moment after the last.
        sample: A query of the customers to keep, or None for all.
    """
    names = ", ".join(tables.CANONICAL.names)
    inside = [
        file for part, file in zip(rows.parts, rows.files, strict=True)
        if part.first is not None and part.last is not None and part.first < stop and part.last >= start
    ]  # fmt: skip
    if not inside:
        return None
    within = (
        f"occurred_at >= timestamptz {literal(start.isoformat())} "
        f"and occurred_at < timestamptz {literal(stop.isoformat())}"
    )
    if sample is not None:
        within += f" and {customer_of('identifiers')} in ({sample})"
    again = repeated(rows)
    if again is None:
        return f"select {names} from {scan(inside)} where problem is null and {within}"
    twice = f"hash(event_id) in (select id from {scan([str(again)])})"
    return f"""
        select {names} from {scan(inside)} where problem is null and not {twice} and {within}
        union all
        select {names} from (
            select *, row_number() over (partition by event_id order by place desc, file_row_number) as k
            from {scan(rows.files, ordered=True)} where problem is null and {twice}
        ) where k = 1 and {within}"""


def repeated(rows: Rows) -> pathlib.Path | None:
    """The file of hashes of ids that occur more than once in these parts, or None where there are none."""
    mark = hashlib.sha256("\n".join((duckdb.__version__, *rows.files)).encode()).hexdigest()[:16]
    path = rows.root / f"{REPEATED}-{mark}.parquet"
    empty = path.with_suffix(".none")
    if empty.exists():
        return None
    if not path.exists():
        fresh = rows.root / f"{uuid.uuid4().hex}.new"
        con = connect()
        con.execute(
            f"copy (select hash(event_id) as id from {scan(rows.files)} where problem is null group by 1 "
            f"having count(*) > 1) to {literal(str(fresh))} (format parquet)"
        )
        found = con.execute(f"select count(*) from {scan([str(fresh)])}").fetchall()[0][0]
        con.close()
        for old in rows.root.glob(f"{REPEATED}-*"):
            old.unlink(missing_ok=True)
        if not found:
            fresh.unlink()
            empty.touch()
            return None
        fresh.replace(path)
    return path


def repeated_days(rows: Rows) -> set[dt.date]:
    """UTC days on which ids lie that occur more than once."""
    again = repeated(rows) if rows.files else None
    if again is None:
        return set()
    con = connect()
    found = con.execute(
        f"select distinct occurred_at::date from {scan(rows.files)} where problem is null "
        f"and hash(event_id) in (select id from {scan([str(again)])})"
    ).fetchall()
    con.close()
    return {row[0] for row in found}


def known_customers_sql(events: Rows, customers: Rows) -> str:
    """A query of every customer that a feed lists or an event names (``customer``)."""
    queries = ["select null::varchar as customer where false"]
    if events.files:
        queries.append(
            f"select {customer_of('identifiers')} as customer from (select distinct identifiers from {scan(events.files)} "
            "where problem is null)"
        )
    if customers.files:
        queries.append(f"select customer_id from {scan(customers.files)} where problem is null")
    return f"select distinct customer from ({' union all '.join(queries)}) where customer is not null"


def sample_sql(known: str, households: int) -> str:
    """A query of so many of the customers, always the same."""
    return f"select customer from ({known}) order by md5(customer), customer limit {int(households)}"


def products_sql(products: Rows, events: Rows) -> str:
    """A query of the catalogue, and of what events say of products that are not in it."""
    known = _latest(products, tables.PRODUCTS.names)
    query = known
    if events.files:
        said = (
            "json_extract_string(detail, ['$.item.name', '$.name', '$.item.category', '$.category', "
            "'$.item.brand', '$.brand'])"
        )
        query += f""" union all
            select product_id, coalesce(any_value(coalesce(s[1], s[2])), 'Product ' || product_id), '',
                coalesce(any_value(coalesce(s[3], s[4])), ''), '', coalesce(any_value(coalesce(s[5], s[6])), ''), '', '',
                'good', true, '{{"catalogue":"missing"}}'
            from (select product_id, case when detail <> '{{}}' then {said} end as s from {scan(events.files)}
                where problem is null and product_id is not null)
            anti join ({known}) k using (product_id)
            group by product_id"""
    return f"select * from ({query}) order by product_id"


def customers_sql(customers: Rows, who: str) -> str:
    """A query of customers with what a feed says of them."""
    rest = ", ".join(f"told.{name}" for name in tables.CUSTOMERS.names[1:])
    return f"""select customer as customer_id, {rest} from ({who}) w
        left join ({_latest(customers, tables.CUSTOMERS.names)}) told on told.customer_id = w.customer order by 1"""


def _latest(rows: Rows, names: list[str]) -> str:
    """Rows of a table, each key (the first column) as the latest part has it."""
    if not rows.files:
        return "select " + ", ".join(f"null::varchar as {name}" for name in names) + " where false"
    return f"""select {", ".join(names)} from (
        select *, row_number() over (partition by {names[0]} order by place desc, file_row_number) as k
        from {scan(rows.files, ordered=True)} where problem is null) where k = 1"""


def customer_of(column: str) -> str:
    """SQL of the first identifier of kind ``customer``."""
    listed = f"""from_json({column}, '[{{"kind":"VARCHAR","value":"VARCHAR"}}]')"""
    return f"list_filter({listed}, lambda one: one.kind = 'customer')[1].value"


def scan(files: list[str] | tuple[str, ...], ordered: bool = False) -> str:
    """A scan of files; ``ordered`` adds ``place``, their order, and the row's number in its file."""
    listed = ", ".join(map(literal, files))
    if not ordered:
        return f"read_parquet([{listed}])"
    places = ", ".join(f"({literal(path)}, {place})" for place, path in enumerate(files))
    return (
        f"(select s.*, p.place from read_parquet([{listed}], filename = true, file_row_number = true) s "
        f"join (values {places}) p(path, place) on s.filename = p.path)"
    )
