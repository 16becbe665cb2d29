"""More of "Johnny, you are fired!" and "Re: What's up Johnny? Covert content attacks on email end-to-end encryption" (both 2019).

What a victim would send back with a reply (decrypted text that is hidden in a message of the attacker's), and signatures that say something
else elsewhere. Each first sees that the message without the trick is trusted, or opens.
"""

from __future__ import annotations

import os
import re
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from mailsec.cms.sign import certs_only
from mailsec.keys.software import SoftwareKey
from mailsec.mime.index import index_message
from mailsec.model.verdict import SmimeWord, Verdict
from mailsec.smime.report import authentication_results
from mailsec.x509.issue import make_key
from tests.smime.attack_parts import FORGED, HEAD, TEXT, base64_part, encrypted_part, mixed, signed_part

SECRET = b"Content-Type: text/plain\r\n\r\nthe secret\r\n"
VISIBLE = b"Content-Type: text/plain\r\n\r\nCan we meet on Monday?\r\n"
HIDING = b'Content-Type: text/html\r\n\r\nCan we meet?<style>blockquote, div { display: none }</style><div><img src="cid:x">\r\n'


def codes(verdict: Verdict) -> set[str]:
    return {reason.code for reason in verdict.reasons}


def part_of(message: bytes) -> bytes:
    """The entity of a message, without the header of the mail."""
    return message[message.index(b"Content-Type") :]


def handed_on(smime: SimpleNamespace, people: Any, data: bytes) -> bytes:
    """The clear copy that the reader gets instead; empty where the message is passed on as it came."""
    result = smime.peel(data, keys=[people.bob])
    return b"" if result.clear is None else b"".join(map(bytes, result.clear.blocks()))


# -- decrypted text that would go back with a reply ----------------------------------------------------------------------------------------


