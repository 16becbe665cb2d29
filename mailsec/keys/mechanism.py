"""Which raw operation of a PKCS#11 token makes a signature or opens a wrapped key (PKCS #11 v3.1 §6), and how its octets are formed.

Hashing is done in software, the token gets the raw operation: what the least token can do is enough. Names of operations are those of
PKCS #11 without "CKM_". Invariant: pure functions; what is chosen makes exactly the signature that the mechanism means.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

from mailsec.algorithms.table import DIGESTS
from mailsec.asn1 import writer
from mailsec.asn1.reader import SEQUENCE, read_single
from mailsec.asn1.values import read_integer
from mailsec.errors import Asn1Error, CryptoError
from mailsec.model.mechanism import SignatureMechanism, TransportMechanism

__all__ = [
    "Operation",
    "digest_info",
    "ecdsa_concatenated",
    "ecdsa_sequence",
    "signature_operation",
    "transport_operation",
]

_NAMES: Final = {
    "sha1": "SHA1",
    "sha224": "SHA224",
    "sha256": "SHA256",
    "sha384": "SHA384",
    "sha512": "SHA512",
    "sha3-256": "SHA3_256",
    "sha3-384": "SHA3_384",
    "sha3-512": "SHA3_512",
}


class Operation(NamedTuple):
    """What the token is asked to do."""

    name: str
    """ "RSA_PKCS", "RSA_PKCS_PSS", "ECDSA", "SHA256_RSA_PKCS", "EDDSA", "ML_DSA", "RSA_PKCS_OAEP" …"""
    input: str
    """What it is given: "digest", "digest-info" (RFC 8017 §9.2), "octets" (all that is signed), or "ciphertext"."""
    output: str = "signature"
    """What it gives: "signature" as CMS carries it, "concatenated" (r and s of ECDSA, each as long as the order), or "key"."""


def signature_operation(mechanism: SignatureMechanism, offered: Collection[str]) -> Operation:
    """The operation for a signature, of those that the token offers; raise CryptoError where there is none.

    Raw operations come first: they are what every token has, and the octets to be hashed need not pass through it.
    """
    digest = _NAMES.get(mechanism.digest, "")
    wanted: list[Operation]
    if mechanism.kind == "rsassa-pkcs1-v1_5":
        wanted = [Operation("RSA_PKCS", "digest-info"), Operation(f"{digest}_RSA_PKCS", "octets")]
    elif mechanism.kind == "rsassa-pss":
        wanted = [Operation("RSA_PKCS_PSS", "digest"), Operation(f"{digest}_RSA_PKCS_PSS", "octets")]
    elif mechanism.kind == "ecdsa":
        wanted = [Operation("ECDSA", "digest", "concatenated"), Operation(f"ECDSA_{digest}", "octets", "concatenated")]
    elif mechanism.kind in ("ed25519", "ed448"):
        wanted = [Operation("EDDSA", "octets")]
    elif mechanism.kind.startswith("ml-dsa-"):
        wanted = [Operation("ML_DSA", "octets")]
    else:
        wanted = []
    for operation in wanted:
        # A digest that was made elsewhere cannot be given to an operation that hashes itself.
        if operation.name in offered and not (mechanism.prehashed and operation.input == "octets"):
            return operation
    raise CryptoError(f"the token makes no {mechanism.kind} signatures with {mechanism.digest or 'its own digest'}")


def transport_operation(mechanism: TransportMechanism, offered: Collection[str]) -> Operation:
    """The operation that opens a wrapped content key; raise CryptoError where the token has none."""
    name = {"rsaes-pkcs1-v1_5": "RSA_PKCS", "rsaes-oaep": "RSA_PKCS_OAEP"}.get(mechanism.kind, "")
    if name not in offered:
        raise CryptoError(f"the token does not open {mechanism.kind}")
    return Operation(name, "ciphertext", "key")


def digest_info(digest: str, value: bytes) -> bytes:
    """DigestInfo (RFC 8017 §9.2 step 2): what RSA_PKCS pads and signs."""
    known = DIGESTS[digest]
    if len(value) != known.size:
        raise CryptoError(f"a digest of {len(value)} octets where {digest} is expected")
    return writer.sequence(writer.sequence(writer.oid(known.oid), writer.NULL), writer.octet_string(value))


def ecdsa_sequence(concatenated: bytes) -> bytes:
    """Ecdsa-Sig-Value (RFC 3279 §2.2.3), as CMS and certificates carry it, of r and s as a token gives them."""
    half, odd = divmod(len(concatenated), 2)
    if odd or not half:
        raise CryptoError("an ECDSA signature of an odd number of octets")
    return writer.sequence(
        writer.integer(int.from_bytes(concatenated[:half], "big")), writer.integer(int.from_bytes(concatenated[half:], "big"))
    )


def ecdsa_concatenated(sequence: bytes, order_octets: int) -> bytes:
    """r and s of an Ecdsa-Sig-Value, each as long as the order of the curve."""
    try:
        numbers = [read_integer(part) for part in read_single(sequence, SEQUENCE, "Ecdsa-Sig-Value")]
        if len(numbers) != 2:
            raise Asn1Error("an Ecdsa-Sig-Value of more or less than two numbers")
        return b"".join([number.to_bytes(order_octets, "big") for number in numbers])
    except (Asn1Error, OverflowError):
        raise CryptoError("an ECDSA signature that is none") from None
