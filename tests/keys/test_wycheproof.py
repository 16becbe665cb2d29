"""Project Wycheproof: what is valid verifies and opens, what is invalid does not."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, x25519

from mailsec.errors import CryptoError
from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend, SoftwareKey
from mailsec.model.mechanism import AgreementMechanism, SignatureMechanism, TransportMechanism


def pkcs8(key) -> bytes:
    return key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


FILES = {
    "rsa_signature_2048_sha256_test.json": SignatureMechanism("rsassa-pkcs1-v1_5", "sha256"),
    "rsa_pss_2048_sha256_mgf1_32_params_test.json": SignatureMechanism("rsassa-pss", "sha256", "sha256", 32),
    "ecdsa_secp256r1_sha256_test.json": SignatureMechanism("ecdsa", "sha256"),
    "ed25519_test.json": SignatureMechanism("ed25519"),
}


@pytest.mark.parametrize("name", FILES)
def test_signatures_of_wycheproof(vectors, name):
    backend = SoftwareBackend()
    count = 0
    for group in json.loads((vectors / "wycheproof" / name).read_text())["testGroups"]:
        spki = bytes.fromhex(group["publicKeyDer"])
        for case in group["tests"]:
            good = backend.verify(spki, FILES[name], bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"]))
            if case["result"] != "acceptable":
                assert good == (case["result"] == "valid"), (case["tcId"], case["comment"])
                count += 1
    assert count > 50


def test_a_key_bound_to_pss_parameters_makes_no_others(vectors):
    group = json.loads((vectors / "wycheproof" / "rsa_pss_2048_sha256_mgf1_32_params_test.json").read_text())["testGroups"][0]
    case = next(case for case in group["tests"] if case["result"] == "valid")
    spki, message, signature = (bytes.fromhex(octets) for octets in (group["publicKeyDer"], case["msg"], case["sig"]))
    backend = SoftwareBackend()
    assert backend.verify(spki, SignatureMechanism("rsassa-pss", "sha256", "sha256", 32), signature, message)
    for mechanism in (
        SignatureMechanism("rsassa-pss", "sha256", "sha256", 20),
        SignatureMechanism("rsassa-pss", "sha512", "sha256", 32),
        SignatureMechanism("rsassa-pkcs1-v1_5", "sha256"),
    ):
        assert not backend.verify(spki, mechanism, signature, message)


def groups_of(vectors, name):
    return json.loads((vectors / "wycheproof" / name).read_text())["testGroups"]


def answer_of(coroutine):
    """What a key gives; None where it refuses."""
    try:
        return run_now(coroutine)
    except CryptoError:
        return None


def test_wrapped_keys_of_wycheproof_oaep(vectors):
    for group in groups_of(vectors, "rsa_oaep_2048_sha256_mgf1sha256_test.json"):
        key = SoftwareKey("wycheproof", bytes.fromhex(group["privateKeyPkcs8"]))
        for case in group["tests"]:
            mechanism = TransportMechanism("rsaes-oaep", "sha256", "sha256", bytes.fromhex(case["label"]))
            got = answer_of(key.unwrap(mechanism, bytes.fromhex(case["ct"])))
            if case["result"] == "valid":
                assert got == bytes.fromhex(case["msg"]), case["tcId"]
            elif case["result"] == "invalid":
                assert got is None, case["tcId"]


def test_wrapped_keys_of_wycheproof_pkcs1_never_tell_that_the_padding_was_wrong(vectors):
    for group in groups_of(vectors, "rsa_pkcs1_2048_test.json"):
        key = SoftwareKey("wycheproof", bytes.fromhex(group["privateKeyPkcs8"]))
        for case in group["tests"]:
            got = answer_of(key.unwrap(TransportMechanism("rsaes-pkcs1-v1_5"), bytes.fromhex(case["ct"])))
            if case["result"] == "valid":
                assert got == bytes.fromhex(case["msg"]), case["tcId"]
            elif "InvalidPkcs1Padding" in case["flags"]:
                # Implicit rejection: other octets, no error.
                assert got is not None, case["tcId"]
                assert got != bytes.fromhex(case["msg"]) or not got, case["tcId"]


def test_agreements_of_wycheproof_ecdh(vectors):
    for group in groups_of(vectors, "ecdh_secp256r1_test.json"):
        for case in group["tests"]:
            try:
                private = ec.derive_private_key(int(case["private"], 16), ec.SECP256R1())
            except ValueError:
                continue
            key = SoftwareKey("wycheproof", pkcs8(private))
            got = answer_of(key.agree(AgreementMechanism(), bytes.fromhex(case["public"])))
            if case["result"] == "valid":
                assert got == bytes.fromhex(case["shared"]), case["tcId"]
            elif case["result"] == "invalid":
                assert got is None, (case["tcId"], case["flags"])


def test_agreements_of_wycheproof_x25519(vectors):
    for group in groups_of(vectors, "x25519_test.json"):
        for case in group["tests"]:
            key = SoftwareKey("wycheproof", pkcs8(x25519.X25519PrivateKey.from_private_bytes(bytes.fromhex(case["private"]))))
            peer = bytes.fromhex("302a300506032b656e032100") + bytes.fromhex(case["public"])
            got = answer_of(key.agree(AgreementMechanism(), peer))
            if "ZeroSharedSecret" in case["flags"]:
                # RFC 8418 §4: a shared secret of zeros is refused.
                assert got is None, case["tcId"]
            elif case["result"] == "valid":
                assert got == bytes.fromhex(case["shared"]), case["tcId"]
