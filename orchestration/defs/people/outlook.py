"""Assets about what comes next: trials, models of people, predictions, the next best action."""

import datetime as dt
import sys
from collections.abc import Sequence
from typing import Any

import dagster as dg

from contracts.retailer import Retailer
from contracts.settings import ROOT
from orchestration.conditions import FEAST_POOL, LAKE_POOL, TRAINING_POOL, owners
from orchestration.defs.intake.assets import CUSTOMERS, EVENTS, PRODUCTS
from orchestration.metadata import bars, markdown_table, table_metadata
from orchestration.resources import Shop

GROUP = "people"
IDENTITIES = dg.AssetKey(["people", "identities"])
MOMENTS = dg.AssetKey(["people", "moments"])
RELATIONSHIP = dg.AssetKey(["people", "relationship"])
TRIALS = dg.AssetKey(["people", "trials"])
SEGMENTS = dg.AssetKey(["people", "segments"])
CONTACTS = dg.AssetKey(["people", "contacts"])
INTENT = dg.AssetKey(["people", "intent"])
NEXT_VISIT = dg.AssetKey(["people", "next_visit"])
PREDICTIONS = dg.AssetKey(["people", "predictions"])
ACTIONS = dg.AssetKey(["people", "actions"])

TRIAL_KPIS = ("conversion", "value", "moment_quality")
"""KPIs of the shop that are shown by arm of its trials."""


