"""The manifest of a release: what serving pulls, verifies and answers with.

Belongs here: the manifest's type, its canonical bytes, hashing of files. Does not belong here:
signing keys (they live under CONTINUUM_HOME/keys),
downloading or loading (`serving/releases`), assembling (`training/packaging.py`).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import pathlib
from typing import Annotated, Any

import msgspec

MANIFEST_FILE = "manifest.json"
SIGNATURE_FILE = "manifest.sig"
SCHEMA_VERSION = 1

ReleaseName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
RelativePath = Annotated[
    str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*){0,4}$")
]
Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class ReleaseFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a release.

    Attributes:
        path: Relative to the release folder, forward slashes, no dot segments.
        sha256: Hex digest of the bytes.
        size: Bytes.
    """

    path: RelativePath
    sha256: Digest
    size: Annotated[int, msgspec.Meta(ge=0)]


class Component(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One part of a release.

    Attributes:
        name: ``encoder``, ``ranker``, ``items``, ``golden``.
        kind: ``onnx`` or ``arrays``.
        files: Its files.
        model: MLflow model URI it came from, empty for plain arrays.
        model_version: Version in the MLflow registry, empty for plain arrays.
        run_id: MLflow run, empty for plain arrays.
        settings: What a reader must know to feed it (lengths, vocabularies, names of inputs).
    """

    name: str
    kind: str
    files: tuple[ReleaseFile, ...]
    model: str = ""
    model_version: str = ""
    run_id: str = ""
    settings: dict[str, Any] = {}


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that makes a release reproducible and checkable.

    Attributes:
        release: Name, unique per retailer; never reused.
        retailer: Profile name.
        created_at: When it was assembled.
        as_of: Last moment of data that the item table saw.
        components: Parts that are released together because they read one another's vectors.
        features: Ranker feature names, in the order of the ranker's columns.
        feature_services: Feast feature service of each model.
        lake: Version of each Delta table that the models and tables were made from.
        metrics: Results on the frozen evaluation set.
        evaluation: Name and hash of that set.
        code_version: Version of this code base.
        simulated: True where shoppers are simulated.
    """

    release: ReleaseName
    retailer: str
    created_at: dt.datetime
    as_of: dt.datetime
    components: tuple[Component, ...]
    features: tuple[str, ...]
    feature_services: dict[str, str]
    lake: dict[str, int]
    metrics: dict[str, float]
    evaluation: dict[str, str]
    code_version: str
    simulated: bool = False
    schema_version: Annotated[int, msgspec.Meta(ge=1, le=SCHEMA_VERSION)] = SCHEMA_VERSION

    def component(self, name: str) -> Component:
        """The component of that name.

        Raises:
            KeyError: No such component.
        """
        for component in self.components:
            if component.name == name:
                return component
        raise KeyError(f"release {self.release} has no component '{name}'")


def manifest_bytes(manifest: Manifest) -> bytes:
    """Canonical JSON of a manifest: sorted keys, no spaces; this is what is signed."""
    return msgspec.json.encode(manifest, order="deterministic")


def read_manifest(raw: bytes) -> Manifest:
    """Decode a manifest.

    Raises:
        msgspec.ValidationError: With the path of the offending field.
    """
    return msgspec.json.decode(raw, type=Manifest)


def describe_file(root: pathlib.Path, path: str) -> ReleaseFile:
    """Hash one file below ``root``."""
    digest = hashlib.sha256()
    with (root / path).open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return ReleaseFile(path=path, sha256=digest.hexdigest(), size=(root / path).stat().st_size)
