"""A mapping over plain rows: paths, times and their zones, numbers, words, and everything that can be wrong."""

from __future__ import annotations

import datetime as dt
import json
import pathlib
from typing import Any

import pytest
from sources_shop import NOW, events, jsonl, one, read, shop

from contracts.retailer import Feed
from contracts.settings import SettingsError, expand_address, read_feeds
from orchestration.sources.feeds import guessing
from orchestration.sources.feeds.paths import MappingError, Paths

FIELDS: dict[str, Any] = {"event_id": "id", "occurred_at": "at", "action": "what", "product_id": "sku"}
TEN = dt.datetime(2024, 3, 1, 10, tzinfo=dt.UTC)


def feed(path: object, **more: Any) -> Feed:
    base: dict[str, Any] = {
        "files": str(path),
        "format": "rows",
        "fields": FIELDS,
        "constants": {"channel": "web"},
    }
    return Feed(**(base | more))


def write(path: pathlib.Path, text: str) -> pathlib.Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("2024-03-01T10:00:00Z", {}),
        ("2024-03-01T12:00:00+02:00", {}),
        ("2024-03-01 05:00:00 -0500", {}),
        ("2024-03-01 10:00:00 UTC", {}),
        ("1709287200", {}),
        ("1709287200000", {}),
        ("1709287200000000", {}),
        ("2024-03-01 11:00", {"time_zone": "Europe/Berlin"}),
        ("2024-03-01T12:00:00+02:00", {"time_zone": "Europe/Berlin"}),
        ("01.03.2024 11:00", {"time_zone": "Europe/Berlin", "time_format": "%d.%m.%Y %H:%M"}),
        ("01.03.2024 12:00 +0200", {"time_format": "%d.%m.%Y %H:%M %z"}),
        ("1709287200", {"time_format": "epoch_s"}),
    ],
)
def test_times_with_and_without_a_zone(tmp_path: pathlib.Path, text: str, more: dict[str, Any]) -> None:
    rows, _ = one(tmp_path, feed(write(tmp_path / "a.csv", f"id,at,what,sku\n1,{text},view,p\n"), **more))
    assert rows[0]["occurred_at"] == TEN


def test_local_times_follow_summer_time(tmp_path: pathlib.Path) -> None:
    text = "id,at,what,sku\n1,2024-03-30 12:00,view,p\n2,2024-03-31 12:00,view,p\n"
    rows, _ = one(tmp_path, feed(write(tmp_path / "a.csv", text), time_zone="Europe/Berlin"))
    assert [row["occurred_at"].hour for row in rows] == [11, 10]


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        ("2024-03-01 10:00", "occurred_at: a time without a zone; set mapping.web.time_zone"),
        ("2024-13-01T10:00:00Z", "occurred_at: not a time that can be read"),
        ("2024-03-01 10:00:00 Nowhere/City", "occurred_at: not a time that can be read"),
        ("yesterday", "occurred_at: not a time that can be read"),
        ("", "occurred_at: missing"),
        ("1970-01-01T00:00:00Z", "occurred_at: before 2000-01-01, a broken clock"),
        ("2199-01-01T00:00:00Z", "occurred_at: later than the time of reading, a broken clock"),
    ],
)
def test_times_that_are_none_break_their_row_alone(tmp_path: pathlib.Path, at: str, reason: str) -> None:
    text = f"id,at,what,sku\n1,{TEN.isoformat()},view,p\n2,{at},view,p\n"
    rows, part = one(tmp_path, feed(write(tmp_path / "a.csv", text)))
    assert [row["event_id"] for row in rows] == ["web:1"]
    assert part.reasons == {reason: 1}
    assert [(example.line, json.loads(example.raw)["id"]) for example in part.examples] == [(3, "2")]


def test_an_unknown_time_zone_is_refused_with_near_names(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "a.csv", "id,at,what,sku\n1,2024-03-01 10:00,view,p\n")
    part = read(shop(tmp_path, web=feed(path, time_zone="Europe/Berln")))[0]
    assert part.error is not None
    assert "mapping.web.time_zone is 'Europe/Berln'" in part.error
    assert "Europe/Berlin" in part.error


