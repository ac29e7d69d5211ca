"""Jobs an ML engineer looks for, and their schedule."""

from __future__ import annotations

import dagster as dg

from contracts.retailer import Retailer

FULL_PIPELINE = "full_pipeline"
DAILY_FEATURES = "daily_features"
INGEST_LIVE = "ingest_live"
RETRAIN = "retrain"
RELEASE = "release"
PEOPLE = "people"
RELATIONSHIP = "relationship"
VISUAL = "visual"
ACTIONS = "next_actions"
OUTBOUND = "outbound"
JOB_NAMES = (
    FULL_PIPELINE,
    DAILY_FEATURES,
    INGEST_LIVE,
    RETRAIN,
    RELEASE,
    PEOPLE,
    RELATIONSHIP,
    ACTIONS,
    OUTBOUND,
)

OUTLOOK = (
    "people/relationship", "people/trials", "people/segments", "people/contacts", "people/intent",
    "people/next_visit", "people/predictions", "people/actions",
)  # fmt: skip
"""Who customers are to the shop and what comes next; needs more history than a young shop has."""
LIVE = ("lake/live_events", "features/live_rows", "profiles/histories", "loop/evidence")


def job_names(retailer: Retailer) -> tuple[str, ...]:
    """Jobs of a shop: one with pictures has one more."""
    return JOB_NAMES if retailer.pictures is None else (*JOB_NAMES, VISUAL)


def build_jobs(retailer: Retailer) -> dg.Definitions:
    """All jobs, each with its owner, and the nightly schedule."""
    tags = {"owner": retailer.owners[0]}
    # The drain has its own job; churn and value need more history than a young shop has; nothing leaves the
    # platform unless somebody asks for it.
    apart = dg.AssetSelection.assets("lake/live_events", *OUTLOOK, "outbound/audiences")
    jobs = [
        dg.define_asset_job(
            FULL_PIPELINE,
            selection=dg.AssetSelection.all() - apart,
            description="From raw rows to a promoted release: what `make run` runs.",
            tags=tags,
        ),
        dg.define_asset_job(
            DAILY_FEATURES,
            selection=dg.AssetSelection.assets("lake/events") | dg.AssetSelection.groups("features"),
            description="One day (or a range, as a backfill): events, feature rows, online store, histories.",
            tags=tags,
        ),
        dg.define_asset_job(
            INGEST_LIVE,
            # The events' checks run on what was drained: automation waits for them, and so do the features.
            selection=dg.AssetSelection.assets(*LIVE) | dg.AssetSelection.checks_for_assets("lake/events"),
            description="Drain the live inbox, rebuild the features it touches, publish histories, weigh the evidence.",
            tags=tags,
        ),
        dg.define_asset_job(
            RETRAIN,
            selection=dg.AssetSelection.groups("models", "release"),
            description="Train both models on the newest snapshot, build a release, judge and promote it.",
            tags=tags,
        ),
        dg.define_asset_job(
            RELEASE,
            selection=dg.AssetSelection.groups("release"),
            description="Build a release from the newest bundles, judge it against the champion, promote it.",
            tags=tags,
        ),
        dg.define_asset_job(
            PEOPLE,
            selection=dg.AssetSelection.assets("people/identities", "people/moments", "people/overview"),
            description="Who is who, their sessions and moments, and the overview that the pages show.",
            tags=tags,
        ),
        dg.define_asset_job(
            ACTIONS,
            selection=dg.AssetSelection.assets("people/predictions", "people/actions"),
            description="Everybody's next best action from the newest predictions, without training.",
            tags=tags,
        ),
        dg.define_asset_job(
            RELATIONSHIP,
            selection=dg.AssetSelection.assets(*OUTLOOK, "people/overview"),
            description="Train and judge the models of people (churn, value, segments, contacts, intent, next visit), "
            "predict for every customer, choose everybody's next best action, and show it.",
            tags=tags,
        ),
        dg.define_asset_job(
            OUTBOUND,
            selection=dg.AssetSelection.groups("outbound"),
            description="Bring files, SQL tables and webhooks to what their audiences are now, send what waits, look again.",
            tags=tags,
        ),
    ]
    if retailer.pictures is not None:
        jobs.append(
            dg.define_asset_job(
                VISUAL,
                selection=dg.AssetSelection.groups("visual"),
                description="Collect the pictures, train the visual models, rebuild index and looks; `release` ships them.",
                tags=tags,
            )
        )
    # An archive does not grow: its schedules are there to be switched on, not running.
    status = (
        dg.DefaultScheduleStatus.STOPPED if retailer.clock == "stream" else dg.DefaultScheduleStatus.RUNNING
    )
    catalogue = dg.ScheduleDefinition(
        name="refresh_catalogue",
        cron_schedule="0 3 * * *",
        target=dg.AssetSelection.assets("lake/products", "lake/customers", "lake/exposures", "lake/offers"),
        default_status=status,
        tags=tags,
    )
    nightly = dg.build_schedule_from_partitioned_job(
        jobs[JOB_NAMES.index(DAILY_FEATURES)],
        name="nightly_features",
        hour_of_day=2,
        default_status=status,
        tags=tags,
    )
    # Popularity, prices and co-purchases live in the release: a new one with the same models keeps them fresh.
    tables = dg.ScheduleDefinition(
        name="nightly_release",
        cron_schedule="0 4 * * *",
        job=jobs[JOB_NAMES.index(RELEASE)],
        default_status=status,
        tags=tags,
    )
    people = dg.ScheduleDefinition(
        name="nightly_people",
        cron_schedule="0 3 * * *",
        job=jobs[JOB_NAMES.index(PEOPLE)],
        default_status=status,
        tags=tags,
    )
    outbound = dg.ScheduleDefinition(
        name="outbound_hourly",  # Often enough for a receiver that was away, and for a consent that was withdrawn.
        cron_schedule="17 * * * *",
        job=jobs[JOB_NAMES.index(OUTBOUND)],
        default_status=status if retailer.audiences else dg.DefaultScheduleStatus.STOPPED,
        tags=tags,
    )
    return dg.Definitions(jobs=jobs, schedules=[catalogue, nightly, tables, people, outbound])
