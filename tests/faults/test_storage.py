"""A full disk and a read-only spool under the running gateway: 452 or nothing, never a loss, and it goes on by itself when there is room."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import smtplib
import subprocess

import pytest

from tests.faults.sender import letter
from tests.peers.gateway import Gateway, alive, namespace_why_not, until
from tests.peers.inbox import Inbox

CAROL = "carol@partner.example"


@pytest.fixture
def inbox():
    with Inbox() as inbox:
        yield inbox


@pytest.fixture
def gateway(tmp_path, inbox):
    reason = namespace_why_not()
    if reason:
        pytest.skip(reason)
    one = Gateway(tmp_path / "gateway", inbox.port, workers=1)
    (one.directory / "spool").mkdir(mode=0o700)
    yield one
    one.close()


def fill(path) -> None:
    """Take all the room there is."""
    with path.open("ab", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def send(gateway, recipient: str, body: bytes = b"body\r\n") -> int:
    """The reply code to one message."""
    with gateway.client() as client:
        try:
            client.sendmail(CAROL, [recipient], letter(CAROL, recipient, body=body))
        except smtplib.SMTPSenderRefused as error:
            return error.smtp_code
        except smtplib.SMTPDataError as error:
            return error.smtp_code
    return 250


def test_full_disk_is_452_and_it_recovers(gateway, inbox):
    spool = gateway.directory / "spool"
    gateway.start(mount=f"mount -t tmpfs -o size=112m,mode=700 tmpfs {spool}")
    others = gateway.inside(spool) / "others"
    assert send(gateway, "before@example.org") == 250
    assert send(gateway, "large@example.org", b"x" * 70 + b"\r\n" * 10_000) == 250
    # In the middle of a message: its end is answered with 452, not with a closed connection.
    middle = gateway.client()
    middle.ehlo()
    middle.mail(CAROL)
    middle.rcpt("middle@example.org")
    assert middle.docmd("DATA")[0] == 354
    middle.send(letter(CAROL, "middle@example.org", body=(b"y" * 70 + b"\r\n") * 20_000))
    fill(others)
    middle.send((b"z" * 70 + b"\r\n") * 20_000 + b".\r\n")
    assert middle.getreply()[0] == 452
    # RFC 1870 §6.1: at MAIL, before the octets are sent
    until(lambda: middle.mail(CAROL)[0] == 452 or middle.rset()[0] != 250, 20, "452 at MAIL")
    # A client without SIZE, or with a lie in it, is told as well.
    assert middle.docmd(f"MAIL FROM:<{CAROL}>")[0] == 452
    middle.quit()
    pid = gateway.worker_pids()[0]
    others.unlink()
    until(lambda: send(gateway, "after@example.org") == 250, 20, "room")
    for name in ("before", "large", "after"):
        until(lambda name=name: any(f"{name}@example.org" in one.recipients for one in list(inbox.messages)))
    assert not any("middle@example.org" in one.recipients for one in inbox.messages)
    assert gateway.worker_pids()[0] == pid and alive(pid)
    until(lambda: not list((gateway.inside(spool) / "spool-0.bodies").iterdir()), 20, "bodies that are gone")


def test_no_inodes_is_452_before_the_octets_come_and_it_recovers(gateway, inbox):
    spool = gateway.directory / "spool"
    gateway.start(mount=f"mount -t tmpfs -o size=112m,nr_inodes=400,mode=700 tmpfs {spool}")
    others = gateway.inside(spool) / "others"
    others.mkdir()
    assert send(gateway, "before@example.org") == 250
    count = 0
    with contextlib.suppress(OSError):
        while True:
            (others / str(count)).touch()
            count += 1
    assert count > 300
    with gateway.client() as client:
        client.ehlo()
        # RFC 1870 §6.1: at MAIL; nobody sends a message first to hear it then.
        until(lambda: client.mail(CAROL)[0] == 452 or client.rset()[0] != 250, 20, "452 at MAIL")
    assert send(gateway, "between@example.org") == 452
    shutil.rmtree(others)
    until(lambda: send(gateway, "after@example.org") == 250, 20, "inodes")
    for name in ("before", "after"):
        until(lambda name=name: any(f"{name}@example.org" in one.recipients for one in list(inbox.messages)))
    assert not any("between@example.org" in one.recipients for one in inbox.messages)


def test_what_was_taken_before_the_disk_was_full_arrives_though_it_stays_full(gateway, inbox):
    spool = gateway.directory / "spool"
    inbox.stop()
    gateway.start(mount=f"mount -t tmpfs -o size=112m,mode=700 tmpfs {spool}")
    recipients = [f"r{number}@example.org" for number in range(30)]
    for recipient in recipients:
        assert send(gateway, recipient) == 250
    fill(gateway.inside(spool) / "others")
    inbox.start()
    until(lambda: {address for one in list(inbox.messages) for address in one.recipients} >= set(recipients), 40, "all of them")


def test_read_only_spool_starts_nothing_and_says_so(gateway):
    spool = gateway.directory / "spool"
    gateway.start(mount=f"mount -t tmpfs -o ro tmpfs {spool}", ready=False)
    assert gateway.gateway.wait(60) != 0
    text = gateway.log.read_text()
    assert re.search(r"read-only|not writable", text), text
    assert "Traceback" not in text
    with pytest.raises(ConnectionRefusedError):
        gateway.connect()


def test_spool_that_becomes_read_only_loses_nothing_and_goes_on_when_it_is_writable_again(gateway, inbox):
    spool = gateway.directory / "spool"
    inbox.stop()
    gateway.start(mount=f"mount -t tmpfs -o size=112m,mode=700 tmpfs {spool} && mount --bind {spool} {spool}")
    recipients = [f"r{number}@example.org" for number in range(10)]
    for recipient in recipients:
        assert send(gateway, recipient) == 250

    def inside(*command: str) -> None:
        subprocess.run(["nsenter", "--mount", "--target", str(gateway.gateway.pid), *command], check=True, timeout=20)

    # What is open for writing keeps a file system writable: its worker dies, and the next one finds it read-only.
    os.kill(gateway.worker_pids()[0], signal.SIGSTOP)
    supervised = gateway.worker_pids()[0]
    os.kill(supervised, signal.SIGKILL)
    deaths = gateway.deaths()
    for _ in range(200):
        done = subprocess.run(
            ["nsenter", "--mount", "--target", str(gateway.gateway.pid), "mount", "-o", "remount,bind,ro", str(spool)],
            capture_output=True,
            check=False,
        )
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr
    pid = gateway.worker_pids().get(0)
    if pid is not None and pid != supervised and alive(pid):
        os.kill(pid, signal.SIGKILL)
    until(lambda: gateway.deaths() > deaths + 1, 40, "workers that cannot open the spool")
    with gateway.connect() as connection:
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):  # it waits in the socket; nobody promises anything
            connection.recv(100)
        inside("mount", "-o", "remount,bind,rw", str(spool))
        connection.settimeout(60)
        assert connection.recv(100).startswith(b"220 ")
    inbox.start()
    until(lambda: {address for one in list(inbox.messages) for address in one.recipients} >= set(recipients), 60, "all of them")
    assert send(gateway, "after@example.org") == 250
