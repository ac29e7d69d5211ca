"""Assets of the feature repository: rows by day, Feast's registry, the online store, live histories."""

import datetime as dt
from typing import Any

import dagster as dg

from contracts.retailer import Retailer
from orchestration.conditions import FEAST_POOL, LAKE_POOL, daily, on_new_data, owners
from orchestration.defs.intake.assets import EVENTS, LIVE_EVENTS, PRODUCTS
from orchestration.metadata import markdown_table
from orchestration.resources import Shop

GROUP = "features"
CUSTOMER_VIEWS = dg.AssetKey(["features", "customer_views"])
PRODUCT_VIEWS = dg.AssetKey(["features", "product_views"])
REGISTRY = dg.AssetKey(["features", "registry"])
ONLINE = dg.AssetKey(["features", "online"])
LIVE_ROWS = dg.AssetKey(["features", "live_rows"])
HISTORIES = dg.AssetKey(["profiles", "histories"])

CUSTOMER_VIEW_NAMES = (
    "customer",
    "customer_product",
    "customer_type",
    "customer_category",
    "customer_store_product",
)
PRODUCT_VIEW_NAMES = ("product", "store_product")
VIEW_NAMES = (*CUSTOMER_VIEW_NAMES, *PRODUCT_VIEW_NAMES)


def build_assets(retailer: Retailer) -> list[dg.AssetsDefinition]:
    """All assets of the feature repository."""
    rows: dict[str, Any] = {
        "group_name": GROUP,
        "owners": owners(retailer),
        "key_prefix": ["features"],
        "kinds": {"ibis", "duckdb", "deltalake"},
        "pool": LAKE_POOL,
        "partitions_def": daily(retailer),
        "backfill_policy": dg.BackfillPolicy.single_run(),
        "automation_condition": on_new_data(),
        "deps": [EVENTS, PRODUCTS],
    }

    @dg.asset(
        **rows,
        description="Feature rows of customers, and of customers with products, types and categories: one per event, "
        "so that a point-in-time join is exact at any moment.",
    )
    def customer_views(context: dg.AssetExecutionContext, shop: Shop) -> dg.MaterializeResult[Any]:
        return _build(context, shop, CUSTOMER_VIEW_NAMES)

    @dg.asset(
        **rows,
        description="Feature rows of products and of products in stores: popularity, trend, price, discount, repeat rate.",
    )
    def product_views(context: dg.AssetExecutionContext, shop: Shop) -> dg.MaterializeResult[Any]:
        return _build(context, shop, PRODUCT_VIEW_NAMES)

    @dg.asset(
        group_name=GROUP,
        owners=owners(retailer),
        key_prefix=["features"],
        kinds={"feast"},
        pool=FEAST_POOL,
        deps=[CUSTOMER_VIEWS, PRODUCT_VIEWS],
        description="Feast's registry: entities, views, on-demand views and one feature service per model.",
    )
    def registry(shop: Shop) -> dg.MaterializeResult[Any]:
        from feature_repo import online

        applied = online.apply(shop.settings())
        return dg.MaterializeResult(
            metadata={name: markdown_table(found, list(found[0])) for name, found in applied.items() if found}
        )

    @dg.asset(
        group_name=GROUP,
        owners=owners(retailer),
        key_prefix=["features"],
        kinds={"feast", "sqlite"},
        pool=FEAST_POOL,
        deps=[REGISTRY],
        automation_condition=on_new_data(),
        description="Feast's online store, filled by an explicit window of days (never by a watermark).",
    )
    def online(context: dg.AssetExecutionContext, shop: Shop) -> dg.MaterializeResult[Any]:
        from feature_repo import online as store

        first, last = _window(context, shop)
        written = store.materialize(shop.settings(), first, last)
        return dg.MaterializeResult(
            metadata={
                "window": f"{first.isoformat()} to {last.isoformat()}",
                "views": markdown_table(written, list(written[0])),
            }
        )

    @dg.asset(
        group_name=GROUP,
        owners=owners(retailer),
        key_prefix=["features"],
        kinds={"ibis", "duckdb", "deltalake"},
        pool=LAKE_POOL,
        deps=[EVENTS, LIVE_EVENTS, CUSTOMER_VIEWS, PRODUCT_VIEWS],
        description="Feature rows of every day from the earliest that live events touched on: rows accumulate, so a "
        "late event changes all days after its own. What a failed run left is made good by the next.",
    )
    def live_rows(context: dg.AssetExecutionContext, shop: Shop) -> dg.MaterializeResult[Any]:
        from feature_repo.build import build_views, changed_days
        from orchestration.windows import data_end

        settings, first_day = shop.settings(), shop.profile().first_day
        version, days = changed_days(settings, _covered(context))
        # Days before the shop's first hold what a wrong clock sent; no feature row comes from them alone.
        touched = [day for day in days if day >= first_day]
        if not touched:
            return dg.MaterializeResult(metadata={"dagster/row_count": 0, "events_version": version})
        end = data_end(settings.lake)
        built = build_views(settings, VIEW_NAMES, touched[0], end, version)
        for key in (CUSTOMER_VIEWS, PRODUCT_VIEWS):
            for day in touched:
                context.log_event(
                    dg.AssetMaterialization(
                        key, partition=day.isoformat(), description="live events", metadata={"live": True}
                    )
                )
        return _built(built, {"days": f"{touched[0]} to {end}"})

    @dg.asset(
        key=HISTORIES,
        group_name=GROUP,
        owners=owners(retailer),
        kinds={"numpy"},
        deps=[EVENTS, LIVE_EVENTS],
        description="Every known customer's events as arrays: what the live server starts from.",
    )
    def histories(shop: Shop) -> dg.MaterializeResult[Any]:
        import json

        from orchestration.lake.histories import publish_histories
        from orchestration.lake.intake import drained_offset

        settings = shop.settings()
        folder = publish_histories(settings, inbox_offset=drained_offset(settings.lake))
        meta = json.loads((folder / "meta.json").read_text())
        return dg.MaterializeResult(
            metadata={"dagster/row_count": meta["events"], "dagster/uri": str(folder), **meta}
        )

    return [customer_views, product_views, registry, online, live_rows, histories]


