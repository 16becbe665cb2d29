"""The one table of algorithms, second part: content ciphers, key wraps, key transport, key agreement and their parameters.

RFC 3565 and RFC 5084 (AES), RFC 3394 (key wrap), RFC 4055 and RFC 3560 (OAEP), RFC 5753 and RFC 8418 (agreement), RFC 9629 and RFC 9936
(KEM), RFC 3370 (triple DES, RC2: legacy). Invariant: parameters are read strictly; what is not in the table is an error that names it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from mailsec.algorithms.table import DIGESTS, algorithm_of, digest_of
from mailsec.asn1 import writer
from mailsec.asn1.reader import INTEGER, OCTET_STRING, SEQUENCE, Element, read_single
from mailsec.asn1.values import read_integer
from mailsec.errors import Asn1Error, CryptoError
from mailsec.model.mechanism import TransportMechanism

__all__ = [
    "AGREEMENTS",
    "CIPHERS",
    "HKDFS",
    "WRAPS",
    "Agreement",
    "Cipher",
    "CipherParameters",
    "Wrap",
    "cipher_identifier",
    "cipher_parameters",
    "transport_identifier",
    "transport_mechanism",
    "wrap_of",
]


@dataclass(frozen=True, slots=True)
class Cipher:
    """A content cipher."""

    name: str
    oid: str
    algorithm: str
    """ "aes", "3des", "rc2"."""
    key_size: int
    mode: str
    """ "cbc", "gcm", "ccm"."""
    legacy: bool = False

    @property
    def authenticated(self) -> bool:
        """True where a changed octet is found out: for AuthEnvelopedData only."""
        return self.mode != "cbc"


_CIPHERS = (
    Cipher("aes-128-cbc", "2.16.840.1.101.3.4.1.2", "aes", 16, "cbc"),
    Cipher("aes-192-cbc", "2.16.840.1.101.3.4.1.22", "aes", 24, "cbc"),
    Cipher("aes-256-cbc", "2.16.840.1.101.3.4.1.42", "aes", 32, "cbc"),
    Cipher("aes-128-gcm", "2.16.840.1.101.3.4.1.6", "aes", 16, "gcm"),
    Cipher("aes-192-gcm", "2.16.840.1.101.3.4.1.26", "aes", 24, "gcm"),
    Cipher("aes-256-gcm", "2.16.840.1.101.3.4.1.46", "aes", 32, "gcm"),
    Cipher("aes-128-ccm", "2.16.840.1.101.3.4.1.7", "aes", 16, "ccm"),
    Cipher("aes-192-ccm", "2.16.840.1.101.3.4.1.27", "aes", 24, "ccm"),
    Cipher("aes-256-ccm", "2.16.840.1.101.3.4.1.47", "aes", 32, "ccm"),
    Cipher("3des-cbc", "1.2.840.113549.3.7", "3des", 24, "cbc", legacy=True),
    Cipher("rc2-128-cbc", "1.2.840.113549.3.2", "rc2", 16, "cbc", legacy=True),
    Cipher("rc2-64-cbc", "1.2.840.113549.3.2", "rc2", 8, "cbc", legacy=True),
    Cipher("rc2-40-cbc", "1.2.840.113549.3.2", "rc2", 5, "cbc", legacy=True),
)
CIPHERS = MappingProxyType({cipher.name: cipher for cipher in _CIPHERS})
_CIPHERS_BY_OID = {cipher.oid: cipher for cipher in _CIPHERS}

_CEK_HKDF = "1.2.840.113549.1.9.16.3.31"
"""id-alg-cek-hkdf-sha256 (RFC 9709 §2)."""


@dataclass(frozen=True, slots=True)
class CipherParameters:
    """A contentEncryptionAlgorithm, read."""

    cipher: Cipher
    nonce: bytes
    """The IV of CBC, the nonce of GCM and CCM."""
    tag_length: int = 0
    hkdf_info: bytes | None = None
    """RFC 9709: the AlgorithmIdentifier that the content key is derived with; None where the key is used as it is."""


def cipher_parameters(algorithm: bytes) -> CipherParameters:
    """Read a contentEncryptionAlgorithm; raise CryptoError for one that is not known, Asn1Error for broken parameters."""
    oid, parameters = algorithm_of(read_single(algorithm, SEQUENCE, "contentEncryptionAlgorithm"))
    if oid == _CEK_HKDF:
        if parameters is None:
            raise Asn1Error("a derived content key without the algorithm that it is for")
        inner = cipher_parameters(parameters.encoding)
        if inner.hkdf_info is not None:
            raise Asn1Error("a content key that is derived twice")
        return CipherParameters(inner.cipher, inner.nonce, inner.tag_length, parameters.encoding)
    cipher = _CIPHERS_BY_OID.get(oid)
    if cipher is None:
        raise CryptoError(f"content cipher {oid} is not known", hint="the sender should use AES")
    if parameters is None:
        raise Asn1Error(f"{cipher.name} without parameters")
    if cipher.algorithm == "rc2":
        return _rc2(parameters)
    if cipher.mode == "cbc":
        return CipherParameters(cipher, _iv(cipher, parameters))
    # RFC 5084 §3.1, §3.2: nonce, and the length of the tag, 12 by default.
    parts = parameters.expect(SEQUENCE, f"{cipher.name} parameters").children()
    if not 1 <= len(parts) <= 2:
        raise Asn1Error(f"{cipher.name} parameters of neither one nor two parts")
    nonce = parts[0].expect(OCTET_STRING, "nonce").content
    tag_length = read_integer(parts[1]) if len(parts) == 2 else 12
    # RFC 5084 §3.2: a GCM tag has 12 to 16 octets; a shorter one (CCM allows 4) is guessed, one message in 65,000.
    if tag_length not in ((12, 13, 14, 15, 16) if cipher.mode == "gcm" else (12, 14, 16)):
        raise CryptoError(f"{cipher.name} with a tag of {tag_length} octets")
    if not (8 <= len(nonce) <= 64 if cipher.mode == "gcm" else 7 <= len(nonce) <= 13):
        raise CryptoError(f"{cipher.name} with a nonce of {len(nonce)} octets")
    return CipherParameters(cipher, nonce, tag_length)


# RFC 3370 §5.2: the version stands for the effective bits.
_RC2_VERSIONS = {58: "rc2-128-cbc", 120: "rc2-64-cbc", 160: "rc2-40-cbc"}


def _rc2(parameters: Element) -> CipherParameters:
    parts = parameters.expect(SEQUENCE, "RC2-CBC parameters").children()
    name = _RC2_VERSIONS.get(read_integer(parts[0])) if len(parts) == 2 and parts[0].tag == INTEGER else None
    if name is None:
        raise CryptoError("RC2 with other than 40, 64 or 128 bits is not read")
    return CipherParameters(CIPHERS[name], _iv(CIPHERS[name], parts[1]))


def _iv(cipher: Cipher, parameters: Element) -> bytes:
    iv = parameters.expect(OCTET_STRING, "IV").content
    if len(iv) != (16 if cipher.algorithm == "aes" else 8):
        raise CryptoError(f"{cipher.name} with an IV of {len(iv)} octets")
    return iv


def cipher_identifier(cipher: Cipher, nonce: bytes, tag_length: int = 16) -> bytes:
    """AlgorithmIdentifier of a content cipher."""
    before, after = _around_nonce(cipher.oid, cipher.mode, len(nonce), tag_length)
    return before + nonce + after


@lru_cache(maxsize=64)
def _around_nonce(oid: str, mode: str, size: int, tag_length: int) -> tuple[bytes, bytes]:
    """What stands before and behind a nonce of `size` octets: the same in every message."""
    nonce = bytes(size)
    # RFC 5084 §3.1, §3.2: 12 octets of tag are the default.
    length = writer.integer(tag_length) if tag_length != 12 and mode != "cbc" else b""
    parameters = writer.octet_string(nonce)
    if mode != "cbc":
        parameters = writer.sequence(parameters, length)
    whole = writer.sequence(writer.oid(oid), parameters)
    return whole[: len(whole) - size - len(length)], length


# -- key transport --------------------------------------------------------------------------------------------------------------

_RSA = "1.2.840.113549.1.1.1"
_OAEP = "1.2.840.113549.1.1.7"
_MGF1 = "1.2.840.113549.1.1.8"
_P_SPECIFIED = "1.2.840.113549.1.1.9"


def transport_mechanism(algorithm: bytes) -> TransportMechanism:
    """Read a keyEncryptionAlgorithm of KeyTransRecipientInfo."""
    # A label may have any length: what is long is not remembered.
    return _known_transport(algorithm) if len(algorithm) <= 256 else _transport_mechanism(algorithm)


def _transport_mechanism(algorithm: bytes) -> TransportMechanism:
    oid, parameters = algorithm_of(read_single(algorithm, SEQUENCE, "keyEncryptionAlgorithm"))
    if oid == _RSA:
        return TransportMechanism("rsaes-pkcs1-v1_5")
    if oid != _OAEP:
        raise CryptoError(f"key transport by {oid} is not known")
    # RFC 4055 §4.1: defaults are SHA-1, MGF1 with SHA-1, and an empty label.
    digest, mgf_digest, label = "sha1", "sha1", b""
    last = 0
    for field in parameters.expect(SEQUENCE, "RSAES-OAEP-params").children() if parameters is not None else ():
        if not last < field.tag <= 0xA2 or field.tag < 0xA0:
            raise Asn1Error("RSAES-OAEP parameters out of order")
        last = field.tag
        value = field.only("RSAES-OAEP-params")
        if field.tag == 0xA0:
            digest = digest_of(value.encoding).name
            continue
        inner, inner_parameters = algorithm_of(value)
        if inner_parameters is None or inner != (_MGF1 if field.tag == 0xA1 else _P_SPECIFIED):
            raise CryptoError(f"RSAES-OAEP with {inner} is not known")
        if field.tag == 0xA1:
            mgf_digest = digest_of(inner_parameters.encoding).name
        else:
            label = inner_parameters.expect(OCTET_STRING, "label").content
    return TransportMechanism("rsaes-oaep", digest, mgf_digest, label)


_known_transport = lru_cache(maxsize=256)(_transport_mechanism)


@lru_cache(maxsize=32)
def transport_identifier(mechanism: TransportMechanism) -> bytes:
    """AlgorithmIdentifier of a key transport."""
    if mechanism.kind == "rsaes-pkcs1-v1_5":
        return writer.sequence(writer.oid(_RSA), writer.NULL)
    fields = []
    mgf_digest = mechanism.mgf_digest or mechanism.digest
    if mechanism.digest != "sha1":
        fields.append(writer.explicit(0, _with_null(mechanism.digest)))
    if mgf_digest != "sha1":
        fields.append(writer.explicit(1, writer.sequence(writer.oid(_MGF1), _with_null(mgf_digest))))
    if mechanism.label:
        fields.append(writer.explicit(2, writer.sequence(writer.oid(_P_SPECIFIED), writer.octet_string(mechanism.label))))
    return writer.sequence(writer.oid(_OAEP), writer.sequence(*fields))


def _with_null(digest: str) -> bytes:
    return writer.sequence(writer.oid(DIGESTS[digest].oid), writer.NULL)


# -- key wrap, agreement, derivation --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wrap:
    """A key wrap."""

    name: str
    oid: str
    key_size: int
    legacy: bool = False

    @property
    def identifier(self) -> bytes:
        """Its AlgorithmIdentifier, as it is written."""
        # RFC 3565 §2.3.2: parameters are absent for AES; RFC 3370 §4.3.1: NULL for triple DES.
        return writer.sequence(writer.oid(self.oid), writer.NULL if self.legacy else b"")


_WRAPS = (
    Wrap("aes-128-wrap", "2.16.840.1.101.3.4.1.5", 16),
    Wrap("aes-192-wrap", "2.16.840.1.101.3.4.1.25", 24),
    Wrap("aes-256-wrap", "2.16.840.1.101.3.4.1.45", 32),
    Wrap("3des-wrap", "1.2.840.113549.1.9.16.3.6", 24, legacy=True),
)
WRAPS = MappingProxyType({wrap.name: wrap for wrap in _WRAPS})
_WRAPS_BY_OID = {wrap.oid: wrap for wrap in _WRAPS}


def wrap_of(algorithm: bytes) -> Wrap:
    """Read the AlgorithmIdentifier of a key wrap."""
    oid, parameters = algorithm_of(read_single(algorithm, SEQUENCE, "key wrap"))
    wrap = _WRAPS_BY_OID.get(oid)
    if wrap is None:
        raise CryptoError(f"key wrap {oid} is not known")
    if parameters is not None and parameters.encoding != writer.NULL:
        raise Asn1Error("a key wrap with parameters")
    return wrap


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the shared secret of a key agreement becomes a key-encryption key."""

    oid: str
    kdf: str
    """ "x963" (RFC 5753 §7.1.4) or "hkdf" (RFC 8418 §2.2)."""
    digest: str
    cofactor: bool = False


