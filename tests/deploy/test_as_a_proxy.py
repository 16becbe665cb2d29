"""docs/deploy/as-a-proxy.md, typed on a machine: mailsec passes mail on to Postfix while its clients wait."""

from __future__ import annotations

import smtplib

import pytest

from tests.deploy.every_page import AtTheEdge
from tests.deploy.place import ALICE, CAROL, GATEWAY, PASSWORD, Place


@pytest.fixture(scope="module")
def place(machines):
    with Place("deploy/as-a-proxy.md") as place:
        yield place.follow()


def test_the_page_shows_what_it_says(place):
    assert "is fine" in place.wrote[1] and "running" in place.wrote[1]
    assert "queued as" in place.wrote[2], "the reply is that of Postfix"
    assert "smime=none" in place.mailbox("first")


class TestAsAProxy(AtTheEdge):
    """Postfix says who has a mailbox."""


def test_while_postfix_is_away_clients_keep_their_mail(place):
    place.machine.run("systemctl stop postfix")
    with place.machine.smtp(GATEWAY, 25) as client, pytest.raises(smtplib.SMTPException) as refused:
        client.sendmail(CAROL, [ALICE], place.letter("away"))
    with place.machine.smtp(GATEWAY, 465, tls=place.tls()) as client:
        client.login("alice", PASSWORD)
        with pytest.raises(smtplib.SMTPException) as kept:
            client.sendmail(ALICE, [CAROL], f"From: {ALICE}\r\nTo: {CAROL}\r\n\r\nx\r\n")
    assert "451" in str(refused.value) and "451" in str(kept.value)
    assert "the queue is empty" in place.machine.run("mailsec queue list")
    place.machine.run("systemctl start postfix")
    place.arrives_again(place.letter("away"))
    assert place.results("away").startswith("smime=pass")
