"""The folder of a visual bundle: staged beside its place, and put there when it is whole.

Belongs here: files of any visual family. Does not belong here: what a family writes.
"""

from __future__ import annotations

import hashlib
import pathlib
import shutil

from training.config import Bundle, read_bundle, write_bundle
from training.visual.config import VisualConfig


def stage(config: VisualConfig) -> pathlib.Path:
    """An empty folder beside the bundle's, to be renamed when all is written."""
    out = pathlib.Path(config.out)
    staged = out.with_name(f".tmp-{out.name}")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    return staged


def finish(config: VisualConfig, staged: pathlib.Path, bundle: Bundle) -> Bundle:
    """Write the record, which marks the bundle as complete, and put the folder in its place."""
    out = pathlib.Path(config.out)
    write_bundle(staged, bundle)
    shutil.rmtree(out, ignore_errors=True)
    staged.rename(out)
    return read_bundle(out)


def sha256(path: pathlib.Path) -> str:
    """Hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
