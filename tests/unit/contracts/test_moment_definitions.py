"""Sessions and moments, case by case, against values worked out by hand."""

import numpy as np
import pytest

from contracts.moments import MOMENT, MomentRules, jaccard, moments
from contracts.sessions import (
    SessionRules,
    StreamError,
    query_row,
    query_words,
    sessions,
)
from tests.unit.contracts.streams import stream

MINUTE = 60_000_000


def found(*rows: dict, rules: MomentRules | None = None) -> list[tuple[int, str, int]]:
    names = list(MOMENT)
    answer = moments(stream(*rows), rules or MomentRules(), np)
    return [
        (row, names[kind], before)
        for row, kind, before in zip(
            answer.row.tolist(), answer.kind.tolist(), answer.earlier.tolist(), strict=True
        )
    ]


def test_a_session_ends_after_the_gap_and_spans_channels():
    cut = sessions(
        stream(
            {"at": 0, "action": "visit"},
            {"at": 30, "action": "view", "channel": "app"},
            {"at": 60.1, "action": "purchase", "channel": "store"},
            {"at": 60.2, "action": "view", "person": 1},
        ),
        SessionRules(),
        np,
    )
    assert cut.of_event.tolist() == [0, 0, 1, 2]
    assert cut.acts.tolist() == [2, 1, 1]
    assert cut.end_us.tolist() == [30 * MINUTE, int(60.1 * MINUTE), int(60.2 * MINUTE)]


def test_what_only_reaches_a_person_neither_opens_nor_prolongs_a_session():
    cut = sessions(
        stream(
            {"at": 0, "action": "impression"},
            {"at": 1, "action": "view"},
            {"at": 25, "action": "delivery"},
            {"at": 40, "action": "view"},
            {"at": 90, "action": "impression"},
        ),
        SessionRules(),
        np,
    )
    assert cut.of_event.tolist() == [-1, 0, 0, 1, -1]


def test_a_sessions_number_depends_on_the_person_and_its_first_act_alone():
    one = sessions(stream({"at": 5, "action": "view", "person": 3}), SessionRules(), np)
    other = sessions(
        stream({"at": 5, "action": "view", "person": 3}, {"at": 9, "action": "click", "person": 3},
               {"at": 5, "action": "view", "person": 4}), SessionRules(), np)  # fmt: skip
    assert one.key[0] == other.key[0]
    assert other.key[0] != other.key[1]


def test_no_events_no_sessions_no_moments():
    empty = moments(stream(), MomentRules(), np)
    assert len(empty) == 0
    assert len(empty.sessions) == 0
    only_ads = moments(stream({"at": 0, "action": "impression"}), MomentRules(), np)
    assert only_ads.sessions.of_event.tolist() == [-1]


def test_wants_once_per_session_and_in_a_store_by_the_first_purchase():
    rows = [
        {"at": 0, "action": "view", "place": "know"},
        {"at": 1, "action": "view", "place": "know"},
        {"at": 2, "action": "view", "place": "go"},
        {"at": 3, "action": "view", "place": "do"},
        {"at": 4, "action": "add_to_cart"},
        {"at": 5, "action": "add_to_cart"},
        {"at": 6, "action": "purchase"},
        {"at": 100, "action": "purchase", "channel": "store"},
        {"at": 100, "action": "purchase", "channel": "store"},
    ]
    assert found(*rows) == [
        (0, "want_to_know", -1), (2, "want_to_go", -1), (3, "want_to_do", -1), (4, "want_to_buy", -1),
        (7, "want_to_buy", -1),
    ]  # fmt: skip


def test_a_search_without_results_fails_and_one_of_unknown_results_does_not():
    rows = [
        {"at": 0, "action": "search", "query": "a", "results": 0},
        {"at": 50, "action": "search", "query": "b"},
        {"at": 51, "action": "visual_search", "results": 0},
        {"at": 52, "action": "view", "results": 0},
    ]
    assert found(*rows) == [(0, "failed_search", -1), (2, "failed_search", -1)]


def test_repeated_search_points_at_the_latest_search_that_it_repeats():
    rows = [
        {"at": 0, "action": "search", "query": "Red shoes"},
        {"at": 5, "action": "search", "query": "red  SHOES!"},
        {"at": 6, "action": "search", "query": "bag"},
        {"at": 30, "action": "voice_search", "query": "shoes"},
        {"at": 61, "action": "search", "query": "shoes"},
        {"at": 62, "action": "search", "query": "shoes", "person": 1},
    ]
    assert found(*rows) == [(1, "repeated_search", 0), (3, "repeated_search", 1)]


def test_an_empty_query_repeats_nothing():
    assert (
        found({"at": 0, "action": "search", "query": "!"}, {"at": 1, "action": "search", "query": "?"}) == []
    )


def test_price_shock_compares_with_the_last_look_within_thirty_days():
    rows = [
        {"at": 0, "action": "view", "product": 1, "price": 100.0},
        {"at": 1, "action": "view", "product": 2, "price": 1.0},
        {"at": 2, "action": "view", "product": 1, "price": 105.0},
        {"at": 3, "action": "view", "product": 1, "price": 111.0},
        {"at": 4 + 30 * 1440, "action": "view", "product": 1, "price": 150.0},
    ]
    assert found(*rows) == [(3, "price_shock", 2)]


def test_what_the_sender_names_counts_once_with_certainty():
    answer = moments(stream({"at": 0, "action": "error", "named": "error"},
                            {"at": 1, "action": "view", "place": "go", "named": "want_to_go"},
                            {"at": 2, "action": "view", "named": "delay"}), MomentRules(), np)  # fmt: skip
    assert answer.row.tolist() == [0, 1, 2]
    assert answer.confidence.tolist() == [1.0, 1.0, 1.0]


def test_delay_takes_at_least_the_stated_days():
    rows = [{"at": 0, "action": "delivery", "late": 0.5}, {"at": 1, "action": "delivery", "late": 1.0}]
    assert found(*rows) == [(1, "delay", -1)]
    assert found(*rows, rules=MomentRules(late_days=0.5)) == [(0, "delay", -1), (1, "delay", -1)]


def test_words_are_compared_without_case_punctuation_or_double():
    assert query_words("Red RED, straße–Ｒｅｄ") == ("red", "strasse")
    one, other = (np.array([query_row(text)], np.uint64) for text in ("a b c", "b c d"))
    assert jaccard(one, other, np).tolist() == [0.5]


def test_columns_out_of_order_are_refused_by_name():
    with pytest.raises(StreamError, match="'at_us' decreases within a person"):
        sessions(stream({"at": 1, "action": "view"}, {"at": 0, "action": "view"}), SessionRules(), np)
    with pytest.raises(StreamError, match="'person' decreases"):
        sessions(
            stream({"at": 1, "action": "view", "person": 1}, {"at": 2, "action": "view"}), SessionRules(), np
        )
