"""Where releases come from: an MLflow server, MLflow's own database file, or a plain folder.

A registry answers three questions: which version an alias means now, what that version is called, and
the bytes of one of its files. Nothing it says is trusted (see `verify.py`).

Belongs here: talking to registries. Does not belong here: verification, caching, swapping.
"""

from __future__ import annotations

import hashlib
import pathlib
import sqlite3
import urllib.parse
from typing import Protocol

import httpx
import msgspec

from contracts.release import MANIFEST_FILE
from serving.releases.verify import MAX_MANIFEST_BYTES, ReleaseError, read_regular_file


class RegistryError(RuntimeError):
    """The registry cannot be reached or answers nonsense; what is served stays as it is."""


class Pointer(msgspec.Struct, frozen=True):
    """What an alias means at one moment.

    Attributes:
        version: The registry's own version.
        folder: Where its files are, for registries that are read as files.
    """

    version: str
    folder: pathlib.Path | None = None


class Registry(Protocol):
    """What the holder needs from a registry."""

    def resolve(self, alias: str) -> Pointer | None:
        """The version that an alias means now, or None where there is none yet.

        Raises:
            RegistryError: The registry cannot be reached.
        """

    def fetch(self, pointer: Pointer, path: str, limit: int) -> bytes:
        """The bytes of one file of a version.

        Raises:
            RegistryError: The registry cannot be reached.
            ReleaseError: The file is missing or larger than ``limit``.
        """


class HttpRegistry:
    """An MLflow tracking server, by its REST interface.

    Args:
        base: Address, for example ``http://127.0.0.1:5000``.
        name: Registered model, ``<retailer>-release``.
        timeout: Seconds for a connection and between two chunks.
    """

    def __init__(self, base: str, name: str, timeout: float = 10.0) -> None:
        self._base = base.rstrip("/")
        self._name = name
        self._client = httpx.Client(timeout=timeout, headers={"accept-encoding": "identity"})

    def resolve(self, alias: str) -> Pointer | None:
        """See `Registry.resolve`."""
        url = f"{self._base}/api/2.0/mlflow/registered-models/alias"
        try:
            answer = self._client.get(url, params={"name": self._name, "alias": alias})
        except httpx.HTTPError as error:
            raise RegistryError(f"the registry cannot be reached ({type(error).__name__})") from error
        if answer.status_code in {400, 404}:
            return None
        if answer.status_code != 200:
            raise RegistryError(f"the registry answered {answer.status_code}")
        try:
            version = answer.json()["model_version"]["version"]
        except (ValueError, KeyError, TypeError) as error:
            raise RegistryError("the registry answered something else than a model version") from error
        return Pointer(str(version))

    def fetch(self, pointer: Pointer, path: str, limit: int) -> bytes:
        """See `Registry.fetch`."""
        url = f"{self._base}/model-versions/get-artifact"
        query = {"name": self._name, "version": pointer.version, "path": path}
        chunks: list[bytes] = []
        size = 0
        try:
            with self._client.stream("GET", url, params=query) as answer:
                if answer.status_code in {400, 404}:
                    raise ReleaseError(f"'{path}' is missing in the registry")
                if answer.status_code != 200:
                    raise RegistryError(f"the registry answered {answer.status_code} for '{path}'")
                for chunk in answer.iter_bytes():
                    size += len(chunk)
                    if size > limit:
                        raise ReleaseError(f"'{path}' is larger than the {limit} bytes that were expected")
                    chunks.append(chunk)
        except httpx.HTTPError as error:
            raise RegistryError(f"the registry broke off '{path}' ({type(error).__name__})") from error
        return b"".join(chunks)


class DatabaseRegistry:
    """MLflow's SQLite file, read without a server.

    Args:
        path: The database.
        name: Registered model.
    """

    _SQL = (
        "SELECT a.version, v.storage_location FROM registered_model_aliases a "
        "JOIN model_versions v USING (workspace, name, version) "
        "WHERE a.workspace = 'default' AND a.name = ? AND a.alias = ?"
    )

    def __init__(self, path: pathlib.Path, name: str) -> None:
        self._path = path
        self._name = name

    def resolve(self, alias: str) -> Pointer | None:
        """See `Registry.resolve`."""
        if not self._path.is_file():
            return None
        try:
            uri = f"{self._path.absolute().as_uri()}?mode=ro"
            connection = sqlite3.connect(uri, uri=True, timeout=2.0)
            try:
                row = connection.execute(self._SQL, (self._name, alias)).fetchone()
            finally:
                connection.close()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error) or "no such column" in str(error):
                return None
            raise RegistryError("the registry's database cannot be read now") from error
        except sqlite3.Error as error:
            raise RegistryError("the registry's database is damaged") from error
        if row is None:
            return None
        location = urllib.parse.urlsplit(str(row[1] or ""))
        if location.scheme not in {"", "file"} or not location.path:
            raise RegistryError(f"version {row[0]} lies in a '{location.scheme}' store; expected local files")
        return Pointer(str(row[0]), pathlib.Path(urllib.parse.unquote(location.path)))

    def fetch(self, pointer: Pointer, path: str, limit: int) -> bytes:
        """See `Registry.fetch`."""
        return _read(pointer, path, limit)


class FolderRegistry:
    """A folder: a release itself, or releases side by side with a text file per alias naming one.

    Args:
        folder: ``<folder>/manifest.json``, or ``<folder>/<alias>`` holding the name of a subfolder.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder

    def resolve(self, alias: str) -> Pointer | None:
        """See `Registry.resolve`."""
        folder = self._folder
        try:
            if not (folder / MANIFEST_FILE).is_file():
                pointer = folder / alias
                if not pointer.is_file():
                    return None
                name = pointer.read_text().strip()
                if not name or "/" in name or name.startswith("."):
                    raise RegistryError(f"'{alias}' names '{name}'; expected a folder beside it")
                folder = folder / name
            raw = read_regular_file(folder, MANIFEST_FILE, MAX_MANIFEST_BYTES)
        except (OSError, UnicodeDecodeError) as error:
            raise RegistryError(f"the folder registry cannot be read ({type(error).__name__})") from error
        except ReleaseError as error:
            raise RegistryError(str(error)) from error
        return Pointer(hashlib.sha256(raw).hexdigest()[:12], folder)

    def fetch(self, pointer: Pointer, path: str, limit: int) -> bytes:
        """See `Registry.fetch`."""
        return _read(pointer, path, limit)


def open_registry(address: str, name: str) -> Registry:
    """The registry at an address: ``http(s)://``, ``sqlite:///``, ``file://`` or a path.

    Raises:
        RegistryError: Another scheme.
    """
    parts = urllib.parse.urlsplit(address)
    if parts.scheme in {"http", "https"}:
        return HttpRegistry(address, name)
    if parts.scheme == "sqlite":
        path = urllib.parse.unquote(address.removeprefix("sqlite:///").split("?")[0])
        return DatabaseRegistry(pathlib.Path(path), name)
    if parts.scheme == "file":
        return FolderRegistry(pathlib.Path(urllib.parse.unquote(parts.path)))
    if parts.scheme:
        raise RegistryError(
            f"registry address has scheme '{parts.scheme}'; expected http, https, sqlite, file or a path"
        )
    return FolderRegistry(pathlib.Path(address))


def _read(pointer: Pointer, path: str, limit: int) -> bytes:
    if pointer.folder is None:
        raise RegistryError("the registry named no folder")
    if not pointer.folder.is_dir():
        raise RegistryError(f"the folder of version {pointer.version} is not there")
    return read_regular_file(pointer.folder, path, limit)
