"""The code location: what is in it, and that everything in it explains itself."""

from __future__ import annotations

import subprocess
import sys

import dagster as dg
import pytest

from orchestration.definitions import JOB_NAMES, build_definitions

KEYS = {
    "lake/events", "lake/products", "lake/customers", "lake/exposures", "lake/offers", "lake/live_events",
    "features/customer_views", "features/product_views",
    "features/live_rows", "features/registry", "features/online", "profiles/histories",
    "models/frozen_set", "models/encoder", "models/ranker",
    "release/candidate", "release/verdict", "release/champion",
    "loop/evidence",
    "people/identities", "people/moments", "people/overview", "people/relationship",
    "outbound/audiences",
    "people/trials", "people/segments", "people/contacts", "people/intent", "people/next_visit",
    "people/predictions", "people/actions",
}  # fmt: skip
HEAVY = ("torch", "mlflow", "feast", "lightgbm", "pandas", "ibis", "matplotlib", "onnxruntime")


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return build_definitions()


@pytest.fixture(scope="module")
def graph(definitions: dg.Definitions) -> dg.AssetGraph:
    return definitions.resolve_asset_graph()


def test_asset_keys(graph: dg.AssetGraph) -> None:
    assert {key.to_user_string() for key in graph.materializable_asset_keys} == KEYS


def test_every_asset_explains_itself(graph: dg.AssetGraph) -> None:
    for key in graph.materializable_asset_keys:
        node = graph.get(key)
        assert node.description, key
        assert node.owners, key
        assert node.kinds, key
        assert node.group_name != "default", key


def test_jobs_an_engineer_would_look_for(definitions: dg.Definitions) -> None:
    assert set(JOB_NAMES) == {
        "full_pipeline", "daily_features", "ingest_live", "retrain", "release", "people", "relationship",
        "outbound",
        "next_actions",
    }  # fmt: skip
    for name in JOB_NAMES:
        job = definitions.resolve_job_def(name)
        assert job.description
        assert job.tags["owner"]


def test_the_lake_blocks_what_is_downstream(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    checks = {key.name for key in graph.asset_check_keys if key.asset_key == dg.AssetKey(["lake", "events"])}
    assert checks == {"schema", "unique_events", "known_products", "freshness", "volume"}
    blocking = {key.name for key in graph.asset_check_keys if graph.get_check_spec(key).blocking}
    assert blocking == (checks - {"volume"}) | {"onnx_parity"}


def test_sensors_run_from_the_start(definitions: dg.Definitions) -> None:
    status = {sensor.name: sensor.default_status for sensor in definitions.sensors or []}
    assert set(status) == {"inbox_has_events", "evidence_is_enough", "automation"}
    assert set(status.values()) == {dg.DefaultSensorStatus.RUNNING}


def test_nights_bring_fresh_catalogue_features_and_release(definitions: dg.Definitions) -> None:
    repository = definitions.get_repository_def()
    crons = {schedule.name: schedule.cron_schedule for schedule in repository.schedule_defs}
    assert crons == {
        "refresh_catalogue": "0 3 * * *",
        "nightly_features": "0 2 * * *",
        "nightly_release": "0 4 * * *",
        "nightly_people": "0 3 * * *",
        "outbound_hourly": "17 * * * *",
    }


def test_nothing_leaves_unless_asked(definitions: dg.Definitions) -> None:
    full = definitions.resolve_job_def("full_pipeline")
    assert dg.AssetKey(["outbound", "audiences"]) not in full.asset_layer.executable_asset_keys
    keys = definitions.resolve_asset_graph().asset_check_keys
    checks = {key.name for key in keys if key.asset_key == dg.AssetKey(["outbound", "audiences"])}
    assert checks == {"complete", "consent", "counts", "deliveries"}


def test_events_are_daily_and_backfilled_in_one_run(graph: dg.AssetGraph) -> None:
    node = graph.get(dg.AssetKey(["lake", "events"]))
    assert isinstance(node.partitions_def, dg.DailyPartitionsDefinition)
    assert node.backfill_policy == dg.BackfillPolicy.single_run()


def test_loading_imports_nothing_heavy() -> None:
    code = (
        "import sys, warnings; warnings.simplefilter('ignore'); import orchestration.definitions; "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
