"""Ports to conversations: adopted sockets, sessions, and how many may be open at once, in all and from one address.

The one invariant: a worker stops accepting when it is full, or all are together (`net.places`), and leaves new connections in the kernel's
queue, where another worker takes them. It never serves one too many: who comes by a race of two workers for the last place is told so.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import structlog
from twisted.internet import tcp, unix
from twisted.internet.address import UNIXAddress
from twisted.internet.protocol import Factory, Protocol

from mailsec.errors import MailsecError
from mailsec.gateway.pipeline import Pipeline
from mailsec.model.networks import client_of
from mailsec.model.session import Session
from mailsec.model.settings import GatewaySettings, ListenerSettings
from mailsec.net.conversations import spoken_on
from mailsec.net.driver import WireProtocol
from mailsec.net.places import Places
from mailsec.net.proxied import Proxied, Proxies, is_user
from mailsec.net.services import Foreign, factory_of
from mailsec.net.turns import GIVE_WAY, Turn, Turns

__all__ = ["Listeners", "open_listeners"]

_log = structlog.get_logger("mailsec.net")

_LOOK_AGAIN = 0.1
"""Seconds after which a worker looks whether there is room again."""


def open_listeners(
    reactor: Any,
    settings: GatewaySettings,
    pipeline: Pipeline,
    descriptors: Sequence[int],
    tls: Mapping[str, Callable[..., Any]],
    turns: Turns,
    places: Places,
) -> Listeners:
    """Listen on inherited sockets, one for each of `settings.listeners`; `tls` gives each listener's `net.tls.ServerTls`, by its name."""
    listeners = Listeners(reactor, settings, pipeline, turns, places)
    for listener, descriptor in zip(settings.listeners, descriptors, strict=True):
        listeners.adopt(listener, descriptor, tls.get(listener.name))
    return listeners


