"""The TLS layer between a socket and whoever speaks: everything in order, whatever the pieces; ends that are told; peers that take nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from mailsec.model.requests import StartTls
from mailsec.net.tls import server_tls
from mailsec.net.tls_client import client_tls
from mailsec.net.tls_layer import TlsLayer


class Wire:
    """What the layer needs of a socket of Twisted. `full`: the kernel takes nothing."""

    def __init__(self) -> None:
        self.connected, self.disconnecting, self._writeDisconnected = True, False, False
        self.dataBuffer, self._tempDataBuffer = b"", []
        self._tempDataLen = 0
        self.socket = self
        self.full = False
        self.out = bytearray()
        self.end = ""

    def send(self, data: bytes) -> int:
        if self.full:
            raise BlockingIOError
        # As a kernel may: a part of it.
        taken = data[: max(1, len(data) * 2 // 3)]
        self.out += taken
        return len(taken)

    def write(self, data: bytes) -> None:
        if self.full:
            self._tempDataBuffer.append(data)
            self._tempDataLen += len(data)
        else:
            self.out += data

    def loseConnection(self) -> None:
        self.end = self.end or "closed"

    def abortConnection(self) -> None:
        self.end = "aborted"


class Above:
    def __init__(self) -> None:
        self.heard = bytearray()
        self.shaken = False
        self.lost: Failure | None = None

    def handshakeCompleted(self) -> None:
        self.shaken = True

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure) -> None:
        self.lost = reason


class Pair:
    """A client and a server, and what lies between them."""

    def __init__(self, certificates: Any) -> None:
        server = server_tls(certificates.pem, certificates.key_pem).serverConnectionForTLS(None)
        client = client_tls(certificates.ca_pem)(StartTls("localhost", "verified")).clientConnectionForTLS(None)
        server.set_accept_state()
        client.set_connect_state()
        self.wires = [Wire(), Wire()]
        self.above = [Above(), Above()]
        self.client = TlsLayer(self.wires[0], self.above[0], client, client=True)
        self.server = TlsLayer(self.wires[1], self.above[1], server, client=False)

    def run(self, cut: int = 1 << 20) -> None:
        """Carry everything over, in pieces of `cut` octets."""
        while any(wire.out for wire in self.wires):
            for wire, layer in zip(self.wires, (self.server, self.client), strict=True):
                data, wire.out = bytes(wire.out), bytearray()
                for start in range(0, len(data), cut):
                    layer.dataReceived(data[start : start + cut])

    def shake(self) -> Pair:
        self.client.begin()
        self.run()
        assert all(above.shaken for above in self.above)
        return self


@settings(max_examples=40)
@given(st.lists(st.integers(1, 200_000), min_size=1, max_size=4), st.integers(1, 70_000))
def test_everything_arrives_in_order_whatever_the_pieces(certificates, sizes, cut):
    pair = Pair(certificates).shake()
    said = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    for piece in said:
        pair.client.write(piece)
        pair.server.write(memoryview(piece))
    pair.run(max(cut, sum(sizes) // 500))
    assert pair.above[0].heard == pair.above[1].heard == b"".join(said)


def test_handshake_octet_for_octet_and_what_was_said_before_its_end(certificates):
    pair = Pair(certificates)
    pair.client.begin()
    pair.client.write(b"early")
    pair.run(1)
    assert pair.above[1].heard == b"early"


def test_tickets_go_with_the_first_words(certificates):
    """RFC 8446 §4.6.1: a packet less for each handshake."""
    pair = Pair(certificates)
    pair.client.begin()
    for wire, layer in ((pair.wires[0], pair.server), (pair.wires[1], pair.client), (pair.wires[0], pair.server)):
        data, wire.out = bytes(wire.out), bytearray()
        layer.dataReceived(data)
    assert pair.above[1].shaken and not pair.wires[1].out
    pair.server.write(b"220 ready\r\n")
    pair.run()
    assert pair.above[0].heard == b"220 ready\r\n"


def test_last_words_and_goodbye_go_together_and_both_sides_close(certificates):
    pair = Pair(certificates).shake()
    pair.server.say_last(lambda: pair.server.write(b"221 bye\r\n"))
    assert not pair.wires[1].end
    pair.run()
    assert pair.above[0].heard == b"221 bye\r\n" and [wire.end for wire in pair.wires] == ["closed", "closed"]
    pair.server.write(b"more")
    assert not pair.wires[1].out


@pytest.mark.parametrize("shaken", [False, True])
def test_octets_that_are_no_tls_end_the_session_with_a_reason(certificates, shaken):
    pair = Pair(certificates).shake() if shaken else Pair(certificates)
    pair.server.dataReceived(b"EHLO client.example\r\nMAIL FROM:<>\r\n")
    assert pair.wires[1].end == "closed" and not pair.above[1].heard
    pair.server.connectionLost(Failure(ConnectionDone()))
    assert pair.above[1].lost is not None and isinstance(pair.above[1].lost.value, SSL.Error)


def test_record_that_was_changed_on_the_way_is_not_heard(certificates):
    pair = Pair(certificates).shake()
    pair.client.write(b"RCPT TO:<bob@example.net>\r\n")
    pair.wires[0].out[-1] ^= 1
    pair.run()
    assert not pair.above[1].heard and pair.wires[1].end == "closed"


def test_peer_that_takes_nothing_is_cut_off_before_memory_is_full(certificates):
    pair = Pair(certificates).shake()
    pair.wires[1].full = True
    for _ in range(40):
        pair.server.write(b"x" * 2**20)
    assert pair.wires[1].end == "aborted" and pair.wires[1]._tempDataLen < 10 * 2**20
