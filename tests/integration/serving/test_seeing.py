"""Photos, words, similar products and looks over HTTP, on a release whose models are known by heart."""

from __future__ import annotations

import json
import pathlib
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from contracts.visual import COMPONENTS
from serving.limits import Limits
from tests.integration.serving import seeing
from tests.integration.serving.conftest import Shop, problem_fields, serving, wait_for
from tests.integration.serving.seeing import COLOURS, colour_of, encoded, price_of, scene, shard_of
from tests.integration.serving.synthetic import Keys, event, item_arrays, make_release, write_profiles

ITEMS = item_arrays()
SELLABLE = dict(zip(ITEMS["product_id"].tolist(), ITEMS["sellable"].tolist(), strict=True))
PHOTO = encoded(scene({0: 5, 3: 8}))  # A green top and a green bag.
JPEG = {"content-type": "image/jpeg"}


def place_of(product_id: str) -> int:
    return int(product_id[1:])


@pytest.fixture(scope="module")
def seeing_release(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, Keys]:
    folder = tmp_path_factory.mktemp("seeing")
    keys = Keys(folder / "keys")
    make_release(folder / "v1", keys, "v1", seed=1)
    make_release(folder / "blind", keys, "blind", seed=2)
    seeing.add_visual(folder / "v1", keys)
    return folder, keys


def install(home: pathlib.Path, made: tuple[pathlib.Path, Keys]) -> Shop:
    """An installation whose champion sees; a release without visual parts lies beside it."""
    folder, keys = made
    for name in ("v1", "blind"):
        shutil.copytree(folder / name, home / "registry" / name)
    shutil.copytree(folder / "keys", home / "keys")
    write_profiles(home / "profiles")
    shop = Shop(home, keys)
    shop.champion("v1")
    return shop


@pytest.fixture
def seer(tmp_path: pathlib.Path, seeing_release: tuple[pathlib.Path, Keys]) -> Shop:
    """A fresh installation of one test's own."""
    return install(tmp_path / "home", seeing_release)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, seeing_release: tuple[pathlib.Path, Keys]) -> Shop:
    """An installation that is only asked."""
    shop = install(tmp_path_factory.mktemp("shared") / "home", seeing_release)
    (shop.home / "media" / "looks").mkdir(parents=True)
    (shop.home / "media" / "p0005.jpg").write_bytes(encoded(seeing.picture(5)))
    (shop.home / "media" / "looks" / "look-1.jpg").write_bytes(PHOTO)
    (shop.home / "media" / "link.jpg").symlink_to(shop.keys.verify)
    return shop


@pytest.fixture(scope="module")
def client(shared: Shop) -> Iterator[TestClient]:
    with serving(shared, media=shared.home / "media") as (client, _):
        yield client


def search(client: Any, content: bytes = PHOTO, **query: Any) -> Any:
    return client.post("/v1/search/image", content=content, params=query, headers=JPEG)


def event_of(shop: Shop, answer: dict[str, Any]) -> dict[str, Any]:
    """The event that a search left behind; it is written a moment after the answer."""

    def found() -> list[dict[str, Any]]:
        with sqlite3.connect(shop.inbox) as connection:
            sql = "SELECT raw FROM events WHERE event_id = ?"
            return [json.loads(raw) for (raw,) in connection.execute(sql, (answer["decision_id"],))]

    wait_for(lambda: bool(found()))
    (event,) = found()
    return event


def test_every_item_of_a_photo_is_found_with_what_looks_like_it(client: TestClient) -> None:
    response = search(client, n=4)
    answer = response.json()
    assert response.status_code == 200, answer
    assert (answer["width"], answer["height"], answer["path"]) == (800, 800, "visual")
    assert [(o["class"], o["box"]) for o in answer["objects"]] == [
        ("top", [0, 0, 0.5, 0.5]),
        ("bag", [0.5, 0.5, 1, 1]),
    ]
    for seen, place in zip(answer["objects"], (5, 8), strict=True):
        assert seen["items"][0]["product_id"] == f"p{place:04d}"
        assert seen["attributes"]["colour"]["value"] == list(COLOURS)[colour_of(place)]
        assert seen["searched"] == seen["class"]
        assert {shard_of(place_of(i["product_id"])) for i in seen["items"]} == {shard_of(place)}
        similar = [i["similarity"] for i in seen["items"]]
        assert similar == sorted(similar, reverse=True)  # Nobody is known: likeness alone.
        assert all(i["reason"]["text"] and i["propensity"] == 1.0 and i["in_stock"] for i in seen["items"])
    positions = [i["position"] for o in answer["objects"] for i in o["items"]]
    assert positions == list(range(8))
    timing = response.headers["server-timing"]
    assert all(step in timing for step in ("decode;", "detector;", "embedder;", "model;", "handler;"))


