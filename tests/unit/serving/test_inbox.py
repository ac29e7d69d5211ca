"""The durable inbox: acknowledged means on disk, once."""

from __future__ import annotations

import pathlib
import sqlite3
import subprocess
import sys
import threading

import pytest

from serving.inbox import last_offset, pending, read_after, read_refused
from serving.inbox import writer as writer_module
from serving.inbox.reader import InboxView
from serving.inbox.schema import InboxError, connect
from serving.inbox.writer import Inbox, Incoming, Refused

RECEIVED = 1_500_000_000_000_000


def incoming(
    number: int, customer: str | None = None, session: str | None = None, index: int = 0
) -> Incoming:
    return Incoming(index, "test", f"e{number}", RECEIVED + number, customer, session, b'{"n":%d}' % number)


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "state" / "inbox.sqlite"


def test_an_inbox_that_does_not_exist_yet_is_empty(path: pathlib.Path) -> None:
    assert (read_after(path, 0, 10), read_refused(path, 0, 10), pending(path, 0), last_offset(path)) == (
        [],
        [],
        0,
        0,
    )
    assert not path.exists()


def test_events_are_read_back_in_order_and_in_pages(path: pathlib.Path) -> None:
    inbox = Inbox(path)
    receipt = inbox.submit(RECEIVED, [incoming(i, index=i) for i in range(5)]).result()
    assert (receipt.accepted, receipt.duplicates) == (5, ())
    first = read_after(path, 0, 3)
    rest = read_after(path, first[-1][0], 10)
    assert [raw for _, _, raw in first + rest] == [b'{"n":%d}' % i for i in range(5)]
    assert first[0][1].isoformat() == "2017-07-14T02:40:00+00:00"
    assert pending(path, first[-1][0]) == 2
    assert last_offset(path) == receipt.offset == rest[-1][0]
    inbox.close()


def test_a_repeated_event_changes_nothing(path: pathlib.Path) -> None:
    inbox = Inbox(path)
    inbox.submit(RECEIVED, [incoming(1)]).result()
    receipt = inbox.submit(
        RECEIVED, [incoming(1, index=0), incoming(2, index=1), incoming(2, index=2)]
    ).result()
    assert (receipt.accepted, receipt.duplicates) == (1, (0, 2))
    inbox.close()
    assert pending(path, 0) == 2


def test_refused_events_are_kept_within_bounds(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "REFUSED_KEPT", 3)
    monkeypatch.setattr(writer_module, "REFUSED_BYTES", 4)
    inbox = Inbox(path)
    for number in range(5):
        inbox.submit(RECEIVED, [], [Refused(number, "action", "no such action", b"0123456789")]).result()
    inbox.close()
    kept = read_refused(path, 0, 10)
    assert [row[2] for row in kept] == [2, 3, 4]
    assert kept[0][3:] == ("action", "no such action", b"0123")


