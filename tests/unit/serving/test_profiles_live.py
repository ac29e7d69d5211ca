"""Histories: building, cutting, merging; the published snapshot; live profiles."""

from __future__ import annotations

import hashlib
import json
import pathlib
from typing import Any

import numpy as np
import pytest

from contracts.events import ACTIONS, CHANNELS
from serving.inbox.intake import check_events
from serving.inbox.reader import InboxView
from serving.inbox.schema import InboxError
from serving.inbox.writer import Inbox
from serving.profiles.history import (
    empty_history,
    make_history,
    merge_histories,
    session_key,
    to_microseconds,
    to_moment,
)
from serving.profiles.live import Profiles, store_of
from serving.profiles.snapshot import CURRENT, SnapshotError, current_name, read_snapshot

START = 1_512_086_400_000_000  # 2017-12-01
HOUR = 3_600_000_000
VIEW, PURCHASE = ACTIONS.index("view"), ACTIONS.index("purchase")


class Tables:
    """The part of an item table that profiles need."""

    def __init__(self, products: list[str], stores: list[str]) -> None:
        self.index = {key: place for place, key in enumerate(products)}
        self.store_index = {key: place for place, key in enumerate(stores)}

    def lookup(self, product_ids: Any) -> Any:
        return np.array([*(self.index.get(str(p), -1) for p in product_ids), -1], np.int32)

    def lookup_stores(self, stores: Any) -> Any:
        return np.array([*(self.store_index.get(str(s), -1) for s in stores), -1], np.int32)


def write_snapshot(folder: pathlib.Path, name: str = "v1", offset: int = 0, **changes: Any) -> pathlib.Path:
    arrays: dict[str, Any] = {
        "customers": np.array(["ann", "bob"]),
        "offsets": np.array([0, 2, 3], np.int64),
        "at_us": np.array([START, START + HOUR, START], np.int64),
        "product": np.array([1, -1, 0], np.int32),
        "action": np.array([PURCHASE, VIEW, PURCHASE], np.int8),
        "channel": np.full(3, CHANNELS.index("store"), np.int8),
        "session": np.array([5, -1, 6], np.int64),
        "quantity": np.ones(3, np.float32),
        "unit_price": np.ones(3, np.float32),
        "discount": np.zeros(3, np.float32),
        "store": np.array([0, -1, 0], np.int32),
        "products": np.array(["p1", "p2"]),
        "stores": np.array(["330"]),
        **changes,
    }
    (folder / name).mkdir(parents=True)
    np.savez(folder / name / "histories.npz", **{k: v for k, v in arrays.items() if v is not None})
    digest = hashlib.sha256((folder / name / "histories.npz").read_bytes()).hexdigest()
    meta = {
        "format": 1, "retailer": "test", "events_version": 1, "inbox_offset": offset, "customers": 2, "events": 3,
        "newest_us": START + HOUR, "created_at": "2018-01-01T00:00:00Z", "sha256": digest, "years": 5, "limit": 9,
    }  # fmt: skip
    (folder / name / "meta.json").write_text(json.dumps(meta))
    (folder / CURRENT).write_text(name)
    return folder


def send(inbox: Inbox, *events: dict[str, Any]) -> None:
    rows = [
        json.dumps({"source": "t", "channel": "web", "action": "view", "event_id": f"e{i}{e}", **e}).encode()
        for i, e in enumerate(events)
    ]
    now = to_moment(START + 1000 * HOUR)
    good, refused = check_events(rows, now)
    assert refused == []
    inbox.submit(to_microseconds(now), good).result()


def at(hours: float) -> str:
    return to_moment(START + int(hours * HOUR)).isoformat()


CUSTOMER = {"identifiers": [{"kind": "customer", "value": "ann"}]}


def test_a_history_is_ordered_by_time_and_keeps_the_order_of_ties() -> None:
    history = make_history([5, 3, 3], [1, 2, 3], [0, 1, 2], [0, 0, 0])
    assert history.item.tolist() == [2, 3, 1]
    assert len(history.before(5)) == 2
    assert len(history.before(3)) == 0
    assert len(history.before(6)) == 3
    merged = merge_histories([history, make_history([3], [9], [0], [0]), empty_history()])
    assert merged.item.tolist() == [2, 3, 9, 1]
    assert len(merge_histories([])) == 0
    with pytest.raises(ValueError, match="'item' has shape"):
        make_history([1], [1, 2], [0], [0])


