"""Opening Feast on one installation, in one of its environments.

Belongs here: yaml -> `FeatureStore`. Does not belong here: what the registry holds (`views.py`).
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping

import yaml
from feast import FeatureStore
from feast.repo_config import RepoConfig

from contracts.settings import Settings

ROOT = pathlib.Path(__file__).resolve().parent
ENVIRONMENTS = {
    "local": ROOT / "feature_store.yaml",
    "team": ROOT / "environments" / "team.yaml",
    "cluster": ROOT / "environments" / "cluster.yaml",
}


class EnvironmentNameError(LookupError):
    """An environment that has no yaml; the message lists those that have."""


def open_store(
    settings: Settings, environment: str = "local", versions: Mapping[str, int] | None = None
) -> FeatureStore:
    """Feast's store for this installation.

    Args:
        settings: Where state lives; replaces ``${CONTINUUM_HOME}`` in the yaml.
        environment: ``local``, ``team`` or ``cluster``; the latter two name hosts by variables.
        versions: View name to the version of its feature table that historical joins read; latest
            for views not named. Only the ASOF store knows versions.

    Raises:
        EnvironmentNameError: No such environment.
    """
    if environment not in ENVIRONMENTS:
        known = ", ".join(ENVIRONMENTS)
        raise EnvironmentNameError(f"feast environment is '{environment}'; expected one of: {known}")
    settings.features.mkdir(parents=True, exist_ok=True)
    text = ENVIRONMENTS[environment].read_text().replace("${CONTINUUM_HOME}", str(settings.home))
    raw = yaml.safe_load(os.path.expandvars(text))
    if versions:
        raw["offline_store"]["versions"] = {f"{view}_rows": number for view, number in versions.items()}
    config = RepoConfig(**raw)
    config.repo_path = ROOT
    return FeatureStore(config=config)
