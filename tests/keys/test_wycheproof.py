"""Project Wycheproof's signatures: what is valid verifies, what is invalid does not."""

from __future__ import annotations

import json

import pytest

from mailsec.keys.software import SoftwareBackend
from mailsec.model.mechanism import SignatureMechanism

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
