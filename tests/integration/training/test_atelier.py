"""The simulated shop as a source: checked by the lake's own rules, read day by day, simulated once."""

import datetime as dt
import json
import pathlib
import subprocess
import sys

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from contracts.catalogue import Product
from contracts.events import ACTIONS
from contracts.features import week_of
from contracts.settings import RETAILERS, ROOT, read_retailer, read_settings
from orchestration.lake import ingest, tables
from orchestration.lake.validation import split
from orchestration.sources import Window, load
from orchestration.sources import atelier as source
from serving.profiles.history import make_history, size_key
from serving.vision.sizes import Sizes
from training.rehearsal import RehearsalError
from training.rehearsal.catalogue import SIZES

KNOBS = {"shoppers": 300, "days": 35, "seed": 5}
FIRST = dt.date(2025, 1, 1)
WHOLE = Window(FIRST, FIRST + dt.timedelta(days=60))
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    home = tmp_path_factory.mktemp("atelier")
    (home / "rehearsal").mkdir()
    (home / "rehearsal" / source.KNOBS_FILE).write_text(json.dumps(KNOBS))
    return home


@pytest.fixture(autouse=True)
def _installation(home: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTINUUM_HOME", str(home))


def test_every_event_passes_the_lakes_rules() -> None:
    events = load("atelier").events(WHOLE).read_all()
    good, bad = split(events, NOW)
    assert events.num_rows > 3_000
    assert bad.num_rows == 0
    assert set(pc.unique(good["source"]).to_pylist()) == {"atelier"}
    assert good["customer_id"].null_count < good.num_rows
    assert len(pc.unique(good["store_id"])) > 3


def test_a_day_is_its_part_of_the_whole() -> None:
    day = FIRST + dt.timedelta(days=20)
    alone = source.events(Window(day, day)).read_all()
    whole = source.events(WHOLE).read_all()
    days = pc.cast(pc.floor_temporal(whole["occurred_at"], unit="day"), pa.date32())
    part = whole.filter(pc.equal(days, pa.scalar(day)))
    assert alone.num_rows > 0
    assert alone.sort_by("event_id").equals(part.sort_by("event_id"))


def test_it_is_simulated_once_and_the_folder_appears_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = source.folder()
    monkeypatch.setattr(source, "simulate", lambda config: pytest.fail("simulated again"))
    assert source.folder() == folder
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, source.KNOBS_FILE}
    assert json.loads((folder / "config.json").read_text())["shoppers"] == KNOBS["shoppers"]


def test_a_sample_keeps_whole_people() -> None:
    some = source.events(Window(WHOLE.first_day, WHOLE.last_day, households=40)).read_all()
    identity = pq.read_table(source.folder() / "identity.parquet")
    people = dict(zip(identity["event_id"].to_pylist(), identity["person_id"].to_pylist(), strict=True))
    kept = {people[event] for event in some["event_id"].to_pylist()}
    assert 0 < len(kept) <= 40
    assert some.num_rows == sum(person in kept for person in people.values())
    assert 0 < source.customers(40).num_rows <= 40


def test_the_usual_size_is_the_true_one() -> None:
    folder = source.folder()
    identity = pq.read_table(folder / "identity.parquet")
    people = dict(zip(identity["event_id"].to_pylist(), identity["person_id"].to_pylist(), strict=True))
    tastes = pq.read_table(folder / "tastes.parquet")
    truth = dict(zip(tastes["person_id"].to_pylist(), tastes["size"].to_pylist(), strict=True))
    bought: dict[str, list[str]] = {}
    purchases = (
        source.events(WHOLE).read_all().filter(pc.field("action") == "purchase").sort_by("occurred_at")
    )
    for row in purchases.select(["event_id", "detail"]).to_pylist():
        bought.setdefault(people[row["event_id"]], []).append(json.loads(row["detail"])["size"])
    names = [size for system in SIZES.values() for size in system]
    # One product of each system: sizes of one kind come together.
    sizes = Sizes(
        names, np.array([[2 * (size in system) for size in names] for system in SIZES.values()], np.int8)
    )
    told, right = 0, 0
    for person, pieces in bought.items():
        keys = [size_key(size) for size in pieces]
        actions = [ACTIONS.index("purchase")] * len(keys)
        usual = sizes.usual(
            make_history(range(len(keys)), [0] * len(keys), actions, [0] * len(keys), size=keys)
        )
        letters = [size for size in usual if size in SIZES["letters"]]
        assert len(letters) <= 1
        told += len(letters)
        right += truth[person] in letters
    assert told > 20
    assert right == told


