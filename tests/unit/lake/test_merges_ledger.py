"""Merges can be undone: the former mapping comes back byte for byte, and rules of people outlive re-runs."""

import pathlib
import random

import pyarrow as pa
import pytest

from orchestration.lake import merges, tables, writing
from orchestration.lake.identity import stitch, stitch_lake
from orchestration.lake.identity_tables import EVENT_PERSONS, LINKS
from orchestration.lake.merges import MergeError, Proposal
from orchestration.lake.tables import TABLES
from tests.unit.lake.identity_toys import Stream

A, B, C = ("customer", "a"), ("customer", "b"), ("email_sha256", "c")


def shop(tmp_path: pathlib.Path, stream: Stream, batch: int = 1) -> pathlib.Path:
    rows = pa.Table.from_pylist(stream.rows, schema=tables.EVENTS)
    writing.append_once(TABLES["events"], tmp_path, rows, "test", batch)
    return tmp_path


def three() -> Stream:
    stream = Stream()
    stream.add(0, "customer:a device:d1")
    stream.add(1, "customer:b device:d2")
    stream.add(2, "email_sha256:c")
    stream.add(3, "device:d1", session="x")
    return stream


def mapping(lake: pathlib.Path) -> bytes:
    """Links and the persons of events, as bytes."""
    from deltalake import DeltaTable

    sink = pa.BufferOutputStream()
    for table in (LINKS, EVENT_PERSONS):
        rows = DeltaTable(str(table.path(lake))).to_pyarrow_table().combine_chunks()
        rows = rows.sort_by([(name, "ascending") for name in table.schema.names[:2]]).cast(table.schema)
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(rows.combine_chunks())
    return bytes(sink.getvalue())


def person(lake: pathlib.Path, name: merges.Identifier) -> str | None:
    from deltalake import DeltaTable

    rows = DeltaTable(str(LINKS.path(lake))).to_pyarrow_table().to_pylist()
    return next(row["person_id"] for row in rows if (row["kind"], row["value"]) == name)


def test_a_merge_joins_and_its_undo_restores_every_byte(tmp_path: pathlib.Path) -> None:
    lake = shop(tmp_path, three())
    stitch_lake(lake)
    before = mapping(lake)
    (entry,) = merges.merge(lake, [Proposal(A, C, {"seen": "a letter"}, 0.98)], "manual", "anna")
    stitch_lake(lake)
    assert person(lake, A) == person(lake, C)
    assert mapping(lake) != before
    merges.undo(lake, entry.entry_id, "wrong person", "anna")
    stitch_lake(lake)
    assert mapping(lake) == before


def test_undoing_any_of_many_merges_in_any_order_restores_the_former_states(tmp_path: pathlib.Path) -> None:
    stream = Stream()
    for i in range(12):
        stream.add(i, f"customer:c{i} device:d{i}")
    lake = shop(tmp_path, stream)
    stitch_lake(lake)
    states = [mapping(lake)]
    draw = random.Random(5)
    entries = []
    for _ in range(5):
        i, j = draw.sample(range(12), 2)
        entries += merges.merge(lake, [Proposal(("customer", f"c{i}"), ("customer", f"c{j}"))])
        stitch_lake(lake)
        states.append(mapping(lake))
    for number in range(len(entries) - 1, -1, -1):
        merges.undo(lake, entries[number].entry_id)
        stitch_lake(lake)
        assert mapping(lake) == states[number]


def test_cycles_of_merges_are_one_person_and_come_apart_again(tmp_path: pathlib.Path) -> None:
    lake = shop(tmp_path, three())
    stitch_lake(lake)
    before = mapping(lake)
    entries = merges.merge(lake, [Proposal(A, B), Proposal(B, C), Proposal(C, A)])
    assert len(entries) == 3
    stitch_lake(lake)
    assert person(lake, A) == person(lake, B) == person(lake, C)
    merges.undo(lake, entries[0].entry_id)
    stitch_lake(lake)
    assert person(lake, A) == person(lake, B) == person(lake, C)  # The other two still hold.
    merges.undo(lake, entries[1].entry_id)
    merges.undo(lake, entries[2].entry_id)
    stitch_lake(lake)
    assert mapping(lake) == before


