"""The language of conditions: what it accepts, how it says no, and that rows are judged as a plain reading says."""

from __future__ import annotations

from typing import Any

import duckdb
import ibis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.conditions import (
    All,
    Among,
    Compare,
    Condition,
    ConditionError,
    Either,
    Everyone,
    Field,
    Flag,
    Not,
    Unknown,
    fields_of,
    parse,
)  # fmt: skip
from contracts.outbound import OutboundError
from orchestration.outbound import fields as catalogue
from orchestration.outbound.conditions import check, expression

FIELDS = {
    "churn": catalogue.Field("churn", "number", "prediction", ""),
    "orders": catalogue.Field("orders", "number", "behaviour", ""),
    "segment": catalogue.Field("segment", "text", "segment", ""),
    "vip": catalogue.Field("vip", "flag", "profile", ""),
    "at": catalogue.Field("at", "time", "action", ""),
}


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("churn >= .5", Compare(Field("churn"), ">=", 0.5)),
        ("-1e3 < churn", Compare(-1000.0, "<", Field("churn"))),
        ("segment = 'it''s'", Compare(Field("segment"), "=", "it's")),
        ('segment <> "a"', Compare(Field("segment"), "!=", "a")),
        ("vip", Flag(Field("vip"))),
        ("vip = true", Compare(Field("vip"), "=", True)),
        ("not vip and orders = 1 or everyone",
         Either((All((Not(Flag(Field("vip"))), Compare(Field("orders"), "=", 1.0))), Everyone()))),
        ("not (vip or vip)", Not(Either((Flag(Field("vip")), Flag(Field("vip")))))),
        ("segment in ('a', 'b')", Among(Field("segment"), ("a", "b"))),
        ("segment NOT IN ('a')", Not(Among(Field("segment"), ("a",)))),
        ("churn between 0 and 1 and vip",
         All((All((Compare(Field("churn"), ">=", 0.0), Compare(Field("churn"), "<=", 1.0))), Flag(Field("vip"))))),
        ("churn is not unknown", Not(Unknown(Field("churn")))),
        ("orders > churn", Compare(Field("orders"), ">", Field("churn"))),
    ],
)  # fmt: skip
def test_what_a_condition_means(text: str, tree: Condition) -> None:
    assert parse(text) == tree


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "character 1: found the end; expected a field or a value"),
        ("churn >", "character 8: found the end; expected a field or a value"),
        ("churn = 1 orders = 2", "character 11: found 'orders'; expected 'and', 'or' or the end"),
        ("(churn = 1", "character 11: found the end; expected '\\)'"),
        ("1 = 2", "expected a field on at least one side"),
        ("churn; drop table people", "character 6: cannot read '; drop table"),
        ("__import__('os')", "found '\\('; expected 'and', 'or' or the end"),
        ("segment = 'open", "cannot read"),
        ("segment in ()", "character 13: found '\\)'; expected a number, a 'text'"),
        ("churn is null", "expected 'unknown'"),
        ("churn not 1", "expected 'in' or 'between' after 'not'"),
        ("1", "expected an operator"),
        ("12abc > 1", "cannot read"),
        ("(" * 50 + "vip" + ")" * 50, "nested more than 40 deep"),
        ("not " * 50 + "vip", "expected fewer 'not'"),
        ("vip or " * 1000 + "vip", "expected at most 4000"),
    ],
)
def test_what_cannot_be_understood_is_named_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ConditionError, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chrun > 1", "there is no field 'chrun'; did you mean churn"),
        ("churn > 'much'", "compares a number with a text"),
        ("segment > 'a'", "expected = or != for a text"),
        ("segment", "'segment' alone is a text; expected a comparison such as segment = 'text'"),
        ("segment in ('a', 1)", "'segment' is a text; expected values of that kind, not 1.0"),
        ("at is unknown", "'at' is a time"),
        ("churn = vip", "compares a number with a flag"),
    ],
)
def test_types_are_checked(text: str, message: str) -> None:
    with pytest.raises(OutboundError, match=f"^here: .*{message}"):
        check(parse(text), FIELDS, "here")