def test_the_answer_is_a_decision_and_the_search_an_event(client: TestClient, shared: Shop) -> None:
    answer = search(client, customer_id="1001", session_id="s1", n=3).json()
    record = client.get(f"/v1/decisions/{answer['decision_id']}").json()
    shown = [i["product_id"] for o in answer["objects"] for i in o["items"]]
    assert [i["product_id"] for i in record["items"]] == shown
    assert {tuple(i["sources"]) for i in record["items"]} == {("visual",)}
    assert (record["path"], record["customer_id"], record["release"]) == ("personal", "1001", "v1")
    assert record["context"]["surface"] == "image"
    assert record["context"]["lists_begin"] == [0, 3]
    assert "vector" not in record["context"]["objects"][0]
    event = event_of(shared, answer)
    assert (event["action"], event["decision_id"]) == ("visual_search", answer["decision_id"])
    assert event["identifiers"] == [{"kind": "customer", "value": "1001"}]
    assert event["detail"] == {"results": 6, "objects": 2}


def test_with_consent_a_decision_keeps_what_describes_an_item_and_never_the_photo(client: TestClient) -> None:
    answer = search(client, remember=True).json()
    record = client.get(f"/v1/decisions/{answer['decision_id']}")
    assert all(len(o["vector"]) == 128 for o in record.json()["context"]["objects"])  # 48 x float16.
    assert len(record.content) < len(PHOTO)


def test_a_photo_of_nothing_is_an_honest_empty_answer_and_a_failed_search(seer: Shop) -> None:
    from contracts.moments import MomentRules
    from serving.profiles.moments import live_moments

    with serving(seer) as (client, _):
        response = search(client, encoded(scene({})), customer_id="1002")
    answer = response.json()
    assert response.status_code == 200
    assert answer["objects"] == []
    assert "nothing_found" in answer["notes"]
    assert "closer" in answer["next_step"]
    assert answer["decision_id"]
    assert event_of(seer, answer)["detail"]["results"] == 0
    with serving(seer) as (_, server):
        _, moments = live_moments("c-1002", server.profiles.sent("1002"), MomentRules())
    assert "failed_search" in {moment.kind for moment in moments}


def test_one_item_is_asked_for_by_point_or_by_box(client: TestClient) -> None:
    whole = search(client).json()["objects"]
    (pointed,) = search(client, point="0.75,0.75").json()["objects"]
    assert pointed["class"] == "bag"
    assert [i["product_id"] for i in pointed["items"]] == [i["product_id"] for i in whole[1]["items"]]
    (boxed,) = search(client, box="0.5,0.5,1,1").json()["objects"]
    assert (boxed["box"], boxed["class"]) == ([0.5, 0.5, 1, 1], "")
    assert boxed["items"][0]["product_id"] == "p0008"
    missed = search(client, point="0.75,0.25").json()
    assert missed["objects"][0]["box"] != [0.5, 0, 1, 0.5]
    assert "nothing_found_at_point" in missed["notes"]


def test_filters_come_before_the_best_are_taken(client: TestClient) -> None:
    items = search(client, point="0.2,0.2", n=50, price_max=40, in_stock=False).json()["objects"][0]["items"]
    expected = {
        place
        for place in range(seeing.PRODUCTS)
        if shard_of(place) == 0 and price_of(place) <= 40 and SELLABLE[f"p{place:04d}"]
    }
    assert {place_of(i["product_id"]) for i in items} == expected
    grocery = search(client, point="0.2,0.2", n=50, department="grocery").json()["objects"][0]["items"]
    assert {i["department"] for i in grocery} == {"GROCERY"}
    assert all(i["in_stock"] and SELLABLE[i["product_id"]] for i in grocery)
    worn = search(client, point="0.2,0.2", n=50, sizes=["M", "77"]).json()
    items = worn["objects"][0]["items"]
    assert items
    assert all("M" in i["sizes"] for i in items)
    assert "size_unknown:77" in worn["notes"]
    nothing = search(client, price_min=1000).json()
    assert [o["items"] for o in nothing["objects"]] == [[], []]
    assert "without the price" in nothing["next_step"]


