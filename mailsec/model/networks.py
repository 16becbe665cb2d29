"""Which addresses a stranger's certificate may send us to: public ones, as IANA's registries have them (RFC 6890), and no others.

The one invariant: an address that carries another one inside it (mapped, 6to4, NAT64) is public only if the inner one is.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

__all__ = ["Network", "client_of", "is_public", "lies_in", "read_address", "read_network"]

Network = IPv4Network | IPv6Network

_NOT_PUBLIC_4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
"""RFC 6890 §2.2.2; CGNAT (RFC 6598), link-local, multicast, and what is reserved."""

_GLOBAL_6 = IPv6Network("2000::/3")
"""RFC 4291 §2.4: all that IANA has given out. Loopback, unique local, link-local and multicast lie outside."""
_NOT_PUBLIC_6 = tuple(IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "3fff::/20"))
"""Teredo and other protocol assignments (RFC 6890 §2.2.3), documentation."""
_NAT64 = IPv6Network("64:ff9b::/96")


def is_public(text: str) -> bool:
    """True for an address of the public Internet; False for every other, and for what is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    # RFC 4291 §2.5.5.2, RFC 6052 §2.1, RFC 3056 §2: attack: http://[::ffff:127.0.0.1]/, http://[64:ff9b::a00:1]/
    if address.ipv4_mapped is not None:
        return is_public(str(address.ipv4_mapped))
    if address in _NAT64:
        return is_public(str(IPv4Address(int(address) & 0xFFFFFFFF)))
    if address.sixtofour is not None:
        return is_public(str(address.sixtofour))
    return address in _GLOBAL_6 and not any(address in network for network in _NOT_PUBLIC_6)


def lies_in(text: str, networks: tuple[Network, ...]) -> bool:
    """True where the address lies in one of the networks; a mapped one (::ffff:…) counts as what it stands for."""
    try:
        address: IPv4Address | IPv6Address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address.version == network.version and address in network for network in networks)


def read_address(text: str) -> str:
    """An address as we write it everywhere: a mapped one (RFC 4291 §2.5.5.2) as the IPv4 address that it stands for; raise ValueError."""
    address = ip_address(text)
    return str(getattr(address, "ipv4_mapped", None) or address)


def read_network(text: str) -> Network:
    """ "192.0.2.0/24", or one address; raise ValueError."""
    return ip_network(text, strict=False)


@lru_cache(maxsize=4096)
def client_of(peer: str) -> str:
    """What counts as one client: an IPv4 address, an IPv6 /64; "" for ourselves and for unix sockets, who are no strangers."""
    if not peer or peer.startswith("unix:"):
        return ""
    address = ip_address(peer.partition("%")[0])
    if address.is_loopback:
        return ""
    return peer if address.version == 4 else f"{IPv6Address(int(address) >> 64 << 64)}/64"