_AGREEMENTS = (
    Agreement("1.3.133.16.840.63.0.2", "x963", "sha1"),
    Agreement("1.3.132.1.11.0", "x963", "sha224"),
    Agreement("1.3.132.1.11.1", "x963", "sha256"),
    Agreement("1.3.132.1.11.2", "x963", "sha384"),
    Agreement("1.3.132.1.11.3", "x963", "sha512"),
    Agreement("1.3.133.16.840.63.0.3", "x963", "sha1", cofactor=True),
    Agreement("1.3.132.1.14.0", "x963", "sha224", cofactor=True),
    Agreement("1.3.132.1.14.1", "x963", "sha256", cofactor=True),
    Agreement("1.3.132.1.14.2", "x963", "sha384", cofactor=True),
    Agreement("1.3.132.1.14.3", "x963", "sha512", cofactor=True),
    Agreement("1.2.840.113549.1.9.16.3.19", "hkdf", "sha256"),
    Agreement("1.2.840.113549.1.9.16.3.20", "hkdf", "sha384"),
    Agreement("1.2.840.113549.1.9.16.3.21", "hkdf", "sha512"),
)
AGREEMENTS = MappingProxyType({agreement.oid: agreement for agreement in _AGREEMENTS})

HKDFS = MappingProxyType(
    {
        "1.2.840.113549.1.9.16.3.28": "sha256",
        "1.2.840.113549.1.9.16.3.29": "sha384",
        "1.2.840.113549.1.9.16.3.30": "sha512",
    }
)
"""HKDF by its digest (RFC 8619), as KEMRecipientInfo names it."""
