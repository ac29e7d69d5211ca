"""Assets of the models: trained in processes of their own, started through Dagster Pipes."""

import sys
from typing import Any

import dagster as dg

from contracts.retailer import Retailer
from contracts.settings import ROOT
from orchestration.conditions import TRAINING_POOL, owners
from orchestration.defs.features.assets import CUSTOMER_VIEWS, ONLINE, PRODUCT_VIEWS
from orchestration.defs.intake.assets import EVENTS, EXPOSURES, PRODUCTS
from orchestration.metadata import bars, lines, markdown_table
from orchestration.resources import Shop

GROUP = "models"
FROZEN = dg.AssetKey(["models", "frozen_set"])
ENCODER = dg.AssetKey(["models", "encoder"])
RANKER = dg.AssetKey(["models", "ranker"])


def build_assets(retailer: Retailer) -> list[dg.AssetsDefinition]:
    """Frozen evaluation set, encoder and ranker."""
    common: dict[str, Any] = {"group_name": GROUP, "owners": owners(retailer), "key_prefix": ["models"]}

    @dg.asset(
        **common,
        deps=[EVENTS],
        kinds={"parquet"},
        description="The requests that this round of models is judged on: fixed, hashed, after everything learned from.",
    )
    def frozen_set(shop: Shop) -> dg.MaterializeResult[Any]:
        from orchestration.judging import freeze

        frozen = freeze(shop.settings(), shop.profile())
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": frozen.requests,
                "sha256": frozen.sha256,
                "events_version": frozen.events_version,
                "evaluate_from": frozen.windows.evaluate_from.isoformat(),
                "evaluate_until": frozen.windows.evaluate_until.isoformat(),
                "targets_per_request": frozen.targets_per_request,
            }
        )

    @dg.asset(
        **common,
        deps=[FROZEN, EVENTS, PRODUCTS],
        kinds={"pytorch", "onnx", "mlflow"},
        pool=TRAINING_POOL,
        description="The continuum encoder: one sequence model over the whole stream of a customer's events.",
    )
    def encoder(
        context: dg.AssetExecutionContext, shop: Shop, pipes: dg.PipesSubprocessClient
    ) -> dg.MaterializeResult[Any]:
        return _train(context, shop, pipes, "encoder")

    @dg.asset(
        **common,
        deps=[FROZEN, ENCODER, CUSTOMER_VIEWS, PRODUCT_VIEWS, ONLINE, EXPOSURES],
        kinds={"lightgbm", "onnx", "mlflow"},
        pool=TRAINING_POOL,
        description="The ranker: candidates of all sources, ordered on Feast features (LightGBM LambdaRank).",
    )
    def ranker(
        context: dg.AssetExecutionContext, shop: Shop, pipes: dg.PipesSubprocessClient
    ) -> dg.MaterializeResult[Any]:
        return _train(context, shop, pipes, "ranker")

    return [frozen_set, encoder, ranker]


def _train(
    context: dg.AssetExecutionContext, shop: Shop, pipes: dg.PipesSubprocessClient, family: str
) -> dg.MaterializeResult[Any]:
    """Write the config, run the family's trainer, and report what its bundle says."""
    from orchestration.services import environment
    from orchestration.training_jobs import finish, prepare

    settings = shop.settings()
    job = prepare(settings, shop.profile(), family)
    context.log.info(f"training {family}: config {job.config}")
    pipes.run(
        context=context,
        command=[sys.executable, "-m", "training", family, "--config", str(job.config)],
        cwd=str(ROOT),
        env={**environment(settings), "OMP_NUM_THREADS": "2"},
    )
    bundle = finish(settings, job)
    metrics = {name: value for name, value in bundle.metrics.items() if isinstance(value, int | float)}
    metadata: dict[str, Any] = {
        "mlflow_run_id": bundle.run_id,
        "model_uri": bundle.model_uri,
        "bundle": str(job.out),
        "metrics": markdown_table(
            [{"metric": k, "value": v} for k, v in sorted(metrics.items())], ["metric", "value"]
        ),
    }
    if "ndcg_at_10" in metrics:
        metadata["ndcg_at_10"] = metrics["ndcg_at_10"]
    compared = bundle.details.get("comparison") or {}
    if compared:
        metadata["comparison"] = bars(
            {str(k): float(v) for k, v in compared.items()}, "NDCG@10 on the frozen set", family
        )
    for name, values in (bundle.details.get("curve") or {}).items():
        metadata[f"curve_{name}"] = lines({name: [float(value) for value in values]}, f"{family}: {name}")
    return dg.MaterializeResult(metadata=metadata)
