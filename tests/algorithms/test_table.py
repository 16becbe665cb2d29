"""The table of algorithms: identifiers survive, contradictions and odd parameters are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.algorithms import table
from mailsec.algorithms.profiles import PROFILES
from mailsec.algorithms.public_keys import public_key_facts
from mailsec.asn1 import writer
from mailsec.errors import Asn1Error, CryptoError, MailsecError
from mailsec.model.mechanism import SignatureMechanism

KEY_TYPES = ["rsa", "rsa-pss", "ec:secp256r1", "ec:brainpoolP384r1", "ed25519", "ed448", "ml-dsa-65", "ml-dsa-87"]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_what_a_profile_writes_is_read_again_and_accepted(profile, key_type):
    if key_type not in PROFILES[profile].key_types:
        with pytest.raises(CryptoError):
            PROFILES[profile].signature_for(key_type, 3072)
        return
    mechanism = PROFILES[profile].signature_for(key_type, 3072 if key_type.startswith("rsa") else 256)
    digest = table.message_digest(mechanism)
    assert table.signature_mechanism(digest, table.signer_identifier(mechanism), key_type) == mechanism
    assert table.signature_mechanism("", table.algorithm_identifier(mechanism), key_type) == mechanism
    assert table.digest_of(table.digest_identifier(digest)).name == digest
    assert PROFILES[profile].accepts(mechanism, key_type, 3072) is None
    assert PROFILES[profile].accepts_digest(digest) is None


def test_legacy_keys_are_read_and_do_not_sign():
    with pytest.raises(CryptoError):
        PROFILES["legacy"].signature_for("rsa", 1024)


def test_strict_profiles_refuse_what_others_accept():
    ecdsa = SignatureMechanism("ecdsa", "sha256")
    assert PROFILES["default"].accepts(ecdsa, "ec:brainpoolP256r1", 256) is None
    for profile, key_type, bits in (
        ("fips-algorithms", "ec:brainpoolP256r1", 256),
        ("cnsa2", "ec:secp256r1", 256),
        ("bsi-tr-02102", "ed25519", 256),
    ):
        assert PROFILES[profile].accepts(ecdsa, key_type, bits) is not None
    assert PROFILES["bsi-tr-02102"].accepts(SignatureMechanism("rsassa-pss", "sha256", "sha256", 32), "rsa", 2048) is not None


def test_the_page_of_profiles_lists_them_all():
    from pathlib import Path

    page = (Path(__file__).resolve().parents[2] / "docs" / "profiles.md").read_text()
    for name, profile in PROFILES.items():
        (line,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        assert profile.cipher.upper() in line


def test_identifiers_are_those_of_the_standards():
    assert table.digest_identifier("sha256").hex() == "300b0609608648016503040201"
    assert table.algorithm_identifier(SignatureMechanism("ecdsa", "sha256")).hex() == "300a06082a8648ce3d040302"
    assert table.algorithm_identifier(SignatureMechanism("rsassa-pkcs1-v1_5", "sha256")).hex() == "300d06092a864886f70d01010b0500"
    assert table.signer_identifier(SignatureMechanism("rsassa-pkcs1-v1_5", "sha256")).hex() == "300d06092a864886f70d0101010500"
    # RFC 4055 §6: rSASSA-PSS-SHA256-Identifier, with a salt of 32 octets.
    assert table.algorithm_identifier(SignatureMechanism("rsassa-pss", "sha256", "sha256", 32)).hex() == (
        "304106092a864886f70d01010a3034a00f300d06096086480165030402010500"
        "a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120"
    )


def test_an_ecdsa_signature_over_another_digest_than_the_message_digest_is_refused():
    with pytest.raises(CryptoError):
        table.signature_mechanism("sha512", table.algorithm_identifier(SignatureMechanism("ecdsa", "sha256")), "ec:secp256r1")


def test_pss_over_another_digest_than_the_message_digest_is_refused():
    algorithm = table.algorithm_identifier(SignatureMechanism("rsassa-pss", "sha256", "sha256", 32))
    with pytest.raises(CryptoError):
        table.signature_mechanism("sha1", algorithm, "rsa")


def test_a_key_of_another_type_than_the_signature_is_refused():
    for key_type in KEY_TYPES:
        mechanism = PROFILES["default"].signature_for(key_type, 3072)
        for other in KEY_TYPES:
            if other.split(":")[0].split("-")[0] != key_type.split(":")[0].split("-")[0]:
                with pytest.raises(CryptoError):
                    table.signature_mechanism("", table.algorithm_identifier(mechanism), other)


def test_a_key_for_pss_only_makes_no_other_signature():
    with pytest.raises(CryptoError):
        table.signature_mechanism("sha256", table.signer_identifier(SignatureMechanism("rsassa-pkcs1-v1_5", "sha256")), "rsa-pss")


def pss(*fields: bytes) -> bytes:
    return writer.sequence(writer.oid("1.2.840.113549.1.1.10"), writer.sequence(*fields))


SHA256 = writer.sequence(writer.oid("2.16.840.1.101.3.4.2.1"), writer.NULL)
MGF = writer.sequence(writer.oid("1.2.840.113549.1.1.8"), SHA256)


@pytest.mark.parametrize(
    "algorithm",
    [
        writer.sequence(writer.oid("1.2.840.113549.1.1.10")),
        writer.sequence(writer.oid("1.2.840.113549.1.1.10"), writer.NULL),
        pss(writer.explicit(2, writer.integer(-1))),
        pss(writer.explicit(2, writer.integer(1 << 64))),
        pss(writer.explicit(3, writer.integer(2))),
        pss(writer.explicit(0, SHA256), writer.explicit(0, SHA256)),
        pss(writer.explicit(2, writer.integer(32)), writer.explicit(0, SHA256)),
        pss(writer.explicit(0, SHA256 + SHA256)),
        pss(writer.explicit(1, writer.sequence(writer.oid("1.2.3")))),
        pss(writer.explicit(4, writer.integer(1))),
        pss(writer.integer(1)),
    ],
    ids=lambda der: der.hex()[26:],
)
def test_pss_parameters_that_lie_are_refused(algorithm):
    with pytest.raises((CryptoError, Asn1Error)):
        table.signature_mechanism("sha256", algorithm, "rsa")


def test_pss_defaults_are_sha1_and_so_not_accepted():
    mechanism = table.signature_mechanism("sha1", pss(), "rsa")
    assert mechanism == SignatureMechanism("rsassa-pss", "sha1", "sha1", 20)
    reason = PROFILES["default"].accepts(mechanism, "rsa", 2048)
    assert reason is not None
    assert reason.code == "weak-digest"
    assert PROFILES["legacy"].accepts(mechanism, "rsa", 2048) is None


@pytest.mark.parametrize("mask", ["sha1", "md5"])
def test_pss_is_as_strong_as_its_message_digest_whatever_masks_it(mask):
    """Collisions of the mask's hash help nobody; only profiles whose source fixes it refuse another one."""
    mechanism = SignatureMechanism("rsassa-pss", "sha256", mask, 32)
    accepting = {name for name, profile in PROFILES.items() if profile.accepts(mechanism, "rsa", 4096) is None}
    assert accepting == {"default", "compatible", "pss", "legacy"}
    reason = PROFILES["edi-energy"].accepts(mechanism, "rsa", 4096)
    assert reason is not None and (reason.code, reason.stage) == ("weak-mask", "policy") and "broken" not in reason.message
    weak = PROFILES["default"].accepts(replace(mechanism, digest=mask), "rsa", 4096)
    assert weak is not None and weak.code == "weak-digest"


