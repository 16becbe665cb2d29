"""Subject public keys (RFC 5280 §4.1.2.7) as facts: type, size, and what is known to be weak about them.

Nothing is computed with a key here. Names of key types are those of `interfaces.KeyHandle.key_type`. Invariant: any octets end in facts
or an `Asn1Error`; a key that is not understood has the type "unknown:OID".
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd, isqrt, prod
from typing import Final, NamedTuple

from mailsec.errors import Asn1Error
from mailsec.x509 import der

__all__ = ["KeyFacts", "has_close_primes", "key_facts"]

RSA: Final = "1.2.840.113549.1.1.1"
RSASSA_PSS: Final = "1.2.840.113549.1.1.10"
RSAES_OAEP: Final = "1.2.840.113549.1.1.7"
DSA: Final = "1.2.840.10040.4.1"
_EC: Final = "1.2.840.10045.2.1"

# RFC 5480 §2.1.1.1, RFC 5639 §4.1, SEC 2: named curves, and the bits of their order.
_CURVES: Final = {
    "1.2.840.10045.3.1.1": ("secp192r1", 192),
    "1.3.132.0.33": ("secp224r1", 224),
    "1.2.840.10045.3.1.7": ("secp256r1", 256),
    "1.3.132.0.34": ("secp384r1", 384),
    "1.3.132.0.35": ("secp521r1", 521),
    "1.3.132.0.10": ("secp256k1", 256),
    "1.3.36.3.3.2.8.1.1.7": ("brainpoolP256r1", 256),
    "1.3.36.3.3.2.8.1.1.11": ("brainpoolP384r1", 384),
    "1.3.36.3.3.2.8.1.1.13": ("brainpoolP512r1", 512),
}

# RFC 8410 §3, RFC 9881 §2, RFC 9935 §3: keys whose algorithm says all.
_PLAIN: Final = {
    "1.3.101.110": ("x25519", 256),
    "1.3.101.111": ("x448", 448),
    "1.3.101.112": ("ed25519", 256),
    "1.3.101.113": ("ed448", 456),
    "2.16.840.1.101.3.4.3.17": ("ml-dsa-44", 10496),
    "2.16.840.1.101.3.4.3.18": ("ml-dsa-65", 15616),
    "2.16.840.1.101.3.4.3.19": ("ml-dsa-87", 20736),
    "2.16.840.1.101.3.4.4.1": ("ml-kem-512", 6400),
    "2.16.840.1.101.3.4.4.2": ("ml-kem-768", 9472),
    "2.16.840.1.101.3.4.4.3": ("ml-kem-1024", 12544),
}

# CVE-2017-15361: the moduli of Infineon's library are powers of 65537 modulo small primes; these generate a small group, given as the
# set of its residues. Chance that another modulus lies in all of them: below 2^-27.
_ROCA_PRIMES: Final = (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)


def _residues(prime: int) -> frozenset[int]:
    found = {1}
    value = 65537 % prime
    while value not in found:
        found.add(value)
        value = value * 65537 % prime
    return frozenset(found)


_ROCA: Final = tuple((prime, _residues(prime)) for prime in _ROCA_PRIMES)

# NIST SP 800-89 §5.3.3: a modulus has no factor smaller than 752.
_SMALL_PRIMES: Final = prod(number for number in range(3, 752) if all(number % below for below in range(2, isqrt(number) + 1)))
# CVE-2022-26320, CVE-2023-26083's kin: generators that took the next prime but one. As in the baseline requirements for TLS, §6.1.1.3 (5).
_FERMAT_ROUNDS: Final = 100
_FERMAT_BITS: Final = 16384
_FILTER: Final = 64 * 9 * 5 * 7
_SQUARES: Final = frozenset(number * number % _FILTER for number in range(_FILTER // 2 + 1))
"""Residues of squares: 3 % of all numbers."""


class KeyFacts(NamedTuple):
    """What is known of a public key without using it."""

    type: str
    """ "rsa", "rsa-pss" (for PSS only, RFC 4055 §1.2), "dsa", "ec:secp256r1", "ed25519", "ml-dsa-65" …

    "ec:explicit" for curves that are written out, "unknown:OID" for the rest.
    """
    bits: int
    algorithm: str
    """The OID of the SubjectPublicKeyInfo."""
    weaknesses: tuple[str, ...]
    """ "rsa-exponent", "rsa-exponent-long", "rsa-modulus-even", "rsa-small-factor", "roca"."""
    parameters: bool
    """False where the algorithm's parameters are absent (DSA: inherited from the issuer, RFC 5280 §6.1.4 (e))."""


