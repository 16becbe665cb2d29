"""docs/deploy/to-a-smart-host.md, typed on a machine: Postfix and Dovecot are the mail server, mailsec stands between it and the provider.

Both are one machine here, with two addresses; the system believes the CA of the provider.
"""

from __future__ import annotations

import pytest

from tests.deploy.every_page import BehindPostfix
from tests.deploy.place import CAROL, MAIL_SERVER, Place
from tests.peers.gateway import until


@pytest.fixture(scope="module")
def place(machines):
    with Place("deploy/to-a-smart-host.md", postfix_at=MAIL_SERVER) as place:
        place.start_provider("example", "the password at the provider")
        yield place.follow()


def submission(place):
    return place.machine.smtp(MAIL_SERVER, 587, source="192.0.2.77", tls=place.tls("/etc/ssl/mail/cert.pem"))


def test_the_page_shows_what_it_says(place):
    assert "mail.example.org" in place.wrote[1] and "is fine" in place.wrote[1] and "running" in place.wrote[1]
    assert "Queued mail for delivery" in place.wrote[2] or "250 2" in place.wrote[2]
    assert "smime=none" in place.mailbox("first")


class TestToASmartHost(BehindPostfix):
    def submission(self, place):
        return submission(place)

    def outside(self, place):
        return place.provider


def test_while_the_provider_is_away_nothing_is_lost(place):
    place.stop_provider()
    place.submits(submission(place), "away")
    assert CAROL in place.machine.until("mailsec queue list", "again in")
    place.start_provider("example", "the password at the provider")
    place.flush()
    place.verify(until(lambda: place.provider.of("<away@demo.example.org>"), 60)[0].octets)
