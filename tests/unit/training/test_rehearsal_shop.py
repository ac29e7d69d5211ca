"""A simulated shop keeps the contract, repeats itself exactly, and its truth equals brute force."""

import collections
import datetime as dt
import itertools
import json
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from contracts.catalogue import Product
from contracts.events import ACTIONS, CHANNELS, Event, check_event
from training.rehearsal import Atelier, AtelierConfig, simulate

CONFIG = AtelierConfig(shoppers=700, days=75, bots=1, bot_events=300, seed=11)
NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def shop() -> Atelier:
    return simulate(CONFIG)


@pytest.fixture(scope="module")
def rows(shop: Atelier) -> Rows:
    person = shop.identity["person_id"].to_pylist()
    rows = shop.events.to_pylist()
    for row, who in zip(rows, person, strict=True):
        row["person"] = who
        row["detail"] = json.loads(row["detail"])
        row["identifiers"] = [(one["kind"], one["value"]) for one in json.loads(row["identifiers"])]
    return rows


def test_every_event_keeps_the_contract(shop: Atelier) -> None:
    for row in (
        shop.events.slice(0, 4000).to_pylist() + shop.events.slice(shop.events.num_rows - 4000).to_pylist()
    ):
        raw = {name: value for name, value in row.items() if value is not None}
        for name in ("identifiers", "detail", "consent"):
            raw[name] = json.loads(raw[name])
        check_event(msgspec.convert(raw, Event), NOW)
    assert len(pc.unique(shop.events["event_id"])) == shop.events.num_rows
    assert shop.events["moment"].null_count == shop.events.num_rows


def test_all_channels_and_actions_occur(shop: Atelier) -> None:
    assert set(pc.unique(shop.events["channel"]).to_pylist()) == set(CHANNELS)
    assert set(pc.unique(shop.events["action"]).to_pylist()) == set(ACTIONS)


def test_equal_configs_give_equal_shops_and_other_seeds_others(shop: Atelier) -> None:
    again = simulate(CONFIG)
    for name, table in shop.tables().items():
        assert table.equals(again.tables()[name]), name
    small = AtelierConfig(shoppers=50, days=10)
    assert not simulate(small).events.equals(simulate(msgspec.structs.replace(small, seed=8)).events)


def test_products_keep_the_contract_and_are_many(shop: Atelier) -> None:
    products = [
        msgspec.convert({**row, "attributes": json.loads(row["attributes"])}, Product)
        for row in shop.products.to_pylist()
    ]
    goods = [product for product in products if product.kind == "good"]
    assert len({product.product_id for product in products}) == len(products)
    assert len(goods) >= 2000
    assert {product.department for product in goods} == {"garments", "shoes", "bags", "accessories"}
    assert all(
        {"colour", "pattern", "season", "sizes", "list_price", "stock"} <= product.attributes.keys()
        for product in goods
    )
    known = {product.product_id for product in products}
    assert set(pc.unique(shop.events["product_id"].drop_null()).to_pylist()) <= known


def test_explicit_moments_equal_brute_force(shop: Atelier, rows: Rows) -> None:
    rules = {
        "failed_search": lambda row: row["detail"].get("results") == 0,
        "out_of_stock": lambda row: row["action"] == "stockout",
        "delay": lambda row: row["action"] == "delivery" and row["detail"]["late_days"] >= 1,
        "error": lambda row: row["action"] == "error",
        "return": lambda row: row["action"] == "return",
        "complaint": lambda row: row["action"] == "complaint",
    }
    for kind, rule in rules.items():
        assert _observed(shop, kind) == {row["event_id"] for row in rows if rule(row)}, kind


def test_wants_equal_brute_force(shop: Atelier, rows: Rows) -> None:
    rules = {
        "want_to_buy": lambda row: (
            row["action"] == "add_to_cart" or (row["action"], row["channel"]) == ("purchase", "store")
        ),
        "want_to_go": lambda row: (row["action"], row["touchpoint"]) == ("view", "store-finder"),
        "want_to_do": lambda row: (row["action"], row["touchpoint"]) == ("view", "guide"),
        "want_to_know": lambda row: (
            row["action"] == "view" and row["touchpoint"] in ("reviews", "size-guide")
        ),
    }
    for kind, rule in rules.items():
        first: dict[str, str] = {}
        for row in rows:
            if row["session_id"] and rule(row):
                first.setdefault(row["session_id"], row["event_id"])
        assert _observed(shop, kind) == set(first.values()), kind


