"""Where a webhook may go: https and public addresses, so that a yaml cannot make the platform knock at inner doors.

The host is resolved once per attempt, every address is judged, and the connection goes to a judged one; so a name
that answers differently the second time (DNS rebinding) gains nothing. Redirects are never followed.

Belongs here: judging addresses. Does not belong here: the request (`sending.py`).
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import socket
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from contracts.outbound import VARIABLE, OutboundError, Webhook, check_url
from contracts.settings import SettingsError, expand_address

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], list[str]]

_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
"""IPv4 addresses behind NAT64 (RFC 6052)."""


class AddressError(RuntimeError):
    """A host that cannot be reached or must not be; the message says why, without the path."""


@dataclasses.dataclass(frozen=True)
class Target:
    """One judged place to connect to.

    Attributes:
        url: With the address in place of the host.
        host: What the certificate must say.
        header: Value of the Host header.
        scheme: ``https`` or ``http``.
    """

    url: str
    host: str
    header: str
    scheme: str


def resolve(host: str, port: int) -> list[str]:
    """Addresses of a host, by the system's resolver."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise AddressError(f"{host} cannot be resolved: {error.strerror or error}") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def address_of(webhook: Webhook, where: str, environment: Mapping[str, str] | None = None) -> str:
    """The webhook's address with its variables filled in.

    Raises:
        OutboundError: A variable is not set, or the address breaks the rules.
    """
    try:
        url = expand_address(webhook.url, environment)
    except SettingsError as error:
        raise OutboundError(f"{where}.url: {error}") from error
    if re.search(VARIABLE, url):
        raise OutboundError(f"{where}.url names a variable inside a variable; expected an address")
    checked = Webhook(url=url, secret=webhook.secret, private=webhook.private)
    check_url(checked, where)
    return url


def target(url: str, private: bool, resolver: Resolver = resolve) -> Target:
    """Judge where an address leads.

    Args:
        url: Absolute.
        private: Whether http and addresses that are not public are allowed.
        resolver: Gives the addresses of a host.

    Raises:
        AddressError: No address, or one that is not allowed.
    """
    parts = urlsplit(url)
    host, scheme = parts.hostname or "", parts.scheme
    if scheme not in ("https", "http") or not host or (scheme == "http" and not private):
        raise AddressError(f"{scheme}://{host} is not allowed; expected https")
    port = parts.port or (443 if scheme == "https" else 80)
    found = [ipaddress.ip_address(text.partition("%")[0]) for text in resolver(host, port)]
    if not found:
        raise AddressError(f"{host} has no address")
    if not private:
        for address in found:
            if not is_public(address):
                raise AddressError(f"{host} leads to {address}, which is not a public address")
    chosen = found[0]
    literal = f"[{chosen}]" if chosen.version == 6 else str(chosen)
    path = parts.path or "/"
    query = f"?{parts.query}" if parts.query else ""
    shown = f"[{host}]" if ":" in host else host
    header = shown if parts.port is None else f"{shown}:{parts.port}"
    return Target(f"{scheme}://{literal}:{port}{path}{query}", host, header, scheme)


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet, also where it wraps an IPv4 address."""
    if isinstance(address, ipaddress.IPv6Address):
        wrapped = address.ipv4_mapped or address.sixtofour
        if wrapped is None and address in _TRANSLATED:
            wrapped = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if wrapped is not None:
            return is_public(wrapped)
        if address.teredo is not None:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved
