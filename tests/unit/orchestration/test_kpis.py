"""Every KPI against a shop small enough to count by hand."""

import datetime as dt

import ibis
import pyarrow as pa
import pytest

from contracts.retailer import Guard
from orchestration.guarding import ask
from orchestration.lake import moments, sessions, tables
from orchestration.lake.kpis import KPIS, KpiError, Tables, Window, among, measure
from orchestration.lake.trials import TRIALS, TrialError, kpi_by_arm, trials_of

START = dt.datetime(2025, 2, 1, tzinfo=dt.UTC)
WINDOW = Window(START, START + dt.timedelta(days=28))


def at(days: float) -> dt.datetime:
    return START + dt.timedelta(days=days)


def event(number, person, days, action, channel="web", product=None, quantity=None, price=None):
    return {"event_id": f"e{number}", "source": "s", "occurred_at": at(days), "channel": channel, "action": action,
            "product_id": product, "quantity": quantity, "unit_price": price, "person_id": person}  # fmt: skip


@pytest.fixture(scope="module")
def shop() -> Tables:
    events = [
        event(0, "ann", -5, "purchase", "store", "p", 1.0, 10.0),
        event(1, "bob", -4, "purchase", "store", "p", 1.0, 10.0),
        event(2, "ann", 1, "purchase", "web", "p", 2.0, 10.0),
        event(3, "ann", 1, "purchase", "web", "q", 1.0, 40.0),
        event(4, "cat", 2, "purchase", "store", "p", None, 20.0),
        event(5, "bob", 3, "open", "email"),
        event(6, "ann", 3, "click", "email"),
        event(7, "ann", 4, "click", "social"),
        event(8, "cat", 40, "open", "email"),
        event(9, None, 4, "click", "social"),
    ]
    visits = [("s1", "ann", 1, "web", 2), ("s2", "cat", 2, "store", 1), ("s3", "bob", 5, "web", 0),
              ("s4", "bob", 6, "web", 0), ("s5", "bob", 30, "web", 1)]  # fmt: skip
    bad = [("ann", "s1", "error", 1, 2.0), ("bob", "s3", "delay", 5, None), ("bob", "s3", "error", 5, 5.5),
           ("bob", "s4", "want_to_buy", 6, None)]  # fmt: skip
    schema = pa.schema([*tables.EVENTS, pa.field("person_id", pa.string())])
    return Tables(
        events=ibis.memtable(pa.Table.from_pylist(events, schema=schema)),
        sessions=ibis.memtable(
            pa.Table.from_pylist(
                [
                    {"session_id": s, "person_id": p, "started_at": at(d), "ended_at": at(d), "acts": 1,
                     "channels": 1, "first_channel": c, "purchases": n}
                    for s, p, d, c, n in visits
                ],
                schema=sessions.SESSIONS,
            )
        ),
        moments=ibis.memtable(
            pa.Table.from_pylist(
                [
                    {"person_id": p, "session_id": s, "kind": k, "occurred_at": at(d), "channel": "web",
                     "recovered_at": None if r is None else at(r)}
                    for p, s, k, d, r in bad
                ],
                schema=moments.MOMENTS_TABLE,
            )
        ),
        products=ibis.memtable(
            pa.Table.from_pylist(
                [{"product_id": "p", "department": "shoes"}, {"product_id": "q", "department": "bags"}],
                schema=tables.PRODUCTS,
            )
        ),
    )  # fmt: skip


WANTED = {
    "conversion": (2 / 4, 4), "retention": (1 / 2, 2), "value": (40.0, 2), "order_value": (40.0, 2),
    "revenue": (80.0, 3), "moment_quality": (2 / 4, 4), "recovery": (2 / 3, 3), "time_to_recovery": (18.0, 2),
    "reach": (2 / 3, 3), "reached_people": (2.0, 3), "contribution": (1.0, 3),
}  # fmt: skip


def test_every_kpi_is_counted_by_hand_here():
    assert set(WANTED) == set(KPIS)


@pytest.mark.parametrize("name", WANTED)
def test_kpi(shop, name):
    row = measure(name, shop, WINDOW).to_pyarrow().to_pylist()
    assert [(pytest.approx(r["value"]), r["rows"]) for r in row] == [WANTED[name]]