def test_fields_that_are_asked_for() -> None:
    assert fields_of(parse("churn > 1 and (segment in ('a') or not vip) and churn is unknown")) == (
        "churn",
        "segment",
        "vip",
    )


ROWS = [
    {"churn": churn, "orders": orders, "segment": segment, "vip": vip}
    for churn in (None, 0.0, 0.5, 1.0)
    for orders in (None, 0.0, 3.0)
    for segment in (None, "loyal", "it's; drop table t --")
    for vip in (None, True, False)
]

_number = st.sampled_from(["0", "0.5", "1", "3", "-1"])
_text = st.sampled_from(["'loyal'", "'it''s; drop table t --'", "'x'"])
_leaf = st.one_of(
    st.builds(lambda f, o, v: f"{f} {o} {v}", st.sampled_from(["churn", "orders"]),
              st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), _number),
    st.builds(lambda o, v: f"segment {o} {v}", st.sampled_from(["=", "!="]), _text),
    st.builds(lambda n, v: f"segment {n} in ({', '.join(v)})", st.sampled_from(["", "not"]), st.lists(_text, min_size=1)),
    st.builds(lambda f, n: f"{f} is {n} unknown", st.sampled_from(["churn", "segment", "vip"]),
              st.sampled_from(["", "not"])),
    st.sampled_from(["vip", "vip = false", "everyone", "orders > churn", "churn between 0 and 0.5"]),
)  # fmt: skip
_condition = st.recursive(
    _leaf,
    lambda inner: st.one_of(
        st.builds("({} and {})".format, inner, inner),
        st.builds("({} or {})".format, inner, inner),
        st.builds("not ({})".format, inner),
    ),
    max_leaves=8,
)


def truth(node: Condition, row: dict[str, Any]) -> bool | None:
    """A plain reading in three values; None is what cannot be told."""

    def value(found: Any) -> Any:
        return row[found.name] if isinstance(found, Field) else found

    match node:
        case Everyone():
            return True
        case Flag(field):
            return value(field)  # type: ignore[no-any-return]
        case Unknown(field):
            return value(field) is None
        case Among(field, values):
            return None if value(field) is None else value(field) in values
        case Compare(left, sign, right):
            a, b = value(left), value(right)
            if a is None or b is None:
                return None
            return bool({"=": a == b, "!=": a != b}[sign] if sign in ("=", "!=") else
                        {"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[sign])  # fmt: skip
        case Not(inner):
            found = truth(inner, row)
            return None if found is None else not found
        case All(parts):
            all_found = [truth(part, row) for part in parts]
            return False if False in all_found else None if None in all_found else True
        case Either(parts):
            any_found = [truth(part, row) for part in parts]
            return True if True in any_found else None if None in any_found else False
    raise AssertionError(node)


@pytest.fixture(scope="module")
def table() -> Any:
    con = duckdb.connect()
    con.execute("create table t (id integer, churn double, orders double, segment varchar, vip boolean)")
    con.executemany(
        "insert into t values (?, ?, ?, ?, ?)", [(n, *row.values()) for n, row in enumerate(ROWS)]
    )
    return con, ibis.duckdb.from_connection(con).table("t")


@settings(max_examples=150, deadline=None)
@given(text=_condition)
def test_rows_are_judged_as_a_plain_reading_says(table: Any, text: str) -> None:
    con, rows = table
    tree = parse(text)
    check(tree, FIELDS, "here")
    query = ibis.to_sql(rows.filter(expression(tree, rows)).select("id"), dialect="duckdb")
    found = {row[0] for row in con.execute(query).fetchall()}
    assert found == {n for n, row in enumerate(ROWS) if truth(tree, row) is True}
    assert con.execute("select count(*) from t").fetchone() == (len(ROWS),)
