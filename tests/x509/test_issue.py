"""What mailsec issues: profiles of RFC 5280 and RFC 8550, and that other programs take it."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from mailsec.errors import MailsecError, PrivateKeyError, UsageError
from mailsec.model.address import Address
from mailsec.x509.certificate import load_certificate
from mailsec.x509.issue import KEY_KINDS, IssuedBy, issue_mail, issue_server, make_ca, make_key, public_key_of, renew_ca

AT = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def ca() -> IssuedBy:
    key = make_key("ec-p256")
    return IssuedBy(make_ca(common_name="Test CA", key=key, at=AT, random=os.urandom, organisation="Test"), key)


def mail(ca: IssuedBy, *addresses: str, kind: str = "ec-p256", **more: object) -> bytes:
    public = public_key_of(make_key(kind))
    parsed = [Address.parse(address) for address in addresses]
    return issue_mail(ca, addresses=parsed, public_key=public, at=AT, random=os.urandom, **more)


CLASSIC = [kind for kind in KEY_KINDS if kind.startswith(("rsa", "ec")) and kind != "rsa-4096"] + ["ed25519"]
POST_QUANTUM = [kind for kind in KEY_KINDS if kind.startswith("ml-")]


@pytest.mark.parametrize("kind", [*POST_QUANTUM, "x25519"])
def test_keys_that_openssl_3_0_does_not_know_are_certified_for_what_they_can_do(kind, ca):
    key = make_key("ml-dsa-65")
    own = IssuedBy(make_ca(common_name="CA", key=key, at=AT, random=os.urandom), key)
    for by in (own, ca):
        der = mail(by, "alice@example.org", kind=kind)
        read = load_certificate(der)
        assert read.problems == () and read.key_type == kind
        expected = {"ml-d": {"digitalSignature"}, "ml-k": {"keyEncipherment"}, "x255": {"keyAgreement"}}[kind[:4]]
        assert read.key_usage == expected
        x509.load_der_x509_certificate(der).verify_directly_issued_by(x509.load_der_x509_certificate(by.certificate))
    with pytest.raises(UsageError):
        mail(ca, "alice@example.org", kind=kind, usage="encrypt" if kind.startswith("ml-dsa") else "sign")


@pytest.mark.parametrize("kind", ["x25519", "ml-kem-768"])
def test_a_key_that_cannot_sign_is_no_ca_and_no_server(kind, ca):
    with pytest.raises(PrivateKeyError):
        make_ca(common_name="CA", key=make_key(kind), at=AT, random=os.urandom)
    with pytest.raises(UsageError):
        issue_server(ca, names=["a.example"], public_key=public_key_of(make_key(kind)), at=AT, random=os.urandom)


def test_a_renewed_ca_has_its_name_and_constraints_and_what_it_issued_has_a_path_to_it():
    key = make_key("ec-p256")
    old = IssuedBy(make_ca(common_name="CA", key=key, at=AT, random=os.urandom, days=900, domains=["example.org"]), key)
    alice = x509.load_der_x509_certificate(mail(old, "alice@example.org"))
    later = AT + timedelta(days=800)
    renewed = x509.load_der_x509_certificate(renew_ca(old.certificate, key=key, at=later, random=os.urandom))
    before = x509.load_der_x509_certificate(old.certificate)
    alice.verify_directly_issued_by(renewed)
    assert renewed.subject == before.subject and renewed.serial_number != before.serial_number
    constraints = [each.extensions.get_extension_for_class(x509.NameConstraints).value for each in (before, renewed)]
    assert constraints[0] == constraints[1]
    other = x509.load_der_x509_certificate(renew_ca(old.certificate, key=make_key("ec-p256"), at=later, random=os.urandom))
    assert other.subject == before.subject and other.public_key() != before.public_key()


@pytest.mark.parametrize("kind", CLASSIC)
def test_each_kind_of_key_makes_certificates_that_openssl_verifies(kind, need, tmp_path, ca):
    openssl = need("openssl")
    key = make_key(kind)
    own = IssuedBy(make_ca(common_name="CA", key=key, at=AT, random=os.urandom), key)
    usage = "sign" if kind == "ed25519" else "both"
    for name, der in (("ca", own.certificate), ("mail", mail(own, "alice@example.org", kind=kind, usage=usage))):
        pem = x509.load_der_x509_certificate(der).public_bytes(__import__("cryptography").hazmat.primitives.serialization.Encoding.PEM)
        (tmp_path / name).write_bytes(pem)
    at = str(int((AT + timedelta(days=1)).timestamp()))
    run = subprocess.run(
        [openssl, "verify", "-x509_strict", "-attime", at, "-purpose", "smimesign", "-CAfile", tmp_path / "ca", tmp_path / "mail"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_mail_certificate_keeps_to_rfc_8550(ca):
    der = mail(ca, "Alice@Example.org", "sales@example.org", common_name="Alice Example", kind="rsa-2048")
    read = load_certificate(der)
    assert read.problems == () and [str(address) for address in read.addresses] == ["Alice@example.org", "sales@example.org"]
    certificate = x509.load_der_x509_certificate(der)
    extensions = {extension.oid: extension for extension in certificate.extensions}
    assert ExtensionOID.BASIC_CONSTRAINTS not in extensions
    usage = extensions[ExtensionOID.KEY_USAGE]
    assert usage.critical and usage.value.digital_signature and usage.value.key_encipherment and not usage.value.key_cert_sign
    assert [oid.dotted_string for oid in extensions[ExtensionOID.EXTENDED_KEY_USAGE].value] == ["1.3.6.1.5.5.7.3.4"]
    authority = x509.load_der_x509_certificate(ca.certificate).extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert extensions[ExtensionOID.AUTHORITY_KEY_IDENTIFIER].value.key_identifier == authority.digest
    assert not extensions[ExtensionOID.SUBJECT_ALTERNATIVE_NAME].critical
    assert certificate.not_valid_before_utc < AT < certificate.not_valid_after_utc <= AT + timedelta(days=825)


@pytest.mark.parametrize(
    ("kind", "usage", "expected"),
    [
        ("rsa-2048", "sign", {"digital_signature"}),
        ("rsa-2048", "encrypt", {"key_encipherment"}),
        ("ec-p256", "both", {"digital_signature", "key_agreement"}),
        ("ec-p384", "encrypt", {"key_agreement"}),
        ("ed25519", "both", {"digital_signature"}),
        ("ed25519", "sign", {"digital_signature"}),
    ],
)
def test_key_usage_is_what_the_key_can_do(ca, kind, usage, expected):
    certificate = x509.load_der_x509_certificate(mail(ca, "a@example.org", kind=kind, usage=usage))
    value = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign")
    assert {name for name in names if getattr(value, name)} == expected


def test_an_address_that_is_not_ascii_is_a_smtp_utf8_mailbox(ca):
    read = load_certificate(mail(ca, "jörg@bücher.example", "a@bücher.example"))
    assert read.problems == ()
    assert {address.key for address in read.addresses} == {"jörg@xn--bcher-kva.example", "a@xn--bcher-kva.example"}


def test_a_long_address_leaves_the_subject_empty_and_the_alternative_name_critical(ca):
    certificate = x509.load_der_x509_certificate(mail(ca, "a" * 60 + "@example.org"))
    assert list(certificate.subject) == []
    assert certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical


def test_serial_numbers_are_random_and_positive(ca):
    serials = {x509.load_der_x509_certificate(mail(ca, "a@example.org")).serial_number for _ in range(20)}
    assert len(serials) == 20 and all(0 < serial < 2**127 for serial in serials)
    for octets in (b"\0" * 16, b"\xff" * 16):
        der = issue_server(
            ca, names=["a.example"], public_key=public_key_of(make_key("ec-p256")), at=AT, random=lambda _, value=octets: value
        )
        assert x509.load_der_x509_certificate(der).serial_number > 0


def test_a_server_certificate_names_hosts_and_addresses(ca):
    public = public_key_of(make_key("rsa-2048"))
    der = issue_server(ca, names=["Mail.Example.org", "127.0.0.1", "::1"], public_key=public, at=AT, random=os.urandom)
    names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["mail.example.org"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]


def test_nothing_outlives_its_ca():
    key = make_key("ec-p256")
    short = IssuedBy(make_ca(common_name="CA", key=key, at=AT, random=os.urandom, days=10), key)
    end = x509.load_der_x509_certificate(short.certificate).not_valid_after_utc
    assert x509.load_der_x509_certificate(mail(short, "a@example.org")).not_valid_after_utc == end < AT + timedelta(days=10)
    with pytest.raises(UsageError, match="expired"):
        issue_mail(
            short, addresses=[Address.parse("a@example.org")], public_key=public_key_of(key), at=AT + timedelta(days=11), random=os.urandom
        )


def test_a_ca_for_domains_is_constrained_to_them():
    key = make_key("ec-p256")
    der = make_ca(common_name="CA", key=key, at=AT, random=os.urandom, domains=["example.org"])
    constraints = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical and x509.RFC822Name("example.org") in constraints.value.permitted_subtrees


def test_what_the_ca_says_stands_in_the_certificate(ca):
    with_urls = IssuedBy(
        ca.certificate, ca._key, ("http://x.example/crl",), ("http://x.example/ocsp",), ("http://x.example/ca",), ("1.2.3.4",)
    )
    extensions = x509.load_der_x509_certificate(mail(with_urls, "a@example.org")).extensions
    assert extensions.get_extension_for_class(x509.CRLDistributionPoints).value[0].full_name[0].value == "http://x.example/crl"
    assert len(extensions.get_extension_for_class(x509.AuthorityInformationAccess).value) == 2
    assert extensions.get_extension_for_class(x509.CertificatePolicies).value[0].policy_identifier.dotted_string == "1.2.3.4"


def test_wrong_arguments_are_our_errors(ca):
    public = public_key_of(make_key("ec-p256"))
    for act in (
        lambda: make_key("rsa-512"),
        lambda: make_ca(common_name="", key=make_key("ec-p256"), at=AT, random=os.urandom),
        lambda: make_ca(common_name="x" * 65, key=make_key("ec-p256"), at=AT, random=os.urandom),
        lambda: mail(ca),
        lambda: mail(ca, "a@example.org", usage="everything"),
        lambda: mail(ca, "a@example.org", usage="encrypt", kind="ed25519"),
        lambda: issue_server(ca, names=[], public_key=public, at=AT, random=os.urandom),
        lambda: issue_server(ca, names=["not a host"], public_key=public, at=AT, random=os.urandom),
        lambda: issue_server(IssuedBy(b"junk", ca._key), names=["a.example"], public_key=public, at=AT, random=os.urandom),
        lambda: issue_server(IssuedBy(ca.certificate, b"junk"), names=["a.example"], public_key=public, at=AT, random=os.urandom),
    ):
        with pytest.raises(MailsecError):
            act()
    with pytest.raises(PrivateKeyError):
        public_key_of(b"junk")


def test_the_key_of_a_ca_is_in_no_repr(ca):
    assert repr(ca) == "IssuedBy(...)"