def _build(
    context: dg.AssetExecutionContext, shop: Shop, views: tuple[str, ...]
) -> dg.MaterializeResult[Any]:
    from feature_repo.build import build_views

    span = context.partition_time_window
    last = (span.end - dt.timedelta(microseconds=1)).date()
    return _built(build_views(shop.settings(), views, span.start.date(), last))


def _built(built: list[Any], extra: dict[str, Any] | None = None) -> dg.MaterializeResult[Any]:
    rows = [{"view": b.view, "rows": b.rows, "version": b.version, "seconds": b.seconds} for b in built]
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": sum(b.rows for b in built),
            "events_version": built[0].events_version,
            "views": markdown_table(rows, ["view", "rows", "version", "seconds"]),
            **(extra or {}),
        }
    )


def _covered(context: dg.AssetExecutionContext) -> int | None:
    """Version of lake/events that the feature tables hold whole: what this run built, or `live_rows` before."""
    versions = []
    for key in (CUSTOMER_VIEWS, PRODUCT_VIEWS):
        event = context.instance.get_latest_materialization_event(key)
        if event is None or event.asset_materialization is None or event.run_id != context.run_id:
            break
        versions.append(int(event.asset_materialization.metadata["events_version"].value))  # type: ignore[arg-type]
    if len(versions) == 2:
        return min(versions)
    event = context.instance.get_latest_materialization_event(LIVE_ROWS)
    found = event.asset_materialization.metadata if event and event.asset_materialization else {}
    return int(found["events_version"].value) if "events_version" in found else None  # type: ignore[arg-type]


def _window(context: dg.AssetExecutionContext, shop: Shop) -> tuple[dt.datetime, dt.datetime]:
    """The run's days if it names some, else the days that the lake got since the store was last filled."""
    from orchestration.windows import data_end

    tags = context.run.tags
    start = tags.get("dagster/asset_partition_range_start") or tags.get("dagster/partition")
    stop = tags.get("dagster/asset_partition_range_end") or tags.get("dagster/partition")
    if start and stop:
        first, last = dt.date.fromisoformat(start), dt.date.fromisoformat(stop)
    else:
        end = data_end(shop.settings().lake)
        first, last = end - dt.timedelta(days=7), end
    midnight = dt.time()
    return (
        dt.datetime.combine(first, midnight, dt.UTC),
        dt.datetime.combine(last + dt.timedelta(days=1), midnight, dt.UTC),
    )
