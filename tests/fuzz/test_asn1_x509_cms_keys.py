"""Mutants of certificates, CMS objects and key files."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from mailsec.asn1 import writer
from mailsec.asn1.reader import Element, read_element
from mailsec.asn1.values import bit_string_bits, read_bit_string, read_integer, read_octet_string, read_oid, read_string, read_time
from mailsec.asn1.writer import to_der
from mailsec.cms.enveloped import read_enveloped_data
from mailsec.cms.signed import read_content_type, read_signed_data
from mailsec.cms.structure import describe
from mailsec.cms.verify import verify_signers
from mailsec.errors import MailsecError
from mailsec.keys.files import load_certificates, load_pkcs12, load_private_key, pem
from mailsec.keys.software import SoftwareBackend
from mailsec.model.octets import BytesOctets
from mailsec.model.trust import Anchor
from mailsec.pki.identity import matches, matches_host
from mailsec.pki.path import validate
from mailsec.x509.certificate import Certificate, load_certificate, summary
from mailsec.x509.crl import load_crl
from mailsec.x509.names import Name, compared

from .mutations import hold, mutants

BACKEND = SoftwareBackend()
_READERS = (read_integer, read_oid, read_time, read_bit_string, bit_string_bits, read_octet_string, read_string)


def _walk(element: Element, depth: int = 0) -> None:
    for reader in _READERS:
        try:
            reader(element)
        except MailsecError:
            continue
    if element.constructed and depth < 40:
        for child in element.children():
            _walk(child, depth + 1)


def test_asn1_elements_and_values(world) -> None:
    def target(data: bytes) -> None:
        element = read_element(data)
        to_der(element)
        _walk(element)

    for data in mutants([world.ca.certificate, *world.cms], 1500):
        hold(target, data)


def test_certificates_are_read_and_judged_whatever_they_hold(world) -> None:
    seeds = [world.ca.certificate, world.alice.certificate, world.rsa.certificate]
    anchors = (Anchor(world.ca.certificate),)

    def target(data: bytes) -> Certificate:
        certificate = load_certificate(data)
        summary(certificate)
        repr(certificate)
        matches(certificate, "alice@example.org")
        matches_host(certificate, "example.org")
        load_crl(data)
        result = validate(certificate, anchors=anchors, intermediates=(), at=world.at, purpose="email-sign", backend=BACKEND)
        # A changed certificate has no valid signature. (Without a change of its octets it is the same one.)
        assert not result.valid or data in seeds, "valid"
        return certificate

    for data in mutants(seeds, 1500):
        assert isinstance(hold(target, data), Certificate)


def test_signed_data_is_never_intact_over_other_content(world) -> None:
    def target(data: bytes) -> bool:
        octets = BytesOctets(data)
        read_content_type(octets)
        try:
            read_enveloped_data(octets)
        except MailsecError:
            pass
        signed = read_signed_data(octets)
        results = verify_signers(signed, None if signed.content is not None else (world.content,), backend=BACKEND)
        if any(result.intact for result in results):
            content = world.content if signed.content is None else b"".join(map(bytes, signed.content_blocks()))
            assert content == world.content, "intact over other content"
        return bool(results)

    readable = sum(bool(hold(target, data)) for data in mutants(world.cms, 1500))
    assert readable > 100
    for data in mutants(world.cms, 300, seed=2):
        hold(lambda octets: describe(BytesOctets(octets)), data)


def test_key_files_give_keys_or_our_errors(world) -> None:
    certificate, private = world.alice.certificate, serialization.load_der_private_key(world.private, None)
    cheap = serialization.PrivateFormat.PKCS12.encryption_builder().kdf_rounds(10).build(b"x")
    authority = x509.load_der_x509_certificate(world.ca.certificate)
    store = pkcs12.serialize_key_and_certificates(b"n", private, None, [authority], cheap)
    legacy = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    seeds = [
        world.private,
        pem(world.private, "PRIVATE KEY"),
        legacy,
        pem(certificate, "CERTIFICATE") * 2,
        certificate,
        world.cms[3],
        store,
    ]

    def target(data: bytes) -> None:
        for load in (lambda: load_private_key(data, b"x"), lambda: load_certificates(data), lambda: load_pkcs12(data, b"x")):
            try:
                load()
            except MailsecError:
                continue

    for data in mutants(seeds, 600):
        hold(target, data)


def test_names_of_combining_characters_cost_linear_time() -> None:
    marks = "a" + "\u0300\u0316" * 200_000
    name = writer.sequence(writer.set_of(writer.sequence(writer.oid("2.5.4.3"), writer.utf8_string(marks))))
    found = hold(lambda octets: (Name(octets).matches(Name(name)), Name(octets).text != "", Name(octets).key != Name(name[:-1]).key), name)
    assert found == (True, True, True)
    # Short ones are compared as people read them.
    assert compared(0x0C, "e\u0301".encode()) == compared(0x0C, "\u00c9".encode())
