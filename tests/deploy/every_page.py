"""What holds wherever mailsec stands: a page's own module takes these tests up by a class of its own, and says how its people submit."""

from __future__ import annotations

import smtplib

import pytest

from tests.deploy.place import ALICE, CAROL, GATEWAY, PASSWORD, Place
from tests.peers.gateway import until
from tests.peers.inbox import Inbox

__all__ = ["AtTheEdge", "BehindPostfix", "WithAPartner"]


class EveryPage:
    """`starttls` says that port 25 offers it."""

    starttls = True

    def submission(self, place: Place) -> smtplib.SMTP:
        """A client where people submit."""
        raise NotImplementedError

    def outside(self, place: Place) -> Inbox:
        """Where mail to the world arrives."""
        return place.world

    def test_what_people_submit_leaves_signed_to_the_world(self, place):
        place.submits(self.submission(place), "out")
        delivered = until(lambda: self.outside(place).of("<out@demo.example.org>"), 60)[0]
        assert delivered.reverse_path == ALICE and delivered.recipients == (CAROL,)
        place.verify(delivered.octets)

    def test_what_arrives_lies_in_the_mailbox_with_its_verdict(self, place):
        place.arrives(place.machine.smtp(GATEWAY, 25), place.letter("intact"))
        tls = place.tls() if self.starttls else None
        place.arrives(place.machine.smtp(GATEWAY, 25, tls=tls), place.letter("changed", changed=True))
        assert place.results("intact").startswith("smime=pass")
        assert place.results("changed").startswith("smime=fail")


class WithAPartner(EveryPage):
    """`dora` was made before the page was followed."""

    def test_what_people_submit_for_a_partner_leaves_encrypted_for_her(self, place, dora):
        dora.is_written_to(self.submission(place), "price")


class AtTheEdge(EveryPage):
    """People submit to mailsec itself; it says at once who has no mailbox."""

    def submission(self, place: Place) -> smtplib.SMTP:
        return place.machine.smtp(GATEWAY, 465, tls=place.tls())

    def test_somebody_without_a_mailbox_is_refused(self, place):
        with place.machine.smtp(GATEWAY, 25) as client, pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            client.sendmail(CAROL, ["bobby@example.org"], place.letter("bobby"))
        assert refused.value.recipients["bobby@example.org"][0] == 550


class BehindPostfix(EveryPage):
    """People submit to Postfix, and mailsec believes what Postfix says of them."""

    def test_attack_login_cannot_send_as_somebody_else(self, place):
        with self.submission(place) as client:
            client.login("alice", PASSWORD)
            with pytest.raises((smtplib.SMTPSenderRefused, smtplib.SMTPRecipientsRefused)):
                client.sendmail("boss@example.org", [CAROL], "From: boss@example.org\r\n\r\nx\r\n")
