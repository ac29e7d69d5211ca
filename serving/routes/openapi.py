"""OpenAPI 3.1, generated from the table of operations and the wire types.

Belongs here: the document. Does not belong here: anything written by hand about a type; its docstring
says it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, get_args, get_origin

import msgspec

from serving.routes.problems import KINDS, MEDIA_TYPE, ProblemBody
from serving.routes.table import OPERATIONS, Operation

_REF = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"\{(\w+)\}")
_ATTRIBUTE = re.compile(r"^ {4,12}(\w+): (.+)$")


def document(title: str, version: str) -> dict[str, Any]:
    """The OpenAPI document.

    Args:
        title: Of the shop.
        version: Of the code.
    """
    types = [*_types(OPERATIONS), ProblemBody]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    by_type = dict(zip([repr(kind) for kind in types], schemas, strict=True))
    for kind in _structs(types):
        _describe(components.get(kind.__name__, {}), kind)
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        described = _operation(operation, by_type, components)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    for operation in OPERATIONS:
        if (
            operation.query is not None
        ):  # Its fields stand with the operation, and nothing refers to it as a whole.
            components.pop(operation.query.__name__, None)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Continuum: {title}",
            "version": version,
            "summary": "Live recommendations, search by photo and words, durable event intake, decision records",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": components},
    }


def _types(operations: Iterable[Operation]) -> list[Any]:
    seen: dict[str, Any] = {}
    for operation in operations:
        for kind in (operation.body, operation.query, *operation.answers.values()):
            if kind is not None:
                seen.setdefault(repr(kind), kind)
    return list(seen.values())


def _operation(operation: Operation, schemas: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": f"{operation.method.lower()}_{operation.handler.__name__}",
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": {},
    }
    if operation.handler.__doc__:
        described["description"] = " ".join(operation.handler.__doc__.split())
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(operation.path)
    ]
    if operation.query is not None:
        parameters += _query(components[operation.query.__name__])
    if parameters:
        described["parameters"] = parameters
    if operation.media:
        binary = {"schema": {"type": "string", "format": "binary"}}
        described["requestBody"] = {"required": True, "content": dict.fromkeys(operation.media, binary)}
    if operation.body is not None:
        media = {"schema": schemas[repr(operation.body)]}
        if operation.example is not None:
            media["example"] = operation.example
        described["requestBody"] = {"required": True, "content": {"application/json": media}}
    for status, kind in operation.answers.items():
        answer: dict[str, Any] = {"description": operation.summary}
        if kind is not None:
            answer["content"] = {"application/json": {"schema": schemas[repr(kind)]}}
        described["responses"][str(status)] = answer
    by_status: dict[int, list[str]] = {}
    for name in operation.problems:
        by_status.setdefault(KINDS[name].status, []).append(name)
    for status, names in by_status.items():
        described["responses"][str(status)] = {
            "description": "; ".join(f"{name}: {KINDS[name].title}" for name in names),
            "content": {MEDIA_TYPE: {"schema": schemas[repr(ProblemBody)]}},
        }
    return described


def _query(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Fields of a struct as query parameters; one with several values is repeated."""
    required = schema.get("required", ())
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "description": field.get("description", ""),
            "schema": {key: value for key, value in field.items() if key != "description"},
        }
        for name, field in schema.get("properties", {}).items()
    ]


def _structs(types: Iterable[Any]) -> list[type[msgspec.Struct]]:
    """Every struct that can be reached from the types."""
    found: dict[str, type[msgspec.Struct]] = {}
    waiting = list(types)
    while waiting:
        kind = waiting.pop()
        if get_origin(kind) is not None:
            waiting.extend(get_args(kind))
        elif isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind.__name__ not in found:
            found[kind.__name__] = kind
            waiting.extend(field.type for field in msgspec.structs.fields(kind))
    return list(found.values())


def _describe(schema: dict[str, Any], kind: type[msgspec.Struct]) -> None:
    """Move the ``Attributes`` of the docstring to the properties."""
    lines = (kind.__doc__ or "").splitlines()
    if lines:
        schema["description"] = lines[0]
    texts: dict[str, str] = {}
    name = ""
    for base in reversed(kind.__mro__):
        for line in (getattr(base, "__doc__", None) or "").splitlines():
            match = _ATTRIBUTE.match(line)
            if match and match.group(1) in kind.__struct_fields__:
                name = match.group(1)
                texts[name] = match.group(2).strip()
            elif name and line.startswith("            ") and line.strip():
                texts[name] += f" {line.strip()}"
            else:
                name = ""
    for field, text in texts.items():
        if field in schema.get("properties", {}):
            schema["properties"][field]["description"] = text.replace("``", "'")
