"""The choice of token operations, and the octets that they take and give."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from mailsec.errors import CryptoError
from mailsec.keys.mechanism import (
    Operation,
    digest_info,
    ecdsa_concatenated,
    ecdsa_sequence,
    signature_operation,
    transport_operation,
)
from mailsec.model.mechanism import SignatureMechanism, TransportMechanism

SOFTHSM = {"RSA_PKCS", "SHA256_RSA_PKCS", "RSA_PKCS_PSS", "ECDSA", "EDDSA", "RSA_PKCS_OAEP"}
PKCS1 = SignatureMechanism("rsassa-pkcs1-v1_5", "sha256")


def test_raw_operations_come_first():
    assert signature_operation(PKCS1, SOFTHSM) == Operation("RSA_PKCS", "digest-info")
    assert signature_operation(SignatureMechanism("rsassa-pss", "sha256", "sha256", 32), SOFTHSM).input == "digest"
    assert signature_operation(SignatureMechanism("ecdsa", "sha384"), SOFTHSM) == Operation("ECDSA", "digest", "concatenated")
    assert signature_operation(SignatureMechanism("ed25519"), SOFTHSM).name == "EDDSA"


def test_a_token_that_only_hashes_itself_is_used_where_the_octets_are_there():
    assert signature_operation(PKCS1, {"SHA256_RSA_PKCS"}) == Operation("SHA256_RSA_PKCS", "octets")
    with pytest.raises(CryptoError):
        signature_operation(replace(PKCS1, prehashed=True), {"SHA256_RSA_PKCS"})


@pytest.mark.parametrize("mechanism", [PKCS1, SignatureMechanism("ecdsa", "sha256"), SignatureMechanism("dsa", "sha1")])
def test_what_a_token_cannot_do_is_refused(mechanism):
    with pytest.raises(CryptoError):
        signature_operation(mechanism, {"AES_GCM"})
    with pytest.raises(CryptoError):
        transport_operation(TransportMechanism("rsaes-oaep", "sha256"), {"RSA_PKCS"})


def test_digest_info_is_that_of_the_standard():
    digest = hashlib.sha256(b"abc").digest()
    assert digest_info("sha256", digest) == bytes.fromhex("3031300d060960864801650304020105000420") + digest
    with pytest.raises(CryptoError):
        digest_info("sha256", b"short")


@given(st.integers(1, 2**256 - 1), st.integers(1, 2**256 - 1))
def test_both_forms_of_an_ecdsa_signature_are_the_same(r, s):
    concatenated = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    assert ecdsa_concatenated(ecdsa_sequence(concatenated), 32) == concatenated


def test_a_token_signature_verifies_in_its_cms_form():
    key = ec.generate_private_key(ec.SECP521R1())
    concatenated = ecdsa_concatenated(key.sign(b"octets", ec.ECDSA(hashes.SHA512())), 66)
    key.public_key().verify(ecdsa_sequence(concatenated), b"octets", ec.ECDSA(hashes.SHA512()))


@pytest.mark.parametrize("octets", [b"", b"x", b"abc"])
def test_half_signatures_are_refused(octets):
    with pytest.raises(CryptoError):
        ecdsa_sequence(octets)
    with pytest.raises(CryptoError):
        ecdsa_concatenated(octets, 32)
