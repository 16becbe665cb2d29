"""What is passed on while its client waits: the next hop's own answers, no row, and an end for whoever waits in vain."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
from twisted.internet.task import LoopingCall

from mailsec.model.octets import Segments
from mailsec.model.settings import NextHop
from mailsec.net import relay as relay_module
from mailsec.store.scratch import FileScratch
from tests.net.relay_gateway import BODY, entry
from tests.peers.gateway import until
from tests.peers.postfix import free_port


def begin(one, made):
    """Begin to pass `made` on; the task."""
    (task,) = one.loop.call(lambda: [one.runtime.start(one.relay.forward(made), "forward")])
    return task


def forward(one, made):
    replies = one.loop.call(one.relay.forward, made)
    return replies and [f"{reply.code} {reply.enhanced} {reply.text}" for reply in replies]


def test_it_arrives_octet_for_octet_and_is_in_no_spool(gateway, peers):
    peer = peers()
    one = gateway(peer).start()
    large = b"Subject: large\r\n\r\n" + b".line of t\xc3\xa9xt\r\n" * 100_000
    assert forward(one, entry("a")) == ["250 2.0.0 taken"]
    assert forward(one, entry("b", large)) == ["250 2.0.0 taken"]
    until(lambda: len(peer.messages) == 2)  # it writes down what it took after it has said so
    assert [octets for _, _, octets in peer.messages] == [BODY, large] and one.queue() == {}
    assert peer.connections == 1


def test_each_recipient_has_the_next_hops_own_answer(gateway, peers):
    peer = peers({"RCPT b@x.example": "550 5.1.1 nobody", "RCPT c@x.example": "450 4.2.1 busy"})
    one = gateway(peer).start()
    replies = forward(one, entry("m", recipients=("a@x.example", "b@x.example", "c@x.example")))
    assert replies == ["250 2.0.0 taken", "550 5.1.1 nobody", "450 4.2.1 busy"]
    assert one.queue() == {}


def test_a_next_hop_that_is_away_is_temporary(gateway):
    one = gateway(NextHop("smtp", "127.0.0.1", free_port(), tls="none")).start()
    (reply,) = forward(one, entry("m"))
    assert reply.startswith("451 4.4.1 ")


@pytest.mark.parametrize(("last", "taken"), [(b"e", True), (b"\xe9", False)])
def test_one_octet_of_eight_bits_behind_megabytes_is_seen(gateway, peers, tmp_path, last, taken):
    peer = peers(offers=("PIPELINING",))
    one = gateway(peer).start()
    scratch = FileScratch(str(tmp_path))
    scratch.append(b"Subject: large\r\n\r\n")
    for _ in range(40):
        scratch.append(b"line of text\r\n" * 4000)
    scratch.append(last + b"\r\n")
    (reply,) = forward(one, dataclasses.replace(entry("m"), segments=Segments.of(scratch.seal())))
    assert reply.startswith("250 " if taken else "554 5.6.3 "), reply


def test_attack_next_hop_that_takes_all_at_once_holds_up_nobody(gateway, peers, loop):
    one = gateway(peers()).start()
    turn, sent = [0], []
    turns = LoopingCall(lambda: turn.append(turn.pop() + 1))
    turns.clock = one.runtime.reactor

    def pieces():
        sent.clear()
        for _ in range(64):
            sent.append(turn[0])
            yield b"x" * 65534 + b"\r\n"

    loop.call(lambda: turns.start(0) and None)
    replies = forward(one, dataclasses.replace(entry("m"), segments=Segments.produced(64 * 65536, pieces)))
    loop.call(turns.stop)
    assert replies == ["250 2.0.0 taken"]
    assert max(Counter(sent).values()) <= 6


@pytest.mark.parametrize("stage", ["MAIL", "DATA", "END"])
def test_a_next_hop_that_goes_away_in_the_middle_is_no_250(gateway, peers, stage):
    peer = peers({stage: "close"})
    one = gateway(peer).start()
    (reply,) = forward(one, entry("m"))
    assert reply.startswith("451 ") and peer.messages == []


def test_who_waits_for_a_connection_too_long_keeps_the_message_and_it_is_never_sent(gateway, peers, loop, monkeypatch):
    monkeypatch.setattr(relay_module, "_PASSING_SECONDS", 0.3)
    peer = peers({"END": "hang"})
    one = gateway(peer, connections_per_hop=1).start()
    first = begin(one, entry("first"))
    until(lambda: peer.connections)
    (reply,) = forward(one, entry("second"))
    assert reply.startswith("451 4.4.1 ")
    peer.script.clear()
    peer.stopped.set()
    peer.drop_all()
    assert [reply.code for reply in loop.call(first.result)] == [451]
    assert forward(one, entry("third", BODY.replace(b"hello", b"third"))) == ["250 2.0.0 taken"]
    until(lambda: peer.messages)
    assert [b"third" in octets for _, _, octets in peer.messages] == [True]


def test_what_has_several_next_hops_or_is_to_be_reported_is_for_the_spool(gateway, peers):
    peer, other = peers(), peers()
    one = gateway(peer, routes=(("y.example", NextHop("smtp", "127.0.0.1", other.port, tls="none")),)).start()
    assert forward(one, entry("m", recipients=("a@x.example", "a@y.example"))) is None
    made = entry("n", recipients=("a@x.example",))
    asked = tuple(dataclasses.replace(recipient, notify="SUCCESS") for recipient in made.envelope.recipients)
    assert forward(one, dataclasses.replace(made, envelope=dataclasses.replace(made.envelope, recipients=asked))) is None
    assert peer.connections == other.connections == 0


def test_a_relay_that_stops_answers_whoever_waits(gateway, peers, loop):
    peer = peers({"END": "hang"})
    one = gateway(peer, connections_per_hop=1).start()
    begin(one, entry("first"))
    until(lambda: peer.connections)
    second = begin(one, entry("second"))
    relay = one.relay
    one.stop(0.2)
    assert [reply.code for reply in loop.call(second.result)] == [421]
    assert relay.delivered == 0
