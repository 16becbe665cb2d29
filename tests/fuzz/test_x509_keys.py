"""Mutants of certificates and key files. (asn1 and cms are targets of their own.)"""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from mailsec.asn1 import writer
from mailsec.errors import MailsecError
from mailsec.keys.files import load_certificates, load_pkcs12, load_private_key, pem
from mailsec.keys.software import SoftwareBackend
from mailsec.model.trust import Anchor
from mailsec.pki.identity import matches, matches_host
from mailsec.pki.path import validate
from mailsec.x509.certificate import Certificate, load_certificate, summary
from mailsec.x509.crl import load_crl
from mailsec.x509.names import Name, compared

from .mutations import hold, mutants

BACKEND = SoftwareBackend()


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
