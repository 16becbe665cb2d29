"""What senders are told: that it takes long, that it arrived where they asked, and nothing because a clock was wrong (RFC 3461)."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from mailsec.model.session import Recipient
from mailsec.model.settings import NextHop
from tests.net.relay_gateway import entry
from tests.peers.gateway import until

DSN = ("PIPELINING", "8BITMIME", "SMTPUTF8", "DSN")
NOTIFY = "SUCCESS,DELAY"


def asking(id, notify=NOTIFY, *addresses, **more):
    made = entry(id, recipients=addresses or ("b@x.example",), **more)
    recipients = tuple(dataclasses.replace(one, notify=notify) for one in made.envelope.recipients)
    return dataclasses.replace(made, envelope=dataclasses.replace(made.envelope, recipients=recipients, envid="e+2B1"))


def reports(peer):
    return [octets for mail, _, octets in list(peer.messages) if mail == "<>"]


def test_the_sender_is_told_once_that_it_takes_long(gateway, peers):
    peer = peers({"RCPT b@x.example": "450 4.2.1 busy"})
    one = gateway(peer, retry_first=0.1, retry_longest=0.1, warn_after=0.2).start()
    one.commit(entry("m", recipients=("b@x.example",)))
    until(lambda: reports(peer))
    until(lambda: one.queue()["m"].attempts > 5)
    (report,) = reports(peer)
    assert b"Action: delayed" in report and b"Status: 4.4.7" in report and b"Will-Retry-Until: " in report
    assert b"450 4.2.1 busy" in report and b"hello" not in report
    peer.script.clear()
    until(lambda: not one.queue())
    assert len(reports(peer)) == 1


@pytest.mark.parametrize("message", ["never", "without", "null", "sensitive"])
def test_nobody_is_told_of_a_delay_who_must_not_or_will_not_be(gateway, peers, message):
    peer = peers({"RCPT b@x.example": "450 4.2.1 busy"})
    one = gateway(peer, retry_first=0.1, retry_longest=0.1, warn_after=0.1).start()
    made = asking("m", {"never": "NEVER", "without": "FAILURE,SUCCESS"}.get(message, "DELAY"), sensitive=message == "sensitive")
    if message == "null":
        made = dataclasses.replace(made, envelope=dataclasses.replace(made.envelope, reverse_path=None))
    one.commit(made)
    until(lambda: one.queue()["m"].attempts > 3)
    assert set(one.queue()) == {"m"} and reports(peer) == []


def test_success_is_told_by_us_where_the_next_hop_knows_no_dsn(gateway, peers):
    peer = peers({"RCPT c@x.example": "450 4.2.1 busy"})
    one = gateway(peer).start()
    one.commit(asking("m", NOTIFY, "b@x.example", "c@x.example"))
    until(lambda: reports(peer))
    peer.script.clear()
    until(lambda: len(reports(peer)) == 2 and not one.queue())
    first, second = reports(peer)
    assert b"Action: relayed" in first and b"b@x.example" in first and b"c@x.example" not in first
    assert b"Action: relayed" in second and b"c@x.example" in second and b"rfc822; b@x.example" not in second
    assert b"Original-Envelope-Id: e+1" in first


def test_success_is_told_by_the_next_hop_that_knows_dsn(gateway, peers):
    peer = peers(offers=DSN)
    one = gateway(peer).start()
    one.commit(asking("m"), entry("plain"))
    until(lambda: len(peer.messages) == 2 and not one.queue())
    assert reports(peer) == []


def test_what_lies_in_the_mailbox_was_delivered(gateway, peers, tmp_path):
    store, world = peers(path=str(tmp_path / "lmtp"), lmtp=True), peers()
    hop = NextHop("lmtp", path=str(tmp_path / "lmtp"), tls="none")
    one = gateway(world, routes=(("x.example", hop),)).start()
    one.commit(asking("m"))
    until(lambda: reports(world) and not one.queue())
    assert len(store.messages) == 1 and b"Action: delivered" in reports(world)[0]


def test_what_was_encrypted_inside_tells_nobody_that_it_arrived(gateway, peers):
    peer = peers()
    one = gateway(peer).start()
    one.commit(asking("m", sensitive=True), entry("after"))
    until(lambda: len(peer.messages) == 2 and not one.queue())
    assert [octets for octets in reports(peer) if b"Action:" in octets] == []


def test_a_clock_that_jumps_ahead_by_a_year_bounces_nothing(gateway, peers):
    peer = peers({"RCPT b@x.example": "450 4.2.1 busy"})
    one = gateway(peer, retry_first=0.1, retry_longest=0.1).start()
    one.commit(entry("m", recipients=("b@x.example",)))
    until(lambda: one.queue()["m"].attempts > 1)
    right = one.runtime.now
    one.runtime.now = lambda: right() + timedelta(days=365)
    seen = one.queue()["m"].attempts
    until(lambda: one.queue()["m"].attempts > seen + 2)
    # And back: what was put off until next year is tried at once.
    one.runtime.now = right
    seen = one.queue()["m"].attempts
    until(lambda: one.queue()["m"].attempts > seen + 1)
    assert peer.messages == []
    peer.script.clear()
    until(lambda: not one.queue())
    assert [recipients for _, recipients, _ in peer.messages] == [["b@x.example"]]


def test_what_senders_asked_for_stands_in_reports_and_ret_full_brings_no_message_back(gateway, peers):
    peer = peers({"RCPT b@x.example": "550 5.1.1 nobody"})
    one = gateway(peer).start()
    made = asking("m", "FAILURE")
    recipient = Recipient(made.envelope.recipients[0].address, "FAILURE", "rfc822;list+40x.example")
    one.commit(dataclasses.replace(made, envelope=dataclasses.replace(made.envelope, recipients=(recipient,), ret="FULL")))
    until(lambda: reports(peer) and not one.queue())
    (report,) = reports(peer)
    assert b"Original-Recipient: rfc822;list@x.example" in report
    assert b"hello" not in report and b"Subject: x" in report
