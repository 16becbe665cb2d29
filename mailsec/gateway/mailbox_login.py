"""Which server a POP3 user name means, and where it may be: `login`, or `login#pop.example.org:995`.

The one invariant: a server that a stranger names is one of `allowed`, reached at an address that was looked at; one that lies within our own
networks only where these are listed. Whoever has no account yet must not be able to make us connect to our own machines.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import NamedTuple

from mailsec.errors import AddressError, Refused, Reply, Unavailable
from mailsec.interfaces import Runtime
from mailsec.model.address import Address, normalise_domain
from mailsec.model.networks import is_public, lies_in, read_network
from mailsec.model.settings import MailboxSettings, Upstream

__all__ = ["Place", "account_of", "addresses_of", "place_of"]

_SERVER = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9\u0080-\U0010ffff._-]{1,255}))(?::([0-9]{1,5}))?\Z")
_PORTS = {995: True, 110: False}
"""Ports for mailboxes, and whether TLS begins at once there (RFC 8314 §7.3)."""
_ADDRESSES = 4

# RFC 3206 §4: the credentials are wrong. Which servers are allowed is nobody's business.
_NO_SERVER = Reply(535, "5.7.8", "no mailbox of that name")


class Place(NamedTuple):
    """Where a mailbox is."""

    upstream: Upstream
    login: str
    """As its server knows it."""
    named: bool
    """True where the client named the server."""


def place_of(settings: MailboxSettings, name: str) -> Place:
    """What a user name means; raise Refused for a server that is not allowed, or where none is named and none is configured."""
    login, separator, server = name.rpartition(settings.separator)
    # Without servers to choose from the separator is a character like any other.
    if not separator or not settings.allowed:
        if settings.upstream is None:
            raise Refused("a user name without a server, and no upstream is configured", reply=_NO_SERVER, stage="mailbox")
        return Place(settings.upstream, name, False)
    # Attack: "a#us:995#us:995#us:995": each login would make us log in to ourselves once more.
    if not login or settings.separator in login:
        raise Refused("a user name with more than one server", reply=_NO_SERVER, stage="mailbox")
    match = _SERVER.match(server)
    if match is None or int(match[3] or 1) > 65535:
        raise Refused("a user name with a server that is none", reply=_NO_SERVER, stage="mailbox")
    host = match[1] or match[2].rstrip(".")
    if not match[1] and not _is_name(host):
        raise Refused("a user name with a server that is none", reply=_NO_SERVER, stage="mailbox")
    # A server that is listed by its name is that entry, whatever stands before it.
    for one in sorted(settings.allowed, key=_is_pattern):
        found = _allowed(one, host, int(match[3]) if match[3] else 0)
        if found is not None:
            return Place(found, login, True)
    raise Refused(
        f"the mailbox server {server[:80]} is not allowed", hint="allowed_upstreams of the listener", reply=_NO_SERVER, stage="mailbox"
    )


def account_of(settings: MailboxSettings, place: Place) -> str:
    """What failed logins are counted by. At the configured upstream people have the account with which they send."""
    # Attack: guessing at one account by each port of its server, and by each way to write its name.
    host, upstream = normalise_domain(place.upstream.host), settings.upstream
    if upstream is not None and host == normalise_domain(upstream.host):
        domain = next(iter(upstream.domains), "")
        return f"{place.login}@{domain}" if "@" not in place.login and domain and not domain.startswith(".") else place.login
    return f"{place.login}{settings.separator}{host}"


def _is_pattern(one: Upstream) -> bool:
    return one.host.startswith((".", "*"))


def _allowed(one: Upstream, host: str, port: int) -> Upstream | None:
    """The server `host` as `one` allows it."""
    domain = normalise_domain(host)
    if _is_pattern(one):
        if one.host != "*" and not domain.endswith("." + normalise_domain(one.host[1:])):
            return None
        number = port or 995
        # Only what is for mailboxes: no stranger tries passwords, or commands, on other services through us.
        if number not in _PORTS:
            return None
        return replace(one, host=host, port=number, implicit_tls=_PORTS[number], domains=())
    return one if normalise_domain(one.host) == domain and port in (0, one.port) else None


async def addresses_of(runtime: Runtime, place: Place, settings: MailboxSettings) -> Sequence[str]:
    """Where to connect to, as "HOST:PORT"; raise Unavailable where there is nothing, or nothing that is allowed."""
    upstream = place.upstream
    if not place.named:
        return [str(upstream)]
    networks = tuple(map(read_network, settings.networks))
    if _is_address(upstream.host):
        if any(one.host == upstream.host for one in settings.allowed):
            return [str(upstream)]
        found = [upstream.host]
    else:
        found = [*await runtime.resolve(upstream.host, "A"), *await runtime.resolve(upstream.host, "AAAA")]
    # Attack: a name of somebody's own that leads to 127.0.0.1. What was looked at here is what is connected to.
    fit = [one for one in found if is_public(one) or lies_in(one, networks)][:_ADDRESSES]
    if not fit:
        why = "has no address" if not found else "has no public address"
        raise Unavailable(f"{upstream.host} {why}", hint="allowed_upstreams may list networks too", stage="mailbox")
    return [str(replace(upstream, host=one)) for one in fit]


def _is_name(host: str) -> bool:
    """True for what DNS can be asked about, and TLS for the certificate of."""
    try:
        Address.parse(f"x@{host}")
        return normalise_domain(host).encode("ascii").decode("idna") != ""
    except (AddressError, UnicodeError):
        return False


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