def build_assets(retailer: Retailer) -> list[dg.AssetsDefinition]:
    """All assets about what comes next."""
    common: dict[str, Any] = {"group_name": GROUP, "owners": owners(retailer)}

    @dg.asset(
        key=TRIALS,
        **common,
        deps=[MOMENTS],
        kinds={"deltalake"},
        pool=LAKE_POOL,
        description="Contacts that were given or withheld at random, where the source knows some, and the KPIs of the "
        "shop by arm.",
    )
    def trials(shop: Shop) -> dg.MaterializeResult[Any]:
        from contracts.identity import read_tombstones
        from orchestration.lake import trials as lake_trials
        from orchestration.lake.erasure_shield import tombstones_path
        from orchestration.sources import load

        settings, profile = shop.settings(), shop.profile()
        source = load(profile.source, profile, settings)
        until = dt.datetime.combine(profile.last_day + dt.timedelta(days=1), dt.time(), dt.UTC)
        gone = read_tombstones(tombstones_path(settings))
        commit = lake_trials.ingest_trials(settings.lake, source, gone, until)
        table = lake_trials.TRIALS
        extra: dict[str, Any] = {}
        if commit.rows:
            rows = lake_trials.kpis_of_trials(settings.lake, TRIAL_KPIS)
            extra["kpis"] = markdown_table(rows, list(rows[0]))
        else:
            extra["note"] = f"the source '{profile.source}' knows no contacts that were assigned at random"
        return dg.MaterializeResult(
            metadata=table_metadata(
                table.path(settings.lake), table.schema, commit.version, commit.rows, **extra
            )
        )

    def model(
        key: dg.AssetKey, family: str, deps: Sequence[dg.AssetKey], kinds: set[str], description: str
    ) -> dg.AssetsDefinition:
        @dg.asset(key=key, **common, deps=deps, kinds=kinds, pool=TRAINING_POOL, description=description)
        def trained(
            context: dg.AssetExecutionContext, shop: Shop, pipes: dg.PipesSubprocessClient
        ) -> dg.MaterializeResult[Any]:
            return _train(context, shop, pipes, family)

        return trained

    models = [
        model(
            SEGMENTS, "segments", [MOMENTS, CUSTOMERS, PRODUCTS], {"sklearn", "mlflow"},
            "Customers by recency, frequency and money, by behaviour and by taste; published where resamples agree.",
        ),
        model(
            CONTACTS, "contacts", [TRIALS, CUSTOMERS], {"lightgbm", "mlflow"},
            "What a contact over each channel changes, from the shop's own trials, judged on the latest ones.",
        ),
        model(
            INTENT, "sessions", [MOMENTS], {"lightgbm", "onnx", "mlflow"},
            "Purchase intent in the session that is under way, judged on the latest four weeks of sessions.",
        ),
        model(
            NEXT_VISIT, "visits", [MOMENTS, CUSTOMERS], {"pytorch", "lightgbm", "onnx", "mlflow"},
            "When each customer comes again, over which channel and what for, judged on the latest four weeks.",
        ),
    ]  # fmt: skip

    @dg.asset(
        key=PREDICTIONS,
        **common,
        deps=[RELATIONSHIP, SEGMENTS, CONTACTS, INTENT, NEXT_VISIT],
        kinds={"feast", "deltalake"},
        pool=FEAST_POOL,
        description="What all models say of each customer, as Feast features (valid from when they were made, online "
        "too) and for the server.",
    )
    def predictions(shop: Shop) -> dg.MaterializeResult[Any]:
        from feature_repo.catalog import PREDICTIONS as VIEW
        from orchestration.lake.predictions import store_predictions, to_feast

        settings = shop.settings()
        done = store_predictions(settings, shop.profile())
        online = to_feast(settings, done.as_of)
        missing = [{"family": name, "reason": reason} for name, reason in done.missing.items()]
        extra: dict[str, Any] = {
            "as_of": done.as_of.isoformat(), "online": markdown_table(online, list(online[0])),
            **{f"{cut}_segments": "; ".join(names) for cut, names in done.names.items()},
        }  # fmt: skip
        if missing:
            extra["not_predicted"] = markdown_table(missing, ["family", "reason"])
        path = settings.features / VIEW.name
        return dg.MaterializeResult(
            metadata=table_metadata(path, VIEW.schema, done.version, done.customers, **extra)
        )

    @dg.asset(
        key=ACTIONS,
        **common,
        deps=[PREDICTIONS, IDENTITIES, EVENTS],
        kinds={"deltalake", "duckdb"},
        pool=LAKE_POOL,
        description="The next best action of every customer, within consent, caps and quiet hours; also to do nothing.",
    )
    def actions(shop: Shop) -> dg.MaterializeResult[Any]:
        from orchestration.lake import next_actions

        settings, profile = shop.settings(), shop.profile()
        made = next_actions.store_actions(settings, profile)
        table = next_actions.ACTIONS
        extra: dict[str, Any] = {"contacts": made.contacts, "expected_gain": made.gain}
        if made.by:
            extra["contacts_by"] = bars(
                {k: float(v) for k, v in made.by.items()}, "Contacts by channel and kind"
            )
        alone = [{"reason": reason, "customers": count} for reason, count in sorted(made.reasons.items())]
        if alone:
            extra["left_alone"] = markdown_table(alone, ["reason", "customers"])
        return dg.MaterializeResult(
            metadata=table_metadata(
                table.path(settings.lake), table.schema, made.commit.version, made.commit.rows, **extra
            )
        )

    return [trials, *models, predictions, actions]


def _train(
    context: dg.AssetExecutionContext, shop: Shop, pipes: dg.PipesSubprocessClient, family: str
) -> dg.MaterializeResult[Any]:
    """Train a family in a process of its own, and make what it left the latest."""
    from orchestration.services import environment
    from orchestration.training_jobs import finish_people, prepare_people

    settings = shop.settings()
    job = prepare_people(settings, shop.profile(), family)
    command = [sys.executable, "-m", "training.relationship", job.family, "--config", str(job.config)]
    # More threads than one only get into one another's way in fits as small as these.
    env = {**environment(settings), "OMP_NUM_THREADS": "1"}
    pipes.run(context=context, command=command, cwd=str(ROOT), env=env)
    record = finish_people(settings, job)
    rows = [{"metric": name, "value": float(value)} for name, value in sorted(record.metrics.items())]
    metadata: dict[str, Any] = {"mlflow_run_id": record.run_id, "bundle": str(job.out)}
    if rows:
        metadata["metrics"] = markdown_table(rows, ["metric", "value"])
    if "nothing" in record.details:
        metadata["nothing_learned"] = str(record.details["nothing"])
    return dg.MaterializeResult(metadata=metadata)
