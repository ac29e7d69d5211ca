"""Recommendations over HTTP: every path, every filter, every bad question."""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.integration.serving.conftest import Shop, post_raw, problem_fields, recommend, serving
from tests.integration.serving.synthetic import DEPARTMENTS, NOW, event, item_arrays

ITEMS = item_arrays()
SELLABLE = {p for p, ok in zip(ITEMS["product_id"].tolist(), ITEMS["sellable"].tolist(), strict=True) if ok}
DEPARTMENT = dict(zip(ITEMS["product_id"].tolist(), ITEMS["department"].tolist(), strict=True))


def test_a_known_customer_gets_a_personal_answer_with_reasons(client: TestClient) -> None:
    response = recommend(client, customer_id="1001", n=10, context={"store_id": "330"})
    answer = response.json()
    assert response.status_code == 200
    assert (answer["path"], answer["release"], answer["notes"]) == ("personal", "r1", [])
    products = [item["product_id"] for item in answer["items"]]
    assert len(set(products)) == 10
    assert set(products) <= SELLABLE
    assert [item["position"] for item in answer["items"]] == list(range(10))
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)
    for item in answer["items"]:
        assert item["reason"]["text"]
        assert item["sources"]
        assert item["propensity"] == 1.0
        assert item["name"]
    assert answer["history"] > 0
    assert answer["candidates"] > 10
    assert answer["context"]["store_id"] == "330"
    assert "handler" in response.headers["server-timing"]


def test_the_same_question_gets_the_same_answer(client: TestClient) -> None:
    asked = {"customer_id": "1002", "context": {"at": NOW.isoformat()}}
    first, second = recommend(client, **asked).json(), recommend(client, **asked).json()
    assert first["items"] == second["items"]
    assert first["decision_id"] != second["decision_id"]


def test_an_unknown_customer_gets_the_popular_answer(client: TestClient) -> None:
    answer = recommend(client, customer_id="nobody").json()
    assert (answer["path"], answer["notes"]) == ("popular", ["unknown_customer", "empty_history"])
    assert {item["reason"]["code"] for item in answer["items"]} == {"popular"}


def test_nobody_in_particular_gets_the_popular_answer(client: TestClient) -> None:
    answer = client.post("/v1/recommendations", json={}).json()
    assert (answer["path"], answer["notes"], len(answer["items"])) == ("popular", ["anonymous"], 10)


def test_a_customer_before_their_first_event_has_an_empty_history(client: TestClient) -> None:
    answer = recommend(client, customer_id="1001", context={"at": "2015-01-01T00:00:00Z"}).json()
    assert (answer["path"], answer["notes"]) == ("popular", ["empty_history"])


def test_an_anonymous_visit_gets_a_session_answer(client: TestClient) -> None:
    visit = [event(f"s{i}", None, session_id="visit-1", product_id=f"p00{i + 10}") for i in range(4)]
    assert client.post("/v1/events", json=visit).status_code == 202
    answer = recommend(client, session_id="visit-1").json()
    assert (answer["path"], answer["history"]) == ("session", 4)
    assert recommend(client, session_id="visit-2").json()["path"] == "popular"


def test_unknown_products_are_read_over(client: TestClient) -> None:
    client.post("/v1/events", json=[event("u1", "newcomer", product_id="not-in-this-shop")])
    answer = recommend(client, customer_id="newcomer").json()
    assert (answer["path"], answer["notes"]) == ("popular", ["empty_history"])
    before = recommend(client, customer_id="1003").json()
    client.post("/v1/events", json=[event("u2", "1003", product_id="not-in-this-shop")])
    after = recommend(client, customer_id="1003").json()
    assert after["history"] == before["history"] + 1
    assert after["path"] == "personal"


