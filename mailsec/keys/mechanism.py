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
from mailsec.model.mechanism import AgreementMechanism, SignatureMechanism, TransportMechanism

__all__ = [
    "Operation",
    "agreement_operation",
    "decapsulation_operation",
    "digest_info",
    "ecdsa_concatenated",
    "ecdsa_sequence",
    "signature_operation",
    "transport_operation",
    "written",
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
    """What it is given: "digest", "digest-info" (RFC 8017 §9.2), "octets" (all that is signed), "padded" (as long as the modulus),
    "ciphertext" (a wrapped key, or what a KEM gave), or "point" (the peer's public key)."""
    output: str = "signature"
    """What it gives: "signature" as CMS carries it, "concatenated" (r and s of ECDSA, each as long as the order), "key", "padded" (a key
    in its padding), or "secret"."""


def written(operation: Operation, mechanism: SignatureMechanism | TransportMechanism | None = None) -> str:
    """The operation with its parameters, as a token host reads it: "CKM_ECDSA", "CKM_RSA_PKCS_PSS:sha256:32", "CKM_RSA_PKCS_OAEP:sha1:sha1"."""
    name = f"CKM_{operation.name}"
    if operation.name.endswith("RSA_PKCS_PSS") and isinstance(mechanism, SignatureMechanism):
        mask = mechanism.mgf_digest or mechanism.digest
        return f"{name}:{mechanism.digest}:{mechanism.salt_length}" + (f":{mask}" if mask != mechanism.digest else "")
    if operation.name == "RSA_PKCS_OAEP" and isinstance(mechanism, TransportMechanism):
        label = f":{mechanism.label.hex()}" if mechanism.label else ""
        return f"{name}:{mechanism.digest}:{mechanism.mgf_digest or mechanism.digest}{label}"
    return name


def signature_operation(mechanism: SignatureMechanism, offered: Collection[str], *, raw_rsa: bool = False) -> Operation:
    """The operation for a signature, of those that the token offers; raise CryptoError where there is none.

    Raw operations come first: they are what every token has, and the octets to be hashed need not pass through it. With `raw_rsa` the
    padding, too, may be made in software: the last resort.
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
    if raw_rsa and mechanism.kind.startswith("rsassa-"):
        wanted.append(Operation("RSA_X_509", "padded"))
    for operation in wanted:
        # A digest that was made elsewhere cannot be given to an operation that hashes itself.
        if operation.name in offered and not (mechanism.prehashed and operation.input == "octets"):
            return operation
    raise CryptoError(f"the token makes no {mechanism.kind} signatures with {mechanism.digest or 'its own digest'}")


def transport_operation(mechanism: TransportMechanism, offered: Collection[str], *, raw_rsa: bool = False) -> Operation:
    """The operation that opens a wrapped content key; raise CryptoError where the token has none.

    A token that was seen refusing OAEP with some hash says so by "-RSA_PKCS_OAEP:HASH" among what it offers. With `raw_rsa` the padding
    may then be taken off in software.
    """
    name = {"rsaes-pkcs1-v1_5": "RSA_PKCS", "rsaes-oaep": "RSA_PKCS_OAEP"}.get(mechanism.kind, "")
    if name in offered and f"-{name}:{mechanism.digest}" not in offered:
        return Operation(name, "ciphertext", "key")
    if raw_rsa and mechanism.kind == "rsaes-oaep" and "RSA_X_509" in offered:
        return Operation("RSA_X_509", "ciphertext", "padded")
    raise CryptoError(f"the token does not open {mechanism.kind}{f' with {mechanism.digest}' if mechanism.digest else ''}")


def agreement_operation(mechanism: AgreementMechanism, offered: Collection[str]) -> Operation:
    """The operation of a raw key agreement, without KDF (that is software's); raise CryptoError where the token has none.

    RFC 5753 §3.1.1: on curves of cofactor 1, and there are no others in the table, both are the same.
    """
    names = ("ECDH1_COFACTOR_DERIVE", "ECDH1_DERIVE") if mechanism.cofactor else ("ECDH1_DERIVE", "ECDH1_COFACTOR_DERIVE")
    for name in names:
        if name in offered:
            return Operation(name, "point", "secret")
    raise CryptoError(f"the token does not agree on keys by {mechanism.kind}")


def decapsulation_operation(offered: Collection[str]) -> Operation:
    """The operation that takes a shared secret out of a ciphertext of ML-KEM; raise CryptoError where the token has none."""
    if "ML_KEM" in offered:
        return Operation("ML_KEM", "ciphertext", "secret")
    raise CryptoError("the token does not decapsulate: it has no CKM_ML_KEM, or no C_DecapsulateKey of PKCS#11 3.2")


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
