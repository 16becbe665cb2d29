"""Software keys and the software engine: what is signed verifies, what lies does not, and nothing raises or shows a secret."""

from __future__ import annotations

import hashlib
import pickle
import re
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, mlkem, rsa, x448, x25519
from hypothesis import given
from hypothesis import strategies as st

from mailsec.asn1 import writer
from mailsec.errors import CryptoError, PrivateKeyError
from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend, SoftwareKey
from mailsec.model.mechanism import AgreementMechanism, SignatureMechanism, TransportMechanism

BACKEND = SoftwareBackend()
PKCS1 = SignatureMechanism("rsassa-pkcs1-v1_5", "sha256")
PSS = SignatureMechanism("rsassa-pss", "sha256", "sha256", 32)


def pkcs8(key) -> bytes:
    return key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def make(key) -> SoftwareKey:
    return SoftwareKey("test", pkcs8(key))


RSA = make(rsa.generate_private_key(65537, 2048))
P256 = make(ec.generate_private_key(ec.SECP256R1()))

SIGNERS = [
    (RSA, PKCS1),
    (RSA, SignatureMechanism("rsassa-pkcs1-v1_5", "sha512")),
    (RSA, PSS),
    (RSA, SignatureMechanism("rsassa-pss", "sha384", "sha256", 0)),
    (P256, SignatureMechanism("ecdsa", "sha256")),
    (make(ec.generate_private_key(ec.SECP521R1())), SignatureMechanism("ecdsa", "sha512")),
    (make(ec.generate_private_key(ec.BrainpoolP256R1())), SignatureMechanism("ecdsa", "sha3-256")),
    (make(ed25519.Ed25519PrivateKey.generate()), SignatureMechanism("ed25519")),
    (make(ed448.Ed448PrivateKey.generate()), SignatureMechanism("ed448")),
    (make(mldsa.MLDSA65PrivateKey.generate()), SignatureMechanism("ml-dsa-65")),
]
IDS = [f"{key.key_type} {mechanism.kind} {mechanism.digest}" for key, mechanism in SIGNERS]


@pytest.mark.parametrize(("key", "mechanism"), SIGNERS, ids=IDS)
def test_what_a_key_signs_verifies_and_nothing_else_does(key, mechanism):
    signature = run_now(key.sign(mechanism, b"octets"))
    assert BACKEND.verify(key.public_key, mechanism, signature, b"octets")
    assert not BACKEND.verify(key.public_key, mechanism, signature, b"other octets")
    assert not BACKEND.verify(key.public_key, mechanism, signature[:-1] + bytes((signature[-1] ^ 1,)), b"octets")
    for other, _ in SIGNERS:
        if other is not key:
            assert not BACKEND.verify(other.public_key, mechanism, signature, b"octets")


@pytest.mark.parametrize(("key", "mechanism"), [row for row in SIGNERS if row[1].digest], ids=[i for i in IDS if i[-1] != " "])
def test_a_digest_given_instead_of_octets_verifies_the_same_signature(key, mechanism):
    digest = BACKEND.hash(mechanism.digest)
    digest.update(b"octets")
    signature = run_now(key.sign(mechanism, b"octets"))
    assert BACKEND.verify(key.public_key, replace(mechanism, prehashed=True), signature, digest.digest())


def test_a_digest_is_never_taken_for_the_octets_of_a_kind_that_hashes_inside():
    key = SIGNERS[7][0]
    signature = run_now(key.sign(SignatureMechanism("ed25519"), b"x" * 32))
    assert not BACKEND.verify(key.public_key, SignatureMechanism("ed25519", prehashed=True), signature, b"x" * 32)
    with pytest.raises(CryptoError):
        run_now(key.sign(SignatureMechanism("ed25519", prehashed=True), b"x" * 32))


@given(st.binary(max_size=400), st.binary(max_size=400), st.sampled_from([mechanism for _, mechanism in SIGNERS]))
def test_verification_of_any_octets_is_false_and_never_raises(spki, signature, mechanism):
    assert not BACKEND.verify(spki, mechanism, signature, b"octets")
    assert not BACKEND.verify(RSA.public_key, mechanism, signature, b"octets")


def test_pss_parameters_that_lie_about_the_salt_do_not_verify():
    signature = run_now(RSA.sign(PSS, b"octets"))
    for salt in (0, 20, 31, 33, 200, 2048):
        assert not BACKEND.verify(RSA.public_key, replace(PSS, salt_length=salt), signature, b"octets")
    assert not BACKEND.verify(RSA.public_key, replace(PSS, mgf_digest="sha1"), signature, b"octets")


def test_a_key_for_pss_only_verifies_no_other_signature():
    body = RSA.public_key[RSA.public_key.index(bytes.fromhex("0500")) + 2 :]
    spki = writer.sequence(writer.sequence(writer.oid("1.2.840.113549.1.1.10")), body)
    assert BACKEND.verify(spki, PSS, run_now(RSA.sign(PSS, b"octets")), b"octets")
    assert not BACKEND.verify(spki, PKCS1, run_now(RSA.sign(PKCS1, b"octets")), b"octets")