def test_an_accepted_event_counts_in_the_very_next_answer(client: TestClient) -> None:
    for number in range(30):
        before = recommend(client, customer_id="1004").json()
        moment = (NOW + dt.timedelta(hours=number)).isoformat()
        bought = event(f"b{number}", "1004", action="purchase", product_id="p0399", occurred_at=moment)
        assert client.post("/v1/events", json=bought).json()["accepted"] == 1
        after = recommend(client, customer_id="1004").json()
        assert after["history"] == before["history"] + 1
    category = {"category": [str(ITEMS["category"][399])]}
    shelf = recommend(client, customer_id="1004", n=100, filters=category).json()["items"]
    bought_item = next(item for item in shelf if item["product_id"] == "p0399")
    assert bought_item["reason"]["evidence"]["times_bought"] == 30
    assert "repeat" in bought_item["sources"]


def test_filters_narrow_the_answer(client: TestClient) -> None:
    for department in DEPARTMENTS:
        answer = recommend(
            client, customer_id="1005", n=20, filters={"department": [department.lower()]}
        ).json()
        assert len(answer["items"]) == 20
        assert {DEPARTMENT[item["product_id"]] for item in answer["items"]} == {department}
        assert answer["rules"] == ["sellable", "filter:department"]
    first = recommend(client, customer_id="1005", n=3).json()["items"]
    banned = [item["product_id"] for item in first]
    rest = recommend(client, customer_id="1005", n=50, filters={"exclude": banned}).json()["items"]
    assert not set(banned) & {item["product_id"] for item in rest}


def test_promotions_can_be_asked_for(client: TestClient) -> None:
    asked = {"customer_id": "1006", "n": 100, "filters": {"in_promotion": True}}
    answer = recommend(client, **asked, context={"store_id": "331"}).json()
    assert 0 < len(answer["items"]) <= 30
    texts = [item["reason"]["text"] for item in answer["items"]]
    assert all("mailer" in text or "display" in text for text in texts), texts
    nothing = recommend(client, **asked, context={"store_id": "332"}).json()
    assert (nothing["items"], nothing["notes"]) == ([], ["filters_leave_nothing"])


@pytest.mark.parametrize(
    "filters",
    [
        {"department": ["SPACESHIPS"]},
        {"department": ["MEAT"], "category": ["CATEGORY 0"]},
        {"brand": ["x", "y"]},
    ],
)
@pytest.mark.parametrize("customer", ["1007", "nobody"])
def test_filters_that_leave_nothing_say_so(
    client: TestClient, filters: dict[str, Any], customer: str
) -> None:
    response = recommend(client, customer_id=customer, filters=filters)
    assert response.status_code == 200
    assert response.json()["items"] == []
    assert "filters_leave_nothing" in response.json()["notes"]


def test_filters_that_leave_few_say_so(client: TestClient) -> None:
    answer = recommend(client, customer_id="1007", n=100, filters={"category": ["category 3"]}).json()
    assert 0 < len(answer["items"]) < 100
    assert answer["notes"] == ["fewer_than_asked"]


def test_the_store_comes_from_the_question_the_touchpoint_or_the_history(client: TestClient) -> None:
    context = recommend(client, customer_id="1008", touchpoint="store:331").json()["context"]
    assert (context["store_id"], context["store_from"]) == ("331", "touchpoint")
    context = recommend(client, customer_id="1008").json()["context"]
    assert (context["store_id"], context["store_from"]) == (str(330 + 7 % 3), "usual")
    answer = recommend(client, customer_id="1008", context={"store_id": "999"}).json()
    assert answer["notes"] == ["unknown_store"]


