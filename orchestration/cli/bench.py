"""`continuum bench`: run one bench of tests/benchmarks and print its numbers beside their bars."""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
import sys
from importlib import metadata
from typing import Any

import click

from contracts.settings import ROOT
from orchestration.cli.output import emit, fail, json_option, table

PACKAGES = ("dagster", "feast", "mlflow", "torch", "lightgbm", "onnxruntime", "duckdb", "deltalake")


@click.command(
    short_help="measure, and print numbers beside their bars",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("name", required=False)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.option("--quick", is_flag=True, help="A small version that ends within a minute.")
@click.option(
    "--keep", "keep_run", is_flag=True, help="Keep the result in docs/benchmarks and render the page."
)
@click.option(
    "--render", "render_page", is_flag=True, help="Only render docs/benchmarks.md from the kept runs."
)
@json_option
def command(
    name: str | None, words: tuple[str, ...], quick: bool, keep_run: bool, render_page: bool, as_json: bool
) -> None:
    """Run bench NAME, or list the benches. Leaves with 1 if a bar is missed.

    WORDS are options of the bench itself (`continuum bench sequences --data FILE`).
    """
    if not (ROOT / "tests" / "benchmarks").is_dir():
        fail("the benches live in tests/benchmarks of a checkout, and there is none here")
    sys.path.insert(0, str(ROOT))
    from tests.benchmarks import bars, report

    if render_page:
        click.echo(report.render())
        return
    if name is not None and name.startswith("-"):
        fail(f"there is no option '{name}'", "expected the name of a bench first")
    if name is None:
        rows = [{"bench": bench, "what": report.ABOUT.get(bench, "")} for bench in bars.names()]
        emit(rows, as_json, table(rows, ["bench", "what"]))
        return
    if name not in bars.names():
        fail(
            f"there is no bench '{name}'",
            f"expected one of: {', '.join(bench for bench in bars.BARS if bench not in bars.RECORDS)}",
        )
    bench = importlib.import_module(f"tests.benchmarks.{name.replace('-', '_')}")
    if words and not hasattr(bench, "options"):
        fail(f"bench '{name}' takes no {words[0]}", "expected --quick, --keep or --json")
    outcome = _run(bench, quick, words)
    record = outcome.get("bench", name)
    if keep_run:
        outcome = report.carried(record, outcome)
    result = {
        "bench": record,
        "measured": outcome["measured"],
        "bars": bars.judge(record, outcome["measured"]),
        "setup": {**_setup(quick), **outcome["setup"]},
    }
    if keep_run:
        report.keep(result)
        report.render()
    rows = [
        {
            "metric": metric,
            "measured": report.format_value(value),
            "bar": "{op} {bar}".format(**result["bars"][metric]) if metric in result["bars"] else "",
            "holds": {True: "yes", False: "NO"}.get(result["bars"].get(metric, {}).get("holds"), ""),
        }
        for metric, value in result["measured"].items()
    ]
    emit(result, as_json, table(rows, ["metric", "measured", "bar", "holds"]))
    if not all(bar["holds"] for bar in result["bars"].values()):
        sys.exit(1)


def _run(bench: Any, quick: bool, words: tuple[str, ...]) -> dict[str, Any]:
    def progress(line: str) -> None:
        click.echo(f"  {line}", err=True)

    if not words:
        return bench.run(quick, progress)
    try:
        return bench.run(quick, progress, words)
    except ValueError as error:
        fail(str(error))


def _setup(quick: bool) -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "quick": quick,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "commit": commit.stdout.strip() or "unknown",
        "versions": " ".join(f"{package}={metadata.version(package)}" for package in PACKAGES),
    }
