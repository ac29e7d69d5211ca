"""Causes are true: silencing a channel removes what it is said to have caused, and holdouts are random."""

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from training.rehearsal import Atelier, AtelierConfig, RehearsalError, simulate
from training.rehearsal.config import CONTACT_CHANNELS, checked, for_events

CONFIG = AtelierConfig(shoppers=2_500, days=42, seed=3)
DAY = 86_400_000_000


@pytest.fixture(scope="module")
def shop() -> Atelier:
    return simulate(CONFIG)


@pytest.mark.parametrize("channel", ["email", "social", "search"])
def test_a_silenced_channel_takes_its_effect_with_it(shop: Atelier, channel: str) -> None:
    silent = simulate(msgspec.structs.replace(CONFIG, silenced=(channel,)))
    row = shop.effects.filter(pc.equal(shop.effects["channel"], channel)).to_pylist()[0]
    direct = row["sessions"] - row["sessions_without"]
    total = shop.needs.num_rows - silent.needs.num_rows
    assert direct > 50
    # The rest of the difference comes from what the lost visits would have led to.
    assert 0.5 * direct < total < 2.0 * direct
    assert not pc.any(pc.equal(silent.assignments["channel"], channel)).as_py()


def test_two_runs_share_everything_that_the_channel_did_not_touch(shop: Atelier) -> None:
    silent = simulate(msgspec.structs.replace(CONFIG, silenced=("push",)))
    first = (shop.needs["started_at"].to_numpy() < np.datetime64("2025-01-04")).sum()
    assert shop.needs.slice(0, first).equals(silent.needs.slice(0, first))  # the first push goes out on day 5


def test_holdouts_are_random(shop: Atelier) -> None:
    treated = shop.assignments["treated"].to_numpy(zero_copy_only=False)
    rate = pa.table({"person_id": shop.persons["person_id"], "rate": shop.persons["yearly_sessions"]})
    joined = shop.assignments.append_column("row", pa.array(np.arange(len(treated)))).join(rate, "person_id")
    rates = np.log(joined.sort_by("row")["rate"].to_numpy())
    assert abs(treated.mean() - (1 - CONFIG.holdout)) < 0.02
    spread = rates.std() * np.sqrt(1 / treated.sum() + 1 / (~treated).sum())
    assert abs(rates[treated].mean() - rates[~treated].mean()) < 4 * spread


def test_known_effects_equal_what_the_experiment_finds(shop: Atelier) -> None:
    chosen = shop.assignments.filter(pc.equal(shop.assignments["channel"], "email"))
    person, sent = chosen["person_id"].to_numpy(), chosen["sent_at"].cast(pa.int64()).to_numpy()
    treated = chosen["treated"].to_numpy(zero_copy_only=False)
    visits: dict[str, list[int]] = {}
    starts = shop.needs["started_at"].cast(pa.int64()).to_pylist()
    for who, at in zip(shop.needs["person_id"].to_pylist(), starts, strict=True):
        visits.setdefault(who, []).append(at)
    came = np.array(
        [
            any(at - 0.3 * DAY <= visit < at + 6.7 * DAY for visit in visits.get(who, ()))
            for who, at in zip(person, sent, strict=True)
        ]
    )
    complete = sent < sent.max() - 1  # the last campaign's week ends after the simulation for none of them
    found = came[treated & complete].mean() - came[~treated & complete].mean()
    known = chosen["effect_visit"].to_numpy()[complete].mean()
    error = np.sqrt(0.25 / (treated & complete).sum() + 0.25 / (~treated & complete).sum())
    assert known > 0.005
    assert abs(found - known) < 4 * error


def test_causes_name_purchases_and_add_up(shop: Atelier) -> None:
    bought = shop.events.filter(pc.equal(shop.events["action"], "purchase"))
    assert set(shop.purchase_causes["event_id"].to_pylist()) <= set(bought["event_id"].to_pylist())
    counts = {
        row["values"]: row["counts"] for row in shop.purchase_causes["channel"].value_counts().to_pylist()
    }
    for row in shop.effects.to_pylist():
        assert row["purchases"] == bought.num_rows
        caused = row["purchases"] - row["purchases_without"]
        if row["channel"] in ("email", "sms"):  # contacts that put people off a basket count against them
            assert counts[row["channel"]] - 20 <= caused <= counts[row["channel"]]
        else:
            assert caused == counts.get(row["channel"], 0)


def test_bad_knobs_are_named() -> None:
    with pytest.raises(RehearsalError, match=r"shoppers"):
        checked({"shoppers": 3})
    with pytest.raises(RehearsalError, match="unknown field `shopers`"):
        checked({"shopers": 300})
    with pytest.raises(RehearsalError, match="silenced names store; expected some of: email"):
        AtelierConfig(silenced=("store",))
    with pytest.raises(RehearsalError, match="only one of the two"):
        for_events(1000, shoppers=5)
    assert "search" in CONTACT_CHANNELS


def test_events_are_about_as_many_as_asked_for() -> None:
    made = simulate(for_events(60_000, days=60)).events.num_rows
    assert 0.85 < made / 60_000 < 1.15