def test_numbers_words_templates_and_alternatives(tmp_path: pathlib.Path) -> None:
    text = (
        "id;at;what;sku;old sku;n;total;shop;mail;page;junk\n"
        "1;2024-03-01T10:00:00Z;Kauf;;p9;2;5,50;12;Ada@x.org;1;abc\n"
        "2;2024-03-01T10:00:00Z; kauf ;p2;;-;1.005,00;;;2;\n"
        "3;2024-03-01T10:00:00Z;Ansicht;p3;;;;3;;;def\n"
        "4;2024-03-01T10:00:00Z;Pause;p3;;;;3;;;\n"
        "5;2024-03-01T10:00:00Z;Tanz;p3;;;;3;;;\n"
    )
    mapped = feed(
        write(tmp_path / "a.csv", text), decimal=",",
        fields={**FIELDS, "product_id": ("sku", "old sku"), "quantity": "n", "line_total": "total",
                "touchpoint": "store:{shop}",
                "position": "page"},
        identifiers={"email_sha256": "sha256(mail)"},
        values={"action": {"Kauf": "purchase@store", "Ansicht": "view", "Pause": "ignore"}},
    )  # fmt: skip
    rows, part = one(tmp_path, mapped)
    assert [(row["event_id"], row["action"], row["channel"], row["product_id"]) for row in rows] == [
        ("web:1", "purchase", "store", "p9"), ("web:3", "view", "web", "p3"),
    ]  # fmt: skip
    assert (rows[0]["quantity"], rows[0]["unit_price"], rows[0]["touchpoint"], rows[0]["position"]) == (
        2,
        2.75,
        "store:12",
        1,
    )
    assert rows[0]["currency"] == "EUR"
    assert json.loads(rows[0]["detail"]) == {"junk": "abc"}
    assert len(json.loads(rows[0]["identifiers"])[0]["value"]) == 64
    assert part.ignored == 1
    assert part.reasons == {"quantity: not a number": 1, "action: a name that the mapping does not know": 1}
    assert {name.name for name in part.names if name.action is None} == {"Tanz"}
    assert part.unused == ("junk",)


def test_columns_with_the_names_of_our_own_are_read_as_the_mapping_says(tmp_path: pathlib.Path) -> None:
    text = "name,action,problem,i,n,t,event_id,item,d\nfoo,2024-03-01T10:00:00Z,view,7,p1,x,y,z,w\n"
    mapped = feed(
        write(tmp_path / "a.csv", text),
        fields={
            "event_id": "i",
            "occurred_at": "action",
            "action": "problem",
            "product_id": "n",
            "query": "name",
        },
        values={"action": {"zzz": "view"}},
    )
    rows, _ = one(tmp_path, mapped)
    assert (rows[0]["event_id"], rows[0]["action"], rows[0]["product_id"], rows[0]["query"]) == (
        "web:7",
        "view",
        "p1",
        "foo",
    )
    assert json.loads(rows[0]["detail"]) == {"t": "x", "event_id": "y", "item": "z", "d": "w"}


def test_rows_without_a_number_get_one_that_stays(tmp_path: pathlib.Path) -> None:
    text = (
        "at,what,sku\n2024-03-01T10:00:00Z,view,p\n2024-03-01T10:00:00Z,view,p\n2024-03-01T10:00:00Z,view,q\n"
    )
    fields = {key: value for key, value in FIELDS.items() if key != "event_id"}
    source = shop(tmp_path, web=feed(write(tmp_path / "a.csv", text), fields=fields))
    ids = [row["event_id"] for row in events(source)]
    assert len(set(ids)) == 3
    again = shop(tmp_path / "again", web=feed(write(tmp_path / "b.csv", text), fields=fields))
    assert [row["event_id"] for row in events(again)] == ids


def test_documents_with_items_and_nested_values(tmp_path: pathlib.Path) -> None:
    rows = [
        {"id": 1, "at": "2024-03-01T10:00:00Z", "what": "purchase", "who": {"card number": "c1"},
         "lines": [{"sku": "p1", "n": 2}, {"sku": "p2"}], "note": {"gift": True}},
        {"id": 2, "at": "2024-03-01T10:00:00Z", "what": "view", "sku": "p3", "lines": []},
        ["no", "object"],
    ]  # fmt: skip
    mapped = feed(
        jsonl(tmp_path / "a.jsonl", rows), items="$.lines",
        fields={**FIELDS, "product_id": ("@.sku", "$.sku"), "quantity": "@.n"},
        identifiers={"loyalty_card": "$.who.card number"},
    )  # fmt: skip
    found, part = one(tmp_path, mapped)
    assert [(row["event_id"], row["product_id"], row.get("quantity")) for row in found] == [
        ("web:1-1", "p1", 2), ("web:1-2", "p2", 1), ("web:2", "p3", None),
    ]  # fmt: skip
    assert json.loads(found[0]["identifiers"]) == [{"kind": "loyalty_card", "value": "c1"}]
    assert json.loads(found[0]["detail"])["note"] == {"gift": True}
    assert part.reasons == {"row: not a JSON object": 1}


