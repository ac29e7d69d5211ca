"""`continuum events send`: deliver events from a file to the live server."""

from __future__ import annotations

import json
from typing import IO

import click

from orchestration.cli.output import emit, fail, json_option
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
