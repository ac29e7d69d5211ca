"""The small language in which a shop says whom it means: ``churn >= 0.5 and segment in ('loyal', 'champions')``.

Grammar, weakest first::

    condition  = either { "or" either }
    either     = plain { "and" plain }
    plain      = "not" plain | "(" condition ")" | "everyone" | test
    test       = value ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) value
               | field [ "not" ] "in" "(" literal { "," literal } ")"
               | field [ "not" ] "between" literal "and" literal
               | field "is" [ "not" ] "unknown"
               | flag
    value      = field | literal
    literal    = number | 'text' | "text" | true | false

What is not known matches no test and no negation of one, as in SQL; ``is unknown`` asks for it.

Belongs here: text -> tree, with errors that name the place. Does not belong here: which fields there are, and
what a tree means for rows (`orchestration/outbound/conditions.py`).
"""

from __future__ import annotations

import dataclasses
import re
from typing import Literal, TypeAlias

LONGEST = 4_000
DEEPEST = 40
"""Nesting and length that a person would write; more is refused."""

Operator = Literal["=", "!=", "<", "<=", ">", ">="]
Value: TypeAlias = str | float | bool


class ConditionError(ValueError):
    """A condition that cannot be understood; the message names the place and what was expected."""


@dataclasses.dataclass(frozen=True)
class Field:
    """A field by its name."""

    name: str


@dataclasses.dataclass(frozen=True)
class Everyone:
    """True for every row."""


@dataclasses.dataclass(frozen=True)
class Compare:
    """Two values side by side; at least one is a field."""

    left: Field | Value
    operator: Operator
    right: Field | Value


@dataclasses.dataclass(frozen=True)
class Among:
    """A field's value is one of several."""

    field: Field
    values: tuple[Value, ...]


@dataclasses.dataclass(frozen=True)
class Unknown:
    """Nothing is known of a field."""

    field: Field


@dataclasses.dataclass(frozen=True)
class Flag:
    """A field that is true or false, alone."""

    field: Field


@dataclasses.dataclass(frozen=True)
class Not:
    """The opposite."""

    inner: Condition


@dataclasses.dataclass(frozen=True)
class All:
    """Every part holds."""

    parts: tuple[Condition, ...]


@dataclasses.dataclass(frozen=True)
class Either:
    """At least one part holds."""

    parts: tuple[Condition, ...]


Condition: TypeAlias = Everyone | Compare | Among | Unknown | Flag | Not | All | Either

