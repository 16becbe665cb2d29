"""A server that floods, trickles, or says nothing: a question ends, and holds no thread and no memory beyond its limits."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from mailsec.errors import LimitExceeded, MailsecError, Unavailable
from mailsec.testing.runtime import FakeRuntime
from mailsec_ldap.client import Login, Query
from mailsec_ldap.guarded import Allowance, GuardedSocket
from mailsec_ldap.places import ServerAddress
from mailsec_ldap.servers import Servers

QUERY = Query("dc=x", "(mail=x)", ("userCertificate",), octets=100_000)
NOBODY = Login()


class Hostile:
    """Answers each connection with what `speak` writes, until the other side has gone."""

    def __init__(self) -> None:
        self.speak: Callable[[socket.socket], None] = lambda connection: None
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = ServerAddress("127.0.0.1", self.listening.getsockname()[1])
        self.ended = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                try:
                    self.speak(connection)
                    while connection.recv(4096):
                        pass
                except OSError:
                    pass


def test_a_socket_ends_with_its_allowance_and_a_new_question_has_a_new_one():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        allowance = Allowance()
        guarded = GuardedSocket(ours, allowance)
        theirs.sendall(b"x" * 2000)
        allowance.renew(1000, 10)
        with pytest.raises(OSError, match="too long"):
            guarded.recv(4096)
        theirs.sendall(b"y" * 500)
        # Its time is over, although there is something to read.
        allowance.renew(1000, -1)
        with pytest.raises(TimeoutError):
            guarded.recv(4096)
        with pytest.raises(TimeoutError):
            guarded.sendall(b"z")
        allowance.renew(1000, 10)
        assert guarded.recv(1).endswith(b"y")


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    server = Hostile()
    yield server
    server.ended.set()
    server.listening.close()


def ask(hostile: Hostile, seconds: float = 0.5, login: Login = NOBODY, tls: bool = False) -> list:
    runtime = FakeRuntime()
    servers = Servers(runtime, seconds=seconds, connections=1)
    return runtime.run(servers.ask([(hostile.address, "127.0.0.1")], QUERY, tls=tls, login=login))


def test_attack_an_answer_without_end(hostile):
    sent: list[int] = []

    def flood(connection: socket.socket) -> None:
        # A message of 2 GiB, of which we take 100 KB.
        connection.sendall(b"\x30\x84\x7f\xff\xff\xff\x02\x01\x01")
        for _ in range(10_000):
            connection.sendall(b"x" * 65536)
            sent.append(65536)

    hostile.speak = flood
    with pytest.raises(LimitExceeded, match="100000 octets"):
        ask(hostile, 20)
    assert sum(sent) < 50_000_000, "it is cut off, and what it goes on sending is not taken"


def test_attack_entries_without_end(hostile):
    # SearchResultEntry "cn=x" without attributes, again and again
    entry = b"\x30\x0d\x02\x01\x02\x64\x08\x04\x04cn=x\x30\x00"

    def many(connection: socket.socket) -> None:
        while True:
            connection.sendall(entry * 4096)

    hostile.speak = many
    with pytest.raises(MailsecError):
        ask(hostile, 20)


def test_attack_an_octet_now_and_then(hostile):
    sent = bytearray()

    def trickle(connection: socket.socket) -> None:
        for octet in b"\x30\x84\x00\x00\xff\xff" + b"\x02" * 1000:
            connection.sendall(bytes([octet]))
            sent.append(octet)
            if hostile.ended.wait(0.02):
                return

    hostile.speak = trickle
    with pytest.raises(Unavailable):
        ask(hostile, 0.3)
    assert len(sent) < 500, "the time is that of the whole answer, not of each piece"


def test_a_server_that_says_nothing(hostile):
    with pytest.raises(Unavailable):
        ask(hostile, 0.2)


@pytest.mark.parametrize(
    "octets", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x30\x80", b"\x30\x05\x02\x01\x01\x65\x00", b"\0" * 64, b"\xff" * 64]
)
def test_a_server_that_speaks_something_else(hostile, octets):
    def speak(connection: socket.socket) -> None:
        connection.sendall(octets)
        connection.shutdown(socket.SHUT_RDWR)

    hostile.speak = speak
    with pytest.raises(Unavailable):
        ask(hostile)


def test_attack_a_server_without_tls_gets_no_password(hostile, tmp_path):
    (tmp_path / "password").write_text("the secret\n")
    heard = []

    def refuse(connection: socket.socket) -> None:
        # extendedResp: protocolError
        connection.sendall(b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x02\x04\x00\x04\x00")
        heard.append(connection.recv(4096))

    hostile.speak = refuse
    with pytest.raises(Unavailable):
        ask(hostile, login=Login("cn=x", str(tmp_path / "password")), tls=True)
    assert b"the secret" not in b"".join(heard)
