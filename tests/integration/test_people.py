"""From events to the overview: identities, sessions, moments, numbers, on a small simulated shop."""

from __future__ import annotations

import collections
import datetime as dt
import json
import pathlib

import msgspec
import pytest

from contracts.moments import BAD
from contracts.overview import OVERVIEW_FILE, Overview
from contracts.retailer import Retailer
from contracts.settings import Settings, read_retailer, read_settings
from feature_repo.snapshots import attach, connect
from orchestration.lake import ingest
from orchestration.lake.overview import CAUSAL, METHODS, publish_overview
from orchestration.lake.people import store_identities, store_moments
from orchestration.sources import Window, load

FIRST, LAST = dt.date(2025, 1, 1), dt.date(2025, 3, 1)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Retailer, Overview]:
    home = tmp_path_factory.mktemp("people")
    environment = {"CONTINUUM_HOME": str(home), "RETAILER": "atelier"}
    (home / "rehearsal").mkdir()
    knobs = {"seed": 11, "shoppers": 250, "days": 60, "first_day": FIRST.isoformat()}
    (home / "rehearsal" / "atelier.json").write_text(json.dumps(knobs))
    with pytest.MonkeyPatch.context() as patched:
        for name, value in environment.items():
            patched.setenv(name, value)
        settings = read_settings()
        retailer = read_retailer(settings)
        source = load("atelier", retailer, settings)
        ingest.ingest_events(settings.lake, "atelier", source, Window(FIRST, LAST, None, FIRST))
        ingest.ingest_products(settings.lake, source)
        done = store_identities(settings.lake)
        assert done.profiled.persons > 100
        assert done.forms > 0
        assert done.consents > 0
        found = store_moments(settings.lake)
        assert found.events <= done.profiled.events
        return settings, retailer, publish_overview(settings, retailer)


def rows(settings: Settings, table: str) -> list[dict[str, object]]:
    con = connect()
    attach(con, "rows", settings.lake / table)
    return con.sql("from rows").to_arrow_table().to_pylist()


def test_what_is_published_is_what_was_made(shop: tuple[Settings, Retailer, Overview]) -> None:
    settings, retailer, made = shop
    path: pathlib.Path = settings.overview / OVERVIEW_FILE
    assert msgspec.json.decode(path.read_bytes(), type=Overview) == made
    assert [entry.name for entry in settings.overview.iterdir()] == [OVERVIEW_FILE]
    assert (made.retailer, made.simulated) == (retailer.name, True)
    assert made.first_day >= FIRST


def test_numbers_equal_a_count_by_hand(shop: tuple[Settings, Retailer, Overview]) -> None:
    settings, _, made = shop
    moments = rows(settings, "moments")
    counts = collections.Counter(row["kind"] for row in moments)
    assert {kind.moment: kind.count for kind in made.moments} == dict(counts)
    assert sum(day.count for day in made.moment_days) == len(moments)
    for kind in made.moments:
        own = [row for row in moments if row["kind"] == kind.moment]
        assert kind.people == len({row["person_id"] for row in own})
        if kind.bad:
            good = sum(row["recovered_at"] is not None for row in own)
            assert kind.recovered == pytest.approx(good / len(own))
    bad = [kind.bad for kind in made.moments]
    assert bad == sorted(bad, reverse=True)
    assert {kind.moment for kind in made.moments if kind.bad} <= set(BAD)
    sessions = rows(settings, "sessions")
    kpi = {kpi.name: kpi.value for kpi in made.kpis}
    assert kpi["conversion"] == pytest.approx(
        sum(int(str(row["purchases"])) > 0 for row in sessions) / len(sessions)
    )
    assert sum(segment.customers for segment in made.segments) <= made.people


def test_credits_are_shares_and_stand_beside_the_truth(shop: tuple[Settings, Retailer, Overview]) -> None:
    made = shop[2]
    by_method: dict[str, float] = collections.defaultdict(float)
    for credit in made.credits:
        by_method[credit.method] += credit.share
    assert set(by_method) == {*METHODS.values(), CAUSAL}
    assert all(total == pytest.approx(1.0) for total in by_method.values())
    assert made.journeys is not None
    assert made.journeys.paths > 10
    assert 0 < made.journeys.commonest_share < 1


def test_running_again_changes_nothing(shop: tuple[Settings, Retailer, Overview]) -> None:
    settings = shop[0]
    before = [rows(settings, name) for name in ("identity_links", "sessions", "moments")]
    store_identities(settings.lake)
    store_moments(settings.lake)
    for table, old in zip(("identity_links", "sessions", "moments"), before, strict=True):
        again = rows(settings, table)
        assert sorted(map(str, again)) == sorted(map(str, old))
