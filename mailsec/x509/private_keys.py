"""Private keys that mailsec makes and issues with: their kinds, how each signs X.509 structures, and what its certificate may be used for.

PKCS#8 DER goes in and out. Pure, but for what `cryptography` draws for keys and signatures. The one invariant: a key is asked for nothing
that its kind cannot do: Ed25519 and ML-DSA encrypt nothing, X25519 and ML-KEM sign nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, mlkem, rsa, x25519
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from mailsec.errors import PrivateKeyError, UsageError

__all__ = [
    "KEY_KINDS",
    "encrypting_usages",
    "load_private",
    "load_public",
    "make_key",
    "public_key_of",
    "signature_digest",
    "signing_usages",
]

_MAKERS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "ed25519": ed25519.Ed25519PrivateKey,
        "x25519": x25519.X25519PrivateKey,
        "ml-dsa-44": mldsa.MLDSA44PrivateKey,
        "ml-dsa-65": mldsa.MLDSA65PrivateKey,
        "ml-dsa-87": mldsa.MLDSA87PrivateKey,
        "ml-kem-768": mlkem.MLKEM768PrivateKey,
        "ml-kem-1024": mlkem.MLKEM1024PrivateKey,
    }
)
_CURVES: Final[Mapping[str, type[ec.EllipticCurve]]] = MappingProxyType(
    {"ec-p256": ec.SECP256R1, "ec-p384": ec.SECP384R1, "ec-p521": ec.SECP521R1}
)
_RSA: Final = ("rsa-2048", "rsa-3072", "rsa-4096")

KEY_KINDS: Final = (*_RSA, *_CURVES, *_MAKERS)

_Signing = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | mldsa.MLDSA44PrivateKey
    | mldsa.MLDSA65PrivateKey
    | mldsa.MLDSA87PrivateKey
)
_ML_DSA_PUBLIC: Final = (mldsa.MLDSA44PublicKey, mldsa.MLDSA65PublicKey, mldsa.MLDSA87PublicKey)
_ML_KEM_PUBLIC: Final = (mlkem.MLKEM768PublicKey, mlkem.MLKEM1024PublicKey)


def make_key(kind: str) -> bytes:
    """A new private key of one of `KEY_KINDS`, as PKCS#8 DER."""
    key: Any
    if kind in _RSA:
        key = rsa.generate_private_key(65537, int(kind.removeprefix("rsa-")))
    elif kind in _CURVES:
        key = ec.generate_private_key(_CURVES[kind]())
    elif kind in _MAKERS:
        key = _MAKERS[kind].generate()
    else:
        raise UsageError(f"there is no key of kind {kind!r}", hint="one of " + ", ".join(KEY_KINDS))
    der: bytes = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return der


def public_key_of(private_key: bytes) -> bytes:
    """The SubjectPublicKeyInfo of a PKCS#8 key."""
    try:
        public: Any = load_der_private_key(private_key, None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise PrivateKeyError("the private key cannot be read", hint="give it as unencrypted PKCS#8") from None
    der: bytes = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return der


def load_private(private_key: bytes) -> _Signing:
    """A key that signs certificates, requests and lists. Raise PrivateKeyError for one that cannot."""
    try:
        key = load_der_private_key(private_key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise PrivateKeyError("the private key cannot be read", hint="give it as unencrypted PKCS#8") from None
    if not isinstance(key, _Signing):
        raise PrivateKeyError("a key of this kind signs nothing", hint="use an RSA, EC, Ed25519 or ML-DSA key")
    return key


def load_public(public_key: bytes) -> Any:
    """A key that a certificate may be issued for. Raise PrivateKeyError for others."""
    try:
        key = load_der_public_key(public_key)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise PrivateKeyError("the public key cannot be read", hint="use an RSA, EC, Ed25519, X25519, ML-DSA or ML-KEM key") from None
    if not (signing_usages(key) or encrypting_usages(key)):
        raise PrivateKeyError("certificates are not issued for keys of this kind", hint="use RSA, EC, Ed25519, X25519, ML-DSA or ML-KEM")
    return key


def signature_digest(key: _Signing) -> SHA256 | SHA384 | SHA512 | None:
    """The digest that `key` signs structures with."""
    # RFC 8410 §3, RFC 9881 §3: EdDSA and ML-DSA hash inside. RFC 5480 §4: a digest that is as strong as the curve.
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return SHA256() if key.curve.key_size <= 256 else SHA384() if key.curve.key_size <= 384 else SHA512()
    return SHA256() if isinstance(key, rsa.RSAPrivateKey) else None


def signing_usages(public: object) -> tuple[str, ...]:
    """Bits of keyUsage for a certificate that verifies signatures of mail; none where the key cannot sign."""
    # RFC 8550 §4.4.2: digitalSignature or nonRepudiation is needed to verify a signature; RFC 9881 §5: so for ML-DSA.
    able = (rsa.RSAPublicKey, ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey, *_ML_DSA_PUBLIC)
    return ("digital_signature",) if isinstance(public, able) else ()


def encrypting_usages(public: object) -> tuple[str, ...]:
    """Bits of keyUsage for a certificate that is encrypted to; none where the key cannot decrypt."""
    # RFC 5280 §4.2.1.3: keyEncipherment for key transport, keyAgreement for key agreement; RFC 9935 §5: keyEncipherment for ML-KEM;
    # RFC 8410 §5: keyAgreement for X25519.
    if isinstance(public, (rsa.RSAPublicKey, *_ML_KEM_PUBLIC)):
        return ("key_encipherment",)
    return ("key_agreement",) if isinstance(public, (ec.EllipticCurvePublicKey, x25519.X25519PublicKey)) else ()
