"""Features of behaviour, outcomes of trials and the odds learner against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from contracts.events import CHANNELS
from training.relationship import behaviour as b
from training.relationship import odds
from training.relationship.behaviour import Behaviour, Log
from training.relationship.trials import visited
from training.relationship.uplift import UpliftParams

WEB, STORE, EMAIL, SUPPORT = (CHANNELS.index(name) for name in ("web", "store", "email", "support"))
VIEW, BUY = b.KINDS.index("view"), b.KINDS.index("purchase")


def log(*rows: tuple[int, float, int, int, float]) -> Log:
    columns = list(zip(*sorted(rows), strict=True)) or [()] * 5
    person, at, channel, kind, money = columns
    return Log(
        np.array(person, np.int64), np.array(at, np.float64), np.array(channel, np.int64),
        np.array(kind, np.int64), np.array(money, np.float64),
    )  # fmt: skip


@pytest.fixture
def two() -> Behaviour:
    """Ann visits on days 10, 20, 24 (buys for 30 in the store) and 50; Bob was only written to."""
    return Behaviour(
        people=np.array(["p_ann", "p_bob"]), customers=np.array(["ann", "ann2", "bob"]),
        person_of=np.array([0, 0, 1]), age=np.array([25.0, np.nan]),
        visits=log((0, 10.0, WEB, VIEW, 0.0), (0, 20.0, WEB, VIEW, 0.0), (0, 24.0, STORE, BUY, 30.0),
                   (0, 50.0, WEB, BUY, 99.0)),
        contacts=log((0, 18.0, EMAIL, 0, 0.0), (0, 18.5, EMAIL, 1, 0.0), (0, 29.0, EMAIL, 0, 0.0),
                     (1, 5.0, EMAIL, 0, 0.0)),
        bad=log((0, 27.0, WEB, 0, 0.0)),
    )  # fmt: skip


def row(behaviour: Behaviour, cut: float, person: int) -> dict[str, float]:
    return dict(zip(b.FEATURES, b.features(behaviour, cut)[person].tolist(), strict=True))


def test_features_are_counted_strictly_before_the_moment(two: Behaviour) -> None:
    ann = row(two, 30.0, 0)
    assert (ann["days_since_visit"], ann["days_since_purchase"], ann["days_known"]) == (6.0, 6.0, 20.0)
    assert (ann["visits"], ann["purchases"], ann["visits_7d"], ann["visits_28d"]) == (3, 1, 1, 3)
    assert (ann["spend_7d"], ann["spend_91d"]) == (30.0, 30.0)
    assert (ann["gap_mean"], ann["gap_last"]) == (7.0, 4.0)
    assert (ann["contacts_email_7d"], ann["contacts_email_28d"], ann["opened_email"]) == (1, 2, 0.5)
    assert (ann["bad_7d"], ann["days_since_bad"], ann["last_kind"]) == (1, 3.0, BUY)
    fade = [2 ** (-ago / b.HALF) for ago in (20, 10, 6)]
    assert ann["visits_half"] == pytest.approx(sum(fade))
    assert ann["on_store"] == pytest.approx(fade[2] / sum(fade))
    assert ann["since_web"] == 10.0
    assert np.isnan(ann["since_app"])
    assert row(two, 24.0, 0)["purchases"] == 0  # The purchase is at this very moment.


def test_nothing_of_the_future_is_read(two: Behaviour) -> None:
    cut = 30.0
    past = Behaviour(
        two.people, two.customers, two.person_of, two.age, two.visits.before(cut), two.contacts.before(cut),
        two.bad.before(cut),
    )  # fmt: skip
    np.testing.assert_array_equal(b.features(two, cut), b.features(past, cut))
    assert b.known(two, 6.0).tolist() == [False, True]
    assert b.known(two, 5.0).tolist() == [False, False]


def test_an_outcome_is_a_visit_after_the_contact_and_no_call_for_help(two: Behaviour) -> None:
    person, days = np.zeros(4, np.int64), 7.0
    at = np.array([18.0, 24.0, 42.9, 43.0])
    assert visited(two, person, at, days).tolist() == [True, False, False, True]
    assert not visited(two, np.ones(1, np.int64), np.array([18.0]), days)[0]
    calls = Behaviour(
        two.people,
        two.customers,
        two.person_of,
        two.age,
        log((0, 20.0, SUPPORT, VIEW, 0.0)),
        two.contacts,
        two.bad,
    )
    assert not visited(calls, np.zeros(1, np.int64), np.array([18.0]), days)[0]


def test_the_odds_learner_finds_a_known_effect() -> None:
    """A contact multiplies the odds by exp(0.8), and by exp(0.8 - 1.2) for the old half: truth in closed form."""
    rng = np.random.default_rng(0)
    size = 12_000
    active, old = rng.normal(size=size), (rng.random(size) < 0.5).astype(float)
    X = np.column_stack([active, old, rng.normal(size=size)])
    treated = rng.random(size) < 0.7

    def chance(contact: np.ndarray | float) -> np.ndarray:
        return 1 / (1 + np.exp(-(-1 + active + contact * (0.8 - 1.2 * old))))

    outcome = (rng.random(size) < chance(treated.astype(float))).astype(float)
    model = odds.fit(X, treated, outcome, [1], params=UpliftParams(min_leaf=200))
    truth, found = chance(1.0) - chance(0.0), model.predict(X)
    assert abs(found[old == 0].mean() - truth[old == 0].mean()) < 0.02
    assert abs(found[old == 1].mean() - truth[old == 1].mean()) < 0.02
    assert np.corrcoef(found, truth)[0, 1] > 0.9
    again = odds.odds_of(model.to_dict())
    np.testing.assert_allclose(again.predict(X[:50]), found[:50], atol=1e-12)
    with pytest.raises(ValueError, match="other values than 0 and 1"):
        odds.fit(X, treated, outcome * 3, [1])
