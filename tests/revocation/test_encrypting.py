"""Revocation when somebody is encrypted for, through the whole gateway: revoked is refused, unknown waits, evidence counts for a week more."""

from __future__ import annotations

import pytest

from mailsec.errors import Unavailable
from mailsec.interfaces import FoundCertificate
from mailsec.model.queue import State
from mailsec.rules.ruleset import compile_rule
from mailsec.testing.authority import MemoryDirectory

OCSP = "http://ocsp.example/"
SECRET = b"the secret itself"
DAY = 86_400


@pytest.fixture
def scene(ca, kit):
    """scene(word): alice's gateway with a rule, and bob, whose certificate names a responder."""

    def make(word: str = "required", **revocation):
        alice, bob = ca.person("alice@example.org"), ca.person("bob@example.net", ocsp=OCSP)
        directory = MemoryDirectory(FoundCertificate(bob.der, "memory"))
        world = kit.World(ca, plugins=[directory], keys=[alice.handle], rules=[compile_rule("secret", encrypt=word)], **revocation)
        world.network.places[OCSP] = lambda request: ca.answer(request, at=world.network.at)
        return world, bob

    return make


def send(world):
    text = b"From: alice@example.org\r\nTo: bob@example.net\r\nSubject: hi\r\n\r\n" + SECRET + b"\r\n"
    return world.gate.submit(text, "bob@example.net")


def leaves(world) -> list[bool]:
    """Of each copy that leaves to bob, whether it is encrypted."""
    ready = world.gate.spool.in_state(State.READY)
    return [b"enveloped" in row.octets and SECRET not in row.octets for row in ready if row.entry.envelope.reverse_path is not None]


def test_good_is_encrypted_for(scene):
    world, _ = scene()
    assert send(world).code == 250 and leaves(world) == [True] and world.network.asked == [OCSP]
    assert send(world).code == 250 and world.network.asked == [OCSP], "it is known for a while"


def test_attack_a_revoked_certificate_is_refused(scene, ca):
    world, bob = scene()
    ca.revoke(bob)
    reply = send(world)
    assert (reply.code, reply.enhanced) == (550, "5.7.1") and "revoked" in reply.text and world.gate.rows == []


def test_if_possible_does_not_encrypt_for_a_revoked_one(scene, ca):
    world, bob = scene("if-possible")
    ca.revoke(bob)
    assert send(world).code == 250 and leaves(world) == [False]
    assert b"multipart/signed" in world.gate.ready[0]


@pytest.mark.parametrize("word", ["required", "if-possible"])
@pytest.mark.parametrize("trouble", ["hangs", "away", "lies"])
def test_attack_a_responder_is_kept_from_answering_and_the_message_waits(scene, ca, word, trouble):
    world, _ = scene(word)
    answers = {"hangs": lambda _: "hangs", "away": lambda _: Unavailable("away"), "lies": lambda request: ca.answer(request, forged=True)}
    world.network.places[OCSP] = answers[trouble]
    assert send(world).code == 250 and leaves(world) == []
    (row,) = world.gate.rows
    assert (row.state, row.need, row.secret) == (State.RAW, "evidence", True)
    # The responder is back; the breaker lets the question through after a while.
    world.network.places[OCSP] = lambda request: ca.answer(request, at=world.network.at)
    world.network.advance(120)
    world.gate.resume(row.id)
    assert leaves(world) == [True]


def test_what_waits_for_evidence_for_too_long_goes_back_with_that_reason(scene):
    world, _ = scene()
    world.network.places[OCSP] = lambda _: Unavailable("away")
    send(world)
    world.network.advance(5 * DAY + 60)
    world.gate.resume(world.gate.rows[0].id)
    (row,) = world.gate.spool.rows
    assert row.entry.envelope.reverse_path is None and SECRET not in row.octets
    assert b"nobody can say whether" in row.octets and b"Status: 4.4.7" in row.octets


def test_evidence_counts_for_a_week_past_its_end_and_no_longer(scene):
    world, _ = scene()
    assert send(world).code == 250 and leaves(world) == [True]
    world.network.places[OCSP] = lambda _: Unavailable("away")
    world.network.advance(7 * DAY)
    assert send(world).code == 250 and leaves(world) == [True, True]
    world.network.advance(2 * DAY)
    assert send(world).code == 250 and leaves(world) == [True, True]
    assert [row.need for row in world.gate.rows if row.state is State.RAW] == ["evidence"]


def test_without_a_source_nothing_is_asked_unless_it_must_be(scene, ca, kit):
    for mode, encrypted in (("check", [True]), ("require", [])):
        alice, bob = ca.person("alice@example.org"), ca.person("bob@example.net")
        directory = MemoryDirectory(FoundCertificate(bob.der, "memory"))
        world = kit.World(ca, plugins=[directory], keys=[alice.handle], rules=[compile_rule("secret", encrypt="required")], mode=mode)
        assert send(world).code == 250 and leaves(world) == encrypted


def test_a_revocation_is_heard_of_within_a_minute_of_the_next_look(scene, ca):
    world, bob = scene()
    world.network.places[OCSP] = lambda request: ca.answer(request, at=world.network.at, hours=1)
    assert send(world).code == 250
    ca.revoke(bob)
    world.network.advance(2 * 3600)
    assert send(world).code == 550
