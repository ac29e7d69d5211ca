"""`continuum events`: deliver events to the live server, and mend what it refused."""

from __future__ import annotations

import json
from typing import IO

import click

from orchestration.cli.output import emit, fail, json_option, table
from orchestration.cli.server import call


@click.group(short_help="send events to the live server")
def command() -> None:
    """Work with events."""


@command.command(short_help="send a JSON or JSON-lines file")
@click.argument("file", type=click.File("r"))
@click.option(
    "--batch", default=500, show_default=True, type=click.IntRange(1, 1000), help="Events a request."
)
@click.option("--url", help="Server address.")
@json_option
def send(file: IO[str], batch: int, url: str | None, as_json: bool) -> None:
    """Send the events of FILE (a JSON array, or one object a line; - for standard input).

    Leaves with 1 if any event was refused; the good ones of a batch are kept all the same.
    """
    events = _read(file)
    total = {"accepted": 0, "duplicates": 0, "refused": 0}
    errors = []
    with click.progressbar(
        range(0, len(events), batch), label="sending", file=click.get_text_stream("stderr")
    ) as starts:
        for start in starts:
            reply = call("POST", "/v1/events", events[start : start + batch], url)
            for name in total:
                total[name] += int(reply[name])
            errors += [{**error, "index": error["index"] + start} for error in reply["errors"]]
    lines = [f"event {error['index']}: {error['message']}" for error in errors]
    summary = ", ".join(f"{count} {name}" for name, count in total.items())
    emit({**total, "errors": errors}, as_json, "\n".join([*lines, summary]))
    if errors:
        raise SystemExit(1)


@command.command("dead-letters", short_help="what was refused, by reason")
@json_option
def dead_letters(as_json: bool) -> None:
    """Count the events that broke the contract, by origin, field and reason."""
    from contracts.settings import read_settings
    from orchestration.lake.dead_letters import counts

    rows = counts(read_settings().lake)
    columns = ["letters", "origin", "field", "reason", "first_day", "last_day"]
    emit(rows, as_json, table(rows, columns) if rows else "no dead letters")


@command.command(short_help="take dead letters in again after a fix")
@click.option("--reason", default="", help="Only letters whose reason holds this text.")
@click.option(
    "--patch", default="", help='JSON object of fields to set first, for example \'{"channel": "app"}\'.'
)
@json_option
def replay(reason: str, patch: str, as_json: bool) -> None:
    """Check the inbox's dead letters again and store those that fit the contract now.

    Features of the days that get events follow with the next `ingest_live` run. Leaves with 1 if letters
    that were asked for are still broken.
    """
    import dataclasses

    from contracts.settings import read_settings
    from feature_repo.snapshots import SnapshotError
    from orchestration.lake import dead_letters

    try:
        fields = json.loads(patch) if patch else {}
    except json.JSONDecodeError as error:
        fail(f"--patch: {error}", "expected one JSON object")
    if not isinstance(fields, dict):
        fail("--patch is no JSON object", 'expected one such as {"channel": "app"}')
    try:
        done = dead_letters.replay(read_settings().lake, reason, fields)
    except SnapshotError as error:
        fail(str(error), "expected dead letters: nothing has been refused yet")
    lines = [f"still broken: {count} x {why}" for why, count in done.still_broken.items()]
    summary = f"{done.events} events stored, {done.duplicates} were there already"
    emit(dataclasses.asdict(done), as_json, "\n".join([*lines, summary]))
    if done.still_broken:
        raise SystemExit(1)


def _read(file: IO[str]) -> list[object]:
    text = file.read()
    if text.lstrip().startswith("["):
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            fail(f"{file.name}: {error}", "expected a JSON array of events, or one JSON object a line")
        return list(value)
    events = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                events.append(json.loads(line))
            except json.JSONDecodeError as error:
                fail(f"{file.name} line {number}: {error}", "expected one JSON object a line")
    return events
