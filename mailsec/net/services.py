"""What plugins speak on a `[[listener]] service`: a sans-IO `TcpService`, or a `ReactorService` with a Twisted factory of its own.

The one invariant: whatever a plugin's protocol does (raise, exit, ask for what there is not), it costs its connection and is told under the
plugin's name; listeners, limits and the end of the worker stay ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import structlog
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOFactory

from mailsec.errors import ConfigurationError
from mailsec.interfaces import Conversation, ProtocolCore, ReactorService, TcpService
from mailsec.model.requests import Ask, Close, Deadline, Request, StartTls, Stream
from mailsec.model.session import Session, TlsInfo
from mailsec.model.settings import ListenerSettings

__all__ = ["Foreign", "ServiceCore", "factory_of", "find_service", "opened"]

_log = structlog.get_logger("mailsec.net")

Service = TcpService | ReactorService


def find_service(services: Sequence[Service], listener: ListenerSettings) -> Service:
    """The service that `listener` names. Raise ConfigurationError where there is none, or one that cannot be spoken so."""
    found = next((service for service in services if service.name == listener.service), None)
    if found is None:
        known = ", ".join(service.name for service in services) or "none"
        raise ConfigurationError(f"no plugin brings a service called {listener.service!r}", hint=f"services of enabled plugins: {known}")
    if not hasattr(found, "open"):
        if listener.tls not in ("none", "implicit"):
            # Only our own driver knows when it is safe to begin in the middle.
            raise ConfigurationError(f"the service {found.name!r} cannot do tls = {listener.tls!r}", hint='set tls = "implicit" or "none"')
        if listener.client_certificates != "none":
            raise ConfigurationError(f"the service {found.name!r} cannot judge client certificates", hint="take client_certificates out")
    return found


def opened(service: TcpService, session: Session, *, implicit: bool, handshake: float) -> tuple[ProtocolCore, Conversation]:
    """Core and conversation of a new connection. Raise whatever the plugin raises."""
    core, conversation = service.open(session)
    return ServiceCore(service.name, core, implicit=implicit, handshake=handshake), conversation


class ServiceCore:
    """A plugin's core: under TLS first where that is implicit, cut off where it fails, and ended between two questions when we stop.

    With implicit TLS the core is told `tls_started(info)`, whose requests are carried out, and then `connection_made()`.
    """

    def __init__(self, name: str, core: ProtocolCore, *, implicit: bool, handshake: float) -> None:
        self._name = name
        self._core = core
        self._implicit = implicit
        self._handshake = handshake
        self._waits = False
        """True while it waits for something of ours: an answer, a stream, a handshake."""
        self._draining = False

    def connection_made(self) -> Sequence[Request]:
        if not self._implicit:
            return self._call(self._core.connection_made)
        return (Deadline(self._handshake), StartTls())

    def receive_data(self, data: bytes) -> Sequence[Request]:
        return self._call(self._core.receive_data, data)

    def answer(self, value: Any) -> Sequence[Request]:
        return self._call(self._core.answer, value)

    def streamed(self) -> Sequence[Request]:
        return self._call(self._core.streamed)

    def tls_started(self, info: TlsInfo) -> Sequence[Request]:
        if not self._implicit:
            return self._call(self._core.tls_started, info)
        # The deadline of the handshake is over; the core sets its own.
        first = (Deadline(None), *self._call(self._core.tls_started, info))
        return first if _ends(first) else (*first, *self._call(self._core.connection_made))

    def deadline_passed(self) -> Sequence[Request]:
        return self._call(self._core.deadline_passed)

    def connection_lost(self, reason: str) -> Sequence[Request]:
        return self._call(self._core.connection_lost, reason)

    def drain(self) -> Sequence[Request]:
        """We are about to stop: as the core does it itself, or as soon as nothing is open."""
        self._draining = True
        goodbye = getattr(self._core, "drain", None)
        if goodbye is not None:
            return self._call(goodbye)
        return () if self._waits else (Close(),)

    def _call(self, method: Callable[..., Iterable[Request]], *args: Any) -> tuple[Request, ...]:
        try:
            requests = tuple(method(*args))
            wrong = next((one for one in requests if not isinstance(one, Request)), None)
            if wrong is not None:
                raise TypeError(f"a {type(wrong).__name__} in place of a request")
        except (Exception, SystemExit) as error:
            _log.error("service failed", service=self._name, core=type(self._core).__name__, exc_info=error)
            return (Close(abort=True),)
        self._waits = bool(requests) and isinstance(requests[-1], (Ask, Stream, StartTls))
        if self._draining and not self._waits and not _ends(requests) and not hasattr(self._core, "drain"):
            return (*requests, Close())
        return requests


def _ends(requests: Sequence[Request]) -> bool:
    return bool(requests) and isinstance(requests[-1], (Ask, Stream, StartTls, Close))


def factory_of(service: ReactorService, listener: ListenerSettings, tls: Callable[[StartTls], Any] | None) -> Any:
    """The plugin's factory, under the listener's TLS where it has some. Raise ConfigurationError where the plugin fails."""
    try:
        factory = service.factory()
        factory.doStart()
    except (Exception, SystemExit) as error:
        raise ConfigurationError(f"the service {service.name!r} cannot start: {type(error).__name__}: {error}") from error
    return factory if listener.tls == "none" or tls is None else TLSMemoryBIOFactory(tls(StartTls()), False, factory)


class Foreign(ProtocolWrapper):
    """A connection of a plugin's Twisted factory: counted and ended as ours are. `build` gives the plugin's protocol."""

    handshake_failed = ""

    def __init__(self, name: str, protocol: Any, on_lost: Callable[[Foreign], None]) -> None:
        super().__init__(_NoFactory(), protocol)  # type: ignore[arg-type]
        self._name = name
        self._on_lost: Callable[[Foreign], None] | None = on_lost

    def makeConnection(self, transport: Any) -> None:
        self._contained(super().makeConnection, transport)

    def dataReceived(self, data: bytes) -> None:
        self._contained(super().dataReceived, data)

    def connectionLost(self, reason: Any) -> None:  # type: ignore[override]  # Twisted's has no default either
        try:
            self._contained(super().connectionLost, reason)
        finally:
            on_lost, self._on_lost = self._on_lost, None
            if on_lost is not None:
                on_lost(self)

    def drain(self) -> None:
        """Say what was written, and close."""
        self.loseConnection()  # type: ignore[no-untyped-call]

    def abort(self) -> None:
        """Reset it."""
        transport: Any = self.transport
        transport.abortConnection()

    def _contained(self, method: Callable[..., Any], *args: Any) -> None:
        try:
            method(*args)
        except (Exception, SystemExit) as error:
            _log.error("service failed", service=self._name, exc_info=error)
            if self._on_lost is not None and self.transport is not None:
                self.abort()


class _NoFactory:
    """What Twisted's wrapper wants to register with; the listeners do that."""

    def registerProtocol(self, protocol: Any) -> None:
        pass

    def unregisterProtocol(self, protocol: Any) -> None:
        pass
