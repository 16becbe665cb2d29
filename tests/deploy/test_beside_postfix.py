"""docs/deploy/beside-postfix.md, typed on a machine: mailsec is the content filter of Postfix in both directions."""

from __future__ import annotations

import smtplib

import pytest

from tests.deploy.every_page import BehindPostfix, WithAPartner
from tests.deploy.place import ALICE, CAROL, GATEWAY, Place
from tests.peers.gateway import until

pytestmark = pytest.mark.usefixtures("dora")


@pytest.fixture(scope="module")
def place(machines):
    with Place("deploy/beside-postfix.md") as place:
        yield place


def submission(place):
    return place.machine.smtp(GATEWAY, 587, tls=place.tls("/etc/ssl/mail/cert.pem"))


def test_the_page_shows_what_it_says(place):
    assert "is fine" in place.wrote[0] and "running" in place.wrote[0]
    assert "smime=none" in place.mailbox("first")


class TestBesidePostfix(WithAPartner, BehindPostfix):
    starttls = False

    def submission(self, place):
        return submission(place)


def test_what_is_encrypted_for_a_reader_arrives_opened(place, dora):
    place.arrives(place.machine.smtp(GATEWAY, 25), dora.encrypted("secret", "Dear Alice,\n\nwe meet on Wednesday.\n"))
    assert place.results("secret").startswith("smime=pass") and "on Wednesday" in place.mailbox("secret")


def test_attack_letter_to_the_world_by_port_25_is_not_relayed(place):
    with place.machine.smtp(GATEWAY, 25) as client, pytest.raises(smtplib.SMTPRecipientsRefused):
        client.sendmail(ALICE, [CAROL], f"From: {ALICE}\r\nTo: {CAROL}\r\n\r\nsign this\r\n")


def test_while_mailsec_is_away_postfix_keeps_the_mail(place):
    place.machine.run("systemctl stop mailsec")
    place.arrives(place.machine.smtp(GATEWAY, 25), place.letter("away"))
    place.submits(submission(place), "away")
    place.machine.until("postqueue -p", "127.0.0.1[127.0.0.1]:10027: Connection refused")
    place.machine.until("postqueue -p", "127.0.0.1[127.0.0.1]:10025: Connection refused")
    place.machine.run("systemctl start mailsec && postqueue -f")
    assert place.results("away").startswith("smime=pass")
    place.verify(until(lambda: place.world.of("<away@demo.example.org>"), 60)[0].octets)
