"""A simulated shop as a folder of Parquet files that appears whole or not at all.

Belongs here: writing the tables. Does not belong here: reading them in the lake's words
(`orchestration/sources/atelier.py`).
"""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile

import msgspec
import pyarrow.parquet as pq

from training.rehearsal.config import RehearsalError
from training.rehearsal.simulate import Atelier

CONFIG_FILE = "config.json"
ROW_GROUP = 131_072
"""Rows of a row group; events lie in time order, so that a day is found by its statistics."""


def write(shop: Atelier, folder: pathlib.Path) -> pathlib.Path:
    """Write all tables as ``<table>.parquet`` with the config beside them.

    Args:
        shop: What was simulated.
        folder: Where to; must not exist yet, or be empty.

    Returns:
        The folder.

    Raises:
        RehearsalError: The folder holds something.
    """
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RehearsalError(f"out is {folder}, which exists and is not empty; expected a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    half = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, table in shop.tables().items():
            pq.write_table(table, half / f"{name}.parquet", row_group_size=ROW_GROUP, compression="zstd")
        (half / CONFIG_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(shop.config), indent=1))
        half.chmod(0o755)
        os.replace(half, folder)
    except OSError:
        shutil.rmtree(half, ignore_errors=True)
        # Another process may have been first: the same config gives the same shop.
        if not (folder / CONFIG_FILE).is_file():
            raise
    return folder
