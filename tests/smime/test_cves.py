"""Faults that other S/MIME gateways had, by their numbers, with messages of our own making.

CVE-2026-27443 stands in `test_johnny`; CVE-2026-2746 and CVE-2026-27445 are about OpenPGP signatures, which mailsec does not read.
"""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from mailsec.asn1 import writer
from mailsec.keys.software import SoftwareKey
from mailsec.mime.index import index_message
from mailsec.x509.issue import make_key
from tests.smime.attack_parts import encrypted_part

TEXT = b"Content-Type: text/plain\r\n\r\nhello\r\n"


def certified(people: SimpleNamespace, at: Any, san: bytes, common_name: str = "x") -> SoftwareKey:
    """A key whose certificate, by the CA that is trusted, has these octets as its subjectAltName and this common name."""
    key = make_key("ec-p256")
    private: Any = serialization.load_der_private_key(key, None)
    authority: Any = serialization.load_der_private_key(people.ca.key, None)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .issuer_name(x509.load_der_x509_certificate(people.ca.der).subject)
        .serial_number(int.from_bytes(os.urandom(8), "big") | 1)
        .not_valid_before(at)
        .not_valid_after(at.replace(year=at.year + 1))
        .public_key(private.public_key())
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, san), critical=False)
    )
    certificate = builder.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    return SoftwareKey("x", key, certificate=certificate)


def rfc822(*names: bytes) -> bytes:
    return writer.sequence(*(writer.header(0x81, len(name)) + name for name in names))


@pytest.mark.parametrize(
    "name",
    [
        b"alice@example.org ", b" alice@example.org", b"alice@example.org\t", b"alice @example.org", b"alice@ example.org",
        b"alice@example.org\r\n", b"alice@example.org\n.evil.example", b"alice@example.org mallory@evil.example",
        b"mallory@evil.example alice@example.org", b"alice@example.org\0.evil.example", b"alice@example.org,mallory@evil.example",
        b"<alice@example.org>", b"Alice <alice@example.org>", b"(x)alice@example.org", b"\xa0alice@example.org", b"*@example.org",
        b"@example.org", b"example.org", b"",
    ],
)  # fmt: skip
def test_cve_2026_2748_a_certificate_for_an_address_with_blanks_is_nobody_s(people: Any, smime: SimpleNamespace, name: bytes) -> None:
    key = certified(people, smime.at, rfc822(name), "alice@example.org")
    verdict = smime.judge(smime.sign(b"From: alice@example.org\r\n" + TEXT, key), people.ca)
    assert verdict.signature_valid and verdict.chain_valid and verdict.identity_match is False and not verdict.trusted
    # The same certificate with the address as it should be is Alice's.
    good = certified(people, smime.at, rfc822(b"alice@example.org"))
    assert smime.judge(smime.sign(b"From: alice@example.org\r\n" + TEXT, good), people.ca).trusted


@pytest.mark.parametrize(
    "mark",
    [b'text/plain; hp="cipher"', b'text/plain; hp="clear"', b'text/plain; protected-headers="v1"', b"message/rfc822; forwarded=no"],
)
def test_cve_2026_29143_what_an_encrypted_message_says_of_itself_proves_nothing(people: Any, smime: SimpleNamespace, mark: bytes) -> None:
    """Anybody can encrypt to Bob: a header inside is authentic only if its author signed it."""
    fields = (
        b"From: Alice <alice@example.org>\r\nSubject: [signed OK] pay\r\nAuthentication-Results: gw.example.org; smime=pass; dkim=pass\r\n"
        b"X-Mailsec-Verdict: trusted\r\nReceived: from bank\r\nDKIM-Signature: v=1\r\nSender: ceo@example.org\r\n"
    )
    wrapped = mark.startswith(b"message")
    entity = (
        (b"Content-Type: " + mark + b"\r\n\r\n" + fields + TEXT) if wrapped else fields + b"Content-Type: " + mark + b"\r\n\r\nhello\r\n"
    )
    for author in (b"mallory@evil.example", b"alice@example.org"):
        head = b"From: " + author + b"\r\nTo: bob@example.org\r\nSubject: outside\r\n"
        data = head + encrypted_part(people, entity)
        verdict = smime.judge(data, people.ca, keys=[people.bob])
        assert not verdict.signed and not verdict.trusted and not verdict.protected_headers
        clear = index_message(smime.peel(data, keys=[people.bob]).clear)
        assert {field.name for field in clear.fields} <= {"from", "to", "subject", "mime-version", "content-type"}
        assert len(clear.all("from")) == 1 and author.decode() in (clear.first("from") or "")


@pytest.mark.parametrize(
    "value",
    [
        b"alice@example.org <mallory@evil.example>",
        b"<alice@example.org> <mallory@evil.example>",
        b"<mallory@evil.example> <alice@example.org>",
        b"alice@example.org, mallory@evil.example",
        b"mallory@evil.example; alice@example.org",
        b'"alice@example.org"@evil.example',
        b'"alice@example.org" <mallory@evil.example>',
        b"alice@example.org@evil.example",
        b"alice@example.org\0@evil.example",
        b"alice@example.org\r <mallory@evil.example>",
        b"alice@example.org\r\n\t<mallory@evil.example>",
        b"<alice@example.org>:mallory@evil.example;",
        b"alice@example.org:mallory@evil.example;",
        b"<@evil.example:alice@example.org>",
        b"=?utf-8?q?alice=40example.org?=",
        b"=?utf-8?q?alice=40example.org=3E?= <mallory@evil.example>",
        b"=?utf-8?b?YWxpY2VAZXhhbXBsZS5vcmc=?= <mallory@evil.example>",
        b"mallory@evil.example (alice@example.org)",
        b"alice@example.org <",
        b"alice@example.org>",
        b"alice@[example.org]",
        b"alice%example.org@evil.example",
        b"alice @ evil.example, <alice@example.org>",
        b"alice@example.org\xe2\x80\xae",
        b"alice@example.o\xd1\x80g",
    ],
)
def test_cve_2026_27444_an_author_whom_two_readers_read_differently(people: Any, smime: SimpleNamespace, value: bytes) -> None:
    verdict = smime.judge(smime.sign(b"From: " + value + b"\r\nSubject: x\r\n" + TEXT, people.alice), people.ca)
    assert verdict.signature_valid and verdict.identity_match is False and not verdict.trusted and verdict.reasons
