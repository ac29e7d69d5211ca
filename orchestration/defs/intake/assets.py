"""Assets of the lake: one per table, and the one that drains the live inbox into it."""

import datetime as dt
from typing import Any

import dagster as dg

from contracts.retailer import Retailer
from orchestration.conditions import LAKE_POOL, daily, owners
from orchestration.metadata import Metadata, markdown_table, table_metadata
from orchestration.resources import Shop

GROUP = "intake"
EVENTS = dg.AssetKey(["lake", "events"])
LIVE_EVENTS = dg.AssetKey(["lake", "live_events"])
PRODUCTS = dg.AssetKey(["lake", "products"])
CUSTOMERS = dg.AssetKey(["lake", "customers"])
EXPOSURES = dg.AssetKey(["lake", "exposures"])
OFFERS = dg.AssetKey(["lake", "offers"])


def build_assets(retailer: Retailer) -> list[dg.AssetsDefinition]:
    """All assets of the lake for a shop."""
    common: dict[str, Any] = {
        "group_name": GROUP,
        "owners": owners(retailer),
        "pool": LAKE_POOL,
        "key_prefix": ["lake"],
    }

    @dg.asset(
        **common,
        kinds={"deltalake", "duckdb"},
        partitions_def=daily(retailer),
        backfill_policy=dg.BackfillPolicy.single_run(),
        description="Everything that happened between a person and the shop, from the bulk source, by UTC day.",
    )
    def events(context: dg.AssetExecutionContext, shop: Shop) -> dg.MaterializeResult[Any]:
        from orchestration.lake import ingest
        from orchestration.lake.erasure_shield import Shielded
        from orchestration.lake.tables import TABLES
        from orchestration.sources import load

        settings, profile = shop.settings(), shop.profile()
        window = _window(context, profile)
        source = Shielded(load(profile.source, profile, settings), settings)
        done = ingest.ingest_events(settings.lake, profile.source, source, window)
        table = TABLES["events"]
        extra: Metadata = {
            "read_rows": done.read,
            "dead_letters": done.dead_letters.rows,
            "dead_letters_by_reason": done.reasons,
            "days": f"{window.first_day} to {window.last_day}",
        }
        return dg.MaterializeResult(
            metadata=table_metadata(
                table.path(settings.lake), table.schema, done.events.version, done.events.rows, **extra
            )
        )

    @dg.asset(**common, kinds={"deltalake"}, description="The catalogue: goods, content and services.")
    def products(shop: Shop) -> dg.MaterializeResult[Any]:
        from orchestration.lake import ingest

        return _result(shop, "products", ingest.ingest_products)

    @dg.asset(
        **common, kinds={"deltalake"}, description="Known customers and what the shop knows about them."
    )
    def customers(shop: Shop) -> dg.MaterializeResult[Any]:
        from orchestration.lake import ingest

        households = shop.profile().households
        return _result(
            shop, "customers", lambda lake, source: ingest.ingest_customers(lake, source, households)
        )

    @dg.asset(**common, kinds={"deltalake"}, description="Coupons and the products they are good for.")
    def offers(shop: Shop) -> dg.MaterializeResult[Any]:
        from orchestration.lake import ingest

        return _result(shop, "offers", ingest.ingest_offers)

    @dg.asset(
        **common,
        kinds={"deltalake", "duckdb"},
        description="Which product each store displayed or advertised in which week (a table, not events).",
    )
    def exposures(shop: Shop) -> dg.MaterializeResult[Any]:
        from orchestration.lake import ingest
        from orchestration.sources import Window

        profile = shop.profile()
        window = Window(profile.first_day, profile.last_day, profile.households, profile.first_day)
        return _result(shop, "exposures", lambda lake, source: ingest.ingest_exposures(lake, source, window))

    @dg.asset(
        **common,
        kinds={"sqlite", "deltalake"},
        description="Moves what the live server accepted into lake/events, exactly once, and reports the days it touched.",
    )
    def live_events(context: dg.AssetExecutionContext, shop: Shop) -> dg.MaterializeResult[Any]:
        from orchestration.draining import drain_inbox

        settings = shop.settings()
        drained = drain_inbox(settings)
        for day in drained.days:
            if day >= shop.profile().first_day:
                context.log_event(
                    dg.AssetMaterialization(
                        EVENTS, partition=day.isoformat(), description="live events", metadata={"live": True}
                    )
                )
        rows = [{"day": day.isoformat()} for day in drained.days]
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": drained.events,
                "snapshot_version": drained.version,
                "inbox_offset": drained.offset,
                "duplicates": drained.duplicates,
                "dead_letters": drained.dead_letters,
                "first_day": drained.days[0].isoformat() if drained.days else "",
                "days": markdown_table(rows, ["day"]),
            }
        )

    return [events, products, customers, offers, exposures, live_events]


def _window(context: dg.AssetExecutionContext, profile: Retailer) -> Any:
    from orchestration.sources import Window

    span = context.partition_time_window
    last = (span.end - dt.timedelta(microseconds=1)).date()
    return Window(span.start.date(), last, profile.households, profile.first_day)


def _result(shop: Shop, name: str, write: Any) -> dg.MaterializeResult[Any]:
    from orchestration.lake.erasure_shield import Shielded
    from orchestration.lake.tables import TABLES
    from orchestration.sources import load

    settings, table = shop.settings(), TABLES[name]
    profile = shop.profile()
    commit = write(settings.lake, Shielded(load(profile.source, profile, settings), settings))
    return dg.MaterializeResult(
        metadata=table_metadata(table.path(settings.lake), table.schema, commit.version, commit.rows)
    )
