"""Stitching: strong identifiers join, shared ones never do, ids stay, whatever the stream brings."""

import datetime as dt
import itertools
import json
import random
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from orchestration.lake.identity import Guards, Stitched, stitch
from tests.unit.lake.identity_toys import Stream, open_rows


def groups(found: Stitched) -> set[frozenset[str]]:
    by_person: dict[str, set[str]] = {}
    for row in found.links.to_pylist():
        if row["person_id"]:
            by_person.setdefault(row["person_id"], set()).add(f"{row['kind']}:{row['value']}")
    return {frozenset(names) for names in by_person.values()}


def ids(found: Stitched) -> dict[str, str | None]:
    return {f"{row['kind']}:{row['value']}": row["person_id"] for row in found.links.to_pylist()}


def persons(found: Stitched) -> dict[str, tuple[str | None, str]]:
    return {row["event_id"]: (row["person_id"], row["how"]) for row in found.events().read_all().to_pylist()}


def test_strong_identifiers_of_one_event_are_one_person_and_devices_follow() -> None:
    stream = Stream()
    before = stream.add(0, "device:d1")
    stream.add(1, "customer:a device:d1")
    stream.add(2, "customer:a email_sha256:e")
    stream.add(3, "email_sha256:e phone_sha256:p")
    stream.add(4, "customer:b device:d2")
    found = stitch(stream.open())
    assert groups(found) == {
        frozenset({"customer:a", "device:d1", "email_sha256:e", "phone_sha256:p"}),
        frozenset({"customer:b", "device:d2"}),
    }
    assert persons(found)[before] == (ids(found)["customer:a"], "device")


def test_a_kiosk_with_a_hundred_logins_merges_nobody() -> None:
    stream = Stream()
    for i in range(100):
        stream.add(i * 10, f"customer:c{i} device:kiosk", session=f"s{i}")
    alone = stream.add(5, "device:kiosk", session="nobody")
    same_visit = stream.add(0.5, "device:kiosk", session="s0")
    found = stitch(stream.open())
    assert len(groups(found)) == 100
    assert ids(found)["device:kiosk"] is None
    where = persons(found)
    assert where[alone] == (None, "unknown")
    assert where[same_visit] == (ids(found)["customer:c0"], "session")


def test_a_kiosk_in_a_shop_is_nobodys_even_with_one_login() -> None:
    stream = Stream()
    stream.add(0, "customer:a device:k", session="s0", touchpoint="kiosk:3")
    other = stream.add(600, "device:k", session="s1", touchpoint="kiosk:3")
    found = stitch(stream.open())
    assert ids(found)["device:k"] is None
    assert persons(found)[other] == (None, "unknown")


def test_a_household_tablet_gives_its_anonymous_events_to_the_login_around_them() -> None:
    stream = Stream()
    stream.add(0, "customer:a device:t", session="s1")
    soon = stream.add(10, "device:t", session="s2")
    far = stream.add(2 * 1440, "device:t", session="s3")
    stream.add(4 * 1440, "customer:b device:t", session="s4")
    between = stream.add(5 * 1440, "device:t", session="s5")
    stream.add(6 * 1440, "customer:b device:t", session="s6")
    found = stitch(stream.open())
    a, b = ids(found)["customer:a"], ids(found)["customer:b"]
    where = persons(found)
    assert ids(found)["device:t"] is None
    assert (where[soon], where[far], where[between]) == ((a, "near"), (None, "unknown"), (b, "near"))


@pytest.mark.parametrize("kind", ["loyalty_card", "phone_sha256"])
def test_a_card_or_landline_of_a_household_joins_nobody(kind: str) -> None:
    stream = Stream()
    stream.add(0, f"customer:a {kind}:shared")
    stream.add(1, f"customer:b {kind}:shared")
    till = stream.add(2, f"{kind}:shared")
    found = stitch(stream.open())
    assert len(groups(found)) == 2
    assert ids(found)[f"{kind}:shared"] is None
    assert persons(found)[till][0] is None