def test_a_merge_that_events_imply_is_recorded_with_evidence_and_can_be_undone(
    tmp_path: pathlib.Path,
) -> None:
    stream = three()
    lake = shop(tmp_path, stream)
    stitch_lake(lake)
    former = {name: person(lake, name) for name in (A, B, C, ("device", "d1"))}
    later = Stream()
    later.rows = [dict(row) for row in stream.rows]
    later.add(100, "customer:a email_sha256:c")
    later.add(101, "customer:b email_sha256:c")
    later.rows = later.rows[len(stream.rows) :]
    shop(tmp_path, later, batch=2)
    assert stitch_lake(lake).merged == 2
    assert person(lake, A) == person(lake, B) == person(lake, C) == former[A]
    found = {(e.left, e.right): e for e in merges.read_ledger(lake)}
    entry = found[(A, B)]
    assert entry.reason == "deterministic"
    assert entry.evidence["seen_together"][0]["kind"] == "email_sha256"
    merges.undo(lake, entry.entry_id, "two people, one mailbox")
    again = stitch_lake(lake)
    assert again.merged == 0
    assert person(lake, B) == former[B]
    assert person(lake, A) == person(lake, C) == former[A]
    assert stitch_lake(lake).merged == 0


def test_never_merge_rules_survive_reruns_and_stronger_evidence(tmp_path: pathlib.Path) -> None:
    stream = Stream()
    stream.add(0, "customer:a email_sha256:c")
    stream.add(1, "customer:b email_sha256:c")
    lake = shop(tmp_path, stream)
    rule = merges.never(lake, A, B, "sisters")
    assert merges.never(lake, B, A, "again").entry_id == rule.entry_id
    for _ in range(3):
        done = stitch_lake(lake)
        assert done.refused == 1
        assert person(lake, A) == person(lake, C) != person(lake, B)
    merges.merge(lake, [Proposal(A, B)], "probabilistic", "splink")
    stitch_lake(lake)
    assert person(lake, A) != person(lake, B)
    merges.undo(lake, rule.entry_id)
    stitch_lake(lake)
    assert person(lake, A) == person(lake, B)


def test_what_a_person_took_back_is_not_merged_by_a_machine_again(tmp_path: pathlib.Path) -> None:
    lake = shop(tmp_path, three())
    (entry,) = merges.merge(lake, [Proposal(A, C)], "probabilistic", "splink")
    merges.undo(lake, entry.entry_id)
    assert merges.merge(lake, [Proposal(C, A)], "probabilistic", "splink") == []
    assert len(merges.merge(lake, [Proposal(C, A)], "manual", "anna")) == 1
    assert merges.merge(lake, [Proposal(C, A)], "manual", "anna") == []


def test_a_run_that_is_repeated_writes_the_same_bytes(tmp_path: pathlib.Path) -> None:
    lake = shop(tmp_path, three())
    first = stitch_lake(lake)
    before = mapping(lake)
    assert stitch_lake(lake) == first
    assert mapping(lake) == before


def test_mistakes_are_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(MergeError, match="both sides are customer 'a'"):
        merges.merge(tmp_path, [Proposal(A, A)])
    with pytest.raises(MergeError, match="reason is 'whim'; expected one of"):
        merges.merge(tmp_path, [Proposal(A, B)], "whim")
    with pytest.raises(MergeError, match="expected the entry_id"):
        merges.undo(tmp_path, "m_unknown")
    (entry,) = merges.merge(tmp_path, [Proposal(A, B)])
    merges.undo(tmp_path, entry.entry_id)
    with pytest.raises(MergeError, match="taken back before"):
        merges.undo(tmp_path, entry.entry_id)


def test_merges_of_identifiers_that_no_event_names_wait(tmp_path: pathlib.Path) -> None:
    (entry,) = merges.merge(tmp_path, [Proposal(A, ("customer", "later"))])
    stream = three()
    alone = stitch(stream.open(), ledger=[entry])
    stream.add(9, "customer:later")
    joined = stitch(stream.open(), ledger=[entry], anchors=alone.anchors)
    assert joined.person_of("customer", "later") == alone.person_of(*A)
