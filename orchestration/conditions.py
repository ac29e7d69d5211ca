"""When assets run by themselves, and how their work is limited."""

from __future__ import annotations

import dagster as dg

from contracts.retailer import Retailer

LAKE_POOL = "lake_writer"
FEAST_POOL = "feast_registry"
TRAINING_POOL = "training"


def on_new_data() -> dg.AutomationCondition[dg.AssetKey]:
    """Run a partition whenever what it is made from has changed and passed its blocking checks.

    Unlike `eager`, it also acts on old days: a late event or a correction rebuilds the day it
    belongs to. Blocking checks are asked for explicitly because `eager` does not wait for them.
    """
    return (
        dg.AutomationCondition.any_deps_updated().since_last_handled()
        & ~dg.AutomationCondition.any_deps_in_progress()
        & ~dg.AutomationCondition.in_progress()
        & dg.AutomationCondition.all_deps_blocking_checks_passed()
    ).with_label("on_new_data")


def daily(retailer: Retailer) -> dg.DailyPartitionsDefinition:
    """UTC days since the shop's first."""
    return dg.DailyPartitionsDefinition(
        start_date=retailer.first_day.isoformat(), timezone="UTC", end_offset=1
    )


def owners(retailer: Retailer) -> list[str]:
    """Owners as Dagster wants them: e-mail addresses, or ``team:`` and a name."""
    return list(retailer.owners)
