"""Limits and back-off are the whole gateway's: over its workers, over generations, and whoever of them dies."""

from __future__ import annotations

import base64
import os
import poplib
import select
import signal
import socket
import ssl
from collections.abc import Callable, Iterator

import pytest

from mailsec.app.control_socket import ask
from tests.peers.gateway import Gateway, alive, server_certificate, until
from tests.peers.inbox import Inbox
from tests.peers.maildrop import Maildrop

IN_ALL, PER_ADDRESS, FREE = 10, 4, 6
LIMITS = {
    "connections": IN_ALL,
    "connections_per_address": PER_ADDRESS,
    "login_failures_per_account": FREE,
    "login_failures_per_address": FREE,
}
WELCOME, TOO_MANY = b"220 ", b"421 4.7.0 too many connections from your address"


@pytest.fixture(scope="module")
def maildrop(tmp_path_factory) -> Iterator[Maildrop]:
    certificate, key = server_certificate()
    both = tmp_path_factory.mktemp("maildrop") / "server.pem"
    both.write_bytes(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    with Maildrop(context, b"Subject: x\r\n\r\nhello\r\n") as server:
        yield server


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, maildrop) -> Iterator[Gateway]:
    front = {"front": {"proxies": ["127.0.0.0/24"]}}
    server = {"to": f"pop3s://127.0.0.1:{maildrop.port}", "server_name": "localhost"}
    tls = {"tls": "implicit", "certificate": "Server-Cert"}
    with Inbox() as inbox:
        made = Gateway(
            tmp_path_factory.mktemp("shared") / "gateway",
            inbox.port,
            workers=2,
            listeners=[
                {"name": "proxied", **front},
                {"name": "proxied-submission", "origin": "submission", **front, **tls},
                {
                    "name": "proxied-pop3",
                    "protocol": "pop3",
                    "origin": "mailbox",
                    "upstream": {**server, "domains": ["example.org"]},
                    "allowed_upstreams": [server],
                    **front,
                    **tls,
                },
            ],
            gateway={"limits": LIMITS, "retire_timeout": 60},
            relay={"ca_file": "ca.pem"},
        )
        try:
            yield made.start()
        finally:
            made.close()


class Client:
    """A connection whose client is `address`, as the proxy in front says."""

    def __init__(self, gateway: Gateway, address: str, listener: str = "proxied") -> None:
        self.socket = gateway.connect(listener)
        family, ours = ("TCP6", "::1") if ":" in address else ("TCP4", "127.0.0.1")
        self.socket.sendall(f"PROXY {family} {address} {ours} 4711 25\r\n".encode())
        self.said = b""

    def heard(self, seconds: float = 0.0) -> bytes:
        """What was said until now, or within so long."""
        while select.select([self.socket], [], [], seconds)[0] and (data := self._more()):
            self.said += data
        return self.said

    def _more(self) -> bytes:
        try:
            return self.socket.recv(4096)
        except ConnectionResetError:
            return b""

    def answer(self) -> bytes:
        until(lambda: b"\n" in self.heard(), 60, "an answer")
        return self.said


@pytest.fixture
def connect(gateway) -> Iterator[Callable[[str], Client]]:
    opened: list[Client] = []

    def connect(address: str) -> Client:
        opened.append(Client(gateway, address))
        return opened[-1]

    yield connect
    for client in opened:
        client.socket.close()
    # What the next test finds is an empty gateway: another client is welcome, and all of them.
    until(lambda: _all_are_welcome(gateway), 30, "the connections to end")


def _all_are_welcome(gateway: Gateway) -> bool:
    clients = [Client(gateway, f"198.51.100.{number}") for number in range(IN_ALL)]
    try:
        return all(client.heard(1.0).startswith(WELCOME) for client in clients)
    finally:
        for client in clients:
            client.socket.close()


def reload(gateway: Gateway) -> None:
    ask(str(gateway.directory / "run"), {"do": "reload"}, seconds=60)


def test_connections_are_limited_in_all_and_not_for_each_worker(gateway, connect):
    clients = [connect(f"192.0.2.{number}") for number in range(IN_ALL)]
    assert all(client.answer().startswith(WELCOME) for client in clients)
    late = [connect(f"192.0.2.{100 + number}") for number in range(4)]
    assert not any(client.heard(0.3) for client in late), "they wait in the kernel's queue, and are not refused"
    reload(gateway)
    assert not any(client.heard(0.3) for client in late), "connections of the generation before count"
    for client in clients[:3]:
        client.socket.close()
    # Two workers that take the last place together may both give it back.
    until(lambda: sum(bool(client.heard()) for client in late) >= 3, 60, "as many as there is room for")
    assert 1 <= sum(client.heard(0.3).startswith(WELCOME) for client in late) <= 3


