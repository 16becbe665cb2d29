"""The one table of algorithms: digests and signatures by object identifier and by name, with their strength.

RFC 5754 (SHA-2), RFC 3370 (RSA), RFC 4055 and RFC 4056 (PSS), RFC 5480 and RFC 5753 (ECDSA), RFC 8419 and RFC 8410 (EdDSA), RFC 9882 and
RFC 9881 (ML-DSA), RFC 9688 (SHA-3). Invariant: what is not in the table is an error that names the identifier, never a guess.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType

from mailsec.asn1 import writer
from mailsec.asn1.reader import SEQUENCE, Element, read_single
from mailsec.asn1.values import read_integer, read_oid
from mailsec.errors import Asn1Error, CryptoError, UnknownAlgorithm
from mailsec.model.mechanism import SignatureMechanism

__all__ = [
    "CURVES",
    "DIGESTS",
    "DIGESTS_BY_OID",
    "SIGNATURE_OIDS",
    "Digest",
    "algorithm_identifier",
    "algorithm_of",
    "digest_identifier",
    "digest_of",
    "hashes_inside",
    "message_digest",
    "signature_mechanism",
    "signer_identifier",
]


@dataclass(frozen=True, slots=True)
class Digest:
    """A hash function."""

    name: str
    oid: str
    size: int
    """Octets of the digest."""
    strength: int
    """Bits of collision resistance, as known today; 0 where collisions have been shown."""


_DIGESTS = (
    Digest("sha256", "2.16.840.1.101.3.4.2.1", 32, 128),
    Digest("sha384", "2.16.840.1.101.3.4.2.2", 48, 192),
    Digest("sha512", "2.16.840.1.101.3.4.2.3", 64, 256),
    Digest("sha224", "2.16.840.1.101.3.4.2.4", 28, 112),
    Digest("sha512-224", "2.16.840.1.101.3.4.2.5", 28, 112),
    Digest("sha512-256", "2.16.840.1.101.3.4.2.6", 32, 128),
    Digest("sha3-224", "2.16.840.1.101.3.4.2.7", 28, 112),
    Digest("sha3-256", "2.16.840.1.101.3.4.2.8", 32, 128),
    Digest("sha3-384", "2.16.840.1.101.3.4.2.9", 48, 192),
    Digest("sha3-512", "2.16.840.1.101.3.4.2.10", 64, 256),
    # RFC 8702 §3.1: as message digests, SHAKE128 gives 256 bits and SHAKE256 gives 512.
    Digest("shake128", "2.16.840.1.101.3.4.2.11", 32, 128),
    Digest("shake256", "2.16.840.1.101.3.4.2.12", 64, 256),
    Digest("sha1", "1.3.14.3.2.26", 20, 0),
    Digest("md5", "1.2.840.113549.2.5", 16, 0),
)
DIGESTS = MappingProxyType({digest.name: digest for digest in _DIGESTS})
DIGESTS_BY_OID = MappingProxyType({digest.oid: digest for digest in _DIGESTS})

_SHAKE256_LEN = "2.16.840.1.101.3.4.2.18"
"""id-shake256-len (RFC 8419 §2.3): SHAKE256 with its output length in bits as parameter."""

_RSA = "1.2.840.113549.1.1.1"
_PSS = "1.2.840.113549.1.1.10"
_MGF1 = "1.2.840.113549.1.1.8"

_RSA_WITH = {
    "1.2.840.113549.1.1.4": "md5",
    "1.2.840.113549.1.1.5": "sha1",
    "1.3.14.3.2.29": "sha1",
    "1.2.840.113549.1.1.11": "sha256",
    "1.2.840.113549.1.1.12": "sha384",
    "1.2.840.113549.1.1.13": "sha512",
    "1.2.840.113549.1.1.14": "sha224",
    "1.2.840.113549.1.1.15": "sha512-224",
    "1.2.840.113549.1.1.16": "sha512-256",
    "2.16.840.1.101.3.4.3.13": "sha3-224",
    "2.16.840.1.101.3.4.3.14": "sha3-256",
    "2.16.840.1.101.3.4.3.15": "sha3-384",
    "2.16.840.1.101.3.4.3.16": "sha3-512",
}
_ECDSA_WITH = {
    "1.2.840.10045.4.1": "sha1",
    "1.2.840.10045.4.3.1": "sha224",
    "1.2.840.10045.4.3.2": "sha256",
    "1.2.840.10045.4.3.3": "sha384",
    "1.2.840.10045.4.3.4": "sha512",
    "2.16.840.1.101.3.4.3.9": "sha3-224",
    "2.16.840.1.101.3.4.3.10": "sha3-256",
    "2.16.840.1.101.3.4.3.11": "sha3-384",
    "2.16.840.1.101.3.4.3.12": "sha3-512",
}
_DSA_WITH = {
    "1.2.840.10040.4.3": "sha1",
    "1.3.14.3.2.27": "sha1",
    "2.16.840.1.101.3.4.3.1": "sha224",
    "2.16.840.1.101.3.4.3.2": "sha256",
    "2.16.840.1.101.3.4.3.3": "sha384",
    "2.16.840.1.101.3.4.3.4": "sha512",
}
_HASHING_INSIDE = {
    "1.3.101.112": "ed25519",
    "1.3.101.113": "ed448",
    "2.16.840.1.101.3.4.3.17": "ml-dsa-44",
    "2.16.840.1.101.3.4.3.18": "ml-dsa-65",
    "2.16.840.1.101.3.4.3.19": "ml-dsa-87",
}
_KEY_ALONE = {
    # RFC 3370 §3.2, §3.1: the identifier of the key stands for the signature; the digest is the SignerInfo's.
    _RSA: "rsassa-pkcs1-v1_5",
    "1.2.840.10040.4.1": "dsa",
    # Some CMS writers put id-ecPublicKey here; NSS and OpenSSL read it, as the digest is known.
    "1.2.840.10045.2.1": "ecdsa",
}

SIGNATURE_OIDS = MappingProxyType(
    {
        **{oid: ("rsassa-pkcs1-v1_5", digest) for oid, digest in _RSA_WITH.items()},
        **{oid: ("ecdsa", digest) for oid, digest in _ECDSA_WITH.items()},
        **{oid: ("dsa", digest) for oid, digest in _DSA_WITH.items()},
        **{oid: (kind, "") for oid, kind in _HASHING_INSIDE.items()},
    }
)
"""Identifier of a signature algorithm to (kind, digest); PSS has parameters instead."""

_OID_OF = {pair: oid for oid, pair in reversed(list(SIGNATURE_OIDS.items()))}

CURVES = MappingProxyType(
    {
        "1.2.840.10045.3.1.7": ("secp256r1", 256),
        "1.3.132.0.34": ("secp384r1", 384),
        "1.3.132.0.35": ("secp521r1", 521),
        "1.3.132.0.33": ("secp224r1", 224),
        "1.2.840.10045.3.1.1": ("secp192r1", 192),
        "1.3.132.0.10": ("secp256k1", 256),
        "1.3.36.3.3.2.8.1.1.7": ("brainpoolP256r1", 256),
        "1.3.36.3.3.2.8.1.1.11": ("brainpoolP384r1", 384),
        "1.3.36.3.3.2.8.1.1.13": ("brainpoolP512r1", 512),
    }
)
"""Identifier of a named curve (RFC 5480 §2.1.1.1, RFC 5639) to its name in `key_type` and its bits."""

_KEY_TYPES = {"rsassa-pkcs1-v1_5": ("rsa",), "rsassa-pss": ("rsa", "rsa-pss"), "dsa": ("dsa",)}

_MESSAGE_DIGESTS = {
    # RFC 8419 §3.1: SHA-512 with Ed25519, SHAKE256 of 512 bits with Ed448.
    "ed25519": ("sha512",),
    "ed448": ("shake256",),
    # RFC 9882 §4: digests of at least the strength of the signature; SHA-512 is what everybody has.
    "ml-dsa-44": ("sha512", "sha256", "sha384", "sha3-256", "sha3-384", "sha3-512", "shake128", "shake256", "sha512-256"),
    "ml-dsa-65": ("sha512", "sha384", "sha3-384", "sha3-512", "shake256"),
    "ml-dsa-87": ("sha512", "sha3-512", "shake256"),
}

# -- reading ------------------------------------------------------------------------------------------------------------------


def algorithm_of(element: Element) -> tuple[str, Element | None]:
    """AlgorithmIdentifier (RFC 5280 §4.1.1.2): its identifier, and its parameters where they are there."""
    element.expect(SEQUENCE, "AlgorithmIdentifier")
    parts = element.children()
    if not 1 <= len(parts) <= 2:
        raise Asn1Error("an AlgorithmIdentifier of neither one nor two parts")
    return read_oid(parts[0]), parts[1] if len(parts) == 2 else None


@lru_cache(maxsize=256)
def digest_of(der: bytes) -> Digest:
    """The digest of an AlgorithmIdentifier; raise CryptoError for one that is not in the table."""
    oid, parameters = algorithm_of(read_single(der, SEQUENCE, "digest algorithm"))
    if oid == _SHAKE256_LEN and parameters is not None and read_integer(parameters) == 512:
        return DIGESTS["shake256"]
    digest = DIGESTS_BY_OID.get(oid)
    if digest is None:
        raise UnknownAlgorithm(f"digest algorithm {oid} is not known", hint="the sender should use SHA-256")
    # RFC 5754 §2: parameters are absent; NULL is read too, nothing else.
    _absent_or_null(parameters)
    return digest


def _absent_or_null(parameters: Element | None) -> None:
    if parameters is not None and parameters.encoding != writer.NULL:
        raise Asn1Error("algorithm parameters where none belong")


@lru_cache(maxsize=512)
def signature_mechanism(digest: str, algorithm: bytes, key_type: str) -> SignatureMechanism:
    """The mechanism that an AlgorithmIdentifier means together with a message digest (a name of the table) and a key.

    `digest` is empty for what carries no digest algorithm of its own (certificates, CRLs, OCSP responses). Raises CryptoError for
    algorithms that are not known, or that contradict the digest or the key; Asn1Error for parameters that are broken.
    """
    oid, parameters = algorithm_of(read_single(algorithm, SEQUENCE, "signature algorithm"))
    if oid == _PSS:
        mechanism = _pss(parameters)
    elif oid in SIGNATURE_OIDS:
        kind, own = SIGNATURE_OIDS[oid]
        # RFC 5754 §3.2 NULL with RSA, §3.3 absent with ECDSA, RFC 8410 §3 absent with EdDSA: both are read for the first two kinds.
        if own:
            _absent_or_null(parameters)
        elif parameters is not None:
            raise Asn1Error(f"{kind} with parameters (RFC 8410 §3, RFC 9882 §3)")
        mechanism = SignatureMechanism(kind, own)
    elif oid in _KEY_ALONE and digest:
        # id-ecPublicKey may carry the curve, id-dsa its parameters: the certificate's are the ones that count.
        mechanism = SignatureMechanism(_KEY_ALONE[oid], digest)
    else:
        raise UnknownAlgorithm(f"signature algorithm {oid} is not known")
    if key_type.startswith("unknown:"):
        raise UnknownAlgorithm(f"keys of algorithm {key_type.removeprefix('unknown:')} are not computed with")
    if not _fits(mechanism.kind, key_type):
        raise CryptoError(f"a {mechanism.kind} signature by a key of type {key_type}")
    if digest and mechanism.digest and mechanism.digest != digest:
        # RFC 8933 §3, RFC 4056 §3: the digest of the attributes and the one within the signature algorithm are the same.
        raise CryptoError(f"message digest {digest}, but the signature is over {mechanism.digest}")
    if digest and mechanism.kind in _MESSAGE_DIGESTS and digest not in _MESSAGE_DIGESTS[mechanism.kind]:
        raise CryptoError(f"message digest {digest} does not go with {mechanism.kind}")
    return mechanism


def hashes_inside(algorithm: bytes) -> bool:
    """Whether an AlgorithmIdentifier is of a signature over octets, never over a digest (EdDSA, ML-DSA); False where it cannot be read."""
    try:
        return algorithm_of(read_single(algorithm, SEQUENCE))[0] in _HASHING_INSIDE
    except Asn1Error:
        return False


def _fits(kind: str, key_type: str) -> bool:
    if kind == "ecdsa":
        return key_type.startswith("ec:")
    return key_type in _KEY_TYPES.get(kind, (kind,))


def _pss(parameters: Element | None) -> SignatureMechanism:
    # RFC 4055 §3.1: in a signature algorithm the parameters are there; their fields have SHA-1 defaults, which are legacy.
    if parameters is None:
        raise CryptoError("RSASSA-PSS without parameters")
    digest, mgf_digest, salt_length = "sha1", "sha1", 20
    last = 0
    for field in parameters.expect(SEQUENCE, "RSASSA-PSS-params"):
        if not last < field.tag <= 0xA3 or field.tag < 0xA0:
            raise Asn1Error("RSASSA-PSS parameters out of order")
        last = field.tag
        value = field.only("RSASSA-PSS-params")
        if field.tag == 0xA0:
            digest = digest_of(value.encoding).name
        elif field.tag == 0xA1:
            oid, mgf_parameters = algorithm_of(value)
            if oid != _MGF1 or mgf_parameters is None:
                raise UnknownAlgorithm(f"mask generation function {oid} is not known")
            mgf_digest = digest_of(mgf_parameters.encoding).name
        elif field.tag == 0xA2:
            salt_length = read_integer(value)
            # A salt that fits no key: refused here, before anything is computed with it.
            if not 0 <= salt_length <= 2048:
                raise CryptoError("RSASSA-PSS with a salt length that cannot be")
        # RFC 4055 §3.1: the trailer field is 1.
        elif read_integer(value) != 1:
            raise CryptoError("RSASSA-PSS with another trailer field than 1")
    return SignatureMechanism("rsassa-pss", digest, mgf_digest, salt_length)


# -- writing ------------------------------------------------------------------------------------------------------------------


def digest_identifier(name: str) -> bytes:
    """AlgorithmIdentifier of a digest, as it is written."""
    # RFC 5754 §2: parameters are absent.
    return writer.sequence(writer.oid(DIGESTS[name].oid))


@lru_cache(maxsize=128)
def algorithm_identifier(mechanism: SignatureMechanism) -> bytes:
    """AlgorithmIdentifier of a signature, as certificates, requests and CRLs carry it."""
    mechanism = replace(mechanism, prehashed=False)
    if mechanism.kind == "rsassa-pss":
        # RFC 4055 §2.1, §3.1: hash and MGF1 identifiers with NULL are what every reader takes; a default field is left out in DER.
        fields = []
        if mechanism.digest != "sha1":
            fields.append(writer.explicit(0, _with_null(mechanism.digest)))
        if mechanism.mgf_digest != "sha1":
            fields.append(writer.explicit(1, writer.sequence(writer.oid(_MGF1), _with_null(mechanism.mgf_digest))))
        if mechanism.salt_length != 20:
            fields.append(writer.explicit(2, writer.integer(mechanism.salt_length)))
        return writer.sequence(writer.oid(_PSS), writer.sequence(*fields))
    oid = _OID_OF.get((mechanism.kind, mechanism.digest))
    if oid is None:
        raise CryptoError(f"{mechanism.kind} with {mechanism.digest or 'no digest'} has no identifier")
    if mechanism.kind == "rsassa-pkcs1-v1_5":
        # RFC 5754 §3.2: parameters are NULL.
        return writer.sequence(writer.oid(oid), writer.NULL)
    return writer.sequence(writer.oid(oid))


def _with_null(digest: str) -> bytes:
    return writer.sequence(writer.oid(DIGESTS[digest].oid), writer.NULL)


def signer_identifier(mechanism: SignatureMechanism) -> bytes:
    """AlgorithmIdentifier of a signature, as a SignerInfo carries it."""
    if mechanism.kind == "rsassa-pkcs1-v1_5":
        # RFC 3370 §3.2: rsaEncryption is what every reader of CMS must take; the digest stands beside it.
        return writer.sequence(writer.oid(_RSA), writer.NULL)
    return algorithm_identifier(mechanism)


def message_digest(mechanism: SignatureMechanism) -> str:
    """The digest of the content that goes with a mechanism in CMS, by name."""
    return mechanism.digest or _MESSAGE_DIGESTS[mechanism.kind][0]
