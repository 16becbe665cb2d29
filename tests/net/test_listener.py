"""A listener on real sockets: independent clients, TLS, stalled peers, questions answered later."""

from __future__ import annotations

import smtplib
import socket
import ssl
import subprocess
import time

import pytest
from twisted.internet.address import IPv4Address, IPv6Address

from mailsec.errors import Reply, TryLater
from mailsec.model.limits import Limits
from mailsec.model.networks import client_of
from mailsec.model.session import Origin
from mailsec.model.settings import ListenerSettings
from mailsec.net.listeners import _peer
from mailsec.wire.smtp import questions
from mailsec.wire.smtp.server import ServerSettings

from .conftest import Inbox

MESSAGE = b"From: a@b.example\r\nSubject: x\r\n\r\n.dot\r\n..two\r\nend\r\n"


def client_context(certificates) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=certificates.ca_pem.decode())


def test_smtplib_sends_a_message(serve):
    port, inbox = serve()
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as smtp:
        smtp.sendmail("alice@b.example", ["bob@example.org", "carol@example.org"], MESSAGE)
        smtp.sendmail("", ["bob@example.org"], MESSAGE)
    (envelope, octets), (second, _) = inbox.messages
    assert octets == MESSAGE
    assert str(envelope.reverse_path) == "alice@b.example"
    assert [str(r.address) for r in envelope.recipients] == ["bob@example.org", "carol@example.org"]
    assert second.reverse_path is None


@pytest.mark.parametrize("tls", ["starttls-required", "implicit"])
def test_smtplib_authenticates_under_tls(serve, certificates, tls):
    port, inbox = serve(ServerSettings("gw.example.org", tls=tls, authenticate=True))
    context = client_context(certificates)
    if tls == "implicit":
        smtp = smtplib.SMTP_SSL("localhost", port, timeout=10, context=context)
    else:
        smtp = smtplib.SMTP("localhost", port, timeout=10)
        with pytest.raises(smtplib.SMTPSenderRefused):
            smtp.sendmail("alice@b.example", ["bob@example.org"], MESSAGE)
        smtp.starttls(context=context)
    with smtp:
        with pytest.raises(smtplib.SMTPSenderRefused):
            smtp.sendmail("alice@b.example", ["bob@example.org"], MESSAGE)
        with pytest.raises(smtplib.SMTPAuthenticationError):
            smtp.login("alice@b.example", "wrong")
        smtp.login("alice@b.example", "secret")
        smtp.sendmail("alice@b.example", ["bob@example.org"], MESSAGE)
    (client,) = inbox.clients
    assert client.protocol == "ESMTPSA"
    assert client.identity is not None and client.identity.name == "alice@b.example"
    assert client.tls is not None and client.tls.version == "TLSv1.3"
    assert client.tls.server_name == "localhost"


def test_large_message_over_tls_arrives_octet_for_octet(serve, certificates):
    port, inbox = serve(ServerSettings("gw.example.org", tls="starttls"))
    message = b"".join(b"%06d .line %s\r\n" % (n, b"x" * (n % 90)) for n in range(40_000))
    with smtplib.SMTP("localhost", port, timeout=20) as smtp:
        smtp.starttls(context=client_context(certificates))
        smtp.sendmail("alice@b.example", ["bob@example.org"], message)
    assert inbox.messages[0][1] == message


def test_openssl_s_client_starts_tls(serve, certificates, need, tmp_path):
    port, _ = serve(ServerSettings("gw.example.org", tls="starttls"))
    ca = tmp_path / "ca.pem"
    ca.write_bytes(certificates.ca_pem)
    for version in ("-tls1_2", "-tls1_3"):
        run = subprocess.run(
            [need("openssl"), "s_client", "-starttls", "smtp", "-connect", f"127.0.0.1:{port}", "-CAfile", ca, "-verify_return_error",
             "-verify_hostname", "localhost", "-crlf", "-ign_eof", version],
            input=b"EHLO x\nQUIT\n", capture_output=True, timeout=20,
        )  # fmt: skip
        assert b"Verify return code: 0 (ok)" in run.stdout, run.stdout + run.stderr
        assert b"250 ENHANCEDSTATUSCODES" in run.stdout


