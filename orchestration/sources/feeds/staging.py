"""Making parts: one file, or one pull from a table, mapped into canonical Parquet, with an account of it.

Belongs here: reading once, counting what came out, setting aside what broke. Does not belong here: which
parts there are (`parts.py`), when to make one (`orchestration/sources/files.py`).
"""

from __future__ import annotations

import datetime as dt
import itertools
import pathlib
import shutil
import time
import uuid
from typing import Any

import duckdb
import msgspec
import pyarrow.parquet as pq

from contracts.retailer import Feed
from feature_repo.snapshots import connect, literal
from orchestration.lake import tables
from orchestration.sources.feeds import formats
from orchestration.sources.feeds.catalogue import compile_table
from orchestration.sources.feeds.detection import Shape, detect, guess_delimiter
from orchestration.sources.feeds.mapping import IGNORE, SQL_TYPES, Compiled, Job, compile_events
from orchestration.sources.feeds.parts import Example, Name, Part, keep
from orchestration.sources.feeds.paths import MappingError
from orchestration.sources.feeds.reading import Relation, rejected, relation
from orchestration.sources.feeds.text import UnreadableFileError

EXAMPLES = 20
LONGEST_RAW = 100_000
"""Characters of a broken row that a dead letter keeps; the row itself stays in the file."""


def stage(
    path: pathlib.Path,
    part: Part,
    feed: Feed,
    currency: str,
    root: pathlib.Path,
    now: dt.datetime | None = None,
) -> Part:
    """Map a file into a part.

    A file of which nothing can be read, or to which the mapping cannot be applied, becomes a part with an
    ``error`` and one broken row that names it.

    Args:
        path: The file, or the Parquet file that holds a table's rows.
        part: What is known before reading: feed, origin, digest, fingerprint.
        feed: The mapping.
        currency: The shop's.
        root: Folder of all parts.
        now: When it is read.
    """
    clock = now or dt.datetime.now(dt.UTC)
    work = root / "work" / uuid.uuid4().hex
    work.mkdir(parents=True)
    con = connect()
    try:
        con.execute(f"set temp_directory = {literal(str(work / 'spill'))}")
        done = _read(con, path, part, feed, currency, work, clock)
        done = msgspec.structs.replace(done, created_ns=time.time_ns())
        con.close()
        for name in ("unpacked", "decoded", "elements", "lined"):
            (work / name).unlink(missing_ok=True)
        shutil.rmtree(work / "spill", ignore_errors=True)
        return keep(done, work, root)
    finally:
        con.close()
        shutil.rmtree(work, ignore_errors=True)


def _read(
    con: duckdb.DuckDBPyConnection, path: pathlib.Path, part: Part, feed: Feed, currency: str, work: pathlib.Path,
    now: dt.datetime,
) -> Part:  # fmt: skip
    shape: Shape | None = None
    try:
        shape = detect(path, feed, work)
        part = _seen(part, shape)
        form = formats.known()[shape.format]
        whole = formats.overlaid(form.preset, feed)
        part = msgspec.structs.replace(part, rows_kind=whole.rows)
        job = Job(part.feed, whole, form, relation(con, shape, form), currency, now)
        compiled = _compile(con, job)
        part = msgspec.structs.replace(
            part, fields=compiled.fields, unused=compiled.unused, missing=compiled.missing
        )
        con.execute(f"copy ({compiled.sql}) to {literal(str(work / 'rows.parquet'))} (format parquet)")
    except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException):
        raise  # A query of ours that cannot be is no fault of the file.
    except (MappingError, UnreadableFileError, duckdb.Error) as error:
        return _unusable(con, part, _explain(error, shape), work)
    part = _counted(con, part, work)
    aside = rejected(con) if job.relation.rejecting else None
    if (
        not part.rows
        and not (aside is not None and aside.num_rows)
        and _has_rows(shape, job.relation.first_line)
    ):
        return _unusable(
            con, part, "no row could be cut out of its lines; expected rows of the same width", work
        )
    if part.broken or (aside is not None and aside.num_rows):
        part = _set_aside(con, part, job, aside, work)
    return part


