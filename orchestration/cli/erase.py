"""`continuum erase`: remove a person from every place that holds them."""

from __future__ import annotations

from typing import Any

import click

from contracts.settings import SettingsError, read_settings
from orchestration.cli.output import emit, fail, json_option, table


@click.command(short_help="remove a person from every store")
@click.argument("customer")
@click.option("--kind", default="customer", show_default=True, help="Kind of the identifier CUSTOMER.")
@click.option("--yes", is_flag=True, help="Do it; without this only list what would be removed.")
@click.option(
    "--readmit", is_flag=True, help="Let an erased identifier back in instead (a returning customer)."
)
@json_option
def command(customer: str, kind: str, yes: bool, readmit: bool, as_json: bool) -> None:
    """Remove the person known as CUSTOMER: lake, features, histories, inbox, decisions, evaluation, exports, logs.

    Receivers of webhooks that know the person are told to erase them.

    Lists what would be removed, and removes it with --yes. A tombstone (a keyed hash) stays, so that a
    replay does not bring the person back. Older versions of tables end to exist. An interrupted erasure
    is completed by calling again. Leaves with 1 if an identifier is still found somewhere, or a receiver could not
    be told.
    """
    from contracts.identity import TombstoneError
    from contracts.outbound import OutboundError
    from orchestration.lake import erasure
    from orchestration.lake.erasure_sqlite import StoreBusyError
    from orchestration.outbound.records import OutboxBusyError

    if not customer.strip():
        fail("CUSTOMER is empty", "expected an identifier, for example a customer id")
    try:
        settings = read_settings()
        if readmit:
            known = erasure.readmit(settings, customer, kind)
            text = f"{kind} {customer}: " + ("may come back" if known else "was never erased here")
            emit({"kind": kind, "customer": customer, "readmitted": known}, as_json, text)
            return
        done = erasure.erase(
            settings, customer, kind, not yes, lambda line: click.echo(f"  {line}", err=True)
        )
    except (SettingsError, StoreBusyError, TombstoneError, OutboundError, OutboxBusyError) as error:
        fail(str(error))
    value = as_dict(done)
    rows = [row for row in value["stores"] if row["rows"] or row["mentions"]]
    lines = [
        f"identifiers: {', '.join(f'{k} {v}' for k, v in done.subject.identifiers)}",
        *(
            [f"shared, kept: {', '.join(f'{k} {v}' for k, v in done.subject.shared)}"]
            if done.subject.shared
            else []
        ),
        table(rows, ["store", "rows", "mentions"]) if rows else "no store holds a row of this person",
        "dry run: nothing was changed; add --yes to remove all of this" if done.dry_run else _verdict(value),
    ]
    emit(value, as_json, "\n".join(lines))
    if done.remaining or done.untold:
        raise SystemExit(1)


def as_dict(done: Any) -> dict[str, Any]:
    """An `orchestration.lake.erasure.Erasure` as plain values."""
    subject = done.subject
    return {
        "customer": subject.asked[1],
        "kind": subject.asked[0],
        "dry_run": done.dry_run,
        "resumed": done.resumed,
        "identifiers": [{"kind": kind, "value": value} for kind, value in subject.identifiers],
        "shared": [{"kind": kind, "value": value} for kind, value in subject.shared],
        "persons": list(subject.persons),
        "events": len(subject.events),
        "sessions": len(subject.sessions),
        "stores": [{"store": s.store, "rows": s.rows, "mentions": s.mentions} for s in done.stores],
        "remaining": [{"file": str(t.path), "where": t.where} for t in done.remaining],
        "untold": [{"receiver": name, "why": why} for name, why in done.untold.items()],
    }


def _verdict(value: dict[str, Any]) -> str:
    untold = "".join(f"\nnot told: {row['receiver']}: {row['why']}" for row in value["untold"])
    if not value["remaining"]:
        return "erased: no identifier is found in any file" + untold
    files = "\n".join(f"  {row['file']} ({row['where']})" for row in value["remaining"])
    return f"not complete: identifiers are still found in\n{files}{untold}"
