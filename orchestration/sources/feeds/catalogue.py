"""Products and customers: a feed's mapping over a relation, as one SQL query of the lake's columns.

Belongs here: rows of feeds that hold no events. Does not belong here: events (`mapping.py`).
"""

from __future__ import annotations

import duckdb

from feature_repo.snapshots import literal, quoted
from orchestration.lake import tables
from orchestration.sources.feeds import values
from orchestration.sources.feeds.layers import path_list
from orchestration.sources.feeds.mapping import SQL_TYPES, Compiled, Job, columns_of, shown
from orchestration.sources.feeds.paths import MappingError, Paths


def compile_table(con: duckdb.DuckDBPyConnection, job: Job, raw: bool = False) -> Compiled:
    """Write the query that maps products or customers (`tables.PRODUCTS`, `tables.CUSTOMERS`).

    Raises:
        MappingError: No identifier, or products without a name.
    """
    schema = tables.PRODUCTS if job.feed.rows == "products" else tables.CUSTOMERS
    key = schema.names[0]
    base = job.form.prepare(f"({job.relation.numbered})", tuple(job.relation.columns or ()))
    columns = columns_of(con, base) if job.relation.columns is not None else None
    paths, fields = Paths(job.where, columns), {}
    texts: dict[str, str] = {}
    for name in schema.names:
        path = job.feed.fields.get(name)
        found: str | None = None if path is None else paths.text(path, f"fields.{name}")
        if path is not None and found is not None:
            fields[name] = shown(path)
        text: str = values.words(found or "null::varchar", job.feed.values.get(name, {}))
        constant = job.feed.constants.get(name)
        texts[name] = text if constant is None else f"coalesce({text}, {literal(str(constant))})"
    if key not in fields:
        there = f"; the columns are: {', '.join(columns)}" if columns is not None else ""
        raise MappingError(f"{job.where}.fields.{key} is missing or not there; expected a column{there}")
    unused = [c for c in job.relation.columns or {} if c not in paths.used]
    if schema is tables.PRODUCTS:
        texts["name"] = f"coalesce({texts['name']}, 'Product ' || {texts['product_id']})"
        texts["kind"] = f"coalesce({texts['kind']}, 'good')"
        texts["sellable"] = f"coalesce(try_cast({texts['sellable']} as boolean), true)"
        for name in ("department", "category", "type", "brand", "manufacturer", "size"):
            texts[name] = f"coalesce({texts[name]}, '')"
        chosen = (
            unused if job.feed.detail == "rest" else [c for c in job.feed.detail if c in (columns or {c: ""})]
        )
        pairs = ", ".join(
            f"{literal(c)}, {said}" for c in chosen if (said := paths.text(c, "detail")) is not None
        )
        texts["attributes"] = (
            f"json_merge_patch('{{}}'::json, json_object({pairs}))::varchar" if pairs else "'{}'"
        )
    listed = ", ".join(f"({texts[f.name]})::{SQL_TYPES[str(f.type)]} as {f.name}" for f in schema)
    if job.relation.columns is None:
        base = f"select *, json_extract_string(doc, {path_list(paths.doc)}) as c_d from ({base})"
        whole = "line"
    else:
        whole = (
            "to_json(struct_pack("
            + ", ".join(f"{quoted(c)} := {quoted(c)}" for c in job.relation.columns)
            + "))::varchar"
        )
    extra = f", c_n as n, {whole} as raw" if raw else ""
    sql = f"""select {listed}, null::varchar as name_given,
        case when {texts[key]} is null then '{key}: missing' end as problem{extra} from ({base})"""
    return Compiled(sql, fields, tuple(unused), tuple(paths.missing))
