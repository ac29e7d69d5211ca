"""What a condition means for rows: the tree of `contracts.conditions`, checked and made an Ibis expression.

Nothing of the yaml is ever run as code or as SQL: values reach the backend as literals that Ibis quotes.

Belongs here: types, the expression. Does not belong here: reading the text (`contracts/conditions.py`).
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from contracts import conditions as language
from contracts.conditions import All, Among, Compare, Condition, Either, Everyone, Flag, Not, Unknown
from contracts.outbound import OutboundError
from orchestration.outbound.fields import Field

if TYPE_CHECKING:
    import ibis.expr.types as ir

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_KINDS = {str: "text", float: "number", bool: "flag"}


def check(condition: Condition, fields: Mapping[str, Field], where: str) -> None:
    """Hold a condition against the fields that there are.

    Args:
        condition: As read.
        fields: By name.
        where: Begins every message.

    Raises:
        OutboundError: An unknown field, or a comparison of things that cannot be compared.
    """

    def kind(value: language.Field | language.Value) -> str:
        if not isinstance(value, language.Field):
            return _KINDS[type(value)]
        if value.name not in fields:
            raise OutboundError(f"{where}: there is no field '{value.name}'{_near(value.name, fields)}")
        found = fields[value.name].type
        if found == "time":
            raise OutboundError(f"{where}: field '{value.name}' is a time, which conditions cannot compare")
        return found

    def walk(node: Condition) -> None:
        match node:
            case Compare(left, sign, right):
                kinds = kind(left), kind(right)
                if kinds[0] != kinds[1]:
                    raise OutboundError(
                        f"{where}: {_name(left)} {sign} {_name(right)} compares a {kinds[0]} with a {kinds[1]}; "
                        "expected two of a kind"
                    )
                if kinds[0] != "number" and sign not in ("=", "!="):
                    raise OutboundError(
                        f"{where}: {_name(left)} {sign} {_name(right)}: expected = or != for a {kinds[0]}"
                    )
            case Among(field, values):
                for value in values:
                    if kind(value) != kind(field):
                        raise OutboundError(
                            f"{where}: '{field.name}' is a {kind(field)}; expected values of that kind, not {value!r}"
                        )
            case Flag(field):
                if kind(field) != "flag":
                    raise OutboundError(
                        f"{where}: '{field.name}' alone is a {kind(field)}; expected a comparison such as {field.name} "
                        + ("= 'text'" if kind(field) == "text" else "> 0")
                    )
            case Unknown(field):
                kind(field)
            case Not(inner):
                walk(inner)
            case All(parts) | Either(parts):
                for part in parts:
                    walk(part)
            case Everyone():
                pass

    walk(condition)  # fmt: skip


def expression(condition: Condition, table: ir.Table) -> Any:
    """The condition over the columns of an Ibis table; null where it cannot be told."""
    import ibis

    def value(found: language.Field | language.Value) -> Any:
        return table[found.name] if isinstance(found, language.Field) else ibis.literal(found)

    def walk(node: Condition) -> Any:
        match node:
            case Everyone():
                return ibis.literal(True)
            case Compare(left, sign, right):
                return _OPERATORS[sign](value(left), value(right))
            case Among(field, values):
                return table[field.name].isin([ibis.literal(each) for each in values])
            case Unknown(field):
                return table[field.name].isnull()
            case Flag(field):
                return table[field.name]
            case Not(inner):
                return ~walk(inner)
            case All(parts):
                return functools.reduce(operator.and_, map(walk, parts))
            case Either(parts):
                return functools.reduce(operator.or_, map(walk, parts))

    return walk(condition)


def _name(value: language.Field | language.Value) -> str:
    return value.name if isinstance(value, language.Field) else repr(value)


def _near(name: str, fields: Mapping[str, Field]) -> str:
    import difflib

    near = difflib.get_close_matches(name, fields, 3)
    return f"; did you mean {' or '.join(near)}?" if near else f"; expected one of: {', '.join(fields)}"
