"""Whose word counts: tokens that are honest, lie, are away or come back."""

from __future__ import annotations

import os
from dataclasses import replace
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st

from mailsec.asn1 import writer
from mailsec.keys.public_objects import rsa_public_key
from mailsec.keys.software import SoftwareBackend, load_public_key
from mailsec_accel.accelerator import Accelerator
from mailsec_accel.backend import AcceleratedBackend

KINDS = {"rsa": "rsa", "p256": "ec:secp256r1", "p384": "ec:secp384r1"}


class World:
    """An engine with tokens, and a clock."""

    def __init__(self, *tokens, confirm: int = 1_000_000, trusted: bool = True) -> None:
        self.now = 0.0
        self.software = SoftwareBackend()
        self.accelerators = [
            Accelerator(f"t{number}", "T", ("rsa", "ecdsa"), lambda token=token: token, deadline=0.05, retry=60.0)
            for number, token in enumerate(tokens)
        ]
        self.engine = AcceleratedBackend(self.software, self.accelerators, random=os.urandom, monotonic=lambda: self.now, confirm=confirm)
        if trusted:
            self.test()
            assert all(one.trusted == {"rsa", "ec:secp256r1", "ec:secp384r1", "ec:secp521r1"} for one in self.accelerators)
        for token in tokens:
            token.asked = 0

    def test(self) -> None:
        for one in self.accelerators:
            for kind in one.due(self.now):
                one.test(kind, self.software, os.urandom, self.now)

    def verify(self, one, **changes) -> bool:
        values = {"key": one.key, "mechanism": one.mechanism, "signature": one.signature, "data": one.data} | changes
        return self.engine.verify(values["key"], values["mechanism"], values["signature"], values["data"])

    def events(self) -> list[str]:
        return [event for one in self.accelerators for event, _kind, _reason in one.changes]


@pytest.mark.parametrize("name", KINDS)
def test_a_token_that_was_tested_answers_for_software(token, signed, name):
    world, one = World(token), signed[name]
    assert world.verify(one) and token.asked == 1
    assert not world.verify(one, data=b"other")
    digest = world.software.hash(one.mechanism.digest)
    digest.update(one.data)
    assert world.verify(one, mechanism=replace(one.mechanism, prehashed=True), data=digest.digest())
    assert world.accelerators[0].report() == {"accelerator": "t0", "trusted": sorted(world.accelerators[0].trusted), "right": 2, "wrong": 1}


@pytest.mark.parametrize("name", ["pss", "ed25519"])
def test_what_tokens_are_not_asked_about_is_done_in_software(token, signed, name):
    world = World(token)
    assert world.verify(signed[name]) and not world.verify(signed[name], data=b"other") and token.asked == 0


def test_no_token_is_asked_before_it_has_passed_its_test(token, signed):
    world = World(token, trusted=False)
    assert all(world.verify(one) for one in signed.values()) and token.asked == 0
    world.test()
    assert world.verify(signed["rsa"]) and world.events() == ["accelerator is trusted"] * 4


@pytest.mark.parametrize(("mood", "wrong"), [("yes", 3), ("no", 3), ("garbage", 1), ("echo", 1)])
def test_attack_a_token_that_lies_in_its_test_is_never_asked(token, signed, mood, wrong):
    token.mood = mood
    world = World(token, trusted=False)
    world.test()
    assert world.events().count("accelerator is wrong, and never asked again") == wrong
    token.mood = "honest"
    world.now += 10 * 86400
    world.test()
    assert len(world.accelerators[0].trusted) == 4 - wrong


@pytest.mark.parametrize("mood", ["garbage", "echo"])
def test_attack_a_token_that_turns_to_lies_makes_no_wrong_rsa_signature_right_and_no_right_one_wrong(token, signed, mood):
    world, one = World(token), signed["rsa"]
    token.mood = mood
    forged = one.signature[:-1] + bytes((one.signature[-1] ^ 1,))
    for signature in (forged, b"\0" * 256, b"\0" * 255 + b"\1"):
        assert not world.verify(one, signature=signature)
    assert world.accelerators[0].trusts("rsa")
    assert world.verify(one) and not world.accelerators[0].trusts("rsa")
    assert world.accelerators[0].counts["mistaken"] == 1
    token.mood = "honest"
    world.now += 10 * 86400
    world.test()
    assert not world.accelerators[0].trusts("rsa")