_TOKEN = re.compile(
    r"""\s*(?:(?P<number>-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![A-Za-z_])
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |'(?P<single>(?:[^']|'')*)'|"(?P<double>(?:[^"]|"")*)"
    |(?P<operator><=|>=|!=|<>|==|=|<|>)|(?P<sign>[(),]))""",
    re.VERBOSE,
)
_WORDS = frozenset(("and", "or", "not", "in", "is", "unknown", "between", "everyone", "true", "false"))
_SPELLINGS: dict[str, Operator] = {
    "=": "=", "==": "=", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">=",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


def parse(text: str) -> Condition:
    """Read a condition.

    Raises:
        ConditionError: Naming the character (from 1) and what was expected there.
    """
    if len(text) > LONGEST:
        raise ConditionError(f"the condition has {len(text)} characters; expected at most {LONGEST}")
    parser = _Parser(_tokens(text), text)
    found = parser.condition(0)
    parser.done()
    return found


def fields_of(condition: Condition) -> tuple[str, ...]:
    """Names of all fields that a condition asks for, in order, once each."""
    names: dict[str, None] = {}

    def walk(node: Condition | Field | Value) -> None:
        match node:
            case Field(name):
                names[name] = None
            case Compare(left, _, right):
                walk(left)
                walk(right)
            case Among(field, _) | Unknown(field) | Flag(field):
                walk(field)
            case Not(inner):
                walk(inner)
            case All(parts) | Either(parts):
                for part in parts:
                    walk(part)

    walk(condition)
    return tuple(names)


def _tokens(text: str) -> list[_Token]:
    found, at = [], 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            start = at + len(text[at:]) - len(text[at:].lstrip())
            raise ConditionError(
                f"character {start + 1}: cannot read {text[start : start + 12]!r}; "
                "expected a field, a number, a 'text', an operator or a parenthesis"
            )
        kind, value = match.lastgroup, match.group(match.lastgroup)
        if kind in ("single", "double"):
            quote = "'" if kind == "single" else '"'
            value = value.replace(quote * 2, quote)
            kind = "text"
        elif kind == "name" and value.lower() in _WORDS:
            kind, value = "word", value.lower()
        start = match.end() - len(match.group().lstrip())
        found.append(_Token(kind, value, start + 1))
        at = match.end()
    return found


class _Parser:
    def __init__(self, tokens: list[_Token], text: str) -> None:
        self._tokens = tokens
        self._place = 0
        self._end = len(text) + 1

    def condition(self, depth: int) -> Condition:
        if depth > DEEPEST:
            raise ConditionError(
                f"character {self._at()}: nested more than {DEEPEST} deep; expected a flatter condition"
            )
        parts = [self._either(depth)]
        while self._take("word", "or"):
            parts.append(self._either(depth))
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def done(self) -> None:
        if self._place < len(self._tokens):
            raise self._unexpected("'and', 'or' or the end")

    def _either(self, depth: int) -> Condition:
        parts = [self._plain(depth)]
        while self._take("word", "and"):
            parts.append(self._plain(depth))
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _plain(self, depth: int) -> Condition:
        if self._take("word", "not"):
            if depth > DEEPEST:
                raise self._unexpected("fewer 'not'")
            return Not(self._plain(depth + 1))
        if self._take("sign", "("):
            inner = self.condition(depth + 1)
            self._need("sign", ")", "')'")
            return inner
        if self._take("word", "everyone"):
            return Everyone()
        return self._test()

    def _test(self) -> Condition:
        left = self._value()
        if self._look("operator"):
            operator = _SPELLINGS[self._next().text]
            right = self._value()
            if not isinstance(left, Field) and not isinstance(right, Field):
                raise self._unexpected("a field on at least one side of a comparison", back=True)
            return Compare(left, operator, right)
        if not isinstance(left, Field):
            raise self._unexpected("an operator such as = or >=")
        if self._take("word", "is"):
            negated = self._take("word", "not")
            self._need("word", "unknown", "'unknown'")
            return Not(Unknown(left)) if negated else Unknown(left)
        negated = self._take("word", "not")
        if self._take("word", "in"):
            self._need("sign", "(", "'(' and values")
            values = [self._literal()]
            while self._take("sign", ","):
                values.append(self._literal())
            self._need("sign", ")", "',' or ')'")
            found: Condition = Among(left, tuple(values))
        elif self._take("word", "between"):
            low = self._literal()
            self._need("word", "and", "'and' and the upper value")
            found = All((Compare(left, ">=", low), Compare(left, "<=", self._literal())))
        elif negated:
            raise self._unexpected("'in' or 'between' after 'not'")
        else:
            return Flag(left)
        return Not(found) if negated else found

    def _value(self) -> Field | Value:
        if self._look("name"):
            return Field(self._next().text)
        return self._literal("a field or a value")

    def _literal(self, wanted: str = "a number, a 'text', true or false") -> Value:
        if self._look("number"):
            return float(self._next().text)
        if self._look("text"):
            return self._next().text
        if self._look("word", "true") or self._look("word", "false"):
            return self._next().text == "true"
        raise self._unexpected(wanted)

    def _look(self, kind: str, text: str | None = None) -> bool:
        token = self._tokens[self._place] if self._place < len(self._tokens) else None
        return token is not None and token.kind == kind and text in (None, token.text)

    def _take(self, kind: str, text: str) -> bool:
        found = self._look(kind, text)
        self._place += found
        return found

    def _next(self) -> _Token:
        self._place += 1
        return self._tokens[self._place - 1]

    def _need(self, kind: str, text: str, wanted: str) -> None:
        if not self._take(kind, text):
            raise self._unexpected(wanted)

    def _at(self) -> int:
        return self._tokens[self._place].at if self._place < len(self._tokens) else self._end

    def _unexpected(self, wanted: str, back: bool = False) -> ConditionError:
        self._place -= back
        found = repr(self._tokens[self._place].text) if self._place < len(self._tokens) else "the end"
        return ConditionError(f"character {self._at()}: found {found}; expected {wanted}")
