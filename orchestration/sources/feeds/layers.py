"""The layers under a mapping: documents opened, numbers made, names turned into actions, items laid out as rows.

Columns that a layer adds begin with ``c_``, so that a retailer's own columns of any name stay in reach.

Belongs here: which rows there are. Does not belong here: what stands in their fields (`mapping.py`).
"""

from __future__ import annotations

from contracts.events import ACTIONS
from contracts.retailer import Feed
from feature_repo.snapshots import literal
from orchestration.sources.feeds.formats import Format
from orchestration.sources.feeds.paths import MappingError, Paths, json_path


def layered(
    base: str, paths: Paths, feed: Feed, form: Format, where: str, name: str, made: str | None
) -> str:
    """SQL of rows with ``c_name``, ``c_action``, ``c_channel``, ``c_item``, ``c_i`` and, where asked, ``c_made_id``.

    Args:
        base: Rows, in brackets.
        paths: With every path that the mapping reads.
        feed: The mapping.
        form: The format.
        where: Path of the feed in the yaml.
        name: SQL of their name of what happened.
        made: SQL of the content that rows without a number of their own are told apart by; None if they have one.

    Raises:
        MappingError: Paths into items, but no items.
    """
    rows = base
    if paths.columns is None:
        rows = f"(select *, json_extract_string(doc, {path_list(paths.doc)}) as c_d from {rows})"
    if made is not None:
        rows = f"(select *, md5({made}) as c_print from {rows})"
        rows = f"""(select *, c_print || case when c_k > 1 then '-' || c_k else '' end as c_made_id
            from (select *, row_number() over (partition by c_print order by c_n) as c_k from {rows}))"""
    rows = _acted(f"(select *, {name} as c_name from {rows})", feed)
    if feed.items is None and paths.item:
        raise MappingError(f"{where} has a path that begins with @, but no items; expected items: $.lines")
    if feed.items is None:
        return f"(select *, null::json as c_item, null::bigint as c_i from {rows})"
    only = ", ".join(literal(action) for action in sorted(form.explode))
    when = f"c_action in ({only}) and " if only else ""
    rows = f"(select *, {items_of(paths, feed.items, where)} as c_items from {rows})"
    rows = f"(select *, {when}len(c_items) > 0 as c_many from {rows})"
    rows = f"""(select * exclude (c_items, c_many),
        unnest(case when c_many then c_items else [null::json] end) as c_item,
        unnest(case when c_many then range(1, len(c_items) + 1) else [null::bigint] end) as c_i from {rows})"""
    return f"(select *, json_extract_string(c_item, {path_list(paths.item)}) as c_e from {rows})"


def items_of(paths: Paths, path: str, where: str) -> str:
    """SQL of the list of items of a row, empty where there is none.

    Raises:
        MappingError: No such column.
    """
    key = f"{where}.items"
    if paths.columns is None:
        full = json_path(path if path.startswith("$") else f"$.{path}", "$", key)
        return f"json_extract(doc, {literal(full + '[*]')})"
    found = paths.first(path, "items")
    if not found:
        raise MappingError(f"{key} is '{path}'; expected one of the columns: {', '.join(paths.columns)}")
    whole = f"try_cast({found[0].sql} as json)" if found[0].kind == "VARCHAR" else f"to_json({found[0].sql})"
    return f"coalesce(json_extract({whole}, '$[*]'), [])"


def path_list(paths: list[str]) -> str:
    """SQL of a list of JSON paths, never empty."""
    return "[" + ", ".join(map(literal, paths or ["$.none"])) + "]"


def _acted(rows: str, feed: Feed) -> str:
    """Rows with our action for their name; ``action@channel`` also settles the channel."""
    table = feed.values.get("action", {})
    if not table:
        return f"(select *, c_name as c_action, null::varchar as c_channel from {rows})"
    given = {theirs.lower().strip(): ours for theirs, ours in table.items()}
    entries = {**{action: action for action in ACTIONS if action not in given}, **given}
    listed = ", ".join(
        f"({literal(word)}, {literal(ours.partition('@')[0])}, {_or_null(ours.partition('@')[2])})"
        for word, ours in entries.items()
    )
    return f"""(select r.*, coalesce(w.ours, r.c_name) as c_action, w.c_channel from {rows} r
        left join (values {listed}) w(word, ours, c_channel) on lower(r.c_name) = w.word)"""


def _or_null(text: str) -> str:
    return literal(text) if text else "null::varchar"
