"""A small simulated shop against its truth: moments, needs, and the live side against the lake."""

import pyarrow.compute as pc
import pytest

from contracts.moments import MomentRules
from orchestration.lake import attribution
from orchestration.lake.needs import fit_needs
from tests.benchmarks import moments as bench

RULES = MomentRules()


@pytest.fixture(scope="module")
def shop() -> bench.Shop:
    return bench.Shop(31, 250, 45, RULES)


def test_found_moments_are_the_true_observable_ones(shop):
    hits, found, true = bench._counts(shop).sum(0)
    assert found > 300
    assert 2 * hits / (found + true) > 0.95


def test_live_equals_lake_on_shuffled_arrivals(shop):
    model = fit_needs(shop.features, shop.need, shop.weight, "a test")
    same, events = bench._live(shop, model, RULES)
    assert same
    assert events > 1000


def test_credits_of_a_whole_shop_sum_to_its_conversions(shop):
    paths = attribution.paths_of(shop.events, "person_id")
    orders = shop.events.filter(shop.events["person_id"].is_valid())
    orders = (
        orders.filter(pc.equal(orders["action"], "purchase"))
        .group_by(["person_id", "occurred_at"])
        .aggregate([])
    )
    assert sum(path.conversions for path in paths) == orders.num_rows
    for credit in attribution.attribute(paths).values():
        assert sum(credit.values()) == pytest.approx(orders.num_rows, abs=1e-6)
