"""Issuers with every kind of key: their certificates, lists and responses are believed, and changed ones are not."""

from __future__ import annotations

import datetime as dt
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from pki_authorities import BACKEND, END, NOW, START, dn

from mailsec.algorithms.profiles import PROFILES
from mailsec.model.trust import Anchor
from mailsec.model.verdict import Revocation
from mailsec.pki.evidence import RevocationEvidence
from mailsec.pki.path import PathOptions, PathResult, validate
from mailsec.x509.certificate import load_certificate

DAY = dt.timedelta(days=1)
SHA256 = hashes.SHA256()


def pss(digest) -> padding.PSS:
    return padding.PSS(padding.MGF1(digest), digest.digest_size)


KINDS = {
    "rsa": (lambda: rsa.generate_private_key(65537, 2048), SHA256, None),
    "rsa-sha512": (lambda: rsa.generate_private_key(65537, 2048), hashes.SHA512(), None),
    "pss": (lambda: rsa.generate_private_key(65537, 2048), SHA256, pss(SHA256)),
    "pss-sha384": (lambda: rsa.generate_private_key(65537, 2048), hashes.SHA384(), pss(hashes.SHA384())),
    "p256": (lambda: ec.generate_private_key(ec.SECP256R1()), SHA256, None),
    "p384": (lambda: ec.generate_private_key(ec.SECP384R1()), hashes.SHA384(), None),
    "p521": (lambda: ec.generate_private_key(ec.SECP521R1()), hashes.SHA512(), None),
    "brainpool256": (lambda: ec.generate_private_key(ec.BrainpoolP256R1()), SHA256, None),
    "brainpool384": (lambda: ec.generate_private_key(ec.BrainpoolP384R1()), hashes.SHA384(), None),
    "brainpool512": (lambda: ec.generate_private_key(ec.BrainpoolP512R1()), hashes.SHA512(), None),
    "ed25519": (ed25519.Ed25519PrivateKey.generate, None, None),
    "ed448": (ed448.Ed448PrivateKey.generate, None, None),
    "ml-dsa-44": (mldsa.MLDSA44PrivateKey.generate, None, None),
    "ml-dsa-65": (mldsa.MLDSA65PrivateKey.generate, None, None),
    "ml-dsa-87": (mldsa.MLDSA87PrivateKey.generate, None, None),
    "dsa": (lambda: dsa.generate_private_key(2048), SHA256, None),
}


@cache
def key(kind: str, who: str):
    return KINDS[kind][0]()


def signed(builder, kind: str) -> x509.Certificate:
    _, digest, scheme = KINDS[kind]
    more = {"rsa_padding": scheme} if scheme is not None else {}
    return builder.sign(key(kind, "authority"), digest, **more)


def certificate(kind: str, name: str, public, *, ca: bool) -> x509.Certificate:
    builder = x509.CertificateBuilder().subject_name(dn(name)).issuer_name(dn(f"Authority {kind}")).public_key(public)
    builder = builder.not_valid_before(START).not_valid_after(END).serial_number(7 if ca else 8)
    return signed(builder.add_extension(x509.BasicConstraints(ca, None), True), kind)


@cache
def authority(kind: str) -> x509.Certificate:
    return certificate(kind, f"Authority {kind}", key(kind, "authority").public_key(), ca=True)


@cache
def person(kind: str) -> x509.Certificate:
    return certificate(kind, "Bob", ec.generate_private_key(ec.SECP256R1()).public_key(), ca=False)


def crl(kind: str, *revoked: int) -> bytes:
    builder = x509.CertificateRevocationListBuilder().issuer_name(dn(f"Authority {kind}")).last_update(NOW - DAY).next_update(NOW + DAY)
    for serial in revoked:
        builder = builder.add_revoked_certificate(x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(START).build())
    return signed(builder.add_extension(x509.CRLNumber(1), False), kind).public_bytes(Encoding.DER)


def ask(kind: str, der: bytes = b"", *, crls=(), responses=(), profile="default") -> PathResult:
    return validate(
        load_certificate(der or person(kind).public_bytes(Encoding.DER)),
        anchors=[Anchor(authority(kind).public_bytes(Encoding.DER))],
        intermediates=[],
        at=NOW,
        purpose="any",
        backend=BACKEND,
        options=PathOptions(check_revocation=bool(crls or responses), profile=PROFILES[profile]),
        evidence=RevocationEvidence(crls, responses),
    )


STRONG = [kind for kind in KINDS if kind != "dsa"]


@pytest.mark.parametrize("kind", STRONG)
def test_certificates_of_every_kind_of_issuer(kind):
    result = ask(kind)
    assert result.valid, result.reasons
    changed = bytearray(person(kind).public_bytes(Encoding.DER))
    changed[-7] ^= 1
    assert [reason.code for reason in ask(kind, bytes(changed)).reasons][:1] == ["signature-wrong"]


@pytest.mark.parametrize("kind", STRONG)
def test_lists_of_every_kind_of_issuer(kind):
    assert ask(kind, crls=[crl(kind)]).revocation is Revocation.GOOD
    assert ask(kind, crls=[crl(kind, 8)]).revocation is Revocation.REVOKED
    forged = crl(kind)
    assert ask(kind, crls=[forged[:-7] + bytes((forged[-7] ^ 1,)) + forged[-6:]]).revocation is Revocation.UNKNOWN


# cryptography signs responses with these alone.
@pytest.mark.parametrize("kind", ["rsa", "p256", "p384", "brainpool256", "ed25519", "ed448"])
def test_responses_of_every_kind_of_issuer(kind):
    builder = ocsp.OCSPResponseBuilder().add_response(
        person(kind), authority(kind), hashes.SHA1(), ocsp.OCSPCertStatus.GOOD, NOW - DAY, NOW + DAY, None, None
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.NAME, authority(kind))
    octets = builder.sign(key(kind, "authority"), KINDS[kind][1]).public_bytes(Encoding.DER)
    assert ask(kind, responses=[octets]).revocation is Revocation.GOOD
    assert ask(kind, responses=[octets[:-3] + bytes((octets[-3] ^ 1,)) + octets[-2:]]).revocation is Revocation.UNKNOWN


def test_an_issuer_with_dsa_is_refused_unless_legacy_algorithms_are_allowed():
    assert [reason.code for reason in ask("dsa").reasons] == ["weak-algorithm"]
    assert ask("dsa", profile="legacy").valid


def test_a_strict_profile_refuses_issuers_that_the_default_one_accepts():
    refusing = {name for name, profile in PROFILES.items() if not ask("rsa", profile=name).valid}
    assert "default" not in refusing and refusing == {
        name for name, profile in PROFILES.items() if profile.rsa_bits > 2048 or "rsa" not in profile.key_types
    }
