"""Connections that come through a proxy: who the client is stands in a PROXY header, and nothing begins before that was read.

The one invariant: only listed proxies are listened to, and one that sends no header is cut off: what a stranger announces counts for nothing,
and no client is taken for the proxy.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from mailsec.errors import ProtocolError
from mailsec.wire.proxy import read_header

__all__ = ["Proxied", "Proxies", "is_user"]

_log = structlog.get_logger("mailsec.net")

_CREDENTIALS = struct.Struct("=iII")
_SECONDS = 10.0
"""For the header: a proxy sends it at once."""


class Proxies:
    """The proxies of one listener."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = tuple(ipaddress.ip_network(one, strict=False) for one in networks)

    def __contains__(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address.version == network.version and address in network for network in self._networks)


class Proxied(Protocol):
    """A connection whose header has not come yet. It then gives way to the protocol that is spoken there."""

    transport: Any
    handshake_failed = ""

    def __init__(self, peer: Any, made: Callable[[Any], Protocol | None], clock: Any, on_lost: Callable[[Proxied], None]) -> None:
        """`made` gives the protocol for an address, None where it is not welcome."""
        self._peer = peer
        self._made = made
        self._clock = clock
        self._on_lost = on_lost
        self._heard = b""
        self._deadline: Any = None

    def connectionMade(self) -> None:
        self._deadline = self._clock.callLater(_SECONDS, self.abort)

    def dataReceived(self, data: bytes) -> None:
        self._heard += data
        try:
            found = read_header(self._heard)
        except ProtocolError as error:
            _log.warning("proxy refused", peer=self._peer.host, reason=error.message)
            self.abort()
            return
        if found is None:
            return
        header, size = found
        rest, self._heard = self._heard[size:], b""
        self._end()
        transport = self.transport
        protocol = self._made(_address(header.host, header.port) if header.host else self._peer)
        if protocol is None:
            transport.abortConnection()
            return
        transport.protocol = protocol
        protocol.makeConnection(transport)  # type: ignore[no-untyped-call]
        if rest:
            # By whoever reads now: where TLS begins at once these are its first octets.
            transport.protocol.dataReceived(rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end()

    def abort(self) -> None:
        """Reset it."""
        self.transport.abortConnection()

    def drain(self) -> None:
        """We are about to stop: nothing has been said yet."""
        self.abort()

    def _end(self) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            if deadline.active():
                deadline.cancel()
            self._on_lost(self)


def is_user(transport: Any, uids: Sequence[int]) -> bool:
    """True where one of these users of this machine is at the other end of a unix socket (SO_PEERCRED, unix(7)): the kernel says so."""
    opened = transport.socket
    if opened.family != socket.AF_UNIX:
        return False
    _, uid, _ = _CREDENTIALS.unpack(opened.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return uid in uids


def _address(host: str, port: int) -> IPv4Address | IPv6Address:
    return IPv6Address("TCP", host, port) if ":" in host else IPv4Address("TCP", host, port)