def test_price_shocks_equal_brute_force(shop: Atelier, rows: Rows) -> None:
    last: dict[tuple[str, str], tuple[dt.datetime, float]] = {}
    shocked = set()
    for row in rows:
        if row["action"] == "view" and row["unit_price"] is not None and row["person"]:
            key = (row["person"], row["product_id"])
            if key in last:
                at, price = last[key]
                if row["unit_price"] > 1.05 * price and row["occurred_at"] - at <= dt.timedelta(days=30):
                    shocked.add(row["event_id"])
            last[key] = (row["occurred_at"], row["unit_price"])
    assert shocked
    assert _felt(shop, "price_shock") == shocked


def test_repeated_searches_equal_brute_force(shop: Atelier, rows: Rows) -> None:
    searches = collections.defaultdict(list)
    repeated = set()
    for row in rows:
        if row["query"] and row["person"]:
            words = set(row["query"].split())
            for at, earlier in searches[row["person"]]:
                near = row["occurred_at"] - at <= dt.timedelta(minutes=30)
                if near and len(words & earlier) >= 0.5 * len(words | earlier):
                    repeated.add(row["event_id"])
            searches[row["person"]].append((row["occurred_at"], words))
    assert len(repeated) > 50
    assert _felt(shop, "repeated_search") == repeated


def test_linkable_equals_connected_identifiers(shop: Atelier, rows: Rows) -> None:
    shared = {
        (row["kind"], row["value"]) for row in shop.identifiers.to_pylist() if row["shared"]
    }  # fmt: skip
    groups: dict[str, list[set[Any]]] = collections.defaultdict(list)
    for row in rows:
        mine = {one for one in row["identifiers"] if one not in shared}
        if "form" in row["detail"]:
            mine.add(("form", row["person"]))
        if mine and row["person"]:
            touched = [group for group in groups[row["person"]] if group & mine]
            for group in touched:
                groups[row["person"]].remove(group)
            groups[row["person"]].append(mine.union(*touched))
    main = {}
    for person, several in groups.items():
        named = [g for g in several if any(kind in ("form", "customer") for kind, _ in g)]
        main[person] = named[0] if len(named) == 1 else max(several, key=len)
        assert len(named) <= 1 or max(map(len, named)) == len(main[person])
    unsure = 0
    for row, linkable in zip(rows, shop.identity["linkable"].to_pylist(), strict=True):
        mine = {one for one in row["identifiers"] if one not in shared}
        if "form" in row["detail"]:
            mine.add(("form", row["person"]))
        several = [len(g) for g in groups.get(row["person"], [])]
        if (
            not any(k in ("form", "customer") for k, _ in main.get(row["person"], ()))
            and several.count(max(several, default=0)) > 1
        ):
            unsure += 1  # ties between nameless groups may go either way
            continue
        assert linkable == bool(mine & main.get(row["person"], set())), row
    assert unsure < 0.1 * len(rows)
    assert 0.5 < np.mean(shop.identity["linkable"].to_numpy(zero_copy_only=False)) < 0.95


def test_identifiers_belong_to_one_person_or_say_shared(shop: Atelier, rows: Rows) -> None:
    owners = collections.defaultdict(set)
    for row in rows:
        for one in row["identifiers"]:
            owners[one].add(row["person"])
    truth = {(row["kind"], row["value"]): row for row in shop.identifiers.to_pylist()}
    assert owners.keys() == truth.keys()
    for one, people in owners.items():
        if not truth[one]["shared"]:
            assert people == {truth[one]["person_id"]}, one
    kiosks = [len(people) for (_, value), people in owners.items() if value.startswith("kiosk-")]
    assert max(kiosks) >= 5
    households = shop.shared_devices.filter(pc.equal(shop.shared_devices["kind"], "household"))
    homes = dict(
        zip(shop.persons["person_id"].to_pylist(), shop.persons["household_id"].to_pylist(), strict=True)
    )
    for row in households.to_pylist():
        assert {homes[person] for person in row["persons"]} == {row["holder"]}
    bots = {one for one, people in owners.items() if people == {None}}
    assert len(bots) == 1


