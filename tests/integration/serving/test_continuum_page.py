"""The continuum's pages over HTTP: with numbers, without, with broken ones, and one customer's timeline."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import pathlib
import re
import sqlite3
from typing import Any

import msgspec
import numpy as np
import pytest
from starlette.testclient import TestClient

from contracts.actions import ACTIONS_FILE, Action, Refused, action_id
from contracts.overview import (
    OVERVIEW_FILE,
    Credit,
    Follow,
    Journeys,
    Kpi,
    MomentDay,
    MomentKind,
    Overview,
    Segment,
    Transition,
    Trial,
)
from contracts.predictions import PREDICTION_COLUMNS
from serving.pages.continuum import distances, span
from tests.integration.serving.conftest import Shop, serving
from tests.integration.serving.synthetic import NOW, event

OVERVIEW = Overview(
    retailer="synthetic",
    simulated=True,
    made_at=NOW,
    first_day=dt.date(2017, 1, 1),
    last_day=dt.date(2017, 12, 31),
    events=1234567,
    people=321,
    kpis=(Kpi(name="conversion", value=0.1234, unit="share", about="Visits that end in a purchase."),),
    journeys=Journeys(
        transitions=(Transition(source="direct_mail", target="store", count=77),),
        path_entropy=3.25,
        paths=48,
        commonest_path=("store", "direct_mail"),
        commonest_share=0.071,
        hours_between=50.0,
    ),
    moment_days=(MomentDay(day=dt.date(2017, 1, 1), moment="failed_search", count=5),),
    moments=(
        MomentKind(
            moment="failed_search", bad=True, count=5, people=4, recovered=0.5, hours_to_recovery=12.0
        ),
        MomentKind(moment="want_to_buy", bad=False, count=9, people=8),
    ),
    credits=(
        Credit(method="last touch", channel="store", share=0.9),
        Credit(method="markov", channel="store", share=0.6),
        Credit(method="markov", channel="</script><b>mail", share=0.4),
        Credit(method="causal effect (simulated)", channel="store", share=0.25),
        Credit(method="causal effect (simulated)", channel="</script><b>mail", share=0.75),
    ),
    segments=(
        Segment(name="Weekly families", about="large baskets", customers=12, spend=345.6),
        Segment(name="Looks at night, buys on Sundays", about="", customers=7, cut="behaviour"),
    ),
    follows=(Follow(moment="failed_search", next="repeated_search", count=3, share=0.615, hours=0.2),),
    trials=(
        Trial(channel="email", effect=0.0201, low=-0.01, high=0.0502, contacted=4321, held_out=1234, days=7),
    ),
)


@pytest.fixture
def folder(shop: Shop) -> pathlib.Path:
    folder = shop.home / "overview"
    folder.mkdir()
    return folder


def page(shop: Shop, folder: pathlib.Path, path: str = "/continuum", **query: str) -> Any:
    with serving(shop, overview=folder) as (client, _):
        return client.get(path, params=query)


def test_the_shop_at_a_glance(shop: Shop, folder: pathlib.Path) -> None:
    (folder / OVERVIEW_FILE).write_bytes(msgspec.json.encode(OVERVIEW))
    answer = page(shop, folder)
    text = answer.text
    assert answer.status_code == 200
    for words in (
        "12.3 %", "1,234,567", "store → direct mail", "7.1 %", "failed search", "50.0 %", "Weekly families", "345.60",
        "Simulated shoppers", "is left unmended most often: 4 people met it 5 times", "12.0 hours", "By behaviour",
        "Looks at night, buys on Sundays", "20.1", "-10.0 to 50.2", "4,321",
        "How far from the causal effect", "70.0 %", "35.0 %", "What comes after a bad moment", "61.5 %", "12 minutes",
    ):  # fmt: skip
        assert words in text, words
    assert "</script><b>" not in text
    embedded = re.search(r'<script type="application/json" id="overview">(.*?)</script>', text, re.DOTALL)
    assert embedded is not None
    assert json.loads(embedded.group(1)) == json.loads(msgspec.json.encode(OVERVIEW))
    assert "'unsafe-inline'" not in answer.headers["content-security-policy"].split("style-src")[0]


@pytest.mark.parametrize("content", [b"{", b'{"retailer": 3}', b""])
def test_a_broken_overview_is_said_to_be_broken(shop: Shop, folder: pathlib.Path, content: bytes) -> None:
    (folder / OVERVIEW_FILE).write_bytes(content)
    answer = page(shop, folder)
    assert answer.status_code == 200
    assert "cannot be read" in answer.text


def test_nothing_published_yet(shop: Shop, folder: pathlib.Path) -> None:
    assert "Nothing is published yet" in page(shop, folder).text


def test_the_plotting_library_comes_from_this_server(client: TestClient) -> None:
    answer = client.get("/static/plotly.min.js")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/javascript")
    assert len(answer.content) > 1_000_000


def test_one_customers_timeline_holds_what_just_happened(client: TestClient) -> None:
    nothing = event("t0", "1003", action="search", query="red scarf", detail={"results": 0}, session_id="now")
    cart = event("t1", "1003", action="add_to_cart", session_id="now")
    assert client.post("/v1/events", json=[nothing, cart]).json()["accepted"] == 2
    text = client.get("/continuum/customer", params={"customer_id": "1003"}).text
    assert "add to cart" in text
    assert "purchase" in text
    assert "failed search" in text
    assert "want to buy" in text
    assert "What we would show now" in text
    assert "Nothing is known" in client.get("/continuum/customer", params={"customer_id": "nobody"}).text
    assert client.get("/continuum/customer").status_code == 200
    assert client.get("/continuum/customer", params={"customer_id": "x" * 300}).status_code == 422
    attack = client.get("/continuum/customer", params={"customer_id": "<script>alert(1)</script>"})
    assert "<script>alert" not in attack.text


def test_what_is_expected_of_a_customer(shop: Shop, folder: pathlib.Path) -> None:
    expected = {
        "customers": np.array(["1003", "1005"]), "churn": np.array([0.25, 0.5], np.float32),
        "value": np.array([12.5, 99.0], np.float32), "churn_days": 28.0, "value_days": 91.0,
        "as_of_us": int(NOW.timestamp() * 1_000_000),
    }  # fmt: skip
    np.savez(folder / "customers.npz", **expected)
    with serving(shop, overview=folder) as (client, _):
        text = client.get("/continuum/customer", params={"customer_id": "1003"}).text
        assert "25.0 %" in text
        assert "12.50" in text
        assert "What we expect" not in client.get("/continuum/customer?customer_id=1004").text
        np.savez(folder / "customers.npz", **{**expected, "churn": np.array([0.75, 0.5], np.float32)})
        assert "75.0 %" in client.get("/continuum/customer?customer_id=1003").text
        np.savez(folder / "customers.npz", **{**expected, "churn": np.array([0.75])})
        assert "cannot be used" in client.get("/continuum/customer?customer_id=1003").text
        (folder / "customers.npz").unlink()
        assert "What we expect" not in client.get("/continuum/customer?customer_id=1003").text


def test_what_comes_next_and_what_to_do_about_it(shop: Shop, folder: pathlib.Path) -> None:
    nothing = np.full(2, np.nan, np.float32)
    said = {
        **dict.fromkeys(PREDICTION_COLUMNS, nothing), "customers": np.array(["1003", "1005"]),
        "p_rfm": np.array([1.0, np.nan], np.float32), "p_behaviour": np.array([1.0, np.nan], np.float32),
        "p_visit_days": np.array([2.5, np.nan], np.float32), "p_visit_soon": np.array([0.61, 0.02], np.float32),
        "p_visit_soon_days": np.full(2, 7.0, np.float32), "p_channel_app": np.array([0.7, 0.1], np.float32),
        "p_channel_web": np.array([0.3, 0.2], np.float32), "p_uplift_email": np.array([0.031, np.nan], np.float32),
        "seen_us": np.array([-1, -1]), "as_of_us": int(NOW.timestamp() * 1_000_000),
        "behaviour_names": np.array(["asleep at sea", "high <app>"]), "taste_names": np.array([], np.str_),
    }  # fmt: skip
    np.savez(folder / "outlook.npz", **said)
    contact = Action(
        action_id=action_id("1003", "recovery", "email", "apology:p1", NOW), customer_id="1003", person="p_1",
        kind="recovery", channel="email", subject="apology:p1", at=NOW, gain=1.25, reason="delay was not <made> good",
        purpose="marketing", made_at=NOW, expires_at=NOW + dt.timedelta(hours=48), simulated=True,
        refused=(Refused(channel="sms", kind="product", subject="p2", reason="unsubscribed from sms"),),
    )  # fmt: skip
    with contextlib.closing(sqlite3.connect(folder / ACTIONS_FILE)) as con:
        con.execute("create table actions (customer_id text primary key, record blob not null)")
        con.execute("insert into actions values ('1003', ?)", (msgspec.json.encode(contact),))
        con.commit()
    with serving(shop, overview=folder) as (client, _):
        text = client.get("/continuum/customer?customer_id=1003").text
        for words in (
            "loyal", "high &lt;app&gt;", "app (70 %)", "61 %", "+3.1 points", "What to do next", "Recovery", "1.25",
            "apology:p1", "delay was not &lt;made&gt; good", "1 other contacts were weighed", "unsubscribed from sms",
        ):  # fmt: skip
            assert words in text, words
        other = client.get("/continuum/customer?customer_id=1005").text
        assert "web (20 %)" in other
        assert "What to do next" not in other
        assert "Segment" not in other
        (folder / ACTIONS_FILE).write_bytes(b"no database at all, but long enough to be opened as one")
        assert "cannot be used" in client.get("/continuum/customer?customer_id=1003").text
        np.savez(folder / "outlook.npz", **{**said, "p_churn": nothing[:1]})
        assert "cannot be used" in client.get("/continuum/customer?customer_id=1003").text


def test_times_are_said_as_people_say_them() -> None:
    assert [span(hours) for hours in (None, 0.0, 0.17, 1.0, 47.9, 48.0, 266.4)] == [
        "–", "at once", "10 minutes", "1.0 hours", "47.9 hours", "2.0 days", "11.1 days",
    ]  # fmt: skip


def test_methods_are_as_far_from_the_cause_as_one_counts() -> None:
    # Last touch gives store 0.9 and mail nothing, the cause gives 0.25 and 0.75; Markov 0.6 and 0.4.
    assert distances(OVERVIEW) == [pytest.approx((0.65 + 0.75) / 2), pytest.approx(0.35), None]
    assert distances(msgspec.structs.replace(OVERVIEW, credits=OVERVIEW.credits[:3])) == []
