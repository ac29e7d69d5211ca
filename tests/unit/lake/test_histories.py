"""Published histories: what the lake holds, by customer, as the server reads it."""

import datetime as dt
import hashlib
import json
import pathlib
from typing import Any

import duckdb
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings

from contracts.events import ACTIONS, CHANNELS
from contracts.settings import Settings, read_settings
from orchestration.lake import tables, writing
from orchestration.lake.histories import publish_histories, session_sql, size_sql
from orchestration.lake.tables import TABLES
from serving.profiles.history import session_key, size_key

START = dt.datetime(2017, 5, 1, 12, tzinfo=dt.UTC)


@pytest.fixture
def shop(tmp_path: pathlib.Path) -> Settings:
    return read_settings({"CONTINUUM_HOME": str(tmp_path)})


def event(number: int, customer: str | None, hours: float, **more: Any) -> dict[str, Any]:
    moment = START + dt.timedelta(hours=hours)
    return {
        "event_id": f"e{number}", "source": "shop", "occurred_at": moment, "received_at": moment,
        "day": moment.date(), "customer_id": customer, "channel": "store", "action": "purchase",
    } | more  # fmt: skip


def store(settings: Settings, *events: dict[str, Any], batch: int = 1) -> int:
    rows = pa.Table.from_pylist(list(events), schema=tables.EVENTS)
    return writing.append_once(TABLES["events"], settings.lake, rows, "test", batch).version


def arrays(folder: pathlib.Path) -> dict[str, np.ndarray]:
    return dict(np.load(folder / "histories.npz", allow_pickle=False))


def test_events_are_grouped_by_customer_and_ordered(shop: Settings) -> None:
    store(
        shop,
        event(
            3,
            "2",
            5,
            product_id="b",
            session_id="77",
            quantity=2.0,
            unit_price=1.5,
            discount=0.5,
            store_id="330",
            detail='{"size": "42", "note": 1}',
        ),
        event(1, "10", 1, product_id="a", session_id="visit"),
        event(4, "2", 1, product_id="a", channel="web", action="view"),
        event(2, "2", 1, product_id="b", detail='{"size": null}'),
        event(5, None, 2, product_id="a"),
    )
    found = arrays(publish_histories(shop))
    assert found["customers"].tolist() == ["10", "2"]
    assert found["offsets"].tolist() == [0, 1, 4]
    assert found["products"].tolist() == ["a", "b"]
    assert found["product"].tolist() == [0, 1, 0, 1]  # e1; then e2 before e4 at one moment, then e3
    assert found["action"].tolist()[2] == ACTIONS.index("view")
    assert found["channel"].tolist()[2] == CHANNELS.index("web")
    assert found["session"].tolist() == [session_key("visit"), -1, -1, 77]
    assert (found["quantity"][3], found["unit_price"][3], found["discount"][3]) == (2, 1.5, 0.5)
    assert found["store"].tolist() == [-1, -1, -1, 0]
    assert found["size"].tolist() == [-1, -1, -1, size_key("42")]
    assert found["at_us"][0] == (START + dt.timedelta(hours=1)).timestamp() * 1e6
    kinds = {name: values.dtype for name, values in found.items()}
    assert (kinds["at_us"], kinds["product"], kinds["action"]) == (np.int64, np.int32, np.int8)
    assert (kinds["session"], kinds["quantity"], kinds["store"]) == (np.int64, np.float32, np.int32)
    assert kinds["size"] == np.int32


def test_a_snapshot_names_what_it_includes_and_is_current(shop: Settings) -> None:
    version = store(shop, event(1, "1", 0))
    folder = publish_histories(shop, inbox_offset=42)
    meta = json.loads((folder / "meta.json").read_text())
    assert (meta["events_version"], meta["inbox_offset"], meta["events"]) == (version, 42, 1)
    assert meta["newest_us"] == START.timestamp() * 1e6
    assert meta["sha256"] == hashlib.sha256((folder / "histories.npz").read_bytes()).hexdigest()
    assert (shop.profiles / "CURRENT").read_text() == folder.name == f"v{version:08d}-{42:012d}"
    assert publish_histories(shop, inbox_offset=42) == folder
    assert not list(shop.profiles.glob(".tmp-*"))


def test_old_snapshots_go_and_the_last_ones_stay(shop: Settings) -> None:
    store(shop, event(1, "1", 0))
    folders = [publish_histories(shop, inbox_offset=offset) for offset in range(5)]
    assert sorted(path.name for path in shop.profiles.glob("v*")) == [path.name for path in folders[-3:]]


def test_long_and_old_histories_are_cut_at_their_beginning(shop: Settings) -> None:
    store(shop, event(0, "1", -24 * 400), *(event(number, "1", number) for number in range(1, 9)))
    found = arrays(publish_histories(shop, years=1, limit=3))
    hours = (found["at_us"] - START.timestamp() * 1e6) / 3.6e9
    assert hours.tolist() == [6, 7, 8]
    store(shop, event(20, "2", -24 * 380), batch=2)
    assert arrays(publish_histories(shop, years=1))["customers"].tolist() == ["1"]


def test_an_empty_lake_publishes_an_empty_snapshot(shop: Settings) -> None:
    writing.ensure(TABLES["events"], shop.lake)
    found = arrays(publish_histories(shop))
    assert (found["customers"].tolist(), found["offsets"].tolist(), len(found["at_us"])) == ([], [0], 0)


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=25)
    | st.from_regex(r"\d{1,20}")
)
@example(text="0")
@example(text="007")
@example(text="999999999999999999")
@example(text="1000000000000000000")
def test_a_session_has_the_number_that_the_server_gives_it(text: str) -> None:
    found = (
        duckdb.connect()
        .execute(f"select {session_sql('s')} from (select $1::varchar as s)", [text])
        .fetchall()
    )
    assert found == [(session_key(text),)]


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=25))
@example(text="")
@example(text="XL")
def test_a_size_has_the_number_that_the_server_gives_it(text: str) -> None:
    found = (
        duckdb.connect().execute(f"select {size_sql('s')} from (select $1::varchar as s)", [text]).fetchall()
    )
    assert found == [(size_key(text),)]
