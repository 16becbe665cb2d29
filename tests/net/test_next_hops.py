"""The client core over real sockets: aiosmtpd, our own listener, STARTTLS in every mode, next hops that fail."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from twisted.internet.defer import Deferred

from mailsec.errors import Unavailable
from mailsec.model.address import Address
from mailsec.model.octets import Segments
from mailsec.model.session import Recipient
from mailsec.net.runtime import TwistedRuntime
from mailsec.wire.smtp.client import ClientSettings, SmtpClient
from mailsec.wire.smtp.offers import ServerSettings
from mailsec.wire.smtp.questions import Ended, NextMessage, OutgoingMessage, Quit


def outgoing(body: bytes = b"Subject: x\r\n\r\n.hello\r\n", *to: str, **more: Any) -> OutgoingMessage:
    recipients = tuple(Recipient(Address.parse(r)) for r in to or ("bob@example.org",))
    return OutgoingMessage(Address.parse("a@b.example"), recipients, Segments.of(body), **more)


@pytest.fixture
def runtime(loop, certificates) -> Iterator[TwistedRuntime]:
    runtime = TwistedRuntime(loop.reactor, roots=certificates.ca_pem)
    yield runtime
    loop.call(runtime.close)


@pytest.fixture
def deliver(loop, runtime) -> Callable[..., tuple[list[Any], Ended]]:
    """Deliver messages over one connection; returns the results and how the session ended."""

    def run(port: int, *messages: OutgoingMessage, address: str = "", **settings: Any) -> tuple[list[Any], Ended]:
        queue = list(messages)
        results: list[Any] = []

        async def session() -> Ended:
            over: Deferred[Ended] = Deferred()

            def ask(question: object) -> object:
                if isinstance(question, Ended):
                    over.callback(question)
                    return None
                assert isinstance(question, NextMessage)
                if question.result is not None:
                    results.append((question.result, question.tls))
                return queue.pop(0) if queue else Quit()

            core = SmtpClient(ClientSettings("gw.example.org", **{"tls": "none", **settings}))
            await runtime.connect(address or f"127.0.0.1:{port}", core, ask, timeout=5)
            return await over

        return results, loop.call(session)

    return run


class Handler:
    def __init__(self) -> None:
        self.messages: list[tuple[str, list[str], bytes]] = []

    async def handle_DATA(self, server, session, envelope):
        self.messages.append((envelope.mail_from, envelope.rcpt_tos, envelope.original_content))
        return "250 2.0.0 kept"

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        if address.startswith("no"):
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 ok"


@pytest.fixture
def aiosmtpd(certificates, tmp_path) -> Iterator[Callable[..., tuple[int, Handler]]]:
    started: list[Controller] = []
    (tmp_path / "cert.pem").write_bytes(certificates.pem)
    (tmp_path / "key.pem").write_bytes(certificates.key_pem)

    def start(*, tls: bool = False) -> tuple[int, Handler]:
        handler = Handler()
        context = None
        if tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
        controller = Controller(handler, "127.0.0.1", 0, tls_context=context)
        # aiosmtpd connects to itself to see whether it runs: it must know the port that the kernel gave it.
        with socket.create_server(("127.0.0.1", 0)) as probe:
            controller.port = probe.getsockname()[1]
        controller.start()
        started.append(controller)
        return controller.port, handler

    yield start
    for controller in started:
        controller.stop()


def test_aiosmtpd_gets_messages_over_one_connection(deliver, aiosmtpd):
    port, handler = aiosmtpd()
    results, ended = deliver(
        port, outgoing(), outgoing(b"two\r\n", "no@example.org", "carol@example.org"), outgoing(b"x", "no@example.org"), outgoing()
    )
    assert ended.error is None
    assert [[r.code for r in result.replies] for result, _ in results] == [[250], [550, 250], [550], [250]]
    assert [m[2] for m in handler.messages] == [b"Subject: x\r\n\r\n.hello\r\n", b"two\r\n", b"Subject: x\r\n\r\n.hello\r\n"]


@pytest.mark.parametrize("mode", ["opportunistic", "required", "verified"])
def test_aiosmtpd_over_starttls(deliver, aiosmtpd, mode):
    port, handler = aiosmtpd(tls=True)
    results, ended = deliver(port, outgoing(), tls=mode, server_name="localhost")
    assert ended.error is None and len(handler.messages) == 1
    tls = results[0][1]
    assert tls.version == "TLSv1.3" and tls.peer_verified is (mode == "verified")


def test_verified_takes_no_other_name_and_no_other_root(deliver, aiosmtpd, loop, certificates):
    port, handler = aiosmtpd(tls=True)
    results, ended = deliver(port, outgoing(), tls="verified", server_name="other.example")
    assert ended.tls_failed and ended.error.temporary and results == []
    assert handler.messages == []


def test_verified_takes_no_other_root(loop, aiosmtpd):
    port, handler = aiosmtpd(tls=True)
    stranger = TwistedRuntime(loop.reactor)
    ends: list[Ended] = []

    async def session() -> None:
        over: Deferred[None] = Deferred()

        def ask(question: object) -> object:
            if isinstance(question, Ended):
                ends.append(question)
                over.callback(None)
                return None
            return outgoing()

        core = SmtpClient(ClientSettings("gw.example.org", tls="verified", server_name="localhost"))
        await stranger.connect(f"127.0.0.1:{port}", core, ask, timeout=5)
        await over

    loop.call(session)
    assert ends[0].tls_failed and "certificate verify failed" in ends[0].error.message
    assert handler.messages == []


def test_required_without_an_offer_sends_nothing(deliver, aiosmtpd):
    port, handler = aiosmtpd()
    _, ended = deliver(port, outgoing(), tls="required")
    assert ended.error.stage == "starttls" and handler.messages == []


def test_our_own_listener_10_mib_over_tls(deliver, serve):
    port, inbox = serve(ServerSettings("mx.example", tls="starttls"))
    body = b"".join(b".%07d %s\r\n" % (n, b"x" * 90) for n in range(100_000))
    results, ended = deliver(port, outgoing(body, eight_bit=True), outgoing(), tls="required")
    assert ended.error is None and [r.replies[0].code for r, _ in results] == [250, 250]
    assert inbox.messages[0][1] == body


class Scripted:
    """A next hop that says what it is told: for each entry it waits for a word, then says something or closes."""

    def __init__(self, *script: tuple[bytes, bytes | None], stall: bool = False) -> None:
        self.stall = threading.Event()
        if not stall:
            self.stall.set()
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.heard = b""
        self.script = script
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        sock, _ = self.listening.accept()
        with sock:
            for word, say in self.script:
                while word and word not in self.heard:
                    try:
                        data = sock.recv(65536)
                    except OSError:
                        return
                    if not data:
                        return
                    self.heard += data
                if say is None:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    return
                sock.sendall(say)
            self.stall.wait(10)
            while True:
                try:
                    data = sock.recv(65536)
                except OSError:
                    return
                if not data:
                    return
                self.heard += data


HELLO = b"250-x\r\n250 PIPELINING\r\n"


def test_next_hop_that_closes_in_the_middle_of_data(deliver):
    hop = Scripted((b"", b"220 x\r\n"), (b"EHLO", HELLO), (b"DATA\r\n", b"250 ok\r\n250 ok\r\n354 go\r\n"), (b"x" * 100_000, None))
    results, ended = deliver(hop.port, outgoing(b"x" * 5_000_000))
    assert results == [] and ended.result.replies[0].temporary and ended.error.temporary


def test_replies_injected_behind_starttls_are_not_read_under_tls(deliver):
    hop = Scripted((b"", b"220 x\r\n"), (b"EHLO", b"250-x\r\n250 STARTTLS\r\n"), (b"STARTTLS", b"220 go\r\n250-evil\r\n250 AUTH PLAIN\r\n"))
    _, ended = deliver(hop.port, outgoing(), tls="required", username="u", password=b"secret")
    assert ended.error.stage == "starttls"
    hop.thread.join(5)
    assert b"AUTH" not in hop.heard and b"MAIL" not in hop.heard


def test_next_hop_that_speaks_no_tls_after_220(deliver):
    hop = Scripted(
        (b"", b"220 x\r\n"), (b"EHLO", b"250-x\r\n250 STARTTLS\r\n"), (b"STARTTLS", b"220 go\r\n"), (b"\x16\x03", b"500 what?\r\n")
    )
    _, ended = deliver(hop.port, outgoing(), tls="opportunistic")
    assert ended.tls_failed and ended.error.stage in ("tls", "starttls")
    assert b"MAIL" not in hop.heard


def test_next_hop_that_says_nothing_is_given_up(deliver):
    hop = Scripted()
    _, ended = deliver(hop.port, outgoing(), greeting_timeout=0.1)
    assert "timeout" in ended.error.message and ended.result is None


def test_next_hop_that_takes_no_more_octets_is_given_up(deliver):
    hop = Scripted((b"", b"220 x\r\n"), (b"EHLO", HELLO), (b"DATA\r\n", b"250 ok\r\n250 ok\r\n354 go\r\n"), stall=True)
    _, ended = deliver(hop.port, outgoing(b"x" * 30_000_000), body_timeout=0.3)
    hop.stall.set()
    assert ended.error is not None and ended.result.replies[0].temporary and not ended.result.handed_over


def test_replies_that_come_before_the_commands_are_not_believed(deliver):
    hop = Scripted((b"", b"220 x\r\n"), (b"EHLO", HELLO + b"250 ok\r\n250 ok\r\n354 go\r\n250 kept\r\n"))
    results, ended = deliver(hop.port, outgoing())
    assert results == [] and ended.result.replies[0].temporary
    assert b"Subject" not in hop.heard


def test_nobody_there_is_unavailable(deliver):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(Unavailable) as info:
        deliver(port, outgoing())
    assert info.value.stage == "connect"


def test_unix_socket(deliver, loop, tmp_path):
    from twisted.internet.protocol import Factory

    from mailsec.net.driver import WireProtocol
    from mailsec.wire.smtp.server import SmtpServer

    from .conftest import Inbox

    inbox = Inbox()

    class Listener(Factory):
        noisy = False

        def buildProtocol(self, addr):
            return WireProtocol(SmtpServer(ServerSettings("mx.example")), inbox.conversation(), clock=loop.reactor)

    port = loop.call(loop.reactor.listenUNIX, str(tmp_path / "socket"), Listener())
    results, ended = deliver(0, outgoing(), address=f"unix:{tmp_path}/socket")
    assert ended.error is None and results[0][0].replies[0].code == 250 and len(inbox.messages) == 1
    loop.call(port.stopListening)


def test_idle_connection_that_the_next_hop_closes_ends_the_session(loop, runtime):
    hop = Scripted((b"", b"220 x\r\n"), (b"EHLO", HELLO + b"421 idle\r\n"))
    asked: list[object] = []
    cancelled: list[bool] = []

    async def session() -> None:
        over: Deferred[None] = Deferred()

        def ask(question: object) -> object:
            asked.append(question)
            if isinstance(question, Ended):
                over.callback(None)
                return None
            return Deferred(lambda _: cancelled.append(True))

        connection = await runtime.connect(
            f"127.0.0.1:{hop.port}", SmtpClient(ClientSettings("gw.example.org", tls="none")), ask, timeout=5
        )
        loop.reactor.callLater(0.05, connection.abort)
        await over

    loop.call(session)
    assert isinstance(asked[-1], Ended) and cancelled == [True]


def test_attack_next_hop_that_floods_us_while_we_have_nothing_to_say_fills_no_memory(loop, runtime):
    """Between two messages nothing is awaited: what it says then waits in the kernel, and it with it."""
    listening = socket.create_server(("127.0.0.1", 0))
    sent: list[int] = []

    def flood() -> None:
        opened, _ = listening.accept()
        with opened:
            opened.settimeout(60)
            opened.sendall(b"220 x\r\n")
            opened.recv(100)
            opened.sendall(HELLO)
            opened.settimeout(2)
            try:
                while sum(sent) < 200 * 1024 * 1024:
                    sent.append(opened.send(b"250 and another\r\n" * 4096))
            except OSError:
                pass

    thread = threading.Thread(target=flood)
    thread.start()
    connections: list[object] = []

    async def session() -> None:
        def ask(question: object) -> object:
            return None if isinstance(question, Ended) else Deferred(lambda _: None)

        core = SmtpClient(ClientSettings("gw.example.org", tls="none"))
        connections.append(await runtime.connect(f"127.0.0.1:{listening.getsockname()[1]}", core, ask, timeout=5))

    loop.call(session)
    thread.join(60)
    # What the kernel keeps for both ends is some MiB.
    assert sum(sent) < 50 * 1024 * 1024
    assert loop.call(lambda: connections[0].received) < 1024 * 1024
    loop.call(connections[0].abort)
    listening.close()