def test_session_keys_are_numbers_and_never_collide_with_hashes() -> None:
    assert session_key("31198459") == 31198459
    assert (session_key(None), session_key("")) == (-1, -1)
    assert session_key("007") > 10**18 <= session_key("web-1")
    assert session_key("9" * 18) < 10**18


def test_stores_are_read_from_touchpoints() -> None:
    assert (store_of("store:330"), store_of("home"), store_of("store:"), store_of(None)) == (
        "330",
        None,
        None,
        None,
    )


def test_a_snapshot_is_read_in_the_terms_of_the_release(tmp_path: pathlib.Path) -> None:
    write_snapshot(tmp_path)
    snapshot = read_snapshot(tmp_path, current_name(tmp_path) or "")
    tables = Tables(["p0", "p2"], ["330"])
    history = snapshot.history(
        snapshot.row("ann"), tables.lookup(snapshot.products), tables.lookup_stores(snapshot.stores)
    )
    assert history.item.tolist() == [1, -1]
    assert history.store.tolist() == [0, -1]
    assert snapshot.row("eve") == snapshot.row("zoe") == snapshot.row("") == -1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"at_us": None}, "'at_us' is missing"),
        ({"product": np.array([7, 0, 0], np.int32)}, "outside its table"),
        ({"offsets": np.array([0, 3, 2], np.int64)}, "offsets"),
        ({"offsets": np.array([0, 3], np.int64)}, "offsets"),
        ({"customers": np.array(["bob", "ann"])}, "sorted"),
        ({"quantity": np.ones(2, np.float32)}, "differ in length"),
        ({"action": np.zeros(3, np.int64)}, "expected one row of int8"),
    ],
)
def test_a_damaged_snapshot_says_what_is_wrong(
    tmp_path: pathlib.Path, change: dict[str, Any], words: str
) -> None:
    write_snapshot(tmp_path, **change)
    with pytest.raises(SnapshotError, match=words):
        read_snapshot(tmp_path, "v1")


def test_a_changed_snapshot_is_refused(tmp_path: pathlib.Path) -> None:
    write_snapshot(tmp_path)
    file = tmp_path / "v1" / "histories.npz"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(SnapshotError, match="hash"):
        read_snapshot(tmp_path, "v1")
    with pytest.raises(SnapshotError, match="incomplete"):
        read_snapshot(tmp_path, "v2")
    (tmp_path / CURRENT).write_text("../elsewhere")
    with pytest.raises(SnapshotError, match="folder beside it"):
        current_name(tmp_path)


def test_no_snapshot_is_no_error(tmp_path: pathlib.Path) -> None:
    assert current_name(tmp_path) is None


def test_an_event_is_in_the_profile_as_soon_as_it_is_acknowledged(tmp_path: pathlib.Path) -> None:
    inbox = Inbox(tmp_path / "inbox.sqlite")
    profiles = Profiles(InboxView(tmp_path / "inbox.sqlite"))
    profiles.use_snapshot(read_snapshot(write_snapshot(tmp_path / "profiles"), "v1"))
    tables = Tables(["p0", "p1", "p2"], ["330"])
    assert len(profiles.get(tables, "ann", None).history) == 2
    for count in range(3, 6):
        send(inbox, {**CUSTOMER, "event_id": f"n{count}", "occurred_at": at(count), "product_id": "p0"})
        profile = profiles.get(tables, "ann", None)
        assert len(profile.history) == count
        assert profile.history.item[-1] == 0
    inbox.close()


