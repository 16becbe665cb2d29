"""Next hops that lie, babble or vanish: nothing counts as delivered that was not, nothing is lost, and they cost no memory (promises 1 and 5)."""

from __future__ import annotations

import resource
from dataclasses import replace

import pytest

from mailsec.model.address import Address
from mailsec.model.session import Envelope, Recipient
from tests.net.relay_gateway import entry
from tests.peers.gateway import until

EARLY = "\r\n".join(["250 2.1.0 ok", "250 2.1.5 ok", "354 go on", "250 2.0.0 taken"])


def waits(one, id="m"):
    """The row is still there, and was tried."""
    row = one.queue().get(id)
    return row is not None and row.attempts > 0 and not row.paused


@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "MAIL", "END"])
def test_a_reply_line_of_10_mb_is_cut_off(gateway, peers, stage):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line = "250 " + "x" * 10_000_000
    peer = peers({stage: line if stage != "CONNECT" else line.replace("250", "220", 1)})
    one = gateway(peer).start()
    one.commit(entry("m"))
    until(lambda: waits(one))
    # The peer of this test holds the line itself, some times over.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    assert set(one.queue()) == {"m"}


def test_a_reply_without_an_end_is_cut_off(gateway, peers):
    peer = peers({"MAIL": "\r\n".join(["250-and"] * 100_000)})
    one = gateway(peer).start()
    one.commit(entry("m"))
    until(lambda: waits(one))


@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "MAIL", "RCPT bob@example.net", "DATA"])
def test_replies_that_come_before_the_commands_deliver_nothing(gateway, peers, stage):
    usual = {"CONNECT": "220 peer", "EHLO": "250-peer\r\n250 PIPELINING", "DATA": "354 go on"}.get(stage, "250 2.1.0 ok")
    peer = peers({stage: f"{usual}\r\n{EARLY}"})
    one = gateway(peer).start()
    one.commit(entry("m"))
    until(lambda: waits(one) or peer.messages)
    # Either it really has the message, or it is tried again; never neither.
    assert peer.messages or "m" in one.queue()
    peer.script.clear()
    until(lambda: peer.messages and not one.queue())


@pytest.mark.parametrize("stage", ["MAIL", "RCPT b@x.example", "RCPT c@x.example", "DATA", "END"])
def test_one_that_drops_in_mid_pipeline_gets_all_recipients_later_and_each_once(gateway, peers, stage):
    peer = peers({stage: "close"})
    one = gateway(peer).start()
    one.commit(entry("m", recipients=("a@x.example", "b@x.example", "c@x.example")))
    until(lambda: waits(one))
    peer.script.clear()
    until(lambda: peer.messages and not one.queue())
    assert [recipients for _, recipients, _ in peer.messages] == [["a@x.example", "b@x.example", "c@x.example"]]


@pytest.mark.parametrize(
    ("stage", "reply"),
    [
        ("MAIL", "555 5.5.4 BODY? SMTPUTF8? never heard of it"),
        ("MAIL", "501 5.5.4 syntax"),
        ("END", "554 5.6.3 no 8-bit octets, whatever I said"),
    ],
)
def test_one_that_offers_what_it_does_not_take_refuses_and_the_sender_is_told(gateway, peers, stage, reply):
    said = iter([reply])
    peer = peers({stage: lambda: next(said, "250 2.0.0 ok")})
    one = gateway(peer).start()
    one.commit(entry("m", b"Subject: x\r\n\r\ngr\xc3\xbc\xc3\x9fe\r\n"))
    until(lambda: peer.messages and not one.queue())
    ((mail, _, octets),) = peer.messages
    assert mail == "<>" and reply.split()[1].encode() in octets


def test_one_that_cannot_carry_it_is_not_sent_it_in_another_form(gateway, peers):
    peer = peers(offers=("PIPELINING",))
    one = gateway(peer).start()
    one.commit(entry("m", b"Subject: x\r\n\r\ngr\xc3\xbc\xc3\x9fe\r\n"))
    until(lambda: peer.messages and not one.queue())
    ((mail, _, octets),) = peer.messages
    assert mail == "<>" and b"Status: 5.6.3" in octets and octets.isascii()


def test_one_that_cannot_carry_an_address_in_utf8_is_not_sent_it(gateway, peers):
    """RFC 6531 §3.2: nobody makes another address of it."""
    peer = peers(offers=("PIPELINING", "8BITMIME"))
    one = gateway(peer).start()
    envelope = Envelope(Address.parse("alice@example.org"), (Recipient(Address.parse("jürgen@example.net")),), smtputf8=True)
    one.commit(replace(entry("m"), envelope=envelope))
    until(lambda: peer.messages and not one.queue())
    ((mail, _, octets),) = peer.messages
    assert mail == "<>" and b"Status: 5.6.7" in octets and "jürgen".encode() not in octets


def test_more_replies_than_commands_deliver_the_next_message_to_nobody(gateway, peers):
    """A 250 too many behind the first message must not be taken for the answer to the second."""
    peer = peers({"END": lambda: "250 2.0.0 taken\r\n250 2.1.0 early\r\n250 2.1.5 early\r\n354 early\r\n250 2.0.0 early"})
    one = gateway(peer, connections_per_hop=1).start()
    one.commit(entry("a"))
    until(lambda: peer.messages)
    one.commit(entry("b", b"Subject: second\r\n\r\nsecond\r\n"))
    until(lambda: not one.queue())
    assert any(b"second" in octets for _, _, octets in peer.messages)