def test_taste_orders_what_looks_alike_and_never_what_does_not(client: TestClient) -> None:
    moved = 0
    for customer in range(1001, 1016):
        answer = search(client, customer_id=str(customer), n=10).json()
        plain = search(client, n=50).json()
        assert answer["path"] == "personal"
        for seen, alone in zip(answer["objects"], plain["objects"], strict=True):
            similar = {i["product_id"]: i["similarity"] for i in alone["items"]}
            assert {i["product_id"] for i in seen["items"]} <= set(similar)
            best, shown = alone["items"][0], seen["items"]
            floor = best["similarity"] - 0.15
            within = [i["similarity"] >= floor for i in shown]
            assert within == sorted(within, reverse=True)
            ranks = [i["similarity"] for i in shown]
            moved += ranks != sorted(ranks, reverse=True)
            seen_colour = seen["attributes"]["colour"]["value"]
            for place, item in enumerate(shown):
                if list(COLOURS)[colour_of(place_of(item["product_id"]))] != seen_colour:
                    ahead = [i["product_id"] for i in alone["items"] if i["similarity"] > item["similarity"]]
                    assert place >= len(set(ahead) & {i["product_id"] for i in shown})
    assert moved > 0


def test_words_find_pictures_and_their_rules_hold(client: TestClient) -> None:
    answer = client.post("/v1/search/text", json={"query": "red shirt under 50", "n": 20}).json()
    assert answer["understood"]["colours"] == ["red"]
    assert answer["understood"]["price_max"] == 50
    assert answer["items"]
    for item in answer["items"]:
        assert list(COLOURS)[colour_of(place_of(item["product_id"]))] == "red"
        assert item["price"] <= 50
    not_red = client.post("/v1/search/text", json={"query": "shirt not red", "n": 50}).json()
    colours = {list(COLOURS)[colour_of(place_of(i["product_id"]))] for i in not_red["items"]}
    assert colours
    assert "red" not in colours
    without = client.post("/v1/search/text", json={"query": "blue without product", "n": 10}).json()
    assert (without["items"], without["understood"]["without"]) == ([], ["product"])  # All names bear it.
    assert without["next_step"]


def test_similar_products_never_hold_the_product_itself(client: TestClient) -> None:
    answer = client.get("/v1/products/p0005/similar", params={"n": 5}).json()
    products = [i["product_id"] for i in answer["items"]]
    assert "p0005" not in products
    assert {shard_of(place_of(p)) for p in products} == {0}
    assert answer["items"][0]["reason"]["text"].startswith("Closest to Product 5")
    for product, words in (("nope", "no product"), ("p0399", "no picture")):
        response = client.get(f"/v1/products/{product}/similar")
        assert response.status_code == 404
        assert words in response.json()["detail"]


def test_a_look_is_completed_with_one_list_per_missing_part(client: TestClient) -> None:
    answer = client.post("/v1/looks/complete", json={"product_ids": ["p0005"], "n": 3}).json()
    parts = [part["part"] for part in answer["parts"]]
    assert "top" not in parts
    assert "dress" not in parts  # It covers what the top covers.
    assert set(parts) == {"footwear", "bag", "pants"}
    graph = seeing.projection()
    arrays = seeing.index_arrays(seeing.embedder_graph().SerializeToString(), ITEMS["product_id"].tolist())
    vectors = dict(zip(arrays["product_id"].tolist(), arrays["vectors"], strict=True))
    for part in answer["parts"]:
        slot = seeing.SLOTS.index(part["part"])
        assert {shard_of(place_of(i["product_id"])) for i in part["items"]} == {slot}
        assert all(i["in_stock"] for i in part["items"])
        scores = [i["similarity"] for i in part["items"]]
        assert scores == sorted(scores, reverse=True)
        point = vectors["p0005"] @ graph + seeing.slot_points()[slot + 1]
        assert np.allclose(
            scores, [vectors[i["product_id"]] @ graph @ point for i in part["items"]], atol=1e-3
        )
    bought = [
        event(f"size-{number}", "1009", action="purchase", product_id="p0007", detail={"size": size})
        for number, size in enumerate(("40", "41", "41"))
    ]
    assert client.post("/v1/events", json=bought).json()["accepted"] == 3
    asked = {"product_ids": ["p0005"], "customer_id": "1009", "n": 50}
    worn = client.post("/v1/looks/complete", json=asked).json()
    sizes = {part["part"]: [i["sizes"] for i in part["items"]] for part in worn["parts"]}
    assert sizes["bag"]
    assert all("41" in made for made in sizes["bag"])
    assert not all(
        "41" in made for made in sizes["footwear"]
    )  # It comes in letters here: numbers say nothing of it.
    (bags,) = (part["items"] for part in worn["parts"] if part["part"] == "bag")
    assert all("in your size 41" in item["reason"]["text"] for item in bags)
    assert "Usually buys size 41." in client.get("/continuum/customer?customer_id=1009").text
    stated = client.post("/v1/looks/complete", json={**asked, "sizes": ["40"]}).json()
    (bags,) = (part["items"] for part in stated["parts"] if part["part"] == "bag")
    assert any("41" not in item["sizes"] for item in bags)
    dressed = client.post("/v1/looks/complete", json={"product_ids": ["p0001"]}).json()
    assert {part["part"] for part in dressed["parts"]} == {"footwear", "bag"}


