"""TLS over a socket with the shortest way between the two.

It is Twisted's TLS layer. What is left out costs more than the handshake's cryptography: interfaces that are declared for each connection
(zope), writes that wait for the next turn of the reactor, two epoll_ctl()s for each of them, and questions that the library answers with an
exception. The one invariant: octets go in the order
in which they were written: straight to the socket only where no buffer holds any, and what the kernel does not take Twisted's way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from OpenSSL import SSL
from twisted.internet._newtls import _BypassTLS
from twisted.internet.abstract import FileDescriptor
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.tcp import Connection
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from mailsec.net.tls_library import has_input, waits_to_leave

__all__ = ["say_last", "start_tls"]

_RECORD = 2**14
"""The most that one record holds (RFC 8446 §5.1)."""


class _Straight(FileDescriptor):
    """Called like Twisted's class, with the connection for `self`, by what stands between a connection and its TLS layer."""

    def write(self: Any, data: bytes) -> None:
        if data and self.connected and not (self.dataBuffer or self._tempDataBuffer or self.disconnecting or self._writeDisconnected):
            try:
                taken = self.socket.send(data)
            except OSError:  # full for now, or broken: Twisted finds out which
                taken = 0
            if taken == len(data):
                return
            data = data[taken:]
        FileDescriptor.write(self, data)


class _Layer(TLSMemoryBIOProtocol):
    """Twisted's, which declares no interfaces (our driver asks for none), and says in one piece what belongs together."""

    factory: Any
    transport: Any
    wrappedProtocol: Any
    client = False
    held = False
    """True while what is to be written waits for what comes with it."""
    _hears_end = False
    """True when the library is to say how the session ended."""
    _tickets = 0
    """Above 0 while the library has tickets to send, and nothing else."""

    def makeConnection(self, transport: Any) -> None:
        self._tlsConnection = self.factory._creatorCallable(self)
        self._appSendBuffer: list[bytes] = []
        Protocol.makeConnection(self, transport)  # type: ignore[no-untyped-call]
        self.factory.registerProtocol(self)
        # RFC 8446 §2: the client speaks first.
        if self.client:
            self._checkHandshakeStatus()

    def _checkHandshakeStatus(self) -> None:
        if self._handshakeDone or self.client:
            super()._checkHandshakeStatus()  # type: ignore[no-untyped-call]
            return
        # RFC 8446 §4.6.1: what a server has to say at the end of a handshake is tickets only. They go with the first words of what is
        # spoken above, or when the client has said something.
        self._tickets = 2
        super()._checkHandshakeStatus()  # type: ignore[no-untyped-call]
        done: bool = self._handshakeDone
        if not (done and self._tlsConnection.get_protocol_version_name() == "TLSv1.3"):
            self._tickets = 0
            self._flushSendBIO()

    def _flushReceiveBIO(self) -> None:
        if self._tickets:
            self._tickets -= 1
        connection = self._tlsConnection
        while not self._lostTLSConnection and (self._hears_end or has_input(connection)):
            try:
                data = connection.recv(_RECORD)
            except SSL.WantReadError:
                break
            except SSL.ZeroReturnError:
                self._shutdownTLS()
                self._tlsShutdownFinished(None)  # type: ignore[no-untyped-call]
            except SSL.Error:
                self._tlsShutdownFinished(Failure())  # type: ignore[no-untyped-call]
            else:
                if not self._aborted:
                    self.wrappedProtocol.dataReceived(data)
        self._flushSendBIO()

    def _flushSendBIO(self) -> None:
        if self.held or self._tickets:
            return
        count = waits_to_leave(self._tlsConnection)
        if count > 0:
            self.transport.write(self._tlsConnection.bio_read(count))
        elif count:
            super()._flushSendBIO()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # How a session of ours as a server ends without a goodbye of TLS tells nobody anything: what was said is framed by its protocol.
        self._hears_end = self.client or not self._handshakeDone
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    def _shutdownTLS(self) -> None:
        self._tickets = 0
        super()._shutdownTLS()  # type: ignore[no-untyped-call]

    def write(self, data: bytes) -> None:
        self._tickets = 0
        super().write(data)  # type: ignore[no-untyped-call]


_factories: WeakKeyDictionary[Any, TLSMemoryBIOFactory] = WeakKeyDictionary()
"""One for each listener's creator; a next hop's is made for one connection."""


def start_tls(transport: Any, creator: Any) -> None:
    """What `transport.startTLS(creator)` does. On anything but a socket of Twisted it is just that."""
    if not isinstance(transport, Connection) or transport.producer is not None:
        transport.startTLS(creator)
        return
    connection: Any = transport
    factory = _factories.get(creator)
    if factory is None:
        factory = _factories[creator] = TLSMemoryBIOFactory(creator, connection._tlsClientDefault, None)  # type: ignore[arg-type]
    layer = _Layer(factory, connection.protocol, False)  # type: ignore[no-untyped-call]
    layer.client = connection._tlsClientDefault
    connection.protocol = layer
    connection.getHandle = layer.getHandle
    connection.getPeerCertificate = layer.getPeerCertificate
    connection.TLS = True
    layer.makeConnection(_BypassTLS(_Straight, connection))  # type: ignore[no-untyped-call]


def say_last(transport: Any, flush: Callable[[], None]) -> None:
    """Call `flush`, which writes the last words, and close; under TLS the words and the goodbye of TLS go in one piece."""
    layer = transport.protocol if isinstance(transport, Connection) else None
    if not isinstance(layer, _Layer) or layer.held:
        flush()
        transport.loseConnection()
        return
    layer.held = True
    try:
        flush()
        transport.loseConnection()
    finally:
        layer.held = False
        layer._flushSendBIO()
