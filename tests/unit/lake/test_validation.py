"""The vectorised contract gives the verdicts of `contracts.events`, and dead letters name field and reason."""

import datetime as dt
import json
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

from contracts.events import ACTIONS, CHANNELS, MOMENTS, InvalidEvent, decode_event
from orchestration.lake import tables
from orchestration.lake.validation import split

NOW = dt.datetime(2018, 1, 1, tzinfo=dt.UTC)
JSON_COLUMNS = ("identifiers", "detail", "consent")

LENGTHS = st.sampled_from([0, 1, 255, 256, 257, 512, 513])
TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    st.builds(lambda letter, length: letter * length, st.sampled_from("xé漢"), LENGTHS),
)
NUMBER = st.one_of(st.none(), st.floats(-10, 1e12, allow_nan=False), st.sampled_from([0.0, -0.0, -1e-300]))

ROWS = st.fixed_dictionaries(
    {
        "event_id": st.none() | TEXT,
        "source": st.none() | TEXT,
        "occurred_at": st.none()
        | st.datetimes(dt.datetime(2016, 1, 1), dt.datetime(2018, 1, 2)).map(
            lambda t: t.replace(tzinfo=dt.UTC)
        ),
        "identifiers": st.sampled_from(
            [
                None,
                "[]",
                '[{"kind":"customer","value":"1"}]',
                '[{"kind":"customer"}]',
                '[{"kind":"","value":"1"}]',
                '[{"kind":"device","value":"d","more":1}]',
                json.dumps([{"kind": "k", "value": "v"}] * 17),
                '"customer"',
                "[",
            ]
        ),
        "session_id": st.none() | TEXT,
        "channel": st.sampled_from([*CHANNELS[:3], "store", "telepathy", "", None]),
        "touchpoint": st.none() | TEXT,
        "action": st.sampled_from([*ACTIONS[:3], "purchase", "purchase", "steal", None]),
        "product_id": st.none() | TEXT,
        "quantity": NUMBER,
        "unit_price": NUMBER,
        "discount": NUMBER,
        "currency": st.sampled_from([None, "USD", "usd", "US", "USDX", "USD\n", ""]),
        "query": st.none() | TEXT,
        "media_id": st.none() | TEXT,
        "decision_id": st.none() | TEXT,
        "position": st.none() | st.integers(-2, 100),
        "moment": st.sampled_from([None, MOMENTS[0], "want_to_nap"]),
        "detail": st.sampled_from([None, "{}", '{"a":[1,2]}', "[]", "{", "1"]),
        "consent": st.sampled_from([None, "[]", '["marketing"]', '["spying"]', "{}"]),
    }
)


def verdict_of_the_contract(row: dict[str, Any]) -> bool:
    """Whether `contracts.events` accepts the row, sent as JSON."""
    parts = []
    for name, value in row.items():
        if value is None:
            continue
        if isinstance(value, dt.datetime):
            text = json.dumps(value.isoformat())
        else:
            text = value if name in JSON_COLUMNS else json.dumps(value)
        parts.append(f'"{name}":{text}')
    try:
        decode_event(("{" + ",".join(parts) + "}").encode(), NOW)
    except InvalidEvent:
        return False
    return True


def good(**changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(tables.CANONICAL.names)
    row |= {
        "event_id": "1", "source": "shop", "occurred_at": dt.datetime(2017, 5, 1, 10, tzinfo=dt.UTC),
        "channel": "store", "action": "purchase", "product_id": "p", "quantity": 1.0, "unit_price": 2.0,
        "touchpoint": "store:330", "identifiers": '[{"kind":"device","value":"d"},{"kind":"customer","value":"7"}]',
    }  # fmt: skip
    return row | changes


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=tables.CANONICAL)


@settings(max_examples=80, deadline=None)
@given(broken=st.lists(ROWS, min_size=1, max_size=10))
def test_whole_rows_get_the_verdict_of_the_contract(broken: list[dict[str, Any]]) -> None:
    check(broken)


@settings(max_examples=300, deadline=None)
@given(row=ROWS, names=st.sets(st.sampled_from(tables.CANONICAL.names), max_size=2))
def test_a_good_row_with_one_or_two_odd_fields_gets_the_verdict_of_the_contract(
    row: dict[str, Any], names: set[str]
) -> None:
    check([good(**{name: row[name] for name in names if name in row})])


def check(rows: list[dict[str, Any]]) -> None:
    rows = [{**dict.fromkeys(tables.CANONICAL.names), **row, "n": number} for number, row in enumerate(rows)]
    expected = [verdict_of_the_contract({k: v for k, v in row.items() if k != "n"}) for row in rows]
    for row, accepted in zip(rows, expected, strict=True):
        kept, bad = split(table([{k: v for k, v in row.items() if k != "n"}]), NOW)
        assert (kept.num_rows == 1) == accepted, (row, bad.to_pylist())
        assert kept.num_rows + bad.num_rows == 1


@pytest.mark.parametrize(
    ("change", "field", "expected"),
    [
        ({"channel": "telepathy"}, "channel", "expected one of: web, app"),
        ({"action": None}, "action", "expected one of: impression"),
        ({"quantity": -1.0}, "quantity", "at least 0"),
        ({"unit_price": float("nan")}, "unit_price", "at least 0"),
        ({"product_id": None}, "product_id", "expected a product"),
        ({"occurred_at": NOW + dt.timedelta(hours=1)}, "occurred_at", "a time that has passed"),
        ({"occurred_at": None}, "occurred_at", "expected a time"),
        ({"event_id": ""}, "event_id", "1 to 256 characters"),
    ],
)
def test_a_bad_row_names_its_field_and_what_was_expected(
    change: dict[str, Any], field: str, expected: str
) -> None:
    kept, bad = split(table([good(), good(**change)]), NOW)
    assert kept.num_rows == 1
    assert bad["field"].to_pylist() == [field]
    assert expected in bad["reason"][0].as_py()
    assert field in bad["reason"][0].as_py()


def test_customer_store_and_day_follow_from_a_row() -> None:
    late = dt.datetime(2017, 5, 1, 23, 59, 59, 999999, tzinfo=dt.UTC)
    rows = [good(), good(occurred_at=late, touchpoint="store:", identifiers=None), good(touchpoint="home")]
    kept, _ = split(table(rows), NOW)
    assert kept.schema == tables.EVENTS
    assert kept["customer_id"].to_pylist() == ["7", None, "7"]
    assert kept["store_id"].to_pylist() == ["330", None, None]
    assert kept["day"].to_pylist() == [dt.date(2017, 5, 1)] * 3
