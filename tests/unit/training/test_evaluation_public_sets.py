"""Public text layouts: told apart, read exactly, and refused with file, line and expectation."""

from __future__ import annotations

import gzip
import pathlib

import numpy as np
import pytest

from training.evaluation.protocol import (
    Requests,
    answer,
    best_items,
    judge,
    make_task,
    ndcg_of_ranks,
    ranks,
    without_items,
)
from training.evaluation.public_sets import (
    Lists,
    PublicSetError,
    detect,
    lists_of,
    open_set,
    prefixes_of,
    read_set,
)

USERS = "1 10 20 30 40\n\n2 20 50 10\n7 30 20\n"
EVENTS = "SessionId\tItemId\tTime\n9\t5\t200.0\n3\t6\t101.5\n3\t5\t100\n9\t7\t300\n"


def write(path: pathlib.Path, text: str) -> pathlib.Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_the_four_layouts_are_told_apart(tmp_path: pathlib.Path) -> None:
    for name, text in (
        ("users", USERS), ("sessions", "1 2\n1 3 4\n5\n"), ("prefixes", "1 2\t3\n1\t2\n"), ("events", EVENTS),
    ):  # fmt: skip
        assert detect(write(tmp_path / f"{name}.txt", text)) == name
        assert detect(write(tmp_path / f"{name}.txt.gz", text)) == name


def test_leave_one_out_holds_out_the_last_two_items(tmp_path: pathlib.Path) -> None:
    data = read_set("toy", write(tmp_path / "toy.txt", USERS))
    assert data.raw.tolist() == [-1, 10, 20, 30, 40, 50]
    task = make_task(data)
    assert [task.train[row].tolist() for row in range(3)] == [[1, 2], [2], [3, 2]]
    assert task.validation.targets.tolist() == [3, 5]
    assert [task.test.histories[row].tolist() for row in range(2)] == [[1, 2, 3], [2, 5]]
    assert task.test.targets.tolist() == [4, 1]
    assert (task.k, task.facts["users_not_asked"]) == (10, 1)
    changed = make_task(read_set("toy", write(tmp_path / "other.txt", USERS.replace("40", "41"))))
    assert task.split != changed.split
    assert task.split == make_task(read_set("named otherwise", write(tmp_path / "b.gz", USERS))).split


def test_sessions_are_asked_after_every_item(tmp_path: pathlib.Path) -> None:
    train = write(tmp_path / "shop-train.txt", "1 2\n" * 15 + "2 3 1\n" * 5)
    write(tmp_path / "shop-test.txt", "1 2\t3\n1\t2\n8 1\t9\n")
    task = make_task(open_set(str(train), None))
    assert task.test.targets.tolist() == [3, 2, 0]
    assert task.test.histories[2].tolist() == [0, 1]
    assert task.facts["targets_not_in_training"] == 1
    assert (len(task.train), len(task.full), len(task.validation), task.k) == (18, 20, 4, 20)


def test_sessions_without_a_test_file_are_cut_by_order(tmp_path: pathlib.Path) -> None:
    task = make_task(read_set("toy", write(tmp_path / "only.txt", "1 2\n" * 18 + "1 2 3\n" * 2)))
    assert (len(task.full), len(task.test)) == (18, 4)


def test_events_are_put_in_order_of_time(tmp_path: pathlib.Path) -> None:
    data = read_set("toy", write(tmp_path / "e.tsv", EVENTS))
    assert [data.raw[data.lists[row]].tolist() for row in range(2)] == [[5, 6], [5, 7]]
    assert data.day is not None
    assert data.day.tolist() == [0, 0]


def test_attributes_become_tags(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "toy.json", '{"20": [7, 9], "50": [9], "99": [3]}')
    data = read_set("toy", write(tmp_path / "toy.txt", USERS), attributes=path)
    assert data.tags is not None
    assert data.tags.tolist() == [[0, 0], [0, 0], [2, 3], [0, 0], [0, 0], [3, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"empty; expected lines"),
        ("1 2 3\n2 x 3\n", r":2: 'x'; expected a whole number"),
        ("1 2 3\n2\n", r":2: user 2 has no item"),
        ("1 2 3\n2 -4\n", r":2: '-4'; expected a whole number"),
        ("1 2 3\n2 1,5\n", r":2: '1,5'"),
        ("1 2\n2 3\n", "no user has three items"),
        ("SessionId\tItem\n1\t2\n", r":1: header .*expected SessionId, ItemId and Time"),
        ("SessionId\tItemId\tTime\n1\t2\n", r":2: 2 fields; expected 3"),
        ("SessionId\tItemId\tTime\n1\t2\tnoon\n", r":2: time 'noon'; expected seconds"),
        ("SessionId\tItemId\tTime\n1\t2\tinf\n", r":2: time 'inf'"),
        ("SessionId\tItemId\tTime\n", "only a header"),
        ("1 2\t3\n", "expected the training file"),
        ("1 2\n1 3\n", "leave nothing to learn from"),
    ],
)
def test_bad_files_are_named_with_line_and_expectation(
    tmp_path: pathlib.Path, text: str, message: str
) -> None:
    with pytest.raises(PublicSetError, match=message):
        make_task(read_set("bad", write(tmp_path / "bad.txt", text)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2\t3 4\n", r":1: 2 items after the tab; expected one"),
        ("1\t2\t3\n", r":1: 2 tabs"),
        ("1\t2\n\t3\n", r":2: nothing before or after the tab"),
    ],
)
def test_bad_test_files_too(tmp_path: pathlib.Path, text: str, message: str) -> None:
    train = write(tmp_path / "train.txt", "1 2\n1 3\n")
    with pytest.raises(PublicSetError, match=message):
        read_set("bad", train, write(tmp_path / "test.txt", text))


