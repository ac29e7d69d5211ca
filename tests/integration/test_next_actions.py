"""From events to everybody's next best action: the job `relationship` in this process, on a small simulated shop."""

from __future__ import annotations

import datetime as dt
import json
import os
import pathlib
from typing import Any

import dagster as dg
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from contracts.actions import Action
from contracts.retailer import Retailer
from contracts.settings import Settings, read_retailer, read_settings
from feature_repo.snapshots import attach, connect
from orchestration.lake import ingest
from orchestration.lake.next_actions import read_actions
from orchestration.lake.people import store_identities, store_moments
from orchestration.sources import Window, load

FIRST, DAYS = dt.date(2025, 1, 1), 250
LAST = FIRST + dt.timedelta(days=DAYS - 1)
KNOBS = {"seed": 3, "shoppers": 600, "days": DAYS, "first_day": FIRST.isoformat(), "holdout": 0.5}
NOW = dt.datetime.combine(LAST + dt.timedelta(days=1), dt.time(), dt.UTC)


class InThisProcess(dg.PipesSubprocessClient):  # type: ignore[misc]
    """Runs a training's command here: five processes that import torch would take longer than what they do."""

    def run(self, *, command: list[str], **_: Any) -> None:  # type: ignore[override]
        from training.relationship.__main__ import main

        assert command[1:3] == ["-m", "training.relationship"]
        if command[3] == "contacts":  # Trials of 600 shoppers are learned by a few trees as well as by many.
            path = pathlib.Path(command[command.index("--config") + 1])
            config = json.loads(path.read_text())
            config |= {"resamples": 50, "params": {**config.get("params", {}), "trees": 12}}
            path.write_text(json.dumps(config))
        assert main([*command[3:], "--quiet"]) == 0


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Retailer, dg.ExecuteInProcessResult]:
    from orchestration.definitions import build_definitions
    from orchestration.resources import Shop
    from orchestration.services import environment

    home = tmp_path_factory.mktemp("next_actions")
    variables = {"CONTINUUM_HOME": str(home), "RETAILER": "atelier", "CONTINUUM_LAST_DAY": LAST.isoformat()}
    (home / "rehearsal").mkdir()
    (home / "mlflow").mkdir()
    (home / "rehearsal" / "atelier.json").write_text(json.dumps(KNOBS))
    with pytest.MonkeyPatch.context() as patched:
        for name, value in {**variables, **environment(read_settings({**os.environ, **variables}))}.items():
            patched.setenv(name, value)
        settings = read_settings()
        retailer = read_retailer(settings)
        source = load("atelier", retailer, settings)
        ingest.ingest_events(settings.lake, "atelier", source, Window(FIRST, LAST, None, FIRST))
        ingest.ingest_products(settings.lake, source)
        ingest.ingest_customers(settings.lake, source)
        store_identities(settings.lake)
        store_moments(settings.lake)
        overrides = {"shop": Shop(environment=variables), "pipes": InThisProcess()}
        job = build_definitions(overrides).resolve_job_def("relationship")
        result = job.execute_in_process(instance=dg.DagsterInstance.ephemeral(), raise_on_error=True)
        yield settings, retailer, result


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    (found,) = result.asset_materializations_for_node(f"people__{asset}")
    return {name: value.value for name, value in found.metadata.items()}


def rows(settings: Settings, folder: pathlib.Path) -> list[dict[str, Any]]:
    con = connect()
    attach(con, "rows", folder)
    return con.sql("from rows").to_arrow_table().to_pylist()


def truth(settings: Settings, table: str) -> list[dict[str, Any]]:
    (path,) = (settings.home / "rehearsal").glob(f"*/{table}.parquet")
    return pq.read_table(path).to_pylist()


def test_every_customer_has_one_action_within_their_consent(
    shop: tuple[Settings, Retailer, dg.ExecuteInProcessResult],
) -> None:
    settings, retailer, result = shop
    actions = read_actions(settings)
    logins = [row for row in rows(settings, settings.lake / "identity_links") if row["kind"] == "customer"]
    assert [a.customer_id for a in actions] == sorted(
        row["value"] for row in logins if row["state"] == "linked"
    )
    contacts = [action for action in actions if action.is_contact]
    assert contacts
    assert any(action.reason == "no consent to be contacted" for action in actions)
    granted = {
        row["person_id"] for row in rows(settings, settings.lake / "identity_consents")
        if row["purpose"] == "marketing" and row["granted"]
    }  # fmt: skip
    kinds: dict[str, set[str]] = {}
    for row in rows(settings, settings.lake / "identity_links"):
        kinds.setdefault(row["person_id"], set()).add(row["kind"])
    products = {row["product_id"] for row in rows(settings, settings.lake / "products")}
    for action in contacts:
        assert action.person in granted
        channel = retailer.actions.channels[action.channel]  # type: ignore[index]
        assert channel.seen_on or set(channel.reach) & kinds[action.person]
        assert action.gain > retailer.actions.least_gain
        assert action.at is not None
        assert action.made_at <= action.at <= action.expires_at
        assert (
            8 <= action.at.astimezone(dt.timezone(dt.timedelta(hours=2))).hour < 21
        )  # Berlin's summer time.
        assert action.subject in products or action.kind == "recovery"
    assert len({action.person for action in contacts}) == len(contacts)
    assert all(action.simulated and action.made_at == NOW for action in actions)
    assert metadata(result, "actions")["contacts"] == len(contacts)


