"""Signatures, addresses that a webhook may not reach, and the wait between attempts."""

from __future__ import annotations

import base64
import ipaddress

import pytest

from contracts.outbound import OutboundError, Webhook
from orchestration.outbound.addresses import AddressError, address_of, is_public, target
from orchestration.outbound.sending import LONGEST_WAIT, backoff
from orchestration.outbound.signing import SignatureError, read_secrets, sign, verify

# The example that the libraries of Standard Webhooks test against.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EXAMPLE = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
SIGNED = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_signatures_are_those_of_standard_webhooks() -> None:
    secrets = read_secrets("${KEY}", "here", {"KEY": SECRET})
    headers = sign(secrets, *EXAMPLE)
    assert headers["webhook-signature"] == SIGNED
    assert headers["webhook-id"] == EXAMPLE[0]
    assert headers["webhook-timestamp"] == "1614265330"
    assert verify(secrets[0], headers, EXAMPLE[2], 1614265330.0) == EXAMPLE[0]


def test_a_receiver_believes_nothing_that_was_changed_or_is_old() -> None:
    secret = read_secrets("${KEY}", "here", {"KEY": SECRET})[0]
    headers = sign((secret,), *EXAMPLE)
    with pytest.raises(SignatureError, match="no signature fits"):
        verify(secret, headers, EXAMPLE[2] + b" ", 1614265330.0)
    with pytest.raises(SignatureError, match="no signature fits"):
        verify(secret, headers | {"webhook-id": "msg_other"}, EXAMPLE[2], 1614265330.0)
    with pytest.raises(SignatureError, match="301 s off"):
        verify(secret, headers, EXAMPLE[2], 1614265631.0)
    with pytest.raises(SignatureError, match="missing"):
        verify(secret, {}, EXAMPLE[2], 1614265330.0)


def test_two_secrets_sign_side_by_side() -> None:
    other = base64.b64encode(b"n" * 32).decode()
    secrets = read_secrets("${KEY}", "here", {"KEY": f"{other} {SECRET}"})
    headers = sign(secrets, *EXAMPLE)
    assert len(secrets) == 2
    for secret in secrets:
        assert verify(secret, headers, EXAMPLE[2], 1614265330.0) == EXAMPLE[0]


@pytest.mark.parametrize("value", ["", "whsec_short", "not base64!", "c2hvcnQ="])
def test_a_bad_secret_is_named_and_never_shown(value: str) -> None:
    with pytest.raises(OutboundError, match="KEY is") as error:
        read_secrets("${KEY}", "destinations.hook.secret", {"KEY": value})
    assert not value or value not in str(error.value)
    with pytest.raises(
        OutboundError, match=r"destinations\.hook\.secret: the environment variable KEY is not set"
    ):
        read_secrets("${KEY}", "destinations.hook.secret", {})


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1", "10.1.2.3", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "::1",
     "fe80::1", "fc00::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:0a00:0001::1",
     "2001:0:7f00:1::1", "255.255.255.255", "198.18.0.1", "192.0.2.1", "::"],
)  # fmt: skip
def test_inner_addresses_are_not_public(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))
    with pytest.raises(AddressError, match="not a public address"):
        target("https://hooks.example.com/in", False, lambda host, port: ["93.184.215.14", text])
    assert target("https://hooks.example.com/in", True, lambda host, port: [text]).host == "hooks.example.com"


@pytest.mark.parametrize("text", ["93.184.215.14", "2606:4700::1111", "::ffff:93.184.215.14"])
def test_public_addresses_are_connected_to_by_number(text: str) -> None:
    place = target("https://hooks.example.com:8443/in?a=1", False, lambda host, port: [text])
    literal = f"[{text}]" if ":" in text and "." not in text else text
    assert place.url.startswith("https://")
    assert place.url.endswith(":8443/in?a=1")
    assert "hooks" not in place.url
    assert (place.host, place.header) == ("hooks.example.com", "hooks.example.com:8443")
    if "::ffff" not in text:
        assert literal in place.url


def test_http_and_names_that_lead_nowhere() -> None:
    with pytest.raises(AddressError, match="expected https"):
        target("http://hooks.example.com", False, lambda host, port: ["93.184.215.14"])
    with pytest.raises(AddressError, match="has no address"):
        target("https://hooks.example.com", False, lambda host, port: [])
    with pytest.raises(AddressError, match="not a public address"):
        target("https://0x7f000001/", False, lambda host, port: ["127.0.0.1"])


def test_an_address_in_a_variable_keeps_the_rules() -> None:
    hook = Webhook(url="${HOOK}", secret="${KEY}")
    assert address_of(hook, "destinations.hook", {"HOOK": "https://a.example/x"}) == "https://a.example/x"
    with pytest.raises(OutboundError, match="expected https"):
        address_of(hook, "destinations.hook", {"HOOK": "http://a.example/x"})
    with pytest.raises(OutboundError, match="HOOK is not set"):
        address_of(hook, "destinations.hook", {})


def test_waits_grow_are_drawn_and_end_somewhere() -> None:
    assert [backoff(5.0, attempt, 0.5) for attempt in range(4)] == [5.0, 15.0, 45.0, 135.0]
    assert backoff(5.0, 2, 0.0) == 22.5
    assert backoff(5.0, 2, 0.999) < 67.5
    assert backoff(3600.0, 49, 1.0) == LONGEST_WAIT * 1.5
