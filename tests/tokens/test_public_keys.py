"""Operations with public keys that are not on the token: in this process and through a host, right and wrong."""

from __future__ import annotations

import os

import pytest

from mailsec.errors import CryptoError, KeyUnavailable
from mailsec.interfaces import run_now
from mailsec.keys.frames import Verb
from mailsec.keys.mechanism import ecdsa_concatenated
from mailsec.keys.software import SoftwareKey, load_public_key
from mailsec.model.mechanism import SignatureMechanism
from mailsec.tokens.desk import Desk
from mailsec.tokens.module import Module
from mailsec.x509.issue import make_key

SIZES = {"ec-p256": (32, "sha256"), "ec-p384": (48, "sha384"), "ec-p521": (66, "sha512")}


@pytest.fixture(scope="module")
def rsa() -> SoftwareKey:
    return SoftwareKey("rsa", make_key("rsa-2048"))


def test_rsa_is_raised_to_the_public_exponent(module: Module, rsa):
    numbers = load_public_key(rsa.public_key).public_numbers()
    for value in (1, 2, numbers.n - 1, int.from_bytes(os.urandom(255), "big")):
        data = value.to_bytes(256, "big")
        assert int.from_bytes(module.encrypt("HSM 1", rsa.public_key, "CKM_RSA_X_509", data), "big") == pow(value, numbers.e, numbers.n)


@pytest.mark.parametrize("kind", SIZES)
def test_an_ecdsa_signature_is_right_or_wrong(module: Module, kind):
    size, digest = SIZES[kind]
    key, data = SoftwareKey("ec", make_key(kind)), os.urandom({"sha256": 32, "sha384": 48, "sha512": 64}[digest])
    signature = run_now(key.sign(SignatureMechanism("ecdsa", digest, prehashed=True), data))
    both = ecdsa_concatenated(signature, size)
    assert module.verify("HSM 1", key.public_key, "CKM_ECDSA", data, both)
    for wrong in (both[size:] + both[:size], bytes(2 * size), both[:-1] + bytes((both[-1] ^ 1,))):
        assert not module.verify("HSM 1", key.public_key, "CKM_ECDSA", data, wrong)
    assert not module.verify("HSM 1", key.public_key, "CKM_ECDSA", data[::-1], both)


def test_nothing_stays_on_the_token_and_nobody_need_be_logged_in(module: Module, rsa):
    token = module.token("HSM 10")
    assert not token.logged_in()
    before = token.reading(lambda session: token.functions.find(session, {}))
    module.encrypt("HSM 10", rsa.public_key, "CKM_RSA_X_509", bytes(255) + b"\2")
    assert token.reading(lambda session: token.functions.find(session, {})) == before and not token.logged_in()


@pytest.mark.parametrize(
    "public_key", [b"", b"\x30\x00", SoftwareKey("x", make_key("ed25519")).public_key], ids=["nothing", "empty", "ed25519"]
)
def test_a_key_that_cannot_be_put_there_is_refused(module: Module, public_key):
    with pytest.raises(CryptoError):
        module.encrypt("HSM 1", public_key, "CKM_RSA_X_509", bytes(256))


def test_attack_octets_at_which_a_library_may_fall_over_are_not_given_to_it(module: Module, rsa):
    key = SoftwareKey("ec", make_key("ec-p256")).public_key
    for operation, data in (
        ("CKM_RSA_X_509", bytes(300)),
        ("CKM_RSA_X_509", b""),
        ("CKM_RSA_X_509", b"\xff" * 256),
        ("CKM_RSA_PKCS", bytes(256)),
    ):
        with pytest.raises(CryptoError, match="could raise"):
            module.encrypt("HSM 1", rsa.public_key, operation, data)
    for operation, data, signature in (
        ("CKM_ECDSA", bytes(32), bytes(63)),
        ("CKM_ECDSA", bytes(64), bytes(64)),
        ("CKM_ECDSA", b"", bytes(64)),
        ("CKM_EDDSA", bytes(32), bytes(64)),
    ):
        with pytest.raises(CryptoError, match="could have made"):
            module.verify("HSM 1", key, operation, data, signature)
    with pytest.raises(CryptoError):
        module.encrypt("HSM 1", key, "CKM_RSA_X_509", bytes(256))


def test_attack_an_rsa_key_that_would_take_seconds_is_refused(module: Module):
    from mailsec.keys.public_objects import rsa_public_key

    for modulus, exponent in ((b"\xff" * 20_000, b"\1\0\1"), (b"\xff" * 256, b"\xff" * 256)):
        with pytest.raises(CryptoError, match="too large"):
            module.encrypt("HSM 1", rsa_public_key(modulus, exponent), "CKM_RSA_X_509", bytes(256))


def test_a_host_does_it_for_whoever_asks_and_writes_of_no_key(module: Module, rsa):
    written: list[str] = []
    desk = Desk(module, lambda event, **_fields: written.append(event))
    desk.look()
    written.clear()
    data = bytes(255) + b"\2"
    done = desk.perform(Verb.ENCRYPT, (b"HSM 1", rsa.public_key, b"CKM_RSA_X_509", data))
    assert int.from_bytes(done, "big") == 2**65537 % load_public_key(rsa.public_key).public_numbers().n
    with pytest.raises(KeyUnavailable, match="no token"):
        desk.perform(Verb.ENCRYPT, (b"HSM 2", rsa.public_key, b"CKM_RSA_X_509", data))
    for fields in ((b"HSM 1",), (b"HSM 1", rsa.public_key, b"CKM_RSA_X_509", data, b"", b"")):
        with pytest.raises(CryptoError, match="other fields"):
            desk.perform(Verb.VERIFY, fields)
    assert not written
