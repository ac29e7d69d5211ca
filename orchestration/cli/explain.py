"""`continuum explain`: open one decision."""

from __future__ import annotations

import click

from orchestration.cli.output import emit, json_option, table
from orchestration.cli.server import call


@click.command(short_help="open one decision: who, what, why, from which release")
@click.argument("decision_id")
@click.option("--url", help="Server address.")
@json_option
def command(decision_id: str, url: str | None, as_json: bool) -> None:
    """Show the record of DECISION_ID: the path that answered, scores, sources, propensities and evidence."""
    decision = call("GET", f"/v1/decisions/{decision_id}", url=url)
    rows = [
        {
            "#": item["position"] + 1,
            "product": item["product_id"],
            "score": item["score"],
            "propensity": item["propensity"],
            "sources": ", ".join(item["sources"]),
            "why": item["reason"]["text"],
        }
        for item in decision["items"]
    ]
    facts = "\n".join(
        f"{name:<12}{decision.get(name)}"
        for name in ("decided_at", "as_of", "customer_id", "session_id", "touchpoint", "path", "release", "variant",
                     "notes", "rules", "context", "candidates", "history", "model_ms", "handler_ms")
    )  # fmt: skip
    columns = ["#", "product", "score", "propensity", "sources", "why"]
    emit(decision, as_json, f"{facts}\n{table(rows, columns)}")
