"""Single values of foreign rows as SQL: times, numbers, words, lists.

Belongs here: what one value becomes, and when it is none. Does not belong here: whole rows (`mapping.py`).
"""

from __future__ import annotations

import datetime as dt

import duckdb

from contracts.retailer import Feed
from feature_repo.snapshots import literal
from orchestration.sources.feeds.paths import MappingError, Value

NAIVE = r"\d{4}-\d{1,2}-\d{1,2}([ T]\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?)?"
"""A time of ISO 8601's making without a zone."""

YES = ("1", "true", "t", "yes", "y", "granted", "on", "accepted")
INTEGERS = {
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
}
NUMBERS = {*INTEGERS, "FLOAT", "DOUBLE"}
_EPOCHS = {"epoch_s": 1_000_000, "epoch_ms": 1_000, "epoch_us": 1}


def check_zone(con: duckdb.DuckDBPyConnection, feed: Feed, where: str) -> None:
    """Refuse a time zone that nobody knows.

    Raises:
        MappingError: With names that come near.
    """
    if feed.time_zone is None:
        return
    known = [row[0] for row in con.execute("select name from pg_timezone_names()").fetchall()]
    if feed.time_zone not in known:
        query = "select name from pg_timezone_names() order by jaro_winkler_similarity(name, ?) desc, name limit 3"
        near = ", ".join(row[0] for row in con.execute(query, [feed.time_zone]).fetchall())
        raise MappingError(f"{where}.time_zone is '{feed.time_zone}'; expected an IANA name such as {near}")


def time(value: Value, feed: Feed) -> str:
    """SQL of a time with a zone; null where it cannot be read or has no zone."""
    kind = value.kind
    if kind.startswith("TIMESTAMP") and "TIME ZONE" in kind:
        return value.sql
    if kind.startswith("TIMESTAMP") or kind == "DATE":
        return _zoned(f"({value.sql})::timestamp", feed.time_zone)
    if feed.time_format in _EPOCHS:
        number = value.sql if kind in NUMBERS else f"try_cast({value.text} as double)"
        return f"try(make_timestamptz((({number}) * {_EPOCHS[feed.time_format]})::bigint))"
    if kind in NUMBERS or kind.startswith("DECIMAL"):
        return _epoch(f"({value.sql})::double")
    text = value.text
    if feed.time_format is not None:
        parsed = f"try_strptime({text}, {literal(feed.time_format)})"
        return parsed if "%z" in feed.time_format.lower() else _zoned(parsed, feed.time_zone)
    naive = _zoned(f"try_cast(replace({text}, ',', '.') as timestamp)", feed.time_zone)
    return (
        f"case when regexp_full_match({text}, {literal(NAIVE)}) then {naive} "
        f"when regexp_full_match({text}, '\\d{{9,19}}(\\.\\d+)?') then {_epoch(f'try_cast({text} as double)')} "
        f"else try_cast(regexp_replace({text}, ' ([+-]\\d)', '\\1') as timestamptz) end"
    )


def lacks_zone(value: Value, feed: Feed) -> str:
    """SQL that is true where a time could be read but for its zone."""
    if feed.time_zone is not None:
        return "false"
    kind = value.kind
    if (kind.startswith("TIMESTAMP") and "TIME ZONE" not in kind) or kind == "DATE":
        return f"({value.sql}) is not null"
    if kind != "VARCHAR" or feed.time_format in _EPOCHS:
        return "false"
    if feed.time_format is not None:
        with_zone = "%z" in feed.time_format.lower()
        return (
            "false" if with_zone else f"try_strptime({value.text}, {literal(feed.time_format)}) is not null"
        )
    return f"coalesce(regexp_full_match({value.text}, {literal(NAIVE)}), false)"


def _zoned(timestamp: str, zone: str | None) -> str:
    return "null::timestamptz" if zone is None else f"timezone({literal(zone)}, {timestamp})"


def _epoch(number: str) -> str:
    """Seconds, milli-, micro- or nanoseconds since 1970, by their size (right for 1973 to 5138)."""
    return (
        f"try(make_timestamptz((case when {number} < 1e11 then {number} * 1e6 when {number} < 1e14 then {number} * 1e3 "
        f"when {number} < 1e17 then {number} else {number} / 1e3 end)::bigint))"
    )


def number(values: list[Value], feed: Feed) -> tuple[str, str]:
    """SQL of a number, and SQL that is true where there is text that is none."""
    parsed, broken = [], []
    for value in values:
        if value.kind in NUMBERS or value.kind.startswith("DECIMAL"):
            parsed.append(f"({value.sql})::double")
            continue
        text = value.text
        plain = text if feed.decimal == "." else f"replace(replace({text}, '.', ''), ',', '.')"
        one = f"try_cast({plain} as double)"
        if feed.decimal == ".":
            one = (
                f"coalesce({one}, case when regexp_full_match({text}, '-?\\d{{1,3}}(,\\d{{3}})+\\.\\d+') "
                f"then try_cast(replace({text}, ',', '') as double) end)"
            )
        parsed.append(one)
        broken.append(f"({text} is not null and {one} is null)")
    whole = parsed[0] if len(parsed) == 1 else f"coalesce({', '.join(parsed)})"
    return whole, f"({whole} is null and ({' or '.join(broken)}))" if broken else "false"


def words(text: str, table: dict[str, str]) -> str:
    """SQL that puts our words in place of theirs, whatever their case; others stay."""
    if not table:
        return text
    cases = " ".join(
        f"when {literal(theirs.lower().strip())} then {literal(ours)}" for theirs, ours in table.items()
    )
    return f"case lower({text}) {cases} else {text} end"


def identifiers(pairs: list[tuple[str, str]]) -> str:
    """SQL of the JSON list of identifiers that are there."""
    if not pairs:
        return "'[]'"
    parts = [
        f"""case when {value} is not null then '{{"kind":' || {literal(json_text(kind))} || ',"value":' """
        f"""|| to_json({value})::varchar || '}}' end"""
        for kind, value in pairs
    ]
    return f"'[' || concat_ws(',', {', '.join(parts)}) || ']'"


def consent(purposes: list[tuple[str, str]]) -> str:
    """SQL of the JSON list of purposes that were granted."""
    if not purposes:
        return "'[]'"
    yes = ", ".join(literal(word) for word in YES)
    parts = [
        f"case when lower({value}) in ({yes}) then {literal(json_text(name))} end" for name, value in purposes
    ]
    return f"'[' || concat_ws(',', {', '.join(parts)}) || ']'"


def instant(moment: dt.datetime) -> str:
    """SQL of a time with a zone."""
    return f"timestamptz {literal(moment.isoformat())}"


def json_text(text: str) -> str:
    """A JSON string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
