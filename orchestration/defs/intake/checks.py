"""Checks of the lake; those of severity error block what is downstream."""

import datetime as dt
from collections.abc import Iterator

import dagster as dg

from orchestration.defs.intake.assets import EVENTS
from orchestration.resources import Shop

NAMES = {
    "schema": "The stored columns are those that the code declares.",
    "unique_events": "(source, event_id) occurs once.",
    "known_products": "Events name products of the catalogue.",
    "freshness": "The latest event is recent for the ingested window.",
    "volume": "No day has far fewer or more events than its weekday usually has.",
}


def build_checks() -> list[dg.AssetChecksDefinition]:
    """All checks of the lake."""
    specs = [
        # An unusual day is a warning: shops close, campaigns work. Automation waits for blocking checks whatever
        # their severity, so this one must not be one.
        dg.AssetCheckSpec(name=name, asset=EVENTS, description=text, blocking=name != "volume")
        for name, text in NAMES.items()
    ]

    @dg.multi_asset_check(specs=specs, name="lake_events_checks")
    def lake_events_checks(
        context: dg.AssetCheckExecutionContext, shop: Shop
    ) -> Iterator[dg.AssetCheckResult]:
        from orchestration.lake.checks import check_events

        settings, profile = shop.settings(), shop.profile()
        first, last = _days(context, profile.first_day, profile.last_day)
        for answer in check_events(settings.lake, first, last):
            yield dg.AssetCheckResult(
                asset_key=EVENTS,
                check_name=answer.name,
                passed=answer.passed,
                severity=dg.AssetCheckSeverity.ERROR
                if answer.severity == "error"
                else dg.AssetCheckSeverity.WARN,
                description=answer.description,
                metadata=answer.evidence,
            )

    return [lake_events_checks]


def _days(context: dg.AssetCheckExecutionContext, first: dt.date, last: dt.date) -> tuple[dt.date, dt.date]:
    """The run's partitions, or the whole of the shop's data."""
    tags = context.run.tags
    start = tags.get("dagster/asset_partition_range_start") or tags.get("dagster/partition")
    stop = tags.get("dagster/asset_partition_range_end") or tags.get("dagster/partition")
    if start and stop:
        return dt.date.fromisoformat(start), dt.date.fromisoformat(stop)
    return first, last