@pytest.mark.parametrize(
    ("same", "other"),
    [(["192.0.2.9"], "192.0.2.10"), ([f"2001:db8:0:1::{number}" for number in range(1, 6)], "2001:db8:0:2::1")],
    ids=["address", "slash 64"],
)
def test_connections_of_one_client_are_limited_over_workers_and_generations(gateway, connect, same, other):
    def another() -> bytes:
        same.append(same.pop(0))
        return connect(same[-1]).answer()

    held = [connect(same[number % len(same)]) for number in range(PER_ADDRESS)]
    assert all(client.answer().startswith(WELCOME) for client in held)
    assert another().startswith(TOO_MANY)
    reload(gateway)
    assert another().startswith(TOO_MANY)
    assert connect(other).answer().startswith(WELCOME)
    held[0].socket.close()
    until(lambda: another().startswith(WELCOME), 60, "the place that became free")
    assert another().startswith(TOO_MANY)


def test_what_a_dead_worker_had_is_free_again(gateway, connect):
    clients = [connect("192.0.2.9") for _ in range(PER_ADDRESS)]
    assert all(client.answer().startswith(WELCOME) for client in clients)
    assert connect("192.0.2.9").answer().startswith(TOO_MANY)
    pids = [pid for pid in gateway.children() if alive(pid)]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: connect("192.0.2.9").answer().startswith(WELCOME), 60, "their successors")


def tls(gateway: Gateway, address: str, listener: str) -> ssl.SSLSocket:
    client = Client(gateway, address, listener)
    context = ssl.create_default_context(cafile=str(gateway.ca_file))
    client.socket.settimeout(60)
    return context.wrap_socket(client.socket, server_hostname="localhost")


def login(gateway: Gateway, address: str, name: str, password: str) -> bytes:
    """The reply to AUTH PLAIN on a connection of its own."""
    proof = base64.b64encode(f"\0{name}\0{password}".encode())
    with tls(gateway, address, "proxied-submission") as session:
        file = session.makefile("rb")
        file.readline()
        session.sendall(b"EHLO x\r\n")
        while file.readline()[3:4] == b"-":
            pass
        session.sendall(b"AUTH PLAIN " + proof + b"\r\n")
        return file.readline()


class Reader(poplib.POP3):
    """poplib on a socket that is there already."""

    def __init__(self, opened: socket.socket) -> None:
        self._opened = opened
        super().__init__("localhost")

    def _create_socket(self, timeout: float) -> socket.socket:
        return self._opened


def read(gateway: Gateway, address: str, name: str, password: str) -> str:
    """What becomes of a POP3 login on a connection of its own."""
    reader = Reader(tls(gateway, address, "proxied-pop3"))
    try:
        reader.user(name)
        return reader.pass_(password).decode()
    except poplib.error_proto as error:
        return error.args[0].decode()
    finally:
        reader.close()


def test_guessing_gets_slow_over_all_workers_and_a_reload_forgives_nothing(gateway):
    def guess(network: str) -> int:
        told = [login(gateway, f"{network}.{number}", "alice", "guess") for number in range(2 * FREE)]
        assert {one[:9] for one in told} <= {b"535 5.7.8", b"454 4.7.0"}
        return sum(one.startswith(b"535") for one in told)

    assert FREE <= guess("192.0.2") < 2 * FREE
    reload(gateway)
    assert guess("198.51.100") < FREE


def test_attack_passwords_are_guessed_at_a_mailbox_through_the_gateway(gateway, maildrop):
    # One account, however it is written.
    names = ["bob", "bob@example.org", f"BOB#127.0.0.1:{maildrop.port}"]
    told = [read(gateway, f"192.0.2.{number + 20}", names[number % 3], f"guess{number}") for number in range(3 * FREE)]
    assert told[:FREE] == ["-ERR [AUTH] no"] * FREE
    assert set(told) == {"-ERR [AUTH] no", "-ERR [SYS/TEMP] too many wrong passwords, try again later"}
    looked_at = [said for said in maildrop.said if said.startswith(b"PASS guess")]
    assert FREE <= len(looked_at) == told.count("-ERR [AUTH] no") < 2 * FREE, "the others were never said to the mailbox's server"
    assert read(gateway, "192.0.2.50", "carol", "secret").startswith("+OK")


def test_attack_one_address_guesses_at_many_mailboxes_and_many_servers(gateway, maildrop):
    names = [f"user{number}{'#pop.example' * (number % 2)}" for number in range(3 * FREE)]
    told = [read(gateway, "192.0.2.99", name, "guess") for name in names]
    refused = [one for one in told if one.startswith("-ERR [AUTH]")]
    assert refused == told[:FREE] + [one for one in told[FREE:] if "SYS/TEMP" not in one] and FREE <= len(refused) < 2 * FREE
    assert sum(login(gateway, "192.0.2.99", f"user{number}", "guess").startswith(b"535") for number in range(FREE)) < FREE, "to send, too"
    assert read(gateway, "192.0.2.98", "carol", "secret").startswith("+OK")
