"""Sensors on outside facts: events waiting in the inbox, and evidence enough to train again."""

import json
import time

import dagster as dg

from contracts.retailer import Retailer
from orchestration.defs.jobs import INGEST_LIVE, RETRAIN
from orchestration.defs.loop.assets import EVIDENCE
from orchestration.resources import Shop

INTERVAL_SECONDS = 15
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]  # fmt: skip


def build_sensors(retailer: Retailer) -> list[dg.SensorDefinition]:
    """Inbox, retraining and automation sensors, all running by default."""

    @dg.sensor(
        name="inbox_has_events",
        job_name=INGEST_LIVE,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Drains the live inbox as soon as events wait in it.",
    )
    def inbox_has_events(context: dg.SensorEvaluationContext, shop: Shop) -> dg.RunRequest | dg.SkipReason:
        from orchestration.draining import waiting

        count, newest = waiting(shop.settings())
        if count == 0:
            return dg.SkipReason("the inbox is drained")
        if _unfinished(context.instance, INGEST_LIVE):
            return dg.SkipReason(f"{count} events wait for the run in progress")
        return dg.RunRequest(run_key=f"inbox-{newest}", tags={"inbox/newest_offset": str(newest)})

    @dg.sensor(
        name="evidence_is_enough",
        job_name=RETRAIN,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Trains again when enough new purchases, or too much drift, have gathered since the champion.",
    )
    def evidence_is_enough(context: dg.SensorEvaluationContext, shop: Shop) -> dg.RunRequest | dg.SkipReason:
        event = context.instance.get_latest_materialization_event(EVIDENCE)
        if event is None or event.asset_materialization is None:
            return dg.SkipReason("no evidence yet")
        facts = {name: entry.value for name, entry in event.asset_materialization.metadata.items()}
        champion, version = int(facts["champion_version"]), int(facts["events_version"])  # type: ignore[arg-type]
        new, psi = int(facts["new_purchases"]), float(facts["max_psi"])  # type: ignore[arg-type]
        rules = shop.profile().retraining
        if champion < 0:
            return dg.SkipReason("no champion yet: the first training is a person's decision (`make run`)")
        if new < rules.min_new_events and (new == 0 or psi < rules.max_psi):
            return dg.SkipReason(f"{new} new purchases (due at {rules.min_new_events}), drift {psi:.3f}")
        if _unfinished(context.instance, RETRAIN) or _unfinished(context.instance, INGEST_LIVE):
            return dg.SkipReason("a run that changes the evidence is in progress")
        last = json.loads(context.cursor) if context.cursor else {"version": -1, "at": 0.0}
        if version <= last["version"]:
            return dg.SkipReason(f"trained on snapshot {version} already")
        if time.time() - last["at"] < rules.min_hours_between * 3600:
            return dg.SkipReason("the last retraining is too recent")
        context.update_cursor(json.dumps({"version": version, "at": time.time()}))
        why = f"{new} new purchases, drift {psi:.3f}"
        return dg.RunRequest(run_key=f"retrain-{champion}-{version}", tags={"retrain/why": why})

    automation = dg.AutomationConditionSensorDefinition(
        "automation",
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=INTERVAL_SECONDS,
    )
    return [inbox_has_events, evidence_is_enough, automation]


def _unfinished(instance: dg.DagsterInstance, job: str) -> bool:
    return bool(instance.get_runs(dg.RunsFilter(job_name=job, statuses=UNFINISHED), limit=1))