class Listeners:
    """All ports of one worker, and the connections that came in by them."""

    def __init__(self, reactor: Any, settings: GatewaySettings, pipeline: Pipeline, turns: Turns, places: Places) -> None:
        self.reactor = reactor
        self.turns = turns
        self.settings = settings
        self.pipeline = pipeline
        self.services = pipeline.services()
        self.connections: set[WireProtocol | Foreign | Proxied] = set()
        self.accepted = 0
        """Connections since the start."""
        self._ports: list[Any] = []
        self._factories: list[Any] = []
        self._places = places
        self._full = False
        self._closed = False
        self._prefix = pipeline.runtime.random(5).hex()
        self._when_empty: list[Callable[[], None]] = []

    def adopt(self, listener: ListenerSettings, descriptor: int, tls: Callable[..., Any] | None) -> None:
        """Accept connections for `listener` on an inherited listening socket."""
        # Twisted leaves an adopted socket as it is, and would block in accept().
        os.set_blocking(descriptor, False)
        with socket.socket(fileno=os.dup(descriptor)) as probe:
            family = probe.family
        accept = _Accept(self, listener, tls)
        self._factories.append(accept.factory)
        kind: Any = _UnixPort if family == socket.AF_UNIX else _TcpPort
        port: Any = kind._fromListeningDescriptor(self.reactor, descriptor, *(() if family == socket.AF_UNIX else (family,)), accept)
        port.give_turn(Turn(self.turns), self.free, lambda: self._go_on(port))
        port.startListening()
        self._ports.append(port)
        os.close(descriptor)

    def free(self) -> int:
        """How many more may be accepted now; at 0 nothing is accepted until there is room again."""
        free = self._places.free(len(self.connections))
        if free <= 0 and not self._full:
            self._pause()
        return max(free, 0)

    # -- one connection -------------------------------------------------------------------------------------------------------

    def accepted_from(self, accept: _Accept, peer: Any) -> Protocol | None:
        """The protocol of a new connection; None closes it."""
        if accept.proxies is None:
            return self.connect(accept, peer)
        if self._closed or _peer(peer, accept.listener)[0] not in accept.proxies:
            _log.warning("not a proxy", peer=_peer(peer, accept.listener)[0], listener=accept.listener.name)
            return None
        waiting = Proxied(peer, partial(self.connect, accept), self.reactor, self._proxy_gone)
        self.connections.add(waiting)
        return waiting

    def _proxy_gone(self, waiting: Proxied) -> None:
        """Its header has come, or it went away."""
        self.connections.discard(waiting)
        self._tell_if_empty()

    def connect(self, accept: _Accept, peer: Any) -> Protocol | None:
        """The protocol of a connection whose client is known; None closes it."""
        listener, spoken = accept.listener, accept.spoken
        if self._closed:
            return None
        host, port = _peer(peer, listener)
        group = client_of(host)
        if not self._places.take(group):
            _log.warning("too many connections in all", peer=host, listener=listener.name)
            return _TooMany(spoken.full) if spoken.full else None
        protocol: Protocol | None = None
        try:
            protocol = self._welcome(accept, peer, host, port, group)
        finally:
            if protocol is None or isinstance(protocol, _TooMany):
                self._places.leave(group)
        return protocol

    def _welcome(self, accept: _Accept, peer: Any, host: str, port: int, group: str) -> Protocol | None:
        listener, spoken = accept.listener, accept.spoken
        if self._places.too_many(group):
            _log.warning("too many connections", peer=host, listener=listener.name, held=self._places.held(group) - 1)
            return _TooMany(spoken.too_many) if spoken.too_many else None
        self.accepted += 1
        session = Session(
            id=f"{self._prefix}-{self.accepted:x}",
            listener=listener.name,
            origin=listener.origin,
            peer=host,
            peer_port=port,
            local=listener.address,
            hostname=self.settings.hostname,
            behind_own_mta=listener.behind_own_mta,
        )

        if listener.service and self.pipeline.admit_connection(session) is not None:
            _log.warning("not a peer", peer=host, listener=listener.name)
            return None

        def lost(connection: WireProtocol | Foreign) -> None:
            if connection.handshake_failed:
                self.pipeline.tls_failed(session, connection.handshake_failed)
            if listener.service:
                _log.debug("service connection ended", listener=listener.name, service=listener.service, peer=host)
            self._lost(connection, group)

        try:
            connection = self._made(accept, session, peer, lost)
        except MailsecError as error:
            _log.warning("service refuses", service=listener.service, listener=listener.name, error=error.message)
            return None
        except (Exception, SystemExit) as error:
            if not listener.service:
                raise
            _log.error("service failed", service=listener.service, listener=listener.name, exc_info=error)
            return None
        if connection is None:
            return None
        self.connections.add(connection)
        self.turns.opened()
        self.free()
        return connection

    def _made(self, accept: _Accept, session: Session, peer: Any, lost: Callable[[Any], None]) -> WireProtocol | Foreign | None:
        if accept.factory is not None:
            protocol = accept.factory.buildProtocol(peer)
            return None if protocol is None else Foreign(accept.listener.service, protocol, lost)
        core, conversation = accept.spoken.open(session)
        return WireProtocol(
            core,
            conversation,
            clock=self.reactor,
            tls=accept.tls,
            session_timeout=accept.spoken.session_timeout,
            judge=partial(self.pipeline.admit_tls, session),
            on_lost=lost,
            met=partial(accept.met, core) if accept.listener.front.xclient_uids else None,
        )

    def _lost(self, connection: WireProtocol | Foreign, group: str) -> None:
        self.connections.discard(connection)
        self.turns.ended()
        self._places.leave(group)
        if self._full and self._places.roomy(len(self.connections)):
            self._resume()
        self._tell_if_empty()

    def _tell_if_empty(self) -> None:
        if not self.connections:
            waiting, self._when_empty = self._when_empty, []
            for call in waiting:
                call()

    def _pause(self) -> None:
        self._full = True
        _log.warning("full: accepting no more connections for now", connections=len(self.connections))
        for port in self._ports:
            port.stopReading()
        self.reactor.callLater(_LOOK_AGAIN, self._look_again)

    def _look_again(self) -> None:
        """Connections of other workers end, too, and nobody tells us."""
        if self._full and not self._closed:
            if self._places.roomy(len(self.connections)):
                self._resume()
            else:
                self.reactor.callLater(_LOOK_AGAIN, self._look_again)

    def _go_on(self, port: Any) -> None:
        """Another worker had time to take what waits on `port`."""
        if not (self._full or self._closed):
            port.startReading()

    def _resume(self) -> None:
        self._full = False
        if not self._closed:
            for port in self._ports:
                port.startReading()

    # -- the end --------------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Accept nothing more. The sockets themselves live on in the supervisor and the other workers."""
        self._closed = True
        self.turns.close()
        for port in self._ports:
            port.stopListening()
        self._ports.clear()
        for factory in filter(None, self._factories):
            factory.doStop()
        self._factories.clear()

    def drain(self, when_empty: Callable[[], None]) -> None:
        """Accept nothing more, let every session end as soon as it may, and call `when_empty` when the last has."""
        self.close()
        for connection in list(self.connections):
            connection.drain()
        self.leave(when_empty)

    def leave(self, when_empty: Callable[[], None]) -> None:
        """Accept nothing more, and call `when_empty` when the last session has ended by itself."""
        self.close()
        if self.connections:
            self._when_empty.append(when_empty)
        else:
            when_empty()

    def abort(self) -> None:
        """Reset what is still open: what was not acknowledged is the peer's to send again."""
        for connection in list(self.connections):
            connection.abort()


