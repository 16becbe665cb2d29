"""Promise 9: a 100 MiB message costs at most 64 MiB above an idle worker, file pages included: to sign, encrypt and verify, all the way."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from tests.peers.gateway import Gateway, until
from tests.peers.postfix import free_port

MEGABYTES = 100
ALLOWED = 64 * 1024
LINE = b"0123456789abcdef" * 4 + b"01234567\r\n"


@pytest.fixture
def gateway(tmp_path):
    """One worker, and a next hop that is away, so that the message stays where it can be looked at."""
    rules = [
        {"name": "alice reads", "match": {"recipient": ["alice@example.org"]}, "encrypt": "required"},
        {"name": "all", "sign": "required"},
    ]
    one = Gateway(tmp_path / "gateway", free_port(), workers=1, rule=rules)
    yield one.start()
    one.close()


def peak(gateway) -> int:
    """The most memory that the worker has had (kB), file pages that it maps included."""
    (pid,) = gateway.pids()
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


def send(gateway, listener: str, sender: str, recipient: str, octets: int) -> bytes:
    """One message of that size, in blocks, by hand: smtplib would hold it several times."""
    with gateway.connect(listener, 120) as connection:
        file = connection.makefile("rb")
        file.readline()
        connection.sendall(f"HELO x\r\nMAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode())
        for _ in range(4):
            reply = file.readline()
        assert reply.startswith(b"354"), reply
        connection.sendall(f"From: {sender}\r\nTo: {recipient}\r\nContent-Type: text/plain\r\n\r\n".encode())
        block = LINE * ((1 << 20) // len(LINE))
        for _ in range(octets // len(block)):
            connection.sendall(block)
        connection.sendall(b".\r\n")
        reply = file.readline()
        connection.shutdown(socket.SHUT_WR)
    return reply


@pytest.mark.parametrize(
    ("listener", "sender", "recipient"),
    [
        ("trusted", "alice@example.org", "bob@example.org"),
        ("trusted", "alice@example.org", "alice@example.org"),
        ("internet", "carol@partner.example", "bob@example.org"),
    ],
    ids=["sign", "sign and encrypt", "verify"],
)
def test_100_mib_cost_at_most_64_mib(gateway, listener, sender, recipient):
    # warm: what one message of any size needs is not counted
    assert send(gateway, listener, sender, recipient, 1 << 20).startswith(b"250")
    idle = peak(gateway)
    assert send(gateway, listener, sender, recipient, MEGABYTES << 20).startswith(b"250")
    assert peak(gateway) - idle < ALLOWED, f"{(peak(gateway) - idle) // 1024} MiB"
    (large,) = until(lambda: [entry for entry in gateway.queue() if entry["size"] > 50 << 20])
    assert large["state"] == "ready" and large["size"] > (130 if recipient == sender else 99) << 20
