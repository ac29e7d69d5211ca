"""The yaml's audiences and destinations: what is accepted, and how a mistake is named."""

from __future__ import annotations

import datetime as dt
import json
import pathlib
import re

import pytest

from contracts.events import decode_event
from contracts.outbound import Files, Table, Webhook
from contracts.retailer import Retailer
from contracts.settings import ROOT, SettingsError, read_retailer, read_settings
from orchestration.outbound.audiences import check_audience

HEAD = "name: toy\ntitle: Toy\nsource: files\nfirst_day: 2025-01-01\nlast_day: 2025-02-01\n"
GOOD = """
connections: {crm: "sqlite:///crm.db"}
destinations:
  share: {type: files, format: jsonl, folder: out}
  crm: {type: sql, connection: crm, mode: upsert}
  hook: {type: webhook, url: "https://hooks.example.com/in", secret: "${HOOK_SECRET}"}
audiences:
  loyal: {title: Loyal, condition: orders > 3, purpose: marketing, identifiers: [email_sha256], destinations: [share, hook]}
"""


def retailer(folder: pathlib.Path, text: str) -> Retailer:
    (folder / "toy.yaml").write_text(HEAD + text)
    return read_retailer(read_settings({"RETAILER": str(folder / "toy.yaml"), "CONTINUUM_HOME": str(folder)}))


def test_every_kind_of_destination(tmp_path: pathlib.Path) -> None:
    found = retailer(tmp_path, GOOD)
    assert found.destinations["share"] == Files(format="jsonl", folder=str(tmp_path / "out"))
    assert isinstance(found.destinations["crm"], Table)
    assert isinstance(found.destinations["hook"], Webhook)
    assert found.audiences["loyal"].destinations == ("share", "hook")


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [
        ("[share, hook]", "[shared]", r"\$\.audiences\.loyal`\.destinations names 'shared'.*share, crm, hook"),
        ("orders > 3", "orders >", r"\$\.audiences\.loyal`\.condition: character 9: found the end"),
        ("purpose: marketing", "purpose: selling", r"Invalid enum value 'selling' - at `\$\.audiences"),
        ("  loyal:", "  Loyal Ones:", r"expected a name of at most 48 of a-z"),
        ("[email_sha256]", "[]", r"length >= 1 - at `\$\.audiences\[\.\.\.\]\.identifiers"),
        ("[email_sha256]", "[email_sha256, email_sha256]", r"identifiers names something twice"),
        ("title: Loyal", "title: Loyal, limit: 5", r"limit without order"),
        ("title: Loyal", "title: Loyal, colour: red", r"unknown field `colour`"),
        ("https://hooks", "http://hooks", r"\$\.destinations\.hook`\.url is 'http://hooks\.example\.com'; expected https"),
        ("https://hooks.", "https://me:pw@hooks.", r"holds a user, a password or a fragment"),
        ("https://hooks.example.com/in", "ftp://x", r"expected https://HOST/PATH"),
        ('"${HOOK_SECRET}"', "whsec_abc", r"regex .* - at `\$\.destinations\[\.\.\.\]\.secret"),
        ("connection: crm", "connection: till", r"connection is 'till'; expected one of `\$\.connections`: crm"),
        ("mode: upsert", 'table: "a; drop table b"', r"regex .*table"),
        ("type: files", "type: ftp", r"Invalid value 'ftp' - at `\$\.destinations"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_key(tmp_path: pathlib.Path, good: str, bad: str, message: str) -> None:
    assert good in GOOD
    with pytest.raises(SettingsError, match=message):
        retailer(tmp_path, GOOD.replace(good, bad))


def test_a_private_receiver_may_speak_http(tmp_path: pathlib.Path) -> None:
    text = GOOD.replace("https://hooks", "http://hooks").replace(
        "type: webhook,", "type: webhook, private: true,"
    )
    hook = retailer(tmp_path, text).destinations["hook"]
    assert isinstance(hook, Webhook)
    assert hook.private


def test_the_page_that_explains_it_is_right(tmp_path: pathlib.Path) -> None:
    page = (ROOT / "docs" / "audiences.md").read_text()
    blocks = re.findall(r"```(yaml|json)\n(.*?)```", page, re.DOTALL)
    shop = retailer(tmp_path, next(text for kind, text in blocks if kind == "yaml"))
    assert set(shop.destinations) == {"exchange", "crm", "helpdesk"}
    for name, audience in shop.audiences.items():
        check_audience(name, audience)
    message, event = (json.loads(text.replace("…", "")) for kind, text in blocks if kind == "json")
    assert set(message["data"]) == {
        "retailer",
        "simulated",
        "audience",
        "purpose",
        "added",
        "changed",
        "removed",
    }
    received = dt.datetime(2025, 7, 2, tzinfo=dt.UTC)
    assert decode_event(json.dumps(event).encode(), received).decision_id == event["decision_id"]
