"""MLflow's registry as we use it: where it lies, versions, and the aliases that stand for stages.

The tracking address is also the registry's. With SQLite (the default) an experiment's artifacts lie
beside the database file, so that one folder holds everything; with a server the server decides.
``challenger`` is judged, ``champion`` is served, ``previous_champion`` is what a rollback returns to.

Belongs here: opening MLflow, registering, moving aliases. Does not belong here: logging (`tracking.py`),
when a challenger may become champion (`evaluation/gates.py`), reading the registry without MLflow
(`serving/releases/registry.py`).
"""

from __future__ import annotations

import os
import pathlib
import urllib.parse
from collections.abc import Mapping

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow reads it while it is imported.

import mlflow
from mlflow.exceptions import MlflowException

CHAMPION = "champion"
CHALLENGER = "challenger"
PREVIOUS = "previous_champion"


class UnknownVersion(LookupError):
    """A model, version or alias that the registry does not have; the message lists what it has."""


def open_client(tracking_uri: str) -> mlflow.MlflowClient:
    """A client whose registry is at the same address; makes the folder of a SQLite file."""
    if (database := _database(tracking_uri)) is not None:
        database.parent.mkdir(parents=True, exist_ok=True)
    return mlflow.MlflowClient(tracking_uri, registry_uri=tracking_uri)


def experiment_id(client: mlflow.MlflowClient, name: str) -> str:
    """Id of the experiment of that name, made on first use.

    On SQLite its artifacts go to ``artifacts/<name>`` beside the database file.

    Raises:
        MlflowException: The experiment was deleted, or the address does not answer.
    """
    if (found := client.get_experiment_by_name(name)) is not None:
        return str(found.experiment_id)
    database = _database(client.tracking_uri)
    location = None if database is None else (database.parent / "artifacts" / name).as_uri()
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException as error:
        made_meanwhile = client.get_experiment_by_name(name)
        if error.error_code != "RESOURCE_ALREADY_EXISTS" or made_meanwhile is None:
            raise
        return str(made_meanwhile.experiment_id)


def _database(tracking_uri: str) -> pathlib.Path | None:
    if not tracking_uri.startswith("sqlite:///"):
        return None
    return pathlib.Path(
        urllib.parse.unquote(tracking_uri.removeprefix("sqlite:///").split("?")[0])
    ).absolute()


def register(tracking_uri: str, model_uri: str, name: str, tags: Mapping[str, str]) -> str:
    """Make a logged model a new version of a registered model, which is made on first use.

    Args:
        tracking_uri: Tracking and registry address.
        model_uri: ``models:/m-...`` of a LoggedModel.
        name: Registered model.
        tags: Of the version.

    Returns:
        The version.
    """
    client = open_client(tracking_uri)
    logged = client.get_logged_model(model_uri.removeprefix("models:/"))
    return create_version(
        client, name, logged.artifact_location, str(logged.source_run_id), tags, str(logged.model_id)
    )


def create_version(
    client: mlflow.MlflowClient,
    name: str,
    source: str,
    run_id: str,
    tags: Mapping[str, str],
    model_id: str | None = None,
) -> str:
    """Register a folder of artifacts as a new version of a registered model, made on first use.

    Args:
        client: See `open_client`.
        name: Registered model.
        source: URI of the folder; must lie below the run's or the logged model's artifacts.
        run_id: Run that made it.
        tags: Of the version.
        model_id: LoggedModel, if it is one.

    Returns:
        The version.
    """
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    made = client.create_model_version(name, source, run_id=run_id, tags=dict(tags), model_id=model_id)
    return str(made.version)


def set_alias(tracking_uri: str, name: str, alias: str, version: str) -> None:
    """Let an alias name a version.

    Raises:
        UnknownVersion: There is no such version.
    """
    client = open_client(tracking_uri)
    _require(client, name, version)
    client.set_registered_model_alias(name, alias, version)


def resolve_alias(tracking_uri: str, name: str, alias: str) -> str | None:
    """Version that an alias names, or None where there is no such alias or model."""
    return _aliases(open_client(tracking_uri), name).get(alias)


def tag_version(tracking_uri: str, name: str, version: str, tags: Mapping[str, str]) -> None:
    """Set tags of a version.

    Raises:
        UnknownVersion: There is no such version.
    """
    client = open_client(tracking_uri)
    _require(client, name, version)
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, value)


def promote(tracking_uri: str, name: str, version: str) -> str | None:
    """Make a version the champion; the one before becomes previous_champion.

    The alias `challenger` is dropped if it names this version. Promoting the champion again changes
    neither champion nor previous_champion.

    Returns:
        The version that a rollback would now return to, or None.

    Raises:
        UnknownVersion: There is no such version.
    """
    client = open_client(tracking_uri)
    _require(client, name, version)
    aliases = _aliases(client, name)
    before = aliases.get(CHAMPION)
    if before is not None and before != version:
        client.set_registered_model_alias(name, PREVIOUS, before)
    client.set_registered_model_alias(name, CHAMPION, version)
    if aliases.get(CHALLENGER) == version:
        client.delete_registered_model_alias(name, CHALLENGER)
    return aliases.get(PREVIOUS) if before == version else before


def rollback(tracking_uri: str, name: str) -> tuple[str, str | None]:
    """Swap champion and previous_champion; the champion moves first, since that is what is urgent.

    Returns:
        The champion now, and the champion before.

    Raises:
        UnknownVersion: There is no previous champion.
    """
    client = open_client(tracking_uri)
    aliases = _aliases(client, name)
    now, before = aliases.get(PREVIOUS), aliases.get(CHAMPION)
    if now is None or now == before:
        known = ", ".join(f"{alias} {version}" for alias, version in sorted(aliases.items())) or "no alias"
        raise UnknownVersion(f"{name} has no other previous champion to return to; it has: {known}")
    client.set_registered_model_alias(name, CHAMPION, now)
    if before is not None:
        client.set_registered_model_alias(name, PREVIOUS, before)
    return now, before


def versions(client: mlflow.MlflowClient, name: str) -> dict[str, dict[str, str]]:
    """Tags of every version of a registered model, oldest first; empty where there is no such model."""
    found: dict[str, dict[str, str]] = {}
    token: str | None = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", max_results=200, page_token=token)
        found |= {str(version.version): dict(version.tags or {}) for version in page}
        token = page.token
        if not token:
            return dict(sorted(found.items(), key=lambda item: int(item[0])))


def _aliases(client: mlflow.MlflowClient, name: str) -> dict[str, str]:
    try:
        model = client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise
    return {alias: str(version) for alias, version in model.aliases.items()}


def _require(client: mlflow.MlflowClient, name: str, version: str) -> None:
    known = versions(client, name)
    if version not in known:
        listed = ", ".join(known) or "no version yet"
        raise UnknownVersion(f"{name} has no version '{version}'; it has: {listed}")
