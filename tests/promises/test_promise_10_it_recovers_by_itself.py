"""Promise 10: a next hop, resolver or database that comes back is used again; work waits, then goes on; nothing of mailsec is restarted.

Disks that were full or read-only are in tests/faults/test_storage.py, killed processes in tests/faults/test_kill.py.
"""

from __future__ import annotations

import os
import re
import smtplib
import socket
import sqlite3
import subprocess
import sys
import threading

import dns.message
import dns.rrset
import pytest

from tests.faults.sender import letter
from tests.peers.gateway import PROJECT, Gateway, namespace_why_not, until
from tests.peers.inbox import Inbox

ALICE, CAROL = "alice@example.org", "carol@partner.example"


@pytest.fixture
def inbox():
    with Inbox() as inbox:
        yield inbox


@pytest.fixture
def make(tmp_path, inbox):
    made = []

    def gateway(**arguments):
        made.append(Gateway(tmp_path / "gateway", inbox.port, workers=1, **arguments))
        return made[-1]

    yield gateway
    for one in made:
        one.close()


def send(gateway, recipient: str, listener: str = "trusted", sender: str = ALICE) -> tuple[int, str]:
    octets = letter(sender, recipient)
    mark = re.search(rb"Message-ID: (\S+)", octets)[1].decode()
    with gateway.client(listener) as client:
        try:
            client.sendmail(sender, [recipient], octets)
        except smtplib.SMTPResponseException as error:
            return error.smtp_code, mark
        except smtplib.SMTPRecipientsRefused as error:
            return next(iter(error.recipients.values()))[0], mark
    return 250, mark


def test_next_hop_that_comes_back(make, inbox):
    gateway = make().start()
    pids = gateway.worker_pids()
    marks = []
    for _ in range(3):
        inbox.stop()
        code, mark = send(gateway, CAROL)
        assert code == 250
        marks.append(mark)
        until(lambda: [entry for entry in gateway.waiting() if entry.attempts > 0])
        inbox.start()
        until(lambda: set(marks) <= inbox.ids())
    until(lambda: not gateway.waiting())
    assert gateway.worker_pids() == pids


def test_database_that_somebody_writes_to_for_long(make, inbox):
    """What a database that is away does to one worker is in tests/app/test_database_plugin.py; a writer that holds it stops no mail."""
    gateway = make().start()
    pids = gateway.worker_pids()
    holder = sqlite3.connect(gateway.directory / "mailsec.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    code, mark = send(gateway, CAROL, sender="bob@example.org")
    assert code == 250
    holder.execute("ROLLBACK")
    holder.close()
    (delivered,) = until(lambda: inbox.of(mark))
    assert b"application/pkcs7-signature" in delivered.octets
    # What another process changes counts at once: a key that is gone signs no more, and mail that needs it is refused, not sent unsigned.
    command = [sys.executable, "-m", "mailsec", "cert", "delete", "bob", "--yes", "-c", str(gateway.configuration)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(PROJECT)}, check=False)
    assert done.returncode == 0, done.stderr
    code = until(lambda: (answer := send(gateway, CAROL, sender="bob@example.org")[0]) != 250 and answer, 10)
    assert code == 550
    assert all(b"application/pkcs7-signature" in one.octets for one in inbox.messages)
    assert gateway.worker_pids() == pids


def test_resolver_that_comes_back(make, inbox, tmp_path):
    reason = namespace_why_not()
    if reason:
        pytest.skip(reason)
    octets = os.getpid() % 250 + 1, os.getpid() // 250 % 250
    server, exchanger = (f"127.{octets[0]}.{octets[1]}.{last}" for last in (54, 55))
    (tmp_path / "resolv.conf").write_text(f"nameserver {server}\n")
    gateway = make(relay={"routes": {"partner.example": "mx"}})
    speaks = threading.Event()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver, Inbox(25, host=exchanger) as remote:
        resolver.bind((server, 53))
        threading.Thread(target=answer, args=(resolver, speaks, exchanger), daemon=True).start()
        gateway.start(mount=f"mount --bind {tmp_path}/resolv.conf /etc/resolv.conf")
        pids = gateway.worker_pids()
        code, mark = send(gateway, CAROL)
        assert code == 250
        until(lambda: [entry for entry in gateway.waiting() if entry.attempts > 0], 60)
        speaks.set()
        (delivered,) = until(lambda: remote.of(mark), 60)
        assert delivered.recipients == (CAROL,)
        assert gateway.worker_pids() == pids
        gateway.close()


def answer(resolver: socket.socket, speaks: threading.Event, exchanger: str) -> None:
    """A resolver that knows one mail exchanger, and says nothing until it may."""
    while True:
        try:
            octets, peer = resolver.recvfrom(4096)
        except OSError:
            return
        if not speaks.is_set():
            continue
        question = dns.message.from_wire(octets)
        reply = dns.message.make_response(question)
        name, kind = question.question[0].name, question.question[0].rdtype
        if kind == dns.rdatatype.MX:
            reply.answer.append(dns.rrset.from_text(name, 60, "IN", "MX", "10 mx.partner.example."))
        elif kind == dns.rdatatype.A:
            reply.answer.append(dns.rrset.from_text(name, 60, "IN", "A", exchanger))
        resolver.sendto(reply.to_wire(), peer)
