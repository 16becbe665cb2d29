"""Which next hop a recipient's domain has, and which hosts that is (RFC 5321 §5).

The one invariant: a domain has one `Destination`, so that all its recipients of one message travel together; "nobody takes this"
is `Refused` with a reply of its own, "nobody can say" is `Unavailable`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mailsec.errors import Refused, Reply, Unavailable
from mailsec.interfaces import Runtime
from mailsec.model.address import normalise_domain
from mailsec.model.settings import NextHop, RelaySettings

__all__ = ["Destination", "Routes", "Target", "targets_of"]

_DOMAINS_REMEMBERED = 10_000
_HOSTS_TRIED = 10
"""Hosts of one domain: a zone with 1,000 MX records gets no more of our time (RFC 5321 §5.1 asks for at least two)."""


@dataclass(frozen=True, slots=True)
class Destination:
    """A next hop, with the domain where that decides where it is (mx)."""

    hop: NextHop
    domain: str = ""

    @property
    def is_ours_and_private(self) -> bool:
        """True for a next hop of our own that nobody between can read or pose as: what was decrypted here may go there (promise 8)."""
        return all(map(_is_private, (self.hop, *self.hop.others)))

    def __str__(self) -> str:
        return f"mx of {self.domain}" if self.domain else str(self.hop)


def _is_private(hop: NextHop) -> bool:
    return hop.scheme != "mx" and (bool(hop.path) or hop.tls == "verified" or _is_loopback(hop.host))


@dataclass(frozen=True, slots=True)
class Target:
    """One host of a destination, for `Runtime.connect`, and the name that its certificate must show."""

    address: str
    server_name: str
    hop: NextHop
    """How one speaks there."""


class Routes:
    """`[relay] next_hop` and `routes`, with the answers remembered."""

    __slots__ = ("_known", "_settings")

    def __init__(self, settings: RelaySettings) -> None:
        self._settings = settings
        self._known: dict[str, Destination] = {}

    def destination(self, domain: str) -> Destination:
        """The destination of mail for `domain` (as it stands in an address)."""
        known = self._known.get(domain)
        if known is None:
            if len(self._known) >= _DOMAINS_REMEMBERED:
                self._known.clear()
            known = self._known[domain] = self._find(normalise_domain(domain))
        return known

    def _find(self, domain: str) -> Destination:
        chosen = self._settings.next_hop
        for pattern, hop in self._settings.routes:
            wanted = normalise_domain(pattern.removeprefix("."))
            if domain.endswith("." + wanted) if pattern.startswith(".") else domain == wanted:
                chosen = hop
                break
        return Destination(chosen, domain if chosen.scheme == "mx" else "")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # RFC 6761 §6.3: localhost is never asked of the network.
        return host.lower() == "localhost"


async def targets_of(destination: Destination, runtime: Runtime, hostname: str) -> Sequence[Target]:
    """The hosts to try, in this order; raise Refused where the domain takes no mail, Unavailable where DNS does not answer."""
    hop = destination.hop
    others = [target for other in hop.others for target in _fixed(other, hostname)]
    if hop.scheme != "mx":
        return [*_fixed(hop, hostname), *others]
    try:
        return [*await _hosts_of(destination.domain, hop, runtime, hostname), *others]
    except Unavailable:
        if not others:
            raise
        return others


def _fixed(hop: NextHop, hostname: str) -> Sequence[Target]:
    if hop.path:
        return (Target(f"unix:{hop.path}", hop.server_name or hop.host or hostname, hop),)
    return (Target(_host_port(hop.host, hop.port), hop.server_name or hop.host, hop),)


async def _hosts_of(domain: str, hop: NextHop, runtime: Runtime, hostname: str) -> Sequence[Target]:
    if domain.startswith("["):
        # RFC 5321 §4.1.3: an address literal names a host, no domain.
        literal = domain[1:-1].removeprefix("IPv6:").removeprefix("ipv6:")
        return (Target(_host_port(literal, hop.port), literal, hop),)
    if not domain:
        raise Refused("an address without a domain has no next hop", reply=Reply(550, "5.1.2", "the address has no domain"))
    records = [(int(preference), str(host).rstrip(".")) for preference, host in await runtime.resolve(domain, "MX")]
    if not records:
        # RFC 5321 §5.1: no MX record: the domain is its own host, with preference 0.
        for kind in ("A", "AAAA"):
            if await runtime.resolve(domain, kind):
                return (Target(_host_port(domain, hop.port), domain, hop),)
        raise Refused(f"{domain} does not exist", reply=Reply(550, "5.1.2", "the domain does not exist or has no mail server"))
    # RFC 7505 §3: one MX record with the root as its host: the domain takes no mail.
    if any(not host for _, host in records):
        if len(records) == 1:
            raise Refused(f"{domain} takes no mail (null MX)", reply=Reply(556, "5.1.10", "the domain takes no mail (null MX)"))
        records = [record for record in records if record[1]]
    records = _before_us(records, normalise_domain(hostname))
    if not records:
        # RFC 5321 §5.1: we are the best host for it ourselves: sending it anywhere would be a loop.
        raise Refused(f"mail for {domain} loops back to us", reply=Reply(554, "5.4.6", "mail for this domain would loop back"))
    return [Target(_host_port(host, hop.port), host, hop) for _, host in _shuffled(records, runtime.random)[:_HOSTS_TRIED]]


def _before_us(records: list[tuple[int, str]], hostname: str) -> list[tuple[int, str]]:
    # RFC 5321 §5.1: where we are listed ourselves, only hosts with a lower preference are tried.
    ours = [preference for preference, host in records if normalise_domain(host) == hostname]
    return [record for record in records if record[0] < min(ours)] if ours else records


def _shuffled(records: list[tuple[int, str]], random: Callable[[int], bytes]) -> list[tuple[int, str]]:
    # RFC 5321 §5.1: the sender must randomise among hosts of equal preference.
    return [record for _, record in sorted(((record[0], random(4)), record) for record in records)]


def _host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
