"""What kind of key a SubjectPublicKeyInfo holds, without computing with it (RFC 5280 §4.1.2.7, RFC 5480, RFC 8410, RFC 9881, RFC 9935).

Invariant: the answer depends on the octets alone and costs microseconds, also for a modulus of a million bits.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from mailsec.algorithms.table import CURVES, algorithm_of, signature_mechanism
from mailsec.asn1.reader import SEQUENCE, read_single
from mailsec.asn1.values import read_bit_string, read_integer, read_oid
from mailsec.errors import Asn1Error, CryptoError
from mailsec.model.mechanism import SignatureMechanism

__all__ = ["CURVES_READ", "PublicKeyFacts", "algorithm_parameters", "public_key_facts"]

_PLAIN = {
    "1.3.101.110": ("x25519", 256),
    "1.3.101.111": ("x448", 448),
    "1.3.101.112": ("ed25519", 256),
    "1.3.101.113": ("ed448", 456),
    "2.16.840.1.101.3.4.3.17": ("ml-dsa-44", 1312 * 8),
    "2.16.840.1.101.3.4.3.18": ("ml-dsa-65", 1952 * 8),
    "2.16.840.1.101.3.4.3.19": ("ml-dsa-87", 2592 * 8),
    "2.16.840.1.101.3.4.4.1": ("ml-kem-512", 800 * 8),
    "2.16.840.1.101.3.4.4.2": ("ml-kem-768", 1184 * 8),
    "2.16.840.1.101.3.4.4.3": ("ml-kem-1024", 1568 * 8),
}
_RSA = {"1.2.840.113549.1.1.1": "rsa", "1.2.840.113549.1.1.10": "rsa-pss"}
_EC = "1.2.840.10045.2.1"
_DSA = "1.2.840.10040.4.1"

CURVES_READ = "curves that are: P-256, P-384, P-521, P-224, P-192, secp256k1, and brainpool r1 of 256, 384 and 512 bits"
"""What to tell those whose key is on another curve; the table is `table.CURVES`."""


class PublicKeyFacts(NamedTuple):
    """What kind of key it is."""

    key_type: str
    """In the words of `interfaces.KeyHandle`."""
    bits: int
    exponent_bits: int = 0
    """Of an RSA key."""
    pss: SignatureMechanism | None = None
    """RSASSA-PSS keys: hash, mask and shortest salt that the key is bound to (RFC 4055 §1.2), where it is."""

    def allows(self, mechanism: SignatureMechanism) -> bool:
        """False where the key is bound to other RSASSA-PSS parameters than these, or to no other kind at all."""
        if self.key_type != "rsa-pss":
            return True
        # RFC 4055 §3.3: the same hash and mask, and a salt at least as long.
        return mechanism.kind == "rsassa-pss" and (
            self.pss is None
            or (
                (mechanism.digest, mechanism.mgf_digest) == (self.pss.digest, self.pss.mgf_digest)
                and mechanism.salt_length >= self.pss.salt_length
            )
        )


@lru_cache(maxsize=512)
def public_key_facts(spki: bytes) -> PublicKeyFacts:
    """Read a SubjectPublicKeyInfo; raise CryptoError for a kind of key that is not known, Asn1Error for what is none."""
    parts = read_single(spki, SEQUENCE, "SubjectPublicKeyInfo").children()
    if len(parts) != 2:
        raise Asn1Error("a SubjectPublicKeyInfo of more or less than two parts")
    oid, parameters = algorithm_of(parts[0])
    if oid in _RSA:
        numbers = read_single(read_bit_string(parts[1])[0], SEQUENCE, "RSAPublicKey").children()
        if len(numbers) != 2:
            raise Asn1Error("an RSAPublicKey of more or less than two numbers")
        modulus, exponent = map(read_integer, numbers)
        if modulus <= 0 or exponent <= 0:
            raise Asn1Error("an RSAPublicKey with numbers that cannot be")
        bound = None
        if _RSA[oid] == "rsa-pss" and parameters is not None and parameters.tag == SEQUENCE:
            bound = signature_mechanism("", parts[0].encoding, "rsa-pss")
        return PublicKeyFacts(_RSA[oid], modulus.bit_length(), exponent.bit_length(), bound)
    if oid == _EC:
        # RFC 5480 §2.1.1: namedCurve only; curves by their parameters are how CVE-2020-0601 forged certificates.
        if parameters is None or parameters.tag != 0x06:
            raise CryptoError("an elliptic curve that is not named")
        curve = CURVES.get(read_oid(parameters))
        if curve is None:
            raise CryptoError(f"elliptic curve {read_oid(parameters)} is not computed with", hint=CURVES_READ)
        return PublicKeyFacts(f"ec:{curve[0]}", curve[1])
    if oid == _DSA:
        if parameters is None:
            raise CryptoError("a DSA key without parameters")
        numbers = parameters.expect(SEQUENCE, "DSA parameters").children()
        return PublicKeyFacts("dsa", read_integer(numbers[0]).bit_length() if numbers else 0)
    if oid in _PLAIN:
        return PublicKeyFacts(*_PLAIN[oid])
    raise CryptoError(f"a public key of algorithm {oid} is not known")


def algorithm_parameters(spki: bytes) -> bytes | None:
    """The parameters of a SubjectPublicKeyInfo's algorithm; None where they are absent or NULL. Raises Asn1Error."""
    parameters = algorithm_of(read_single(spki, SEQUENCE, "SubjectPublicKeyInfo").children()[0])[1]
    return None if parameters is None or parameters.tag == 0x05 else parameters.encoding
