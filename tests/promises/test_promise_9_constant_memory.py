"""Promise 9: a 100 MiB message costs at most 64 MiB above an idle worker, file pages included: to sign, encrypt, verify, decrypt, all the way."""

from __future__ import annotations

import base64
import os
import re
import socket
from collections.abc import Iterable
from pathlib import Path

import pytest

from mailsec.cms.encrypt import encrypt_content
from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend
from mailsec.model.octets import Segments
from mailsec.store.certdb import CertDb
from tests.peers.gateway import Gateway, until
from tests.peers.postfix import free_port

MEGABYTES = 100
ALLOWED = 64 * 1024
LINE = b"0123456789abcdef" * 4 + b"01234567\r\n"
BLOCK = LINE * ((1 << 20) // len(LINE))
PLAIN = b"Content-Type: text/plain\r\n\r\n"


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
    """One message of that size."""
    return send_blocks(gateway, listener, sender, recipient, [PLAIN, *([BLOCK] * (octets // len(BLOCK)))])


def encrypted(certificate: bytes, octets: int) -> Iterable[bytes]:
    """An entity of that size, encrypted for that person as others do."""
    content = Segments((PLAIN, *([BLOCK] * (octets // len(BLOCK)))))
    cms = run_now(encrypt_content(content, [certificate], backend=SoftwareBackend(), random=os.urandom, cipher="aes-256-gcm")).join()
    yield b"Content-Type: application/pkcs7-mime; smime-type=authEnveloped-data\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    step = 57 * 16384
    for at in range(0, len(cms), step):
        yield base64.encodebytes(cms[at : at + step]).replace(b"\n", b"\r\n")


def send_blocks(gateway, listener: str, sender: str, recipient: str, blocks: Iterable[bytes]) -> bytes:
    """One message, in blocks, by hand: smtplib would hold it several times."""
    with gateway.connect(listener, 120) as connection:
        file = connection.makefile("rb")
        file.readline()
        connection.sendall(f"HELO x\r\nMAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode())
        for _ in range(4):
            reply = file.readline()
        assert reply.startswith(b"354"), reply
        connection.sendall(f"From: {sender}\r\nTo: {recipient}\r\n".encode())
        for block in blocks:
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


def test_100_mib_that_arrive_encrypted_cost_at_most_64_mib_to_open(gateway):
    password = (gateway.directory / "passphrase").read_text().strip().removeprefix("internal:")
    with CertDb.open(str(gateway.directory / "mailsec.db"), password=password.encode()) as database:
        certificate = database.find("alice")[0].der

    def arrive(octets: int) -> int:
        """Send it, wait until it is open, and return how large it is then."""
        blocks = encrypted(certificate, octets)
        assert send_blocks(gateway, "internet", "carol@partner.example", "alice@example.org", blocks).startswith(b"250")
        size = octets - len(BLOCK)
        opened = until(lambda: [one for one in gateway.queue() if one["state"] == "ready" and size < one["size"] < octets * 1.2], 120)
        return int(opened[0]["size"])

    arrive(2 << 20)
    idle = peak(gateway)
    # As it was inside: in base64 it would be a third larger.
    assert arrive(MEGABYTES << 20) < (MEGABYTES + 1) << 20
    assert peak(gateway) - idle < ALLOWED, f"{(peak(gateway) - idle) // 1024} MiB"