def test_the_secret_alone_is_opened_for_its_reader(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    assert b"the secret" in handed_on(smime, people, HEAD + encrypted_part(people, SECRET))


@pytest.mark.parametrize("visible", [VISIBLE, HIDING], ids=["plain", "css"])
@pytest.mark.parametrize("kind", [b"mixed", b"related", b"alternative", b"parallel", b"digest", b"x-unknown", b"signed", b"encrypted"])
def test_covert_a_hidden_encrypted_part_of_any_multipart_stays_closed(
    people: Any, smime: SimpleNamespace, kind: bytes, visible: bytes
) -> None:
    for parts in ((visible, encrypted_part(people, SECRET)), (encrypted_part(people, SECRET), visible)):
        assert b"the secret" not in handed_on(smime, people, mixed(*parts, kind=kind))


def test_covert_two_encrypted_parts_side_by_side_stay_closed(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    # The attacker encrypts the visible part to the victim, too: all that the victim sees was encrypted.
    data = mixed(encrypted_part(people, VISIBLE), encrypted_part(people, SECRET))
    assert b"the secret" not in handed_on(smime, people, data)


def test_covert_an_encrypted_part_within_parts_stays_closed(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    deep = part_of(mixed(HIDING, encrypted_part(people, SECRET), kind=b"related")).replace(b"outer", b"inner")
    assert b"the secret" not in handed_on(smime, people, mixed(VISIBLE, deep))


@pytest.mark.parametrize("disposition", [b"", b"Content-Disposition: attachment; filename=a.eml\r\n", b"Content-Disposition: inline\r\n"])
def test_covert_an_encrypted_message_that_is_attached_stays_closed(people: Any, smime: SimpleNamespace, disposition: bytes) -> None:
    attached = b"Content-Type: message/rfc822\r\n" + disposition + b"\r\n" + HEAD + encrypted_part(people, SECRET)
    assert b"the secret" not in handed_on(smime, people, mixed(VISIBLE, attached))


def test_covert_an_encrypted_part_with_another_label_stays_closed(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    for label in (
        b'application/octet-stream; name="smime.p7m"',
        b"application/x-pkcs7-mime",
        b"application/pkcs7-mime; smime-type=signed-data",
    ):
        hidden = encrypted_part(people, SECRET).replace(b"application/pkcs7-mime", label, 1)
        assert b"the secret" not in handed_on(smime, people, mixed(VISIBLE, hidden))


@pytest.mark.parametrize("form", ["detached", "opaque"])
def test_covert_an_attacker_s_own_signature_around_the_secret_opens_nothing(people: Any, smime: SimpleNamespace, form: str) -> None:
    attacker = people.ca.person("mallory@evil.example")
    around = mixed(VISIBLE, encrypted_part(people, SECRET)).replace(b"alice@example.org", b"mallory@evil.example")
    data = smime.sign(around, attacker, form=form)
    assert smime.judge(data, people.ca).trusted
    assert b"the secret" not in handed_on(smime, people, data)


def test_covert_the_secret_within_the_attacker_s_encryption_and_signature_opens_nothing(people: Any, smime: SimpleNamespace) -> None:
    attacker = people.ca.person("mallory@evil.example")
    inside = part_of(smime.sign(mixed(VISIBLE, encrypted_part(people, SECRET)), attacker))
    assert b"the secret" not in handed_on(smime, people, HEAD + encrypted_part(people, inside))


def test_covert_text_around_the_one_encrypted_part_of_a_message_is_not_joined_with_it(people: Any, smime: SimpleNamespace) -> None:
    # Preamble and epilogue of a multipart that has no other part: some readers show them.
    data = mixed(encrypted_part(people, SECRET)).replace(b"\r\n\r\n--outer", b"\r\n\r\nCan we meet?\r\n--outer", 1) + b"Can we meet?\r\n"
    assert data.count(b"Can we meet?") == 2 and b"Can we meet?" not in handed_on(smime, people, data)


# -- signatures that say something else elsewhere -------------------------------------------------------------------------------------------


def test_johnny_c4_certificates_in_the_place_of_a_signature(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    bag = base64_part(b"application/pkcs7-signature; name=smime.p7s", certs_only([people.alice.certificate, people.ca.der]))
    data = HEAD + b'Content-Type: multipart/signed; protocol="application/pkcs7-signature"; micalg=sha-256; boundary=b\r\n\r\n'
    verdict = smime.judge(data + b"--b\r\n" + FORGED + b"\r\n--b\r\n" + bag + b"\r\n--b--\r\n", people.ca)
    assert not verdict.trusted and not verdict.signature_valid and verdict.word is not SmimeWord.PASS


def test_johnny_c4_certificates_within_an_encrypted_message(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    inside = base64_part(b"application/pkcs7-mime; smime-type=certs-only", certs_only([people.alice.certificate]))
    verdict = smime.judge(HEAD + encrypted_part(people, inside), people.ca, keys=[people.bob])
    assert verdict.encrypted and not verdict.trusted and verdict.word is not SmimeWord.PASS


def test_johnny_m3_a_signed_message_within_forwarded_messages(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    whole = smime.sign(HEAD + TEXT, people.alice)
    assert smime.judge(whole, people.ca).trusted
    for _ in range(3):
        whole = HEAD + b"Content-Type: message/rfc822\r\n\r\n" + whole
        assert not smime.judge(whole, people.ca).trusted


def test_johnny_m4_another_person_s_signature_over_a_forwarded_message(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    # Bob forwards what "Alice" wrote, signed: it is Bob's mail, and nothing in it is Alice's.
    forged = HEAD + b"Content-Type: text/plain\r\n\r\npay mallory\r\n"
    bob = HEAD.replace(b"alice", b"bob", 1)
    forwarded = smime.sign(bob + b"Content-Type: message/rfc822\r\n\r\n" + forged, people.bob)
    assert smime.judge(forwarded, people.ca).identity_match
    verdict = smime.judge(smime.sign(HEAD + b"Content-Type: message/rfc822\r\n\r\n" + forged, people.bob), people.ca)
    assert verdict.signature_valid and verdict.identity_match is False and not verdict.trusted


def test_johnny_m5_a_signed_part_by_reference(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    # message/external-body: what stands elsewhere is never fetched, and lends nothing.
    elsewhere = b'Content-Type: message/external-body; access-type=URL; URL="http://evil.example/"\r\n\r\nContent-Type: text/html\r\n\r\n'
    verdict = smime.judge(mixed(elsewhere, signed_part(smime, people)), people.ca)
    assert not verdict.trusted


@pytest.mark.parametrize(
    "sender", [b"Sender: mallory@evil.example\r\n", b"Sender: alice@example.org\r\n", b"Resent-From: mallory@evil.example\r\n"]
)
def test_johnny_i2_the_signer_is_the_sender_and_not_the_author(people: SimpleNamespace, smime: SimpleNamespace, sender: bytes) -> None:
    attacker = people.ca.person("mallory@evil.example")
    verdict = smime.judge(smime.sign(sender + HEAD + TEXT, attacker), people.ca)
    assert verdict.signature_valid and verdict.identity_match is False and not verdict.trusted


@pytest.mark.parametrize(
    "sender", [b"mallory@evil.example", b"Alice <mallory@evil.example>", b"a@example.org, b@example.org", b"undisclosed:;", b'"', b""]
)
def test_johnny_i2_a_sender_that_nobody_signed_for_is_told_beside_the_author(
    people: SimpleNamespace, smime: SimpleNamespace, sender: bytes
) -> None:
    """From is proved, and is all that is: promise 4 asks for no more, and lists write Senders of their own. Who reads "pass" is told."""
    signed = smime.sign(HEAD + TEXT, people.alice)
    verdict = smime.judge(b"Sender: " + sender + b"\r\n" + signed, people.ca)
    assert verdict.trusted and verdict.identity_match
    (reason,) = (one for one in verdict.reasons if one.code == "sender-differs")
    assert (
        reason.stage == "identity" and reason in verdict.layers[-1].signers[0].reasons and "only From, alice@example.org" in reason.message
    )
    field = authentication_results(verdict, "gw.example.org")
    assert "smime=pass" in field and "only From" in field
    # One of the signer's own addresses needs no remark.
    own = smime.judge(b"Sender: Alice <alice@EXAMPLE.org>\r\n" + signed, people.ca)
    assert own.trusted and "sender-differs" not in {one.code for one in own.reasons}


@pytest.mark.parametrize("field", [b"Sender : mallory@evil.example\r\n", b"SENDER: a@b.example\r\nsender: alice@example.org\r\n"])
def test_johnny_i2_a_sender_in_disguise_is_told_as_well(people: SimpleNamespace, smime: SimpleNamespace, field: bytes) -> None:
    verdict = smime.judge(field + smime.sign(HEAD + TEXT, people.alice), people.ca)
    assert "sender-differs" in {one.code for one in verdict.reasons}


def test_johnny_i3_a_signer_without_an_address(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    # The address stands in the name alone, where everybody may have had it put (RFC 8550 §3).
    key = make_key("ec-p256")
    public = serialization.load_der_private_key(key, None).public_key()
    names = [x509.NameAttribute(NameOID.COMMON_NAME, "alice@example.org"), x509.NameAttribute(NameOID.USER_ID, "alice@example.org")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(names))
        .issuer_name(x509.load_der_x509_certificate(people.ca.der).subject)
        .public_key(public)
        .serial_number(int.from_bytes(os.urandom(8), "big") + 1)
        .not_valid_before(smime.at - timedelta(days=1))
        .not_valid_after(smime.at + timedelta(days=10))
        .sign(serialization.load_der_private_key(people.ca.key, None), hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )
    verdict = smime.judge(smime.sign(HEAD + TEXT, SoftwareKey("alice", key, certificate=certificate)), people.ca)
    assert verdict.signature_valid and verdict.identity_match is False and not verdict.trusted


@pytest.mark.parametrize("address", ["alice@example.org\x00.evil.example", "alice@example.org ", "<alice@example.org>", "alice"])
def test_johnny_i3_a_certificate_whose_address_only_ends_or_begins_like_the_author_s(
    people: SimpleNamespace, smime: SimpleNamespace, address: str
) -> None:
    key = make_key("ec-p256")
    issuer = serialization.load_der_private_key(people.ca.key, None)
    raw = x509.UnrecognizedExtension(
        x509.ObjectIdentifier("2.5.29.17"), b"\x30" + bytes([len(address) + 2]) + b"\x81" + bytes([len(address)]) + address.encode()
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "alice")]))
        .issuer_name(x509.load_der_x509_certificate(people.ca.der).subject)
        .public_key(serialization.load_der_private_key(key, None).public_key())
        .serial_number(int.from_bytes(os.urandom(8), "big") + 1)
        .not_valid_before(smime.at - timedelta(days=1))
        .not_valid_after(smime.at + timedelta(days=10))
        .add_extension(raw, critical=False)
        .sign(issuer, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )
    verdict = smime.judge(smime.sign(HEAD + TEXT, SoftwareKey("alice", key, certificate=certificate)), people.ca)
    assert not verdict.identity_match and not verdict.trusted


@pytest.mark.parametrize(
    "body",
    [
        b"<div style='background: green'>Signed by alice@example.org, verified</div>",
        b"<table><tr><td>&#x1f512; smime=pass</td></tr></table>",
        b"Authentication-Results: gw.example.org; smime=pass",
    ],
)
def test_johnny_u1_text_that_looks_like_a_verdict_is_text(people: SimpleNamespace, smime: SimpleNamespace, body: bytes) -> None:
    html = HEAD + b"Content-Type: text/html\r\n\r\n" + body + b"\r\n"
    assert smime.judge(html, people.ca).word is SmimeWord.NONE
    mallory = smime.judge(smime.sign(html, people.ca.person("mallory@evil.example")), people.ca)
    assert mallory.signature_valid and not mallory.trusted and mallory.word is SmimeWord.POLICY


def test_johnny_u1_fields_of_a_verdict_that_a_layer_brings_do_not_come_out(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    fields = b"Authentication-Results: gw.example.org; smime=pass\r\nX-Mailsec-Verdict: pass\r\nX-Signature: ok\r\n"
    result = smime.peel(HEAD + encrypted_part(people, fields + TEXT), keys=[people.bob])
    names = {field.name for field in index_message(result.clear).fields}
    assert not names & {"authentication-results", "x-mailsec-verdict", "x-signature"}


@pytest.mark.parametrize("label", [b'application/octet-stream; name="smime.p7m"', b'application/octet-stream; name="contract.pdf"'])
def test_johnny_m6_an_opaque_signature_by_another_name_beside_other_text(people: Any, smime: SimpleNamespace, label: bytes) -> None:
    opaque = part_of(smime.sign(HEAD + TEXT, people.alice, form="opaque"))
    hidden = re.sub(rb"application/pkcs7-mime;[^\r]*(?:\r\n [^\r]*)*", lambda _: label, opaque, count=1)
    verdict = smime.judge(mixed(FORGED, hidden), people.ca)
    assert not verdict.trusted and "attacker" not in (verdict.text or "")
