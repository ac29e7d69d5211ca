"""A feed's mapping over a relation, as one SQL query that yields canonical rows.

Each row comes with ``name`` (what the sender called it) and ``problem``: null for a good row, ``ignore`` for
one the mapping leaves out, otherwise ``field: what is wrong``. A row with a problem also breaks the
contract in that field, so the lake's own validation makes a dead letter of it.

Belongs here: whole rows. Does not belong here: single values (`values.py`), where rows come from (`reading.py`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt

import duckdb

from contracts.events import ACTIONS, CHANNELS, FUTURE_TOLERANCE
from contracts.retailer import Feed, Path
from feature_repo.snapshots import literal, quoted
from orchestration.lake import tables
from orchestration.sources.feeds import values
from orchestration.sources.feeds.formats import Format
from orchestration.sources.feeds.layers import items_of, layered
from orchestration.sources.feeds.paths import MappingError, Paths, Value
from orchestration.sources.feeds.reading import Relation

SQL_TYPES = {
    "string": "varchar", "double": "double", "int32": "integer", "timestamp[us, tz=UTC]": "timestamptz", "bool": "boolean",
}  # fmt: skip
"""DuckDB's names of the lake's Arrow types."""

IGNORE = "ignore"
NUMERIC = ("quantity", "unit_price", "line_total", "discount", "position")
PLAIN = ("session_id", "touchpoint", "product_id", "query", "media_id", "decision_id", "moment")


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A mapping made for one relation.

    Attributes:
        sql: Query of the rows (`tables.CANONICAL`, ``name``, ``problem``); with ``n`` and ``raw`` where asked for.
        fields: Field or kind of identifier -> path, as far as the columns exist.
        unused: Columns that nothing reads (they are in ``detail`` if that keeps the rest); empty for documents.
        missing: Keys of the mapping whose column does not exist, with the column.
    """

    sql: str
    fields: dict[str, str]
    unused: tuple[str, ...]
    missing: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Job:
    """What a mapping is made for.

    Attributes:
        name: Of the feed; event ids begin with it.
        feed: The mapping, laid over the format's own.
        form: The format.
        relation: The rows.
        currency: The shop's.
        now: When the rows were read; later times are of a broken clock.
        source: Value of the ``source`` column.
    """

    name: str
    feed: Feed
    form: Format
    relation: Relation
    currency: str
    now: dt.datetime
    source: str = "files"

    @property
    def where(self) -> str:
        """Path of the feed in the yaml."""
        return f"mapping.{self.name}"


def compile_events(con: duckdb.DuckDBPyConnection, job: Job, raw: bool = False) -> Compiled:
    """Write the query that maps events.

    Args:
        con: Connection on which the relation can be read.
        job: Feed, format and rows.
        raw: Also give ``n`` and ``raw``, the row as it came.

    Raises:
        MappingError: The mapping cannot be applied to these rows.
    """
    return _Events(con, job, raw).compile()


