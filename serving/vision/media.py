"""Pictures that pages show: which there are and where they lie.

Belongs here: names and addresses. Does not belong here: HTTP, making them (an asset writes them).
"""

from __future__ import annotations

import os
import pathlib

from contracts.visual import LOOKS_FOLDER, MEDIA, MEDIA_NAME

SUFFIX = ".jpg"


class Media:
    """Pictures below one folder: products at its top, looks in their own folder.

    Args:
        folder: `contracts.visual.MEDIA` below CONTINUUM_HOME; None or missing for no pictures.
    """

    def __init__(self, folder: pathlib.Path | None) -> None:
        self._folder = folder
        self._known: dict[bool, tuple[int, frozenset[str]]] = {}

    def address(self, name: str, look: bool = False) -> str | None:
        """Address of a picture on this server, or None where there is none."""
        if name not in self._names(look):
            return None
        return f"/{MEDIA}/{LOOKS_FOLDER}/{name}{SUFFIX}" if look else f"/{MEDIA}/{name}{SUFFIX}"

    def path(self, name: str, look: bool = False) -> pathlib.Path | None:
        """File of a picture, or None where the name cannot be one's or there is none."""
        folder = self._place(look)
        if folder is None or MEDIA_NAME.fullmatch(name) is None:
            return None
        path = folder / f"{name}{SUFFIX}"
        return path if path.is_file() and not path.is_symlink() else None

    def _place(self, look: bool) -> pathlib.Path | None:
        if self._folder is None:
            return None
        return self._folder / LOOKS_FOLDER if look else self._folder

    def _names(self, look: bool) -> frozenset[str]:
        """Names of all pictures; the folder is read again when it changed."""
        folder = self._place(look)
        try:
            changed = 0 if folder is None else folder.stat().st_mtime_ns
        except OSError:
            changed = 0
        if folder is None or not changed:
            return frozenset()
        known = self._known.get(look)
        if known is None or known[0] != changed:
            stems = (name.removesuffix(SUFFIX) for name in os.listdir(folder) if name.endswith(SUFFIX))
            known = self._known[look] = changed, frozenset(s for s in stems if MEDIA_NAME.fullmatch(s))
        return known[1]
