"""The open need: no look ahead, no look at other people, a model that only fits its own columns."""

import msgspec
import numpy as np
import pytest

from contracts.moments import MomentRules
from contracts.needs import FEATURES, NEEDS, NeedModel, need_features, needs
from orchestration.lake.needs import fit_needs
from tests.unit.contracts.streams import stream


def history(seed: int, person: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    actions = ["visit", "view", "view", "search", "add_to_cart", "purchase", "impression", "open"]
    rows = []
    for minute in np.sort(rng.choice(20_000, 60, replace=False)) // 7:
        action = str(rng.choice(actions))
        row = {"at": float(minute), "action": action, "person": person, "product": int(rng.integers(0, 4)),
               "place": str(rng.choice(["other", "know", "go", "do"])), "price": 10.0}  # fmt: skip
        if action == "search":
            row |= {"query": str(rng.choice(["red shoes", "how to wash", "store near me"])), "results": 2.0}
        rows.append(row)
    return rows


@pytest.mark.parametrize("seed", range(3))
def test_features_know_neither_the_future_nor_other_people(seed):
    mine = history(seed)
    rows, features, _ = need_features(stream(*mine), MomentRules(), np)
    assert features.shape == (len(rows), len(FEATURES))
    assert np.isfinite(features).all()
    for cut in (1, 17, 40, 59):
        early_rows, early, _ = need_features(stream(*mine[:cut]), MomentRules(), np)
        assert np.array_equal(early_rows, rows[: len(early_rows)])
        assert np.array_equal(early, features[: len(early_rows)])
    crowd = [*history(seed + 50, -1), *mine, *history(seed + 60, 1)]
    all_rows, everything, _ = need_features(stream(*crowd), MomentRules(), np)
    inside = (all_rows >= 60) & (all_rows < 120)
    assert np.array_equal(everything[inside], features)


def test_words_and_pages_are_counted():
    rows = [
        {"at": 0, "action": "search", "query": "store opening hours"},
        {"at": 1, "action": "view", "place": "know", "product": 1},
        {"at": 2, "action": "view", "product": 1},
    ]
    _, features, _ = need_features(stream(*rows), MomentRules(), np)
    column = {name: features[:, place] for place, name in enumerate(FEATURES)}
    assert np.expm1(column["go_words"]) == pytest.approx([1, 1, 1])
    assert np.expm1(column["know_pages"]) == pytest.approx([0, 1, 1])
    assert np.expm1(column["distinct_views"]) == pytest.approx([0, 1, 1])
    assert np.expm1(column["views"]) == pytest.approx([0, 1, 2])


def test_wants_of_earlier_sessions_fade_by_their_half_life():
    rows = [{"at": 0, "action": "view", "place": "go"}, {"at": 2 * 1440, "action": "view"}]
    _, features, _ = need_features(stream(*rows), MomentRules(), np)
    assert features[:, FEATURES.index("past_go_2")] == pytest.approx([0, 0.5])
    assert features[:, FEATURES.index("past_buy_2")] == pytest.approx([0, 0])


def test_a_fitted_model_survives_json_and_gives_probabilities_row_by_row():
    rng = np.random.default_rng(0)
    need = rng.integers(0, len(NEEDS), 400)
    features = rng.normal(size=(400, len(FEATURES)))
    features[:, 0] += need
    model = fit_needs(features, need, np.ones(400), "a test")
    again = msgspec.json.decode(msgspec.json.encode(model), type=NeedModel)
    chance = needs(features, again, np)
    assert chance.sum(axis=1) == pytest.approx(np.ones(400))
    assert np.array_equal(needs(features[7:8], model, np), chance[7:8])
    with pytest.raises(ValueError, match="no example of need 'want_to_buy'"):
        fit_needs(features, np.minimum(need, 2), np.ones(400), "a test")
    with pytest.raises(ValueError, match="features"):
        msgspec.structs.replace(model, features=FEATURES[:-1])
