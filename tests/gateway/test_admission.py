"""No open relay, by any trick; loops and sizes; who may connect and begin."""

from __future__ import annotations

import pytest

from mailsec.errors import Reply, Unavailable
from mailsec.gateway.admission import Domains
from mailsec.hookspecs import hookimpl
from mailsec.model.address import Address
from mailsec.model.limits import Limits
from mailsec.model.session import Envelope, Origin, Recipient
from mailsec.testing import values
from mailsec.testing.gateway import MemoryGateway

INTERNET = values.session()


def answer(gate, recipient: Address | str, session=INTERNET) -> Reply | None:
    address = recipient if isinstance(recipient, Address) else Address.parse(recipient)
    reply = gate.pipeline.admit_recipient(session, None, address)
    return reply if reply is None or isinstance(reply, Reply) else gate.runtime.run(reply)


@pytest.mark.parametrize("recipient", ["a@example.org", "a@EXAMPLE.ORG", "a@example.org.", "a@x.sub.example.org", "postmaster@example.org"])
def test_our_own_recipient_is_welcome(gate, recipient):
    local_part, _, domain = recipient.rpartition("@")
    assert answer(gate, Address(local_part, domain)) is None


@pytest.mark.parametrize(
    "recipient",
    [
        "a@example.net",
        "a@sub.example.org",
        "a@other.example.org",
        "a@example.org.evil.example",
        "a@evilexample.org",
        "a@xsub.example.org",
        "a@[127.0.0.1]",
        "a@[192.0.2.1]",
        "a@gw.example.org",
        "postmaster@example.net",
    ],
)
def test_open_relay_stranger_to_stranger_is_refused(gate, recipient):
    assert answer(gate, recipient) == Reply(550, "5.7.1", "relaying denied")


@pytest.mark.parametrize(
    "recipient", ["victim%evil.example@example.org", "evil.example!victim@example.org", '"victim@evil.example"@example.org']
)
def test_open_relay_by_a_route_in_the_local_part_is_refused(gate, recipient):
    assert answer(gate, recipient).code == 550


def test_open_relay_by_logging_in_on_internet_is_refused(gate):
    assert answer(gate, "a@example.net", values.session(who=values.identity())).code == 550


def test_postmaster_without_a_domain_is_welcome(gate):
    assert answer(gate, Address("Postmaster", "gw.example.org")) is None


@pytest.mark.parametrize("written", ["Postmaster@gw.example.org", "postmaster@GW.example.org"])
def test_mail_for_postmaster_of_this_host_reaches_the_configured_one(written):
    gate = MemoryGateway(postmaster="admin@example.org")
    local_part, _, domain = written.partition("@")
    envelope = Envelope(
        Address.parse("carol@example.net"), (Recipient(Address(local_part, domain)), Recipient(Address.parse("bob@example.org")))
    )
    octets = values.message("From: carol@example.net\r\n\r\nhelp\r\n").octets
    assert gate.runtime.run(gate.pipeline.receive(values.session(Origin.INTERNET), envelope, octets)).code == 250
    assert [str(one.address) for one in gate.rows[0].envelope.recipients] == ["admin@example.org", "bob@example.org"]


def test_postmaster_of_a_host_that_is_a_domain_of_ours_stays_who_it_is():
    gate = MemoryGateway(postmaster="admin@example.org", hostname="example.org")
    assert gate.arrive("From: carol@example.net\r\n\r\nhelp\r\n", "postmaster@example.org").code == 250
    assert str(gate.rows[0].envelope.recipients[0].address) == "postmaster@example.org"


def test_message_id_of_200_kib_is_not_in_every_row_and_log_line():
    gate = MemoryGateway()
    text = "From: carol@example.net\r\nMessage-ID: <" + "x" * 200_000 + "@example.net>\r\n\r\nhello\r\n"
    assert gate.arrive(text, "alice@example.org", "bob@example.org").code == 250
    assert len(gate.rows[0].message_id) == len(gate.events[0].fields["message_id"]) == 250


def test_submission_and_trusted_may_send_anywhere(gate):
    for origin in (Origin.SUBMISSION, Origin.TRUSTED):
        assert answer(gate, "a@example.net", values.session(origin)) is None


def test_mailbox_origin_takes_no_mail(gate):
    assert gate.pipeline.admit_sender(values.session(Origin.MAILBOX), None).code == 550


@pytest.mark.parametrize(
    ("sender", "welcome"), [("a@example.org", True), ("a@example.net", False), ("a@x.example.org", False), (None, True)]
)
def test_trusted_takes_only_its_senders(gate, sender, welcome):
    session = values.session(Origin.TRUSTED)
    reply = gate.pipeline.admit_sender(session, None if sender is None else Address.parse(sender))
    assert (reply is None) is welcome


@pytest.mark.parametrize(
    ("peer", "welcome"),
    [("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.1", True), ("unix:/run/x", True), ("192.0.2.1", False), ("what", False)],
)
def test_listener_with_peers_is_for_them_only(gate, peer, welcome):
    reply = gate.pipeline.admit_connection(values.session(Origin.TRUSTED, peer=peer))
    assert (reply is None) is welcome
    assert gate.pipeline.admit_connection(values.session(peer=peer)) is None


class Directory:
    name = "directory"

    def __init__(self, answers):
        self.answers = answers

    @hookimpl
    def register_recipient_directories(self):
        return [self]

    async def exists(self, address):
        found = self.answers.get(address.key)
        if isinstance(found, Exception):
            raise found
        return found


def test_recipient_that_a_directory_does_not_know_is_refused_but_postmaster_is_not(kit):
    gate = kit.Gate(Directory({"nobody@example.org": False, "postmaster@example.org": False, "a@example.org": True}))
    assert answer(gate, "nobody@example.org") == Reply(550, "5.1.1", "no such recipient here")
    assert answer(gate, "a@example.org") is None
    assert answer(gate, "unknown@example.org") is None
    assert answer(gate, "postmaster@example.org") is None
    assert answer(gate, "nobody@example.org", values.session(Origin.SUBMISSION)) is None


def test_directory_that_is_out_is_no_yes_and_no_no(kit):
    gate = kit.Gate(Directory({"a@example.org": Unavailable("ldap is away")}))
    with pytest.raises(Unavailable):
        answer(gate, "a@example.org")


def test_mail_loop_is_refused(gate):
    text = "Received: x\n" * 51 + "From: carol@example.net\n\n"
    assert gate.arrive(text).enhanced == "5.4.6"
    assert gate.arrive(text.replace("Received: x\n", "", 1)).code == 250


def test_message_over_the_size_is_refused(kit):
    gate = kit.Gate(limits=Limits(message_size=1000))
    assert gate.arrive("Subject: x\n\n" + "x" * 1000).code == 552
    assert gate.rows == []


def test_header_over_the_limits_is_refused(kit):
    gate = kit.Gate(limits=Limits(header_fields=10))
    assert gate.arrive("A: b\n" * 11 + "\n").code == 552


def test_header_that_would_become_the_rest_of_our_field_is_refused(gate):
    """A first line that begins with a blank would be read as folding of the field that we put in front of it."""
    assert gate.arrive(" smime=pass\nFrom: carol@example.net\n\n").code == 554
    assert gate.rows == []


def test_domains_in_other_letters():
    assert Address("a", "bücher.example") in Domains(["xn--bcher-kva.example"])
    assert Address("a", "xn--bcher-kva.example") in Domains(["Bücher.example"])
