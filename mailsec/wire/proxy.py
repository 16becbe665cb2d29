"""The PROXY protocol, versions 1 and 2: who a proxy says is at the other end (haproxy's proxy-protocol.txt).

The one invariant: a header is read whole and exactly as it is defined, or it is none. Whether the peer is a proxy of ours is for the caller
to know.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from mailsec.errors import ProtocolError
from mailsec.model.networks import read_address

__all__ = ["ProxyHeader", "read_header"]

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
# §2.1: one line of at most 107 octets, single blanks, ports without leading zeros
_LINE = 107
_V1 = re.compile(
    rb"PROXY (?:(TCP4|TCP6) ([0-9a-fA-F.:]{2,39}) ([0-9a-fA-F.:]{2,39}) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})|UNKNOWN(?: [ -~]*)?)\r\n"
)
_LONGEST = 4096
"""Octets of a version 2 header that are read: addresses and their TLVs."""
_STREAM = {0x11: (4, 12), 0x21: (16, 36)}


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """Who the client is; `host` is "" where the proxy speaks for itself (LOCAL, UNKNOWN)."""

    host: str = ""
    port: int = 0


def read_header(octets: bytes) -> tuple[ProxyHeader, int] | None:
    """(the header, how many octets it had); None where more must come. Raise ProtocolError for anything else."""
    if _SIGNATURE.startswith(octets[:12]):
        return _version_2(octets)
    if b"PROXY ".startswith(octets[:6]):
        return _version_1(octets)
    raise ProtocolError("no PROXY header")


def _version_1(octets: bytes) -> tuple[ProxyHeader, int] | None:
    end = octets.find(b"\n", 0, _LINE)
    if end < 0:
        if len(octets) >= _LINE:
            raise ProtocolError("a PROXY header without end")
        return None
    match = _V1.fullmatch(octets[: end + 1])
    if match is None:
        raise ProtocolError("a PROXY header that is none")
    if match[1] is None:
        return ProxyHeader(), end + 1
    kind = ipaddress.IPv4Address if match[1] == b"TCP4" else ipaddress.IPv6Address
    try:
        host, _ = kind(match[2].decode("ascii")), kind(match[3].decode("ascii"))
    except ValueError:
        raise ProtocolError("a PROXY header with a bad address") from None
    port = int(match[4])
    if port > 65535 or int(match[5]) > 65535:
        raise ProtocolError("a PROXY header with a bad port")
    # Attack: a proxy that listens for both families writes ::ffff:192.0.2.1, and one /64 would hold all of IPv4: one guesser keeps all out.
    return ProxyHeader(read_address(str(host)), port), end + 1


def _version_2(octets: bytes) -> tuple[ProxyHeader, int] | None:
    if len(octets) < 16:
        return None
    # §2.2: version and command, family and protocol, length of what follows
    command, family, size = octets[12], octets[13], int.from_bytes(octets[14:16], "big")
    if command not in (0x20, 0x21) or size > _LONGEST:
        raise ProtocolError("a PROXY header of another version or kind")
    if len(octets) < 16 + size:
        return None
    if command == 0x20 or family == 0x00:
        return ProxyHeader(), 16 + size
    known = _STREAM.get(family)
    if known is None or size < known[1]:
        raise ProtocolError("a PROXY header for something else than TCP")
    width, whole = known
    host = read_address(str(ipaddress.ip_address(octets[16 : 16 + width])))
    return ProxyHeader(host, int.from_bytes(octets[16 + whole - 4 : 16 + whole - 2], "big")), 16 + size