def test_looks_show_their_hotspots_and_pages_their_pictures(client: TestClient) -> None:
    answer = client.get("/v1/looks/look-1").json()
    assert [o["class"] for o in answer["objects"]] == ["top", "bag"]
    assert [i["product_id"] for i in answer["objects"][0]["items"]] == ["p0005", "p0010"]
    assert answer["image"] == "/media/looks/look-1.jpg"
    picture = client.get(answer["image"])
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/jpeg")
    card = client.get("/v1/products", params={"id": ["p0005", "nope", "p0399"]}).json()["products"]
    assert [(c["product_id"], c["image"], c["image_shows"], c["searchable"]) for c in card] == [
        ("p0005", "/media/p0005.jpg", "product", True),
        ("p0399", None, None, False),
    ]
    assert client.get("/v1/looks/nope").status_code == 404


@pytest.mark.parametrize(
    "path",
    ["p0006.jpg", "p0005", "p0005.png", "..%2f..%2fkeys%2fverify.pem", "../keys/verify.pem", "%2e%2e%2fhome.jpg",
     ".hidden.jpg", "looks/..%2f..%2fp.jpg", "link.jpg", "looks/p0005.jpg", "a" * 300 + ".jpg", "%00.jpg"],
)  # fmt: skip
def test_only_pictures_leave_the_media_folder(client: TestClient, path: str) -> None:
    response = client.get(f"/media/{path}")
    assert response.status_code == 404
    assert b"PUBLIC KEY" not in response.content


def test_multipart_is_taken_as_well(client: TestClient) -> None:
    plain = search(client).json()["objects"]
    form = client.post(
        "/v1/search/image", files={"note": (None, "hello"), "photo": ("p.jpg", PHOTO, "image/jpeg")}
    ).json()
    assert form["objects"] == plain
    for content, header in (
        (b"x", "multipart/form-data"),
        (b"x", "multipart/form-data; boundary=b"),
        (b"--b\r\n\r\n\r\n--b--", "multipart/form-data; boundary=b"),
    ):
        response = client.post("/v1/search/image", content=content, headers={"content-type": header})
        assert response.status_code == 422, response.text


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"box": "0.1,0.1,1.2,0.5"}, "box"), ({"box": "0.5,0.1,0.1,0.5"}, "box"), ({"box": "0.1,0.1,0.1,0.1"}, "box"),
        ({"box": "a,b,c,d"}, "box"), ({"box": "0.1,nan,0.5,0.5"}, "box"), ({"point": "1.1,0"}, "point"),
        ({"point": "0.1"}, "point"), ({"n": "0"}, "n"), ({"n": "51"}, "n"), ({"price_max": "-1"}, "price_max"),
        ({"price_max": "cheap"}, "price_max"), ({"colour": "red"}, "colour"), ({"in_stock": "maybe"}, "in_stock"),
        ({"point": "0.1,0.1", "box": "0,0,1,1"}, "box"), ({"n": ["1", "2"]}, "n"), ({"customer_id": ""}, "customer_id"),
    ],
)  # fmt: skip
def test_a_wrong_question_names_its_field(client: TestClient, query: dict[str, Any], field: str) -> None:
    response = client.post("/v1/search/image", content=PHOTO, params=query, headers=JPEG)
    assert response.status_code == 422, response.text
    assert problem_fields(response) == [field]


def test_other_wrong_questions_are_clear_too(client: TestClient) -> None:
    assert client.post("/v1/search/text", json={"query": ""}).status_code == 422
    assert client.post("/v1/looks/complete", json={"product_ids": []}).status_code == 422
    assert client.post("/v1/looks/complete", json={"product_ids": ["nope"]}).status_code == 404
    assert client.get("/v1/products").status_code == 422