class _Events:
    def __init__(self, con: duckdb.DuckDBPyConnection, job: Job, raw: bool) -> None:
        self.con, self.job, self.feed, self.form = con, job, job.feed, job.form
        self.own_ids = "event_id" in self.feed.fields
        self.numbered = raw or not self.own_ids or self.form.name not in {"rows", "canonical"}
        self.raw = raw
        base = job.relation.numbered if self.numbered else job.relation.sql
        if job.relation.columns is None:
            base = f"select *, doc is not null as sound from ({base})"
        prepared = self.form.prepare(f"({base})", tuple(job.relation.columns or ()))
        self.base = f"({prepared})"
        self.paths = Paths(job.where, columns_of(con, prepared) if job.relation.columns is not None else None)
        self.documents = job.relation.columns is None
        self.fields: dict[str, str] = {}

    def compile(self) -> Compiled:
        values.check_zone(self.con, self.feed, self.job.where)
        text = {name: self._text(name) for name in ("event_id", "channel", "currency", *PLAIN)}
        name = self._text("action")
        times, received = self._values("occurred_at"), self._values("received_at")
        numbers = {
            field: values.number(found, self.feed) for field in NUMERIC if (found := self._values(field))
        }
        who, consent = self._identifiers(), self._consent()
        self._require(times, name, text["channel"])
        detail = self._detail()
        made = None if self.own_ids else self._fingerprint()
        rows = layered(self.base, self.paths, self.feed, self.form, self.job.where, name, made)
        occurred = coalesced([values.time(value, self.feed) for value in times])
        raw_time = coalesced([value.text for value in times])
        lacks = " or ".join(values.lacks_zone(value, self.feed) for value in times)
        problem, out = self._problems(text, numbers, lacks)
        source = literal(self.job.source)
        columns = {
            "event_id": self._event_id(text["event_id"]),
            "source": source,
            "occurred_at": f"case when {self._broken_clock()} then null else c_t end",
            "received_at": coalesced([*(values.time(value, self.feed) for value in received), "c_t"]),
            "identifiers": who,
            **out,
            "detail": detail,
            "consent": consent,
        }
        listed = ", ".join(
            f"({columns[field.name]})::{SQL_TYPES[str(field.type)]} as {field.name}"
            for field in tables.CANONICAL
        )
        extra = f", c_n as n, {self._raw_row()} as raw" if self.raw else ""
        sql = f"""
            select {listed}, c_name as name, {problem} as problem{extra}
            from (select *, {occurred} as c_t, {raw_time} as c_raw_t from {rows})"""
        return Compiled(sql, self.fields, self._unused(), tuple(self.paths.missing))

    # Where values lie.

    def _path(self, field: str) -> Path | None:
        return self.feed.fields.get(field)  # type: ignore[call-overload, no-any-return]

    def _values(self, field: str) -> list[Value]:
        path = self._path(field)
        found = [] if path is None else self.paths.first(path, f"fields.{field}")
        if found and path is not None:
            self.fields[field] = shown(path)
        return found

    def _text(self, field: str) -> str:
        """SQL of a field's text, with the mapping's words and constants; ``null`` where there is none."""
        found = self._values(field)
        text = coalesced([value.text for value in found]) if found else "null::varchar"
        if field not in ("action",):
            text = values.words(text, self.feed.values.get(field, {}))  # type: ignore[call-overload]
        constant = self.feed.constants.get(field)  # type: ignore[call-overload]
        if constant is not None:
            self.fields.setdefault(field, f"= {constant}")
            return (
                f"coalesce({text}, {literal(str(constant))})"
                if found
                else f"{literal(str(constant))}::varchar"
            )
        return text

    def _identifiers(self) -> str:
        pairs = []
        for kind, path in self.feed.identifiers.items():
            text = self.paths.text(path, f"identifiers.{kind}")
            if text is not None:
                pairs.append((kind, text))
                self.fields[f"identifiers.{kind}"] = shown(path)
        if self.form.name == "canonical" and not pairs:
            own = self._json_column("identifiers")
            customer = self.paths.text("customer_id", "identifiers.customer") if own is None else None
            if customer is not None:
                self.fields["identifiers.customer"] = "customer_id"
                return values.identifiers([("customer", customer)])
            return f"coalesce({own}, '[]')" if own else "'[]'"
        return values.identifiers(pairs)

    def _consent(self) -> str:
        pairs = []
        for purpose, path in self.feed.consent.items():
            text = self.paths.text(path, f"consent.{purpose}")
            if text is not None:
                pairs.append((str(purpose), text))
                self.fields[f"consent.{purpose}"] = shown(path)
        if self.form.name == "canonical" and not pairs:
            own = self._json_column("consent")
            return f"coalesce({own}, '[]')" if own else "'[]'"
        return values.consent(pairs)

    def _json_column(self, name: str) -> str | None:
        """A column of our own that holds JSON, or a list or struct; None where it does not exist."""
        if self.paths.columns is not None and name not in self.paths.columns:
            return None
        value = self.paths.first(name, name)[0]
        self.fields[name] = name
        return value.sql if value.kind == "VARCHAR" else f"to_json({value.sql})::varchar"

    # Rows.

    def _fingerprint(self) -> str:
        if self.documents:
            return "coalesce(line, '')"
        columns = self.job.relation.columns or {}
        return "concat_ws(chr(31), " + ", ".join(f"coalesce({quoted(c)}::varchar, '')" for c in columns) + ")"

    def _raw_row(self) -> str:
        if self.documents:
            return "line"
        packed = ", ".join(f"{quoted(c)} := {quoted(c)}" for c in self.job.relation.columns or {})
        return f"to_json(struct_pack({packed}))::varchar"

    def _event_id(self, own: str) -> str:
        prefix = literal(f"{self.job.name}:")
        identity = own if self.own_ids else "c_made_id"
        line = "" if self.feed.items is None else " || case when c_i is null then '' else '-' || c_i end"
        return f"{prefix} || {identity}{line}"

    # What rows become, and what is wrong with them.

    def _broken_clock(self) -> str:
        earliest = dt.datetime.combine(self.feed.earliest, dt.time(), dt.UTC)
        return f"c_t < {values.instant(earliest)} or c_t > {values.instant(self.job.now + FUTURE_TOLERANCE)}"

    def _problems(
        self, text: dict[str, str], numbers: dict[str, tuple[str, str]], lacks: str
    ) -> tuple[str, dict[str, str]]:
        nan = "'nan'::double"

        def amount(field: str) -> str:
            parsed, broken = numbers.get(field, ("null::double", "false"))
            constant = self.feed.constants.get(field)  # type: ignore[call-overload]
            whole = parsed if constant is None else f"coalesce({parsed}, {float(constant)})"
            return whole if broken == "false" else f"case when {broken} then {nan} else {whole} end"

        quantity = f"case when c_action = 'purchase' then coalesce({amount('quantity')}, 1) else {amount('quantity')} end"
        price = amount("unit_price")
        if "line_total" in numbers:
            price = f"coalesce({price}, {amount('line_total')} / nullif({amount('quantity')}, 0))"
        position = amount("position")
        channel = f"coalesce(c_channel, {text['channel']})"
        out = {name: text[name] for name in PLAIN} | {
            "channel": channel,
            "touchpoint": f"left({text['touchpoint']}, 256)",
            "action": "c_action",
            "quantity": quantity,
            "unit_price": price,
            "discount": amount("discount"),
            "currency": f"coalesce(upper({text['currency']}), {literal(self.feed.currency or self.job.currency)})",
            "position": f"case when isnan({position}) then -1 else try_cast({position} as integer) end",
        }
        actions = ", ".join(map(literal, ACTIONS))
        channels = ", ".join(map(literal, CHANNELS))
        earliest = self.feed.earliest.isoformat()
        cases = [("not sound", "row: not a JSON object")] if self.documents else []
        cases += [
            (f"c_action = {literal(IGNORE)}", IGNORE),
            ("c_raw_t is null", "occurred_at: missing"),
            (f"c_t is null and ({lacks})", f"occurred_at: a time without a zone; set {self.job.where}.time_zone"),
            ("c_t is null", "occurred_at: not a time that can be read"),
            (f"c_t < {values.instant(dt.datetime.combine(self.feed.earliest, dt.time(), dt.UTC))}",
             f"occurred_at: before {earliest}, a broken clock"),
            (self._broken_clock(), "occurred_at: later than the time of reading, a broken clock"),
            *((broken, f"{field}: not a number") for field, (_, broken) in numbers.items() if broken != "false"),
            ("c_action is null", "action: missing"),
            (f"c_action not in ({actions})", "action: a name that the mapping does not know"),
            (f"{channel} is null", "channel: missing"),
            (f"{channel} not in ({channels})", "channel: a name that the mapping does not know"),
            (f"c_action = 'purchase' and {text['product_id']} is null", "product_id: missing in a purchase"),
        ]  # fmt: skip
        return "case " + " ".join(f"when {when} then {literal(then)}" for when, then in cases) + " end", out

    def _detail(self) -> str:
        if isinstance(self.feed.detail, tuple):
            return self._chosen_detail(self.feed.detail)
        if not self.documents:
            packed = ", ".join(f"{quoted(c)} := {_empty_to_null(c, k)}" for c, k in self._rest().items())
            return (
                f"json_merge_patch('{{}}'::json, to_json(struct_pack({packed})))::varchar"
                if packed
                else "'{}'"
            )
        base = f"json_extract(doc, {literal(self.form.detail)})" if self.form.detail else "doc"
        shed = set(self.form.shed) | (set() if self.form.detail else {key for key in self.paths.used if key})
        patch = literal("{" + ",".join(f"{values.json_text(key)}:null" for key in sorted(shed)) + "}")
        item = "" if self.feed.items is None else ", 'item', c_item"
        # Merging drops what is null: an event of one line has no item, an event in our words no other name.
        added = f"json_object('event', case when c_name <> c_action then c_name end{item})"
        return f"json_merge_patch(json_merge_patch(coalesce({base}, '{{}}'::json), {patch}::json), {added})::varchar"

    def _chosen_detail(self, chosen: tuple[str, ...]) -> str:
        if self.form.name == "canonical" and not chosen:
            own = self._json_column("detail")
            return f"coalesce({own}, '{{}}')" if own else "'{}'"
        pairs = [(name, self.paths.text(name, "detail")) for name in chosen]
        self.paths.missing = [entry for entry in self.paths.missing if entry[0] != "detail"]
        packed = ", ".join(f"{literal(name)}, {text}" for name, text in pairs if text is not None)
        return f"json_merge_patch('{{}}'::json, json_object({packed}))::varchar" if packed else "'{}'"

    def _rest(self) -> dict[str, str]:
        if self.feed.items:
            items_of(self.paths, self.feed.items, self.job.where)
        raw = self.job.relation.columns or {}
        return {name: kind for name, kind in raw.items() if name not in self.paths.used}

    def _unused(self) -> tuple[str, ...]:
        return () if self.documents else tuple(self._rest())

    def _require(self, times: list[Value], name: str, channel: str) -> None:
        found = (
            f"; the columns are: {', '.join(self.paths.columns or ())}"
            if self.paths.columns is not None
            else ""
        )
        for field, there in (
            ("occurred_at", bool(times)),
            ("action", name != "null::varchar"),
            ("channel", channel != "null::varchar" or self._names_channels()),
        ):
            if there:
                continue
            path = self._path(field)
            if path is not None:
                raise MappingError(
                    f"{self.job.where}.fields.{field} is {shown(path)!r}, which is not there{found}"
                )
            also = "" if field == "occurred_at" else f" or {self.job.where}.constants.{field}"
            raise MappingError(f"{self.job.where}.fields.{field} is missing; expected a column{also}{found}")

    def _names_channels(self) -> bool:
        return any("@" in ours for ours in self.feed.values.get("action", {}).values())


def columns_of(con: duckdb.DuckDBPyConnection, query: str) -> dict[str, str]:
    """Columns and DuckDB types of a query, without the row number."""
    found = con.execute(f"describe {query}").fetchall()
    return {row[0]: str(row[1]) for row in found if row[0] != "c_n"}


def coalesced(parts: list[str]) -> str:
    """SQL of the first that is not null."""
    return parts[0] if len(parts) == 1 else f"coalesce({', '.join(parts)})"


def _empty_to_null(column: str, kind: str) -> str:
    return f"nullif({quoted(column)}, '')" if kind == "VARCHAR" else quoted(column)


def shown(path: Path) -> str:
    """A path for people."""
    return path if isinstance(path, str) else " or ".join(path)