def test_typed_parquet_columns(tmp_path: pathlib.Path) -> None:
    import decimal

    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({
        "id": [1, 2], "at": pa.array([dt.datetime(2024, 3, 1, 11), None], pa.timestamp("ns")), "what": ["view", "view"],
        "sku": [10, 11], "price": [decimal.Decimal("2.50"), None], "payload": ['{"q": {"text": "hat"}}', None],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet")
    fields = {**FIELDS, "unit_price": "price", "query": "$.payload.q.text"}
    mapped = feed(tmp_path / "a.parquet", fields=fields, time_zone="Europe/Berlin")
    rows, part = one(tmp_path, mapped)
    assert [(row["occurred_at"], row["product_id"], row["unit_price"], row["query"]) for row in rows] == [
        (TEN, "10", 2.5, "hat")
    ]
    assert part.reasons == {"occurred_at: missing": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"fields": {**FIELDS, "occurred_at": "then"}},
            "mapping.web.fields.occurred_at is 'then', which is not there",
        ),
        ({"fields": {"occurred_at": "at"}}, "mapping.web.fields.action is missing"),
        ({"constants": {}}, "mapping.web.fields.channel is missing"),
        ({"delimiter": ";"}, "the delimiter is set to ';', but the lines look cut by ','"),
        (
            {"fields": {**FIELDS, "query": "$.a..b"}},
            "mapping.web.fields.query is '$.a..b'; expected a JSON path",
        ),
        ({"fields": {**FIELDS, "query": "@.a"}}, "begins with @, but no items"),
        ({"encoding": "klingon"}, "encoding is 'klingon'"),
    ],
)
def test_a_mapping_that_cannot_be_applied_says_where(
    tmp_path: pathlib.Path, changes: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "a.csv", "id,at,what,sku\n1,2024-03-01T10:00:00Z,view,p\n")
    part = read(shop(tmp_path, web=feed(path, **changes)))[0]
    assert part.error is not None
    assert message in part.error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mapping: {web: {files: a.csv, feilds: {}}}", r"feilds.*\$\.mapping"),
        ("mapping: {web: {files: a.csv, fields: {occured_at: x}}}", r"occured_at|Invalid enum"),
        ("mapping: {web: {files: a.csv, table: t}}", r"\$\.mapping\.web` names files and table"),
        ("mapping: {web: {format: segment}}", r"names nothing to read"),
        ("mapping: {web: {table: t, connection: till}}", r"mapping\.web`\.connection is 'till'"),
        ("mapping: {Web Shop: {files: a.csv}}", r"expected a name of at most 32"),
        ("mapping: {web: {files: a.csv, high_water: x}}", r"belong to table or query"),
        ("maping: {}", r"\$\.mapping` is missing"),
    ],
)
def test_a_misspelt_mapping_is_refused_with_the_key(tmp_path: pathlib.Path, text: str, message: str) -> None:
    path = write(tmp_path / "shop.yaml", text)
    with pytest.raises(SettingsError, match=message):
        read_feeds(path)


def test_files_lie_beside_the_yaml_and_passwords_in_the_environment(tmp_path: pathlib.Path) -> None:
    path = write(
        tmp_path / "shop.yaml",
        "connections: {db: 'postgresql://u:${PW}@h/d'}\nmapping: {web: {files: in/*.csv}}",
    )
    feeds, connections = read_feeds(path)
    assert feeds["web"].files == (str(tmp_path / "in/*.csv"),)
    assert expand_address(connections["db"], {"PW": "s"}) == "postgresql://u:s@h/d"
    with pytest.raises(SettingsError, match="PW is not set"):
        expand_address(connections["db"], {})


def test_paths_become_sql_that_cannot_be_broken_out_of() -> None:
    paths = Paths("mapping.x", {"it's": "VARCHAR", 'a"b': "VARCHAR"})
    assert paths.text("it's", "k") == "nullif(trim(\"it's\"), '')"
    assert '"a""b"' in str(paths.text('a"b', "k"))
    assert paths.text("gone", "k") is None
    assert paths.missing == [("k", "gone")]
    with pytest.raises(MappingError, match="template"):
        paths.text("{", "k")


def test_a_mapping_is_proposed_from_names_and_words() -> None:
    proposal = guessing.propose(
        ["timestamp", "visitorid", "event", "itemid", "Qty"], {"addtocart", "view", "transaction"}
    )
    assert proposal == {
        "fields": {"occurred_at": "timestamp", "action": "event", "product_id": "itemid", "quantity": "Qty"},
        "identifiers": {"anonymous": "visitorid"},
        "constants": {"channel": "web"},
        "values": {"action": {"addtocart": "add_to_cart", "transaction": "purchase"}},
    }


def test_the_clock_of_the_reader_decides_what_is_later(tmp_path: pathlib.Path) -> None:
    soon = (NOW + dt.timedelta(minutes=4)).isoformat()
    text = f"id,at,what,sku\n1,{soon},view,p\n"
    part = read(shop(tmp_path, web=feed(write(tmp_path / "a.csv", text))))[0]
    assert part.good == 1


def test_the_documented_yaml_is_valid(tmp_path: pathlib.Path) -> None:
    from contracts.settings import ROOT, read_retailer, read_settings

    page = (ROOT / "docs" / "bring-your-own-shop.md").read_text()
    path = write(tmp_path / "corner.yaml", page.split("```yaml\n")[1].split("```")[0])
    retailer = read_retailer(read_settings({"RETAILER": str(path)}))
    assert set(retailer.mapping) == {"web", "shop", "catalogue", "stores"}
    assert retailer.mapping["shop"].files == (
        str(tmp_path / "exports/shopify/orders*.csv"), str(tmp_path / "exports/shopify/archive"),
    )  # fmt: skip