def test_caps_count_contacts_that_the_stream_holds(
    shop: tuple[Settings, Retailer, dg.ExecuteInProcessResult],
) -> None:
    settings, _, _ = shop
    con = connect()
    attach(con, "events", settings.lake / "events")
    attach(con, "persons", settings.lake / "identity_events")
    sent: dict[str, list[dt.datetime]] = {}
    for person, at in con.execute(
        """select person_id, events.occurred_at from events join persons using (source, event_id)
        where action = 'impression' and channel in ('email', 'sms', 'push', 'direct_mail') and person_id is not null"""
    ).fetchall():
        sent.setdefault(person, []).append(at)
    for action in read_actions(settings):
        if action.at is not None:
            week = [at for at in sent.get(action.person, []) if action.at - at < dt.timedelta(days=7)]
            assert len(week) < 3, action


def test_models_say_how_good_they_are(shop: tuple[Settings, Retailer, dg.ExecuteInProcessResult]) -> None:
    settings, _, result = shop
    for asset in ("segments", "contacts", "intent", "next_visit"):
        found = metadata(result, asset)
        assert "nothing_learned" not in found, (asset, found.get("nothing_learned"))
        assert found["mlflow_run_id"]
    numbers = {
        family: json.loads(next((settings.bundles / family).glob("*/bundle.json")).read_text())["metrics"]
        for family in ("contacts", "sessions", "visits", "segments")
    }
    assert numbers["sessions"]["auc"] > numbers["sessions"]["auc_last_action_baseline"]
    assert numbers["visits"]["channel_log_loss"] < numbers["visits"]["channel_log_loss_all"]
    assert numbers["visits"]["visit_auc"] > 0.6
    assert "contacted | held out" in metadata(result, "trials")["kpis"]
    effect = [row["effect_visit"] for row in truth(settings, "assignments") if row["channel"] == "email"]
    low, high = (numbers["contacts"][f"email_average_effect_ci_{end}"] for end in ("low", "high"))
    assert low <= float(np.mean(effect)) <= high


def test_predictions_are_features_that_know_when_they_were_made(
    shop: tuple[Settings, Retailer, dg.ExecuteInProcessResult],
) -> None:
    import pyarrow as pa

    from contracts.predictions import CONTACT_CHANNELS, PREDICTION_COLUMNS, VISIT_KINDS
    from feature_repo.online import online_rows
    from feature_repo.retrieval import historical

    settings, _, _ = shop
    stored = {row["customer_id"]: row for row in rows(settings, settings.features / "customer_prediction")}
    customer = next(name for name, row in stored.items() if row["p_value"] is not None)
    row = stored[customer]
    assert row["event_timestamp"] == NOW
    assert sum(row[f"p_action_{kind}"] for kind in VISIT_KINDS) == pytest.approx(1, abs=1e-5)
    assert any(row[f"p_uplift_{channel}"] is not None for channel in CONTACT_CHANNELS)
    asked = pa.table(
        {
            "customer_id": pa.array([customer, customer]),
            "event_timestamp": pa.array([NOW - dt.timedelta(microseconds=1), NOW], pa.timestamp("us", "UTC")),
        }
    )
    joined = historical(settings, "customer_predictions_v1", asked).to_pylist()
    assert joined[0]["p_churn"] is None
    assert joined[1]["p_churn"] == row["p_churn"]
    online = online_rows(settings, "customer_predictions_v1", {"customer_id": [customer]})
    for name in PREDICTION_COLUMNS:
        assert (
            online[name][0] == pytest.approx(row[name]) if row[name] is not None else online[name][0] is None
        )


def test_the_server_reads_what_is_published(
    shop: tuple[Settings, Retailer, dg.ExecuteInProcessResult],
) -> None:
    from serving.profiles.outlook import Outlooks

    settings, _, _ = shop
    outlooks = Outlooks(settings.overview)
    stored = {row["customer_id"]: row for row in rows(settings, settings.features / "customer_prediction")}
    for action in read_actions(settings)[:50]:
        assert outlooks.action(action.customer_id) == action
        found = outlooks.of(action.customer_id)
        assert found is not None
        row = stored[action.customer_id]
        if found.channel is not None:
            assert found.channel[1] == pytest.approx(row[f"p_channel_{found.channel[0]}"], abs=1e-6)
        assert (found.visit_soon is None) == (row["p_visit_soon"] is None)
    assert outlooks.of("nobody") is None
    assert outlooks.action("nobody") is None


def test_the_verb_tells_what_to_do_and_why(
    shop: tuple[Settings, Retailer, dg.ExecuteInProcessResult],
) -> None:
    from orchestration.cli import main

    settings, _, _ = shop
    chosen = next(action for action in read_actions(settings) if action.is_contact)
    said = CliRunner().invoke(main, ["next-action", chosen.customer_id, "--json"])
    assert said.exit_code == 0, said.output
    assert Action(**{**json.loads(said.stdout), "at": chosen.at, "made_at": chosen.made_at,
                     "expires_at": chosen.expires_at, "refused": chosen.refused}) == chosen  # fmt: skip
    text = CliRunner().invoke(main, ["next-action", chosen.customer_id])
    assert chosen.reason in text.output
    assert CliRunner().invoke(main, ["next-action", "nobody"]).exit_code == 1