@pytest.mark.parametrize(("key_type", "bits"), [("rsa", 1024), ("ec:secp192r1", 192), ("dsa", 1024)])
def test_weak_keys_are_not_accepted(key_type, bits):
    kind = {"rsa": "rsassa-pkcs1-v1_5", "dsa": "dsa"}.get(key_type, "ecdsa")
    reason = PROFILES["default"].accepts(SignatureMechanism(kind, "sha256"), key_type, bits)
    assert reason is not None
    assert reason.stage == "policy"
    if key_type != "dsa":
        assert reason.code == "weak-key"


def test_eddsa_with_parameters_is_refused():
    with pytest.raises(Asn1Error):
        table.signature_mechanism("sha512", writer.sequence(writer.oid("1.3.101.112"), writer.NULL), "ed25519")


def test_a_digest_that_does_not_go_with_eddsa_is_refused():
    with pytest.raises(CryptoError):
        table.signature_mechanism("sha256", writer.sequence(writer.oid("1.3.101.112")), "ed25519")


def test_rsa_encryption_is_no_signature_algorithm_where_no_digest_stands_beside_it():
    with pytest.raises(CryptoError):
        table.signature_mechanism("", table.signer_identifier(SignatureMechanism("rsassa-pkcs1-v1_5", "sha256")), "rsa")


def test_unknown_digests_are_named():
    with pytest.raises(CryptoError, match=r"1\.2\.840\.113549\.2\.4"):
        table.digest_of(writer.sequence(writer.oid("1.2.840.113549.2.4")))


@given(st.binary(max_size=100))
def test_any_octets_end_in_a_mechanism_or_our_errors(octets):
    for function in (
        table.digest_of,
        public_key_facts,
        lambda der: table.signature_mechanism("sha256", der, "rsa"),
        lambda der: table.signature_mechanism("sha256", writer.sequence(writer.oid("1.2.840.113549.1.1.10"), der), "rsa"),
    ):
        try:
            function(octets)
        except MailsecError:
            pass


def test_a_curve_by_its_parameters_is_refused():
    spki = writer.sequence(writer.sequence(writer.oid("1.2.840.10045.2.1"), writer.sequence(writer.integer(1))), writer.bit_string(b"\4"))
    with pytest.raises(CryptoError, match="not named"):
        public_key_facts(spki)