class _InTurn:
    """A port that accepts when it is this worker's turn, and one connection for each turn of the reactor.

    Twisted takes up to hundreds at once. On a socket that workers share, the first to wake would take a whole burst, and the others none.
    """

    reactor: Any

    def give_turn(self, turn: Turn, free: Callable[[], int], go_on: Callable[[], None]) -> None:
        """Called once, before anything is accepted. `free`: how many may be accepted now; `go_on`: the wait is over."""
        self._turn = turn
        self._free = free
        self._go_on = go_on
        self._allowed = 1

    def doRead(self) -> None:
        free = self._free()
        if not free:
            return
        self._allowed = min(self._turn.take(), free)
        if self._allowed:
            super().doRead()  # type: ignore[misc]  # it is mixed into Twisted's ports
        else:
            self.stopReading()  # type: ignore[attr-defined]
            self.reactor.callLater(GIVE_WAY, self._go_on)

    @property
    def numberAccepts(self) -> int:
        return self._allowed

    @numberAccepts.setter
    def numberAccepts(self, wanted: int) -> None:
        pass


class _TcpPort(_InTurn, tcp.Port):
    pass


class _UnixPort(_InTurn, unix.Port):
    pass


class _Accept(Factory):
    """Makes the protocol of each connection of one listener."""

    noisy = False

    def __init__(self, listeners: Listeners, listener: ListenerSettings, tls: Callable[..., Any] | None) -> None:
        self.listeners = listeners
        self.listener = listener
        self.tls = tls
        self.spoken = spoken_on(listener, listeners.settings, listeners.pipeline, listeners.services)
        service = self.spoken.reactor_service
        self.factory = None if service is None else factory_of(service, listener, tls)
        """Twisted's, where a plugin brings one."""
        self.proxies = Proxies(listener.front.proxies) if listener.front.proxies else None

    def met(self, core: Any, transport: Any) -> None:
        """Who is at the other end of a unix socket: a server in front of us is told from others by its user."""
        if is_user(transport, self.listener.front.xclient_uids):
            core.trust_peer()

    def buildProtocol(self, addr: Any) -> Protocol | None:
        return self.listeners.accepted_from(self, addr)


class _TooMany(Protocol):
    """Says why, and closes."""

    transport: Any

    def __init__(self, told: bytes) -> None:
        self._told = told

    def connectionMade(self) -> None:
        self.transport.write(self._told)
        self.transport.loseConnection()


def _peer(peer: Any, listener: ListenerSettings) -> tuple[str, int]:
    if isinstance(peer, UNIXAddress):
        return listener.address, 0
    host: str = peer.host
    # RFC 4291 §2.5.5.2: how IPv4 looks on a socket for both (systemd opens such). One /64 would hold all of it.
    return host.removeprefix("::ffff:") if "." in host else host, peer.port