@pytest.mark.parametrize(
    ("body", "status", "fields"),
    [
        ({"customer_id": "1", "n": 0}, 422, ["n"]),
        ({"customer_id": "1", "n": 10_000}, 422, ["n"]),
        ({"customer_id": "1", "n": "ten"}, 422, ["n"]),
        ({"customer_id": 1}, 422, ["customer_id"]),
        ({"customer_id": ""}, 422, ["customer_id"]),
        ({"customer": "1"}, 422, ["customer"]),
        ({"customer_id": "1", "filters": {"colour": ["red"]}}, 422, ["filters.colour"]),
        ({"customer_id": "1", "filters": {"department": "MEAT"}}, 422, ["filters.department"]),
        ({"customer_id": "1", "filters": {"exclude": ["x"] * 1001}}, 422, ["filters.exclude"]),
        ({"customer_id": "1", "context": {"at": "2017-12-01T00:00:00"}}, 422, ["context.at"]),
        ({"customer_id": "1", "context": {"at": "2999-12-01T00:00:00Z"}}, 422, ["context.at"]),
        ({"customer_id": "1", "context": {"at": "1950-12-01T00:00:00Z"}}, 422, ["context.at"]),
        ({"customer_id": "1", "context": {"at": "0001-01-01T00:00:00+23:59"}}, 422, ["context.at"]),
        ([], 422, [""]),
        ("x", 422, [""]),
    ],
)
def test_a_bad_question_names_the_field(
    client: TestClient, body: Any, status: int, fields: list[str]
) -> None:
    response = client.post("/v1/recommendations", json=body)
    assert response.status_code == status
    assert problem_fields(response) == fields
    assert response.json()["type"] == "/docs#problem-invalid-request"


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"n":1}}', b"\xff", b"nope", b'{"customer_id":"a' + b"\x00" + b'"}']
)
def test_malformed_json_is_refused(client: TestClient, body: bytes) -> None:
    response = post_raw(client, "/v1/recommendations", body)
    assert (response.status_code, response.headers["content-type"]) == (400, "application/problem+json")


def test_bodies_are_bounded_before_they_are_parsed(client: TestClient) -> None:
    large = b'{"customer_id":"' + b"x" * 100_000 + b'"}'
    assert post_raw(client, "/v1/recommendations", large).status_code == 413

    def dripping() -> Any:
        for _ in range(200):
            yield b" " * 1000

    response = client.post(
        "/v1/recommendations", content=dripping(), headers={"content-type": "application/json"}
    )
    assert response.status_code == 413
    deep = b'{"filters":' + b"[" * 20_000 + b"]" * 20_000 + b"}"
    assert post_raw(client, "/v1/recommendations", deep).status_code in {400, 422}


def test_only_plain_json_is_taken(client: TestClient) -> None:
    response = client.post("/v1/recommendations", content=b"{}", headers={"content-type": "text/plain"})
    assert response.status_code == 415
    assert post_raw(client, "/v1/recommendations", b"{}", **{"content-encoding": "gzip"}).status_code == 415


def test_addresses_and_methods_that_do_not_exist(client: TestClient) -> None:
    for response, status in (
        (client.get("/v2"), 404),
        (client.get("/v1/events"), 405),
        (client.get("/static/no"), 404),
    ):
        assert (response.status_code, response.headers["content-type"]) == (
            status,
            "application/problem+json",
        )


def test_decisions_can_be_opened_at_once_and_after_a_restart(shop: Shop) -> None:
    with serving(shop) as (client, _):
        answer = recommend(client, customer_id="1009").json()
        decision_id = answer["decision_id"]
        assert client.get(f"/v1/decisions/{decision_id}").json() == answer
        for wrong in ("0" * 32, "x", "a" * 31, "..%2f..%2fetc"):
            assert client.get(f"/v1/decisions/{wrong}").status_code == 404
    with serving(shop) as (client, _):
        assert client.get(f"/v1/decisions/{decision_id}").json() == answer


