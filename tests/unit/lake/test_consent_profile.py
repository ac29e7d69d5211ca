"""Consent: the latest statement counts, per purpose and person; silence is no consent."""

import datetime as dt
import json

import duckdb
import pyarrow as pa
import pytest

from orchestration.lake.consent import ConsentError, consents, may_contact
from orchestration.lake.identity import stitch
from orchestration.lake.identity_events import EVENT_PERSONS_SQL
from tests.unit.lake.identity_toys import START, Stream


def said(*purposes: str) -> str:
    return json.dumps(list(purposes))


def stitched(stream: Stream) -> tuple[duckdb.DuckDBPyConnection, pa.Table]:
    con = stream.open()
    found = stitch(con)
    con.execute(f"create temp table event_persons as {EVENT_PERSONS_SQL}")
    return con, found.links


def state(con: duckdb.DuckDBPyConnection, until: dt.datetime | None = None) -> dict[str, bool]:
    return {row["purpose"]: row["granted"] for row in consents(con, until).to_pylist()}


def test_the_latest_statement_by_its_own_time_counts_however_late_it_arrives() -> None:
    stream = Stream()
    stream.add(50, "customer:a", consent=said("analytics"))
    stream.add(10, "customer:a", consent=said("analytics", "personalization", "marketing"))
    stream.add(90, "customer:a", action="purchase", product_id="x")  # A till states nothing.
    con, _ = stitched(stream)
    assert state(con) == {"analytics": True, "personalization": False, "marketing": False}
    assert state(con, START + dt.timedelta(minutes=20)) == dict.fromkeys(
        ("analytics", "personalization", "marketing"), True
    )


def test_unsubscribing_takes_marketing_only_and_detail_can_take_everything() -> None:
    stream = Stream()
    stream.add(0, "customer:a", consent=said("analytics", "personalization", "marketing"))
    stream.add(5, "customer:a", action="unsubscribe")
    con, _ = stitched(stream)
    assert state(con) == {"analytics": True, "personalization": True, "marketing": False}
    everything = json.dumps({"consent": {"analytics": False, "personalization": False}})
    stream.add(9, "customer:a", detail=everything)
    con, _ = stitched(stream)
    assert not any(state(con).values())


def test_of_two_statements_at_one_moment_the_withdrawal_counts() -> None:
    stream = Stream()
    stream.add(5, "customer:a", consent=said("analytics", "marketing"))
    stream.add(5, "customer:a", consent=said("analytics"))
    con, _ = stitched(stream)
    assert state(con)["marketing"] is False


def test_a_refusal_under_another_address_counts_for_the_person() -> None:
    stream = Stream()
    stream.add(0, "customer:a email_sha256:e", consent=said("marketing"))
    stream.add(3, "email_sha256:e", action="unsubscribe", channel="email")
    con, links = stitched(stream)
    contacts = pa.table({"kind": ["customer"], "value": ["a"], "name": ["Anna"]})
    assert may_contact(contacts, consents(con), "marketing", links).num_rows == 0


def test_a_contact_list_keeps_only_who_said_yes_in_its_order() -> None:
    stream = Stream()
    stream.add(0, "customer:yes", consent=said("marketing"))
    stream.add(1, "customer:no", consent=said("analytics"))
    stream.add(2, "customer:silent")
    stream.add(3, "customer:also", consent=said("marketing", "analytics"))
    con, links = stitched(stream)
    values = ["also", "silent", "yes", "no", "unknown"]
    contacts = pa.table({"kind": ["customer"] * 5, "value": values})
    stored = consents(con)
    assert may_contact(contacts, stored, "marketing", links)["value"].to_pylist() == ["also", "yes"]
    by_person = links.select(["person_id", "value"])
    assert sorted(may_contact(by_person, stored, "analytics")["value"].to_pylist()) == ["also", "no"]
    with pytest.raises(ConsentError, match="purpose is 'spam'; expected one of: analytics"):
        may_contact(contacts, stored, "spam", links)  # type: ignore[arg-type]
    with pytest.raises(ConsentError, match="expected person_id, or kind and value"):
        may_contact(pa.table({"email": ["x"]}), stored, "marketing")
