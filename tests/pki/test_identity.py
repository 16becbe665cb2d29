"""Whether a certificate belongs to an address or a host: whole names only."""

from __future__ import annotations

import ipaddress

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from pki_authorities import issue

from mailsec.model.address import Address
from mailsec.pki.identity import matches, matches_host


def of(*names, subject="Alice"):
    extensions = [x509.SubjectAlternativeName(list(names))] if names else []
    return issue(subject, None, *extensions, label="x").certificate


def utf8(text: str) -> x509.OtherName:
    return x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.9"), b"\x0c" + bytes([len(text.encode())]) + text.encode())


@pytest.mark.parametrize(
    ("held", "asked", "same"),
    [
        ("alice@example.org", "alice@example.org", True),
        ("Alice@Example.ORG", "alice@example.org", True),
        ("alice@example.org", "alice@sub.example.org", False),
        ("alice@example.org", "xalice@example.org", False),
        ("alice@example.org", "alice@example.org.evil.example", False),
        ("alice@xn--bcher-kva.example", "alice@bücher.example", True),
        ("alice@example.org", '"alice"@example.org', True),
        ("alice@example.org", "not an address", False),
    ],
)
def test_rfc822_name(held, asked, same):
    assert matches(of(x509.RFC822Name(held)), asked) is same


def test_smtp_utf8_mailbox():
    certificate = of(utf8("иван@xn--bcher-kva.example"))
    assert matches(certificate, Address.parse("иван@bücher.example"))
    assert matches(certificate, Address.parse("ИВАН@xn--bcher-kva.example"))
    assert not matches(certificate, Address.parse("ivan@bücher.example"))


def test_attack_a_kelvin_sign_is_no_k():
    # In lower case it is one: its holder would sign for karl, and karl's mail would be encrypted for them.
    certificate = of(utf8("\u212aarl@example.org"))
    assert matches(certificate, Address.parse("\u212aarl@Example.org")) and not matches(certificate, "karl@example.org")


def test_subject_counts_only_without_an_address_in_san():
    subject = x509.Name([x509.NameAttribute(NameOID.EMAIL_ADDRESS, "old@example.org")])
    assert matches(of(subject=subject), "old@example.org")
    assert matches(of(x509.DNSName("example.org"), subject=subject), "old@example.org")
    assert not matches(of(x509.RFC822Name("new@example.org"), subject=subject), "old@example.org")


def test_common_name_is_no_address():
    assert not matches(of(subject="alice@example.org"), "alice@example.org")


@pytest.mark.parametrize(
    ("held", "asked", "same"),
    [
        ("mail.example.org", "MAIL.example.org.", True),
        ("*.example.org", "mail.example.org", True),
        ("*.example.org", "a.mail.example.org", False),
        ("*.example.org", "example.org", False),
        ("*.org", "example.org", False),
        ("m*.example.org", "mail.example.org", False),
        ("example.org", "192.0.2.1", False),
    ],
)
def test_hosts(held, asked, same):
    assert matches_host(of(x509.DNSName(held)), asked) is same


def test_ip_addresses_are_compared_with_ip_addresses_only():
    assert matches_host(of(x509.IPAddress(ipaddress.ip_address("192.0.2.1"))), "192.0.2.1")
    assert matches_host(of(x509.IPAddress(ipaddress.ip_address("2001:db8::1"))), "[2001:db8::1]")
    assert not matches_host(of(x509.DNSName("192.0.2.1")), "192.0.2.1")
