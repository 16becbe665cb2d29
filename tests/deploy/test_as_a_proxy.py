"""docs/deploy/as-a-proxy.md, typed on a machine: mailsec passes mail on to Postfix while its clients wait."""

from __future__ import annotations

import smtplib

import pytest

from tests.deploy.place import ALICE, CAROL, GATEWAY, PASSWORD, Place
from tests.peers.gateway import until


@pytest.fixture(scope="module")
def place(machines):
    with Place("deploy/as-a-proxy.md") as place:
        yield place.follow()


def test_the_page_shows_what_it_says(place):
    assert "is fine" in place.wrote[1] and "running" in place.wrote[1]
    assert "queued as" in place.wrote[2], "the reply is that of Postfix"
    assert "smime=none" in place.mailbox("first")


def test_what_people_submit_leaves_signed_to_the_world(place):
    place.submits(place.machine.smtp(GATEWAY, 465, tls=place.tls()), "out")
    delivered = until(lambda: place.world.of("<out@demo.example.org>"), 60)[0]
    assert delivered.reverse_path == ALICE and delivered.recipients == (CAROL,)
    place.verify(delivered.octets)


def test_what_arrives_lies_in_the_mailbox_with_its_verdict(place):
    place.arrives(place.machine.smtp(GATEWAY, 25), place.letter("intact"))
    place.arrives(place.machine.smtp(GATEWAY, 25, tls=place.tls()), place.letter("changed", changed=True))
    assert place.results("intact").startswith("smime=pass")
    assert place.results("changed").startswith("smime=fail")


def test_what_postfix_does_not_know_its_client_hears(place):
    with place.machine.smtp(GATEWAY, 25) as client, pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        client.sendmail(CAROL, ["bobby@example.org"], place.letter("bobby"))
    assert refused.value.recipients["bobby@example.org"][0] == 550


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
