"""The answer to a bad moment: only what is possible, best predicted effect first."""

from contracts.moments import BAD
from contracts.recovery import ANSWERS, RECOVERIES, Effect, Situation, choose, possible


def effect(action, value, kind="out_of_stock"):
    return Effect(kind=kind, action=action, effect=value, low=value - 0.1, high=value + 0.1, trials=50)


def test_every_bad_moment_has_answers_and_every_answer_a_moment():
    assert set(ANSWERS) == set(BAD)
    assert {action for actions in ANSWERS.values() for action in actions} == set(RECOVERIES)


def test_only_what_the_shop_can_give():
    assert possible(Situation(kind="out_of_stock")) == ()
    assert possible(Situation(kind="out_of_stock", substitutes=3, restock_expected=True)) == ("substitute",)
    assert possible(Situation(kind="out_of_stock", restock_expected=True, may_contact=True)) == (
        "restock_alert",
    )
    assert possible(Situation(kind="delay", support_open=False, may_contact=True)) == ("apology",)
    assert possible(Situation(kind="want_to_buy", substitutes=3, may_contact=True)) == ()


def test_best_effect_first_then_what_was_never_tried_and_nothing_that_harms():
    situation = Situation(
        kind="out_of_stock", substitutes=1, stores=1, other_sizes=1, restock_expected=True, may_contact=True
    )
    known = [effect("other_store", 0.02), effect("restock_alert", 0.08), effect("other_size", -0.01),
             effect("substitute", 0.5, kind="return")]  # fmt: skip
    choices = choose(situation, known)
    assert [choice.action for choice in choices] == ["restock_alert", "other_store", "substitute"]
    assert choices[2].effect is None
    assert choices[0].reason == "adds 8.0 points to the chance of recovery (-2.0 to 18.0, 50 trials)"
