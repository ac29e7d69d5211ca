"""From an answer over a click to a pair that the visual models can learn from."""

from __future__ import annotations

import json
import pathlib
import sqlite3
from typing import Any

import numpy as np
import pyarrow as pa

from feature_repo.snapshots import connect
from orchestration.lake.visual_pairs import PAIRS, visual_pairs
from tests.integration.serving import seeing
from tests.integration.serving.conftest import Shop, serving, wait_for
from tests.integration.serving.seeing import encoded, scene
from tests.integration.serving.synthetic import event


def pairs_of(shop: Shop) -> list[dict[str, Any]]:
    """Pairs from what the inbox holds, as the lake will hold it."""
    with sqlite3.connect(shop.inbox) as connection:
        rows = [json.loads(raw) for (raw,) in connection.execute("SELECT raw FROM events")]
    columns = ("decision_id", "product_id", "action", "occurred_at")
    con = connect()
    con.register("seen", pa.Table.from_pylist([{key: row.get(key) for key in columns} for row in rows]))
    con.execute("create view events as select * replace (occurred_at::timestamptz as occurred_at) from seen")
    table = visual_pairs(con, shop.home / "inbox" / "decisions.sqlite")
    assert table.schema == PAIRS
    return table.to_pylist()


def test_clicks_on_results_become_pairs(seer: Shop) -> None:
    with serving(seer) as (client, server):

        def act(action: str, answer: dict[str, Any], item: dict[str, Any]) -> None:
            facts = {"product_id": item["product_id"], "position": item["position"]}
            facts["decision_id"] = answer["decision_id"]
            name = f"{action}-{answer['decision_id']}-{item['product_id']}"
            told = event(name, "1001", action=action, **facts)
            assert client.post("/v1/events", json=told).status_code == 202

        photo = encoded(scene({0: 5, 3: 8}))
        kept = client.post("/v1/search/image?n=4&remember=true", content=photo).json()
        unkept = client.post("/v1/search/image?n=4", content=photo).json()
        similar = client.get("/v1/products/p0005/similar?n=4").json()
        words = client.post("/v1/search/text", json={"query": "red top", "n": 4}).json()
        look = client.post("/v1/looks/complete", json={"product_ids": ["p0005"], "n": 3}).json()
        plain = client.post("/v1/recommendations", json={"customer_id": "1001"}).json()
        bag = kept["objects"][1]["items"][2]
        act("click", kept, bag)
        act("add_to_cart", kept, bag)
        act("view", unkept, unkept["objects"][0]["items"][0])
        act("click", similar, similar["items"][1])
        act("click", words, words["items"][3])
        act("click", look, look["parts"][1]["items"][0])
        act("click", plain, plain["items"][0])  # No visual answer.
        act("click", kept, {"product_id": "p0150", "position": 99})  # Never shown by it.
        wait_for(lambda: server.decisions.stored >= 6)
    found = {(row["surface"], row["decision_id"]): row for row in pairs_of(seer)}
    assert len(found) == 5
    seen = found["image", kept["decision_id"]]
    assert (seen["action"], seen["query_class"], seen["place"], seen["position"]) == (
        "add_to_cart",
        "bag",
        2,
        6,
    )
    assert seen["passed_over"] == [item["product_id"] for item in kept["objects"][1]["items"][:2]]
    assert seen["propensity"] == 1.0
    assert seen["release"] == "v1"
    vector = np.frombuffer(seen["query_vector"], np.float16).astype(np.float32)
    pixels = np.asarray(seeing.picture(8, 400).resize((seeing.SIDE, seeing.SIDE)))
    from serving.engine.sessions import Session

    graph = Session("embedder", seeing.embedder_graph().SerializeToString())
    expected = graph.run(("embedding",), {"pixels": pixels[None]})[0][0][0]
    assert float(vector @ expected) > 0.99
    assert found["image", unkept["decision_id"]]["query_vector"] is None
    assert found["similar", similar["decision_id"]]["query_product_ids"] == ["p0005"]
    assert found["text", words["decision_id"]]["query_words"] == "red top"
    assert len(found["text", words["decision_id"]]["passed_over"]) == 3
    part = found["look", look["decision_id"]]
    assert (part["query_class"], part["place"], part["passed_over"]) == (look["parts"][1]["part"], 0, [])


def test_without_decisions_there_are_no_pairs(tmp_path: pathlib.Path) -> None:
    con = connect()
    con.execute(
        "create table events (decision_id varchar, product_id varchar, action varchar, occurred_at timestamptz)"
    )
    assert visual_pairs(con, tmp_path / "nothing.sqlite").num_rows == 0
