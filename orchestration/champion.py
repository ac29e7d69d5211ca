"""What the registry says about releases, read without importing MLflow.

Belongs here: looking up aliases and manifests. Does not belong here: moving aliases
(`training/tracking.py`), verification (`serving/releases`).
"""

from __future__ import annotations

from contracts.release import MANIFEST_FILE, Manifest, read_manifest
from contracts.settings import Settings, read_retailer

LARGEST_MANIFEST = 1 << 20


def release_model(settings: Settings) -> str:
    """Name of the shop's registered model that holds releases."""
    return f"{read_retailer(settings).name}-release"


def champion_manifest(settings: Settings, alias: str = "champion") -> Manifest | None:
    """Manifest of the release that an alias names now, or None where there is none."""
    from serving.releases.registry import open_registry

    registry = open_registry(settings.tracking_uri, release_model(settings))
    pointer = registry.resolve(alias)
    if pointer is None:
        return None
    return read_manifest(registry.fetch(pointer, MANIFEST_FILE, LARGEST_MANIFEST))


def champion_lake_version(settings: Settings, table: str) -> int:
    """Delta version of a table that the champion was made from, or -1 without a champion."""
    manifest = champion_manifest(settings)
    return -1 if manifest is None else manifest.lake[table]
