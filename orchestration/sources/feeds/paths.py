"""The paths of a mapping, as SQL.

A path names a column, a JSON path (``$.a.b[0]``; ``@.a`` inside an exploded item), a template
(``store:{shop}``) or ``sha256(path)``. Over documents all JSON paths are read by one call, so that a
document is parsed once.

Belongs here: path text -> SQL text. Does not belong here: what a value means (`mapping.py`).
"""

from __future__ import annotations

import dataclasses
import re

from contracts.retailer import Path
from feature_repo.snapshots import literal, quoted

_STEP = re.compile(r"""\.(?:"([^"]+)"|([^.\[\]"{}()]+))|\[(\d+|\#-\d+)\]""")
_HASHED = re.compile(r"sha256\((.+)\)")
_HOLE = re.compile(r"\{([^{}]+)\}")


class MappingError(ValueError):
    """A mapping that cannot be applied; the message names the key and what was expected."""


@dataclasses.dataclass(frozen=True)
class Value:
    """A value's SQL and its DuckDB type."""

    sql: str
    kind: str = "VARCHAR"

    @property
    def text(self) -> str:
        """The value as text, null where it is empty."""
        plain = self.sql if self.kind == "VARCHAR" else f"({self.sql})::varchar"
        return f"nullif(trim({plain}), '')"


class Paths:
    """Compiles paths over one relation and remembers what they used and missed.

    Attributes:
        columns: Column -> DuckDB type, or None over documents.
        doc: JSON paths into the document, in the order of ``c_d``.
        item: JSON paths into the item, in the order of ``c_e``.
        used: Columns, or top-level keys of documents, that some path reads.
        missing: (key of the mapping, column) that the relation does not have.
    """

    def __init__(self, where: str, columns: dict[str, str] | None) -> None:
        self.where = where
        self.columns = columns
        self.doc: list[str] = []
        self.item: list[str] = []
        self.used: set[str] = set()
        self.missing: list[tuple[str, str]] = []

    def first(self, path: Path, key: str) -> list[Value]:
        """The values of a path or of a list of them; columns that do not exist are left out and noted."""
        single = isinstance(path, str)
        found = [self._one(one, key) for one in ((path,) if isinstance(path, str) else path)]
        values = [value for value, _ in found if value is not None]
        if not values:
            self.missing += [(key, name) for _, name in found[: 1 if single else None] if name]
        return values

    def text(self, path: Path, key: str) -> str | None:
        """SQL of the first value that is not empty, as text; None where no column exists."""
        values = self.first(path, key)
        if not values:
            return None
        return values[0].text if len(values) == 1 else f"coalesce({', '.join(v.text for v in values)})"

    def _one(self, path: str, key: str) -> tuple[Value | None, str]:
        hashed = _HASHED.fullmatch(path.strip())
        if hashed:
            inner, missing = self._one(hashed.group(1), key)
            return (None if inner is None else Value(f"sha256(lower({inner.text}))")), missing
        if "{" in path:
            return self._template(path, key)
        if path.startswith("@"):
            return Value(f"c_e[{_index(self.item, json_path(path, '@', self._name(key)))}]"), ""
        if self.columns is None:
            full = path if path.startswith("$") else f'$."{path}"'
            normal = json_path(full, "$", self._name(key))
            self.used.add(_STEP.findall(normal)[0][0] if "." in normal else "")
            return Value(f"c_d[{_index(self.doc, normal)}]"), ""
        return self._column(path, key)

    def _column(self, path: str, key: str) -> tuple[Value | None, str]:
        columns = self.columns or {}
        name, rest = path, ""
        if path.startswith("$."):
            steps = [
                next(filter(None, step)) for step in _STEP.findall(json_path(path, "$", self._name(key)))
            ]
            name, rest = steps[0], json_path(path, "$", self._name(key)).removeprefix(f'$."{steps[0]}"')
        if name not in columns:
            same = [column for column in columns if column.lower().strip() == name.lower().strip()]
            if len(same) != 1:
                return None, name
            name = same[0]
        self.used.add(name)
        if not rest:
            return Value(quoted(name), columns[name]), ""
        whole = (
            f"try_cast({quoted(name)} as json)" if columns[name] == "VARCHAR" else f"to_json({quoted(name)})"
        )
        return Value(f"json_extract_string({whole}, {literal('$' + rest)})"), ""

    def _template(self, path: str, key: str) -> tuple[Value | None, str]:
        parts: list[str] = []
        at = 0
        for hole in _HOLE.finditer(path):
            parts.append(literal(path[at : hole.start()]))
            inner, missing = self._one(hole.group(1), key)
            if inner is None:
                return None, missing
            parts.append(inner.text)
            at = hole.end()
        parts.append(literal(path[at:]))
        if len(parts) == 1 or "{" in path[at:]:
            raise MappingError(f"{self._name(key)} is '{path}'; expected a template such as 'store:{{shop}}'")
        return Value(" || ".join(part for part in parts if part != "''")), ""

    def _name(self, key: str) -> str:
        return f"{self.where}.{key}"


def _index(paths: list[str], path: str) -> int:
    if path not in paths:
        paths.append(path)
    return paths.index(path) + 1


def json_path(path: str, root: str, name: str) -> str:
    """A JSON path with every key in quotes, as DuckDB reads it without doubt.

    Raises:
        MappingError: Not a path.
    """
    at, out = len(root), "$"
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            raise MappingError(
                f"{name} is '{path}'; expected a JSON path such as {root}.properties.product_id"
            )
        out += f'."{step.group(1) or step.group(2)}"' if step.group(3) is None else f"[{step.group(3)}]"
        at = step.end()
    return out
