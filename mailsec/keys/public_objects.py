"""The SubjectPublicKeyInfo of a key on a token, from the attributes of its objects, and back.

PKCS #11 v3.2 §6: RSA, elliptic curves, ML-DSA, ML-KEM.

Invariant: what comes out reads back by `algorithms.public_keys`, or nothing comes out.
"""

from __future__ import annotations

import hashlib
from typing import Final

from mailsec.algorithms.public_keys import PublicKeyFacts, public_key_facts
from mailsec.algorithms.table import CURVES
from mailsec.asn1 import writer
from mailsec.asn1.reader import OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, read_single
from mailsec.asn1.values import read_bit_string, read_integer, read_octet_string, read_oid
from mailsec.errors import Asn1Error, CryptoError

__all__ = ["ec_public_key", "facts_of", "key_identifier", "mldsa_public_key", "mlkem_public_key", "public_point", "rsa_public_key"]

_RSA = "1.2.840.113549.1.1.1"
_EC = "1.2.840.10045.2.1"
_BY_PARAMETERS: Final = {
    # PKCS #11 v3.1 §6.3.3: an identifier or a name; both are met.
    writer.oid("1.3.101.112"): ("1.3.101.112", 32),
    writer.oid("1.3.101.113"): ("1.3.101.113", 57),
    writer.oid("1.3.101.110"): ("1.3.101.110", 32),
    writer.oid("1.3.101.111"): ("1.3.101.111", 56),
    writer.printable_string("edwards25519"): ("1.3.101.112", 32),
    writer.printable_string("edwards448"): ("1.3.101.113", 57),
    writer.printable_string("curve25519"): ("1.3.101.110", 32),
    writer.printable_string("curve448"): ("1.3.101.111", 56),
    # What OpenSC and older SoftHSM write for them.
    writer.oid("1.3.6.1.4.1.11591.15.1"): ("1.3.101.112", 32),
    writer.oid("1.3.6.1.4.1.3029.1.5.1"): ("1.3.101.110", 32),
}
_MLDSA: Final = {
    1312: "2.16.840.1.101.3.4.3.17",
    1952: "2.16.840.1.101.3.4.3.18",
    2592: "2.16.840.1.101.3.4.3.19",
}
_MLKEM: Final = {
    1184: "2.16.840.1.101.3.4.4.2",
    1568: "2.16.840.1.101.3.4.4.3",
}


def rsa_public_key(modulus: bytes, exponent: bytes) -> bytes:
    """CKA_MODULUS and CKA_PUBLIC_EXPONENT (big-endian) as SubjectPublicKeyInfo (RFC 3279 §2.3.1)."""
    numbers = writer.sequence(writer.integer(int.from_bytes(modulus, "big")), writer.integer(int.from_bytes(exponent, "big")))
    return writer.sequence(writer.sequence(writer.oid(_RSA), writer.NULL), writer.bit_string(numbers))


def ec_public_key(parameters: bytes, point: bytes) -> bytes:
    """CKA_EC_PARAMS and CKA_EC_POINT as SubjectPublicKeyInfo (RFC 5480 §2, RFC 8410 §4); the point is wrapped in an OCTET STRING, or bare."""
    plain = _BY_PARAMETERS.get(parameters)
    if plain is not None:
        identifier, length = plain
        if len(point) != length:
            point = _unwrapped(point)
        return writer.sequence(writer.sequence(writer.oid(identifier)), writer.bit_string(point))
    # A bare point begins with 04 as an OCTET STRING does: the length of what is within tells them apart.
    size = _coordinate(parameters)
    if size is None or len(point) not in (1 + size, 1 + 2 * size):
        point = _unwrapped(point)
    return writer.sequence(writer.sequence(writer.oid(_EC), parameters), writer.bit_string(point))


def mldsa_public_key(value: bytes) -> bytes:
    """CKA_VALUE of an ML-DSA public key as SubjectPublicKeyInfo (RFC 9881 §4); its length says which it is."""
    return _lattice_public_key("ML-DSA", _MLDSA.get(len(value)), value)


def mlkem_public_key(value: bytes) -> bytes:
    """CKA_VALUE of an ML-KEM public key as SubjectPublicKeyInfo (RFC 9935 §4)."""
    return _lattice_public_key("ML-KEM", _MLKEM.get(len(value)), value)


def _lattice_public_key(family: str, identifier: str | None, value: bytes) -> bytes:
    if identifier is None:
        raise CryptoError(f"an {family} public key of an unknown length")
    return writer.sequence(writer.sequence(writer.oid(identifier)), writer.bit_string(value))


def facts_of(spki: bytes) -> PublicKeyFacts | None:
    """What kind of key it is; None where it cannot be read."""
    try:
        return public_key_facts(spki)
    except (Asn1Error, CryptoError):
        return None


def public_point(spki: bytes) -> bytes:
    """The octets of the key itself: a point, or the numbers of an RSA key."""
    return read_bit_string(read_single(spki, SEQUENCE, "SubjectPublicKeyInfo").children()[1])[0]


def key_identifier(spki: bytes) -> bytes:
    """CKA_ID as NSS makes it: SHA-1 over the modulus, or over the point."""
    facts, octets = public_key_facts(spki), public_point(spki)
    if facts.key_type in ("rsa", "rsa-pss"):
        number = read_integer(read_single(octets, SEQUENCE, "RSAPublicKey").children()[0])
        octets = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return hashlib.sha1(octets, usedforsecurity=False).digest()


def _unwrapped(point: bytes) -> bytes:
    try:
        return read_octet_string(read_single(point, OCTET_STRING, "point"))
    except Asn1Error:
        return point


def _coordinate(parameters: bytes) -> int | None:
    try:
        curve = CURVES.get(read_oid(read_single(parameters, OBJECT_IDENTIFIER, "curve")))
    except Asn1Error:
        return None
    return None if curve is None else (curve[1] + 7) // 8
