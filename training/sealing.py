"""Release folders on disk: complete or absent, signed, with keys that stay private.

Belongs here: keys, the signature, writing in one step. Does not belong here: what a release consists of
(`packaging.py`), verification by a server (`serving/releases/verify.py`).
"""

from __future__ import annotations

import base64
import contextlib
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

from contracts.release import MANIFEST_FILE, SIGNATURE_FILE, Manifest, describe_file, read_manifest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIGNING_KEY = "signing.pem"
VERIFY_KEY = "verify.pem"


class PackagingError(ValueError):
    """Parts that do not make a release; the message names the part and what was expected."""


def ensure_keys(folder: pathlib.Path) -> pathlib.Path:
    """The pair of keys that releases are signed and checked with, made on first use.

    The signing key (mode 0600) appears in one step, so two processes that start together agree on it;
    the public key is derived from it.

    Args:
        folder: Keys of the installation.

    Returns:
        Path of the signing key; ``verify.pem`` lies beside it.

    Raises:
        PackagingError: ``verify.pem`` belongs to another signing key, or its own is gone.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    signing, verify = folder / SIGNING_KEY, folder / VERIFY_KEY
    if not signing.exists():
        if verify.exists():
            raise PackagingError(f"{VERIFY_KEY} is there without {SIGNING_KEY}; expected both or neither")
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with _staged(folder, pem, mode=0o600) as path, contextlib.suppress(FileExistsError):
            os.link(path, signing)
    public = _signing_key(signing).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    if not verify.exists():
        with _staged(folder, public, mode=0o644) as path:
            path.replace(verify)
    if verify.read_bytes() != public:
        raise PackagingError(f"{VERIFY_KEY} does not belong to {SIGNING_KEY}; expected one pair")
    return signing


def _signing_key(path: pathlib.Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (TypeError, ValueError) as error:
        raise PackagingError(f"{path.name} is not a readable private key; expected Ed25519 in PEM") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise PackagingError(f"{path.name} holds another kind of key; expected Ed25519")
    return key


def sign(folder: pathlib.Path, signing_key: pathlib.Path) -> None:
    """Write ``manifest.sig``: base64 of the Ed25519 signature over the bytes of ``manifest.json``.

    Args:
        folder: The release.
        signing_key: See `ensure_keys`.

    Raises:
        PackagingError: A file differs from the manifest, or the key cannot be used.
    """
    check_files(folder)
    signature = _signing_key(signing_key).sign((folder / MANIFEST_FILE).read_bytes())
    write_file(folder, SIGNATURE_FILE, base64.b64encode(signature))


def check_files(folder: pathlib.Path) -> Manifest:
    """The manifest of a release folder whose files are as it says.

    Raises:
        PackagingError: A file is missing or changed.
    """
    manifest = read_manifest((folder / MANIFEST_FILE).read_bytes())
    for component in manifest.components:
        for file in component.files:
            if not (folder / file.path).is_file() or describe_file(folder, file.path) != file:
                raise PackagingError(f"{manifest.release}: '{file.path}' is not as the manifest says")
    return manifest


@contextlib.contextmanager
def appearing(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """A hidden sibling that becomes ``out`` if all goes well and vanishes if not."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.parent / f".tmp-{out.name}-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    try:
        yield folder
        for path in (*folder.rglob("*"), folder):
            _sync(path)
        folder.rename(out)
        _sync(out.parent)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def write_file(folder: pathlib.Path, path: str, content: bytes) -> None:
    """Replace one file of a release in one step."""
    target = folder / path
    target.parent.mkdir(exist_ok=True)
    with _staged(folder.parent, content, mode=0o644) as staged:
        staged.replace(target)
    _sync(target.parent)


@contextlib.contextmanager
def _staged(folder: pathlib.Path, content: bytes, mode: int) -> Iterator[pathlib.Path]:
    """A synced hidden file, gone afterwards unless it was moved."""
    path = folder / f".tmp-{uuid.uuid4().hex}"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield path
    finally:
        path.unlink(missing_ok=True)


def _sync(path: pathlib.Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
