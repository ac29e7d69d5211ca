"""`continuum recommend`: ask the live server for recommendations."""

from __future__ import annotations

import click

from orchestration.cli.output import emit, json_option, table
from orchestration.cli.server import call


@click.command(short_help="ask the live server for recommendations")
@click.argument("customer", required=False)
@click.option("--session", help="Anonymous session instead of a customer.")
@click.option("-n", "count", default=10, show_default=True, help="How many items.")
@click.option("--touchpoint", default="cli", show_default=True, help="Where the answer is shown.")
@click.option("--store", help="Store id of the request.")
@click.option("--at", help="Moment of the request (ISO 8601 with zone); the shop's clock by default.")
@click.option("--department", multiple=True, help="Only these departments.")
@click.option("--url", help="Server address.")
@json_option
def command(
    customer: str | None,
    session: str | None,
    count: int,
    touchpoint: str,
    store: str | None,
    at: str | None,
    department: tuple[str, ...],
    url: str | None,
    as_json: bool,
) -> None:
    """Recommend products to CUSTOMER (or to --session), with a reason for each."""
    context = {key: value for key, value in {"store_id": store, "at": at}.items() if value}
    body: dict[str, object] = {"n": count, "touchpoint": touchpoint, "context": context}
    if customer:
        body["customer_id"] = customer
    if session:
        body["session_id"] = session
    if department:
        body["filters"] = {"department": list(department)}
    answer = call("POST", "/v1/recommendations", body, url)
    rows = [
        {
            "#": item["position"] + 1,
            "product": item["product_id"],
            "name": item["name"],
            "why": item["reason"]["text"],
        }
        for item in answer["items"]
    ]
    head = f"decision {answer['decision_id']} · release {answer['release']} · path {answer['path']}"
    notes = "".join(f"\nnote: {note}" for note in answer.get("notes", []))
    emit(answer, as_json, f"{head}{notes}\n{table(rows, ['#', 'product', 'name', 'why'])}")
