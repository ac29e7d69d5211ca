"""The asset that says how much has happened since the champion's data."""

from typing import Any

import dagster as dg

from contracts.retailer import Retailer
from orchestration.conditions import on_new_data, owners
from orchestration.defs.features.assets import CUSTOMER_VIEWS, LIVE_ROWS, PRODUCT_VIEWS
from orchestration.metadata import bars
from orchestration.resources import Shop

GROUP = "loop"
EVIDENCE = dg.AssetKey(["loop", "evidence"])


def build_assets(retailer: Retailer) -> list[dg.AssetsDefinition]:
    """The evidence asset."""

    @dg.asset(
        key=EVIDENCE,
        group_name=GROUP,
        owners=owners(retailer),
        kinds={"duckdb"},
        deps=[CUSTOMER_VIEWS, PRODUCT_VIEWS, LIVE_ROWS],
        automation_condition=on_new_data(),
        description="New purchases since the champion's snapshot, and how far they have drifted from what it saw.",
    )
    def evidence(shop: Shop) -> dg.MaterializeResult[Any]:
        from orchestration.champion import champion_lake_version
        from orchestration.evidence import gather

        settings = shop.settings()
        found = gather(settings.lake, champion_lake_version(settings, "events"))
        metadata: dict[str, Any] = {
            "events_version": found.events_version,
            "champion_version": found.champion_version,
            "new_purchases": found.new_purchases,
            "max_psi": found.max_psi,
        }
        if found.psi:
            metadata["drift"] = bars(found.psi, "Population stability index since the champion's snapshot")
        return dg.MaterializeResult(metadata=metadata)

    return [evidence]
