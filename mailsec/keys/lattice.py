"""Private keys of ML-DSA and ML-KEM as other programs write them: a seed, the expanded key, or both (RFC 9881 §6, RFC 9935 §6).

OpenSSL writes both. What is computed with here is the seed, which says all. Invariant: a key whose two forms do not belong to each other
is refused, never read as one of them.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from mailsec.asn1 import writer
from mailsec.asn1.reader import OCTET_STRING, SEQUENCE, read_single
from mailsec.asn1.values import read_oid
from mailsec.errors import Asn1Error, PrivateKeyError

__all__ = ["seed_only"]


class _Lattice(NamedTuple):
    name: str
    seed: int
    """Octets of the seed."""
    expanded: int
    """Octets of the expanded key (FIPS 203, FIPS 204)."""
    public: int
    """For ML-KEM: where the public key stands in the expanded one."""


_KINDS: Final = {
    "2.16.840.1.101.3.4.3.17": _Lattice("ML-DSA-44", 32, 2560, 0),
    "2.16.840.1.101.3.4.3.18": _Lattice("ML-DSA-65", 32, 4032, 0),
    "2.16.840.1.101.3.4.3.19": _Lattice("ML-DSA-87", 32, 4896, 0),
    "2.16.840.1.101.3.4.4.2": _Lattice("ML-KEM-768", 64, 2400, 1152),
    "2.16.840.1.101.3.4.4.3": _Lattice("ML-KEM-1024", 64, 3168, 1536),
}


def seed_only(pkcs8: bytes) -> bytes:
    """The same key with its seed alone; `pkcs8` itself where it is of another kind, or has no second form."""
    try:
        parts = read_single(pkcs8, SEQUENCE, "private key").children()
        kind = _KINDS.get(read_oid(parts[1].expect(SEQUENCE, "algorithm").children()[0]))
        if kind is None:
            return pkcs8
        held = parts[2].expect(OCTET_STRING, "private key").content
        if held[:1] == b"\x04":
            raise PrivateKeyError(f"the {kind.name} key has no seed, only its expanded form", hint="export it with its seed")
        if held[:1] != b"\x30":
            return pkcs8
        # RFC 9881 §6, RFC 9935 §6: both ::= SEQUENCE { seed OCTET STRING, expandedKey OCTET STRING }.
        seed, expanded = (one.expect(OCTET_STRING, kind.name).content for one in read_single(held, SEQUENCE, kind.name).children())
    except (Asn1Error, IndexError, ValueError):
        return pkcs8
    if len(seed) != kind.seed or len(expanded) != kind.expanded:
        raise PrivateKeyError(f"the {kind.name} key has parts of other lengths than such a key's")
    # [0] IMPLICIT: the seed alone.
    alone = writer.sequence(writer.integer(0), parts[1].encoding, writer.octet_string(writer.implicit(0, writer.octet_string(seed))))
    if not _belong(kind, seed, expanded, alone):
        raise PrivateKeyError(f"the seed and the expanded form of the {kind.name} key do not belong to each other")
    return alone


def _belong(kind: _Lattice, seed: bytes, expanded: bytes, alone: bytes) -> bool:
    """RFC 9881 §8.2, RFC 9935 §8.2: what the expanded key says of the public key is what the seed gives."""
    try:
        key: Any = serialization.load_der_private_key(alone, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    public: bytes = key.public_key().public_bytes_raw()
    if kind.public:
        # FIPS 203 §7.1: dk = dkPKE || ek || H(ek) || z, and the seed is d || z.
        return expanded[kind.public : kind.public + len(public)] == public and expanded[-32:] == seed[32:]
    # FIPS 204 §7.2: sk = rho || K || tr || ..., where pk = rho || t1 and tr = H(pk).
    return expanded[:32] == public[:32] and expanded[64:128] == hashlib.shake_256(public).digest(64)