def test_a_second_account_under_one_address_is_the_same_person_but_a_list_address_is_not() -> None:
    stream = Stream()
    stream.add(0, "customer:a email_sha256:e")
    stream.add(1, "customer:b email_sha256:e")
    found = stitch(stream.open())
    assert len(groups(found)) == 1
    assert [(p.left, p.right) for p in found.merged] == [(("customer", "a"), ("customer", "b"))]
    for i in range(5):
        stream.add(2 + i, f"customer:n{i} email_sha256:e")
    assert len(groups(stitch(stream.open()))) == 7


def test_cycles_of_identifiers_end() -> None:
    stream = Stream()
    stream.add(0, "email_sha256:e1 phone_sha256:p1")
    stream.add(1, "phone_sha256:p1 loyalty_card:l1")
    stream.add(2, "loyalty_card:l1 email_sha256:e1")
    assert len(groups(stitch(stream.open()))) == 1


def test_a_bot_is_quarantined_and_reported_and_takes_nobody_along() -> None:
    stream = Stream()
    for i in range(1000):
        stream.add(100 + i / 60_000, "device:bot customer:scraper", session="x")
    for i in range(8):
        stream.add(i, "customer:a device:d", session="s")
    stream.add(9, "customer:a email_sha256:e")
    found = stitch(stream.open())
    bots = {f"{row['kind']}:{row['value']}": row for row in found.bots.to_pylist()}
    assert set(bots) == {"device:bot", "customer:scraper"}
    assert bots["device:bot"]["burst_events"] == 1000
    assert bots["device:bot"]["peak_per_second"] > 900
    assert bots["device:bot"]["quarantined"]
    assert groups(found) == {frozenset({"customer:a", "device:d", "email_sha256:e"})}
    assert {how for person, how in persons(found).values() if person is None} == {"quarantined"}


def test_a_burst_costs_a_real_customer_only_the_burst() -> None:
    stream = Stream()
    for i in range(300):
        stream.add(1440 + i / 10_000, "customer:a device:d", session="script")
    real = [stream.add(i * 60, "customer:a device:d", session=f"s{i}") for i in range(400)]
    found = stitch(stream.open())
    where = persons(found)
    assert not found.bots["quarantined"].to_pylist()[0]
    assert sum(how == "quarantined" for _, how in where.values()) >= 300
    assert all(where[event][1] == "strong" for event in real[:20])


def test_a_basket_of_many_lines_at_one_moment_is_no_burst() -> None:
    stream = Stream()
    for _ in range(500):
        stream.add(5, "loyalty_card:l", session="basket", action="purchase", product_id="x")
    found = stitch(stream.open())
    assert found.bots.num_rows == 0
    assert len(groups(found)) == 1


def test_ids_stay_when_new_and_late_events_come() -> None:
    stream = Stream()
    stream.add(100, "customer:a device:d")
    stream.add(110, "customer:b")
    first = stitch(stream.open())
    stream.add(1, "email_sha256:older")  # Arrives a month late and happened before everything.
    stream.add(120, "customer:a email_sha256:older")
    second = stitch(stream.open(), anchors=first.anchors)
    assert ids(second)["customer:a"] == ids(first)["customer:a"] == ids(second)["email_sha256:older"]
    assert ids(second)["customer:b"] == ids(first)["customer:b"]


def test_a_visitor_who_logs_in_keeps_the_id_and_a_shared_device_gives_it_back() -> None:
    stream = Stream()
    stream.add(0, "device:d", session="s0")
    anonymous = stitch(stream.open())
    stream.add(10, "customer:a device:d", session="s1")
    named = stitch(stream.open(), anchors=anonymous.anchors)
    assert ids(named)["customer:a"] == ids(anonymous)["device:d"]
    stream.add(20, "customer:b device:d", session="s2")
    shared = stitch(stream.open(), anchors=named.anchors)
    assert ids(shared)["device:d"] is None
    assert ids(shared)["customer:a"] == ids(named)["customer:a"]
    assert ids(shared)["customer:b"] not in {None, ids(shared)["customer:a"]}


