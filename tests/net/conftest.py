"""One reactor in a thread of its own for all tests of a process: tests are plain functions that talk to it over sockets."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mailsec.errors import Reply
from mailsec.model.session import Identity
from mailsec.wire.smtp import questions


class Loop:
    """The reactor, and two ways to run things in it."""

    def __init__(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        started = threading.Event()
        self.reactor.callWhenRunning(started.set)
        self._thread = threading.Thread(target=lambda: self.reactor.run(installSignalHandlers=False), daemon=True)
        self._thread.start()
        assert started.wait(10)

    def call(self, function: Callable[..., Any], *args: Any, timeout: float = 30, **kwargs: Any) -> Any:
        """The result of `function` (a value, a coroutine or a Deferred), from the reactor's thread."""
        from twisted.internet.threads import blockingCallFromThread

        from mailsec.net.runtime import as_deferred

        def run() -> Any:
            result = function(*args, **kwargs)
            return as_deferred(result).addTimeout(timeout, self.reactor) if hasattr(result, "__await__") else result

        return blockingCallFromThread(self.reactor, run)


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.reactor.callFromThread(loop.reactor.stop)
    loop._thread.join(10)


class Inbox:
    """The layer above an SMTP server: takes everything, and remembers it."""

    def __init__(self, *, hold: Callable[[object], object] | None = None) -> None:
        self.messages: list[tuple[Any, bytes]] = []
        self.clients: list[questions.ClientState] = []
        self.asked: list[object] = []
        self.closed_sessions = 0
        self.hold = hold

    def conversation(self) -> Talk:
        return Talk(self)


class Talk:
    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox
        self.parts: list[bytes] = []

    def ask(self, question: object) -> object:
        self.inbox.asked.append(question)
        if self.inbox.hold is not None:
            answer = self.inbox.hold(question)
            if answer is not None:
                return answer
        if isinstance(question, questions.Authenticate):
            login = question.credentials.login
            return Identity(login, (login,), "PLAIN") if question.credentials.secret == b"secret" else None
        if isinstance(question, questions.MessageComplete):
            self.inbox.messages.append((question.envelope, b"".join(self.parts)))
            self.inbox.clients.append(question.client)
            self.parts = []
            return Reply(250, "2.0.0", f"queued as {len(self.inbox.messages)}")
        if isinstance(question, questions.MessageAbandoned):
            self.parts = []
        return None

    def body(self, chunk: bytes | memoryview) -> None:
        self.parts.append(bytes(chunk))

    def end_of_body(self) -> None:
        pass

    def closed(self) -> None:
        self.inbox.closed_sessions += 1


class Certificates:
    """A CA, and a server certificate for localhost and 127.0.0.1."""

    def __init__(self) -> None:
        self.ca_key = ec.generate_private_key(ec.SECP256R1())
        self.ca = self._make("test CA", self.ca_key.public_key(), None)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._make("localhost", self.key.public_key(), ["localhost", "127.0.0.1", "ca.example.org"])

    def _make(self, name: str, public_key: Any, names: list[str] | None) -> x509.Certificate:
        import ipaddress

        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")]))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=30))
            .add_extension(x509.BasicConstraints(names is None, None), True)
        )
        if names is not None:
            alternatives: list[x509.GeneralName] = [
                x509.IPAddress(ipaddress.ip_address(n)) if n[0].isdigit() else x509.DNSName(n) for n in names
            ]
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), False)
        return builder.sign(self.ca_key, hashes.SHA256())

    @property
    def ca_pem(self) -> bytes:
        return self.ca.public_bytes(serialization.Encoding.PEM)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


@pytest.fixture(scope="session")
def certificates() -> Certificates:
    return Certificates()


@pytest.fixture
def serve(loop: Loop, certificates: Certificates) -> Iterator[Callable[..., tuple[int, Inbox]]]:
    """A function that starts an SMTP listener on a free port: serve(settings, inbox) -> (port, inbox)."""
    from twisted.internet.protocol import Factory

    from mailsec.net.driver import WireProtocol
    from mailsec.net.tls import server_tls
    from mailsec.wire.smtp.server import ServerSettings, SmtpServer

    ports: list[Any] = []
    protocols: list[Any] = []

    def start(settings: ServerSettings | None = None, inbox: Inbox | None = None, **driver: Any) -> tuple[int, Inbox]:
        settings = settings or ServerSettings("gw.example.org")
        inbox = inbox or Inbox()
        tls = server_tls(certificates.pem, certificates.key_pem)

        class Listener(Factory):
            noisy = False

            def buildProtocol(self, addr: Any) -> WireProtocol:
                protocol = WireProtocol(SmtpServer(settings), inbox.conversation(), clock=loop.reactor, tls=tls, **driver)
                protocols.append(protocol)
                return protocol

        port = loop.call(loop.reactor.listenTCP, 0, Listener(), 300, "127.0.0.1")
        ports.append(port)
        return port.getHost().port, inbox

    yield start
    for port in ports:
        loop.call(port.stopListening)
    loop.call(lambda: [protocol.abort() for protocol in protocols if protocol.transport is not None])


@pytest.fixture
def gateway(loop: Loop, tmp_path: Any) -> Iterator[Callable[..., Any]]:
    """A function that makes a spool and a relay to a peer or a NextHop: gateway(peer, **settings of the relay)."""
    from mailsec.model.settings import NextHop
    from tests.net.relay_gateway import Gateway

    gateways: list[Any] = []

    def make(peer: Any, **relay: Any) -> Any:
        hop = peer if isinstance(peer, NextHop) else NextHop("smtp", "127.0.0.1", peer.port, tls="none")
        gateways.append(Gateway(loop, tmp_path / "spool", hop, **relay))
        return gateways[-1]

    yield make
    for one in gateways:
        one.stop(0.2)


@pytest.fixture
def peers() -> Iterator[Callable[..., Any]]:
    """A function that starts a next hop that does as it is told."""
    from tests.net.relay_peer import Peer

    made: list[Any] = []

    def make(*arguments: Any, **more: Any) -> Any:
        made.append(Peer(*arguments, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()