def test_late_events_take_their_place_in_time(tmp_path: pathlib.Path) -> None:
    inbox = Inbox(tmp_path / "inbox.sqlite")
    profiles = Profiles(InboxView(tmp_path / "inbox.sqlite"))
    profiles.use_snapshot(read_snapshot(write_snapshot(tmp_path / "profiles"), "v1"))
    tables = Tables(["p0", "p1", "p2"], ["330"])
    send(inbox, {**CUSTOMER, "event_id": "b", "occurred_at": at(0.5), "product_id": "p0"})
    send(
        inbox,
        {**CUSTOMER, "event_id": "z", "occurred_at": at(0.2), "product_id": "p1", "touchpoint": "store:330"},
        {**CUSTOMER, "event_id": "a", "occurred_at": at(0.2), "product_id": "p2", "touchpoint": "store:9"},
    )
    history = profiles.get(tables, "ann", None).history
    assert history.item.tolist() == [2, 2, 1, 0, -1]
    assert history.store.tolist() == [0, -1, 0, -1, -1]
    inbox.close()


def test_a_newer_snapshot_replaces_the_tail_it_includes(tmp_path: pathlib.Path) -> None:
    inbox = Inbox(tmp_path / "inbox.sqlite")
    profiles = Profiles(InboxView(tmp_path / "inbox.sqlite"))
    tables = Tables(["p1", "p2"], ["330"])
    send(
        inbox,
        {**CUSTOMER, "event_id": "1", "occurred_at": at(2)},
        {**CUSTOMER, "event_id": "2", "occurred_at": at(3)},
    )
    assert len(profiles.get(tables, "ann", None).history) == 2
    profiles.use_snapshot(read_snapshot(write_snapshot(tmp_path / "profiles", offset=1), "v1"))
    assert len(profiles.get(tables, "ann", None).history) == 3
    inbox.close()


def test_a_release_with_another_item_table_gets_its_own_terms(tmp_path: pathlib.Path) -> None:
    profiles = Profiles(InboxView(tmp_path / "inbox.sqlite"))
    profiles.use_snapshot(read_snapshot(write_snapshot(tmp_path / "profiles"), "v1"))
    assert profiles.get(Tables(["p2"], []), "ann", None).history.item.tolist() == [0, -1]
    assert profiles.get(Tables(["p1", "p2"], []), "ann", None).history.item.tolist() == [1, -1]


def test_sessions_and_customers_meet_but_never_mix(tmp_path: pathlib.Path) -> None:
    inbox = Inbox(tmp_path / "inbox.sqlite")
    profiles = Profiles(InboxView(tmp_path / "inbox.sqlite"))
    tables = Tables(["p1", "p2"], [])
    bob = {"identifiers": [{"kind": "customer", "value": "bob"}]}
    send(
        inbox,
        {"event_id": "1", "occurred_at": at(1), "session_id": "s", "product_id": "p1"},
        {"event_id": "2", "occurred_at": at(2), "session_id": "s", "product_id": "p2", **bob},
        {"event_id": "3", "occurred_at": at(3), "session_id": "other", "product_id": "p2"},
    )
    assert profiles.get(tables, None, "s").history.item.tolist() == [0]
    assert profiles.get(tables, "bob", "s").history.item.tolist() == [0, 1]
    assert profiles.get(tables, "bob", None).history.item.tolist() == [1]
    stranger = profiles.get(tables, "eve", None)
    assert (stranger.known, len(stranger.history)) == (False, 0)
    assert profiles.get(tables, "bob", None).known
    inbox.close()


def test_memory_is_bounded_and_forgetting_loses_nothing(tmp_path: pathlib.Path) -> None:
    inbox = Inbox(tmp_path / "inbox.sqlite")
    profiles = Profiles(InboxView(tmp_path / "inbox.sqlite"), capacity=3)
    tables = Tables(["p1"], [])
    for number in range(10):
        who = {"identifiers": [{"kind": "customer", "value": f"c{number}"}]}
        send(inbox, {"event_id": f"{number}", "occurred_at": at(number), "product_id": "p1", **who})
    for _ in range(2):
        for number in range(10):
            assert len(profiles.get(tables, f"c{number}", None).history) == 1
            assert len(profiles._cache) <= 3
    inbox.close()


def test_a_store_that_cannot_be_read_is_said_and_leaves_nothing_half_merged(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "inbox.sqlite"
    path.write_bytes(b"garbage" * 1000)
    profiles = Profiles(InboxView(path))
    with pytest.raises(InboxError):
        profiles.get(Tables([], []), "ann", None)
    path.unlink()
    assert len(profiles.get(Tables([], []), "ann", None).history) == 0
