"""Trust in a release: nothing is loaded before its signature, hashes and shape are proven.

The registry is not trusted: whoever can write to it can replace a file. The manifest is signed
(Ed25519), the manifest names every file with its hash, and the very bytes that were hashed are the
bytes that are loaded.

Belongs here: checks of a release folder. Does not belong here: fetching (`registry.py`), sessions.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import pathlib
import stat
from typing import TYPE_CHECKING

import msgspec

from contracts.release import MANIFEST_FILE, SIGNATURE_FILE, Manifest, ReleaseFile, read_manifest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAX_MANIFEST_BYTES = 1 << 20
MAX_SIGNATURE_BYTES = 4096
MAX_FILE_BYTES = 2 << 30
MAX_RELEASE_BYTES = 4 << 30
REQUIRED_COMPONENTS = ("encoder", "ranker", "items")


class ReleaseError(RuntimeError):
    """A release that must not be served; the message says what is wrong with which part."""


class KeyMissingError(ReleaseError):
    """The public key is not there yet."""


class Verified(msgspec.Struct, frozen=True):
    """A release whose bytes are proven.

    Attributes:
        manifest: The signed manifest.
        files: Content by path, exactly the files that the manifest names.
    """

    manifest: Manifest
    files: dict[str, bytes]


def read_verify_key(path: pathlib.Path) -> Ed25519PublicKey:
    """Read the public key that releases are checked with.

    Raises:
        KeyMissingError: No such file.
        ReleaseError: Not an Ed25519 public key in PEM.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise KeyMissingError(
            f"no release key: {path.name} cannot be read; expected an Ed25519 public key in PEM"
        ) from error
    except ValueError as error:
        raise ReleaseError(f"{path.name} is not a public key in PEM; expected Ed25519") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ReleaseError(f"{path.name} holds another kind of key; expected Ed25519")
    return key


def check_manifest(raw: bytes, signature: bytes, key: Ed25519PublicKey) -> Manifest:
    """Prove a manifest: signature first, then its form.

    Args:
        raw: Bytes of manifest.json.
        signature: Bytes of manifest.sig (base64).
        key: Who must have signed.

    Raises:
        ReleaseError: Unsigned, signed by another key, malformed, or naming impossible files.
    """
    from cryptography.exceptions import InvalidSignature

    if len(raw) > MAX_MANIFEST_BYTES or len(signature) > MAX_SIGNATURE_BYTES:
        raise ReleaseError("the manifest or its signature is larger than any real one")
    try:
        key.verify(base64.b64decode(signature.strip(), validate=True), raw)
    except (InvalidSignature, binascii.Error, ValueError) as error:
        raise ReleaseError(
            "the signature does not fit the manifest: it was changed, or signed with another key"
        ) from error
    try:
        manifest = read_manifest(raw)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise ReleaseError(f"{MANIFEST_FILE}: {error}") from error
    _check_listing(manifest)
    return manifest


def manifest_files(manifest: Manifest) -> list[ReleaseFile]:
    """Every file that a manifest names."""
    return [file for component in manifest.components for file in component.files]


def _check_listing(manifest: Manifest) -> None:
    names = [component.name for component in manifest.components]
    for name in REQUIRED_COMPONENTS:
        if names.count(name) != 1:
            raise ReleaseError(
                f"{MANIFEST_FILE} names component '{name}' {names.count(name)} times; expected once"
            )
    files = manifest_files(manifest)
    paths = [file.path for file in files]
    if len(set(paths)) != len(paths) or {MANIFEST_FILE, SIGNATURE_FILE} & set(paths):
        raise ReleaseError(f"{MANIFEST_FILE} names a file twice, or itself")
    largest = max((file.size for file in files), default=0)
    if largest > MAX_FILE_BYTES or sum(file.size for file in files) > MAX_RELEASE_BYTES:
        raise ReleaseError(f"{MANIFEST_FILE} names files above the size limit of {MAX_FILE_BYTES} bytes each")


def read_regular_file(root: pathlib.Path, path: str, limit: int) -> bytes:
    """Read a file below ``root`` without following a link anywhere on the way.

    Raises:
        ReleaseError: Missing, a link, not a regular file, or larger than ``limit`` bytes.
    """
    parts = path.split("/")
    if any(part in {"", ".", ".."} for part in parts):
        raise ReleaseError(f"'{path}' is not a plain path inside the release")
    folder = root
    for part in parts[:-1]:
        folder = folder / part
        if folder.is_symlink():
            raise ReleaseError(f"'{path}' lies behind a link")
    try:
        handle = os.open(folder / parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise ReleaseError(f"'{path}' is missing") from error
    except OSError as error:
        raise ReleaseError(f"'{path}' is a link or cannot be read") from error
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ReleaseError(f"'{path}' is not a regular file")
        if status.st_size > limit:
            raise ReleaseError(f"'{path}' has {status.st_size} bytes; expected at most {limit}")
        return file.read(limit + 1)


def check_file(file: ReleaseFile, content: bytes) -> bytes:
    """Compare content with its entry in the manifest.

    Raises:
        ReleaseError: Size or hash differ.
    """
    if len(content) != file.size:
        raise ReleaseError(f"'{file.path}' has {len(content)} bytes; the manifest says {file.size}")
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise ReleaseError(f"'{file.path}' does not have the hash that the manifest names")
    return content


def verify_folder(folder: pathlib.Path, key: Ed25519PublicKey) -> Verified:
    """Prove a release folder and return its bytes.

    Raises:
        ReleaseError: Anything is unsigned, missing, changed, linked, or not named by the manifest.
    """
    raw = read_regular_file(folder, MANIFEST_FILE, MAX_MANIFEST_BYTES)
    signature = read_regular_file(folder, SIGNATURE_FILE, MAX_SIGNATURE_BYTES)
    manifest = check_manifest(raw, signature, key)
    return Verified(manifest, read_files(folder, manifest))


def read_files(folder: pathlib.Path, manifest: Manifest) -> dict[str, bytes]:
    """The content of every file that a manifest names, proven against it.

    Raises:
        ReleaseError: Anything is missing, changed, linked, or not named by the manifest.
    """
    listed = {MANIFEST_FILE, SIGNATURE_FILE, *(file.path for file in manifest_files(manifest))}
    for found in folder.rglob("*"):
        name = found.relative_to(folder).as_posix()
        if found.is_symlink():
            raise ReleaseError(f"'{name}' is a link; expected plain files only")
        if not found.is_dir() and name not in listed:
            raise ReleaseError(f"'{name}' is not named by the manifest")
    return {
        file.path: check_file(file, read_regular_file(folder, file.path, file.size))
        for file in manifest_files(manifest)
    }