def _has_rows(shape: Shape, first_line: int) -> bool:
    """Whether text has lines where rows should be."""
    if shape.container == "parquet":
        return False
    with shape.path.open("rb") as lines:
        return any(line.strip() for line in itertools.islice(lines, first_line - 1, first_line + 100))


def _compile(con: duckdb.DuckDBPyConnection, job: Job, raw: bool = False) -> Compiled:
    return compile_events(con, job, raw) if job.feed.rows == "events" else compile_table(con, job, raw)


def _seen(part: Part, shape: Shape) -> Part:
    notes = []
    if shape.text is not None and shape.text.truncated:
        notes.append(shape.text.truncated)
    if shape.text is not None and shape.text.repaired:
        notes.append(f"mixed encodings: {shape.text.repaired} lines or letters are not {shape.text.encoding}")
    encoding = shape.text.encoding if shape.text else None
    if shape.text is not None and shape.text.compression:
        notes.append(f"compressed with {shape.text.compression}")
    return msgspec.structs.replace(
        part, format=shape.format, container=shape.container, encoding=encoding, delimiter=shape.delimiter,
        columns=shape.columns, notes=tuple(notes),
    )  # fmt: skip


def _explain(error: Exception, shape: Shape | None) -> str:
    if isinstance(error, duckdb.Error):
        return f"cannot be read: {str(error).splitlines()[0][:300]}"
    if isinstance(error, MappingError) and shape is not None and shape.container == "delimited":
        with shape.path.open(encoding="utf-8", errors="replace", newline="") as lines:
            better = guess_delimiter(lines.read(1 << 16))
        if better != shape.delimiter and len(shape.columns) == 1:
            return (
                f"{error}; the delimiter is set to {shape.delimiter!r}, but the lines look cut by {better!r}"
            )
    return str(error)


def _counted(con: duckdb.DuckDBPyConnection, part: Part, work: pathlib.Path) -> Part:
    """Count what the part's rows say, by reading them back."""
    rows = f"read_parquet({literal(str(work / 'rows.parquet'))})"
    reasons = dict(con.execute(f"select problem, count(*) from {rows} group by 1 order by 2 desc").fetchall())
    total, good, ignored = sum(reasons.values()), reasons.pop(None, 0), reasons.pop(IGNORE, 0)
    counted = msgspec.structs.replace(
        part, rows=total, good=good, ignored=ignored, broken=total - good - ignored, reasons=reasons
    )
    if part.rows_kind != "events":
        return counted
    sound = f"{rows} where problem is null"
    days = con.execute(f"select distinct occurred_at::date from {sound} order by 1").fetchall()
    first, last = con.execute(f"select min(occurred_at), max(occurred_at) from {sound}").fetchall()[0]
    names = con.execute(
        f"""select name, case when problem like 'action:%' then null else action end,
            case when problem is null then channel end, count(*) from {rows} group by 1, 2, 3 order by 4 desc, 1, 2, 3
            limit 500"""
    ).fetchall()
    return msgspec.structs.replace(
        counted,
        days=tuple(row[0] for row in days),
        first=first,
        last=last,
        names=tuple(Name(*row) for row in names),
    )


