"""Protocols that plugins bring, on listeners of a running gateway: sans-IO and Twisted, in clear and under TLS, and when they fail."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.gateway import Gateway, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can write what belongs to root")

TLS = {"certificate": "Server-Cert"}
LISTENERS = [
    {"name": "clear", "service": "lines"},
    {"name": "starttls", "service": "lines", "tls": "starttls", **TLS},
    {"name": "implicit", "service": "lines", "tls": "implicit", **TLS},
    {"name": "elsewhere", "service": "lines", "peers": ["192.0.2.0/24"]},
    {"name": "twisted", "service": "twisted"},
    {"name": "twisted-implicit", "service": "twisted", "tls": "implicit", **TLS},
]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory) -> Iterator[Gateway]:
    place = tmp_path_factory.mktemp("services")
    (place / "plugins").mkdir()
    shutil.copy(Path(__file__).with_name("service_plugin.py"), place / "plugins" / "house.py")
    plugins = {"enabled": ["house"], "path": [str(place / "plugins")]}
    made = Gateway(place / "gateway", 9, workers=1, listeners=LISTENERS, plugins=plugins)
    try:
        yield made.start()
    finally:
        made.close()


class Client:
    """A connection to a listener, by lines."""

    def __init__(self, gateway: Gateway, listener: str) -> None:
        self.gateway = gateway
        self.socket = gateway.connect(listener)
        if listener.endswith("implicit"):
            self.start_tls()
        self.file = self.socket.makefile("rb")

    def start_tls(self) -> None:
        context = ssl.create_default_context(cafile=str(self.gateway.ca_file))
        self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self.file = self.socket.makefile("rb")

    def say(self, line: str) -> str:
        self.socket.sendall(line.encode() + b"\n")
        return self.hear()

    def hear(self) -> str:
        try:
            return self.file.readline().decode().rstrip("\n")
        except ConnectionError:
            return ""


def test_a_sans_io_service_answers_with_what_the_gateway_knows(gateway):
    client = Client(gateway, "clear")
    assert client.hear() == "hello 127.0.0.1 in clear"
    assert client.say("alice") == "alice is alice@example.org"
    assert client.say("mallory") == "nobody"
    assert client.say("quit") == "bye" and client.hear() == ""


def test_tls_at_once_and_in_the_middle(gateway):
    client = Client(gateway, "implicit")
    assert client.hear() == "hello 127.0.0.1 TLSv1.3" and client.say("alice").startswith("alice is")
    client = Client(gateway, "starttls")
    assert client.hear().endswith("in clear") and client.say("tls") == "go ahead"
    client.start_tls()
    assert client.hear() == "hello 127.0.0.1 TLSv1.3" and client.say("alice").startswith("alice is")


def test_attack_octets_behind_the_wish_for_tls_are_not_taken_as_if_they_came_under_it(gateway):
    client = Client(gateway, "starttls")
    client.hear()
    client.socket.sendall(b"tls\n")
    client.hear()
    client.socket.sendall(b"alice\n" * 100)
    assert "alice is" not in client.hear()


def test_who_is_not_a_peer_is_not_served(gateway):
    assert Client(gateway, "elsewhere").hear() == ""
    until(lambda: gateway._events("not a peer"), what="a line in the log")


@pytest.mark.parametrize("listener", ["twisted", "twisted-implicit"])
def test_a_twisted_factory_is_served(gateway, listener):
    client = Client(gateway, listener)
    assert client.hear().startswith("hello from ")
    assert client.say("hi") == "you said hi"


@pytest.mark.parametrize(
    ("listener", "order"),
    [
        ("clear", "raise"),
        ("clear", "exit"),
        ("clear", "rubbish"),
        ("implicit", "raise"),
        ("twisted", "raise"),
        ("twisted-implicit", "raise"),
    ],
)
def test_a_protocol_that_fails_costs_its_connection_and_is_named(gateway, listener, order):
    before = len(gateway._events("service failed"))
    client, other = Client(gateway, listener), Client(gateway, listener)
    assert client.hear().startswith("hello") and other.hear().startswith("hello")
    assert client.say(order) == ""
    until(lambda: len(gateway._events("service failed")) > before, what="a line in the log")
    assert gateway._events("service failed")[-1]["service"] == ("twisted" if listener.startswith("twisted") else "lines")
    assert other.say("alice") and gateway.deaths() == 0


def test_a_service_that_no_plugin_brings_is_refused_by_check(gateway, tmp_path):
    text = gateway.configuration.read_text().replace('service = "lines"', 'service = "liens"', 1)
    wrong = gateway.configuration.with_name("wrong.toml")
    wrong.write_text(text)
    done = subprocess.run([sys.executable, "-m", "mailsec", "check", "-c", wrong], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 78
    assert 'no enabled plugin brings a service called "liens"' in done.stderr and 'did you mean "lines"?' in done.stderr


def test_the_end_of_the_gateway_lets_what_is_open_finish_and_closes_the_rest(gateway):
    idle, busy, foreign = Client(gateway, "clear"), Client(gateway, "clear"), Client(gateway, "twisted")
    for client in (idle, busy, foreign):
        assert client.hear()
    assert busy.say("wait1") == "wait"
    assert gateway.gateway is not None
    gateway.gateway.terminate()
    assert busy.hear() == "waited"
    assert [client.hear() for client in (idle, busy, foreign)] == ["", "", ""]
    assert gateway.gateway.wait(30) == 0
    with pytest.raises(ConnectionError):
        socket.create_connection(("127.0.0.1", gateway.ports["clear"]), timeout=5)