def test_the_other_tables_have_the_lakes_columns() -> None:
    products = source.products()
    assert products.schema == tables.PRODUCTS
    for row in products.slice(0, 50).to_pylist():
        msgspec.convert({**row, "attributes": json.loads(row["attributes"])}, Product)
    assert source.customers().schema == tables.CUSTOMERS
    offers = source.offers()
    assert offers.schema == tables.OFFERS
    assert set(offers["product_id"].to_pylist()) <= set(products["product_id"].to_pylist())
    assert pc.all(pc.less(offers["starts_at"], offers["ends_at"])).as_py()
    redeemed = source.events(WHOLE).read_all().filter(pc.field("action") == "redeem")["detail"].to_pylist()
    assert {json.loads(text)["offer_id"] for text in redeemed} <= set(offers["offer_id"].to_pylist())


def test_exposures_cover_every_week_of_the_window() -> None:
    day = (FIRST - dt.date(1970, 1, 1)).days
    weekly = source.exposures(Window(FIRST, FIRST + dt.timedelta(days=13)))
    rows = weekly.rows.read_all()
    assert rows.schema == tables.EXPOSURES
    assert set(rows["week"].to_pylist()) == set(range(weekly.first_week, weekly.last_week + 1))
    assert weekly.first_week == int(week_of(day))
    assert weekly.last_week == int(week_of(day + 14 - 1e-9))
    keys = list(zip(*(rows[name].to_pylist() for name in ("week", "store_id", "product_id")), strict=True))
    assert len(set(keys)) == len(keys)
    outside = source.exposures(Window(dt.date(2020, 1, 1), dt.date(2020, 1, 2)))
    assert outside.last_week < outside.first_week


def test_the_lake_takes_it_in_and_again_without_change(tmp_path: pathlib.Path) -> None:
    window = Window(FIRST, FIRST + dt.timedelta(days=6), first=FIRST)
    once = ingest.ingest_events(tmp_path, "atelier", load("atelier"), window, NOW)
    again = ingest.ingest_events(tmp_path, "atelier", load("atelier"), window, NOW)
    assert once.read == once.events.rows == again.events.rows > 0
    assert once.dead_letters.rows == 0


def test_bad_knobs_name_the_file_and_the_knob(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("CONTINUUM_HOME", str(tmp_path))
    (tmp_path / "rehearsal").mkdir()
    path = tmp_path / "rehearsal" / source.KNOBS_FILE
    for text, words in (("{", "JSON object"), ('{"days": 1}', r"\$\.days"), ('{"color": 1}', "color")):
        path.write_text(text)
        with pytest.raises(RehearsalError, match=words) as caught:
            source.config()
        assert str(path) in str(caught.value)


def test_the_profile_says_simulated_and_names_the_days_of_the_box(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("CONTINUUM_HOME", str(tmp_path))
    monkeypatch.setenv("RETAILER", str(RETAILERS / "atelier.yaml"))
    profile = read_retailer(read_settings())
    assert profile.simulated
    assert "simulated" in profile.title
    assert (profile.first_day, profile.last_day) == (source.config().first_day, source.config().last_day)


def test_the_command_writes_a_folder_and_refuses_nonsense(tmp_path: pathlib.Path) -> None:
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "training.rehearsal", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    out = tmp_path / "shop"
    done = run("--shoppers", "60", "--days", "14", "--seed", "4", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "simulated" in done.stdout
    assert pq.read_table(out / "events.parquet").num_rows > 100
    again = run("--shoppers", "60", "--days", "14", "--out", str(out))
    assert again.returncode == 2
    assert "not empty" in again.stderr
    two = run("--shoppers", "40", "--days", "10", "--parts", "2", "--out", str(tmp_path / "many"))
    assert two.returncode == 0, two.stderr
    assert {path.name for path in (tmp_path / "many").iterdir()} == {"part-0000", "part-0001"}
    wrong = run("--events", "5000", "--set", "cookie_days=soon", "--out", str(tmp_path / "other"))
    assert wrong.returncode == 2
    assert "cookie_days" in wrong.stderr
    assert not (tmp_path / "other").exists()
