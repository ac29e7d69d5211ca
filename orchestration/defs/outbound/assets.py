"""The asset of what leaves: every audience at every destination, and the outbox sent."""

from typing import Any

import dagster as dg

from contracts.retailer import Retailer
from orchestration.conditions import LAKE_POOL, owners
from orchestration.defs.people.assets import IDENTITIES, MOMENTS
from orchestration.defs.people.outlook import ACTIONS
from orchestration.metadata import markdown_table
from orchestration.resources import Shop

GROUP = "outbound"
AUDIENCES = dg.AssetKey(["outbound", "audiences"])

PATIENCE_SECONDS = 120.0
"""For which a run waits for receivers that fail; the rest is sent by the next run."""


def build_assets(retailer: Retailer) -> list[dg.AssetsDefinition]:
    """All assets of what leaves."""

    @dg.asset(
        key=AUDIENCES,
        group_name=GROUP,
        owners=owners(retailer),
        deps=[IDENTITIES, MOMENTS, ACTIONS],
        kinds={"duckdb", "sqlite"},
        pool=LAKE_POOL,
        description="Audiences and next best actions at their files, SQL tables and signed webhooks, within consent.",
    )
    def audiences(context: dg.AssetExecutionContext, shop: Shop) -> dg.MaterializeResult[Any]:
        from orchestration.outbound.exporting import export

        done = export(shop.settings(), shop.profile(), patience=PATIENCE_SECONDS, say=context.log.info)
        steps = [
            {"audience": s.audience, "destination": s.destination, "rows": s.rows, "error": s.error,
             **{change: s.changes.get(change, "") for change in ("added", "changed", "removed")}}
            for s in done.steps
        ]  # fmt: skip
        counts = [{"audience": name, **found} for name, found in done.counts.items()]
        sent = [
            {"destination": s.destination, "accepted": s.accepted, "rows": s.rows, "failed": s.failed,
             "waiting": s.waiting, "dead": s.dead, "error": s.error}
            for s in done.sent
        ]  # fmt: skip
        metadata: dict[str, Any] = {"dagster/row_count": sum(step.rows for step in done.steps)}
        for name, rows in (("counts", counts), ("exports", steps), ("sent", sent)):
            if rows:
                metadata[name] = markdown_table(rows, list(rows[0]))
        if done.retired:
            metadata["emptied"] = ", ".join(done.retired)
        if done.errors:
            metadata["failed"] = "; ".join(
                done.errors
            )  # What was served stands; the check `complete` says the rest.
        return dg.MaterializeResult(metadata=metadata)

    return [audiences]
