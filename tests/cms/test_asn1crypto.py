"""What we write, read by an independent implementation of the structures of RFC 5652 (asn1crypto)."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime

import pytest
from asn1crypto import cms as oracle
from asn1crypto import tsp

from mailsec.cms.encrypt import encrypt_content
from mailsec.cms.sign import certs_only, detached, opaque, sign_content, signer_for
from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend, SoftwareKey
from mailsec.model.address import Address
from mailsec.model.octets import Segments
from mailsec.x509.issue import IssuedBy, issue_mail, make_ca, make_key, public_key_of

AT = datetime(2026, 11, 22, 12, 30, tzinfo=UTC)
CONTENT = b"Content-Type: text/plain\r\n\r\nhello\r\n"


def _person(kind: str) -> tuple[SoftwareKey, bytes, bytes]:
    ca_key, key = make_key("ec-p256"), make_key(kind)
    ca = make_ca(common_name="CA", key=ca_key, at=AT, random=os.urandom)
    address = Address.parse("alice@example.org")
    certificate = issue_mail(IssuedBy(ca, ca_key), addresses=[address], public_key=public_key_of(key), at=AT, random=os.urandom)
    return SoftwareKey("alice", key, certificate=certificate, chain=(ca,)), certificate, ca


@pytest.fixture(scope="module", params=["rsa-2048", "ec-p256"])
def person(request: pytest.FixtureRequest) -> tuple[SoftwareKey, bytes, bytes]:
    return _person(request.param)


def _digest(name: str) -> bytes:
    running = SoftwareBackend().hash(name)
    running.update(CONTENT)
    return running.digest()


@pytest.mark.parametrize("form", ["detached", "opaque"])
def test_signed_data_reads_as_it_was_meant(person, form: str):
    key, certificate, ca = person
    signer = signer_for(key)
    info = run_now(sign_content(signer, _digest(signer.digest), at=AT))
    octets = detached([signer], [info]) if form == "detached" else opaque(Segments((CONTENT,)), [signer], [info]).join()
    read = oracle.ContentInfo.load(octets, strict=True)
    signed = read["content"]
    (signer_info,) = signed["signer_infos"]
    attributes = {attribute["type"].native: attribute["values"][0] for attribute in signer_info["signed_attrs"]}

    assert read["content_type"].native == "signed_data"
    assert signed["encap_content_info"]["content"].native == (None if form == "detached" else CONTENT)
    assert {one.chosen.dump() for one in signed["certificates"]} == {certificate, ca}
    assert attributes["content_type"].native == "data"
    assert attributes["message_digest"].native == _digest(signer.digest)
    assert attributes["signing_time"].native == AT
    # X.690 §11.6: what asn1crypto sorts and encodes anew is what was written.
    assert signer_info["signed_attrs"].untag().dump(force=True)[1:] == signer_info["signed_attrs"].dump()[1:]


def test_what_signs_protects_its_algorithms_and_its_certificate(person):
    """RFC 6211 §2 and RFC 5035 §3: without them, algorithms and certificate are whatever somebody puts in their place."""
    key, certificate, _ = person
    signer = signer_for(key)
    read = oracle.ContentInfo.load(detached([signer], [run_now(sign_content(signer, _digest(signer.digest), at=AT))]), strict=True)
    (info,) = read["content"]["signer_infos"]
    values = {attribute["type"].dotted: attribute["values"][0] for attribute in info["signed_attrs"]}

    protection = oracle.CMSAlgorithmProtection.load(values["1.2.840.113549.1.9.52"].dump())
    assert protection["digest_algorithm"].dump() == info["digest_algorithm"].dump()
    assert protection["signature_algorithm"].dump()[1:] == info["signature_algorithm"].dump()[1:]
    named = tsp.SigningCertificateV2.load(values["1.2.840.113549.1.9.16.2.47"].dump())["certs"][0]
    assert named["hash_algorithm"]["algorithm"].native == "sha256" and named["cert_hash"].native == hashlib.sha256(certificate).digest()


def test_enveloped_data_names_its_recipient(person):
    _, certificate, _ = person
    sealed = run_now(encrypt_content(Segments((CONTENT,)), [certificate], backend=SoftwareBackend(), random=os.urandom)).join()
    read = oracle.ContentInfo.load(sealed, strict=True)
    (recipient,) = read["content"]["recipient_infos"]

    assert read["content_type"].native == "enveloped_data"
    assert recipient.name in ("ktri", "kari")
    assert read["content"]["encrypted_content_info"]["content_encryption_algorithm"]["algorithm"].native == "aes256_cbc"


def test_certs_only_holds_the_certificates(person):
    _, certificate, ca = person
    read = oracle.ContentInfo.load(certs_only([certificate, ca]), strict=True)

    assert {one.chosen.dump() for one in read["content"]["certificates"]} == {certificate, ca}
    assert len(read["content"]["signer_infos"]) == 0
