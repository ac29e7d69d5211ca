"""The folder of a visual bundle: staged beside its place, and put there when it is whole.

Belongs here: files of any visual family. Does not belong here: what a family writes.
"""

from __future__ import annotations

import hashlib
import pathlib

from training.config import Bundle, put, read_bundle, write_bundle
from training.visual.config import VisualConfig


def finish(config: VisualConfig, staged: pathlib.Path, bundle: Bundle) -> Bundle:
    """Write the record, which marks the bundle as complete, and put the folder in its place."""
    write_bundle(staged, bundle)
    return read_bundle(put(staged, config.out))


def sha256(path: pathlib.Path) -> str:
    """Hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
