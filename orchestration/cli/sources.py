"""`continuum sources`: see what a file means before it is taken in, and take in what is new."""

from __future__ import annotations

import pathlib
from typing import Any

import click

from orchestration.cli.output import emit, fail, json_option, table

FORMATS = (
    "auto", "rows", "canonical", "segment", "ga4", "snowplow", "cloudevents", "shopify_orders",
    "shopify_customers", "shopify_products",
)  # fmt: skip


@click.group(short_help="see what your own files and tables mean, and take in what is new")
def command() -> None:
    """Work with files and tables of your own shop."""


@command.command(short_help="show what was understood of a file, and what was not")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=pathlib.Path))
@click.option("--format", "form", type=click.Choice(FORMATS), default="auto", show_default=True)
@click.option(
    "--mapping",
    type=click.Path(exists=True, dir_okay=False, path_type=pathlib.Path),
    help="Yaml with `mapping:`.",
)
@click.option(
    "--feed", "feed_name", help="Which feed of the mapping; by default the one whose files hold FILE."
)
@click.option("--time-zone", help="Zone of times that carry none, where the mapping does not say.")
@click.option("--rows", "previews", default=3, show_default=True, help="Events to show.")
@json_option
def check(
    file: pathlib.Path, form: str, mapping: pathlib.Path | None, feed_name: str | None, time_zone: str | None,
    previews: int, as_json: bool,
) -> None:  # fmt: skip
    """Read FILE as intake would, and say what came of it. Leaves with 1 if nothing is usable."""
    import msgspec

    from contracts.retailer import Feed
    from contracts.settings import SettingsError, read_feeds
    from orchestration.sources.feeds import checking
    from orchestration.sources.feeds.paths import MappingError

    path = file.resolve()
    name, feed = "file", Feed(files=str(path))
    try:
        if mapping is not None:
            feeds, _ = read_feeds(mapping)
            if feed_name is not None and feed_name not in feeds:
                fail(
                    f"there is no feed '{feed_name}' in {mapping.name}",
                    f"expected one of: {', '.join(feeds)}",
                )
            held = (feed_name, feeds[feed_name]) if feed_name else checking.feed_of(path, feeds)
            if held is None and len(feeds) == 1:
                held = next(iter(feeds.items()))
            if held is None:
                fail(f"no feed of {mapping.name} holds {file}", f"name one with --feed: {', '.join(feeds)}")
            name, feed = held
        if form != "auto":
            feed = msgspec.structs.replace(feed, format=form)
        if time_zone is not None and feed.time_zone is None:
            feed = msgspec.structs.replace(feed, time_zone=time_zone)
        report = checking.check(path, name, feed, feed.currency or "USD", previews)
    except (SettingsError, MappingError) as error:
        fail(str(error))
    emit(report, as_json, _text(report))
    if report["usable"] < 1:
        raise SystemExit(1)


@command.command(short_help="take new files and rows of the open shop into the lake")
@json_option
def pull(as_json: bool) -> None:
    """Read what is new in the feeds of the open shop, and take the days it touches into the lake."""
    from contracts.settings import SettingsError, read_retailer, read_settings
    from orchestration.sources import files
    from orchestration.sources.feeds.database import DatabaseError
    from orchestration.sources.feeds.paths import MappingError
    from orchestration.sources.feeds.taking import pull as take

    try:
        settings = read_settings()
        retailer = read_retailer(settings)
        if retailer.source != files.NAME:
            fail(f"{retailer.name} has source '{retailer.source}'; expected 'files'")
        done = take(settings.lake, files.bind(retailer, settings))
    except (SettingsError, MappingError, DatabaseError, files.NothingToReadError) as error:
        fail(str(error))
    parts = [
        {"feed": part.feed, "read": pathlib.Path(part.origin).name, "rows": part.rows, "good": part.good,
         "broken": part.broken, "error": part.error}
        for part in done.read
    ]  # fmt: skip
    value = {"read": parts, "unchanged": done.unchanged, "days": done.days, "events": done.events,
             "dead_letters": done.dead_letters, "outside": done.outside, "changes": done.changes}  # fmt: skip
    lines = [table(parts, ["feed", "read", "rows", "good", "broken", "error"])] if parts else []
    summary = (
        f"{len(parts)} read, {done.unchanged} unchanged; {len(done.days)} days taken in: {done.events} events, "
        f"{done.dead_letters} dead letters"
    )
    outside = (
        [f"{done.outside} days lie outside first_day to last_day of the profile and wait"]
        if done.outside
        else []
    )
    emit(value, as_json, "\n".join([*lines, *done.changes, summary, *outside]))


def _text(report: dict[str, Any]) -> str:
    what = [report["format"], report["container"]]
    what += [f"encoding {report['encoding']}"] if report["encoding"] else []
    what += [f"delimiter {report['delimiter']!r}"] if report["delimiter"] else []
    lines = [f"{report['file']}: {', '.join(filter(None, what))}"]
    lines += [f"  {note}" for note in report["notes"]]
    if report["error"]:
        lines += ["", f"not understood: {report['error']}"]
    if report["fields"]:
        lines += ["", "understood"]
        lines += [f"  {field:<22} {path}" for field, path in sorted(report["fields"].items())]
    if report["names"]:
        rows = [{"their name": n["name"], "action": n["action"], "channel": n["channel"], "rows": n["rows"]}
                for n in report["names"][:40]]  # fmt: skip
        lines += ["", table(rows, ["their name", "action", "channel", "rows"])]
    if report["first"]:
        lines += [
            "",
            f"{report['usable']} usable of {report['rows']} rows, {report['first']} to {report['last']}",
        ]
    else:
        lines += ["", f"{report['usable']} usable of {report['rows']} rows"]
    lines += _left(report)
    if report["proposal"]:
        import yaml

        lines += ["", "a mapping to start from (look it over, and put it into the yaml):"]
        lines += ["  " + line for line in yaml.safe_dump(report["proposal"], sort_keys=False).splitlines()]
    if report["preview"]:
        lines += ["", "the first events"]
        lines += [
            "  " + ", ".join(f"{key}={value}" for key, value in row.items() if key not in {"source", "day"})
            for row in report["preview"]
        ]
    return "\n".join(lines)


def _left(report: dict[str, Any]) -> list[str]:
    lines = []
    if report["ignored"]:
        names = ", ".join(f"{name} ({count})" for name, count in report["ignored_names"].items())
        lines += [f"{report['ignored']} left out by the mapping: {names}"]
    if report["unknown_names"]:
        names = ", ".join(f"{name} ({count})" for name, count in report["unknown_names"].items())
        lines += [f"unknown names (map them under values.action, or to 'ignore'): {names}"]
    if report["unmapped_columns"]:
        lines += [f"unmapped columns (kept in detail): {', '.join(report['unmapped_columns'])}"]
    if report["missing_columns"]:
        missing = ", ".join(f"{one['column']} ({one['key']})" for one in report["missing_columns"])
        lines += [f"columns that are not there: {missing}"]
    reasons = {**report["reasons"], **report["contract"]}
    if reasons:
        lines += ["", "rows that break"]
        lines += [
            f"  {count:>8}  {reason}" for reason, count in sorted(reasons.items(), key=lambda pair: -pair[1])
        ]
        lines += [
            f"    line {one['line'] or '-'}: {one['reason']}: {one['raw'][:120]}"
            for one in report["examples"][:8]
        ]
    return lines
