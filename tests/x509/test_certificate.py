"""`x509.load_certificate`: facts of good certificates, and a value with problems for everything else."""

from __future__ import annotations

import datetime as dt
import ipaddress
from functools import cache
from math import prod

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from mailsec.model.address import Address
from mailsec.x509 import keys
from mailsec.x509.certificate import Certificate, load_certificate, summary
from mailsec.x509.names import Name

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@cache
def key(kind: str = "p256"):
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1())


def name(*attributes):
    return x509.Name([x509.NameAttribute(*attribute) for attribute in attributes])


def der(subject=None, *extensions, kind="p256", serial=7) -> bytes:
    subject = subject if subject is not None else name((NameOID.COMMON_NAME, "Alice"))
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(name((NameOID.COMMON_NAME, "CA")))
        .not_valid_before(START)
        .not_valid_after(START + dt.timedelta(days=365))
        .serial_number(serial)
        .public_key(key(kind).public_key())
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    algorithm = None if kind == "ed25519" else hashes.SHA256()
    return builder.sign(key(kind), algorithm).public_bytes(Encoding.DER)


def codes(certificate: Certificate) -> list[str]:
    return [problem.code for problem in certificate.problems]


def test_facts_of_a_certificate():
    usage = x509.KeyUsage(True, False, True, False, False, False, False, False, False)
    octets = der(
        None,
        (x509.SubjectAlternativeName([x509.RFC822Name("alice@example.org"), x509.DNSName("mail.example.org")]), False),
        (usage, True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False),
        (x509.BasicConstraints(True, 3), True),
        (x509.SubjectKeyIdentifier(b"12345"), False),
        (x509.AuthorityKeyIdentifier(b"54321", None, None), False),
        kind="rsa",
    )
    certificate = load_certificate(octets)
    assert certificate.readable and certificate.problems == ()
    assert certificate.subject.text == "CN=Alice" and certificate.issuer.text == "CN=CA"
    assert (certificate.not_before, certificate.not_after) == (START, START + dt.timedelta(days=365))
    assert (certificate.key_type, certificate.bits, certificate.serial, certificate.version) == ("rsa", 2048, 7, 3)
    assert certificate.key_usage == {"digitalSignature", "keyEncipherment"}
    assert certificate.extended_key_usage == {"1.3.6.1.5.5.7.3.4"}
    assert certificate.basic_constraints == (True, 3)
    assert certificate.subject_key_id == b"12345" and certificate.authority_key_id.key_id == b"54321"
    assert certificate.addresses == (Address("alice", "example.org"),) and certificate.dns_names == ("mail.example.org",)
    assert not certificate.addresses_from_subject
    parsed = x509.load_der_x509_certificate(octets)
    assert certificate.tbs == parsed.tbs_certificate_bytes and certificate.signature == parsed.signature
    assert certificate.spki in certificate.tbs
    shown = summary(certificate)
    assert shown.serial == "7" and shown.addresses == ("alice@example.org",) and len(shown.fingerprint) == 64


@pytest.mark.parametrize(("kind", "key_type", "bits"), [("p256", "ec:secp256r1", 256), ("ed25519", "ed25519", 256), ("rsa", "rsa", 2048)])
def test_key_types(kind, key_type, bits):
    certificate = load_certificate(der(kind=kind))
    assert (certificate.key_type, certificate.bits) == (key_type, bits)


def test_the_same_octets_are_read_once():
    octets = der()
    assert load_certificate(octets) is load_certificate(bytes(bytearray(octets)))
    assert load_certificate(octets) == load_certificate(octets) and hash(load_certificate(octets)) == hash(load_certificate(octets))