def test_exploration_is_off_by_default_and_exact_when_on(shop: Shop) -> None:
    with serving(shop, exploration=0.5) as (client, _):
        greedy = recommend(client, customer_id="1010", n=3, context={"at": NOW.isoformat()}).json()
        drawn = kept = 0
        for _ in range(40):
            answer = recommend(client, customer_id="1010", n=3, context={"at": NOW.isoformat()}).json()
            last = answer["items"][-1]
            assert [item["propensity"] for item in answer["items"][:-1]] == [1.0, 1.0]
            if "exploration" in answer["rules"]:
                drawn += 1
                assert last["propensity"] == pytest.approx(0.5 / (answer["candidates"] - 3))
                assert last["reason"]["code"] == "explored"
            else:
                kept += 1
                assert last["propensity"] == 0.5
        assert drawn > 5 < kept
        assert greedy["items"][:2] == answer["items"][:2]


def test_a_store_that_fails_leads_to_the_popular_answer(shop: Shop) -> None:
    with serving(shop) as (client, server):
        good = recommend(client, customer_id="1011").json()
        assert good["path"] == "personal"
        server.profiles._view._path = shop.home / "broken.sqlite"
        (shop.home / "broken.sqlite").write_bytes(b"no database" * 1000)
        server.profiles._view._local.__dict__.clear()
        server.profiles._view = type(server.profiles._view)(shop.home / "broken.sqlite")
        answer = recommend(client, customer_id="1011").json()
        assert (answer["path"], answer["notes"], len(answer["items"])) == (
            "popular",
            ["profile_store_down"],
            10,
        )


def test_a_model_that_fails_leads_to_the_popular_answer(shop: Shop) -> None:
    with serving(shop) as (client, server):
        engine = server.holder.current.engine  # type: ignore[union-attr]
        engine._vocabulary_before = engine._deny
        engine._deny = engine._deny[:-1]
        answer = recommend(client, customer_id="1011").json()
        assert (answer["path"], answer["notes"], len(answer["items"])) == ("popular", ["model_failed"], 10)


def test_pages_and_documents_are_served_without_foreign_hosts(client: TestClient) -> None:
    recommend(client, customer_id="1012")
    for path in ("/", "/docs", "/?customer_id=1012", "/page/numbers", "/page/try?customer_id=1012"):
        page = client.get(path)
        assert page.status_code == 200
        assert "Product" in page.text or path == "/docs"
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "https://" not in page.text
    attack = client.get("/", params={"customer_id": "<script>alert(1)</script>"})
    assert "<script>alert" not in attack.text
    for path in ("/static/style.css", "/static/page.js", "/static/mark.svg"):
        assert client.get(path).status_code == 200
    assert client.get("/static/../app.py").status_code == 404


def test_openapi_describes_every_operation(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    assert set(document["paths"]) >= {
        "/v1/recommendations",
        "/v1/events",
        "/v1/decisions/{decision_id}",
        "/v1/release",
    }
    schemas = document["components"]["schemas"]
    text = json.dumps(document)
    for name in schemas:
        assert f"#/components/schemas/{name}" in text
    for reference in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert reference in schemas
    assert schemas["RecommendationRequest"]["properties"]["n"]["maximum"] == 100
    assert "description" in schemas["Decision"]["properties"]["path"]


def test_metrics_count_what_happened(client: TestClient) -> None:
    recommend(client, customer_id="1013")
    recommend(client, customer_id="nobody")
    client.post("/v1/events", json=[event("m1"), event("m1"), event("m2", action="nap")])
    text = client.get("/metrics").text
    for line in (
        'continuum_answers_total{path="personal"} 1.0',
        'continuum_answer_notes_total{note="unknown_customer"} 1.0',
        'continuum_events_total{outcome="accepted"} 1.0',
        'continuum_events_total{outcome="duplicate"} 1.0',
        'continuum_events_total{outcome="refused"} 1.0',
        'continuum_http_requests_total{route="recommend",status="200"} 2.0',
        "continuum_release_swaps_total 1.0",
    ):
        assert line in text, text
    labels = re.findall(r'="([^"]*)"', text)  # Values may hold any digits: they are times.
    assert labels
    assert not [label for label in labels if "1013" in label or "nobody" in label]
