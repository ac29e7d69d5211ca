"""Arrays of a release's files, checked as they are read.

Belongs here: kind and shape. Does not belong here: what arrays mean (`index.py`, `sizes.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.visual import INDEX_FILE
from serving.engine.items import TableError


def read_array(
    arrays: Mapping[str, NDArray[Any]], key: str, kind: str, shape: tuple[int, ...], file: str = INDEX_FILE
) -> NDArray[Any]:
    """One array of a file, of a kind of numpy type and a shape in which -1 stands for any length."""
    column = arrays.get(key)
    if column is None:
        raise TableError(f"{file}: '{key}' is missing")
    fits = column.ndim == len(shape) and all(w in (-1, h) for w, h in zip(shape, column.shape, strict=True))
    empty_text = kind == "U" and column.size == 0
    if not fits or (column.dtype.kind != kind and not empty_text):
        raise TableError(
            f"{file}: '{key}' is {column.dtype}{list(column.shape)}; expected {kind}{list(shape)}"
        )
    return column.astype(np.str_) if empty_text else column
