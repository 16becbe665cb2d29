"""Outgoing connections: an address as it stands in the configuration, to a core that is driven there.

The one invariant: either a `Connection` comes of it, whose core asks one last question when it ends, or `Unavailable`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, UserError
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from mailsec.errors import ConfigurationError, Unavailable
from mailsec.interfaces import ProtocolCore
from mailsec.model.requests import StartTls
from mailsec.net.driver import WireProtocol

if TYPE_CHECKING:
    from mailsec.net.lookups import Resolver

__all__ = ["Connection", "connect", "split_address"]

_HOST_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:]+)):([0-9]{1,5})\Z")


def split_address(address: str) -> tuple[str, int]:
    """("HOST", port) of "HOST:PORT" or "[V6]:PORT"; ("/PATH", 0) of "unix:/PATH". Raise ConfigurationError."""
    if address.startswith("unix:"):
        return address[5:], 0
    match = _HOST_PORT.match(address)
    if match is None or int(match[3]) > 65535:
        raise ConfigurationError(f"not an address: {address!r}", hint="write HOST:PORT, [V6]:PORT or unix:PATH")
    return match[1] or match[2], int(match[3])


class Connection:
    """A connection that stands."""

    def __init__(self, protocol: WireProtocol, address: str) -> None:
        self._protocol = protocol
        self.address = address
        """What it leads to: "192.0.2.1:25", "[2001:db8::1]:25" or "unix:PATH"."""

    @property
    def sent(self) -> int:
        return self._protocol.sent

    @property
    def received(self) -> int:
        return self._protocol.received

    def abort(self) -> None:
        """Reset it."""
        self._protocol.abort()


class _Asked:
    """A `Conversation` that is one function: clients receive no bodies."""

    def __init__(self, ask: Callable[[object], object]) -> None:
        self.ask = ask

    def body(self, chunk: bytes | memoryview) -> None:
        """Nothing is received by this side."""

    def end_of_body(self) -> None:
        """Nothing is received by this side."""

    def closed(self) -> None:
        """The core has asked its last question."""


class _Factory(ClientFactory):
    noisy = False

    def __init__(self, protocol: WireProtocol) -> None:
        self._protocol = protocol
        self.connected: Deferred[WireProtocol] = Deferred(self._cancel)
        self.connector: Any = None

    def _cancel(self, connected: Deferred[WireProtocol]) -> None:
        # First of all: the connector reports its end as a failure to connect, and then the next address would be tried.
        connected.errback(CancelledError())
        self.connector.disconnect()

    def startedConnecting(self, connector: Any) -> None:
        self.connector = connector

    def buildProtocol(self, addr: Any) -> WireProtocol:
        return self._protocol

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        if not self.connected.called:
            self.connected.errback(reason)


class _Outgoing(WireProtocol):
    """Says when it stands, before its core says anything."""

    factory: _Factory

    def connectionMade(self) -> None:
        self.factory.connected.callback(self)
        super().connectionMade()


def _words(error: ConnectError) -> str:
    """What the system said: "connection refused", not the three sentences that Twisted makes of it."""
    if isinstance(error, UserError):  # its timeout
        return "no answer in time"
    number = error.osError
    if isinstance(number, int):
        return os.strerror(number).lower()
    return (str(error).rstrip(".") or type(error).__name__).lower()


async def connect(
    reactor: Any,
    address: str,
    core: ProtocolCore,
    ask: Callable[[object], object],
    *,
    timeout: float,
    tls: Callable[[StartTls], Any],
    resolver: Resolver,
) -> Connection:
    """Try the addresses of `address` in turn; raise Unavailable where none answers."""
    host, port = split_address(address)
    targets: list[str] = [host] if host.startswith("/") else await resolver.addresses(host)
    if not targets:
        raise Unavailable(f"{host} has no address", stage="dns")
    why = ""
    # Two addresses (one of each family, say) share the time; a third that is tried at all gets as much.
    each = timeout / min(len(targets), 2)
    for target in targets:
        protocol = _Outgoing(core, _Asked(ask), clock=reactor, tls=tls, cancel=True)
        factory = _Factory(protocol)
        protocol.factory = factory
        if target.startswith("/"):
            name = f"unix:{target}"
            factory.connector = reactor.connectUNIX(target, factory, timeout=each)
        else:
            name = f"[{target}]:{port}" if ":" in target else f"{target}:{port}"
            factory.connector = reactor.connectTCP(target, port, factory, timeout=each)
        try:
            await factory.connected
        except ConnectError as error:
            why = _words(error) if name == address else f"{name}: {_words(error)}"
        else:
            return Connection(protocol, name)
    raise Unavailable(f"cannot connect to {address}: {why}", hint="is the next hop running, and reachable from here?", stage="connect")
