"""Channel graph, path entropy and time between moments, counted by hand."""

import datetime as dt
import math

import pyarrow as pa
import pytest

from orchestration.lake import journeys
from orchestration.lake.attribution import Path
from orchestration.lake.moments import MOMENTS_TABLE

START = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)


def test_the_ways_to_a_purchase_and_how_alike_they_are():
    shape = journeys.path_shape(
        [Path(("a",), 2, 5), Path(("a", "b"), 1), Path(("b",), 1), Path(("c",), 0, 9)]
    )
    assert (shape.purchases, shape.paths, shape.commonest, shape.commonest_share) == (4, 3, ("a",), 0.5)
    assert shape.entropy_bits == pytest.approx(1.5)
    assert shape.evenness == pytest.approx(1.5 / math.log2(4))
    assert journeys.path_shape([Path(("a",), 3)]).evenness == 0
    assert journeys.path_shape([Path(("a",), 0, 1)]).purchases == 0


def test_moves_between_channels():
    rows = [
        ("ann", 0, "email", "click"), ("ann", 1, "web", "visit"), ("ann", 2, "web", "view"),
        ("ann", 2.5, "social", "impression"), ("ann", 4, "store", "purchase"),
        ("bob", 0, "email", "open"), ("bob", 5, "web", "visit"), ("bob", 24 * 50, "store", "purchase"),
        ("cat", 0, "email", "open"), ("cat", 0, "app", "visit"), (None, 0, "web", "visit"),
    ]  # fmt: skip
    table = pa.table(
        {
            "customer_id": pa.array([row[0] for row in rows], pa.string()),
            "occurred_at": pa.array([START + dt.timedelta(hours=row[1]) for row in rows], pa.timestamp("us", "UTC")),
            "source": ["s"] * len(rows), "event_id": [f"e{n:02}" for n in range(len(rows))],
            "channel": [row[2] for row in rows], "action": [row[3] for row in rows],
        }
    )  # fmt: skip
    graph = journeys.channel_graph(table).to_pylist()
    assert [(r["from_channel"], r["to_channel"], r["moves"], r["people"], r["median_hours"]) for r in graph] == [
        ("email", "web", 2, 2, 3.0), ("email", "app", 1, 1, 0.0), ("web", "store", 1, 1, 2.0),
    ]  # fmt: skip
    assert [r["share"] for r in graph] == pytest.approx([2 / 3, 1 / 3, 1])


def test_time_from_moment_to_moment():
    rows = [
        ("ann", "error", 0),
        ("ann", "complaint", 4),
        ("bob", "error", 1),
        ("bob", "complaint", 3),
        ("ann", "error", 9),
    ]
    table = pa.Table.from_pylist(
        [
            {
                "person_id": p,
                "kind": k,
                "occurred_at": START + dt.timedelta(hours=h),
                "source": "s",
                "event_id": str(n),
            }
            for n, (p, k, h) in enumerate(rows)
        ],
        schema=MOMENTS_TABLE,
    )
    answer = journeys.time_between_moments(table).to_pylist()
    assert [(r["from_kind"], r["to_kind"], r["count"], r["median_hours"]) for r in answer] == [
        ("error", "complaint", 2, 3.0), ("complaint", "error", 1, 5.0),
    ]  # fmt: skip