def test_attack_a_token_cannot_lie_about_rsa_as_it_is_not_told_what_was_signed(token, signed):
    world, one = World(token), signed["rsa"]
    assert world.verify(one) and token.told == (one.key, one.signature)


def test_attack_a_signature_whose_cube_ends_as_it_should_is_wrong(token, signed):
    """CVE-2006-4339 from the other end: with the exponent 3, any odd octets at the end of a cube can be had without the private key."""
    world, one = World(token), signed["rsa"]
    modulus = load_public_key(one.key).public_numbers().n
    key = rsa_public_key(modulus.to_bytes(256, "big"), b"\3")
    data = next(data for data in (b"%d" % number for number in range(100)) if sha256(data).digest()[-1] & 1)
    wanted, root = int.from_bytes(sha256(data).digest()[-20:], "big"), 1
    for bit in range(1, 160):
        root |= 1 << bit if (root**3 ^ wanted) >> bit & 1 else 0
    assert root**3 % 2**160 == wanted
    assert not world.verify(one, key=key, data=data, signature=root.to_bytes(256, "big")) and token.asked == 1


def test_attack_a_token_that_calls_every_ecdsa_signature_right_is_found_out(token, signed):
    world, one = World(token, confirm=4), signed["p256"]
    token.mood = "yes"
    taken = sum(world.verify(one, data=b"forged") for _ in range(500))
    assert not world.accelerators[0].trusts("ec:secp256r1") and taken < 200
    assert not world.verify(one, data=b"forged")
    assert World(token.__class__(), confirm=1).verify(one)


def test_with_every_yes_confirmed_no_token_is_believed(token, signed):
    world = World(token, confirm=1)
    token.mood = "yes"
    assert not world.verify(signed["p256"], data=b"forged")
    assert world.accelerators[0].counts["mistaken"] == 1


def test_a_no_is_never_a_tokens_word_alone(token, signed):
    world = World(token)
    token.mood = "no"
    assert world.verify(signed["p384"]) and not world.accelerators[0].trusts("ec:secp384r1")
    assert world.accelerators[0].trusts("ec:secp256r1")


def test_a_token_that_does_not_answer_is_left_out_and_tested_again(token, signed):
    world, one = World(token), signed["rsa"]
    token.mood = "away"
    assert world.verify(one) and world.verify(one) and token.asked == 1
    for seconds, due in ((59, False), (1, True), (119, False), (1, True)):
        world.now += seconds
        assert (world.accelerators[0].due(world.now) == ("rsa",)) is due
        world.test()
    assert world.events().count("accelerator is left out") == 1
    token.mood = "honest"
    world.now += 3600
    world.test()
    assert world.accelerators[0].trusts("rsa")


def test_the_next_token_is_asked_where_the_first_does_not_answer(token, signed):
    second = token.__class__()
    world = World(token, second)
    token.mood = "away"
    assert world.verify(signed["rsa"]) and (token.asked, second.asked) == (1, 1)
    assert world.verify(signed["rsa"]) and (token.asked, second.asked) == (1, 2)


def test_attack_another_encoding_of_an_ecdsa_signature_is_what_software_says_of_it(token, signed):
    world, one = World(token), signed["p256"]
    r, s = decode_dss_signature(one.signature)
    long = writer.sequence(b"\x02\x22\x00\x00" + r.to_bytes(32, "big"), writer.integer(s))
    ber = b"\x30\x81" + one.signature[1:]
    for signature in (ber, long, one.signature + b"\0", b"", writer.sequence(writer.integer(r), writer.integer(-s))):
        assert world.verify(one, signature=signature) == world.software.verify(one.key, one.mechanism, signature, one.data)
    assert token.asked == 0


@tried(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(KINDS)),
    at=st.integers(0, 10_000),
    bit=st.integers(0, 7),
    mood=st.sampled_from(["honest", "garbage", "echo", "no", "away"]),
)
def test_a_changed_signature_is_what_software_says_of_it_whatever_the_token_does(shared, signed, name, at, bit, mood):
    shared.mood = "honest"
    if shared not in WORLDS:
        WORLDS[shared] = World(shared)
    world, one = WORLDS[shared], signed[name]
    where = at % len(one.signature)
    changed = one.signature[:where] + bytes((one.signature[where] ^ 1 << bit,)) + one.signature[where + 1 :]
    shared.mood = mood
    assert world.verify(one, signature=changed) == world.software.verify(one.key, one.mechanism, changed, one.data)


WORLDS: dict[object, World] = {}
