"""What contacts cause, against trials that one counts by hand."""

from __future__ import annotations

import datetime as dt
import math
import pathlib

import duckdb
import numpy as np
import pytest

from contracts.settings import read_settings
from orchestration.lake.causes import effects_of_trials
from orchestration.lake.overview import _learned_segments

SENT = dt.datetime(2025, 3, 1, tzinfo=dt.UTC)


def shop(
    trials: list[tuple[str, str, str, bool, dt.datetime]], orders: list[tuple[str, float]]
) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.execute("set TimeZone = 'UTC'")
    con.execute(
        "create table trials (trial_id text, customer_id text, channel text, sent_at timestamptz, treated bool)"
    )
    con.executemany(
        "insert into trials values (?, ?, ?, ?, ?)", [(t, c, ch, at, tr) for t, c, ch, tr, at in trials]
    )
    con.execute("create table known (person_id text, occurred_at timestamptz, action text)")
    rows = [(who, SENT + dt.timedelta(days=days), "purchase") for who, days in orders]
    con.executemany(
        "insert into known values (?, ?, ?)", [*rows, ("nobody", SENT + dt.timedelta(days=40), "view")]
    )
    con.execute("create table links (kind text, value text, state text, person_id text)")
    people = {(customer,) for _, customer, _, _, _ in trials}
    con.executemany(
        "insert into links values ('customer', ?, 'linked', ?)", [(c, f"p{c}") for (c,) in people]
    )
    return con


def test_orders_of_the_contacted_less_orders_of_the_others() -> None:
    arms = [("t1", f"c{n}", "email", n < 4, SENT) for n in range(8)]
    orders = [("pc0", 1.0), ("pc0", 2.0), ("pc1", 6.9), ("pc2", 7.5), ("pc3", -1.0), ("pc4", 3.0)]
    found = effects_of_trials(shop(arms, orders))
    assert [(trial.channel, trial.contacted, trial.held_out) for trial in found] == [("email", 4, 4)]
    # Contacted 2, 1, 0, 0 (7.5 days is too late, a day before is not after); held out 1, 0, 0, 0.
    assert found[0].effect == pytest.approx(3 / 4 - 1 / 4)
    spread = 1.959964 * math.sqrt((11 / 12) / 4 + (1 / 4) / 4)
    assert (found[0].low, found[0].high) == (pytest.approx(0.5 - spread), pytest.approx(0.5 + spread))


def test_trials_of_a_channel_weigh_by_people_and_unfinished_ones_wait() -> None:
    arms = [("a", f"a{n}", "sms", n < 2, SENT) for n in range(4)]
    arms += [("b", f"b{n}", "sms", n < 6, SENT) for n in range(8)]
    arms += [("c", f"d{n}", "push", n < 2, SENT + dt.timedelta(days=39)) for n in range(4)]
    arms += [
        ("e", "e0", "email", True, SENT),
        ("e", "e1", "email", False, SENT),
    ]  # One person tells no spread.
    found = effects_of_trials(shop(arms, [("pa0", 1.0), ("pa1", 1.0), ("pb7", 1.0)]))
    assert [trial.channel for trial in found] == ["sms"]
    assert found[0].effect == pytest.approx((2 * 1.0 + 6 * -0.5) / 8)


def test_a_shop_without_trials_says_nothing() -> None:
    con = shop([("t", "c", "email", True, SENT)], [])
    con.execute("delete from trials")
    assert effects_of_trials(con) == ()


def test_learned_segments_are_shown_by_their_names(tmp_path: pathlib.Path) -> None:
    settings = read_settings({"CONTINUUM_HOME": str(tmp_path)})
    assert _learned_segments(settings) == ()
    settings.overview.mkdir()
    np.savez(
        settings.overview / "outlook.npz", p_behaviour=np.array([0, 1, 1, np.nan]),
        behaviour_names=np.array(["buys at night", "b"]), p_taste=np.full(4, np.nan), taste_names=np.array([], np.str_),
    )  # fmt: skip
    found = _learned_segments(settings)
    assert [(s.name, s.customers, s.cut, s.spend) for s in found] == [
        ("B", 2, "behaviour", None),
        ("Buys at night", 1, "behaviour", None),
    ]
