"""`continuum next-action`: what the shop should do next for one customer, and why."""

from __future__ import annotations

import click
import msgspec

from contracts.settings import SettingsError, read_retailer, read_settings
from orchestration.cli.output import emit, fail, json_option, table


@click.command(short_help="what to do next for a customer: contact or not, how, when, with what, why")
@click.argument("customer")
@json_option
def command(customer: str, as_json: bool) -> None:
    """Show the next best action of CUSTOMER, with its reason and what else was weighed.

    Actions are made by the jobs relationship and next_actions; leaves with 1 where there is none.
    """
    from feature_repo.snapshots import SnapshotError
    from orchestration.lake.next_actions import read_actions

    try:
        settings = read_settings()
        currency = read_retailer(settings).currency
        found = read_actions(settings, customer)
    except SettingsError as error:
        fail(str(error))
    except SnapshotError as error:
        fail(f"no actions are made yet ({error}); run: continuum run relationship")
    if not found:
        fail(f"there is no action for customer '{customer}'; expected the id of a known customer")
    action = found[0]
    text = "leave alone"
    if action.is_contact:
        text = (
            f"{action.kind} {action.subject} by {action.channel} at {action.at:%Y-%m-%d %H:%M} UTC, "
            f"adds {action.gain:.2f} {currency}"
        )
    facts = f"{text}\nwhy: {action.reason}\ndecided for {action.made_at:%Y-%m-%d %H:%M} UTC, good until "
    facts += f"{action.expires_at:%Y-%m-%d %H:%M} UTC"
    if action.simulated:
        facts += "; the customer is simulated"
    rows = [
        {"channel": other.channel, "kind": other.kind, "subject": other.subject, "against": other.reason}
        for other in action.refused
    ]
    weighed = f"\n{table(rows, ['channel', 'kind', 'subject', 'against'])}" if rows else ""
    emit(msgspec.to_builtins(action), as_json, facts + weighed)
