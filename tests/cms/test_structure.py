"""What is told of a CMS message without checking it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from people import authority_der, person
from test_enveloped import encrypt
from test_sign_verify import CONTENT, sign, verify

from mailsec.asn1.reader import read_single
from mailsec.asn1.writer import explicit, implicit, integer, octet_string, oid, sequence, set_of
from mailsec.cms.sign import certs_only
from mailsec.cms.structure import describe
from mailsec.errors import CmsError, MailsecError


def test_a_signed_message_is_described():
    told = describe(sign(person("rsa-2048"), person("ed25519"), form="opaque"))
    assert told["type"] == "SignedData"
    assert told["detached"] is False
    assert told["content"] == {"type": "1.2.840.113549.1.7.1", "octets": len(CONTENT)}
    assert {(one["digest"], one["signature"]) for one in told["signers"]} == {("sha256", "rsassa-pkcs1-v1_5"), ("sha512", "ed25519")}
    assert told["signers"][0]["signing_time"] == "2026-11-22T06:00:00+00:00"
    assert "message-digest" in told["signers"][0]["signed_attributes"]
    json.dumps(told)


def test_counter_signatures_are_shown_with_who_made_them():
    # RFC 5652 §11.4; what they are put on stays in unsigned attributes, on which nothing rests.
    signed = read_single(sign(person("rsa-2048"), form="opaque"), 0x30).children()[1].only().children()
    counter = read_single(sign(person("p256")), 0x30).children()[1].only().children()[-1].only()
    (info,) = signed[-1].children()
    broken = sequence(integer(1))
    unsigned = b"\xa1" + set_of(sequence(oid("1.2.840.113549.1.9.6"), set_of(counter.encoding, broken)))[1:]
    members = [*(part.encoding for part in signed[:-1]), set_of(sequence(*(part.encoding for part in info), unsigned))]
    octets = sequence(oid("1.2.840.113549.1.7.2"), explicit(0, sequence(*members)))
    (signer,) = describe(octets)["signers"]
    assert signer["unsigned_attributes"] == ["countersignature"]
    assert sorted(one.get("signature", "") for one in signer["counter_signatures"]) == ["", "ecdsa"]
    assert [one["signer"].partition(",")[0] for one in signer["counter_signatures"] if "signer" in one] == ["CN=Test CA"]
    assert verify(octets)[0].intact
    json.dumps(signer)


def test_authenticated_data_is_named_and_reported():
    # RFC 5652 §9: whoever shares its key can have made it. Its recipients are those of an enveloped message.
    sealed = read_single(encrypt("rsa-2048", "p256"), 0x30).children()[1].only().children()
    mac = sequence(oid("1.2.840.113549.2.9"))
    inner = sequence(oid("1.2.840.113549.1.7.1"), explicit(0, octet_string(CONTENT)))
    digest = implicit(1, sequence(oid("2.16.840.1.101.3.4.2.1")))
    members = [integer(0), sealed[1].encoding, mac, digest, inner, octet_string(b"x" * 32)]
    told = describe(sequence(oid("1.2.840.113549.1.9.16.1.2"), explicit(0, sequence(*members))))
    assert (told["type"], told["mac"], told["digest"]) == ("AuthenticatedData", "hmac-sha256", "sha256")
    assert told["content"] == {"type": "1.2.840.113549.1.7.1", "octets": len(CONTENT)}
    assert sorted(one["kind"] for one in told["recipients"]) == ["key-agreement", "key-transport"]
    json.dumps(told)
    with pytest.raises(CmsError, match="AuthenticatedData"):
        describe(sequence(oid("1.2.840.113549.1.9.16.1.2"), explicit(0, sequence(*members[:2]))))


def test_an_encrypted_message_is_described():
    told = describe(encrypt("rsa-2048", "p256", "ml-kem-768", cipher="aes-256-gcm"))
    assert told["type"] == "AuthEnvelopedData"
    assert told["algorithm"] == "aes-256-gcm"
    assert sorted(one["kind"] for one in told["recipients"]) == ["kem", "key-agreement", "key-transport"]
    assert {one["algorithm"] for one in told["recipients"]} >= {"rsaes-pkcs1-v1_5", "ecdh-x963-sha256"}
    json.dumps(told)


def test_a_bundle_of_certificates_is_described():
    told = describe(certs_only([authority_der()]))
    assert [one["subject"] for one in told["certificates"]] == ["CN=Test CA,O=Example"]
    assert told["signers"] == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cms_ber.bin", None),
        ("compressed_data.bin", "CompressedData"),
        ("digested_data.bin", "DigestedData"),
        ("encrypted_data.bin", "EncryptedData"),
        ("enveloped_data_ktri.bin", "EnvelopedData"),
        ("pkits.p7b", "SignedData"),
    ],
)
def test_structures_of_rustcrypto_are_described(vectors, name, kind):
    told = describe((vectors / "rustcrypto-cms" / name).read_bytes())
    assert told["type"] != "unknown"
    assert kind in (None, told["type"])
    if told["type"] == "EnvelopedData":
        assert told["recipients"]
    json.dumps(told)


def test_malformed_signed_data_of_nss_is_reported_as_not_signed(vectors):
    for path in sorted((vectors / "nss-smime-interop" / "malformed").iterdir()):
        try:
            told = describe(path.read_bytes())
        except MailsecError:
            continue
        assert not [signer for signer in told.get("signers", ()) if "problem" not in signer], path.name


@given(st.binary(max_size=300))
def test_any_octets_end_in_a_description_or_our_errors(octets):
    try:
        json.dumps(describe(octets))
    except MailsecError:
        pass
