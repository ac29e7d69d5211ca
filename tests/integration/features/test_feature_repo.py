"""The feature repository on a small real shop: build, apply, materialize, training sets, Feast's own command."""

import datetime as dt
import os
import pathlib
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.features import RANKER_FEATURES
from contracts.settings import Settings, read_settings
from feature_repo import online
from feature_repo.build import FeatureSchemaError, build_views, changed_days
from feature_repo.catalog import VIEWS, UnknownViewError
from feature_repo.on_demand import MOMENT_COLUMNS
from feature_repo.retrieval import historical, historical_to_parquet
from feature_repo.snapshots import attach, connect
from feature_repo.store import EnvironmentNameError, open_store
from feature_repo.views import RANKER_SERVICE
from orchestration.lake import ingest
from orchestration.sources import Window, load

ROOT = pathlib.Path(__file__).resolve().parents[3]
FIRST, LAST = dt.date(2017, 1, 1), dt.date(2017, 3, 31)
END = dt.datetime(2017, 4, 1, tzinfo=dt.UTC)
START = dt.datetime(2017, 1, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = read_settings({"CONTINUUM_HOME": str(tmp_path_factory.mktemp("features"))})
    source = load("complete_journey")
    ingest.ingest_events(settings.lake, "complete_journey", source, Window(FIRST, LAST, 30, FIRST))
    ingest.ingest_products(settings.lake, source)
    built = build_views(settings, list(VIEWS), FIRST, LAST)
    assert [b.view for b in built] == list(VIEWS)
    assert all(b.rows > 0 for b in built)
    online.apply(settings)
    return settings


@pytest.fixture(scope="module")
def recent(shop: Settings) -> pa.Table:
    """Things that were bought in the last days, one row each."""
    con = connect()
    attach(con, "events", shop.lake / "events")
    attach(con, "products", shop.lake / "products")
    return con.sql(
        """select distinct customer_id, product_id, type, category, store_id
        from events join products using (product_id)
        where action = 'purchase' and day >= date '2017-03-29' order by all limit 200"""
    ).to_arrow_table()


def at(rows: pa.Table, moment: dt.datetime) -> pa.Table:
    return rows.append_column(
        "event_timestamp", pa.array([moment] * rows.num_rows, pa.timestamp("us", "UTC"))
    )


def content(settings: Settings, view: str) -> pa.Table:
    con = connect()
    attach(con, "rows", settings.features / view)
    return con.sql("from rows order by all").to_arrow_table()


@pytest.mark.parametrize("view", list(VIEWS))
def test_building_days_again_leaves_the_same_rows(shop: Settings, view: str) -> None:
    before = content(shop, view)
    day = dt.date(2017, 3, 15)
    again = build_views(shop, [view], day, day)[0]
    assert again.rows > 0
    after = content(shop, view)
    assert after.num_rows == before.num_rows
    for name in [*VIEWS[view].keys, "event_timestamp", "day"]:
        assert after[name].equals(before[name])
    for name in VIEWS[view].columns:
        np.testing.assert_allclose(after[name].to_numpy(), before[name].to_numpy(), rtol=1e-9, atol=1e-9)


def test_changed_days_are_those_whose_events_changed(shop: Settings) -> None:
    version, everything = changed_days(shop, None)
    con = connect()
    attach(con, "events", shop.lake / "events")
    assert everything == [row[0] for row in con.sql("select distinct day from events order by 1").fetchall()]
    assert changed_days(shop, version) == (version, [])
    day = dt.date(2017, 3, 20)
    ingest.ingest_events(shop.lake, "complete_journey", load("complete_journey"), Window(day, day, 30, FIRST))
    newer, changed = changed_days(shop, version)
    assert newer > version
    assert changed == [day]
    assert changed_days(shop, newer) == (newer, [])


def test_a_training_set_keeps_its_rows_and_sees_only_the_past(shop: Settings, recent: pa.Table) -> None:
    middle = dt.datetime(2017, 2, 15, 12, tzinfo=dt.UTC)
    asked = at(recent, middle).append_column("label", pa.array(range(recent.num_rows)))
    found = historical(shop, RANKER_SERVICE, asked)
    assert found["label"].to_pylist() == list(range(recent.num_rows))
    assert {column for spec in VIEWS.values() for column in spec.columns} <= set(found.column_names)
    limit = middle.timestamp() / 86400
    for name in (name for name in found.column_names if name.endswith("_at")):
        assert all(value is None or value <= limit for value in found[name].to_pylist()), name


def test_a_training_set_can_be_narrow_pinned_and_streamed(
    shop: Settings, recent: pa.Table, tmp_path: pathlib.Path
) -> None:
    whole = historical(shop, RANKER_SERVICE, at(recent, END))
    narrow = historical(shop, RANKER_SERVICE, at(recent, END), single=True, versions={"customer": 1})
    assert narrow.schema.field("c_spend").type == pa.float32()
    assert narrow.schema.field("c_last_at").type == pa.float64()
    assert narrow["c_spend"].to_pylist() == pytest.approx(whole["c_spend"].to_pylist(), rel=1e-6)
    pq.write_table(at(recent, END), tmp_path / "entities.parquet")
    written = historical_to_parquet(
        shop, RANKER_SERVICE, tmp_path / "entities.parquet", tmp_path / "set.parquet"
    )
    assert written == recent.num_rows
    assert pq.read_table(tmp_path / "set.parquet")["p_orders_28"].equals(narrow["p_orders_28"])


def test_the_online_store_holds_the_rows_of_the_last_moment(shop: Settings, recent: pa.Table) -> None:
    written = {row["view"]: row["rows"] for row in online.materialize(shop, START, END)}
    assert set(written) == set(VIEWS)
    assert written["customer"] <= 30
    offline = historical(shop, RANKER_SERVICE, at(recent, END)).to_pydict()
    found = online.online_rows(shop, RANKER_SERVICE, recent.to_pydict())
    for name in (column for spec in VIEWS.values() for column in spec.columns):
        assert found[name] == pytest.approx(offline[name], nan_ok=True), name


def test_an_older_window_does_not_put_old_values_over_new_ones(shop: Settings, recent: pa.Table) -> None:
    customers = {"customer_id": recent["customer_id"].to_pylist()[:5]}
    store = open_store(shop)
    names = ["customer:c_orders", "customer:c_last_at"]

    def read() -> dict[str, list[object]]:
        rows = [{"customer_id": customer} for customer in customers["customer_id"]]
        return store.get_online_features(features=names, entity_rows=rows).to_dict()

    online.materialize(shop, START, END, ["customer"])
    before = read()
    online.materialize(shop, START, START + dt.timedelta(days=40), ["customer"])
    assert read() == before


def test_the_moment_is_computed_as_in_the_server(shop: Settings, recent: pa.Table) -> None:
    online.materialize(shop, START, END)
    now = END.timestamp() / 86400 + 0.75
    request = {"now": [now] * 3, "x_display": [1.0] * 3, "x_mailer": [0.0] * 3}
    found = online.online_rows(shop, "moment_v1", {**recent.slice(0, 3).to_pydict(), **request})
    assert set(MOMENT_COLUMNS) <= set(found)
    assert {"cp_due", "hour", "weekday"} <= set(MOMENT_COLUMNS) & set(RANKER_FEATURES)
    assert found["hour"] == [18.0] * 3
    assert found["on_display"] == [1.0] * 3
    since = [now - last for last in found["c_last_at"]]
    assert found["c_since"] == pytest.approx(since)
    offline = historical(
        shop, "moment_v1",
        pa.table({**at(recent.slice(0, 3), END).to_pydict(), **request}).cast(
            pa.schema([*at(recent, END).schema, *(pa.field(name, pa.float64()) for name in request)])
        ),
    )  # fmt: skip
    assert offline["cp_due"].to_pylist() == pytest.approx(found["cp_due"])


def test_applying_again_changes_nothing_and_lists_everything(shop: Settings) -> None:
    applied = online.apply(shop)
    assert {row["view"] for row in applied["views"]} == {*VIEWS, "moment"}
    assert {row["service"] for row in applied["services"]} == {"ranker_v1", "encoder_v1", "moment_v1"}
    store = open_store(shop)
    assert {view.name for view in store.list_feature_views()} == set(VIEWS)
    assert all(view.description and view.owner and view.tags for view in store.list_feature_views())


def test_feasts_own_command_finds_the_same_objects(shop: Settings) -> None:
    environment = {**os.environ, "CONTINUUM_HOME": str(shop.home)}
    command = [sys.executable, "-m", "feast.cli.cli", "-c", str(ROOT / "feature_repo"), "apply"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Deleted" not in done.stdout
    assert {view.name for view in open_store(shop).list_feature_views()} == set(VIEWS)


def test_a_table_of_another_time_is_refused_with_what_to_do(shop: Settings, tmp_path: pathlib.Path) -> None:
    from deltalake import write_deltalake

    other = read_settings({"CONTINUUM_HOME": str(tmp_path)})
    (tmp_path / "lake").symlink_to(shop.lake)
    write_deltalake(str(other.features / "customer"), pa.table({"customer_id": ["1"], "c_mood": [1.0]}))
    with pytest.raises(FeatureSchemaError, match="remove the folder and build all days again"):
        build_views(other, ["customer"], FIRST, FIRST)


def test_mistakes_are_named(shop: Settings) -> None:
    with pytest.raises(UnknownViewError, match="expected one of: customer"):
        build_views(shop, ["basket"], FIRST, LAST)
    with pytest.raises(EnvironmentNameError, match="expected one of: local, team, cluster"):
        open_store(shop, "moon")
    with pytest.raises(ValueError, match="expected two times with a zone, in order"):
        online.materialize(shop, END, START)
