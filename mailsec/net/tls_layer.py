"""TLS between a socket of Twisted and a `WireProtocol`: the shortest way between the two, for both sides.

Twisted's own layer asks each connection which interfaces it has, writes in the next turn of the reactor with two epoll_ctl()s, and is told
"nothing yet" by an exception: more than the handshake's cryptography costs. The one invariant: octets go in the order in which they were
written: straight to the socket only where no buffer holds any, and what the kernel does not take goes Twisted's way, which says when it is
too much.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure

from mailsec.net.tls_memory import AT_ONCE, REACHES, MemorySession

__all__ = ["TlsLayer", "say_last", "start_tls"]

_MOST_WAITING = 8 * 2**20
"""Octets that wait for the socket; who writes much is paused long before (`WireProtocol`)."""


class TlsLayer:
    """The protocol of a socket, and the transport of `above`, a `WireProtocol`."""

    __slots__ = ("_above", "_client", "_early", "_held", "_leaving", "_over", "_reason", "_session", "_shaken", "_socket", "_tickets")

    def __init__(self, socket: Any, above: Any, connection: SSL.Connection, *, client: bool) -> None:
        self._client = client
        self._socket = socket
        self._above = above
        self._session = MemorySession(connection)
        self._shaken = False
        self._early: list[bytes] = []
        """What was to be said before the handshake was complete."""
        self._held = False
        """True while what is to be written waits for what comes with it."""
        self._tickets = False
        """True while a server has only tickets to send."""
        self._leaving = False
        """True when we have said our last."""
        self._over = False
        """True when nothing is read or written any more."""
        self._reason: Failure | None = None

    def begin(self) -> None:
        """RFC 8446 §2: the client speaks first."""
        self._advance()

    # -- what the socket calls ------------------------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        if self._over:
            return
        self._session.take(data)
        self._advance()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # How a session ends without a goodbye of TLS tells nobody anything: what was said is framed by its protocol.
        self._over = True
        self._above.connectionLost(self._reason or reason)
        # It holds us as its transport: nothing waits for the collector of garbage.
        del self._above

    def _advance(self) -> None:
        session = self._session
        try:
            if not self._shaken:
                if not session.shake():
                    self._flush()
                    return
                self._complete()
            else:
                # Attack: new keys are asked for without end (RFC 8446 §4.6.3) by who says nothing else; the answers must not wait for words.
                self._tickets = False
            while not self._over and (content := session.read()) is not None:
                self._tickets = False
                if not self._leaving:
                    self._above.dataReceived(content)
        except SSL.ZeroReturnError:
            # RFC 8446 §6.1: the peer writes no more, and no protocol here goes on with one side.
            session.goodbye()
            self._end(None)
            return
        except SSL.Error:
            self._end(Failure())  # type: ignore[no-untyped-call]
            return
        if not self._over:
            self._flush()

    def _complete(self) -> None:
        self._shaken = True
        # RFC 8446 §4.6.1: what a server has to say at the end of a handshake is tickets only. They go with the first words of what is
        # spoken above, or when the client has said something.
        self._tickets = not self._client and self._session.is_newest
        early, self._early = self._early, []
        for data in early:
            self.write(data)
        self._above.handshakeCompleted()

    # -- what is written --------------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        if self._held or self._tickets:
            return
        while data := self._session.give():
            self._send(data)

    def _send(self, data: bytes) -> None:
        socket = self._socket
        if socket.connected and not (socket.dataBuffer or socket._tempDataBuffer or socket.disconnecting or socket._writeDisconnected):
            try:
                taken = socket.socket.send(data)
            except OSError:  # full for now, or broken: Twisted finds out which
                taken = 0
            if taken == len(data):
                return
            data = data[taken:]
        if len(socket.dataBuffer) + socket._tempDataLen > _MOST_WAITING:
            # Attack: new keys are asked for without end, and the answers are not taken. Nobody above says them, nor counts them.
            self.abortConnection()
            return
        socket.write(data)

    def _end(self, reason: Failure | None) -> None:
        """The session is over: flush what the library says about it (an alert), and let go of the socket."""
        self._over, self._reason = True, reason
        self._held = self._tickets = False
        self._flush()
        self._socket.loseConnection()

    # -- what is called from above ------------------------------------------------------------------------------------------------

    def write(self, data: bytes | memoryview) -> None:
        if self._over or self._leaving or not data:
            return
        if not self._shaken:
            self._early.append(bytes(data))
            return
        self._tickets = False
        session = self._session
        try:
            if len(data) <= AT_ONCE:
                session.write(data)
                self._flush()
                return
            whole = memoryview(data)
            for start in range(0, len(whole), AT_ONCE):
                session.write(whole[start : start + AT_ONCE])
                self._flush()
        except SSL.Error:
            self._end(Failure())  # type: ignore[no-untyped-call]

    def say_last(self, flush: Callable[[], None]) -> None:
        """`flush` writes the last words; they and the goodbye of TLS go in one piece."""
        self._held = True
        try:
            flush()
        finally:
            self._held = False
        self.loseConnection()

    def loseConnection(self) -> None:
        if self._over or self._leaving:
            return
        if not self._shaken:
            self.abortConnection()
            return
        self._leaving, self._tickets = True, False
        both = self._session.goodbye()
        self._flush()
        if both:
            self._socket.loseConnection()

    def abortConnection(self) -> None:
        self._over = True
        self._socket.abortConnection()

    def pauseProducing(self) -> None:
        self._socket.pauseProducing()

    def resumeProducing(self) -> None:
        self._socket.resumeProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        # Nothing waits here: the socket knows what has not gone.
        self._socket.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self._socket.unregisterProducer()

    def getHandle(self) -> SSL.Connection:
        return self._session.connection


def start_tls(above: Any, creator: Any) -> None:
    """Begin TLS on the transport of `above`, and be its transport. `creator` makes the connections of a listener, or of a next hop.

    On anything but a socket of Twisted it is `transport.startTLS(creator)`.
    """
    transport = above.transport
    if not (REACHES and isinstance(transport, Connection)):
        transport.startTLS(creator)
        return
    socket: Any = transport
    client = socket._tlsClientDefault
    connection = creator.clientConnectionForTLS(above) if client else creator.serverConnectionForTLS(above)
    if client:
        connection.set_connect_state()
    else:
        connection.set_accept_state()
    layer = TlsLayer(socket, above, connection, client=client)
    socket.protocol = above.transport = layer
    if client:
        layer.begin()


def say_last(transport: Any, flush: Callable[[], None]) -> None:
    """Call `flush`, which writes the last words, and close; under TLS the words and the goodbye of TLS go in one piece."""
    if isinstance(transport, TlsLayer):
        transport.say_last(flush)
        return
    flush()
    transport.loseConnection()