@lru_cache(maxsize=512)
def key_facts(spki: bytes) -> KeyFacts:
    """Read a SubjectPublicKeyInfo; raise Asn1Error where it is none."""
    _, _, content, end = der.single(spki, 0, len(spki), der.SEQUENCE, "public key")
    parts = der.split(spki, content, end, 2)
    if len(parts) != 2 or parts[0][0] != der.SEQUENCE or parts[1][0] != der.BIT_STRING:
        raise Asn1Error("public key: not an algorithm and a bit string")
    key = spki[parts[1][2] : parts[1][3]]
    if not key or key[0]:
        raise Asn1Error("public key: a bit string with unused bits")
    algorithm = der.split(spki, parts[0][2], parts[0][3], 2)
    if not algorithm or algorithm[0][0] != der.OID:
        raise Asn1Error("public key: an algorithm without identifier")
    dotted = der.oid(spki[algorithm[0][2] : algorithm[0][3]])
    parameters = len(algorithm) == 2
    if dotted in (RSA, RSASSA_PSS, RSAES_OAEP):
        return _rsa(key, dotted, parameters)
    if dotted == _EC:
        if parameters and algorithm[1][0] == der.OID:
            curve = der.oid(spki[algorithm[1][2] : algorithm[1][3]])
            name, bits = _CURVES.get(curve, (f"unknown:{curve}", 0))
            return KeyFacts(f"ec:{name}", bits, dotted, (), parameters)
        # RFC 5480 §2.1.1: specifiedCurve and implicitCurve are not used (CVE-2020-0601 came in by the first).
        return KeyFacts("ec:explicit", 0, dotted, (), parameters)
    if dotted in _PLAIN:
        name, bits = _PLAIN[dotted]
        return KeyFacts(name, bits, dotted, (), parameters)
    if dotted == DSA:
        bits = 0
        if parameters and algorithm[1][0] == der.SEQUENCE:
            numbers = der.split(spki, algorithm[1][2], algorithm[1][3], 3)
            bits = der.unsigned(spki, numbers[0][2], numbers[0][3]).bit_length() if numbers else 0
        return KeyFacts("dsa", bits, dotted, (), parameters)
    return KeyFacts(f"unknown:{dotted}", 0, dotted, (), parameters)


def _rsa(key: bytes, algorithm: str, parameters: bool) -> KeyFacts:
    modulus, exponent = _rsa_numbers(key)
    weaknesses = []
    # NIST SP 800-56B §6.2.1: an odd exponent over 1; with 1 every message is its own signature, an even one has no inverse.
    if exponent < 3 or not exponent & 1:
        weaknesses.append("rsa-exponent")
    if not modulus & 1:
        weaknesses.append("rsa-modulus-even")
    # One reduction by the product, then small numbers only; the primes of ROCA are among them.
    rest = modulus % _SMALL_PRIMES
    if gcd(rest, _SMALL_PRIMES) != 1:
        weaknesses.append("rsa-small-factor")
    if all(rest % prime in residues for prime, residues in _ROCA):
        weaknesses.append("roca")
    if exponent.bit_length() > 64:
        weaknesses.append("rsa-exponent-long")
    return KeyFacts("rsa-pss" if algorithm == RSASSA_PSS else "rsa", modulus.bit_length(), algorithm, tuple(weaknesses), parameters)


def _rsa_numbers(key: bytes) -> tuple[int, int]:
    _, _, content, end = der.single(key, 1, len(key), der.SEQUENCE, "RSA public key")
    numbers = der.split(key, content, end, 2)
    if len(numbers) != 2 or numbers[0][0] != der.INTEGER or numbers[1][0] != der.INTEGER:
        raise Asn1Error("RSA public key: not a modulus and an exponent")
    return der.unsigned(key, numbers[0][2], numbers[0][3]), der.unsigned(key, numbers[1][2], numbers[1][3])


@lru_cache(maxsize=512)
def has_close_primes(spki: bytes) -> bool:
    """Fermat's method: whether an RSA modulus falls apart within a few steps, as its primes lie close together.

    Costs about 15 µs, so it is asked of keys on a path, not of every key that a message brings. False for other keys, for those that
    are larger than any that is computed with, and for what nobody can read as a key.
    """
    try:
        facts = key_facts(spki)
    except Asn1Error:
        return False
    if not facts.type.startswith("rsa") or not 0 < facts.bits <= _FERMAT_BITS:
        return False
    _, _, content, end = der.single(spki, 0, len(spki), der.SEQUENCE, "public key")
    bits = der.split(spki, content, end, 2)[1]
    modulus, _ = _rsa_numbers(spki[bits[2] : bits[3]])
    if not modulus & 1:
        return False
    root = isqrt(modulus)
    if root * root == modulus:
        return True
    # The mean of the two is odd where the modulus is 1 more than a multiple of four, else even.
    root += 1 + ((root + 1 ^ modulus >> 1 ^ 1) & 1)
    rest, step = root * root - modulus, 4 * root + 4
    # Most numbers are no squares, and small residues tell: (root + 2n)² − modulus = rest + n·step + 4n·(n − 1).
    small, small_step = rest % _FILTER, step % _FILTER
    for number in range(_FERMAT_ROUNDS // 2):
        if small in _SQUARES:
            candidate = rest + number * step + 4 * number * (number - 1)
            if isqrt(candidate) ** 2 == candidate:
                return True
        small = (small + small_step) % _FILTER
        small_step += 8
    return False
