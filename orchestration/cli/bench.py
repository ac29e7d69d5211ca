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


@click.command(short_help="measure, and print numbers beside their bars")
@click.argument("name", required=False)
@click.option("--quick", is_flag=True, help="A small version that ends within a minute.")
@click.option(
    "--keep", "keep_run", is_flag=True, help="Keep the result in docs/benchmarks and render the page."
)
@click.option(
    "--render", "render_page", is_flag=True, help="Only render docs/benchmarks.md from the kept runs."
)
@json_option
def command(name: str | None, quick: bool, keep_run: bool, render_page: bool, as_json: bool) -> None:
    """Run bench NAME, or list the benches. Leaves with 1 if a bar is missed."""
    if not (ROOT / "tests" / "benchmarks").is_dir():
        fail("the benches live in tests/benchmarks of a checkout, and there is none here")
    sys.path.insert(0, str(ROOT))
    from tests.benchmarks import bars, report

    if render_page:
        click.echo(report.render())
        return
    if name is None:
        rows = [{"bench": bench, "what": report.ABOUT.get(bench, "")} for bench in bars.BARS]
        emit(rows, as_json, table(rows, ["bench", "what"]))
        return
    if name not in bars.BARS:
        fail(f"there is no bench '{name}'", f"expected one of: {', '.join(bars.BARS)}")
    bench = importlib.import_module(f"tests.benchmarks.{name.replace('-', '_')}")
    outcome = bench.run(quick, lambda line: click.echo(f"  {line}", err=True))
    result = {
        "bench": name,
        "measured": outcome["measured"],
        "bars": bars.judge(name, outcome["measured"]),
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