def test_the_answer_does_not_depend_on_the_order_of_rows() -> None:
    stream = mixed(400, 7)
    wanted = stitch(stream.open())
    order = list(range(len(stream.rows)))
    random.Random(1).shuffle(order)
    found = stitch(stream.open(order))
    assert found.links.equals(wanted.links)
    assert found.anchors.equals(wanted.anchors)
    assert sorted(persons(found).items()) == sorted(persons(wanted).items())


def test_day_by_day_gives_the_same_persons_as_all_at_once() -> None:
    stream = mixed(300, 3)
    anchors = None
    for stop in (100, 200, 300):
        found = stitch(open_rows(stream.rows[:stop]), anchors=anchors)
        anchors = found.anchors
    assert groups(found) == groups(stitch(stream.open()))


def mixed(events: int, seed: int) -> Stream:
    stream, draw = Stream(), random.Random(seed)
    for i in range(events):
        who = draw.randrange(40)
        names = draw.choice(
            [
                f"customer:c{who}", f"device:d{who}", f"customer:c{who} device:d{who}", f"device:home{who // 3}",
                f"customer:c{who} device:home{who // 3}", f"customer:c{who} email_sha256:e{who}", f"email_sha256:e{who}",
                f"loyalty_card:l{who // 2} customer:c{who}", f"cookie:k{who} device:d{who}",
            ]
        )  # fmt: skip
        stream.add(i * 7, names, session=f"s{who}-{i // 20}")
    return stream


pairs = st.lists(
    st.tuples(st.sampled_from(["customer", "email_sha256", "phone_sha256"]), st.integers(0, 6)),
    min_size=1,
    max_size=3,
)


@settings(max_examples=40, deadline=None)
@given(st.lists(pairs, min_size=1, max_size=15))
def test_strong_components_equal_brute_force(events: list[Any]) -> None:
    stream = Stream()
    for i, named in enumerate(events):
        stream.add(i, " ".join(sorted({f"{kind}:{number}" for kind, number in named})))
    found = stitch(stream.open(), Guards(logins={}))
    sets = [frozenset(f"{kind}:{number}" for kind, number in named) for named in events]
    changed = True
    while changed:
        changed = False
        for i, j in itertools.combinations(range(len(sets)), 2):
            if sets[i] & sets[j] and sets[i] != sets[j]:
                sets[i] = sets[j] = sets[i] | sets[j]
                changed = True
    assert groups(found) == set(sets)


def test_nothing_is_stitched_from_nothing() -> None:
    stream = Stream()
    event = stream.add(0, "")
    stream.rows[0]["identifiers"] = None
    found = stitch(stream.open())
    assert found.links.num_rows == 0
    assert persons(found) == {event: (None, "unknown")}


def test_strange_identifiers_are_names_like_others() -> None:
    stream = Stream()
    stream.add(0, "customer:a")
    odd = json.dumps(
        [{"kind": "customer", "value": 'O\'Brien "x" ü\u2028'}, {"kind": "email_sha256", "value": "e"}]
    )
    stream.rows[0]["identifiers"] = odd
    found = stitch(stream.open())
    assert found.person_of("customer", 'O\'Brien "x" ü\u2028') is not None
    assert len(groups(found)) == 1


def test_guards_say_what_they_expect() -> None:
    with pytest.raises(ValueError, match="'burst_second' is 0; expected at least 1"):
        Guards(burst_second=0)
    with pytest.raises(ValueError, match="'bot_share'"):
        Guards(bot_share=np.inf)
    assert Guards().near == dt.timedelta(minutes=30)
