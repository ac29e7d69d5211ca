"""Assets about people: identities, sessions and moments, and the overview that the pages show."""

import sys
from typing import Any

import dagster as dg

from contracts.retailer import Retailer
from contracts.settings import ROOT
from orchestration.conditions import LAKE_POOL, TRAINING_POOL, owners
from orchestration.defs.intake.assets import CUSTOMERS, EVENTS, PRODUCTS
from orchestration.metadata import bars, markdown_table, table_metadata
from orchestration.resources import Shop

GROUP = "people"
IDENTITIES = dg.AssetKey(["people", "identities"])
MOMENTS = dg.AssetKey(["people", "moments"])
OVERVIEW = dg.AssetKey(["people", "overview"])
RELATIONSHIP = dg.AssetKey(["people", "relationship"])


def build_assets(retailer: Retailer) -> list[dg.AssetsDefinition]:
    """All assets about people."""
    common: dict[str, Any] = {
        "group_name": GROUP,
        "owners": owners(retailer),
        "key_prefix": ["people"],
        "pool": LAKE_POOL,
    }

    @dg.asset(
        **common,
        deps=[EVENTS],
        kinds={"duckdb", "deltalake"},
        description="One person for every identifier and every event, with the reasons kept; merges can be undone.",
    )
    def identities(shop: Shop) -> dg.MaterializeResult[Any]:
        import dataclasses

        from orchestration.lake.people import store_identities

        done = store_identities(shop.settings().lake)
        extra = {"forms": done.forms, "matched_by_forms": done.matched, "ambiguous_forms": done.ambiguous}
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": done.profiled.events,
                **dataclasses.asdict(done.profiled),
                **extra,
                "consents": done.consents,
            }
        )

    @dg.asset(
        **common,
        deps=[IDENTITIES, EVENTS],
        kinds={"numpy", "deltalake"},
        description="Sessions over all devices and channels, and the micro-moments in them, good and bad.",
    )
    def moments(shop: Shop) -> dg.MaterializeResult[Any]:
        from orchestration.lake.people import MOMENTS as TABLE
        from orchestration.lake.people import store_moments

        settings = shop.settings()
        done = store_moments(settings.lake)
        extra: dict[str, Any] = {"events": done.events, "sessions": done.sessions.rows}
        if done.kinds:
            counts = {kind.replace("_", " "): float(count) for kind, count in done.kinds.items()}
            extra["kinds"] = bars(counts, "Moments by kind")
        return dg.MaterializeResult(
            metadata=table_metadata(
                TABLE.path(settings.lake), TABLE.schema, done.moments.version, done.moments.rows, **extra
            )
        )

    @dg.asset(
        **common,
        # What the models say and what trials tell is shown too, where it is there.
        deps=[
            MOMENTS,
            PRODUCTS,
            CUSTOMERS,
            dg.AssetKey(["people", "predictions"]),
            dg.AssetKey(["people", "trials"]),
        ],
        kinds={"duckdb", "plotly"},
        description="The shop at a glance: numbers, channel graph, moments, attribution and segments for the pages.",
    )
    def overview(shop: Shop) -> dg.MaterializeResult[Any]:
        from orchestration.lake.overview import publish_overview

        made = publish_overview(shop.settings(), shop.profile())
        numbers = [{"name": k.name, "value": k.value, "unit": k.unit, "about": k.about} for k in made.kpis]
        metadata: dict[str, Any] = {"events": made.events, "people": made.people}
        if numbers:
            metadata["kpis"] = markdown_table(numbers, ["name", "value", "unit", "about"])
        if made.credits:
            rows = [{"method": c.method, "channel": c.channel, "share": c.share} for c in made.credits]
            metadata["attribution"] = markdown_table(rows, ["method", "channel", "share"])
        return dg.MaterializeResult(metadata=metadata)

    @dg.asset(
        key=RELATIONSHIP,
        group_name=GROUP,
        owners=owners(retailer),
        deps=[EVENTS],
        kinds={"pytorch", "onnx", "mlflow"},
        pool=TRAINING_POOL,
        description="Churn within 28 days and spend within 91 days of every customer, judged on the latest 91 days.",
    )
    def relationship(
        context: dg.AssetExecutionContext, shop: Shop, pipes: dg.PipesSubprocessClient
    ) -> dg.MaterializeResult[Any]:
        from orchestration.services import environment
        from orchestration.training_jobs import finish_customers, prepare_customers

        settings = shop.settings()
        job = prepare_customers(settings, shop.profile())
        command = [sys.executable, "-m", "training.relationship", job.family, "--config", str(job.config)]
        env = {**environment(settings), "OMP_NUM_THREADS": "2"}
        pipes.run(context=context, command=command, cwd=str(ROOT), env=env)
        record = finish_customers(settings, job)
        rows = [{"metric": name, "value": float(value)} for name, value in sorted(record.metrics.items())]
        return dg.MaterializeResult(
            metadata={
                "mlflow_run_id": record.run_id,
                "bundle": str(job.out),
                "metrics": markdown_table(rows, ["metric", "value"]),
            }
        )

    return [identities, moments, overview, relationship]
