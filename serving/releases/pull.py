"""From a registry to a proven folder in the local cache.

A release is written to a hidden temporary folder, verified there file by file while it arrives, synced
and renamed, so a visible folder is complete. The cache is what a server starts from while the registry
is down.

Belongs here: copying, the cache's bookkeeping. Does not belong here: loading (`release.py`).
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile
import time
from typing import TYPE_CHECKING

import msgspec

from contracts.release import MANIFEST_FILE, SIGNATURE_FILE
from serving.releases.registry import Pointer, Registry
from serving.releases.verify import (
    MAX_MANIFEST_BYTES,
    MAX_SIGNATURE_BYTES,
    ReleaseError,
    Verified,
    check_file,
    check_manifest,
    manifest_files,
    verify_folder,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

TEMPORARY = ".tmp-"
ABANDONED_SECONDS = 3_600
KEPT = 5
SERVED_FILE = "SERVED"
"""In the cache: JSON of `Served`, what the server last answered with."""


class Served(msgspec.Struct, frozen=True):
    """What the cache remembers.

    Attributes:
        release: Folder name in the cache.
        version: Version in the registry.
    """

    release: str
    version: str


def pull(registry: Registry, pointer: Pointer, key: Ed25519PublicKey, cache: pathlib.Path) -> Verified:
    """Bring a version into the cache, or find it there, and prove it.

    Raises:
        RegistryError: The registry cannot be reached.
        ReleaseError: The release is unsigned, incomplete or changed.
        OSError: The cache cannot be written, for example because the disk is full.
    """
    raw = registry.fetch(pointer, MANIFEST_FILE, MAX_MANIFEST_BYTES)
    signature = registry.fetch(pointer, SIGNATURE_FILE, MAX_SIGNATURE_BYTES)
    manifest = check_manifest(raw, signature, key)
    target = cache / manifest.release
    if target.exists():
        with contextlib.suppress(ReleaseError):
            found = verify_folder(target, key)
            if found.manifest == manifest:
                return found
    cache.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=cache))
    try:
        files: dict[str, bytes] = {}
        for file in manifest_files(manifest):
            files[file.path] = check_file(file, registry.fetch(pointer, file.path, file.size))
            _write(temporary / file.path, files[file.path])
        _write(temporary / MANIFEST_FILE, raw)
        _write(temporary / SIGNATURE_FILE, signature)
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
        _sync_folder(cache)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return Verified(manifest, files)


def read_served(cache: pathlib.Path) -> Served | None:
    """What the server last answered with, or None for a fresh or damaged cache."""
    try:
        return msgspec.json.decode((cache / SERVED_FILE).read_bytes(), type=Served)
    except (OSError, msgspec.ValidationError, msgspec.DecodeError):
        return None


def write_served(cache: pathlib.Path, served: Served) -> None:
    """Remember what is answered with; atomic.

    Raises:
        OSError: The cache cannot be written.
    """
    cache.mkdir(parents=True, exist_ok=True)
    temporary = cache / f".{SERVED_FILE}.{os.getpid()}"
    _write(temporary, msgspec.json.encode(served))
    temporary.replace(cache / SERVED_FILE)


def tidy(cache: pathlib.Path, keep: set[str]) -> None:
    """Remove old releases beyond the newest few, and what interrupted pulls left behind.

    Args:
        cache: Folder of releases.
        keep: Releases that stay whatever their age.

    Raises:
        OSError: The cache cannot be read.
    """
    now = time.time()
    folders = [
        (path.stat().st_mtime, path) for path in cache.iterdir() if path.is_dir() and not path.is_symlink()
    ]
    unfinished = {path for _, path in folders if path.name.startswith(TEMPORARY)}
    releases = [path for _, path in sorted(folders, reverse=True) if (path / MANIFEST_FILE).is_file()]
    old = {path for path in releases if path not in unfinished and path.name not in keep} - set(
        releases[:KEPT]
    )
    old |= {path for age, path in folders if path in unfinished and now - age > ABANDONED_SECONDS}
    for path in old:
        shutil.rmtree(path, ignore_errors=True)


def _write(path: pathlib.Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: pathlib.Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