def rsa_spki(modulus: int, exponent: int) -> bytes:
    numbers = writer.sequence(writer.integer(modulus), writer.integer(exponent))
    return writer.sequence(writer.sequence(writer.oid("1.2.840.113549.1.1.1"), writer.NULL), writer.bit_string(numbers))


@pytest.mark.parametrize(
    ("modulus", "exponent"),
    [((1 << 200_000) + 1, 65537), ((1 << 4095) + 1, (1 << 4000) + 1)],
    ids=["modulus", "exponent"],
)
def test_rsa_keys_that_cost_seconds_are_not_computed_with(modulus, exponent):
    spki = rsa_spki(modulus, exponent)
    assert not BACKEND.verify(spki, PKCS1, b"\1" * ((modulus.bit_length() + 7) // 8), b"octets")
    with pytest.raises(CryptoError):
        run_now(BACKEND.wrap(spki, TransportMechanism("rsaes-pkcs1-v1_5"), b"k" * 16))


def test_a_private_key_larger_than_the_limit_is_refused():
    from mailsec.model.limits import Limits

    with pytest.raises(PrivateKeyError):
        SoftwareKey("large", pkcs8(rsa.generate_private_key(65537, 2048)), limits=Limits(rsa_bits=1024))


def test_nothing_of_a_private_key_is_shown():
    key = make(ec.generate_private_key(ec.SECP256R1()))
    assert re.fullmatch(r"<software key 'test': ec:secp256r1, 256 bits>", repr(key))
    with pytest.raises(TypeError):
        pickle.dumps(key)
    with pytest.raises(PrivateKeyError) as caught:
        SoftwareKey("broken", b"secret octets")
    assert "secret" not in repr(caught.value) + str(caught.value.__cause__)


def test_keys_refuse_mechanisms_that_are_not_theirs():
    for key, mechanism in SIGNERS:
        for _, other in SIGNERS:
            if other.kind.split("-")[0] != mechanism.kind.split("-")[0]:
                assert not key.can(other)
                with pytest.raises(CryptoError):
                    run_now(key.sign(other, b"octets"))


@pytest.mark.parametrize(
    "mechanism",
    [
        TransportMechanism("rsaes-pkcs1-v1_5"),
        TransportMechanism("rsaes-oaep", "sha1", "sha1"),
        TransportMechanism("rsaes-oaep", "sha256", "sha1", b"label"),
        TransportMechanism("rsaes-oaep", "sha512", "sha512"),
    ],
)
def test_what_is_wrapped_for_a_key_unwraps(mechanism):
    wrapped = run_now(BACKEND.wrap(RSA.public_key, mechanism, b"k" * 32))
    assert run_now(RSA.unwrap(mechanism, wrapped)) == b"k" * 32
    if mechanism.kind == "rsaes-oaep":
        with pytest.raises(CryptoError):
            run_now(RSA.unwrap(mechanism, wrapped[:-1] + bytes((wrapped[-1] ^ 1,))))


@pytest.mark.parametrize(
    "generate",
    [lambda: ec.generate_private_key(ec.SECP384R1()), x25519.X25519PrivateKey.generate, x448.X448PrivateKey.generate],
)
def test_two_keys_agree(generate):
    one, two = make(generate()), make(generate())
    secret = run_now(one.agree(AgreementMechanism(), two.public_key))
    assert secret == run_now(two.agree(AgreementMechanism(), one.public_key))
    with pytest.raises(CryptoError):
        run_now(one.agree(AgreementMechanism(), P256.public_key))


def test_encapsulated_secrets_are_the_same_on_both_sides():
    key = make(mlkem.MLKEM768PrivateKey.generate())
    ciphertext, secret = run_now(BACKEND.encapsulate(key.public_key))
    assert run_now(key.decapsulate(ciphertext)) == secret
    with pytest.raises(CryptoError):
        run_now(key.decapsulate(b"short"))


def test_digests_are_those_of_the_table():
    from mailsec.algorithms.table import DIGESTS

    for name, digest in DIGESTS.items():
        running = BACKEND.hash(name)
        running.update(b"abc")
        assert len(running.digest()) == digest.size
    sha256 = BACKEND.hash("sha256")
    sha256.update(memoryview(b"abc"))
    assert sha256.digest() == hashlib.sha256(b"abc").digest()
    with pytest.raises(CryptoError):
        BACKEND.hash("md4")


def test_long_operations_go_where_the_runtime_puts_them():
    calls = []

    async def in_thread(function):
        calls.append(1)
        return function()

    large = rsa.generate_private_key(65537, 3328)
    key = SoftwareKey("large", pkcs8(large), in_thread=in_thread)
    assert BACKEND.verify(key.public_key, PKCS1, run_now(key.sign(PKCS1, b"octets")), b"octets")
    small = SoftwareKey("small", pkcs8(ec.generate_private_key(ec.SECP256R1())), in_thread=in_thread)
    run_now(small.sign(SignatureMechanism("ecdsa", "sha256"), b"octets"))
    assert calls == [1]
