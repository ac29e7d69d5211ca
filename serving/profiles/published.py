"""A file that orchestration publishes and the server holds in memory: read again when it changes.

Belongs here: noticing the change. Does not belong here: what is in a file (`predictions.py`, `outlook.py`, `intent.py`).
"""

from __future__ import annotations

import pathlib
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Published(Generic[T]):
    """The newest content of one file.

    Args:
        folder: Where orchestration publishes, or None for nowhere.
        name: Name of the file.
        read: From the file to its content; what it raises reaches the caller of `current`, every time anew.
    """

    def __init__(self, folder: pathlib.Path | None, name: str, read: Callable[[pathlib.Path], T]) -> None:
        self._path = None if folder is None else folder / name
        self._read = read
        self._lock = threading.Lock()
        self._seen: tuple[int, int] | None = None
        self._content: T | None = None

    def current(self) -> T | None:
        """The content, or None where nothing is published."""
        if self._path is None:
            return None
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        with self._lock:
            seen = (status.st_mtime_ns, status.st_ino)
            if seen != self._seen:
                self._content, self._seen = self._read(self._path), seen
            return self._content
