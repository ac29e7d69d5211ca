"""Checks of the lake; those of severity error block what is downstream."""

import datetime as dt
import pathlib
from collections.abc import Iterator

import dagster as dg

from contracts.retailer import Retailer
from orchestration.defs.intake.assets import EVENTS, LIVE_EVENTS
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
        # They come after a drain of the same run, whose events they judge.
        dg.AssetCheckSpec(
            name=name,
            asset=EVENTS,
            additional_deps=[LIVE_EVENTS],
            description=text,
            blocking=name != "volume",
        )
        for name, text in NAMES.items()
    ]

    @dg.multi_asset_check(specs=specs, name="lake_events_checks")
    def lake_events_checks(
        context: dg.AssetCheckExecutionContext, shop: Shop
    ) -> Iterator[dg.AssetCheckResult]:
        from orchestration.lake.checks import check_events

        settings, profile = shop.settings(), shop.profile()
        first, last = _days(context, settings.lake, profile)
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


def _days(
    context: dg.AssetCheckExecutionContext, lake: pathlib.Path, profile: Retailer
) -> tuple[dt.date, dt.date]:
    """The run's partitions; what it has drained; or the whole of the shop's data."""
    tags = context.run.tags
    start = tags.get("dagster/asset_partition_range_start") or tags.get("dagster/partition")
    stop = tags.get("dagster/asset_partition_range_end") or tags.get("dagster/partition")
    if start and stop:
        return dt.date.fromisoformat(start), dt.date.fromisoformat(stop)
    drained = context.instance.get_latest_materialization_event(LIVE_EVENTS)
    if drained is None or drained.run_id != context.run.run_id or drained.asset_materialization is None:
        return profile.first_day, profile.last_day
    from orchestration.windows import data_end

    last = data_end(lake)
    first = str(drained.asset_materialization.metadata["first_day"].value)
    return (max(dt.date.fromisoformat(first), profile.first_day) if first else last), last