def test_tls_1_1_is_refused(serve, need):
    port, _ = serve(ServerSettings("gw.example.org", tls="starttls"))
    run = subprocess.run(
        [need("openssl"), "s_client", "-starttls", "smtp", "-connect", f"127.0.0.1:{port}", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        input=b"", capture_output=True, timeout=20,
    )  # fmt: skip
    assert b"New, (NONE)" in run.stdout or run.returncode != 0


def read_until(sock: socket.socket, word: bytes) -> bytes:
    data = b""
    while word not in data:
        more = sock.recv(65536)
        if not more:
            break
        data += more
    return data


def test_command_injected_behind_starttls_is_refused_and_closed(serve):
    port, inbox = serve(ServerSettings("gw.example.org", tls="starttls"))
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        read_until(sock, b"\r\n")
        sock.sendall(b"EHLO x\r\n")
        read_until(sock, b"250 ENH")
        sock.sendall(b"STARTTLS\r\nMAIL FROM:<evil@x.example>\r\nRCPT TO:<bob@example.org>\r\n")
        answer = read_until(sock, b"never")
    assert b"554 5.5.0" in answer
    assert b"220" not in answer
    assert not any(isinstance(q, questions.MailFrom) for q in inbox.asked)


def test_octets_in_clear_before_the_handshake_never_count(serve, certificates):
    port, inbox = serve(ServerSettings("gw.example.org", tls="starttls"))
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        read_until(sock, b"\r\n")
        sock.sendall(b"STARTTLS\r\n")
        read_until(sock, b"220 2.0.0 ready to start TLS\r\n")
        sock.sendall(b"EHLO evil\r\nMAIL FROM:<evil@x.example>\r\n")
        try:
            rest = read_until(sock, b"never")
        except ConnectionResetError:
            rest = b""
    assert b"250" not in rest
    assert not any(isinstance(q, questions.MailFrom) for q in inbox.asked)


def test_what_was_said_before_starttls_is_forgotten(serve, certificates):
    port, inbox = serve(ServerSettings("gw.example.org", tls="starttls"))
    with smtplib.SMTP("localhost", port, timeout=10) as smtp:
        smtp.ehlo("before.example")
        smtp.starttls(context=client_context(certificates))
        assert smtp.docmd("MAIL", "FROM:<a@b.example>")[0] == 503
        smtp.ehlo("after.example")
        smtp.sendmail("alice@b.example", ["bob@example.org"], MESSAGE)
    assert inbox.clients[0].helo == "after.example"
    assert inbox.clients[0].protocol == "ESMTPS"


def test_pipelined_commands_wait_for_a_slow_answer_in_order(serve, loop):
    from twisted.internet.task import deferLater

    def hold(question):
        if isinstance(question, questions.RcptTo):
            return deferLater(loop.reactor, 0.05, lambda: None)
        return None

    port, inbox = serve(inbox=Inbox(hold=hold))
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(
            b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nRCPT TO:<e@d.example>\r\nDATA\r\n" + MESSAGE + b".\r\nQUIT\r\n"
        )
        text = read_until(sock, b"never").decode()
    codes = [line[:3] for line in text.splitlines() if line[3:4] == " "]
    assert codes == ["220", "250", "250", "250", "250", "354", "250", "221"]
    assert len(inbox.messages) == 1


def test_client_that_closes_its_half_gets_its_replies(serve, loop):
    from twisted.internet.task import deferLater

    def hold(question):
        if isinstance(question, (questions.MailFrom, questions.RcptTo)):
            return deferLater(loop.reactor, 0.05, lambda: None)
        return None

    port, inbox = serve(inbox=Inbox(hold=hold))
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n" + MESSAGE + b".\r\n")
        sock.shutdown(socket.SHUT_WR)
        text = read_until(sock, b"never").decode()
    assert text.endswith("250 2.0.0 queued as 1\r\n") and len(inbox.messages) == 1
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.shutdown(socket.SHUT_WR)
        assert read_until(sock, b"never").startswith(b"220")


def test_flood_while_an_answer_is_awaited_is_bounded(serve, loop):
    """Megabytes that arrive while a question is open stay in the kernel: the driver pauses the transport."""
    from twisted.internet.defer import Deferred

    waiting: list[Deferred] = []

    def hold(question):
        if isinstance(question, questions.MailFrom):
            waiting.append(Deferred())
            return waiting[-1]
        return None

    port, _inbox = serve(inbox=Inbox(hold=hold))
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(b"EHLO x\r\nMAIL FROM:<a@b.example>\r\n")
        sock.settimeout(0.5)
        sent = 0
        try:
            while sent < 64 * 1024 * 1024:
                sent += sock.send(b"NOOP\r\n" * 10_000)
        except TimeoutError:
            pass
        assert sent < 32 * 1024 * 1024, "nothing stopped the flood"
        loop.call(lambda: waiting[0].callback(None))
        sock.settimeout(10)
        assert b"250 2.1.0" in read_until(sock, b"250 2.1.0")


@pytest.mark.parametrize("tls", [False, True])
def test_client_that_never_reads_its_replies_is_not_listened_to(serve, certificates, loop, tls):
    """Each EHLO of 8 octets has a reply of 100: what is not read must not pile up in our memory."""
    port, _inbox = serve(ServerSettings("gw.example.org", tls="implicit" if tls else "none"))
    plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    sock = client_context(certificates).wrap_socket(plain, server_hostname="localhost") if tls else plain
    with sock:
        read_until(sock, b"ESMTP\r\n")
        sock.settimeout(4)  # a busy machine reads slowly; one that has stopped reads nothing
        sent = 0
        flood = b"EHLO a\r\n" * 2_000
        try:
            while sent < 24 * 1024 * 1024:
                sent += sock.send(flood)
        except TimeoutError:
            pass
        assert sent < 24 * 1024 * 1024, "nothing stopped the flood"
        # Whoever begins to read after all is served on.
        sock.settimeout(10)
        received = 0
        while received < 4 * 1024 * 1024:
            received += len(sock.recv(65536))


def test_layer_above_that_raises_gives_its_reply(serve):
    def hold(question):
        if isinstance(question, questions.MailFrom):
            raise TryLater("no room", reply=Reply(452, "4.3.1", "no room"))
        if isinstance(question, questions.MessageComplete):
            raise RuntimeError("secret detail")
        return

    port, _ = serve(inbox=Inbox(hold=hold))
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as smtp:
        smtp.ehlo()
        assert smtp.docmd("MAIL", "FROM:<a@b.example>") == (452, b"4.3.1 no room")


def test_unexpected_error_of_the_layer_above_is_451_and_says_nothing(serve):
    def hold(question):
        if isinstance(question, questions.MessageComplete):
            raise RuntimeError("secret detail")
        return

    port, _ = serve(inbox=Inbox(hold=hold))
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as smtp, pytest.raises(smtplib.SMTPDataError) as info:
        smtp.sendmail("alice@b.example", ["bob@example.org"], MESSAGE)
    assert info.value.smtp_code == 451
    assert b"secret" not in info.value.smtp_error


def ended(sock: socket.socket) -> bool:
    """True where the server has closed; what it has said before is read."""
    sock.setblocking(False)
    try:
        while sock.recv(65536):
            pass
    except BlockingIOError:
        return False
    return True


def test_200_stalled_sessions_do_not_delay_another_client(serve):
    port, inbox = serve(ServerSettings("gw.example.org"))
    stalled = []
    for n in range(200):
        sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        sock.sendall([b"EHL", b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nstill", b"", b"\0\0"][n % 4])
        stalled.append(sock)
    try:
        begin = time.monotonic()
        with smtplib.SMTP("127.0.0.1", port, timeout=10) as smtp:
            smtp.sendmail("alice@b.example", ["bob@example.org"], MESSAGE)
        assert time.monotonic() - begin < 1.0
        assert len(inbox.messages) == 1
        assert not any(ended(sock) for sock in stalled), "none of them had to go first"
    finally:
        for sock in stalled:
            sock.close()


def test_silent_client_is_told_421_and_closed(serve):
    port, _ = serve(ServerSettings("gw.example.org", limits=Limits(command_timeout=0.2)))
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        assert b"421 4.4.2" in read_until(sock, b"never")


def test_client_that_sends_an_octet_at_a_time_for_ever_is_ended(serve):
    port, _ = serve(ServerSettings("gw.example.org"), session_timeout=0.3)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
        sock.settimeout(0.02)
        seen = b""
        for _ in range(400):
            try:
                sock.sendall(b"x")
                more = sock.recv(65536)
                if not more:
                    break
                seen += more
            except TimeoutError:
                continue
            except ConnectionError:
                break
        assert b"421 4.4.2" in seen


def test_stalled_handshake_is_ended(serve):
    port, _ = serve(ServerSettings("gw.example.org", tls="starttls", limits=Limits(handshake_timeout=0.2)))
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        read_until(sock, b"\r\n")
        sock.sendall(b"STARTTLS\r\n")
        try:
            assert read_until(sock, b"never").endswith(b"TLS\r\n")
        except ConnectionResetError:
            pass


def test_swaks_delivers(serve, need):
    port, inbox = serve()
    run = subprocess.run(
        [need("swaks"), "--server", f"127.0.0.1:{port}", "--from", "alice@b.example", "--to", "bob@example.org", "--body", "hello"],
        capture_output=True, timeout=30,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout.decode() + run.stderr.decode()
    assert b"hello" in inbox.messages[0][1]


@pytest.mark.parametrize(
    ("seen", "group"),
    [
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("::ffff:127.0.0.1", ""),
    ],
)
def test_one_ipv4_client_does_not_use_up_what_all_ipv4_clients_may_have(seen, group):
    """On a socket for both families (as systemd opens them) every IPv4 address begins with ::ffff:, and stands in one /64."""
    host, _ = _peer(
        IPv6Address("TCP", seen, 25) if ":" in seen else IPv4Address("TCP", seen, 25), ListenerSettings("a", "", "smtp", Origin.INTERNET)
    )
    assert client_of(host) == group


def test_smtplib_speaks_lmtp(serve):
    port, inbox = serve(ServerSettings("gw.example.org", lmtp=True, chunking=True))
    with smtplib.LMTP("127.0.0.1", port) as lmtp:
        lmtp.sendmail("alice@b.example", ["bob@example.org"], MESSAGE)
        lmtp.sendmail("", ["bob@example.org"], MESSAGE)
    assert [octets for _, octets in inbox.messages] == [MESSAGE, MESSAGE]
    assert inbox.clients[0].protocol == "LMTP"


def test_lmtp_client_that_never_reads_its_replies_is_not_listened_to(serve, loop):
    port, _inbox = serve(ServerSettings("gw.example.org", lmtp=True, limits=Limits(bad_commands=10**9)))
    recipients = b"".join(b"RCPT TO:<b%d@example.org>\r\n" % number for number in range(500))
    message = b"MAIL FROM:<a@b.example>\r\n" + recipients + b"DATA\r\nx: y\r\n.\r\n"
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=3) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"LHLO x\r\n")
        with pytest.raises(TimeoutError):
            for _ in range(3000):
                client.sendall(message)
                sent += len(message)
    # What the kernel keeps for both ends is some MiB; 1,500 messages would be 30 MiB of commands and 60 MiB of replies.
    assert sent < 20 * 1024 * 1024