def test_forms_in_the_stream_are_the_records_and_some_are_mistyped(shop: Atelier, rows: Rows) -> None:
    forms = {row["event_id"]: row for row in rows if "form" in row["detail"]}
    clean = {row["person_id"]: row for row in shop.persons.to_pylist()}
    wrong = 0
    for record in shop.records.to_pylist():
        row = forms[record["event_id"]]
        assert {name: record[name] for name in row["detail"]["form"]} == row["detail"]["form"]
        assert (record["identifier_kind"], record["identifier_value"]) in row["identifiers"]
        wrong += any(record[name] != clean[row["person"]][name] for name in row["detail"]["form"])
    assert forms.keys() == set(shop.records["event_id"].to_pylist())
    assert 0.05 < wrong / shop.records.num_rows < 0.4


def test_some_events_arrive_late_and_none_before_they_happened(shop: Atelier) -> None:
    wait = (
        pc.subtract(shop.events["received_at"], shop.events["occurred_at"]).cast(pa.int64()).to_numpy() / 1e6
    )
    assert wait.min() > -91  # a clock that runs ahead
    assert 0.01 < (wait > 3000).mean() < 0.03
    assert wait.max() > 20 * 86_400


def test_crawlers_are_faster_than_people(rows: Rows) -> None:
    crawl = [row["occurred_at"] for row in rows if row["person"] is None]
    assert len(crawl) == CONFIG.bot_events
    assert max(crawl) - min(crawl) <= dt.timedelta(seconds=2)


def test_silent_moments_are_marked_unobservable(shop: Atelier) -> None:
    counts = collections.Counter(
        (row["kind"], row["observable"]) for row in shop.moments.select(["kind", "observable"]).to_pylist()
    )
    for kind in ("out_of_stock", "error", "want_to_buy", "want_to_know", "want_to_go", "want_to_do"):
        assert counts[kind, False] > 0
        assert counts[kind, True] > 0
    keys = [(row["event_id"], row["kind"]) for row in shop.moments.to_pylist()]
    assert len(set(keys)) == len(keys)


def test_sessions_of_a_person_have_one_need_and_a_time(shop: Atelier) -> None:
    needs = {row["session_id"]: row for row in shop.needs.to_pylist()}
    assert len(needs) == shop.needs.num_rows
    person = dict(
        zip(shop.events["event_id"].to_pylist(), shop.identity["person_id"].to_pylist(), strict=True)
    )
    for row in itertools.islice(shop.events.to_pylist(), 5000):
        if row["session_id"] in needs:
            assert needs[row["session_id"]]["person_id"] == person[row["event_id"]]


def _felt(shop: Atelier, kind: str) -> set[str]:
    chosen = shop.moments.filter(pc.equal(shop.moments["kind"], kind))
    return set(chosen["event_id"].to_pylist())


def _observed(shop: Atelier, kind: str) -> set[str]:
    chosen = shop.moments.filter(pc.and_(pc.equal(shop.moments["kind"], kind), shop.moments["observable"]))
    return set(chosen["event_id"].to_pylist())


def test_shops_of_other_namespaces_share_no_id_but_kiosks_and_products() -> None:
    small = AtelierConfig(shoppers=80, days=14)
    one = simulate(msgspec.structs.replace(small, namespace="p0"))
    other = simulate(msgspec.structs.replace(small, namespace="p1", seed=8))
    for table, column in (
        ("events", "event_id"),
        ("events", "session_id"),
        ("persons", "person_id"),
        ("records", "record_id"),
    ):
        ids = [set(getattr(shop, table)[column].drop_null().to_pylist()) for shop in (one, other)]
        assert ids[0].isdisjoint(ids[1]), column
    values = [set(shop.identifiers["value"].to_pylist()) for shop in (one, other)]
    assert all(value.startswith("kiosk-") for value in values[0] & values[1])
    orders = [json.loads(text).get("order") for text in one.events["detail"].to_pylist()]
    assert {order for order in orders if order} <= set(one.events["session_id"].to_pylist())