def _set_aside(con: duckdb.DuckDBPyConnection, part: Part, job: Job, aside: Any, work: pathlib.Path) -> Part:
    """Write the rows that broke, each with its line and as it came, in a way that breaks the contract too."""
    events = part.rows_kind == "events"
    names = tables.CANONICAL.names
    queries = []
    if part.broken:
        if aside is not None and aside.num_rows:
            con.register("aside", aside)
        else:
            con.execute("create or replace temp view aside as select null::bigint as line where false")
        kept = ", ".join(names) if events else "n"
        first = job.relation.first_line - 1
        # A row stands as many lines lower as lines before it were set aside.
        con.execute(
            f"""create temp table broken as
            with shifts as (
                select k, max(total) as total from (
                    select line - row_number() over (order by line) + 1 as k, row_number() over (order by line) as total
                    from aside) group by k)
            select {kept}, problem, raw, n + {first} + coalesce(total, 0) as line
            from (select * from ({_compile(con, job, raw=True).sql}) where problem is not null and problem <> '{IGNORE}') b
            asof left join shifts on b.n + {first} >= shifts.k"""
        )
        queries.append(_as_letters("broken", job, events))
    if aside is not None and aside.num_rows:
        con.execute(
            """create temp table torn as select 'line: ' || case reason
                when 'missing columns' then 'too few fields' when 'too many columns' then 'too many fields'
                when 'unquoted value' then 'a quote that is not closed' else reason end as problem,
            coalesce(raw, '') as raw, line from aside"""
        )
        queries.append(_as_letters("torn", job, events=False))
        torn = dict(con.execute("select problem, count(*) from torn group by 1").fetchall())
        reasons = dict(part.reasons)
        for reason, count in torn.items():
            reasons[reason] = reasons.get(reason, 0) + count
        part = msgspec.structs.replace(part, broken=part.broken + sum(torn.values()), reasons=reasons)
    out = literal(str(work / "broken.parquet"))
    con.execute(f"copy ({' union all '.join(queries)}) to {out} (format parquet)")
    examples = con.execute(
        f"""select line, problem, left(raw, 300) from (
            select *, row_number() over (partition by problem order by line) as k from {out})
        where k <= 3 order by line nulls last limit {EXAMPLES}"""
    ).fetchall()
    days = con.execute(
        f"select distinct occurred_at::date from {out} where occurred_at is not null"
    ).fetchall()
    return msgspec.structs.replace(
        part,
        examples=tuple(Example(*row) for row in examples),
        days=tuple(sorted({*part.days, *(row[0] for row in days)})),
    )


def _as_letters(table: str, job: Job, events: bool) -> str:
    """SQL of broken rows: canonical columns whose ``detail`` says what came and why it broke."""
    given = {
        "event_id": f"'{job.name}:' || md5(raw || ':' || coalesce(line, 0))",
        "source": literal(job.source),
        "detail": f"""json_object('rejected', problem, 'line', line, 'raw', left(raw, {LONGEST_RAW}))::varchar""",
    }
    columns = []
    for field in tables.CANONICAL:
        kind = SQL_TYPES[str(field.type)]
        if field.name in given:
            value = given[field.name]
            value = f"coalesce(event_id, {value})" if field.name == "event_id" and events else value
        else:
            value = field.name if events else "null"
        columns.append(f"({value})::{kind} as {field.name}")
    return f"select {', '.join(columns)}, problem, raw, line from {table}"


def _unusable(con: duckdb.DuckDBPyConnection, part: Part, error: str, work: pathlib.Path) -> Part:
    for name in ("rows.parquet", "broken.parquet"):
        (work / name).unlink(missing_ok=True)
    job = Job(part.feed, Feed(), formats.known()["rows"], Relation("", {}, ""), "", dt.datetime.now(dt.UTC))
    con.execute("create or replace temp table whole (problem varchar, raw varchar, line bigint)")
    con.execute("insert into whole values (?, ?, null)", [f"file: {error}", part.origin])
    con.execute(
        f"copy ({_as_letters('whole', job, events=False)}) to {literal(str(work / 'broken.parquet'))} (format parquet)"
    )
    return msgspec.structs.replace(
        part, rows=0, good=0, broken=1, reasons={f"file: {error}": 1}, error=error,
        examples=(Example(None, f"file: {error}", part.origin),),
    )  # fmt: skip


def rows_file(root: pathlib.Path, part: Part) -> pathlib.Path | None:
    """The part's canonical rows, or None where it has none."""
    path = part.folder(root) / "rows.parquet"
    return path if path.is_file() and pq.read_metadata(path).num_rows else None


def broken_file(root: pathlib.Path, part: Part) -> pathlib.Path | None:
    """The part's broken rows, or None."""
    path = part.folder(root) / "broken.parquet"
    return path if path.is_file() else None
