"""The record of a next best action, and the rules of contact in a shop's yaml."""

from __future__ import annotations

import datetime as dt
import pathlib

import msgspec
import pytest

from contracts.actions import Action, action_id
from contracts.settings import SettingsError, read_retailer, read_settings

NOW = dt.datetime(2026, 3, 1, 9, tzinfo=dt.UTC)
BERLIN = dt.timezone(dt.timedelta(hours=1))


def action(**changed: object) -> Action:
    fields = {
        "action_id": action_id("c1", "product", "email", "p1", NOW), "customer_id": "c1", "person": "p_1",
        "kind": "product", "channel": "email", "subject": "p1", "at": NOW, "gain": 1.5, "reason": "because",
        "purpose": "marketing", "made_at": NOW, "expires_at": NOW + dt.timedelta(hours=48), "simulated": True,
    }  # fmt: skip
    return Action(**{**fields, **changed})  # type: ignore[arg-type]


def test_the_same_advice_has_the_same_id_wherever_it_is_made() -> None:
    first = action_id("c1", "product", "email", "p1", NOW)
    assert first == action_id("c1", "product", "email", "p1", NOW.astimezone(BERLIN))
    others = {
        action_id("c2", "product", "email", "p1", NOW), action_id("c1", "content", "email", "p1", NOW),
        action_id("c1", "product", "sms", "p1", NOW), action_id("c1", "product", "email", "p2", NOW),
        action_id("c1", "product", "email", "p1", NOW + dt.timedelta(microseconds=1)),
        action_id("c1", "none", None, "", None),
    }  # fmt: skip
    assert len(others) == 6
    assert first not in others


def test_a_record_survives_json_and_refuses_contradictions() -> None:
    found = action()
    assert msgspec.json.decode(msgspec.json.encode(found), type=Action) == found
    assert found.is_contact
    nothing = {"kind": "none", "channel": None, "subject": "", "at": None, "gain": 0.0}
    assert not action(**nothing).is_contact
    with pytest.raises(ValueError, match="neither for none"):
        action(kind="none")
    with pytest.raises(ValueError, match="both for a contact"):
        action(at=None)
    with pytest.raises(ValueError, match="a time after made_at"):
        action(expires_at=NOW)
    raw = msgspec.json.encode(found).replace(b'"channel":"email"', b'"channel":"fax"')
    with pytest.raises(msgspec.ValidationError, match=r"\$\.channel"):
        msgspec.json.decode(raw, type=Action)


SHOP = """
name: toy
title: Toy
source: files
first_day: 2026-01-01
last_day: 2026-03-01
actions:
  time_zone: {zone}
  channels:
    email: {channel}
"""


@pytest.mark.parametrize(
    ("zone", "channel", "message"),
    [
        ("Mars/Base", "{cost: 1, reach: [customer]}", r"\$\.actions\.time_zone` is 'Mars/Base'"),
        ("UTC", "{cost: 1}", r"\$\.actions\.channels\.email` names neither reach nor seen_on"),
        ("UTC", "{cost: -1, reach: [customer]}", r"\$\.actions\.channels\[\.\.\.\]\.cost"),
        ("UTC", "{cost: 1, reach: [customer], colour: red}", "colour"),
    ],
)
def test_rules_that_make_no_sense_name_the_key(
    tmp_path: pathlib.Path, zone: str, channel: str, message: str
) -> None:
    path = tmp_path / "toy.yaml"
    path.write_text(SHOP.format(zone=zone, channel=channel))
    with pytest.raises(SettingsError, match=message):
        read_retailer(read_settings({"CONTINUUM_HOME": str(tmp_path), "RETAILER": str(path)}))


def test_a_shop_without_rules_contacts_nobody(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "toy.yaml"
    path.write_text(SHOP.split("actions:")[0])
    found = read_retailer(read_settings({"CONTINUUM_HOME": str(tmp_path), "RETAILER": str(path)}))
    assert found.actions.channels == {}