def test_what_is_no_text_and_what_is_not_there(tmp_path: pathlib.Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe1 2")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(USERS.encode())[:-9])
    for name in ("bytes", "cut.gz"):
        with pytest.raises(PublicSetError, match="expected UTF-8 text"):
            detect(tmp_path / name)
    with pytest.raises(PublicSetError, match="expected a file or one of amazon-beauty"):
        open_set(str(tmp_path / "none.txt"), None)
    with pytest.raises(PublicSetError, match="CONTINUUM_DATA"):
        open_set("amazon-beauty", None)
    users = write(tmp_path / "u.txt", USERS)
    with pytest.raises(PublicSetError, match="names no item"):
        read_set("toy", users, attributes=write(tmp_path / "a.json", '{"99": [1]}'))
    with pytest.raises(PublicSetError, match="expected JSON"):
        read_set("toy", users, attributes=write(tmp_path / "b.json", "[1, 2]"))


def test_answers_leave_out_what_was_seen_and_break_ties_by_id(tmp_path: pathlib.Path) -> None:
    task = make_task(read_set("toy", write(tmp_path / "toy.txt", USERS)))

    def flat(histories: Lists) -> np.ndarray:
        return np.zeros((len(histories), task.size + 1), np.float32)

    found = answer(flat, task.test, filter_seen=True)
    assert found[:, :4].tolist() == [[4, 5, -1, -1], [1, 3, 4, -1]]
    reached = judge(found, task.test.targets, 10)
    assert reached["hr"].tolist() == [1.0, 1.0]
    assert answer(flat, task.test, filter_seen=False)[0, :6].tolist() == [1, 2, 3, 4, 5, -1]


def test_best_items_are_those_of_a_full_sort() -> None:
    scores = np.random.default_rng(0).integers(0, 9, (40, 60)).astype(np.float32)
    wanted = np.argsort(-scores, axis=1, kind="stable")[:, :20]
    assert np.array_equal(best_items(scores.copy(), 20), wanted)


def test_ranks_agree_with_answers(tmp_path: pathlib.Path) -> None:
    task = make_task(read_set("toy", write(tmp_path / "toy.txt", USERS)))
    table = np.random.default_rng(0).random((2, task.size + 1)).astype(np.float32)
    found = answer(lambda histories: table.copy(), task.test, filter_seen=True)
    places = ranks(lambda histories: table.copy(), task.test, filter_seen=True)
    assert [found[row, place - 1] for row, place in enumerate(places)] == task.test.targets.tolist()
    assert ndcg_of_ranks(places, 10) == pytest.approx(judge(found, task.test.targets, 10)["ndcg"].mean())
    seen = Requests(task.test.histories, np.array([1, 2]))
    assert ranks(lambda histories: table.copy(), seen, filter_seen=True).tolist() == [task.size + 1] * 2


def test_a_target_outside_the_catalogue_is_missed() -> None:
    found = np.array([[3, 1, -1], [2, 1, 3]])
    assert judge(found, np.array([0, 3]), 3)["hr"].tolist() == [0.0, 1.0]
    assert judge(found, np.array([0, 3]), 3)["mrr"].tolist() == [0.0, pytest.approx(1 / 3)]
    assert judge(found, np.array([0, 3]), 3)["ndcg"].tolist() == [0.0, pytest.approx(0.5)]


def test_left_out_items_are_in_nothing_that_is_learned_from(tmp_path: pathlib.Path) -> None:
    task = make_task(read_set("toy", write(tmp_path / "toy.txt", USERS)))
    cut = without_items(task, np.array([2, 5]))
    assert [cut.train[row].tolist() for row in range(3)] == [[1], [], [3]]
    assert cut.validation.targets.tolist() == [3]
    assert cut.validation.histories[0].tolist() == [1]
    assert cut.test is task.test


def test_prefixes_of_sessions() -> None:
    prefixes, targets = prefixes_of(lists_of([[1, 2, 3], [4], [5, 6]]))
    assert [prefixes[row].tolist() for row in range(3)] == [[1], [1, 2], [5]]
    assert targets.tolist() == [2, 3, 6]
