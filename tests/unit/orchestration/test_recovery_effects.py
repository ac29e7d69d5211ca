"""Effects of answers from trials whose truth is known, and time to recovery case by case."""

import datetime as dt
import json

import numpy as np
import pyarrow as pa
import pytest

from orchestration.lake import tables
from orchestration.lake.moments import MOMENTS_TABLE, detect
from orchestration.lake.recovery import recovery_effects, recovery_trials

START = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)


def test_effects_come_near_the_truth_and_few_trials_say_little():
    rng = np.random.default_rng(4)
    truth = {"none": 0.2, "apology": 0.35, "support": 0.15}
    moments, events = [], []
    for number in range(6000):
        action = list(truth)[number % 3]
        moments.append({"person_id": f"p{number}", "kind": "delay", "occurred_at": START,
                        "recovered_at": START + dt.timedelta(days=2) if rng.random() < truth[action] else None})  # fmt: skip
        events.append({"customer_id": f"p{number}", "occurred_at": START + dt.timedelta(hours=1),
                       "detail": json.dumps({"recovery": action})})  # fmt: skip
    trials = recovery_trials(
        pa.Table.from_pylist(moments, schema=MOMENTS_TABLE),
        pa.Table.from_pylist(events, schema=tables.EVENTS),
    )
    assert [(r["action"], r["trials"]) for r in trials.to_pylist()] == [
        ("apology", 2000), ("none", 2000), ("support", 2000),
    ]  # fmt: skip
    found = {effect.action: effect for effect in recovery_effects(trials)}
    assert found["apology"].effect == pytest.approx(0.15, abs=0.03)
    assert found["support"].effect == pytest.approx(-0.05, abs=0.03)
    assert found["apology"].low < 0.15 < found["apology"].high
    one = pa.table(
        {"kind": ["delay"] * 2, "action": ["none", "apology"], "trials": [100, 1], "worked": [10, 1]}
    )
    assert recovery_effects(one)[0].effect < 0.15
    assert recovery_effects(one.slice(1)) == []


def test_an_answer_that_came_too_late_or_after_recovery_is_no_trial():
    moments = [
        {"person_id": "ann", "kind": "delay", "occurred_at": START},
        {
            "person_id": "bob",
            "kind": "delay",
            "occurred_at": START,
            "recovered_at": START + dt.timedelta(hours=1),
        },
    ]
    events = [
        {
            "customer_id": "ann",
            "occurred_at": START + dt.timedelta(days=4),
            "detail": '{"recovery": "apology"}',
        },
        {
            "customer_id": "bob",
            "occurred_at": START + dt.timedelta(hours=2),
            "detail": '{"recovery": "apology"}',
        },
    ]
    trials = recovery_trials(
        pa.Table.from_pylist(moments, schema=MOMENTS_TABLE),
        pa.Table.from_pylist(events, schema=tables.EVENTS),
    )
    assert trials.num_rows == 0


def test_a_bad_moment_is_made_good_by_the_persons_next_cart_or_purchase_within_thirty_days():
    rows = [("ann", 0, "error"), ("ann", 0.2, "view"), ("ann", 3, "purchase"), ("bob", 0, "error"),
            ("bob", 31, "add_to_cart"), ("cat", 0, "add_to_cart"), ("cat", 1, "error")]  # fmt: skip
    events = pa.Table.from_pylist(
        [
            {"event_id": f"e{n}", "source": "s", "occurred_at": START + dt.timedelta(days=d), "action": a,
             "channel": "web", "customer_id": p, "detail": "{}"}
            for n, (p, d, a) in enumerate(rows)
        ],
        schema=tables.EVENTS,
    )  # fmt: skip
    _, moments = detect(events)
    back = {r["person_id"]: r["recovered_at"] for r in moments.to_pylist() if r["kind"] == "error"}
    assert back == {"ann": START + dt.timedelta(days=3), "bob": None, "cat": None}
