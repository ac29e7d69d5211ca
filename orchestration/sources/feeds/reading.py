"""A file or an Arrow table as a DuckDB relation: every row, and the lines that are none.

Delimited text is read as text, column by column; a line with too few or too many fields is set aside with
its number. Documents are read line by line; the JSON of a broken one is null. Nothing is skipped silently.

Belongs here: rows. Does not belong here: what they mean (`mapping.py`).
"""

from __future__ import annotations

import dataclasses

import duckdb
import pyarrow as pa

from feature_repo.snapshots import literal, quoted
from orchestration.sources.feeds.detection import Shape
from orchestration.sources.feeds.formats import Format

LONGEST_LINE = 16 << 20
"""Bytes of the longest line or JSON document."""

REJECTS = "rejects"


@dataclasses.dataclass(frozen=True)
class Relation:
    """Rows in DuckDB's reach.

    Attributes:
        sql: A query over the raw rows: columns, or ``line`` and ``doc`` for documents.
        columns: Column -> DuckDB type; None for documents.
        numbered: The same query with ``c_n``, the number of the row from 1 on.
        first_line: Number of the line on which row 1 stands.
        rejecting: Whether DuckDB sets lines aside in the table `REJECTS`.
    """

    sql: str
    columns: dict[str, str] | None
    numbered: str
    first_line: int = 1
    rejecting: bool = False


def relation(con: duckdb.DuckDBPyConnection, shape: Shape, form: Format) -> Relation:
    """The rows of a file, as columns or as documents."""
    path = literal(str(shape.path))
    if shape.container == "documents":
        lines = (
            f"read_csv({path}, delim={literal(chr(1))}, quote='', escape='', header=false, auto_detect=false, "
            f"columns={{'line': 'VARCHAR'}}, max_line_size={LONGEST_LINE}, buffer_size={2 * LONGEST_LINE}, "
            f"store_rejects=true, rejects_table='{REJECTS}', rejects_limit=0)"
        )
        # Row numbers count blank lines, so that they are line numbers; only then blank lines go.
        return _documents(
            f"select line from {lines}", f"select row_number() over () as c_n, line from {lines}"
        )
    if shape.container == "parquet":
        scan = f"select * from read_parquet({path})"
    else:
        scan = f"select * from {_delimited(path, shape)}"
    types = {name: str(kind) for name, kind, *_ in con.execute(f"describe {scan}").fetchall()}
    numbered = f"select row_number() over () as c_n, * from ({scan})"
    first_line = 1 + shape.skip + (shape.container == "delimited" and shape.header)
    rejecting = shape.container == "delimited"
    plain = Relation(scan, types, numbered, first_line, rejecting)
    return _as_documents(plain, types) if form.documents else plain


def _delimited(path: str, shape: Shape) -> str:
    columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in shape.columns)
    quote = "quote='\"', escape='\"'" if shape.quoting else "quote='', escape=''"
    return (
        f"read_csv({path}, delim={literal(shape.delimiter or ',')}, header={str(shape.header).lower()}, {quote}, "
        f"skip={shape.skip}, columns={{{columns}}}, auto_detect=false, max_line_size={LONGEST_LINE}, "
        f"buffer_size={2 * LONGEST_LINE}, store_rejects=true, rejects_table='{REJECTS}', rejects_limit=0)"
    )


def _documents(lines: str, numbered: str) -> Relation:
    def parsed(query: str) -> str:
        return (
            "select *, case when json_type(doc) = 'OBJECT' then doc end as whole from "
            f"(select *, try_cast(line as json) as doc from ({query})) where line is not null and trim(line) <> ''"
        )

    def shaped(query: str) -> str:
        return f"select * exclude (doc, whole), whole as doc from ({parsed(query)})"

    return Relation(shaped(lines), None, shaped(numbered), rejecting=True)


def _as_documents(plain: Relation, types: dict[str, str]) -> Relation:
    """Each row of columns as one JSON document; empty fields are left out."""
    packed = ", ".join(
        f"{quoted(name)} := nullif({quoted(name)}, '')"
        if kind == "VARCHAR"
        else f"{quoted(name)} := {quoted(name)}"
        for name, kind in types.items()
    )
    document = f"json_merge_patch('{{}}'::json, to_json(struct_pack({packed})))"

    def shaped(query: str, kept: str) -> str:
        return f"select {kept}doc::varchar as line, doc from (select {kept}{document} as doc from ({query}))"

    return dataclasses.replace(
        plain, sql=shaped(plain.sql, ""), columns=None, numbered=shaped(plain.numbered, "c_n, ")
    )


def rejected(con: duckdb.DuckDBPyConnection) -> pa.Table:
    """Lines that DuckDB set aside while it read: ``line``, ``reason``, ``raw``, each line once."""
    known = {
        row[0] for row in con.execute("select table_name from duckdb_tables() where temporary").fetchall()
    }
    if REJECTS not in known:
        return pa.table(
            {
                "line": pa.array([], pa.int64()),
                "reason": pa.array([], pa.string()),
                "raw": pa.array([], pa.string()),
            }
        )
    return con.sql(
        f"""select line::bigint as line, any_value(lower(error_type::varchar)) as reason, any_value(csv_line) as raw
        from {REJECTS} group by line order by line"""
    ).to_arrow_table()