@pytest.mark.parametrize(
    ("name", "by", "wanted"),
    [
        ("contribution", "department", {"bags": 0.5, "shoes": 0.5}),
        ("contribution", "channel", {"store": 0.25, "web": 0.75}),
        ("conversion", "first_channel", {"store": 1.0, "web": 1 / 3}),
        ("recovery", "kind", {"delay": 0.0, "error": 1.0}),
        ("reached_people", "channel", {"email": 2.0, "social": 1.0}),
        ("value", "person_id", {"ann": 60.0, "cat": 20.0}),
        ("moment_quality", "person_id", {"ann": 0.0, "bob": 0.5, "cat": 1.0}),
    ],
)
def test_groups(shop, name, by, wanted):
    rows = measure(name, shop, WINDOW, [by]).to_pyarrow().to_pylist()
    assert {row[by]: row["value"] for row in rows} == pytest.approx(wanted)


def test_a_share_over_nobody_is_unknown_and_not_zero(shop):
    later = Window(at(200), at(228))
    assert measure("conversion", shop, later).to_pyarrow().to_pylist() == [{"value": None, "rows": 0}]


def test_every_group_can_be_asked_for(shop):
    for name, kpi in KPIS.items():
        for group in kpi.groups:
            assert measure(name, shop, WINDOW, [group]).to_pyarrow().num_rows > 0, (name, group)


def test_what_does_not_exist_is_named(shop):
    with pytest.raises(KpiError, match="no KPI 'clicks'"):
        measure("clicks", shop, WINDOW)
    with pytest.raises(KpiError, match="no group 'person_id'"):
        measure("reach", shop, WINDOW, ["person_id"])
    with pytest.raises(KpiError, match="start first"):
        Window(at(1), at(1))


def test_an_arm_of_a_trial_is_measured_as_the_shop_is(shop):
    rows = [("t1", "ann", True), ("t1", "bob", False)]
    trials = ibis.memtable(
        pa.table(
            {
                "trial_id": [row[0] for row in rows], "person_id": [row[1] for row in rows],
                "channel": ["email"] * 2, "treated": [row[2] for row in rows],
                "sent_at": pa.array([START] * 2, tables.TIMESTAMP),
            }
        )
    )  # fmt: skip
    assert kpi_by_arm("conversion", shop, trials, "email") == {"contacted": (1.0, 1), "held out": (0.0, 2)}
    assert kpi_by_arm("value", shop, trials, "email") == {"contacted": (60.0, 1), "held out": (None, 0)}
    whole = measure("value", among(shop, shop.events.select("person_id")), WINDOW).to_pyarrow().to_pylist()
    assert whole == measure("value", shop, WINDOW).to_pyarrow().to_pylist()


def test_trials_without_a_record_are_none_and_broken_ones_are_refused():
    class Source:
        pass

    assert trials_of(Source()).num_rows == 0
    row = {"trial_id": "t", "customer_id": "c", "channel": "fax", "sent_at": START, "treated": True}
    broken = Source()
    broken.trials = lambda: pa.Table.from_pylist([row], schema=TRIALS.schema)
    with pytest.raises(TrialError, match="holds 'fax'"):
        trials_of(broken)
    broken.trials = lambda: pa.Table.from_pylist([{**row, "treated": None}], schema=TRIALS.schema)
    with pytest.raises(TrialError, match="'treated' of trials is null in 1 rows"):
        trials_of(broken)


def test_guards_hold_numbers_against_the_days_before(shop):
    rising = ask(Guard(kpi="value", days=14), shop, at(14))
    assert (rising.before, rising.now, rising.reason) == (10.0, 40.0, "")
    fallen = ask(Guard(kpi="reach", days=20, most_drop=0.5), shop, at(40))
    assert (fallen.before, fallen.now) == (pytest.approx(2 / 3), 0.0)
    assert "reach is worse by 100.0 %" in fallen.reason
    assert "allowed: 50.0 %" in fallen.reason
    gone = ask(Guard(kpi="value", days=20), shop, at(40))
    assert gone.reason == "value has no value in the latest 20 days; before them it was 40"
    assert ask(Guard(kpi="conversion", days=20, most_drop=0.0), shop, at(40)).reason == ""
    with pytest.raises(KpiError, match="there is no KPI 'luck'"):
        ask(Guard(kpi="luck"), shop, at(40))
