"""A connection to a host through an HTTP proxy (CONNECT, RFC 9110 §9.3.6), as an endpoint under TLS.

The one invariant: not an octet of what goes through is sent before the proxy has said 2xx, and its reply is bounded.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["Tunnel"]

_REPLY_OCTETS = 16 * 1024


class _Connecting(Protocol):
    """Asks the proxy; afterwards it only hands octets on."""

    transport: Any

    def __init__(self, authority: bytes, inner: Factory) -> None:
        self._authority = authority
        self._factory = inner
        self._reply = b""
        self._inner: Any = None
        self.through: Deferred[Any] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(b"CONNECT %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: mailsec\r\n\r\n" % (self._authority, self._authority))

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        if self.through.called:
            return
        self._reply += data
        head, end, rest = self._reply.partition(b"\r\n\r\n")
        if not end:
            # Attack: header lines without end.
            if len(self._reply) > _REPLY_OCTETS:
                self._refuse("its reply has no end")
            return
        words = head.split(b"\r\n", 1)[0].split(None, 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1."):
            self._refuse("it does not speak HTTP")
        elif len(words[1]) != 3 or not words[1].startswith(b"2"):
            self._refuse(f"it answers {words[1][:3].decode('ascii', 'replace')} to CONNECT")
        else:
            self._inner = self._factory.buildProtocol(self.transport.getPeer())
            self._inner.makeConnection(self.transport)
            self.through.callback(self._inner)
            if rest:
                self._inner.dataReceived(rest)

    def _refuse(self, why: str) -> None:
        self.transport.abortConnection()
        self.through.errback(_refusal(why))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._inner is not None:
            self._inner.connectionLost(reason)
        elif not self.through.called:
            self.through.errback(_refusal("it closed the connection"))


def _refusal(why: str) -> Exception:
    make: Any = ConnectError
    refusal: Exception = make(string=why)
    return refusal


@implementer(IStreamClientEndpoint)
class Tunnel:
    """An endpoint to `host` and `port` through the proxy at the endpoint `proxy`."""

    def __init__(self, proxy: Any, host: str, port: int) -> None:
        name = f"[{host}]" if ":" in host else host
        self._authority = f"{name}:{port}".encode("ascii")
        self._proxy = proxy

    def connect(self, factory: Factory) -> Any:
        """The protocol that `factory` makes, once the proxy has said yes; ConnectError where it says no."""
        asking = _Connecting(self._authority, factory)
        going = self._proxy.connect(Factory.forProtocol(lambda: asking))
        return going.addCallback(lambda _: asking.through)
