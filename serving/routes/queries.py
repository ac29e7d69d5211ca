"""Reading query parameters into a typed request.

Belongs here: from text to a struct. Does not belong here: what it means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_origin

import msgspec
from starlette.requests import Request

from serving.inbox.intake import field_of
from serving.routes.problems import FieldError, ProblemError

Query = TypeVar("Query", bound=msgspec.Struct)


def read_query(request: Request, kind: type[Query], fixed: Mapping[str, Any] | None = None) -> Query:
    """The query parameters of a request; a parameter that may have several values is repeated.

    Args:
        request: The request.
        kind: Struct with a field per parameter.
        fixed: Fields that do not come from the query.

    Raises:
        ProblemError: A parameter is unknown, given twice, or out of its range.
    """
    many = {field.name for field in msgspec.structs.fields(kind) if _is_many(field.type)}
    values: dict[str, Any] = dict(fixed or {})
    for name in request.query_params:
        found: Sequence[str] = request.query_params.getlist(name)
        if name in many:
            values[name] = found
        elif len(found) == 1:
            values[name] = found[0]
        else:
            message = f"`$.{name}` is given {len(found)} times; expected once"
            raise ProblemError("invalid-request", message, (FieldError(field=name, message=message),))
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        field = FieldError(field=field_of(str(error)), message=str(error))
        raise ProblemError("invalid-request", str(error), (field,)) from error


def _is_many(kind: Any) -> bool:
    inner = getattr(kind, "__origin__", kind) if hasattr(kind, "__metadata__") else kind
    return get_origin(inner) is tuple