def test_many_senders_share_commits_and_every_event_is_stored_once(path: pathlib.Path) -> None:
    inbox = Inbox(path)
    accepted = []

    def send(sender: int) -> None:
        futures = [inbox.submit(RECEIVED, [incoming(k) for k in range(i, i + 5)]) for i in range(sender, 60)]
        accepted.append(sum(future.result().accepted for future in futures))

    threads = [threading.Thread(target=send, args=(s,)) for s in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    inbox.close()
    assert sum(accepted) == pending(path, 0) == 64


def test_commits_are_reported_with_their_latest_event(path: pathlib.Path) -> None:
    seen: list[int] = []
    inbox = Inbox(path, on_commit=seen.append)
    inbox.submit(RECEIVED, [incoming(7), incoming(3)]).result()
    inbox.close()
    assert seen == [RECEIVED + 7]


def test_a_full_store_acknowledges_nothing_and_recovers(path: pathlib.Path) -> None:
    inbox = Inbox(path, max_bytes=120_000)
    stored, words = 0, ""
    while not words:
        big = Incoming(0, "test", f"big{stored}", RECEIVED, None, None, b"x" * 8_000)
        try:
            stored += inbox.submit(RECEIVED, [big]).result().accepted
        except InboxError as error:
            words = str(error)
    assert "full" in words
    assert 0 < stored == pending(path, 0)
    inbox.close()
    roomy = Inbox(path)
    assert roomy.submit(RECEIVED, [incoming(1)]).result().accepted == 1
    roomy.close()


def test_a_failed_batch_does_not_poison_the_next(path: pathlib.Path) -> None:
    inbox = Inbox(path, max_bytes=120_000)
    huge = [Incoming(i, "test", f"h{i}", RECEIVED, None, None, b"x" * 50_000) for i in range(10)]
    with pytest.raises(InboxError):
        inbox.submit(RECEIVED, huge).result()
    assert inbox.submit(RECEIVED, [incoming(1)]).result().accepted == 1
    inbox.close()
    assert pending(path, 0) == 1


def test_a_store_locked_by_another_process_refuses_and_recovers(path: pathlib.Path) -> None:
    inbox = Inbox(path, busy_seconds=0.05)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(InboxError, match="locked"):
        inbox.submit(RECEIVED, [incoming(1)]).result()
    other.execute("ROLLBACK")
    other.close()
    assert inbox.submit(RECEIVED, [incoming(1)]).result().accepted == 1
    inbox.close()


def test_a_disk_without_room_refuses_with_reason(path: pathlib.Path) -> None:
    """A real write limit of the process: SQLite's files cannot grow beyond it."""
    script = f"""
import pathlib, resource
from serving.inbox.writer import Inbox, Incoming
from serving.inbox.schema import InboxError
inbox = Inbox(pathlib.Path({str(path)!r}))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
stored = 0
try:
    for number in range(1000):
        event = Incoming(0, "test", f"e{{number}}", 1, None, None, b"x" * 5000)
        stored += inbox.submit(1, [event]).result().accepted
except InboxError as error:
    print(stored, error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    stored, _, words = done.stdout.strip().partition(" ")
    assert "event store" in words
    assert int(stored) == pending(path, 0) > 0


def test_a_waiting_line_is_bounded(path: pathlib.Path) -> None:
    inbox = Inbox(path, queue_limit=1, busy_seconds=5)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    futures, words = [], ""
    while not words:
        try:
            futures.append(inbox.submit(RECEIVED, [incoming(len(futures))]))
        except InboxError as error:
            words = str(error)
    assert "waiting" in words
    other.execute("ROLLBACK")
    other.close()
    assert all(future.result().accepted == 1 for future in futures)
    inbox.close()
    with pytest.raises(InboxError, match="closing"):
        inbox.submit(RECEIVED, [incoming(1)])


def test_an_inbox_of_a_newer_version_is_left_alone(path: pathlib.Path) -> None:
    connection = connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(InboxError, match="version 99"):
        Inbox(path)


def test_a_file_that_is_no_inbox_is_refused(path: pathlib.Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(InboxError):
        Inbox(path)
    with pytest.raises(InboxError):
        read_after(path, 0, 1)


def test_views_find_a_customers_and_a_sessions_own_events(path: pathlib.Path) -> None:
    inbox = Inbox(path)
    batch = [
        incoming(1, "ann"),
        incoming(2, "bob", "s"),
        incoming(3, None, "s"),
        incoming(4, "ann", "s"),
    ]
    inbox.submit(RECEIVED, batch).result()
    view = InboxView(path)
    assert [raw for _, raw in view.of_customer("ann", 0)] == [b'{"n":1}', b'{"n":4}']
    assert [raw for _, raw in view.of_customer("ann", 1)] == [b'{"n":4}']
    assert [raw for _, raw in view.of_session("s", 0)] == [b'{"n":3}']
    assert view.latest_us() == RECEIVED + 4
    inbox.submit(RECEIVED, [incoming(9, "ann")]).result()
    assert len(view.of_customer("ann", 0)) == 3
    inbox.close()
