"""`continuum releases`: list, show, promote and roll back releases in the registry."""

from __future__ import annotations

import datetime as dt
from typing import Any

import click
import msgspec

from contracts.settings import Settings, SettingsError, read_settings
from orchestration.champion import champion_manifest, release_model
from orchestration.cli.output import emit, fail, json_option, table


@click.group(short_help="list, show, promote and roll back releases")
def command() -> None:
    """Releases in the registry; serving follows the alias `champion` within seconds."""


def _settings() -> Settings:
    try:
        settings = read_settings()
        release_model(settings)
    except SettingsError as error:
        fail(str(error))
    return settings


@command.command("list", short_help="all versions, newest first")
@json_option
def list_releases(as_json: bool) -> None:
    """List every registered release with its aliases and its result on its frozen set."""
    rows = versions(_settings())
    columns = ["version", "release", "aliases", "created", "ndcg_at_10", "gate"]
    emit(rows, as_json, table(rows, columns) if rows else "no release yet: `continuum up` makes the first")


@command.command(short_help="the manifest behind an alias")
@click.argument("alias", default="champion")
@json_option
def show(alias: str, as_json: bool) -> None:
    """Show the manifest of the release that ALIAS names (champion, challenger, previous_champion)."""
    settings = _settings()
    manifest = champion_manifest(settings, alias)
    if manifest is None:
        fail(f"{release_model(settings)} has no alias '{alias}'")
    value = msgspec.to_builtins(manifest)
    lines = [
        f"{name:<18}{value[name]}"
        for name in ("release", "retailer", "created_at", "as_of", "lake", "evaluation")
    ]
    lines += [f"{'metrics':<18}" + ", ".join(f"{k} {v:.4f}" for k, v in sorted(manifest.metrics.items()))]
    files = [
        {"component": part.name, "file": file.path, "bytes": file.size, "sha256": file.sha256[:12]}
        for part in manifest.components
        for file in part.files
    ]
    emit(value, as_json, "\n".join([*lines, table(files, ["component", "file", "bytes", "sha256"])]))


@command.command(short_help="make a version the champion")
@click.argument("version")
@json_option
def promote(version: str, as_json: bool) -> None:
    """Make VERSION the champion by a person's decision, whatever the gate said; the old one is kept."""
    from orchestration.runs import enter_environment

    settings = _settings()
    enter_environment(settings)
    from training.tracking import UnknownVersion
    from training.tracking import promote as move

    try:
        before = move(settings.tracking_uri, release_model(settings), version)
    except UnknownVersion as error:
        fail(str(error))
    emit(
        {"champion": version, "previous_champion": before},
        as_json,
        f"champion: version {version} (before: {before})",
    )


@command.command(short_help="go back to the previous champion")
@json_option
def rollback(as_json: bool) -> None:
    """Swap champion and previous_champion; serving still has the previous one loaded and swaps at once."""
    from orchestration.runs import enter_environment

    settings = _settings()
    enter_environment(settings)
    from training.tracking import UnknownVersion
    from training.tracking import rollback as back

    try:
        now, before = back(settings.tracking_uri, release_model(settings))
    except UnknownVersion as error:
        fail(str(error))
    emit(
        {"champion": now, "previous_champion": before}, as_json, f"champion: version {now} (before: {before})"
    )


def versions(settings: Settings) -> list[dict[str, Any]]:
    """Every registered release, newest first."""
    from orchestration.runs import enter_environment

    enter_environment(settings)
    import mlflow

    client = mlflow.MlflowClient(settings.tracking_uri, settings.tracking_uri)
    name = release_model(settings)
    aliases: dict[str, list[str]] = {}
    for model in client.search_registered_models(f"name = '{name}'"):
        for alias, version in model.aliases.items():
            aliases.setdefault(str(version), []).append(alias)
    rows = []
    for found in client.search_model_versions(f"name = '{name}'"):
        tags = found.tags or {}
        rows.append(
            {
                "version": str(found.version),
                "release": tags.get("release", ""),
                "aliases": ", ".join(sorted(aliases.get(str(found.version), []))),
                "created": dt.datetime.fromtimestamp(found.creation_timestamp / 1000, dt.UTC).isoformat(
                    "T", "seconds"
                ),
                "ndcg_at_10": float(tags["ndcg_at_10"]) if "ndcg_at_10" in tags else None,
                "gate": tags.get("gate", "pending"),
            }
        )
    return sorted(rows, key=lambda row: -int(row["version"]))
