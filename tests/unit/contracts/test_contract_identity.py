"""Tombstones: they recognise who was erased, tell nobody who it was, and never fail open."""

import json
import pathlib

import pytest

from contracts.identity import (
    FORMAT,
    TombstoneContent,
    TombstoneError,
    Tombstones,
    TombstoneWatch,
    person_id,
    read_tombstones,
)
from serving.inbox.schema import InboxError
from serving.inbox.writer import Inbox, Incoming, Refused

SALT = bytes(range(32))


def write(path: pathlib.Path, tombstones: Tombstones) -> None:
    import msgspec

    content = TombstoneContent(FORMAT, tombstones.salt.hex(), tuple(sorted(tombstones.digests)))
    path.write_bytes(msgspec.json.encode(content))


def erased(*pairs: tuple[str, str]) -> Tombstones:
    plain = Tombstones(SALT)
    return Tombstones(SALT, [plain.of_identifier(*pair) for pair in pairs])


def test_an_event_is_held_back_by_any_erased_name() -> None:
    gone = erased(("customer", "a"), ("device", "d"))
    assert gone.holds([("customer", "a")], "web", "1")
    assert gone.holds([("cookie", "c"), ("device", "d")], "web", "1")
    assert not gone.holds([("customer", "b")], "web", "1")
    assert not gone.holds([("device", "a")], "web", "1")
    assert not Tombstones(SALT).holds([("customer", "a")], "web", "1")


def test_a_strong_name_decides_over_a_device_that_changed_hands() -> None:
    gone = erased(("customer", "a"), ("device", "d"))
    assert not gone.holds([("customer", "b"), ("device", "d")], "web", "1")
    assert gone.holds([("customer", "b"), ("customer", "a")], "web", "1")


def test_an_event_without_a_name_of_its_own_is_known_by_its_key() -> None:
    plain = Tombstones(SALT)
    gone = Tombstones(SALT, [plain.of_event("web", "1")])
    assert gone.holds([], "web", "1")
    assert not gone.holds([], "web", "11")
    assert not gone.holds([], "we", "b1")


def test_the_file_holds_no_name_and_another_salt_gives_other_digests(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "t.json", erased(("customer", "anna-lindgren")))
    assert b"anna" not in (tmp_path / "t.json").read_bytes()
    other = Tombstones(b"x" * 32)
    assert other.of_identifier("customer", "a") != Tombstones(SALT).of_identifier("customer", "a")


def test_what_was_refused_is_recognised_as_far_as_it_can_be_read() -> None:
    gone = erased(("customer", "a"))
    assert gone.mentioned(
        json.dumps({"identifiers": [{"kind": "customer", "value": "a"}], "action": 7}).encode()
    )
    for raw in (b"", b"[", b"[1]", b'{"identifiers": 3}', b'{"identifiers": [3, {"kind": 1}]}', b"\xff"):
        assert not gone.mentioned(raw)


def test_a_watch_sees_every_change(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "t.json"
    watch = TombstoneWatch(path)
    assert watch.current() is None
    write(path, erased(("customer", "a")))
    first = watch.current()
    assert first is not None
    assert watch.current() is first
    write(path, erased(("customer", "a"), ("customer", "b")))
    assert len(watch.current() or ()) == 2
    path.unlink()
    assert watch.current() is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"format": 1, "salt": "zz", "digests": []}', b'{"format": 2, "salt": "00", "digests": []}'],
)
def test_damaged_tombstones_close_the_door_instead_of_opening_it(
    tmp_path: pathlib.Path, content: bytes
) -> None:
    path = tmp_path / "tombstones.json"
    path.write_bytes(content)
    with pytest.raises(TombstoneError, match="tombstones"):
        read_tombstones(path)
    inbox = Inbox(tmp_path / "inbox.sqlite")
    event = Incoming(0, "web", "1", 1, "a", None, b"{}", (("customer", "a"),))
    with pytest.raises(InboxError, match="tombstones"):
        inbox.submit(1, [event]).result(timeout=20)
    path.unlink()
    assert inbox.submit(1, [event]).result(timeout=20).accepted == 1
    inbox.close()


def test_the_inbox_neither_stores_nor_refuses_erased_persons(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "tombstones.json", erased(("customer", "a")))
    inbox = Inbox(tmp_path / "inbox.sqlite")
    gone = Incoming(0, "web", "1", 1, "a", None, b"{}", (("customer", "a"),))
    kept = Incoming(1, "web", "2", 1, "b", None, b"{}", (("customer", "b"),))
    refused = Refused(2, "action", "wrong", b'{"identifiers": [{"kind": "customer", "value": "a"}]}')
    receipt = inbox.submit(1, [gone, kept], [refused]).result(timeout=20)
    inbox.close()
    assert (receipt.accepted, receipt.duplicates, receipt.erased) == (1, (0,), 1)
    from serving.inbox.reader import read_after, read_refused

    assert len(read_after(tmp_path / "inbox.sqlite", 0, 9)) == 1
    assert read_refused(tmp_path / "inbox.sqlite", 0, 9) == []


def test_persons_have_names_of_their_own() -> None:
    names = {
        person_id("customer", "a"),
        person_id("customer", "a", 1),
        person_id("device", "a"),
        person_id("customer", "b"),
    }
    assert len(names) == 4
    assert all(name.startswith("p_") and len(name) == 22 for name in names)
