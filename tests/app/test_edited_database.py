"""A database that somebody edits while `mailsec serve` runs on it: what was edited decides nothing, and what is asked next shows it."""

from __future__ import annotations

import smtplib
import sqlite3
from collections.abc import Iterator

import pytest

from mailsec.store.certdb import CertDb
from tests.peers.gateway import Gateway, until
from tests.peers.inbox import Inbox


@pytest.fixture
def gateway(tmp_path) -> Iterator[tuple[Gateway, Inbox]]:
    with Inbox() as inbox:
        made = Gateway(tmp_path / "gateway", inbox.port, workers=1)
        try:
            yield made.start(), inbox
        finally:
            made.close()


def send(gateway: Gateway, sender: str, subject: str) -> int:
    """What the gateway answers to mail that must be signed."""
    text = f"From: {sender}\r\nTo: x@elsewhere.example\r\nSubject: {subject}\r\n\r\nbody\r\n"
    with gateway.client("trusted") as client:
        try:
            client.sendmail(sender, ["x@elsewhere.example"], text.encode())
        except smtplib.SMTPDataError as error:
            return error.smtp_code
    return 250


def test_attack_an_assignment_that_is_moved_while_it_runs_gives_nobody_the_key(gateway: tuple[Gateway, Inbox]):
    running, inbox = gateway
    path = running.directory / "mailsec.db"
    password = (running.directory / "passphrase").read_text().strip().removeprefix("internal:")
    with CertDb.open(str(path), password=password.encode()) as database:
        database.assign("bob", ["sales@example.org"])
    until(lambda: send(running, "sales@example.org", "of sales") == 250, what="the assignment to count")
    assert b"multipart/signed" in until(lambda: [one.octets for one in inbox.messages if b"of sales" in one.octets], what="signed mail")[0]
    assert send(running, "bob@example.org", "not his any more") != 250
    with sqlite3.connect(path) as connection:
        assert connection.execute("UPDATE assignments SET key_id = zeroblob(32)").rowcount == 1
    assert send(running, "bob@example.org", "after the edit") != 250
    with CertDb.open(str(path), password=password.encode()) as database:
        # A change of ours, so that the worker asks anew at once, for bob, too.
        database.rename("bob", "bobby")
    until(lambda: send(running, "sales@example.org", "no longer") != 250, what="the edit to be seen")
    assert send(running, "bob@example.org", "after the edit, asked anew") == 451
    assert not [one for one in inbox.messages if b"after the edit" in one.octets or b"his any more" in one.octets]
