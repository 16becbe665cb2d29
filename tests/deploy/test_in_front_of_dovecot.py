"""docs/deploy/in-front-of-dovecot.md, typed on a machine: mailsec is the mail exchanger, Dovecot has the mailboxes and the passwords."""

from __future__ import annotations

import smtplib

import pytest

from tests.deploy.every_page import AtTheEdge, WithAPartner
from tests.deploy.place import CAROL, GATEWAY, Place
from tests.peers.gateway import until

pytestmark = pytest.mark.usefixtures("dora")


@pytest.fixture(scope="module")
def place(machines):
    with Place("deploy/in-front-of-dovecot.md") as place:
        yield place


def test_the_page_shows_what_it_says(place):
    assert "is fine" in place.wrote[1] and "running" in place.wrote[1]
    assert "smime=none" in place.mailbox("first")


class TestInFrontOfDovecot(WithAPartner, AtTheEdge):
    """Dovecot says who has a mailbox."""


def test_while_dovecot_is_away_nothing_is_lost_and_what_was_encrypted_does_not_lie_in_clear(place, dora):
    place.machine.run("systemctl stop dovecot")
    # Each worker remembers for itself who exists: one that does not know Alice yet says 451.
    place.arrives_again(place.letter("away"))
    place.arrives_again(dora.encrypted("secret", "Dear Alice,\n\nwe meet on Wednesday.\n"))
    with place.machine.smtp(GATEWAY, 25) as client, pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        client.sendmail(CAROL, ["robert@example.org"], place.letter("robert"))
    assert refused.value.recipients["robert@example.org"][0] == 451
    until(lambda: place.machine.run("mailsec queue list").count("again in") == 2, 60, "both to be opened, and to have been tried")
    assert place.machine.run("grep --recursive --files-with-matches --text Tuesday /var/lib/mailsec") != ""
    assert place.machine.run("grep --recursive --files-with-matches --text Wednesday /var/lib/mailsec || true") == ""
    place.machine.run("systemctl start dovecot")
    place.flush()
    assert place.results("away").startswith("smime=pass")
    assert place.results("secret").startswith("smime=pass") and "on Wednesday" in place.mailbox("secret")
