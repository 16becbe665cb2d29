"""Addresses of listeners and next hops, as the configuration writes them."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace

from mailsec.app.config.models import Hop
from mailsec.errors import AddressError
from mailsec.model.address import Address, normalise_domain
from mailsec.model.settings import NextHop

__all__ = ["Endpoint", "is_domain", "parse_endpoint", "parse_hop"]

_HOP = re.compile(r"(smtp|lmtp)://(\[[^\]]+\]|[^\[\]:/]+)(?::(\d{1,5}))?/?")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a listener listens: `host` is an IP address, or `path` a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def local(self) -> bool:
        """True where only this machine can connect."""
        return bool(self.path) or ipaddress.ip_address(self.host).is_loopback

    @property
    def wildcard(self) -> bool:
        return not self.path and ipaddress.ip_address(self.host).is_unspecified

    def collides(self, other: Endpoint) -> bool:
        """True where both cannot be bound at once."""
        if self.path or other.path:
            return self.path == other.path
        # "[::]" is bound for IPv6 only (app.ports): "0.0.0.0" may stand beside it.
        same_family = (":" in self.host) == (":" in other.host)
        return same_family and self.port == other.port and (self.host == other.host or self.wildcard or other.wildcard)

    def is_reached_by(self, host: str, port: int, path: str = "", *, own_name: str = "") -> bool:
        """True where whoever connects to that place from this machine comes here. `own_name`: a name of this machine."""
        if path or self.path:
            return path == self.path
        if port != self.port:
            return False
        if own_name and normalise_domain(host) == normalise_domain(own_name):
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            # RFC 6761 §6.3: localhost is this machine.
            return host.lower() == "localhost" and (self.wildcard or self.local)
        return str(address) == self.host or (address.is_loopback and self.wildcard)


def is_domain(text: str) -> bool:
    """True for a domain name as in an address."""
    try:
        Address.parse(f"x@{text}")
    except AddressError:
        return False
    return not text.startswith("[")


def parse_endpoint(text: str) -> Endpoint:
    """Read "HOST:PORT", "[V6]:PORT" or "unix:PATH"; raise ValueError with what is wrong."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/"):
            raise ValueError('a unix socket needs an absolute path: "unix:/run/mailsec/smtp"')
        if len(path.encode()) > 100:
            raise ValueError("the path of a unix socket has at most 100 octets")
        return Endpoint(path=path)
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError('must be "HOST:PORT"')
    if host == "localhost":
        host = "127.0.0.1"
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f'an IPv6 address stands in brackets: "[{host}]:{port}"')
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f'"{host}" is no IP address; "0.0.0.0" and "[::]" are all addresses') from None
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f'"{port}" is no port: 1 to 65535')
    return Endpoint(str(address), int(port))


def parse_hop(hop: Hop) -> NextHop:
    """The next hop that a `Hop` names, with the others of a list behind it; raise ValueError with what is wrong."""
    first, *others = [replace(_parse_hop(hop, to), connections=hop.connections) for to in hop.to]
    if any(other.scheme == "mx" for other in others):
        raise ValueError('"mx" comes first, if at all: what DNS says is tried before others, not after them')
    return replace(first, others=tuple(others))


def _parse_hop(hop: Hop, to: str) -> NextHop:
    if to == "mx":
        return NextHop("mx", tls=hop.tls)
    for scheme in ("smtp", "lmtp"):
        if to.startswith(f"{scheme}:unix:"):
            path = to.removeprefix(f"{scheme}:unix:")
            if not path.startswith("/"):
                raise ValueError("a unix socket needs an absolute path")
            # What passes through a unix socket stays on this machine.
            tls = "none" if hop.tls == "opportunistic" else hop.tls
            return NextHop(scheme, path=path, tls=tls, username=hop.username, password_file=hop.password_file)
    found = _HOP.fullmatch(to)
    if found is None:
        raise ValueError(f'"{to}" is no next hop: "smtp://HOST:PORT", "lmtp:unix:PATH" or "mx"')
    scheme, host, port = found.groups()
    if host.startswith("["):
        host = host[1:-1].removeprefix("IPv6:")
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise ValueError(f'"{host}" in brackets is no IP address') from None
    elif not is_domain(host):
        raise ValueError(f'"{host}" is no host name')
    number = int(port) if port else (25 if scheme == "smtp" else 24)
    if not 0 < number < 65536:
        raise ValueError(f'"{port}" is no port: 1 to 65535')
    return NextHop(scheme, host, number, tls=hop.tls, username=hop.username, password_file=hop.password_file)