def test_a_release_without_visual_parts_serves_and_says_so(seer: Shop) -> None:
    seer.champion("blind")
    with serving(seer) as (client, _):
        assert client.post("/v1/recommendations", json={"customer_id": "1001"}).status_code == 200
        status = client.get("/v1/release").json()
        assert (status["visual"], status["visual_products"]) == ([], 0)
        answers = [
            search(client),
            client.post("/v1/search/text", json={"query": "red"}),
            client.get("/v1/products/p0005/similar"),
            client.post("/v1/looks/complete", json={"product_ids": ["p0005"]}),
            client.get("/v1/looks/look-1"),
        ]
        assert {(a.status_code, a.json()["type"]) for a in answers} == {
            (409, "/docs#problem-no-visual-models")
        }
        cards = client.get("/v1/products", params={"id": "p0005"}).json()["products"]
        assert cards[0]["name"] == "Product 5"
        assert client.get("/shop").status_code == 200


def test_a_release_may_have_only_some_of_the_parts(seer: Shop) -> None:
    needed = ("embedder", "index", "golden_visual")
    seeing.add_visual(seer.registry / "v1", seer.keys, needed)
    for path in ("detector.onnx", "text.onnx", "tokenizer.json", "outfit.onnx", "looks.npz"):
        (seer.registry / "v1" / "visual" / path).unlink()
    with serving(seer) as (client, _):
        (seen,) = search(client, encoded(seeing.picture(7))).json()["objects"]
        assert (seen["class"], seen["items"][0]["product_id"]) == ("whole product", "p0007")
        for response in (
            client.post("/v1/search/text", json={"query": "red"}),
            client.post("/v1/looks/complete", json={"product_ids": ["p0005"]}),
            client.get("/v1/looks/look-1"),
        ):
            assert response.status_code == 409
    assert set(needed) <= set(COMPONENTS)


def test_releases_that_see_are_swapped_while_photos_arrive(seer: Shop) -> None:
    shutil.copytree(seer.registry / "v1", seer.registry / "v2")
    manifest = seeing.add_visual(seer.registry / "v2", seer.keys)
    import msgspec

    from tests.integration.serving.synthetic import sign

    sign(seer.registry / "v2", seer.keys, msgspec.structs.replace(manifest, release="v2"))
    with serving(seer) as (client, server):
        seen: list[tuple[int, str]] = []
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                response = search(client)
                seen.append((response.status_code, response.json().get("release", "")))

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for name in ("v2", "v1", "blind", "v2"):
            seer.champion(name)
            wait_for(
                lambda name=name: server.holder.current is not None and server.holder.current.name == name
            )
        wait_for(lambda: bool(seen) and seen[-1] == (200, "v2"))
        stop.set()
        for thread in threads:
            thread.join()
    assert {status for status, _ in seen} <= {
        200,
        409,
    }  # 409 while the release without visual parts was live.
    assert {"v1", "v2"} <= {name for _, name in seen}


def test_too_many_photos_at_once_are_turned_away_at_once(seer: Shop) -> None:
    limits = Limits(photo_workers=1, waiting_photos=1)
    with serving(seer, limits=limits) as (client, server):
        gate, entered = threading.Event(), threading.Event()
        start = server.desk.pool.start

        def held(work: Any) -> Any:
            def wait() -> Any:
                entered.set()
                gate.wait(20)
                return work()

            return start(wait)

        server.desk.pool.start = held  # type: ignore[method-assign]
        statuses: list[int] = []
        threads = [
            threading.Thread(target=lambda: statuses.append(search(client).status_code)) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        assert entered.wait(20)
        wait_for(lambda: server.desk.pool._held == 2)
        refused = search(client)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert client.get("/health/live").status_code == 200  # The event loop is free meanwhile.
        gate.set()
        for thread in threads:
            thread.join()
        assert statuses == [200, 200]
        assert search(client).status_code == 200


def test_the_interface_names_its_parameters(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    operation = document["paths"]["/v1/search/image"]["post"]
    assert "image/jpeg" in operation["requestBody"]["content"]
    assert {"box", "point", "customer_id", "price_max", "remember"} <= {
        p["name"] for p in operation["parameters"]
    }
    assert (
        "never stored" in next(p for p in operation["parameters"] if p["name"] == "remember")["description"]
    )
    text = client.get("/docs").text
    assert "/v1/looks/complete" in text
    assert "price_max" in text