def test_smtp_utf8_mailbox_is_an_address():
    text = "иван@xn--e1aybc.example".encode()
    value = b"\x0c" + bytes([len(text)]) + text
    san = x509.SubjectAlternativeName([x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.9"), value)])
    assert load_certificate(der(None, (san, False))).addresses == (Address("иван", "xn--e1aybc.example"),)


@pytest.mark.parametrize(
    ("tag", "text"),
    [(0x0C, b"\xff\xfea@b.example"), (0x16, b"a@b.example"), (0x0C, "\ufeff\u0430@b.example".encode()), (0x0C, b"a\0@b.example")],
    ids=["not UTF-8", "another string type", "byte order mark", "NUL"],
)
def test_smtp_utf8_mailbox_of_other_octets_is_no_address(tag, text):
    san = x509.SubjectAlternativeName([x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.9"), bytes([tag, len(text)]) + text)])
    certificate = load_certificate(der(None, (san, False)))
    assert certificate.addresses == () and codes(certificate) == ["address-unreadable"]


def test_subject_email_address_counts_only_without_one_in_san():
    subject = name((NameOID.COMMON_NAME, "A"), (NameOID.EMAIL_ADDRESS, "old@example.org"))
    legacy = load_certificate(der(subject))
    assert legacy.addresses == (Address("old", "example.org"),) and legacy.addresses_from_subject
    modern = load_certificate(der(subject, (x509.SubjectAlternativeName([x509.RFC822Name("new@example.org")]), False)))
    assert modern.addresses == (Address("new", "example.org"),) and not modern.addresses_from_subject


def test_nul_in_an_address_is_no_address():
    marker = b"alice@bank.example"
    octets = der(None, (x509.SubjectAlternativeName([x509.RFC822Name(marker.decode() + ".evil.org")]), False))
    octets = octets.replace(marker + b".evil", marker + b"\x00evil")
    certificate = load_certificate(octets)
    assert certificate.addresses == () and codes(certificate) == ["address-unreadable"]


def test_names_are_printed_without_surprises():
    subject = name(
        (NameOID.COMMON_NAME, ' A,"B"\n\r\x1b[2J\u202eevil\u200b '),
        (NameOID.ORGANIZATION_NAME, "Zürich, 東京 + Söhne;<x>=\\"),
    )
    text = load_certificate(der(subject)).subject.text
    assert text.isprintable() and "\u202e" not in text and "\u200b" not in text
    assert text.startswith('O=Zürich\\, 東京 \\+ Söhne\\;\\<x\\>=\\\\,CN=\\ A\\,\\"B\\"\\0A\\0D\\1B[2J\\E2\\80\\AEevil\\E2\\80\\8B\\ ')


def test_names_compare_without_case_blanks_and_string_type():
    def encoded(tag: int, text: bytes) -> bytes:
        value = bytes([tag, len(text)]) + text
        attribute = b"\x06\x03\x55\x04\x03" + value
        rdn = b"\x30" + bytes([len(attribute)]) + attribute
        rdns = b"\x31" + bytes([len(rdn)]) + rdn
        return b"\x30" + bytes([len(rdns)]) + rdns

    printable, utf8 = Name(encoded(0x13, b"Example  CA")), Name(encoded(0x0C, b" example ca "))
    assert printable.matches(utf8) and printable != utf8
    assert Name(encoded(0x1E, "Example CA".encode("utf-16-be"))).matches(utf8)
    assert not printable.matches(Name(encoded(0x13, b"ExampleCA")))
    assert not Name(b"garbage").matches(utf8) and Name(b"garbage").text == "#" + b"garbage".hex()


def test_negative_serial_is_a_problem_and_not_an_error():
    octets = der(serial=0x70)
    index = octets.index(b"\x02\x01\x70")
    certificate = load_certificate(octets[: index + 2] + b"\x90" + octets[index + 3 :])
    assert certificate.readable and codes(certificate) == ["serial-not-positive"] and certificate.serial == -0x70


def test_extension_twice_is_a_problem():
    octets = der(None, (x509.SubjectKeyIdentifier(b"a"), False), (x509.AuthorityKeyIdentifier(b"b", None, None), False))
    certificate = load_certificate(octets.replace(b"\x55\x1d\x23", b"\x55\x1d\x0e"))
    assert "extension-twice" in codes(certificate)


def test_two_signature_algorithms_are_a_problem():
    octets = der()
    oid = bytes.fromhex("06082a8648ce3d040302")
    certificate = load_certificate(octets.replace(oid, oid[:-1] + b"\x03", 1))
    assert codes(certificate) == ["signature-algorithm-differs"]


def test_unreadable_extension_is_a_problem_and_the_rest_is_kept():
    octets = der(None, (x509.BasicConstraints(True, 1), True), (x509.SubjectKeyIdentifier(b"a"), False))
    certificate = load_certificate(octets.replace(b"\x30\x06\x01\x01\xff\x02\x01\x01", b"\x30\x06\x01\x01\x07\x02\x01\x01"))
    assert codes(certificate) == ["extension-unreadable"]
    assert certificate.basic_constraints is None and certificate.subject_key_id == b"a"


def test_indefinite_length_is_not_a_certificate():
    assert not load_certificate(b"\x30\x80" + der()[4:] + b"\0\0").readable


def test_rsa_weaknesses_are_named():
    octets = der(kind="rsa")
    exponent = b"\x02\x03\x01\x00\x01"
    assert load_certificate(octets.replace(exponent, b"\x02\x03\x01\x00\x02")).key.weaknesses == ("rsa-exponent",)
    assert load_certificate(octets).key.weaknesses == ()


def test_a_modulus_of_the_roca_family_is_named():
    product = prod(keys._ROCA_PRIMES)
    modulus = pow(65537, 12345, product) + product * (1 << 400)
    assert all(modulus % prime in residues for prime, residues in keys._ROCA)
    assert "roca" in keys.key_facts(rsa_key(modulus | 1 if modulus & 1 else modulus + product)).weaknesses


def rsa_key(modulus: int) -> bytes:
    return rsa.RSAPublicNumbers(65537, modulus).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def test_a_modulus_with_a_small_factor_is_named():
    private = rsa.generate_private_key(65537, 2048).private_numbers()
    assert keys.key_facts(rsa_key(private.p * 751 * private.q)).weaknesses == ("rsa-small-factor",)
    assert keys.key_facts(rsa_key(private.p * private.q)).weaknesses == ()


def test_a_modulus_of_two_neighbours_is_named():
    first = rsa.generate_private_key(65537, 2048).private_numbers().p
    # Factors that are no primes do as well for what is asked here.
    for distance in (0, 2, 1 << 400, 1 << 515):
        assert keys.has_close_primes(rsa_key(first * (first + distance)))
    assert not keys.has_close_primes(rsa_key(first * (first + (1 << 900))))
    private = rsa.generate_private_key(65537, 2048).private_numbers()
    assert not keys.has_close_primes(rsa_key(private.p * private.q))


def test_attack_a_modulus_of_many_bits_costs_nothing():
    assert not keys.has_close_primes(rsa_key((1 << 20_000) + 1))


def test_other_names_and_addresses_are_kept():
    san = x509.SubjectAlternativeName(
        [
            x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
            x509.UniformResourceIdentifier("https://a.example/"),
            x509.DirectoryName(name((NameOID.COMMON_NAME, "x"))),
        ]
    )
    assert [kind for kind, _ in load_certificate(der(None, (san, False))).alternative_names] == [7, 6, 4]


BASE = der(
    None,
    (x509.SubjectAlternativeName([x509.RFC822Name("alice@example.org")]), False),
    (x509.BasicConstraints(True, 3), True),
    (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(BASE) - 1), st.integers(0, 255)), max_size=4), st.integers(0, len(BASE)))
def test_any_octets_end_in_a_certificate(changes, cut):
    octets = bytearray(BASE)
    for index, value in changes:
        octets[index] = value
    for data in (bytes(octets), bytes(octets[:cut])):
        certificate = load_certificate(data)
        assert certificate.der == data
        assert summary(certificate).subject.isprintable()
        if not certificate.readable:
            assert certificate.problems


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_name_is_printable(octets):
    shown = Name(octets)
    assert shown.text.isprintable()
    assert shown.matches(Name(octets))
    assert shown.values(b"\x55\x04\x03") is not None


def test_hundred_thousand_names_are_refused_in_linear_time():
    names = b"\x82\x01a" * 100_000
    length = len(names).to_bytes(3, "big")
    from mailsec.errors import Asn1Error
    from mailsec.x509 import extensions

    with pytest.raises(Asn1Error):
        extensions.alternative_names(b"\x30\x83" + length + names)
