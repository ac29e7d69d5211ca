"""The contract of events, applied to whole Arrow batches at once.

The rules are those of `contracts.events` (types, lengths, vocabularies, `check_event`), stated a second
time as array expressions because a message at a time costs ten times as long on bulk data; a property
test holds both to the same verdicts. JSON columns are decoded with the contract's own types, once per
distinct text.

Belongs here: verdicts on rows and the columns that follow from a good row. Does not belong here: what
becomes of the rows (`writing.py`, `intake.py`).
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from contracts.events import ACTIONS, CHANNELS, FUTURE_TOLERANCE, MOMENTS, Identifier, Purpose
from orchestration.lake import tables

Verdict = tuple[str, str, pa.Array]
"""Field, what was expected, and a boolean array that is true where a row breaks the rule."""

_IDENTIFIERS = msgspec.json.Decoder(Annotated[tuple[Identifier, ...], msgspec.Meta(max_length=16)])
_CONSENT = msgspec.json.Decoder(tuple[Purpose, ...])
_DETAIL = msgspec.json.Decoder(dict[str, Any])


def split(batch: pa.RecordBatch | pa.Table, now: dt.datetime) -> tuple[pa.Table, pa.Table]:
    """Separate the rows that keep the contract from those that break it.

    Args:
        batch: Canonical rows (`tables.CANONICAL`).
        now: The receiver's clock, with a zone.

    Returns:
        Good rows as `tables.EVENTS`, and bad rows as `tables.CANONICAL` plus the string columns
        ``field`` and ``reason`` (the first rule that the row breaks).
    """
    table = _as_table(batch)
    reason = pa.nulls(table.num_rows, pa.string())
    field = pa.nulls(table.num_rows, pa.string())
    for name, expected, broken in _verdicts(table, now):
        first = pc.and_(broken, pc.is_null(reason))
        if pc.any(first).as_py():
            field = pc.if_else(first, name, field)
            reason = pc.if_else(first, f"`$.{name}`: {expected}", reason)
    good = pc.is_null(reason)
    bad = table.append_column("field", field).append_column("reason", reason)
    return derive(table.filter(good)), bad.filter(pc.invert(good))


def derive(table: pa.Table) -> pa.Table:
    """Add customer_id, store_id and day to canonical rows that keep the contract."""
    table = _as_table(table)
    customer = _per_distinct(table["identifiers"], _customer_of, pa.string())
    in_store = pc.fill_null(pc.match_substring_regex(table["touchpoint"], "^store:(?s:.)"), False)
    store = pc.if_else(
        in_store, pc.utf8_slice_codeunits(table["touchpoint"], 6), pa.scalar(None, pa.string())
    )
    day = pc.cast(pc.floor_temporal(table["occurred_at"], unit="day"), pa.date32())
    columns = [*table.columns, customer, store, day]
    return pa.table(dict(zip(tables.EVENTS.names, columns, strict=True)), schema=tables.EVENTS)


def _as_table(batch: pa.RecordBatch | pa.Table) -> pa.Table:
    table = pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch
    return table.select(tables.CANONICAL.names).cast(tables.CANONICAL).combine_chunks()


def _verdicts(table: pa.Table, now: dt.datetime) -> list[Verdict]:
    latest = pa.scalar(now + FUTURE_TOLERANCE, tables.TIMESTAMP)
    verdicts: list[Verdict] = [
        *(_text(table, name, required=True) for name in ("event_id", "source")),
        ("occurred_at", "expected a time with a zone", pc.is_null(table["occurred_at"])),
        _member(table, "channel", CHANNELS, required=True),
        _member(table, "action", ACTIONS, required=True),
        _decodes(table, "identifiers", _IDENTIFIERS, "expected up to 16 pairs of kind and value"),
        *(
            _text(table, name, required=False)
            for name in ("session_id", "touchpoint", "product_id", "media_id", "decision_id")
        ),
        *(_not_negative(table, name) for name in ("quantity", "unit_price", "discount", "position")),
        _currency(table),
        ("query", "expected at most 512 characters", _true(pc.greater(pc.utf8_length(table["query"]), 512))),
        _member(table, "moment", MOMENTS, required=False),
        _decodes(table, "detail", _DETAIL, "expected an object"),
        _decodes(table, "consent", _CONSENT, "expected a list of purposes"),
        ("occurred_at", "expected a time that has passed", _true(pc.greater(table["occurred_at"], latest))),
        (
            "product_id",
            "expected a product for action 'purchase'",
            pc.and_(_true(pc.equal(table["action"], "purchase")), pc.is_null(table["product_id"])),
        ),
    ]
    return verdicts


def _true(mask: Any) -> Any:
    return pc.fill_null(mask, False)


def _text(table: pa.Table, name: str, required: bool) -> Verdict:
    length = pc.utf8_length(table[name])
    broken = _true(pc.or_(pc.less(length, 1), pc.greater(length, 256)))
    if required:
        broken = pc.or_(broken, pc.is_null(table[name]))
    return name, "expected 1 to 256 characters", broken


def _member(table: pa.Table, name: str, values: tuple[str, ...], required: bool) -> Verdict:
    known = pc.is_in(table[name], value_set=pa.array(values))
    absent = pc.is_null(table[name])
    broken = pc.invert(known) if required else pc.and_(pc.invert(known), pc.invert(absent))
    return name, f"expected one of: {', '.join(values)}", broken


def _not_negative(table: pa.Table, name: str) -> Verdict:
    column = table[name]
    broken = pc.less(column, 0)
    if pa.types.is_floating(column.type):
        broken = pc.or_(broken, pc.invert(pc.is_finite(column)))
    return name, "expected a number of at least 0", _true(broken)


def _currency(table: pa.Table) -> Verdict:
    # The contract's "$" also matches before a final line feed, as Python's re has it.
    known = pc.match_substring_regex(table["currency"], "^[A-Z]{3}\n?\\z")
    return "currency", "expected three capital letters", _true(pc.invert(known))


def _decodes(table: pa.Table, name: str, decoder: msgspec.json.Decoder[Any], expected: str) -> Verdict:
    return name, expected, _per_distinct(table[name], functools.partial(_fails, decoder), pa.bool_())


def _fails(decoder: msgspec.json.Decoder[Any], text: str | None) -> bool:
    if text is None:
        return False
    try:
        decoder.decode(text)
    except (msgspec.ValidationError, msgspec.DecodeError):
        return True
    return False


def _customer_of(text: str | None) -> str | None:
    for identifier in _IDENTIFIERS.decode(text) if text is not None else ():
        if identifier.kind == "customer":
            return str(identifier.value)
    return None


def _per_distinct(column: Any, function: Callable[[str | None], Any], kind: pa.DataType) -> Any:
    """Apply a function once per distinct text; null counts as a text of its own."""
    encoded = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    encoded = encoded.dictionary_encode(null_encoding="encode")
    answers = pa.array([function(text) for text in encoded.dictionary.to_pylist()], kind)
    return answers.take(encoded.indices)
