"""`continuum audiences`: who leaves the platform, for what, and where to."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from orchestration.cli.output import emit, fail, json_option, table


@click.group(short_help="who leaves the platform, for what, and where to")
def command() -> None:
    """Export audiences and next best actions as files, SQL tables and signed webhooks.

    They are defined under `audiences` and `destinations` of the shop's yaml. Nobody without consent leaves.
    """


@command.command("list", short_help="audiences and destinations, and what waits")
@json_option
def list_(as_json: bool) -> None:
    """List audiences and destinations of the open shop, with what was sent and what waits."""
    from contracts.outbound import Files, Table
    from orchestration.outbound.exporting import check_outgoing

    settings, retailer = _shop()
    _guarded(lambda: check_outgoing(retailer))
    audiences = [
        {"audience": name, "title": a.title, "rows": a.rows, "purpose": a.purpose, "condition": a.condition,
         "destinations": list(a.destinations)}
        for name, a in retailer.audiences.items()
    ]  # fmt: skip
    waiting, sent = _outbox(settings)
    destinations = []
    for name, destination in retailer.destinations.items():
        if isinstance(destination, Files):
            kind, where = "files", destination.folder or str(settings.outbound / "files" / name)
        elif isinstance(destination, Table):
            kind, where = "sql", f"{destination.connection}: {destination.table}"
        else:
            kind, where = "webhook", destination.url
        own = [message for message in waiting if message.destination == name]
        dead = [message for message in own if message.dead]
        state = "dead" if dead else "failing" if any(m.attempts for m in own) else "ok"
        last = next((row["sent_at"] for row in sent if row["destination"] == name), None)
        destinations.append(
            {"destination": name, "type": kind, "where": where, "state": state if kind == "webhook" else None,
             "waiting": len(own) if kind == "webhook" else None, "last_sent": last,
             "error": own[0].error if own else ""}
        )  # fmt: skip
    lines = ["no audiences: the shop's yaml has no `audiences`"]
    if audiences:
        rows = [{**row, "destinations": ", ".join(row["destinations"])} for row in audiences]
        lines = [
            table(rows, ["audience", "title", "rows", "purpose", "destinations"]),
            "",
            table(destinations, ["destination", "type", "where", "state", "waiting", "last_sent", "error"]),
        ]
    emit({"audiences": audiences, "destinations": destinations}, as_json, "\n".join(lines))


@command.command(short_help="what a condition may ask for, and a row may tell")
@json_option
def fields(as_json: bool) -> None:
    """List the fields that conditions may ask for and exports may tell."""
    from orchestration.outbound.fields import ACTIONS

    rows = [dataclasses.asdict(field) for field in ACTIONS.values()]
    emit({"fields": rows}, as_json, table(rows, ["name", "type", "source", "meaning"]))


@command.command(short_help="who would leave, and why others would not")
@click.argument("name")
@click.option("--rows", default=5, show_default=True, help="Rows to show.")
@json_option
def preview(name: str, rows: int, as_json: bool) -> None:
    """Choose audience NAME as an export would, and write nothing."""
    from orchestration.outbound.audiences import select
    from orchestration.outbound.exporting import check_outgoing
    from orchestration.outbound.files import plain
    from orchestration.outbound.people import load_people

    settings, retailer = _shop()

    def choose() -> Any:
        check_outgoing(retailer, [name])
        return select(load_people(settings, retailer), settings, name, retailer.audiences[name])

    chosen = _guarded(choose)
    shown = [{k: plain(v) for k, v in row.items()} for row in chosen.rows.slice(0, max(0, rows)).to_pylist()]
    counts = [{"step": step.replace("_", " "), "rows": number} for step, number in chosen.counts.items()]
    parts = [f"{chosen.audience.title}: {chosen.audience.condition}", "", table(counts, ["step", "rows"])]
    if retailer.simulated:
        parts.insert(0, "simulated shoppers")
    if shown:
        parts += ["", table(shown, chosen.rows.column_names)]
    value = {"audience": name, "simulated": retailer.simulated, "counts": chosen.counts, "rows": shown}
    emit(value, as_json, "\n".join(parts))


@command.command(short_help="bring every destination to what its audiences are now")
@click.argument("names", nargs=-1)
@click.option("--patience", default=30.0, show_default=True, help="Seconds to wait for receivers that fail.")
@json_option
def export(names: tuple[str, ...], patience: float, as_json: bool) -> None:
    """Export audiences NAMES, or all. Leaves with 1 if something failed; the rest is done all the same."""
    from orchestration.outbound.exporting import export as run

    settings, retailer = _shop()
    done = _guarded(
        lambda: run(settings, retailer, names, patience, lambda line: click.echo(f"  {line}", err=True))
    )
    value = dataclasses.asdict(done)
    rows = [{**row, **row["changes"]} for row in value["steps"]]
    lines = (
        [table(rows, ["audience", "destination", "rows", "added", "changed", "removed", "error"])]
        if rows
        else []
    )
    lines += _sent_lines(value["sent"]) + [f"emptied: {place}" for place in done.retired]
    lines += [f"failed: {error}" for error in done.errors] or ["done"]
    emit(value, as_json, "\n".join(lines))
    if done.errors:
        raise SystemExit(1)


@command.command(short_help="send again what receivers have not taken")
@click.option("--revive", is_flag=True, help="Also what has used up its attempts.")
@click.option("--patience", default=30.0, show_default=True, help="Seconds to wait for receivers that fail.")
@json_option
def send(revive: bool, patience: float, as_json: bool) -> None:
    """Send what waits in the outbox, and choose nobody anew. Leaves with 1 if a destination is dead."""
    from orchestration.outbound.exporting import send as run

    settings, retailer = _shop()
    sent, errors = _guarded(lambda: run(settings, retailer, patience, revive))
    value = {"sent": [dataclasses.asdict(one) for one in sent], "errors": list(errors)}
    lines = _sent_lines(value["sent"]) or ["nothing waits"]
    emit(value, as_json, "\n".join([*lines, *(f"failed: {error}" for error in errors)]))
    if errors:
        raise SystemExit(1)


def _sent_lines(sent: list[dict[str, Any]]) -> list[str]:
    columns = ["destination", "accepted", "rows", "failed", "waiting", "dead", "error"]
    return [table(sent, columns)] if sent else []


def _shop() -> tuple[Any, Any]:
    from contracts.settings import SettingsError, read_retailer, read_settings

    try:
        settings = read_settings()
        return settings, read_retailer(settings)
    except SettingsError as error:
        fail(str(error))


def _outbox(settings: Any) -> tuple[list[Any], list[dict[str, Any]]]:
    from orchestration.outbound.outbox import Outbox

    if not (settings.outbound / "outbox.sqlite").is_file():
        return [], []
    with Outbox(settings.outbound) as outbox:
        return outbox.waiting(), outbox.sent()


def _guarded(work: Any) -> Any:
    from contracts.identity import TombstoneError
    from contracts.outbound import OutboundError
    from contracts.settings import SettingsError
    from orchestration.outbound.records import OutboxBusyError

    try:
        return work()
    except (OutboundError, OutboxBusyError, SettingsError, TombstoneError) as error:
        fail(str(error))
